"""What people may ask for of pricing overrides: the same in config.json and in the API.

Prices are USD per single token, exact. One that looks like a price per million tokens is refused unless the document says so.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema, create_model, field_validator, model_validator

from store.config_store.fields import Bool, Id, Name, loads_exact
from store.config_store.price_overrides import REQUEST_TYPES, UNMETERED_TYPES, operations_of
from store.config_store.problems import nearest
from store.config_store.specs import Spec
from store.prices.patch import APIECE, FIELDS, picos_of

LARGE_PER_TOKEN = Decimal("0.001")
"""USD. $1,000 per million tokens; the dearest model there is costs $600."""
LARGE_APIECE = Decimal(1)
"""USD for one search or one request; a search costs a few cents at most."""

ScopeKind = Literal[
    "global", "provider", "provider_key", "virtual_key", "virtual_key_provider", "virtual_key_provider_key"
]  # fmt: skip
SCOPE_IDS: Mapping[str, frozenset[str]] = {
    "global": frozenset(),
    "provider": frozenset({"provider_id"}),
    "provider_key": frozenset({"provider_key_id"}),
    "virtual_key": frozenset({"virtual_key_id"}),
    "virtual_key_provider": frozenset({"virtual_key_id", "provider_id"}),
    "virtual_key_provider_key": frozenset({"virtual_key_id", "provider_id", "provider_key_id"}),
}
"""Which ids each scope needs; the others must not be given."""
ID_NAMES = ("virtual_key_id", "provider_id", "provider_key_id")


def check_price(value: Any) -> Any:
    """A price in USD from JSON or TOML, exact. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        raise ValueError("must be a price in USD, such as 0.0000025")
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a price in USD; write it like 0.0000025") from None
    return amount if picos_of(amount) else Decimal(0)  # a zero may have an exponent of a thousand million


Price = Annotated[Decimal, BeforeValidator(check_price), WithJsonSchema({"type": "number", "minimum": 0})]


class _PatchBase(Spec):
    """Prices in USD: per single token, per search, per request."""

    unimplemented = frozenset(
        {"input_cost_per_character", "output_cost_per_character", "input_cost_per_image", "output_cost_per_image",
         "input_cost_per_pixel", "output_cost_per_pixel", "output_cost_per_image_premium_image",
         "output_cost_per_image_above_512_and_512_pixels",
         "output_cost_per_image_above_512_and_512_pixels_and_premium_image",
         "output_cost_per_image_above_1024_and_1024_pixels",
         "output_cost_per_image_above_1024_and_1024_pixels_and_premium_image",
         "output_cost_per_image_above_2048_and_2048_pixels", "output_cost_per_image_above_4096_and_4096_pixels",
         "output_cost_per_image_low_quality", "output_cost_per_image_medium_quality", "output_cost_per_image_high_quality",
         "output_cost_per_image_auto_quality", "input_cost_per_image_above_128k_tokens",
         "input_cost_per_video_per_second_above_128k_tokens", "input_cost_per_audio_per_second_above_128k_tokens",
         "input_cost_per_audio_per_second", "input_cost_per_second", "input_cost_per_video_per_second",
         "output_cost_per_video_per_second", "output_cost_per_second", "cache_creation_input_audio_token_cost",
         "code_interpreter_cost_per_session", "inference_geo_us_multiplier", "ocr_cost_per_page",
         "annotation_cost_per_page"}
    )  # fmt: skip


_PRICE_FIELDS: Any = dict.fromkeys(FIELDS, (Price | None, None))
PatchSpec = create_model("PricingPatch", __base__=_PatchBase, __doc__=_PatchBase.__doc__, **_PRICE_FIELDS)
"""The single prices an override sets. Null is the same as absent."""


def prices_of(patch: Spec | None) -> dict[str, Decimal]:
    """The prices that a patch names, in the order of `FIELDS`."""
    return {name: price for name in FIELDS if (price := getattr(patch, name, None)) is not None}


def per_million(name: str, usd: Decimal) -> Decimal | None:
    """A price per token as one per million tokens; None for what is not per token."""
    return None if name in APIECE else usd * 1_000_000


def is_large(name: str, usd: Decimal) -> bool:
    """Whether a price is so high that it is most likely meant for a million tokens (or a thousand searches)."""
    return usd > (LARGE_APIECE if name in APIECE else LARGE_PER_TOKEN)


def _refuse_large(patch: Spec) -> None:
    for name, usd in prices_of(patch).items():
        if not is_large(name, usd):
            continue
        if name in APIECE:
            raise ValueError(
                f"patch.{name}: {usd:f} USD for each one is ${usd * 1000:,f} per 1,000 of them; if that is what it costs, add "
                '"confirm_high_prices": true beside patch'
            )
        raise ValueError(
            f"patch.{name}: {usd:f} USD per token is ${_plain(usd * 1_000_000)} per million tokens; prices here are per single "
            f"token, so that ${_plain(usd)} per million is {usd / 1_000_000:f}. If the high price is meant, add "
            '"confirm_high_prices": true beside patch'
        )


