"""The bound: what the call could cost at most, from the request alone, the price, and what recent calls taught."""

from math import ceil

from addons.call import Call
from addons.policy import AssumedPrice
from addons.providers.media import media_tokens_max
from addons.providers.registry import TOKENS_PER_BYTE_P99
from addons.services import Services
from addons.steps.learned import MARGIN
from store.ledger.types import Cap
from store.prices.bound import Bound, make_bound
from store.prices.cost import PatchOf, no_patch
from store.prices.types import ModelLimits, ModelPrice, Rates, Tier

UNKNOWN_CONTEXT_TOKENS = 1_000_000
"""The context assumed for input that nobody can see, of a model whose own is not known."""
UNSEEN = -1.0
"""What `Learned` answers for a model it has not seen."""
UNKNOWN_OUTPUT_TOKENS = 128_000
"""The output assumed of a model whose maximum is not known, where the request sets none."""
ASSUMED_SOURCE = "gateway.unpriced"
LIKELY_TOKENS_PER_BYTE = 0.3
"""Between prose (a quarter) and dense code; the input of a call that broke before anything was reported or learnt."""


def estimate(call: Call, services: Services, caps: tuple[Cap, ...]) -> None:
    """Fill price, token bounds and the money bound; a strict one too where one of `caps` is strict.

    Unknown price: `price` stays None, and `reserve` decides. Of models that may answer instead each counts, at its dearest.
    """
    _estimate_one(call, services, caps)
    model = call.model
    try:
        for other in call.other_models:
            _widen(call, services, caps, model, other)
    finally:
        call.model = model


def _widen(call: Call, services: Services, caps: tuple[Cap, ...], model: str, other: str) -> None:
    """Make the bounds cover an answer by `other` as well."""
    price, name, bound, strict = call.price, call.price_provider, call.bound, call.strict_bound
    free, must_limit, assumed = call.free, call.must_limit, call.assumed_price
    before = (call.input_tokens_bound, call.input_tokens_estimate, call.output_tokens_bound, call.output_floor, call.output_typical)
    call.model, call.price, call.bound, call.strict_bound = other, None, None, None
    call.free = call.must_limit = False
    _estimate_one(call, services, caps)
    known = price is not None and call.price is not None
    if not known and not call.unpriced_model:
        call.unpriced_model = other if call.price is None else model
    call.price, call.price_provider, call.assumed_price = (price if known else None), name, assumed
    call.bound, call.strict_bound = _dearest(bound, call.bound) if known else None, _dearest(strict, call.strict_bound)
    call.free, call.must_limit = free and call.free, must_limit or call.must_limit
    now = (call.input_tokens_bound, call.input_tokens_estimate, call.output_tokens_bound, call.output_floor, call.output_typical)
    (
        call.input_tokens_bound,
        call.input_tokens_estimate,
        call.output_tokens_bound,
        call.output_floor,
        call.output_typical,
    ) = (max(pair) for pair in zip(before, now, strict=True))


def _dearest(one: Bound | None, other: Bound | None) -> Bound | None:
    """A bound that covers both, whatever the length of the answer."""
    if one is None or other is None:
        return one or other
    return Bound(
        max(one.input_nanos, other.input_nanos),
        max(one.output_picos_per_token, other.output_picos_per_token),
        max(one.fixed_nanos, other.fixed_nanos),
    )


def _estimate_one(call: Call, services: Services, caps: tuple[Cap, ...]) -> None:
    facts, provider, family = call.facts, call.provider, call.family
    if facts is None or provider is None or family is None:
        return
    call.region = facts.region or call.region
    _find_price(call, services)
    known = services.limits.limits(call.price_provider, call.model)
    _bound_input(call, services, known)
    _bound_output(call, services, known)
    if call.price is None:
        return
    call.free = call.price.is_zero
    call.bound = _bound(call, call.price, call.input_tokens_bound)
    if any(cap.strict for cap in caps):
        call.strict_bound = _bound(call, call.price, _strict_input(call, services, known))


def _find_price(call: Call, services: Services) -> None:
    facts, provider, family = call.facts, call.provider, call.family
    if facts is None or provider is None or family is None:
        return
    call.assumed_price = False
    call.patch_of = _overrides_of(call)
    patch = call.patch_of(call.model)
    names = tuple(filter(None, dict.fromkeys((provider.name, family.name, family.prices_of))))
    # An override changes the price of the name that has one; it stands alone where none has.
    tries = [(name, None) for name in names] if patch is None else [(_priced_name(call, services, names), patch)]
    for name, on_top in tries:
        call.price_provider = name
        call.price = services.book.asked_price(
            name,
            call.model,
            call.at_ms,
            service_tier=facts.service_tier,
            speed=facts.speed,
            region=call.region,
            patch=on_top,
        )
        if call.price is not None:
            return
    call.price_provider = provider.name
    unpriced = services.policy.unpriced
    if isinstance(unpriced, AssumedPrice):
        call.assumed_price = True
        rates = Rates(unpriced.input_picos, unpriced.output_picos)
        call.price = ModelPrice(provider.name, call.model, (Tier(-1, rates),), ASSUMED_SOURCE)


