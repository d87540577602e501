"""Turns one model's prices of the data (decimals, USD per million) into exact integer tables, rounded up."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

from store.prices.genai.types import ModelInfo, ModelPrice, PriceVariant, TieredPrices
from store.prices.types import Rates, Tier

_PICOS_OF_MTOK = 10**6
"""USD per million tokens → pico-dollars per token."""
_PICOS_OF_KCOUNT = 10**9
"""USD per thousand → pico-dollars apiece."""

_CLASSES: Mapping[str, tuple[str, int]] = {
    "input_mtok": ("input_picos", _PICOS_OF_MTOK),
    "output_mtok": ("output_picos", _PICOS_OF_MTOK),
    "cache_read_mtok": ("cache_read_picos", _PICOS_OF_MTOK),
    "cache_write_mtok": ("cache_write_picos", _PICOS_OF_MTOK),
    "cache_write_1h_mtok": ("cache_write_1h_picos", _PICOS_OF_MTOK),
    "input_audio_mtok": ("input_audio_picos", _PICOS_OF_MTOK),
    "cache_audio_read_mtok": ("cache_read_audio_picos", _PICOS_OF_MTOK),
    "output_audio_mtok": ("output_audio_picos", _PICOS_OF_MTOK),
    "input_image_mtok": ("input_image_picos", _PICOS_OF_MTOK),
    "cache_image_read_mtok": ("cache_read_image_picos", _PICOS_OF_MTOK),
    "output_image_mtok": ("output_image_picos", _PICOS_OF_MTOK),
    "input_video_mtok": ("input_video_picos", _PICOS_OF_MTOK),
    "output_video_mtok": ("output_video_picos", _PICOS_OF_MTOK),
    "output_reasoning_mtok": ("output_reasoning_picos", _PICOS_OF_MTOK),
    "web_searches_kcount": ("web_search_picos", _PICOS_OF_KCOUNT),
    "requests_kcount": ("request_picos", _PICOS_OF_KCOUNT),
}
_NOT_COUNTED = frozenset({"storage_searches_kcount", "output_citation_mtok"})
"""Priced by the data, never reported in a form that could be counted, and small: such a model is priced without them.

Any other key outside `_CLASSES` (hours of audio, characters, pages, pixels) is the main thing its model bills, so that
the model counts as unpriced."""
_NO_PRICES = ModelPrice()


def compile_tiers(model: ModelInfo, at_ms: int, context: Mapping[str, str]) -> tuple[Tier, ...] | None:
    """The model's prices at a moment for a request with these properties; None when they cannot price tokens."""
    by_key = _prices_at(model, at_ms, context)
    if "input_mtok" not in by_key or any(key not in _CLASSES and key not in _NOT_COUNTED for key in by_key):
        return None
    thresholds = {tier.start for price in by_key.values() if isinstance(price, TieredPrices) for tier in price.tiers}
    explicit = "claude" in model.id.lower()
    return tuple(Tier(above, _rates(by_key, above, explicit)) for above in (-1, *sorted(thresholds)))


def active_variants(model: ModelInfo, at_ms: int, context: Mapping[str, str]) -> tuple[PriceVariant, ...]:
    """The variants that hold at this moment for a request with these properties, first come first."""
    return tuple(
        variant
        for variant in model.variants
        if (variant.constraint is None or variant.constraint.active(at_ms))
        and all(context.get(key) == value for key, value in variant.when.items())
    )


def active_price(model: ModelInfo, at_ms: int) -> ModelPrice:
    """The standard prices at this moment: the last whose constraint holds, else the first."""
    for conditional in reversed(model.prices):
        if conditional.constraint is None or conditional.constraint.active(at_ms):
            return conditional.prices
    return model.prices[0].prices if model.prices else _NO_PRICES


def picos(usd: Decimal, scale: int) -> int:
    """Whole pico-dollars of a price, rounded up (only figures with float noise have anything to round)."""
    return int((usd * scale).to_integral_value(ROUND_CEILING))


def _prices_at(model: ModelInfo, at_ms: int, context: Mapping[str, str]) -> dict[str, Decimal | TieredPrices]:
    by_key = dict(active_price(model, at_ms).by_key)
    for variant in reversed(active_variants(model, at_ms, context)):
        by_key.update(variant.prices.by_key)
    return by_key


def _rates(by_key: Mapping[str, Decimal | TieredPrices], above: int, explicit_cache: bool) -> Rates:
    """All prices at one input size. An absent output price means that nothing comes out (embeddings)."""
    figures: dict[str, int] = {"output_picos": 0}
    for key, price in by_key.items():
        if key in _CLASSES:
            name, scale = _CLASSES[key]
            figures[name] = picos(_price_above(price, above), scale)
    if "cache_write_picos" in figures and "cache_write_1h_picos" not in figures:
        figures["cache_write_1h_picos"] = _long_write(figures, explicit_cache)
    return Rates(**figures)


def _long_write(figures: Mapping[str, int], claude: bool) -> int:
    """Writes that live longer cost twice: twice the input at Anthropic (an hour), twice the write at OpenAI (twelve)."""
    short = figures["cache_write_picos"]
    return max(short, 2 * (figures["input_picos"] if claude else short))


def _price_above(price: Decimal | TieredPrices, above: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    chosen = price.base
    for tier in price.tiers:
        if above >= tier.start:
            chosen = tier.price
    return chosen
