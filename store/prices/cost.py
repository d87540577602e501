"""What a call cost: exact integer arithmetic over a price and a usage, rounded up once."""

from collections.abc import Callable
from dataclasses import replace
from math import lcm
from typing import NamedTuple

from store.money import PICOS_PER_NANO
from store.prices import classes, surcharges
from store.prices.book import PriceBook
from store.prices.classes import rates_at
from store.prices.patch import Patch
from store.prices.types import ModelPrice, Rates
from store.usage import Reading, Usage

PROVIDER_SOURCE = "provider"
"""The price source of a call that only the provider itself put a price on."""


type PatchOf = Callable[[str], Patch | None]
"""The override that holds for a model's name within one call."""


def no_patch(model: str) -> Patch | None:
    """Nothing is overridden."""
    return None


class ReadingCost(NamedTuple):
    """The cost of an answer in nano-dollars (None: not known), where its prices are from, and what had to be assumed."""

    cost_nanos: int | None
    source: str
    notes: tuple[str, ...]


def cost_nanos(price: ModelPrice, usage: Usage) -> int:
    """Nano-dollars of one usage, rounded up. Never raises: counts that contradict each other get their dearer reading."""
    picos, parts = _exact(price, usage)
    return _round_up(picos, parts)


def reading_cost(
    book: PriceBook,
    provider: str,
    model: str,
    reading: Reading,
    at_ms: int,
    *,
    service_tier: str | None = None,
    speed: str | None = None,
    region: str | None = None,
    batch: bool = False,
    patch_of: PatchOf = no_patch,
) -> ReadingCost:
    """The cost of everything an answer reports, rounded up once for the whole call.

    `model` is the model asked for; the model that answered is preferred where it has a price. The words for tier, speed and
    region are the request's, used where the answer is silent: a dearer tier is believed, a cheaper one only when the answer
    confirms it. Without any known price the provider's own figure stands, when it gave one. `patch_of` names the override of a
    model; one for the model asked for decides, whatever answered.
    """
    if reading.usage is None and not reading.further:
        return _unknown(reading, "the provider reported no usage")
    silent = reading.service_tier in (None, "", "auto")
    asked = None if surcharges.is_cheaper(service_tier) else service_tier
    tally = _Tally()
    parts = ((None, reading.usage), *reading.further) if reading.usage is not None else reading.further
    for part_model, usage in parts:
        priced = _price_of_part(
            book, provider, model, part_model, reading, at_ms,
            service_tier=asked if silent else reading.service_tier,
            speed=reading.speed or speed, region=reading.region or region, batch=batch, patch_of=patch_of,
        )  # fmt: skip
        if priced is None:
            return _unknown(reading, f"no price is known for {part_model or reading.model or model}")
        tally.add(*priced, usage)
    return ReadingCost(tally.nanos(), tally.source, tuple(tally.notes))


def consistent(usage: Usage) -> Usage:
    """The same usage with counts that can be true together; the same object when they already are.

    A part larger than its whole means that the provider counted them side by side, so the whole becomes their sum: the
    dearer reading. Negative counts are zero.
    """
    if min(_counts(usage)) < 0:
        usage = Usage(*(max(count, 0) for count in _counts(usage)))
    written = _whole(usage.cache_write_tokens, usage.cache_write_1h_tokens)
    cached = _whole(usage.cache_read_tokens, usage.cache_read_audio_tokens)
    audio = _whole(usage.input_audio_tokens, usage.cache_read_audio_tokens)
    given = _whole(usage.input_tokens, cached + written)
    given = cached + _whole(given - cached, audio - usage.cache_read_audio_tokens)
    given = _whole(given, audio + usage.input_image_tokens + usage.input_video_tokens)
    shown = usage.output_audio_tokens + usage.output_image_tokens + usage.output_video_tokens
    made = _whole(_whole(usage.output_tokens, usage.reasoning_tokens), shown)
    if (given, made, cached, written, audio) == (
        usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.input_audio_tokens
    ):  # fmt: skip
        return usage
    return replace(
        usage,
        input_tokens=given, output_tokens=made, cache_read_tokens=cached, cache_write_tokens=written, input_audio_tokens=audio,
    )  # fmt: skip


def _whole(whole: int, part: int) -> int:
    """The whole that can hold this part: as reported, or, when the part is larger, both together."""
    return whole if part <= whole else whole + part


