"""Words for tiers, speeds and regions, and what each means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.prices.surcharges import ANY, STANDARD, Terms, is_cheaper, regional_uplift, terms, times


@pytest.mark.parametrize(
    "provider, word, expected",
    [
        ("openai", None, STANDARD),
        ("openai", "default", STANDARD),
        ("openai", "auto", ANY),
        ("openai", "flex", "flex"),
        ("openai", "priority", "priority"),
        ("openai", "ultrafast", "ultrafast"),
        ("openai", "balanced", ANY),
        ("anthropic", "standard_only", STANDARD),
        ("anthropic", "priority", STANDARD),
        ("bedrock", "reserved", STANDARD),
        ("vertex", "ON_DEMAND_FLEX", "flex"),
        ("vertex", "ON_DEMAND_PRIORITY", "priority"),
        ("vertex", "ON_DEMAND_OFFPEAK", "off_peak"),
        ("vertex", "PROVISIONED_THROUGHPUT", STANDARD),
        ("vertex", "TRAFFIC_TYPE_UNSPECIFIED", STANDARD),
        ("gemini", "SERVICE_TIER_PRIORITY", "priority"),
        ("gemini", "SERVICE_TIER_UNSPECIFIED", STANDARD),
    ],
)
def test_tiers(provider: str, word: str | None, expected: str) -> None:
    assert terms(provider, word, None, None, False).tier == expected


def test_a_tier_called_batch_is_batch() -> None:
    assert terms("anthropic", "batch", None, None, False) == Terms(batch=True)


@pytest.mark.parametrize(
    "word, cheaper", [("flex", True), ("batch", True), ("OFFPEAK", True), ("auto", False), (None, False), ("fast", False)]
)
def test_cheaper_words(word: str | None, cheaper: bool) -> None:
    assert is_cheaper(word) is cheaper


def test_together_charges_for_two_regions_only() -> None:
    assert terms("together", None, None, "us", False).regional
    assert not terms("together", None, None, "eu", False).regional
    assert regional_uplift("together", "llama") == (5, 4)


def test_products_are_exact() -> None:
    assert times((11, 10), (2, 1)) == (22, 10)


@given(st.sampled_from(["openai", "anthropic", "vertex", "nobody"]), st.text(), st.text(), st.text(), st.booleans())
def test_any_words_reduce_to_a_closed_vocabulary(provider: str, tier: str, speed: str, region: str, batch: bool) -> None:
    reduced = terms(provider, tier, speed, region, batch)
    assert reduced.tier in {STANDARD, ANY, "flex", "off_peak", "priority", "fast", "ultrafast", "performance"}
    assert isinstance(reduced.fast, bool) and isinstance(reduced.regional, bool)
