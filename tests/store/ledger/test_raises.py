"""A raise lifts the limit until its instant and not a millisecond longer, whatever is done to the cap meanwhile."""

from typing import Any

import pytest

from store.database import governance_revision
from store.errors import NotFound
from store.ledger.batch import Waits
from store.ledger.caps import cap_states, delete_cap, reset_cap, top_up
from store.ledger.housekeeping import Housekeeping
from store.ledger.operations import HoldOperation
from store.ledger.raises import end_raise, end_raises, raise_cap
from store.ledger.types import CapState, Enforcement, Granted, Refused, Unit
from store.ledger.verify import rebuild
from tests.store.ledger.desk import Desk
from tests.store.ledger.till import HOUR_MS, START_MS, Till


def lift(till: Till | Desk, cap_id: str, *, for_ms: int = HOUR_MS, reason: str = "a launch", **how: int) -> CapState:
    with till.database.write() as connection:
        return raise_cap(connection, cap_id, until_ms=till.clock.now_ms() + for_ms, reason=reason, **(how or {"by": 50}))


def take_back(till: Till, cap_id: str) -> CapState:
    with till.database.write() as connection:
        return end_raise(connection, cap_id, "enough")


def entries(till: Till, cap_id: str) -> list[Any]:
    return till.rows(
        "SELECT kind, amount, reason FROM entries WHERE cap_id = ? AND kind IN ('raise', 'unraise') ORDER BY sequence", cap_id
    )


def fits(till: Till, cap_id: str) -> int:
    """The largest hold that is granted now, by trying."""
    low, high = 0, 2_000
    while low < high:
        middle = (low + high + 1) // 2
        answer = till.hold(f"try-{till.clock.at_ms}-{middle}", cap_id, middle)
        if isinstance(answer, Granted):
            till.settle(answer.call_id, 0, sent=False)
            low = middle
        else:
            high = middle - 1
    return low


def test_a_raise_counts_until_its_instant(till: Till) -> None:
    till.cap("a", 100, "1d")
    state = lift(till, "a", for_ms=5_000)

    assert (state.limit, state.remaining, state.cap.limit) == (150, 150, 100)
    assert state.raised is not None and (state.raised.amount, state.raised.until_ms) == (50, START_MS + 5_000)
    till.pass_ms(4_999)
    assert fits(till, "a") == 150
    till.pass_ms(1)
    assert fits(till, "a") == 100
    assert (till.state("a").limit, till.state("a").raised) == (100, None)


def test_a_raise_to_an_amount_is_the_difference(till: Till) -> None:
    till.cap("a", 100)
    assert lift(till, "a", to=130).limit == 130
    till.cap("a", 110)
    assert till.state("a").limit == 140, "the raise is an amount; the limit may change beside it"


def test_what_was_granted_on_a_raise_stays_granted_and_nothing_more_is(till: Till) -> None:
    till.cap("a", 100, "1d")
    lift(till, "a", for_ms=1_000)
    assert isinstance(till.hold("big", "a", 140), Granted)
    till.pass_ms(1_000)
    assert isinstance(till.hold("late", "a", 1), Waits), "it would fit if the other came to nothing"
    assert till.state("a").remaining == 0
    till.settle("big", 140)
    refused = till.hold("later", "a", 1)
    assert isinstance(refused, Refused) and refused.exceeded[0].state.limit == 100
    assert till.used("a") == 140


def test_a_raise_is_taken_back(till: Till) -> None:
    till.cap("a", 100)
    lift(till, "a")
    assert take_back(till, "a").limit == 100
    assert fits(till, "a") == 100
    with pytest.raises(NotFound, match="not raised now"):
        take_back(till, "a")
    assert entries(till, "a") == [("raise", 50, "a launch"), ("unraise", -50, "enough")]
    assert till.rows("SELECT amount, from_ms, until_ms, ended_ms FROM raises") == [(50, START_MS, START_MS + HOUR_MS, START_MS)]


def test_a_second_raise_replaces_the_first(till: Till) -> None:
    till.cap("a", 100)
    lift(till, "a", by=50)
    assert lift(till, "a", by=20, for_ms=2 * HOUR_MS, reason="less").limit == 120
    assert entries(till, "a") == [("raise", 50, "a launch"), ("unraise", -50, "replaced"), ("raise", 20, "less")]
    till.pass_ms(HOUR_MS)
    assert till.state("a").limit == 120