class _Tally:
    """The exact sum over the parts of one call."""

    def __init__(self) -> None:
        self._picos, self._parts = 0, 1
        self.source = ""
        self.notes: list[str] = []

    def add(self, price: ModelPrice, notes: tuple[str, ...], usage: Usage) -> None:
        picos, parts = _exact(price, usage)
        common = lcm(self._parts, parts)
        self._picos = self._picos * (common // self._parts) + picos * (common // parts)
        self._parts = common
        self.source = self.source or price.source
        contradictory = (
            ("the reported counts contradict each other: read at their dearest",) if consistent(usage) is not usage else ()
        )
        for note in (*notes, *price.notes, *contradictory):
            if note not in self.notes:
                self.notes.append(note)

    def nanos(self) -> int:
        return _round_up(self._picos, self._parts)


def _price_of_part(
    book: PriceBook, provider: str, model: str, part_model: str | None, reading: Reading, at_ms: int,
    *, service_tier: str | None, speed: str | None, region: str | None, batch: bool, patch_of: PatchOf,
) -> tuple[ModelPrice, tuple[str, ...]] | None:  # fmt: skip
    """The price of one part and what was assumed to find it. A part that names a model of its own has no second choice."""
    choices = (part_model,) if part_model else tuple(dict.fromkeys(name for name in (reading.model, model) if name))
    patched = part_model or model
    patch = patch_of(patched)
    if not part_model and patch is not None:
        choices = tuple(dict.fromkeys((model, *choices)))
    elif not part_model and book.overrides_price(provider, model):
        choices = (model,)
    for name in choices:
        price = book.price(
            provider, name, at_ms, service_tier=service_tier, speed=speed, region=region, batch=batch,
            patch=patch if name == patched else None,
        )  # fmt: skip
        if price is not None:
            assumed = name != choices[0]
            return price, ((f"no price is known for {choices[0]}: priced as {name}",) if assumed else ())
    return None


def _unknown(reading: Reading, why: str) -> ReadingCost:
    if reading.provider_cost_nanos is not None and reading.provider_cost_nanos >= 0:
        return ReadingCost(reading.provider_cost_nanos, PROVIDER_SOURCE, (f"{why}: the provider's own figure stands",))
    return ReadingCost(None, "", (why,))


def _exact(price: ModelPrice, usage: Usage) -> tuple[int, int]:
    """The cost as a fraction of pico-dollars: (numerator, denominator)."""
    usage = consistent(usage)
    rates = rates_at(price.tiers, usage.input_tokens)
    tokens = _input_picos(rates, usage) + _output_picos(rates, usage)
    fees = rates.request_picos + usage.web_searches * classes.web_search(rates)
    numerator, denominator = price.multiplier
    return tokens * numerator + fees * denominator, denominator


def _input_picos(rates: Rates, usage: Usage) -> int:
    cached_text = usage.cache_read_tokens - usage.cache_read_audio_tokens
    fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    total = (
        fresh * rates.input_picos
        + cached_text * classes.cache_read(rates)
        + usage.cache_read_audio_tokens * classes.cache_read_audio(rates)
        + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * classes.cache_write(rates)
        + usage.cache_write_1h_tokens * classes.cache_write_1h(rates)
    )
    if usage.input_audio_tokens or usage.input_image_tokens or usage.input_video_tokens:
        total += _modal_surplus(rates, usage, fresh, cached_text)
    return total


def _modal_surplus(rates: Rates, usage: Usage, fresh: int, cached: int) -> int:
    """What audio, images and video add to (or take from) the price of the same number of text tokens.

    But for audio nobody reports which of them were cached, so they are placed where they cost most. Audio first: what was
    not cached of it has the least choice.
    """
    room = {"fresh": fresh, "written": usage.cache_write_tokens, "cached": cached}
    cache_read, cache_write = classes.cache_read(rates), classes.cache_write(rates)
    surplus = 0
    kinds = (
        (usage.input_audio_tokens - usage.cache_read_audio_tokens, rates.input_audio_picos, None),
        (usage.input_video_tokens, rates.input_video_picos, cache_read),
        (usage.input_image_tokens, rates.input_image_picos, classes.cache_read_image(rates)),
    )
    for count, own_price, cached_price in kinds:
        places = [(0, "fresh"), (0, "written")]
        if own_price is not None:
            places = [(own_price - rates.input_picos, "fresh"), (max(0, own_price - cache_write), "written")]
        if cached_price is not None:
            places.append((cached_price - cache_read, "cached"))
        for difference, place in sorted(places, key=lambda choice: -choice[0]):
            here = min(count, room[place])
            room[place] -= here
            count -= here
            surplus += here * difference
    return surplus


def _output_picos(rates: Rates, usage: Usage) -> int:
    if rates.output_reasoning_picos is None and not (
        usage.output_audio_tokens or usage.output_image_tokens or usage.output_video_tokens
    ):
        return usage.output_tokens * rates.output_picos
    shown = usage.output_audio_tokens + usage.output_image_tokens + usage.output_video_tokens
    thought = 0 if rates.output_reasoning_picos is None else min(usage.reasoning_tokens, usage.output_tokens - shown)
    return (
        (usage.output_tokens - shown - thought) * rates.output_picos
        + thought * classes.reasoning(rates)
        + usage.output_audio_tokens * classes.output_audio(rates)
        + usage.output_image_tokens * classes.output_image(rates)
        + usage.output_video_tokens * classes.output_video(rates)
    )


def _round_up(picos: int, parts: int) -> int:
    return -(-picos // (parts * PICOS_PER_NANO))


def _counts(usage: Usage) -> tuple[int, ...]:
    return tuple(getattr(usage, name) for name in Usage.__slots__)
