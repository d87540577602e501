"""Single prices: their names, their digits, and what they do to a table."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.prices.patch import FIELDS, compile_patch, patched, picos_of, scaled
from store.prices.types import Rates, Tier

TABLE = (
    Tier(-1, Rates(1_000, 2_000, cache_read_picos=100, web_search_picos=7)),
    Tier(200_000, Rates(3_000, 2_000, cache_read_picos=100, web_search_picos=7)),
)


@given(st.integers(0, 10**17))
def test_prices_are_exact_to_the_pico_dollar(picos: int) -> None:
    usd = Decimal(picos).scaleb(-12)
    assert picos_of(usd) == picos_of(Decimal(str(usd))) == picos


@pytest.mark.parametrize("text", ["-0.1", "NaN", "Infinity", "0.0000000000001", "1000000", "1e999999999", "1e-999999999"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|decimals"):
        picos_of(Decimal(text))


def test_names_are_the_ones_people_know() -> None:
    """Fields that Bifrost's price sheet and LiteLLM's table have for tokens."""
    for name in (
        "input_cost_per_token", "output_cost_per_token_batches", "input_cost_per_token_above_200k_tokens_priority",
        "input_cost_per_token_flex_above_272k_tokens", "cache_read_input_token_cost_flex_above_272k_tokens",
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens", "cache_creation_input_token_cost_above_1hr_fast",
        "output_cost_per_image_token", "search_context_cost_per_query", "output_cost_per_reasoning_token",
    ):  # fmt: skip
        assert name in FIELDS
    assert all(field.rate in Rates.__slots__ for field in FIELDS.values())


def test_a_class_with_one_price_changes_at_every_size() -> None:
    """Output costs the same above 200,000 tokens as below: it is one price. Input has a price of its own there."""
    made = patched(TABLE, {-1: {"input_picos": 5, "output_picos": 6}})
    assert made is not None
    assert [(tier.above_input_tokens, tier.rates.input_picos, tier.rates.output_picos) for tier in made] == [
        (-1, 5, 6),
        (200_000, 3_000, 6),
    ]


def test_a_new_threshold_begins_from_what_holds_below_it() -> None:
    made = patched(TABLE, {-1: {"input_picos": 5}, 128_000: {"cache_read_picos": 9}})
    assert made is not None
    assert [(tier.above_input_tokens, tier.rates.input_picos, tier.rates.cache_read_picos) for tier in made] == [
        (-1, 5, 100),
        (128_000, 5, 9),
        (200_000, 3_000, 9),
    ]


def test_nothing_changes_what_is_not_named() -> None:
    assert patched(TABLE, {}) == TABLE


def test_fees_are_not_scaled() -> None:
    doubled = scaled(TABLE, (2, 1))
    assert (doubled[0].rates.input_picos, doubled[0].rates.cache_read_picos) == (2_000, 200)
    assert (doubled[0].rates.web_search_picos, doubled[0].rates.input_audio_picos) == (7, None)


def test_unknown_names_are_not_passed_over() -> None:
    with pytest.raises(KeyError):
        compile_patch("x", [("input_cost", "1")])
