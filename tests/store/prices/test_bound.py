"""The bound: never below what a usage inside it costs, and exactly inverted."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.prices.book import PriceBook
from store.prices.bound import UNLIMITED_TOKENS, Bound, make_bound
from store.prices.compile import compile_tiers
from store.prices.cost import cost_nanos
from store.prices.genai.catalogue import bundled
from store.prices.types import ModelPrice, Rates, Tier
from store.usage import Usage

NOW = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1000)
BOOK = PriceBook.load()


def all_prices() -> list[ModelPrice]:
    """Every model of the data that prices tokens, with some surcharges among them."""
    prices = []
    for provider in bundled().providers():
        for number, model in enumerate(provider.models):
            tiers = compile_tiers(model, NOW, {})
            if tiers is not None:
                multiplier = ((1, 1), (11, 10), (22, 10), (5, 4))[number % 4]
                prices.append(ModelPrice(provider.id, model.id, tiers, "test", multiplier))
    return prices


PRICES = all_prices()


def usage_within(
    rng: random.Random,
    most_in: int,
    audio: int,
    image: int,
    video: int,
    writes: bool,
    writes_1h: bool,
    searches: int,
    most_out: int,
) -> Usage:
    """A consistent usage that stays inside every count of the request."""
    given_tokens = rng.choice([most_in, rng.randint(0, most_in)])
    audio_in = min(rng.randint(0, audio), given_tokens)
    image_in = min(rng.randint(0, image), given_tokens - audio_in)
    video_in = min(rng.randint(0, video), given_tokens - audio_in - image_in)
    read = rng.choice([0, rng.randint(0, given_tokens)])
    audio_read = rng.randint(max(0, audio_in - (given_tokens - read)), min(audio_in, read))
    write = rng.choice([given_tokens - read, rng.randint(0, given_tokens - read)]) if writes else 0
    made = rng.choice([most_out, rng.randint(0, most_out)])
    audio_out = rng.choice([0, made, rng.randint(0, made)])
    image_out = rng.choice([0, made - audio_out])
    return Usage(
        input_tokens=given_tokens, output_tokens=made, cache_read_tokens=read, cache_write_tokens=write,
        cache_write_1h_tokens=rng.choice([write, rng.randint(0, write)]) if writes_1h else 0,
        reasoning_tokens=rng.randint(0, made - audio_out - image_out), input_audio_tokens=audio_in,
        cache_read_audio_tokens=audio_read, output_audio_tokens=audio_out, input_image_tokens=image_in,
        output_image_tokens=image_out, input_video_tokens=video_in, web_searches=rng.randint(0, searches),
    )  # fmt: skip


SIZES = st.one_of(st.integers(0, 1000), st.integers(99_990, 100_010), st.integers(199_990, 300_000))


@given(
    st.sampled_from(PRICES), SIZES, st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 500), st.booleans(), st.booleans(),
    st.integers(0, 5), st.integers(0, 20_000), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=1500, deadline=None)
def test_no_usage_inside_the_tokens_costs_more_than_the_bound(
    price: ModelPrice, most_in: int, audio: int, image: int, video: int, writes: bool, writes_1h: bool, searches: int,
    most_out: int, seed: int,
) -> None:  # fmt: skip
    writes_1h = writes_1h and writes
    bound = make_bound(
        price, input_tokens=most_in, input_audio_tokens=audio, input_image_tokens=image, input_video_tokens=video,
        writes_cache=writes, writes_cache_1h=writes_1h, web_searches=searches,
    )  # fmt: skip
    always = "claude" not in price.model.lower() and "nova" not in price.model.lower()
    usage = usage_within(random.Random(seed), most_in, audio, image, video, writes or always, writes_1h, searches, most_out)
    assert cost_nanos(price, usage) <= bound.bound_nanos(most_out)


def test_every_model_of_the_data_keeps_its_bound() -> None:
    rng = random.Random(1)
    for price in PRICES:
        bound = make_bound(
            price, input_tokens=250_000, input_image_tokens=5000, writes_cache=True, writes_cache_1h=True, web_searches=2
        )
        for _ in range(3):
            usage = usage_within(rng, 250_000, 0, 5000, 0, True, True, 2, 4000)
            assert cost_nanos(price, usage) <= bound.bound_nanos(4000), (price, usage)


@given(st.integers(0, 10**12), st.integers(0, 10**9), st.integers(0, 10**10), st.integers(0, 10**13))
@settings(max_examples=500)
def test_output_tokens_for_is_the_exact_inverse(input_nanos: int, picos: int, fixed: int, amount: int) -> None:
    bound = Bound(input_nanos, picos, fixed)
    longest = bound.output_tokens_for(amount)
    if longest < 0:
        assert longest == -1 and bound.bound_nanos(0) > amount
        return
    assert bound.bound_nanos(longest) <= amount
    if longest < UNLIMITED_TOKENS:
        assert bound.bound_nanos(longest + 1) > amount


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 10**6))
def test_inverse_of_a_bound_gives_at_least_its_tokens_back(input_nanos: int, picos: int, tokens: int) -> None:
    bound = Bound(input_nanos, picos)
    assert bound.output_tokens_for(bound.bound_nanos(tokens)) >= tokens


def test_free_output_is_unlimited() -> None:
    assert Bound(10, 0).output_tokens_for(10) == UNLIMITED_TOKENS
    assert Bound(10, 0).output_tokens_for(9) == -1


def test_the_bound_of_a_plain_call_by_hand() -> None:
    price = BOOK.price("openai", "gpt-4o-mini", NOW)
    assert price is not None
    bound = make_bound(price, input_tokens=1000)
    assert bound == Bound(150_000, 600_000, 0)
    assert bound.bound_nanos(500) == 450_000
    assert bound.output_tokens_for(450_000) == 500
    assert bound.output_tokens_for(449_999) == 499


@pytest.mark.parametrize("writes, writes_1h, nanos", [(False, False, 4_000_000), (True, False, 5_000_000), (True, True, 8_000_000)])
def test_claude_caches_only_when_asked(writes: bool, writes_1h: bool, nanos: int) -> None:
    price = BOOK.price("anthropic", "claude-opus-5-5", NOW)
    assert price is not None
    assert make_bound(price, input_tokens=1000, writes_cache=writes, writes_cache_1h=writes_1h).input_nanos == nanos


def test_openai_models_with_a_write_price_write_by_themselves() -> None:
    price = BOOK.price("openai", "gpt-5.6-sol", NOW)
    assert price is not None
    assert make_bound(price, input_tokens=1000).input_nanos == 5_000_000


def test_the_long_context_tier_counts_from_the_first_token_above() -> None:
    price = BOOK.price("anthropic", "claude-haiku-5-5", NOW)
    assert price is not None
    assert make_bound(price, input_tokens=100_000).output_picos_per_token == 500_000
    above = make_bound(price, input_tokens=100_001)
    assert (above.input_nanos, above.output_picos_per_token) == (50_000_500, 2_500_000)


def test_fees_and_surcharges() -> None:
    price = BOOK.price("anthropic", "claude-opus-5-5", NOW, region="us")
    assert price is not None
    bound = make_bound(price, input_tokens=1000, web_searches=3)
    assert bound == Bound(4_400_000, 22_000_000, 30_000_000)
    sonar = BOOK.price("perplexity", "sonar", NOW)
    assert sonar is not None
    assert make_bound(sonar, input_tokens=0).bound_nanos(0) == 12_000_000


def test_output_counts_at_its_dearest_kind() -> None:
    price = BOOK.price("gemini", "gemini-2.5-flash-image", NOW)
    assert price is not None
    assert make_bound(price, input_tokens=10).output_picos_per_token == 30_000_000


def test_audio_is_dearer_only_for_its_own_tokens() -> None:
    price = ModelPrice("p", "m", (Tier(-1, Rates(1_000_000, 1_000_000, input_audio_picos=5_000_000)),), "test")
    assert make_bound(price, input_tokens=1000, input_audio_tokens=100).input_nanos == 1_000_000 + 400_000


@pytest.mark.parametrize("tokens", [-1, -(10**9)])
def test_negative_counts_bound_nothing_below_zero(tokens: int) -> None:
    price = ModelPrice("p", "m", (Tier(-1, Rates(1_000_000, 1_000_000)),), "test")
    bound = make_bound(price, input_tokens=tokens, web_searches=tokens)
    assert bound.bound_nanos(tokens) == 0
