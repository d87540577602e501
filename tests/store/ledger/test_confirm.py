"""A person's word on a call nobody could confirm: what is not said stays as it was charged, on every unit."""

import pytest

from store.errors import NotFound
from store.ledger.history import confirm, count_unconfirmed, unconfirmed
from store.ledger.types import Unit
from tests.store.ledger.till import Till


def lost(till: Till, tokens: int = 2_000) -> None:
    """Charged 100 nano-dollars, 1 request, and 900 tokens: all that the limit has, of an estimate of 2,000."""
    till.cap("usd", 1_000)
    till.cap("tokens", 900, unit=Unit.TOKENS)
    till.cap("requests", 5, unit=Unit.REQUESTS)
    till.cap("parallel", 5, None, Unit.CONCURRENT)
    till.hold("c", "usd tokens requests parallel", 100, tokens=tokens)
    till.lose("c")


def say(till: Till, **amounts: int) -> tuple[int, int, int, int]:
    with till.database.write() as connection:
        assert confirm(connection, "c", reason="the dashboard", **amounts).adjusted
    return till.used("usd"), till.used("tokens"), till.used("requests"), till.used("parallel")


@pytest.mark.parametrize(
    ("amounts", "used"),
    [
        ({}, (100, 900, 1, 0)),
        ({"cost_nanos": 40}, (40, 900, 1, 0)),
        ({"tokens": 1_234}, (100, 1_234, 1, 0)),
        ({"cost_nanos": 0, "tokens": 0}, (0, 0, 1, 0)),
        ({"cost_nanos": 150, "tokens": 1_999}, (150, 1_999, 1, 0)),
        ({"tokens": 2_000}, (100, 2_000, 1, 0)),
    ],
)
def test_what_is_not_said_stays_as_charged(till: Till, amounts: dict[str, int], used: tuple[int, int, int, int]) -> None:
    lost(till)
    assert say(till, **amounts) == used


def test_a_call_of_unknown_length_stays_at_the_one_token_it_held(till: Till) -> None:
    lost(till, tokens=0)
    assert till.used("tokens") == 1
    assert say(till)[1] == 1


def test_it_is_listed_until_somebody_has_spoken(till: Till) -> None:
    lost(till)
    with till.database.read() as connection:
        (record,) = unconfirmed(connection)
        assert (record.call_id, record.cost_nanos, record.tokens, count_unconfirmed(connection)) == ("c", 100, 2_000, 1)
        assert unconfirmed(connection, 10, 1) == []
    say(till)
    with till.database.read() as connection:
        assert (unconfirmed(connection), count_unconfirmed(connection)) == ([], 0)


def test_a_call_that_is_open_or_settled_is_nobodys_to_confirm(till: Till) -> None:
    till.cap("usd", 1_000)
    till.hold("open", "usd", 10)
    till.spend("settled", "usd", 10)
    for call_id in ("open", "settled", "nothing"):
        with pytest.raises(NotFound, match="is not unconfirmed"), till.database.write() as connection:
            confirm(connection, call_id, reason="x")
    till.settle("open", 1)
