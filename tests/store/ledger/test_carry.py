"""What a window leaves over is frozen at its end under the limit it had, whoever touches the cap first in the next one."""

import pytest

from store.ledger.caps import delete_cap, reset_cap, top_up
from store.ledger.raises import raise_cap
from tests.store.ledger.till import DAY_MS, HOUR_MS, START_MS, Till


def entries(till: Till, kind: str = "carry") -> list[tuple[object, ...]]:
    return till.rows("SELECT window_start_ms, amount FROM entries WHERE kind = ? ORDER BY sequence", kind)


def hour_over(till: Till) -> None:
    """100 an hour with carry-over, 30 spent, and the next hour has begun untouched."""
    till.cap("a", 100, carry_over=True)
    till.spend("c", "a", 30)
    till.pass_ms(HOUR_MS)


def test_an_edit_before_the_first_call_of_a_window_keeps_what_was_left_over(till: Till) -> None:
    """Limit 100, 30 spent: 70 are carried, and the new limit of 500 does not change that."""
    hour_over(till)
    till.cap("a", 500, carry_over=True)

    state = till.state("a")
    assert (state.carried, state.limit, state.used) == (70, 570, 0)
    assert entries(till) == [(START_MS + HOUR_MS, 70)]


def test_a_lower_limit_does_not_shrink_what_was_left_over(till: Till) -> None:
    hour_over(till)
    till.cap("a", 10, carry_over=True)
    assert till.state("a").limit == 80


def test_switching_carry_over_off_counts_from_the_next_window_on(till: Till) -> None:
    hour_over(till)
    till.cap("a", 100)
    assert till.state("a").limit == 170
    till.pass_ms(HOUR_MS)
    assert till.state("a").limit == 100


def test_switching_carry_over_on_counts_from_the_next_window_on(till: Till) -> None:
    till.cap("a", 100)
    till.spend("c", "a", 30)
    till.pass_ms(HOUR_MS)
    till.cap("a", 100, carry_over=True)
    assert till.state("a").limit == 100
    till.spend("d", "a", 40)
    till.pass_ms(HOUR_MS)
    assert till.state("a").limit == 160


def test_deleting_and_restoring_keeps_what_was_left_over(till: Till) -> None:
    hour_over(till)
    with till.database.write() as connection:
        delete_cap(connection, "a")
    till.cap("a", 100, carry_over=True)
    assert till.state("a").limit == 170


@pytest.mark.parametrize("act", ["reset", "topup", "raise"])
def test_whatever_touches_the_window_first_rolls_it(till: Till, act: str) -> None:
    hour_over(till)
    with till.database.write() as connection:
        if act == "reset":
            reset_cap(connection, "a", "")
        elif act == "topup":
            top_up(connection, "a", 5, "")
        else:
            raise_cap(connection, "a", by=5, until_ms=START_MS + DAY_MS, reason="")
    assert entries(till) == [(START_MS + HOUR_MS, 70)]
    assert till.state("a").limit == (170 if act == "reset" else 175)


def test_a_changed_window_takes_carry_over_and_top_ups_of_the_running_one_along(till: Till) -> None:
    hour_over(till)
    with till.database.write() as connection:
        top_up(connection, "a", 5, "gift")
    till.spend("d", "a", 20)
    till.cap("a", 100, "1d", carry_over=True)

    state = till.state("a")
    assert (state.carried, state.used, state.limit) == (75, 50, 175)
    till.cap("a", 100, carry_over=True)
    assert (till.state("a").carried, till.state("a").used) == (75, 20), "there and back again, not twice"
    till.pass_ms(2 * DAY_MS)
    assert till.state("a").limit == 200, "the hours since were not used at all"


def test_what_is_carried_is_at_most_the_limit(till: Till) -> None:
    till.cap("a", 100, carry_over=True)
    with till.database.write() as connection:
        top_up(connection, "a", 900, "gift")
    till.pass_ms(HOUR_MS)
    assert till.state("a").limit == 200


def test_a_hold_that_is_open_at_the_end_counts_as_used(till: Till) -> None:
    till.cap("a", 100, carry_over=True)
    till.hold("c", "a", 60)
    till.pass_ms(HOUR_MS)
    till.spend("d", "a", 1)
    till.settle("c", 10)
    assert till.state("a").carried == 40, "frozen at the roll: what the call gave back is not added later"