def test_a_raise_over_an_expired_one_that_nobody_noted(till: Till) -> None:
    till.cap("a", 100)
    lift(till, "a", by=50, for_ms=10)
    till.pass_ms(10)
    with pytest.raises(NotFound):
        take_back(till, "a")
    lift(till, "a", by=7)
    assert [row[2] for row in entries(till, "a")] == ["a launch", "its time was up", "a launch"]
    assert till.state("a").limit == 107


def test_the_end_is_noted_by_the_housekeeping_and_only_once(till: Till) -> None:
    till.cap("a", 100, "1d")
    till.cap("b", 100, "1d")
    lift(till, "a", for_ms=10)
    lift(till, "b", for_ms=20)
    till.pass_ms(15)
    Housekeeping(till.database, None).step()
    assert [row[0] for row in entries(till, "a")] == ["raise", "unraise"]
    assert entries(till, "b") == [("raise", 50, "a launch")]
    assert till.rows("SELECT ended_ms FROM raises WHERE cap_id = 'a'") == [(START_MS + 10,)], (
        "its own instant, not when it was noted"
    )
    with till.database.write() as connection:
        assert end_raises(connection, till.clock.now_ms(), 500) == 0


def test_a_noted_end_stays_an_end_when_the_clock_goes_back(till: Till) -> None:
    till.cap("a", 100, "1d")
    lift(till, "a", for_ms=10)
    till.pass_ms(10)
    Housekeeping(till.database, None).step()
    till.pass_ms(-5)
    assert till.state("a").limit == 100


def test_raises_survive_edits_resets_and_changed_windows(till: Till) -> None:
    till.cap("a", 100)
    lift(till, "a", for_ms=9 * HOUR_MS)
    till.cap("a", 60)
    assert till.state("a").limit == 110
    till.spend("c", "a", 105)
    with till.database.write() as connection:
        assert reset_cap(connection, "a", "").remaining == 110
        assert top_up(connection, "a", 5, "").limit == 115
    till.cap("a", 60, "1d", enforcement=Enforcement.SOFT)
    state = till.state("a")
    assert (state.limit, state.raised is not None) == (115, True), "the top-up of the running window goes along too"


def test_deleting_ends_a_raise_and_restoring_does_not_bring_it_back(till: Till) -> None:
    till.cap("a", 100)
    lift(till, "a")
    with till.database.write() as connection:
        delete_cap(connection, "a")
        for change in (lambda: raise_cap(connection, "a", by=1, until_ms=2**50, reason=""), lambda: end_raise(connection, "a", "")):
            with pytest.raises(NotFound):
                change()
    till.cap("a", 100)
    assert till.state("a").limit == 100


def test_carry_over_does_not_count_the_raise(till: Till) -> None:
    """Limit 100, raised to 150, 120 spent: nothing is left of the 100, so nothing is carried."""
    till.cap("a", 100, carry_over=True)
    till.cap("b", 100, carry_over=True)
    lift(till, "a", for_ms=3 * HOUR_MS)
    lift(till, "b", for_ms=3 * HOUR_MS)
    till.spend("c", "a", 120)
    till.spend("d", "b", 70)
    till.pass_ms(HOUR_MS)
    till.spend("e", "a b", 1)

    assert (till.state("a").carried, till.state("a").limit) == (0, 150)
    assert (till.state("b").carried, till.state("b").limit) == (30, 180)


@pytest.mark.parametrize(("unit", "window"), [(Unit.REQUESTS, "1h"), (Unit.CONCURRENT, None)])
def test_limits_that_count_can_be_raised(till: Till, unit: Unit, window: str | None) -> None:
    till.cap("n", 2, window, unit)
    lift(till, "n", by=1, for_ms=500)
    granted = [isinstance(till.hold(f"c{number}", "n", 0), Granted) for number in range(4)]
    assert granted == [True, True, True, False]


def test_a_token_limit_holds_up_to_the_raised_limit(till: Till) -> None:
    """One call may hold at most the limit in force."""
    till.cap("t", 100, unit=Unit.TOKENS)
    lift(till, "t", by=50, for_ms=500)
    till.hold("c", "t", 0, tokens=900)
    assert till.state("t").held == 150


