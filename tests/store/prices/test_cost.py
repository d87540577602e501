"""Costs against the genai-prices library (all its models) and against sums done by hand."""

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as LibraryUsage
from genai_prices import calc_price
from genai_prices.data import providers as library_providers
from genai_prices.types import ModelPrice as LibraryPrice
from hypothesis import given, settings
from hypothesis import strategies as st

from store.prices.book import PriceBook
from store.prices.cost import consistent, cost_nanos
from store.prices.types import ModelPrice, Rates, Tier
from store.usage import Usage

BOOK = PriceBook.load()
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MOMENTS = (
    NOW,
    datetime(2025, 6, 1, 3, tzinfo=UTC),
    datetime(2026, 7, 30, 1, 30, tzinfo=UTC),
    datetime(2027, 1, 1, 16, 30, tzinfo=UTC),
)
COUNTED = {
    "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "input_audio_mtok",
    "cache_audio_read_mtok", "output_audio_mtok", "input_image_mtok", "cache_image_read_mtok", "output_image_mtok",
    "input_video_mtok", "output_video_mtok", "output_reasoning_mtok", "web_searches_kcount", "requests_kcount",
    "storage_searches_kcount", "output_citation_mtok",
}  # fmt: skip


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def library_prices(model: Any, moment: datetime, context: dict[str, str]) -> dict[str, Any]:
    return {key: value for key, value in model.get_prices(moment, context).__dict__.items() if value is not None}


def comparable(prices: dict[str, Any]) -> bool:
    """Left out of the comparison, because there we deliberately differ: entries that price nothing (the library says free,
    we say unpriced) and entries that bill something a Usage cannot count (hours of audio, characters, pages)."""
    return "input_mtok" in prices and prices.keys() <= COUNTED


def is_exact(prices: dict[str, Any]) -> bool:
    """Whether every price is a whole number of pico-dollars per token (a few carry float noise and are rounded up)."""
    figures = [figure for price in prices.values() for figure in [getattr(price, "base", price), *_tier_prices(price)]]
    return all(figure * 10**6 == int(figure * 10**6) for figure in figures)


def _tier_prices(price: Any) -> list[Decimal]:
    return [tier.price for tier in getattr(price, "tiers", ())]


def random_usage(rng: random.Random, prices: dict[str, Any]) -> Usage:
    """A usage whose counts fit together, with classes that the library prices or ignores the way we do.

    Web searches and one-hour writes appear only where the data prices them: elsewhere we charge a dearer class on purpose.
    """
    total = rng.choice([0, 1, rng.randrange(5_000), rng.randrange(100_000, 100_003), rng.randrange(199_999, 600_000)])
    read = rng.randrange(total + 1) if rng.random() < 0.6 else 0
    write = rng.randrange(total - read + 1) if rng.random() < 0.4 else 0
    fresh = total - read - write
    image = rng.randrange(fresh + 1) if rng.random() < 0.3 else 0
    video = rng.randrange(fresh - image + 1) if rng.random() < 0.2 else 0
    audio_fresh = rng.randrange(fresh - image - video + 1) if rng.random() < 0.3 else 0
    audio_read = rng.randrange(read + 1) if rng.random() < 0.3 else 0
    made = rng.choice([0, 1, rng.randrange(10_000)])
    reasoning = rng.randrange(made + 1) if rng.random() < 0.5 else 0
    shown = made - reasoning
    audio_out = rng.randrange(shown + 1) if rng.random() < 0.3 else 0
    image_out = rng.randrange(shown - audio_out + 1) if rng.random() < 0.3 else 0
    video_out = rng.randrange(shown - audio_out - image_out + 1) if rng.random() < 0.2 else 0
    return Usage(
        input_tokens=total, output_tokens=made, cache_read_tokens=read, cache_write_tokens=write,
        cache_write_1h_tokens=rng.randrange(write + 1) if "cache_write_1h_mtok" in prices else 0,
        reasoning_tokens=reasoning, input_audio_tokens=audio_fresh + audio_read, cache_read_audio_tokens=audio_read,
        output_audio_tokens=audio_out, input_image_tokens=image, output_image_tokens=image_out,
        input_video_tokens=video, output_video_tokens=video_out,
        web_searches=rng.randrange(4) if "web_searches_kcount" in prices else 0,
    )  # fmt: skip


def library_usage(usage: Usage) -> LibraryUsage:
    return LibraryUsage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens, cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens, input_audio_tokens=usage.input_audio_tokens,
        cache_audio_read_tokens=usage.cache_read_audio_tokens, output_audio_tokens=usage.output_audio_tokens,
        input_image_tokens=usage.input_image_tokens, cache_image_read_tokens=0, output_image_tokens=usage.output_image_tokens,
        input_video_tokens=usage.input_video_tokens, output_video_tokens=usage.output_video_tokens,
        output_citation_tokens=0, storage_searches=0, web_searches=usage.web_searches,
    )  # fmt: skip


