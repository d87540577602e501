"""Which price the book gives, and when it says that it knows none."""

from datetime import UTC, datetime
from typing import Any

import pytest

from store.prices.book import CACHED_LINES, PriceBook
from store.prices.names import LONGEST_MODEL_NAME, data_id, spellings
from store.prices.patch import compile_patch
from store.prices.types import ModelPrice, Rates, Tier

BOOK = PriceBook.load()


def ms(year: int, month: int, day: int, hour: int = 12, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


NOW = ms(2026, 11, 23)


def base(provider: str, model: str, at_ms: int = NOW, **words: Any) -> Rates:
    price = BOOK.price(provider, model, at_ms, **words)
    assert price is not None
    return price.tiers[0].rates


def in_out(provider: str, model: str, at_ms: int = NOW, **words: Any) -> tuple[int, int]:
    rates = base(provider, model, at_ms, **words)
    return rates.input_picos, rates.output_picos


@pytest.mark.parametrize(
    "provider, model, expected",
    [
        ("openai", "gpt-4o-mini", (150_000, 600_000)),
        ("openai", "GPT-4o-Mini", (150_000, 600_000)),
        ("openai", "gpt-4o-mini-2024-07-18", (150_000, 600_000)),
        ("openai", "openai/gpt-4o-mini", (150_000, 600_000)),
        ("openai", "gpt-4o-2024-05-13", (5_000_000, 15_000_000)),
        ("anthropic", "claude-opus-4-5-20251101", (5_000_000, 25_000_000)),
        ("gemini", "models/gemini-2.5-pro", (1_250_000, 10_000_000)),
        ("gemini", "gemini-2.5-pro", (1_250_000, 10_000_000)),
        ("vertex", "publishers/google/models/gemini-2.5-pro", (1_250_000, 10_000_000)),
        ("vertex", "projects/p/locations/l/publishers/anthropic/models/claude-opus-5-5", (4_000_000, 20_000_000)),
        ("vertex", "claude-sonnet-4-5@20250929", (3_000_000, 15_000_000)),
        ("bedrock", "us.anthropic.claude-opus-4-5-20251101-v1:0", (5_500_000, 27_500_000)),
        ("bedrock", "global.anthropic.claude-opus-4-5-20251101-v1:0", (5_000_000, 25_000_000)),
        ("xai", "grok-4", (3_000_000, 15_000_000)),
        ("azure", "gpt-4o", (2_500_000, 10_000_000)),
        ("openrouter", "anthropic/claude-opus-4.5", (5_000_000, 25_000_000)),
    ],
)
def test_the_names_callers_use(provider: str, model: str, expected: tuple[int, int]) -> None:
    assert in_out(provider, model) == expected


@pytest.mark.parametrize(
    "provider, model",
    [
        ("openai", "no-such-model"),
        ("openai", ""),
        ("openai", "x" * (LONGEST_MODEL_NAME + 1)),
        ("my-openai-clone", "gpt-4o"),
        ("ollama", "llama3"),
        ("github-copilot", "gpt-5"),  # in the data, without any price
        ("openai", "whisper-1"),  # by the hour
        ("openai", "tts-1"),  # by characters
        ("openai", "../../gpt-4o"),
        ("azure", "my-deployment"),
        ("bedrock", "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc123"),
    ],
)
def test_unknown_is_unpriced_never_free(provider: str, model: str) -> None:
    assert BOOK.price(provider, model, NOW) is None


def test_a_price_of_zero_is_a_price() -> None:
    price = ModelPrice("p", "m", (Tier(-1, Rates(0, 0)),), "test")
    assert price.is_zero
    assert not ModelPrice("p", "m", (Tier(-1, Rates(0, 0)), Tier(9, Rates(0, 1))), "test").is_zero
    assert not ModelPrice("p", "m", (Tier(-1, Rates(0, 0, cache_read_image_picos=1)),), "test").is_zero


def test_dated_prices_change_at_midnight_utc() -> None:
    day = ms(2026, 7, 30, 0)
    assert in_out("openai", "gpt-5.6-luna", day - 1) == (1_000_000, 6_000_000)
    assert in_out("openai", "gpt-5.6-luna", day) == (200_000, 1_200_000)


def test_time_of_day_prices() -> None:
    peak, night = (
        in_out("deepseek", "deepseek-v4-pro", ms(2026, 11, 23, 2)),
        in_out("deepseek", "deepseek-v4-pro", ms(2026, 11, 23, 5)),
    )
    assert peak[0] > night[0]
    edges = [in_out("deepseek", "deepseek-v4-pro", ms(2026, 11, 23, 1) + shift) for shift in (-1, 0)]
    assert edges == [night, peak]
    assert in_out("deepseek", "deepseek-v4-pro", ms(2026, 11, 23, 4)) == night


def test_tier_words() -> None:
    standard = in_out("openai", "gpt-5")
    assert standard == (1_250_000, 10_000_000)
    for word in (None, "", "default", "standard", "scale", "Default", "ON_DEMAND"):
        assert in_out("openai", "gpt-5", service_tier=word) == standard
    assert in_out("openai", "gpt-5", service_tier="priority") == (2_500_000, 20_000_000)
    assert in_out("openai", "gpt-5", service_tier="flex") == (625_000, 5_000_000)
    assert in_out("openai", "gpt-5", batch=True) == (625_000, 5_000_000)
    assert in_out("openai", "gpt-5", service_tier="batch") == (625_000, 5_000_000)


def test_a_cheaper_tier_the_data_does_not_know_costs_the_standard_price() -> None:
    price = BOOK.price("openai", "gpt-4o-mini", NOW, service_tier="flex")
    assert price is not None and price.tiers[0].rates.input_picos == 150_000
    assert any("flex" in note for note in price.notes)


@pytest.mark.parametrize(
    "provider, model, word",
    [
        ("openai", "gpt-6-astra", "ultrafast"),
        ("openai", "gpt-5-nano", "priority"),
        ("bedrock", "us.anthropic.claude-opus-4-5-20251101-v1:0", "priority"),
        ("gemini", "gemini-2.5-pro", "priority"),
        ("vertex", "gemini-2.5-pro", "ON_DEMAND_PRIORITY"),
        ("azure", "gpt-5", "priority"),  # borrowed from OpenAI, whose tier prices need not hold there
    ],
)
def test_a_dearer_tier_the_data_does_not_know_is_unpriced(provider: str, model: str, word: str) -> None:
    assert BOOK.price(provider, model, NOW) is not None
    assert BOOK.price(provider, model, NOW, service_tier=word) is None


def test_a_dearer_tier_before_its_first_known_price_is_unpriced() -> None:
    assert BOOK.price("openai", "gpt-5", ms(2026, 10, 11), service_tier="priority") is None
    assert BOOK.price("openai", "gpt-5", ms(2026, 10, 12), service_tier="priority") is not None


@pytest.mark.parametrize("word", ["auto", "turbo-charged", "x" * 10_000, "\x00", "ünknown"])
def test_unknown_tiers_are_the_dearest_known(word: str) -> None:
    price = BOOK.price("openai", "gpt-5", NOW, service_tier=word)
    assert price is not None
    assert (price.tiers[0].rates.input_picos, price.tiers[0].rates.output_picos) == (2_500_000, 20_000_000)
    assert price.notes


def test_the_dearest_of_tiers_keeps_every_threshold() -> None:
    price = BOOK.price("openai", "gpt-5.6-sol", NOW, service_tier="auto")
    assert price is not None
    figures = [(tier.above_input_tokens, tier.rates.input_picos, tier.rates.output_picos) for tier in price.tiers]
    assert figures == [(-1, 8_000_000, 40_000_000), (272_000, 16_000_000, 60_000_000)]


def test_anthropic_priority_is_capacity_bought_beforehand() -> None:
    assert in_out("anthropic", "claude-opus-5", service_tier="priority") == in_out("anthropic", "claude-opus-5")


def test_fast_mode_from_the_data_and_twice_where_it_is_silent() -> None:
    assert in_out("anthropic", "claude-opus-5", speed="fast") == (10_000_000, 50_000_000)
    price = BOOK.price("anthropic", "claude-sonnet-5", NOW, speed="fast")
    assert price is not None and price.multiplier == (2, 1) and price.tiers[0].rates.input_picos == 2_000_000
    assert in_out("anthropic", "claude-opus-5", speed="standard") == (5_000_000, 25_000_000)
    assert in_out("anthropic", "claude-opus-5", speed="ludicrous") == (10_000_000, 50_000_000)


def test_fast_is_never_priced_as_batch() -> None:
    assert in_out("anthropic", "claude-opus-5", speed="fast", batch=True) == (10_000_000, 50_000_000)


@pytest.mark.parametrize(
    "provider, model, region, multiplier",
    [
        ("anthropic", "claude-opus-5-5", "us", (11, 10)),
        ("anthropic", "claude-opus-5-5", "mars", (11, 10)),
        ("anthropic", "claude-opus-5-5", "global", (1, 1)),
        ("anthropic", "claude-opus-5-5", "not_available", (1, 1)),
        ("anthropic", "claude-opus-5-5", None, (1, 1)),
        ("openai", "gpt-5.6-sol", "eu", (11, 10)),
        ("openai", "gpt-6-sol", "eu", (11, 10)),
        ("openai", "gpt-5.4-mini", "us", (11, 10)),
        ("openai", "gpt-5.1", "eu", (1, 1)),
        ("openai", "gpt-5", "eu", (1, 1)),
        ("openai", "gpt-4o-mini", "eu", (1, 1)),
        ("openai", "gpt-5.6-sol", "", (1, 1)),
        ("vertex", "gemini-2.5-pro", "europe-west4", (1, 1)),
        ("vertex", "gemini-3.8-flash", "europe-west4", (11, 10)),
        ("vertex", "gemini-3.8-flash", "global", (1, 1)),
        ("vertex", "claude-opus-5-5", "us-east5", (11, 10)),
        ("gemini", "gemini-3.8-flash", "eu", (1, 1)),
        ("mistral", "mistral-large-latest", "eu", (1, 1)),
    ],
)
def test_regions(provider: str, model: str, region: str | None, multiplier: tuple[int, int]) -> None:
    price = BOOK.price(provider, model, NOW, region=region)
    assert price is not None and price.multiplier == multiplier


def test_surcharges_multiply() -> None:
    price = BOOK.price("anthropic", "claude-sonnet-5", NOW, speed="fast", region="us")
    assert price is not None and price.multiplier == (22, 10)


def test_a_wish_for_a_cheaper_tier_is_bounded_at_the_standard_price() -> None:
    assert BOOK.asked_price("openai", "gpt-5", NOW, service_tier="flex") == BOOK.price("openai", "gpt-5", NOW)
    assert BOOK.asked_price("openai", "gpt-5", NOW, service_tier="priority") == BOOK.price(
        "openai", "gpt-5", NOW, service_tier="priority"
    )


@pytest.mark.parametrize(("tier", "ending"), [("flex", "flex"), ("batch", "batches")])
def test_a_cheaper_tier_that_an_override_makes_dearer_is_bounded_at_its_own_price(tier: str, ending: str) -> None:
    usd = {"input_cost_per_token": "0.000001", "output_cost_per_token": "0.000002"}
    dear = {f"input_cost_per_token_{ending}": "0.0000005", f"output_cost_per_token_{ending}": "0.00002"}
    own = compile_patch("own", (usd | dear).items())
    price = BOOK.asked_price("openai", "house-model", NOW, service_tier=tier, patch=own)
    assert price is not None
    assert (price.tiers[0].rates.input_picos, price.tiers[0].rates.output_picos) == (1_000_000, 20_000_000)
    plain = BOOK.asked_price("openai", "house-model", NOW, patch=own)
    assert plain is not None and plain.tiers[0].rates.output_picos == 2_000_000


def test_every_price_names_its_source_and_our_provider() -> None:
    price = BOOK.price("gemini", "models/gemini-2.5-pro", NOW)
    assert price is not None
    assert (price.source, price.provider, price.model) == ("genai-prices 0.2.3", "gemini", "gemini-2.5-pro")


def test_names_and_words_of_callers_do_not_fill_the_memory() -> None:
    book = PriceBook.load()
    for number in range(CACHED_LINES + 500):
        book.price("anthropic", f"nobody-{number}", NOW)
    for number in range(2000):
        book.price("anthropic", "claude-opus-5", NOW, service_tier=f"t{number}", speed=f"s{number}", region=f"r{number}")
    info = book._line.cache_info()
    assert info.maxsize == CACHED_LINES and info.currsize <= CACHED_LINES
    before = info.misses
    book.price("anthropic", "claude-opus-5", NOW, service_tier="t-new", speed="s-new", region="r-new")
    assert book._line.cache_info().misses == before


def test_periods_of_a_dated_model_are_few_however_often_it_is_asked() -> None:
    book = PriceBook.load()
    for hour in range(24 * 400):
        book.price("deepseek", "deepseek-v4-pro", ms(2026, 1, 1) + hour * 3_600_000)
    line = book._line("deepseek", "deepseek-v4-pro", book_terms())
    assert len(line._periods) <= 4


def book_terms() -> Any:
    from store.prices.surcharges import terms

    return terms("deepseek", None, None, None, False)


def test_spellings_take_off_what_is_not_the_models_name() -> None:
    assert list(spellings("gemini", "models/gemini-2.5-pro")) == ["models/gemini-2.5-pro", "gemini-2.5-pro"]
    assert list(spellings("openai", "mymodels/gpt")) == ["mymodels/gpt"]
    assert list(spellings("xai", "x-ai/grok-4")) == ["x-ai/grok-4", "grok-4"]
    assert list(spellings("gemini", "models/")) == ["models/"]
    assert data_id("gemini") == "google" and data_id("openai") == "openai"