def _plain(usd: Decimal) -> str:
    text = f"{usd:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _written(value: Any) -> Any:
    """A patch may come as the JSON text that Bifrost keeps."""
    if not isinstance(value, str):
        return value
    try:
        return loads_exact(value)
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from None


PatchGiven = Annotated[PatchSpec | None, BeforeValidator(_written)]  # type: ignore[valid-type]


class _Override(Spec):
    """What making and changing an override share."""

    unimplemented = frozenset({"user_id"})
    read_only = frozenset({"config_hash", "patch_per_million_usd", "complete", "created_at", "updated_at"})

    patch: PatchGiven = None
    pricing_patch: PatchGiven = None
    """The same under the name that Bifrost's file has for it."""

    @property
    def prices(self) -> Spec | None:
        """What the document sets, whichever of its two names was used."""
        return self.patch if self.patch is not None else self.pricing_patch

    @model_validator(mode="after")
    def _one_patch(self) -> Self:
        if self.patch is not None and self.pricing_patch is not None:
            raise ValueError("give patch or pricing_patch, not both: they are two names of one thing")
        return self


def _check_types(names: tuple[str, ...]) -> tuple[str, ...]:
    """Bifrost's words for kinds of requests. Raises ValueError."""
    known = (*REQUEST_TYPES, *sorted(UNMETERED_TYPES))
    for name in names:
        if name.endswith("_stream") and name.removesuffix("_stream") in known:
            raise ValueError(f"{name!r}: write {name.removesuffix('_stream')!r}, which is for streamed calls too")
        if name not in known:
            raise ValueError(f"{name!r} is no request type; {nearest(name, known)}")
    if not names:
        raise ValueError(f"must name at least one of {', '.join(REQUEST_TYPES)}")
    if len({*names}) != len(names):
        raise ValueError("names something twice")
    return names


def _check_pattern(pattern: str, match_type: str) -> None:
    bare = pattern.removesuffix("*") if match_type == "wildcard" else pattern
    if pattern != pattern.strip():
        raise ValueError("pattern: begins or ends with a blank; take it away")
    if match_type == "wildcard" and not pattern.endswith("*"):
        raise ValueError('pattern: must end in * with match_type "wildcard", such as gpt-4o*')
    if "*" in bare:
        raise ValueError(
            'pattern: has * before its end; only one at the end is understood, with match_type "wildcard"'
            if match_type == "wildcard"
            else 'pattern: has *, which match_type "exact" does not understand; use "wildcard"'
        )


def check_scope(scope_kind: str, ids: Mapping[str, str | None]) -> None:
    """Exactly the ids that a scope needs. Raises ValueError."""
    needed = SCOPE_IDS[scope_kind]
    for name in ID_NAMES:
        if name in needed and not ids.get(name):
            raise ValueError(f"{name}: is required with scope_kind {scope_kind!r}")
        if name not in needed and ids.get(name):
            raise ValueError(f"{name}: does not go with scope_kind {scope_kind!r}; leave it out")


class PricingOverrideSpec(_Override):
    """A price of one's own for some models, narrowed to a virtual key, a provider or one of its keys."""

    id: Id | None = None
    name: Name
    scope_kind: ScopeKind
    virtual_key_id: Id | None = None
    provider_id: Name | None = None
    provider_key_id: Id | None = None
    match_type: Literal["exact", "wildcard"]
    pattern: Name
    request_types: tuple[str, ...]
    confirm_high_prices: Bool = False
    """Prices above $1,000 per million tokens (or $1 a search or request) are meant."""

    @field_validator("request_types")
    @classmethod
    def _types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _check_types(value)

    @model_validator(mode="after")
    def _clear(self, info: ValidationInfo) -> Self:
        check_scope(self.scope_kind, {name: getattr(self, name) for name in ID_NAMES})
        _check_pattern(self.pattern, self.match_type)
        if self.prices is None:
            raise ValueError("patch: is required: the prices that are set, such as input_cost_per_token")
        if not self.confirm_high_prices:
            _refuse_large(self.prices)
        if not (info.context and info.context.get("file")):
            _refuse_without_effect(self.request_types, self.prices)
        return self


class PricingOverridePatch(_Override):
    """Changes to an override: absent fields stay; `patch` is replaced as a whole."""

    read_only = _Override.read_only | {"id"}

    name: Name | None = None
    scope_kind: ScopeKind | None = None
    virtual_key_id: Id | Literal[""] | None = None
    provider_id: Name | Literal[""] | None = None
    provider_key_id: Id | Literal[""] | None = None
    match_type: Literal["exact", "wildcard"] | None = None
    pattern: Name | None = None
    request_types: tuple[str, ...] | None = None
    confirm_high_prices: Bool = False


def _refuse_without_effect(request_types: tuple[str, ...], patch: Spec) -> None:
    """In config.json such an override is kept, so that a file of Bifrost's starts; here it would only look like one that works."""
    if not operations_of(request_types):
        raise ValueError(
            f"request_types: {request_types[0]!r} is a kind of calls that are not metered here: no price applies to it"
        )
    if not prices_of(patch):
        raise ValueError("patch: must set at least one price, such as input_cost_per_token")