def assert_same_cost(price: ModelPrice, usage: Usage, total_usd: Decimal, exact: bool) -> None:
    ours, theirs = cost_nanos(price, usage), math.ceil(total_usd * 10**9)
    if exact:
        assert ours == theirs, (price, usage)
    else:
        assert 0 <= ours - theirs <= (usage.input_tokens + usage.output_tokens) // 1000 + 1, (price, usage)


def references() -> Iterator[tuple[str, Any, str]]:
    """Every model of the data that some name leads to: its id, or for AWS's regional entries the id with a region."""
    for provider in library_providers:
        for model in provider.models:
            name = model.id.replace("regional.", "us.") if provider.id == "aws" else model.id
            if (found := provider.find_model(name, all_providers=library_providers)) is not None:
                yield provider.id, found, name


def test_all_models_cost_what_the_library_says() -> None:
    rng = random.Random(20261123)
    compared: set[tuple[str, str]] = set()
    unpriced: set[tuple[str, str]] = set()
    uncounted: set[tuple[str, str]] = set()
    for provider_id, model, name in references():
        for moment in MOMENTS if not isinstance(model.prices, LibraryPrice) else (NOW,):
            prices = library_prices(model, moment, {})
            price = BOOK.price(provider_id, name, ms(moment))
            if not comparable(prices):
                assert price is None, (provider_id, name)
                (uncounted if prices else unpriced).add((provider_id, name))
                continue
            assert price is not None, (provider_id, name)
            usage = random_usage(rng, prices)
            total = calc_price(library_usage(usage), name, provider_id=provider_id, genai_request_timestamp=moment).total_price
            assert_same_cost(price, usage, total, is_exact(prices))
            compared.add((provider_id, name))
    assert len(compared) > 2050
    assert len(unpriced) < 185 and len(uncounted) < 40


def variants() -> Iterator[tuple[str, Any, dict[str, str]]]:
    for provider in library_providers:
        for model in provider.models:
            for variant in model.price_variants or ():
                if provider.find_model(model.id) is model and variant.when.keys() <= {"service_tier", "processing", "speed"}:
                    yield provider.id, model, variant.when


def test_all_variants_cost_what_the_library_says() -> None:
    rng = random.Random(7)
    compared = 0
    for provider_id, model, context in variants():
        prices = library_prices(model, NOW, context)
        if not comparable(prices):
            continue
        price = BOOK.price(
            provider_id, model.id, ms(NOW),
            service_tier=context.get("service_tier"), speed=context.get("speed"), batch="processing" in context,
        )  # fmt: skip
        assert price is not None and price.multiplier == (1, 1)
        for _ in range(3):
            usage = random_usage(rng, prices)
            total = model.calc_price(
                library_usage(usage), next(p for p in library_providers if p.id == provider_id),
                genai_request_timestamp=NOW, price_context=context,
            ).total_price  # fmt: skip
            assert_same_cost(price, usage, total, is_exact(prices))
            compared += 1
    assert compared > 500


