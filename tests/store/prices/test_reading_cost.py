"""The cost of whole answers: several models, tiers, fees, and what happens when something is not known."""

from datetime import UTC, datetime
from typing import Any

import pytest

from store.prices.book import PriceBook
from store.prices.cost import ReadingCost, reading_cost
from store.prices.overrides import parse_overrides
from store.usage import Reading, Usage

NOW = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1000)
BOOK = PriceBook.load()
USAGE = Usage(input_tokens=1000, output_tokens=100)


def priced(provider: str, model: str, reading: Reading, **words: Any) -> ReadingCost:
    return reading_cost(BOOK, provider, model, reading, NOW, **words)


def test_a_plain_answer() -> None:
    cost = priced("openai", "gpt-4o-mini", Reading(usage=USAGE, model="gpt-4o-mini-2024-07-18"))
    assert cost == (210_000, "genai-prices 0.2.3", ())


def test_the_model_that_answered_is_priced() -> None:
    assert priced("openai", "gpt-4o", Reading(usage=USAGE, model="gpt-4o-2024-05-13")).cost_nanos == 6_500_000


def test_a_deployment_name_in_the_answer_falls_back_to_the_model_asked_for() -> None:
    cost = priced("openai", "gpt-4o", Reading(usage=USAGE, model="our-deployment"))
    assert cost.cost_nanos == 3_500_000
    assert cost.notes == ("no price is known for our-deployment: priced as gpt-4o",)


def test_an_operators_price_for_the_model_asked_for_stands() -> None:
    overrides = parse_overrides(b'[[price]]\nprovider="openai"\nmodel="gpt-4o"\ninput_usd_per_mtok=1\noutput_usd_per_mtok=1\n', "p")
    cost = reading_cost(PriceBook.load(overrides), "openai", "gpt-4o", Reading(usage=USAGE, model="gpt-4o-2024-05-13"), NOW)
    assert cost.cost_nanos == 1_100_000 and cost.source.startswith("override ")


def test_compaction_is_billed_beside_the_answer() -> None:
    # top level 23,000/1,000, compaction 180,000/3,500 at $5/$25: $1.1275 in all
    reading = Reading(
        usage=Usage(input_tokens=23_000, output_tokens=1000),
        model="claude-opus-5",
        further=((None, Usage(input_tokens=180_000, output_tokens=3500)),),
    )
    assert priced("anthropic", "claude-opus-5", reading).cost_nanos == 1_127_500_000


def test_parts_name_their_own_models() -> None:
    reading = Reading(usage=USAGE, model="claude-sonnet-5", further=(("claude-opus-5", USAGE), ("claude-haiku-4-5", USAGE)))
    # 2/10 + 5/25 + 1/5 per million, each 1000 in and 100 out
    assert priced("anthropic", "claude-sonnet-5", reading).cost_nanos == 3_000_000 + 7_500_000 + 1_500_000


def test_a_part_of_unknown_price_leaves_the_whole_unknown() -> None:
    cost = priced("anthropic", "claude-sonnet-5", Reading(usage=USAGE, further=(("claude-unheard-of", USAGE),)))
    assert cost.cost_nanos is None and "claude-unheard-of" in cost.notes[0]


def test_parts_are_rounded_once_together() -> None:
    overrides = parse_overrides(
        b'[[price]]\nprovider="p"\nmodel="m"\ninput_usd_per_mtok=0.0004\noutput_usd_per_mtok=0\n', "p"
    )  # 400 pico-dollars a token
    one = Usage(input_tokens=1)
    reading = Reading(usage=one, further=((None, one),))
    assert reading_cost(PriceBook.load(overrides), "p", "m", reading, NOW).cost_nanos == 1


def test_searches_region_and_speed_of_the_answer() -> None:
    reading = Reading(usage=Usage(input_tokens=1000, web_searches=2), model="claude-opus-5", region="us", speed="fast")
    assert priced("anthropic", "claude-opus-5", reading).cost_nanos == 11_000_000 + 20_000_000


def test_the_requests_words_hold_where_the_answer_is_silent() -> None:
    assert priced("anthropic", "claude-opus-5", Reading(usage=USAGE), speed="fast", region="us").cost_nanos == 16_500_000
    assert priced("openai", "gpt-5.6-sol", Reading(usage=USAGE), region="eu").cost_nanos == 6_600_000
    assert priced("anthropic", "claude-opus-5", Reading(usage=USAGE, speed="standard"), speed="fast").cost_nanos == 7_500_000


@pytest.mark.parametrize(
    "asked, answered, nanos",
    [
        (None, None, 2_250_000),
        (None, "auto", 2_250_000),
        (None, "default", 2_250_000),
        ("priority", "default", 2_250_000),
        ("priority", None, 4_500_000),
        ("priority", "auto", 4_500_000),
        ("auto", "default", 2_250_000),
        ("auto", None, 4_500_000),
        ("flex", "flex", 1_125_000),
        ("flex", "default", 2_250_000),
        ("flex", None, 2_250_000),
    ],
)
def test_tiers_asked_for_and_answered(asked: str | None, answered: str | None, nanos: int) -> None:
    cost = priced("openai", "gpt-5", Reading(usage=USAGE, service_tier=answered), service_tier=asked)
    assert cost.cost_nanos == nanos


def test_a_tier_without_price_leaves_the_cost_unknown() -> None:
    cost = priced("openai", "gpt-6-astra", Reading(usage=USAGE, service_tier="ultrafast"))
    assert cost.cost_nanos is None and cost.source == "" and "gpt-6-astra" in cost.notes[0]


def test_without_a_price_the_providers_own_figure_stands() -> None:
    cost = priced("openrouter", "nobody/nothing", Reading(usage=USAGE, provider_cost_nanos=4711))
    assert (cost.cost_nanos, cost.source) == (4711, "provider")


def test_with_a_price_the_providers_figure_is_left_beside() -> None:
    reading = Reading(usage=USAGE, provider_cost_nanos=4711)
    assert priced("openai", "gpt-4o-mini", reading).cost_nanos == 210_000
    assert reading.provider_cost_nanos == 4711


def test_a_negative_figure_of_the_provider_is_no_figure() -> None:
    assert priced("openrouter", "nobody/nothing", Reading(usage=USAGE, provider_cost_nanos=-1)).cost_nanos is None


def test_an_answer_without_usage_has_no_cost() -> None:
    cost = priced("openai", "gpt-4o-mini", Reading())
    assert cost.cost_nanos is None and cost.notes == ("the provider reported no usage",)


def test_contradictory_counts_are_noted() -> None:
    cost = priced("openai", "gpt-4o-mini", Reading(usage=Usage(input_tokens=100, cache_read_tokens=150)))
    assert cost.cost_nanos == 100 * 150 + 150 * 75
    assert any("contradict" in note for note in cost.notes)
