"""A model's price with an override on top: against genai-prices' own calculation, against LiteLLM's rules, and by hand."""

import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.types import ModelPrice as LibraryPrice
from genai_prices.types import Tier as LibraryTier
from genai_prices.types import TieredPrices

from store.prices.book import PriceBook
from store.prices.cost import PatchOf, cost_nanos, no_patch, reading_cost
from store.prices.overrides import parse_overrides
from store.prices.patch import Patch, compile_patch
from store.prices.types import ModelPrice
from store.usage import Reading, Usage
from tests.store.prices.test_cost import (
    BOOK,
    assert_same_cost,
    comparable,
    is_exact,
    library_prices,
    library_usage,
    ms,
    random_usage,
    references,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
AT_MS = ms(NOW)
KEYS = {
    "input_cost_per_token": "input_mtok",
    "output_cost_per_token": "output_mtok",
    "cache_read_input_token_cost": "cache_read_mtok",
    "cache_creation_input_token_cost": "cache_write_mtok",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_mtok",
    "input_cost_per_audio_token": "input_audio_mtok",
    "output_cost_per_audio_token": "output_audio_mtok",
    "output_cost_per_reasoning_token": "output_reasoning_mtok",
    "output_cost_per_image_token": "output_image_mtok",
}
"""Field of an override → the library's name of the same price, per million tokens."""


def patch(output_is_nothing: bool = False, **usd: str) -> Patch:
    return compile_patch("override test", usd.items(), output_is_nothing=output_is_nothing)


def price(model: str, on_top: Patch | None, provider: str = "openai", **words: Any) -> ModelPrice:
    found = BOOK.price(provider, model, AT_MS, patch=on_top, **words)
    assert found is not None
    return found


# --- against the library ------------------------------------------------------------------------------------------------------


def test_overridden_models_cost_what_the_library_says_of_the_same_prices() -> None:
    """Some prices of every model are replaced, in our table and in the library's; both calculate the same usage."""
    rng = random.Random(20261124)
    compared = tiers_made = 0
    for provider_id, model, name in references():
        prices = library_prices(model, NOW, {})
        if not comparable(prices):
            continue
        wanted = [field for field, key in KEYS.items() if key in prices and rng.random() < 0.5]
        if not wanted:
            continue
        usd = {field: Decimal(rng.randrange(0, 10**9)) / 10**12 for field in wanted}
        theirs = dict(prices) | {KEYS[field]: _with_base(prices[KEYS[field]], usd[field] * 10**6) for field in wanted}
        if "input_cost_per_token" in usd and rng.random() < 0.5:
            usd["input_cost_per_token_above_200k_tokens"] = dearer = usd["input_cost_per_token"] * 2
            theirs["input_mtok"] = _with_tier(theirs["input_mtok"], 200_000, dearer * 10**6)
            tiers_made += 1
        on_top = compile_patch("override test", [(field, f"{price:f}") for field, price in usd.items()])
        ours = BOOK.price(provider_id, name, AT_MS, patch=on_top)
        assert ours is not None and ours.source.startswith("override test, genai-prices ")
        usage = random_usage(rng, theirs)
        total = LibraryPrice(**theirs).calc_price(library_usage(usage))["total_price"]
        assert_same_cost(ours, usage, total, is_exact(theirs))
        compared += 1
    assert compared > 1_500 and tiers_made > 200


def _with_base(before: Any, per_million: Decimal) -> Any:
    """The library's price with another base; what it has above thresholds stays."""
    return TieredPrices(base=per_million, tiers=before.tiers) if isinstance(before, TieredPrices) else per_million


def _with_tier(before: Any, start: int, per_million: Decimal) -> TieredPrices:
    base, tiers = (before.base, before.tiers) if isinstance(before, TieredPrices) else (before, [])
    kept = [tier for tier in tiers if tier.start != start]
    return TieredPrices(base=base, tiers=sorted([*kept, LibraryTier(start=start, price=per_million)], key=lambda tier: tier.start))


# --- LiteLLM's rules: what a field means --------------------------------------------------------------------------------------


def test_a_threshold_holds_for_the_whole_call() -> None:
    """gemini-2.5-pro: $1.25 and $10, above 200,000 tokens $2.50 and $15. The tier is chosen by the prompt, for all tokens."""
    on_top = patch(input_cost_per_token_above_200k_tokens="0.000004")
    below = Usage(input_tokens=200_000, output_tokens=10)
    above = Usage(input_tokens=200_001, output_tokens=10)
    changed = price("gemini-2.5-pro", on_top, "gemini")
    assert cost_nanos(changed, below) == 200_000 * 1_250 + 10 * 10_000
    assert cost_nanos(changed, above) == 200_001 * 4_000 + 10 * 15_000


def test_a_price_without_a_size_leaves_the_prices_of_large_calls_alone() -> None:
    changed = price("gemini-2.5-pro", patch(input_cost_per_token="0.000001"), "gemini")
    assert cost_nanos(changed, Usage(input_tokens=1_000)) == 1_000 * 1_000
    assert cost_nanos(changed, Usage(input_tokens=300_000)) == 300_000 * 2_500


def test_cached_tokens_are_a_part_of_the_prompt() -> None:
    """gpt-4o with cached input at $0.50: 1,000 tokens of which 400 were cached are 600 × 2,500 + 400 × 500."""
    changed = price("gpt-4o", patch(cache_read_input_token_cost="0.0000005"))
    assert cost_nanos(changed, Usage(input_tokens=1_000, cache_read_tokens=400)) == 600 * 2_500 + 400 * 500


def test_an_hours_write_has_its_own_price() -> None:
    changed = price("claude-haiku-4-5", patch(cache_creation_input_token_cost_above_1hr="0.000003"), "anthropic")
    usage = Usage(input_tokens=100, cache_write_tokens=100, cache_write_1h_tokens=40)
    assert cost_nanos(changed, usage) == 60 * 1_250 + 40 * 3_000


@pytest.mark.parametrize(
    ("words", "output_nanos"),
    [({}, 700), ({"service_tier": "priority"}, 1_000), ({"service_tier": "flex"}, 700), ({"service_tier": "default"}, 700)],
)
def test_the_ordinary_price_does_not_touch_a_tier_with_a_price_of_its_own(words: dict[str, str], output_nanos: int) -> None:
    """gpt-4o-mini: $0.60 out, $1.00 with `priority`; `flex` has no price in the data, so that it costs the ordinary one."""
    changed = price("gpt-4o-mini", patch(output_cost_per_token="0.0000007"), **words)
    assert cost_nanos(changed, Usage(output_tokens=1_000)) == 1_000 * output_nanos


def test_a_tier_of_service_can_be_priced() -> None:
    on_top = patch(output_cost_per_token_priority="0.000005", output_cost_per_token_flex="0.0000001")
    for word, nanos in ((None, 600), ("priority", 5_000), ("flex", 100), ("word nobody knows", 5_000)):
        assert cost_nanos(price("gpt-4o-mini", on_top, service_tier=word), Usage(output_tokens=1_000)) == 1_000 * nanos


def test_a_batch_and_fast_processing_can_be_priced() -> None:
    on_top = patch(output_cost_per_token_batches="0.0000001", output_cost_per_token_fast="0.00002")
    assert cost_nanos(price("gpt-4o-mini", on_top, batch=True), Usage(output_tokens=1_000)) == 1_000 * 100
    fast = price("claude-haiku-4-5", on_top, "anthropic", speed="fast")
    # $20 for output as said; the input has no price of its own for fast mode and costs twice the ordinary $1
    assert cost_nanos(fast, Usage(input_tokens=100, output_tokens=1_000)) == 100 * 2_000 + 1_000 * 20_000
    slow = price("claude-haiku-4-5", on_top, "anthropic")
    assert cost_nanos(slow, Usage(input_tokens=100, output_tokens=1_000)) == 100 * 1_000 + 1_000 * 5_000


def test_an_ordinary_price_is_doubled_in_fast_mode_and_dearer_in_regions() -> None:
    """Surcharges come on top of one's own prices: 2 × $3 in fast mode, a tenth more in one region."""
    on_top = patch(input_cost_per_token="0.000003")
    assert cost_nanos(price("claude-haiku-4-5", on_top, "anthropic", speed="fast"), Usage(input_tokens=100)) == 600_000
    assert cost_nanos(price("claude-haiku-4-5", on_top, "anthropic", region="us"), Usage(input_tokens=100)) == 330_000


def test_fees_apiece() -> None:
    """One request at half a cent and two searches at 3 cents."""
    changed = price("gpt-4o-mini", patch(cost_per_request="0.005", search_context_cost_per_query="0.03"))
    assert cost_nanos(changed, Usage(input_tokens=10, web_searches=2)) == 10 * 150 + 5_000_000 + 60_000_000


# --- models without a price of their own --------------------------------------------------------------------------------------


def unknown(on_top: Patch, **words: Any) -> ModelPrice | None:
    return BOOK.price("openai", "house-model", AT_MS, patch=on_top, **words)


def test_an_override_alone_needs_input_and_output() -> None:
    assert unknown(patch(input_cost_per_token="0.000001")) is None
    assert unknown(patch(output_cost_per_token="0.000001")) is None
    assert not patch(input_cost_per_token="0.000001").is_complete
    whole = unknown(patch(input_cost_per_token="0.000001", output_cost_per_token="0.000002"))
    assert whole is not None and whole.source == "override test"
    assert cost_nanos(whole, Usage(input_tokens=10, output_tokens=10, cache_read_tokens=5)) == 10 * 1_000 + 10 * 2_000
    vectors = unknown(patch(output_is_nothing=True, input_cost_per_token="0.00000002"))
    assert vectors is not None and cost_nanos(vectors, Usage(input_tokens=100)) == 2_000


def test_a_dearer_tier_of_an_unknown_model_stays_unknown() -> None:
    whole = patch(input_cost_per_token="0.000001", output_cost_per_token="0.000002")
    assert unknown(whole, service_tier="priority") is None
    for cheaper in ("flex", "batch", "default"):
        assert unknown(whole, service_tier=cheaper) is not None
    dear = patch(
        input_cost_per_token="0.000001", output_cost_per_token="0.000002",
        input_cost_per_token_priority="0.000003", output_cost_per_token_priority="0.000004",
    )  # fmt: skip
    found = unknown(dear, service_tier="priority")
    assert found is not None and cost_nanos(found, Usage(input_tokens=10, output_tokens=10)) == 70_000
    any_tier = unknown(dear, service_tier="no such word")
    assert any_tier is not None and cost_nanos(any_tier, Usage(input_tokens=10, output_tokens=10)) == 70_000


def test_zero_is_a_price() -> None:
    free = unknown(patch(input_cost_per_token="0", output_cost_per_token="0"))
    assert free is not None and free.is_zero


def test_nothing_named_means_nothing_changed() -> None:
    """An override of the priority prices leaves an ordinary call at its price, and says so."""
    on_top = patch(output_cost_per_token_priority="0.000005")
    assert price("gpt-4o-mini", on_top) == price("gpt-4o-mini", None)


def test_it_goes_on_top_of_the_price_file() -> None:
    file = parse_overrides(
        b'[[price]]\nprovider = "openai"\nmodel = "house-model"\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 2', "prices.toml"
    )
    book = PriceBook.load(file)
    changed = book.price("openai", "house-model", AT_MS, patch=patch(output_cost_per_token="0.000009"))
    assert changed is not None and changed.source.startswith("override test, override ")
    assert cost_nanos(changed, Usage(input_tokens=10, output_tokens=10)) == 10 * 1_000 + 10 * 9_000


# --- an answer ----------------------------------------------------------------------------------------------------------------


def cost(patch_of: PatchOf, **fields: Any) -> tuple[int | None, str]:
    reading = Reading(usage=Usage(input_tokens=10, output_tokens=10), usage_is_final=True, **fields)
    made = reading_cost(BOOK, "openai", "gpt-4o", reading, AT_MS, patch_of=patch_of)
    return made.cost_nanos, made.source


def test_the_override_of_the_model_asked_for_decides_whatever_answered() -> None:
    on_top = patch(input_cost_per_token="0.000001", output_cost_per_token="0.000001")

    def of_asked(model: str) -> Patch | None:
        return on_top if model == "gpt-4o" else None

    for answered in ("gpt-4o-2024-08-06", "gpt-4o-mini", None):
        assert cost(of_asked, model=answered) == (20_000, f"override test, {BOOK.source}")
    assert cost(no_patch, model="gpt-4o-mini") == (10 * 150 + 10 * 600, BOOK.source)


def test_an_override_of_the_answering_model_alone_has_no_effect() -> None:
    """The hold was made for the model asked for; its price is what is charged."""
    on_top = patch(input_cost_per_token="0.0005", output_cost_per_token="0.0005")
    assert cost(lambda model: on_top if model == "gpt-4o-mini" else None, model="gpt-4o-mini") == (7_500, BOOK.source)


def test_a_part_that_names_its_model_has_that_models_override() -> None:
    on_top = patch(input_cost_per_token="0.000001", output_cost_per_token="0.000001")
    further = (("gpt-4o-mini", Usage(input_tokens=100, output_tokens=100)),)
    made, _ = cost(lambda model: on_top if model == "gpt-4o-mini" else None, model="gpt-4o", further=further)
    assert made == 10 * 2_500 + 10 * 10_000 + 200 * 1_000


def test_a_price_is_made_once() -> None:
    on_top = patch(input_cost_per_token="0.000001")
    assert price("gpt-4o", on_top) is price("gpt-4o", on_top)
