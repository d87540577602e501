"""Service tiers, speeds and regions as callers and providers write them, reduced to the few terms that change a price.

The rule for words that name a service tier:
* a word for ordinary processing, or for capacity paid elsewhere (`scale`, `reserved`), is the standard price;
* a word the data has a price for is that price;
* a word for cheaper processing without a price in the data is the standard price;
* a word for dearer processing without a price in the data (`ultrafast`, Bedrock's `priority`) makes the call unpriced;
* `auto` and any word nobody knows is, class by class, the dearest of all prices the data has for the model.
`auto` in an answer says nothing and is not passed here.
"""

import re
from functools import lru_cache
from typing import NamedTuple

STANDARD = ""
ANY = "*"
CHEAPER = frozenset({"flex", "off_peak"})
DEARER = frozenset({"priority", "fast", "ultrafast", "performance"})
_ORDINARY = frozenset(
    {
        "", "default", "standard", "standard_only", "on_demand", "scale", "reserved", "provisioned_throughput", "none",
        "unspecified", "traffic_type_unspecified", "service_tier_unspecified",
    }
)  # fmt: skip
_PREFIXES = ("on_demand_", "service_tier_")
_LONGEST_WORD = 64

Ratio = tuple[int, int]
_NO_UPLIFT: Ratio = (1, 1)
_FAST_UPLIFT: Ratio = (2, 1)
_REGIONAL_UPLIFTS: dict[str, Ratio] = {"anthropic": (11, 10), "openai": (11, 10), "vertex": (11, 10), "together": (5, 4)}
_WORLDWIDE = frozenset({"", "global", "not_available", "none", "default"})
_REGIONS_THAT_COST: dict[str, frozenset[str]] = {"together": frozenset({"us", "ca"})}
"""Providers where only some regions carry the surcharge; elsewhere every region but the worldwide one does."""
_EXEMPT: dict[str, re.Pattern[str]] = {
    "openai": re.compile(
        r"(gpt-3|gpt-4|chatgpt-4|gpt-5($|-|\.[0-3])|o[134]($|-)|text-|codex-|davinci|babbage|whisper|tts|dall-e|gpt-image-1)"
    ),
    "vertex": re.compile(r"(gemini-[12]|claude-3|claude-(opus|sonnet)-4($|@|-1|-2025))"),
}
"""Models from before the provider charged for regions."""


class Terms(NamedTuple):
    """How a call is processed, as far as prices know. A closed vocabulary, so that it can key a bounded cache."""

    tier: str = STANDARD
    fast: bool = False
    batch: bool = False
    regional: bool = False


@lru_cache(1024)
def terms(provider: str, service_tier: str | None, speed: str | None, region: str | None, batch: bool) -> Terms:
    """The terms that these words mean at `provider` (our own name for it). Any string is accepted."""
    tier = _tier(provider, service_tier or "")
    return Terms(
        tier=STANDARD if tier == "batch" else tier,
        fast=_is_fast(speed or ""),
        batch=batch or tier == "batch",
        regional=_is_regional(provider, region or ""),
    )


def is_cheaper(service_tier: str | None) -> bool:
    """Whether the word asks for processing below the standard price, which the provider may or may not grant."""
    return _plain(service_tier or "") in CHEAPER | {"batch"}


def fast_uplift() -> Ratio:
    """Fast mode where the data has no price for it: Anthropic's rule, twice the standard price."""
    return _FAST_UPLIFT


def regional_uplift(provider: str, model: str) -> Ratio:
    """The surcharge of a regional call to this model."""
    exempt = _EXEMPT.get(provider)
    if exempt is not None and exempt.match(model.lower()):
        return _NO_UPLIFT
    return _REGIONAL_UPLIFTS.get(provider, _NO_UPLIFT)


def times(one: Ratio, other: Ratio) -> Ratio:
    """The product of two exact ratios, unreduced."""
    return one[0] * other[0], one[1] * other[1]


def _tier(provider: str, word: str) -> str:
    plain = _plain(word)
    if plain in _ORDINARY:
        return STANDARD
    if provider == "anthropic" and plain == "priority":
        return STANDARD  # capacity bought beforehand, not a dearer price per token
    if plain in CHEAPER or plain in DEARER or plain == "batch":
        return plain
    return ANY


def _plain(word: str) -> str:
    plain = word[:_LONGEST_WORD].strip().lower().replace("-", "_").replace("offpeak", "off_peak")
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    return plain


def _is_fast(word: str) -> bool:
    """Every word but the ordinary ones counts as fast: the dearer reading."""
    return _plain(word) not in _ORDINARY


def _is_regional(provider: str, region: str) -> bool:
    plain = region[:_LONGEST_WORD].strip().lower()
    if provider not in _REGIONAL_UPLIFTS or plain in _WORLDWIDE:
        return False
    costly = _REGIONS_THAT_COST.get(provider)
    return costly is None or plain in costly