def _overrides_of(call: Call) -> PatchOf:
    """The governance's own prices for this caller, at this provider and with this provider key, whatever the model."""
    prices = call.governance().prices
    if not prices:
        return no_patch
    key = call.virtual_key.id if call.virtual_key else ""
    provider = call.provider.name if call.provider else ""
    provider_key = call.provider_key.id if call.provider_key else ""
    operation = call.operation
    return lambda model: prices.find(key, provider, provider_key, model, operation)


def _priced_name(call: Call, services: Services, names: tuple[str, ...]) -> str:
    """The first of a provider's names under which the price book knows the model."""
    return next((name for name in names if services.book.price(name, call.model, call.at_ms) is not None), names[0])


def _bound_input(call: Call, services: Services, known: ModelLimits) -> None:
    """Learnt tokens a byte with a margin; before any call was seen the dialect's 99th percentile. Never above one a byte."""
    facts = call.facts
    if facts is None or call.provider is None or call.dialect is None:
        return
    default = float(TOKENS_PER_BYTE_P99[call.dialect.name])
    learnt = services.learned.tokens_per_byte(call.provider.name, call.model, UNSEEN)
    ratio = default if learnt == UNSEEN else learnt
    likely = LIKELY_TOKENS_PER_BYTE if learnt == UNSEEN else learnt / MARGIN
    media = sum(_media_tokens(call).values())
    text = min(facts.text_bytes, ceil(facts.text_bytes * ratio))
    bound = text + facts.overhead_tokens + media + _unseen(call, services, known)
    call.input_tokens_bound = _within(bound, known.context_tokens)
    call.input_tokens_estimate = min(call.input_tokens_bound, ceil(facts.text_bytes * likely) + facts.overhead_tokens + media)


def _media_tokens(call: Call) -> dict[str, int]:
    """The most tokens of each kind of media in the request."""
    facts, dialect = call.facts, call.dialect
    tokens: dict[str, int] = {}
    if facts is not None and dialect is not None:
        for item in facts.media:
            tokens[item.kind] = tokens.get(item.kind, 0) + media_tokens_max(dialect.name, call.model, item)
    return tokens


def _unseen(call: Call, services: Services, known: ModelLimits) -> int:
    """Input that the provider adds: what an earlier answer under this id will bring, else the model's whole context."""
    facts = call.facts
    if facts is None or not (facts.unseen_input or facts.server_tools):
        return 0
    if facts.unseen_key is not None and not facts.server_tools:
        remembered = services.answers.tokens(facts.unseen_key)
        if remembered is not None:
            return remembered
    return known.context_tokens or UNKNOWN_CONTEXT_TOKENS


def _bound_output(call: Call, services: Services, known: ModelLimits) -> None:
    facts = call.facts
    if facts is None or call.provider is None or not facts.has_output:
        return
    most = known.max_output_tokens or known.context_tokens or UNKNOWN_OUTPUT_TOKENS
    # The request's own limit is what the provider is asked for, whatever our tables say of the model; without one, and without
    # a maximum anybody knows, the bound is written into the request so that the provider keeps it.
    each = most if facts.output_limit is None else facts.output_limit
    call.must_limit = facts.output_limit is None and known.max_output_tokens is None
    call.output_tokens_bound = each * facts.candidates
    key_id = call.virtual_key.id if call.virtual_key else ""
    usual = services.learned.usual_output(key_id, call.provider.name, call.model) or 0
    floor = max(services.policy.min_output_tokens, 2 * usual, facts.minimum_output) * facts.candidates
    call.output_floor = min(floor, call.output_tokens_bound)
    typical = services.learned.typical_output(key_id, call.provider.name, call.model)
    call.output_typical = min(
        call.output_tokens_bound, services.policy.min_output_tokens * facts.candidates if typical is None else typical
    )


def _strict_input(call: Call, services: Services, known: ModelLimits) -> int:
    """One token per byte of text: true of every byte-level tokenizer. Media and unseen input as in the other bound."""
    facts = call.facts
    if facts is None:
        return call.input_tokens_bound
    others = facts.overhead_tokens + sum(_media_tokens(call).values()) + _unseen(call, services, known)
    return _within(facts.text_bytes + others, known.context_tokens)


def _within(tokens: int, most: int | None) -> int:
    return tokens if most is None else min(tokens, most)


def _bound(call: Call, price: ModelPrice, input_tokens: int) -> Bound:
    facts = call.facts
    if facts is None:
        return make_bound(price, input_tokens=input_tokens)
    media = _media_tokens(call)
    return make_bound(
        price,
        input_tokens=input_tokens,
        input_audio_tokens=min(input_tokens, media.get("audio", 0) + media.get("video", 0)),
        input_image_tokens=min(input_tokens, media.get("image", 0) + media.get("document", 0)),
        input_video_tokens=min(input_tokens, media.get("video", 0)),
        writes_cache=facts.writes_cache,
        writes_cache_1h=facts.writes_cache_1h,
        web_searches=facts.web_searches_max,
    )
