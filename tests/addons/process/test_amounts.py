"""Money as people type it, against amounts worked out by hand."""

import pytest

from addons.process.amounts import BudgetText, parse_amount, parse_budget
from store.errors import UserError


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("2usd", 2_000_000_000),
        ("2", 2_000_000_000),
        ("$2", 2_000_000_000),
        ("$ 2.50", 2_500_000_000),
        ("0.50usd", 500_000_000),
        (".5", 500_000_000),
        ("50c", 500_000_000),
        ("1 cent", 10_000_000),
        ("0.5c", 5_000_000),
        ("12.34 USD", 12_340_000_000),
        ("1 dollar", 1_000_000_000),
        ("0.000000001", 1),
    ],
)
def test_amounts(text: str, nanos: int) -> None:
    assert parse_amount(text) == nanos


@pytest.mark.parametrize(
    "text",
    ["", "usd", "2eur", "two", "-1", "+1", "1e3", "NaN", "inf", "0", "0.00usd", "1,50", "1_000", "$50c", "2usd2", "٢", "9" * 30,
     "0.0000000001", "0.00000001c"],
)  # fmt: skip
def test_what_is_no_amount_is_one_sentence_that_names_it(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_amount(text)
    assert repr(text) in str(caught.value) and "\n" not in str(caught.value)


def test_a_window_follows_a_slash() -> None:
    assert parse_budget("2usd/1h") == BudgetText(2_000_000_000, "1h")
    assert parse_budget("$50 / 1d") == BudgetText(50_000_000_000, "1d")
    assert parse_budget("1000/1M") == BudgetText(1_000_000_000_000, "1M")
    assert parse_budget("50c") == BudgetText(500_000_000, None)


@pytest.mark.parametrize("text", ["2usd/", "2usd/soon", "2usd/0h", "2usd/-1h", "/1h", "2/1h/1d"])
def test_a_window_that_is_none(text: str) -> None:
    with pytest.raises(UserError):
        parse_budget(text)


def test_how_a_budget_is_shown() -> None:
    assert str(parse_budget("50c/1h")) == "$0.50 per 1h"
    assert str(parse_budget("2")) == "$2.00"
