"""Money: read exactly, printed plainly, rounded in one place."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.money import MAX_NANOS, format_usd, nanos_from_picos, nanos_from_usd, plain_usd, usd_from_nanos


@pytest.mark.parametrize(
    ("value", "nanos"),
    [
        (0, 0),
        ("0.5", 500_000_000),
        (0.1, 100_000_000),
        (1e-9, 1),
        ("1e-9", 1),
        (Decimal("1234.000000001"), 1_234_000_000_001),
        ("-2", -2_000_000_000),
        (Decimal("9223372036.854775807"), MAX_NANOS),
        ("1.000000000000", 1_000_000_000),
    ],
)
def test_reads_exactly(value: object, nanos: int) -> None:
    assert nanos_from_usd(value) == nanos


@pytest.mark.parametrize(
    "value",
    [
        "nan", "inf", "-inf", "sNaN", float("nan"), float("inf"), True, False, "", "five", "1,5", "1e-10", 0.0000000001,
        "9223372036.854775808", "1e400", "1e999999", 1e300, Decimal("1e-400"), "-9999999999",
    ],
)  # fmt: skip
def test_refuses(value: object) -> None:
    with pytest.raises(ValueError):
        nanos_from_usd(value)


@pytest.mark.parametrize("text", ["1.00000000000000000000000000001", "0." + "0" * 40 + "1", "3." + "9" * 60, "12345678.1234567891"])
def test_refuses_decimals_beyond_the_precision_of_the_decimal_context(text: str) -> None:
    """Nothing is rounded away, however long the text is."""
    with pytest.raises(ValueError, match="more than nine decimals"):
        nanos_from_usd(text)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("1." + "0" * 60, 10**9),
        ("0.5" + "0" * 100, 5 * 10**8),
        ("0" * 50 + "7", 7 * 10**9),
        ("9223372036.854775807" + "0" * 40, 2**63 - 1),
        ("-0.000000001" + "0" * 40, -1),
        ("1e-9", 1),
        ("25e8", 25 * 10**17),
        ("0e500", 0),
        ("-0", 0),
    ],
)
def test_long_texts_that_are_exact_are_read_exactly(text: str, nanos: int) -> None:
    """Zeros at either end change nothing."""
    assert nanos_from_usd(text) == nanos


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, 60))
def test_every_amount_is_read_back_from_its_decimals(nanos: int, zeros: int) -> None:
    """Against plain integers: the digits left and right of the point."""
    text = f"{'-' if nanos < 0 else ''}{abs(nanos) // 10**9}.{abs(nanos) % 10**9:09d}{'0' * zeros}"
    assert nanos_from_usd(text) == nanos
    if zeros:
        with pytest.raises(ValueError):
            nanos_from_usd(text[:-1] + "1")


@pytest.mark.parametrize(
    ("nanos", "shown", "plain"),
    [
        (0, "$0.00", "0"),
        (500_000_000, "$0.50", "0.5"),
        (2_100_000, "$0.0021", "0.0021"),
        (1, "$0.000000001", "0.000000001"),
        (1_234_000_000_000, "$1234.00", "1234"),
        (-1_500_000_000, "-$1.50", "-1.5"),
    ],
)
def test_prints(nanos: int, shown: str, plain: str) -> None:
    assert format_usd(nanos) == shown
    assert plain_usd(nanos) == plain


@given(st.integers(-MAX_NANOS, MAX_NANOS))
def test_there_and_back(nanos: int) -> None:
    assert nanos_from_usd(plain_usd(nanos)) == nanos
    assert nanos_from_usd(usd_from_nanos(nanos)) == nanos
    assert Fraction(plain_usd(nanos)) == Fraction(nanos, 10**9)
    assert "e" not in format_usd(nanos).lower()


@given(st.integers(0, 2**80))
def test_rounds_up_once(picos: int) -> None:
    nanos = nanos_from_picos(picos)

    assert 0 <= nanos * 1000 - picos < 1000