@given(st.sampled_from(["gpt-5", "gpt-5.6-sol", "gpt-realtime", "gpt-image-1.5", "gpt-4o-transcribe"]), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_openai_models_with_many_classes(model_id: str, seed: int) -> None:
    provider = next(p for p in library_providers if p.id == "openai")
    model = provider.find_model(model_id)
    assert model is not None
    prices = library_prices(model, NOW, {})
    usage = random_usage(random.Random(seed), prices)
    price = BOOK.price("openai", model_id, ms(NOW))
    assert price is not None
    total = model.calc_price(library_usage(usage), provider, genai_request_timestamp=NOW).total_price
    assert_same_cost(price, usage, total, exact=True)


# --- by hand -------------------------------------------------------------------------------------------------------------------


def price_of(provider: str, model: str, moment: datetime = NOW, **words: Any) -> ModelPrice:
    price = BOOK.price(provider, model, ms(moment), **words)
    assert price is not None
    return price


def test_gpt_4o_mini_by_hand() -> None:
    # 12 x $0.15/M + 48 x $0.60/M = $0.0000018 + $0.0000288
    assert cost_nanos(price_of("openai", "gpt-4o-mini"), Usage(input_tokens=12, output_tokens=48)) == 30_600


def test_one_token_rounds_up_to_a_whole_nano_once() -> None:
    # gpt-5-nano: a cached token is $0.005/M = 5 nanos; 1 token of text-embedding-3-small $0.02/M = 20 nanos
    assert cost_nanos(price_of("openai", "gpt-5-nano"), Usage(input_tokens=1, cache_read_tokens=1)) == 5
    price = ModelPrice("p", "m", (Tier(-1, Rates(input_picos=1, output_picos=1)),), "test")
    assert cost_nanos(price, Usage(input_tokens=1)) == 1
    assert cost_nanos(price, Usage(input_tokens=600, output_tokens=400)) == 1  # not one nano each
    assert cost_nanos(price, Usage(input_tokens=600, output_tokens=401)) == 2


def test_anthropic_cache_classes_by_hand() -> None:
    # Opus 5.5: 4 / 20, write 5, 1h write 8, read 0.2. 1000 in all: 100 plain, 300 written (100 of them 1h), 600 read; 50 out
    usage = Usage(
        input_tokens=1000,
        output_tokens=50,
        cache_read_tokens=600,
        cache_write_tokens=300,
        cache_write_1h_tokens=100,
        web_searches=2,
    )
    # 400 + 1000 + 800 + 120 + 1000 micro-dollars, and two searches at a cent
    assert cost_nanos(price_of("anthropic", "claude-opus-5-5"), usage) == 3_320_000 + 20_000_000


def test_the_long_context_cliff_is_above_the_threshold_and_for_all_tokens() -> None:
    haiku = price_of("anthropic", "claude-haiku-5-5")  # 0.1/0.5 up to 100k of input, 0.5/2.5 above
    assert cost_nanos(haiku, Usage(input_tokens=100_000, output_tokens=1000)) == 10_000_000 + 500_000
    assert cost_nanos(haiku, Usage(input_tokens=100_001, output_tokens=1000)) == 50_000_500 + 2_500_000


def test_cached_tokens_count_for_the_threshold() -> None:
    haiku = price_of("anthropic", "claude-haiku-5-5")
    usage = Usage(input_tokens=100_001, cache_read_tokens=100_001)  # $0.05/M above the cliff
    assert cost_nanos(haiku, usage) == 5_000_050


def test_regional_surcharge_is_on_tokens_not_on_searches() -> None:
    price = price_of("anthropic", "claude-opus-5-5", region="us")
    assert cost_nanos(price, Usage(input_tokens=1000, web_searches=1)) == 4_400_000 + 10_000_000


def test_surcharges_are_exact_and_rounded_once() -> None:
    price = price_of("anthropic", "claude-haiku-5-5", region="us")  # 110 nanos a token
    assert cost_nanos(price, Usage(input_tokens=1)) == 110
    odd = ModelPrice("p", "m", (Tier(-1, Rates(1001, 0)),), "test", (11, 10))
    assert cost_nanos(odd, Usage(input_tokens=10)) == 12  # 11.011 nanos


def test_perplexity_request_fee_and_own_price_of_reasoning() -> None:
    assert cost_nanos(price_of("perplexity", "sonar"), Usage(input_tokens=1000, output_tokens=1000)) == 12_000_000 + 2_000_000
    deep = price_of("perplexity", "sonar-deep-research")  # 2 / 8, reasoning 3, search $5 per thousand
    usage = Usage(input_tokens=1000, output_tokens=1000, reasoning_tokens=400, web_searches=1)
    assert cost_nanos(deep, usage) == 2_000_000 + 4_800_000 + 1_200_000 + 5_000_000


# --- classes the data has no price for -----------------------------------------------------------------------------------------

PLAIN = ModelPrice("p", "m", (Tier(-1, Rates(input_picos=1000, output_picos=4000)),), "test")


@pytest.mark.parametrize(
    "usage, nanos",
    [
        (Usage(input_tokens=10, cache_read_tokens=10), 10),
        (Usage(input_tokens=10, cache_write_tokens=10, cache_write_1h_tokens=10), 10),
        (Usage(input_tokens=10, input_audio_tokens=10), 10),
        (Usage(input_tokens=10, input_image_tokens=5, input_video_tokens=5), 10),
        (Usage(output_tokens=10, output_audio_tokens=5, output_image_tokens=5), 40),
        (Usage(output_tokens=10, reasoning_tokens=10), 40),
        (Usage(web_searches=2), 20_000_000),
    ],
)
def test_missing_classes_cost_what_plain_tokens_do(usage: Usage, nanos: int) -> None:
    assert cost_nanos(PLAIN, usage) == nanos


def test_long_writes_without_a_price_cost_twice() -> None:
    # GPT-5.6 sol: 4 in, write 5; twelve-hour writes are twice the write price (the data has none)
    usage = Usage(input_tokens=1000, cache_write_tokens=1000, cache_write_1h_tokens=1000)
    assert cost_nanos(price_of("openai", "gpt-5.6-sol"), usage) == 10_000_000


def test_cached_audio_without_a_price_costs_what_audio_does() -> None:
    price = ModelPrice("p", "m", (Tier(-1, Rates(1000, 1000, cache_read_picos=100, input_audio_picos=9000)),), "test")
    usage = Usage(input_tokens=10, cache_read_tokens=10, input_audio_tokens=10, cache_read_audio_tokens=10)
    assert cost_nanos(price, usage) == 90


# --- counts that contradict each other -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "usage, same_as",
    [
        (Usage(input_tokens=100, cache_read_tokens=150), Usage(input_tokens=250, cache_read_tokens=150)),
        (
            Usage(input_tokens=100, cache_read_tokens=60, cache_write_tokens=60),
            Usage(input_tokens=220, cache_read_tokens=60, cache_write_tokens=60),
        ),
        (
            Usage(input_tokens=100, cache_write_tokens=10, cache_write_1h_tokens=30),
            Usage(input_tokens=100, cache_write_tokens=40, cache_write_1h_tokens=30),
        ),
        (Usage(input_tokens=-5, output_tokens=10), Usage(output_tokens=10)),
        (Usage(output_tokens=10, reasoning_tokens=30), Usage(output_tokens=40, reasoning_tokens=30)),
        (Usage(input_tokens=10, input_audio_tokens=30), Usage(input_tokens=40, input_audio_tokens=30)),
        (Usage(output_tokens=10, output_image_tokens=30), Usage(output_tokens=40, output_image_tokens=30)),
    ],
)
def test_contradictions_are_read_as_counted_side_by_side(usage: Usage, same_as: Usage) -> None:
    assert consistent(usage) == same_as
    assert consistent(same_as) is same_as