@pytest.mark.parametrize(
    ("how", "for_ms", "words"),
    [
        ({"by": 0}, 1, "above 0"),
        ({"by": -5}, 1, "above 0"),
        ({"by": True}, 1, "above 0"),
        ({"by": 2**63 - 100}, 1, "within what the ledger can hold"),
        ({"to": 100}, 1, "that high already"),
        ({"to": 5}, 1, "that high already"),
        ({"by": 1, "to": 200}, 1, "either by how much"),
        ({"by": 1}, 0, "is over"),
        ({"by": 1}, -1, "is over"),
        ({"by": 1}, 101 * 366 * 24 * HOUR_MS, "within a hundred years"),
    ],
)
def test_bad_raises_change_nothing(till: Till, how: dict[str, int], for_ms: int, words: str) -> None:
    till.cap("a", 100)
    with pytest.raises(ValueError, match=words):
        lift(till, "a", for_ms=for_ms, **how)
    assert till.rows("SELECT count(*) FROM raises") == [(0,)]
    assert entries(till, "a") == []


def test_a_raise_counts_what_was_topped_up_towards_what_the_ledger_holds(till: Till) -> None:
    till.cap("a", 100)
    with till.database.write() as connection:
        top_up(connection, "a", 2**62, "")
    with pytest.raises(ValueError, match="more than the ledger can hold"):
        lift(till, "a", for_ms=HOUR_MS, by=2**62)
    lift(till, "a", for_ms=HOUR_MS, by=2**62 - 101)
    assert till.state("a").limit == 2**63 - 1


def test_raising_and_taking_back_count_as_edits(till: Till) -> None:
    """Cached caps are read again by the revision."""
    till.cap("a", 100)
    seen = []
    for change in (lift, take_back):
        change(till, "a")
        with till.database.read() as connection:
            seen.append(governance_revision(connection))
    assert seen[1] == seen[0] + 1


@pytest.mark.parametrize(
    ("damage", "mended", "limit"),
    [
        ("UPDATE raises SET amount = 500", "kept 500, the rows say 50", 150),
        ("UPDATE raises SET ended_ms = 1", "kept 0, the rows say 50", 100),
        ("DELETE FROM raises", "kept 0, the rows say 50", 100),
        ("DELETE FROM entries WHERE kind = 'raise'", "kept 50, the rows say 0", 100),
    ],
)
def test_verify_finds_and_mends_raises_that_no_row_explains(till: Till, damage: str, mended: str, limit: int) -> None:
    till.cap("a", 100)
    lift(till, "a")
    with till.database.write() as connection:
        connection.execute(damage)
    assert till.differences() == [f"raise of cap a: {mended}"]
    rebuild(till.database, till.clock)
    assert till.differences() == []
    assert till.state("a").limit == limit


# ---- beside a running writer, which keeps caps between batches


def test_a_writer_notices_a_raise_and_its_end_by_itself(desk: Desk) -> None:
    desk.cap("a", 100, window="1d")
    assert isinstance(desk.hold("before", "a", bound=120), Refused)
    lift(desk, "a", for_ms=1_000)
    assert isinstance(desk.hold("during", "a", bound=120), Granted)
    desk.settle("during", cost=0)
    desk.clock.pass_ms(999)
    assert isinstance(desk.hold("last", "a", bound=120), Granted)
    desk.settle("last", cost=0)
    desk.clock.pass_ms(1)
    refused = desk.hold("after", "a", bound=120)
    assert isinstance(refused, Refused) and refused.exceeded[0].state.limit == 100


def test_a_call_in_line_is_judged_by_the_limit_at_its_turn(desk: Desk) -> None:
    """It fits the raised limit once the other is over; when the raise ends first it is refused for good."""
    desk.cap("a", 100, window="1d")
    lift(desk, "a", for_ms=120)
    assert isinstance(desk.hold("first", "a", bound=100), Granted)
    waiting: HoldOperation = desk.ask("second", "a", 110)
    desk.step(waiting)
    assert not waiting.future.done()
    for _ in range(3):
        desk.look_again()
    assert isinstance(waiting.future.value, Refused) and not waiting.future.value.held_only  # type: ignore[attr-defined]
    desk.cancel("first")


def test_states_without_writing(till: Till) -> None:
    till.cap("a", 100)
    lift(till, "a", for_ms=10)
    before = till.rows("SELECT count(*) FROM entries")
    with till.database.read() as connection:
        limits = [cap_states(connection, at_ms, ["a"])[0].limit for at_ms in (START_MS + 9, START_MS + 10)]
    assert limits == [150, 100]
    assert till.rows("SELECT count(*) FROM entries") == before
