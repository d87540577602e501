"""Single prices that go on top of a model's own: the field names people write them with, and a price table changed by them.

The names are those of Bifrost and LiteLLM, in USD per single token. A field changes one class of tokens at one tier of service
and one size of input; everything it does not name stays as it was.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

from store.prices.classes import rates_at
from store.prices.types import Rates, Tier

STANDARD = ""
FAST = "fast"
BATCH = "batch"
BASE = -1
"""The threshold of the prices that hold for calls of every size."""
PICOS_PER_USD = 10**12
DECIMALS = 12
"""A pico-dollar is the smallest price there is."""


class PatchField(NamedTuple):
    """Which price a field is for."""

    rate: str
    """The field of `Rates`."""
    word: str = STANDARD
    """The tier of service; `batch` and `fast` are processing of that kind."""
    above_input_tokens: int = BASE


_TIERED: Mapping[str, str] = {
    "input_cost_per_token": "input_picos",
    "output_cost_per_token": "output_picos",
    "cache_read_input_token_cost": "cache_read_picos",
    "cache_creation_input_token_cost": "cache_write_picos",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_picos",
}
_PLAIN: Mapping[str, str] = {
    "input_cost_per_audio_token": "input_audio_picos",
    "cache_read_input_audio_token_cost": "cache_read_audio_picos",
    "output_cost_per_audio_token": "output_audio_picos",
    "input_cost_per_image_token": "input_image_picos",
    "cache_read_input_image_token_cost": "cache_read_image_picos",
    "output_cost_per_image_token": "output_image_picos",
    "output_cost_per_reasoning_token": "output_reasoning_picos",
}
APIECE: Mapping[str, str] = {"search_context_cost_per_query": "web_search_picos", "cost_per_request": "request_picos"}
"""Prices of one search and one request."""
_SIZES = {"_above_128k_tokens": 128_000, "_above_200k_tokens": 200_000, "_above_272k_tokens": 272_000}


def _fields() -> dict[str, PatchField]:
    made: dict[str, PatchField] = {}
    for name, rate in _TIERED.items():
        made[name] = PatchField(rate)
        for ending, word in (("_priority", "priority"), ("_flex", "flex"), ("_batches", BATCH), ("_fast", FAST)):
            made[name + ending] = PatchField(rate, word)
        for size, tokens in _SIZES.items():
            made[name + size] = PatchField(rate, STANDARD, tokens)
            made[f"{name}{size}_priority"] = PatchField(rate, "priority", tokens)
            made[f"{name}_flex{size}"] = PatchField(rate, "flex", tokens)
    return made | {name: PatchField(rate) for name, rate in (*_PLAIN.items(), *APIECE.items())}


FIELDS: Mapping[str, PatchField] = MappingProxyType(_fields())
"""Every field that has an effect here."""

Changes = Mapping[int, Mapping[str, int]]
"""Threshold → field of `Rates` → pico-dollars."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The prices of one override, compiled. Compared by identity: the price book remembers what it made with each."""

    source: str
    """Kept on every ledger row that was priced with it."""
    changes: Mapping[str, Changes]
    """By tier of service."""
    output_is_nothing: bool = False
    """For calls that have no output (embeddings), so that an input price alone is a whole price."""

    @property
    def is_complete(self) -> bool:
        """Whether it prices a model that has no price of its own."""
        return patched(None, self.changes.get(STANDARD, {}), self.output_is_nothing) is not None


def picos_of(usd: Decimal) -> int:
    """Whole pico-dollars of a price in USD. Raises ValueError for what is negative, not finite, too fine or absurd."""
    if not usd.is_finite():
        raise ValueError("must be a price in USD, such as 0.0000025")
    sign, digits, exponent = usd.as_tuple()
    if sign and any(digits):
        raise ValueError("must not be negative")
    if any(digits) and usd.adjusted() > 5:
        raise ValueError("must be below 1,000,000 USD")
    shift = int(exponent) + DECIMALS
    kept = digits if shift >= 0 else digits[:shift]
    if any(digits[len(kept) :]):
        raise ValueError(f"has more than {DECIMALS} decimals; round it: the smallest price is 0.000000000001")
    return int("".join(map(str, kept)) or "0") * 10 ** max(0, shift) if any(digits) else 0


def compile_patch(source: str, prices: Iterable[tuple[str, str]], *, output_is_nothing: bool = False) -> Patch:
    """A patch from (field, USD as text). Raises KeyError and ValueError for what `picos_of` and `FIELDS` do not know."""
    changes: dict[str, dict[int, dict[str, int]]] = {}
    for name, usd in prices:
        field = FIELDS[name]
        changes.setdefault(field.word, {}).setdefault(field.above_input_tokens, {})[field.rate] = picos_of(Decimal(usd))
    return Patch(source, changes, output_is_nothing)


def patched(base: tuple[Tier, ...] | None, changes: Changes, output_is_nothing: bool = False) -> tuple[Tier, ...] | None:
    """The price table with these changes; without a base the changes alone. None when those do not price input and output.

    A class that costs the same above a threshold as below has one price, and changes with it; one that has a price of its own above
    keeps that until a field names it.
    """
    if base is None:
        alone = changes.get(BASE, {})
        if "input_picos" not in alone or not (output_is_nothing or "output_picos" in alone):
            return None
        base = (Tier(BASE, Rates(**{"output_picos": 0, **alone})),)
    tiers: list[Tier] = []
    for above in sorted({tier.above_input_tokens for tier in base} | {*changes}):
        own = rates_at(base, above + 1)
        rates = own if not tiers else _carried(own, rates_at(base, tiers[-1].above_input_tokens + 1), tiers[-1].rates)
        tiers.append(Tier(above, replace(rates, **changes.get(above, {}))))
    return tuple(tiers)


def scaled(tiers: tuple[Tier, ...], ratio: tuple[int, int]) -> tuple[Tier, ...]:
    """Prices of tokens times an exact ratio, rounded up; fees stay."""
    fees = frozenset(APIECE.values())
    return tuple(
        Tier(
            tier.above_input_tokens,
            Rates(
                **{
                    name: price if price is None or name in fees else -(-price * ratio[0] // ratio[1])
                    for name, price in ((name, getattr(tier.rates, name)) for name in Rates.__slots__)
                }
            ),
        )
        for tier in tiers
    )


def _carried(own: Rates, below: Rates, below_patched: Rates) -> Rates:
    """The rates above a threshold, where those that are equal below and above take over what was changed below."""
    moved = {
        name: getattr(below_patched, name)
        for name in Rates.__slots__
        if getattr(own, name) == getattr(below, name) != getattr(below_patched, name)
    }
    return replace(own, **moved) if moved else own
