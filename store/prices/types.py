"""A model's price as exact integers, and a model's limits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-dollars (1e-12 USD) per token, per class. None: the data has no price of its own for that class."""

    input_picos: int
    output_picos: int
    cache_read_picos: int | None = None
    cache_write_picos: int | None = None
    cache_write_1h_picos: int | None = None
    input_audio_picos: int | None = None
    cache_read_audio_picos: int | None = None
    output_audio_picos: int | None = None
    input_image_picos: int | None = None
    output_image_picos: int | None = None
    cache_read_image_picos: int | None = None
    input_video_picos: int | None = None
    output_video_picos: int | None = None
    output_reasoning_picos: int | None = None
    """Only where reasoning has a price of its own; elsewhere it costs what output costs."""
    web_search_picos: int | None = None
    """Per search."""
    request_picos: int = 0
    """Per request."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that hold for the whole call when its total input is above `above_input_tokens`."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """Everything needed to price a call to one model at one moment."""

    provider: str
    model: str
    """The price book's own id of the model."""
    tiers: tuple[Tier, ...]
    """Ascending; the first starts at -1, so that it always applies."""
    source: str
    """Where the figures are from, with a version: kept on every ledger row."""
    multiplier: tuple[int, int] = (1, 1)
    """An exact rational for tier, speed or region surcharges; applied to the sum of all tokens, before the one rounding.
    Fees per request or search are not multiplied: providers put these surcharges on tokens only."""
    notes: tuple[str, ...] = ()
    """What had to be assumed (an unknown service tier, a missing price class), in words for the ledger and the logs."""

    @property
    def is_zero(self) -> bool:
        """True when nothing about this model costs anything (a price that says so, not a missing one)."""
        return all(not any(getattr(tier.rates, name) for name in Rates.__slots__) for tier in self.tiers)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model can take in and give out, in tokens; None: not known."""

    context_tokens: int | None = None
    max_output_tokens: int | None = None