def any_count() -> st.SearchStrategy[int]:
    return st.one_of(st.integers(-3, 30), st.integers(0, 10**6))


ANY_USAGE = st.builds(Usage, *[any_count() for _ in Usage.__slots__])
ANY_RATE = st.integers(0, 10**5)
MAYBE_RATE = st.one_of(st.none(), ANY_RATE)
ANY_RATES = st.builds(
    Rates, ANY_RATE, ANY_RATE, **{name: MAYBE_RATE for name in Rates.__slots__ if name.endswith("_picos") and name not in
                                  ("input_picos", "output_picos", "request_picos")}
)  # fmt: skip


@given(ANY_RATES, ANY_USAGE)
@settings(max_examples=500, deadline=None)
def test_no_usage_raises_and_none_is_negative(rates: Rates, usage: Usage) -> None:
    price = ModelPrice("p", "m", (Tier(-1, rates),), "test")
    assert cost_nanos(price, usage) >= 0
    settled = consistent(usage)
    assert consistent(settled) is settled
    assert settled.cache_read_tokens + settled.cache_write_tokens <= settled.input_tokens


@given(ANY_USAGE)
def test_every_token_is_placed_exactly_once(usage: Usage) -> None:
    """With one price for everything the split between classes cannot matter."""
    flat = {name: 7000 for name in Rates.__slots__}
    price = ModelPrice("p", "m", (Tier(-1, Rates(**{**flat, "web_search_picos": 0, "request_picos": 0})),), "test")
    settled = consistent(usage)
    assert cost_nanos(price, usage) == 7 * (settled.input_tokens + settled.output_tokens)


@given(ANY_RATES, st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_unknown_placing_of_images_is_the_dearest_one(rates: Rates, fresh: int, cached: int, images: int) -> None:
    images = min(images, fresh + cached)
    price = ModelPrice("p", "m", (Tier(-1, rates),), "test")
    usage = Usage(input_tokens=fresh + cached, cache_read_tokens=cached, input_image_tokens=images)
    image = rates.input_image_picos if rates.input_image_picos is not None else rates.input_picos
    read = rates.cache_read_picos if rates.cache_read_picos is not None else rates.input_picos
    read_image = rates.cache_read_image_picos if rates.cache_read_image_picos is not None else read
    ways = [
        (images - inside) * image + (fresh - images + inside) * rates.input_picos + inside * read_image + (cached - inside) * read
        for inside in range(max(0, images - fresh), min(images, cached) + 1)
    ]
    assert cost_nanos(price, usage) == -(-(max(ways) + rates.request_picos) // 1000)


def test_the_larger_input_of_a_contradiction_decides_the_tier() -> None:
    haiku = price_of("anthropic", "claude-haiku-5-5")
    odd = Usage(input_tokens=60_000, cache_read_tokens=70_000)
    assert cost_nanos(haiku, odd) == cost_nanos(haiku, replace(odd, input_tokens=130_000))
