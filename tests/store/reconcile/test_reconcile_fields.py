"""Single values: what is a number, an amount, a day, and what is not."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import UserError
from store.reconcile.fields import Fields, bucket, day_span, decimal_of
from tests.store.reconcile.exports_here import NOV_20, NOV_21


@given(st.integers(-(10**18), 10**18), st.sampled_from([1, 100]))
def test_amounts_are_exact_where_nanos_can_hold_them(nanos: int, per_usd: int) -> None:
    amount = Fraction(nanos * per_usd, 10**9)
    text = f"{Decimal(amount.numerator) / Decimal(amount.denominator):f}"
    for value in (text, Decimal(text)):
        assert Fields({"x": value}, "f").nanos("x", per_usd) == nanos


@pytest.mark.parametrize(
    "value,nanos",
    [("0.0000000005", 1), ("-0.0000000005", -1), ("0.00000000049", 0), (5, 5 * 10**9), ("1e-7", 100), ("0.13080438", 130_804_380)],
)
def test_amounts_round_to_the_nearest(value: object, nanos: int) -> None:
    assert Fields({"x": value}, "f").nanos("x") == nanos


@pytest.mark.parametrize(
    "value", ["1E999999999", "0x10", "1_000", " 1", "", "∞", "١", "NaN", "-Infinity", True, 0.5, [], "9" * 200]
)
def test_no_numbers(value: object) -> None:
    assert decimal_of(value) is None


def test_numbers_so_small_that_they_are_nothing() -> None:
    assert decimal_of(Decimal("1e-500")) == 0


@pytest.mark.parametrize("value,count", [(7, 7), ("7", 7), ("7.0", 7), (Decimal("7.0"), 7), (None, None), ("", None), (0, 0)])
def test_counts(value: object, count: int | None) -> None:
    assert Fields({"x": value}, "f").count("x") == count


def test_days_and_buckets() -> None:
    assert day_span("2026-11-20", "f", "day") == day_span("2026-11-20T05:00:00Z", "f", "day") == (NOV_20, NOV_21)
    assert bucket(NOV_20, NOV_21, "f", "") == (NOV_20, NOV_21)
    assert bucket(NOV_21 - 1, NOV_21, "f", "") == (NOV_21 - 1, NOV_21)
    for start, end in ((NOV_20, NOV_20), (NOV_20 + 1, NOV_21 + 1), (NOV_20, NOV_21 + 1)):
        with pytest.raises(UserError, match="f: the bucket"):
            bucket(start, end, "f", "advice")
