"""How full caps are, read in steps: everything once, then what was posted since, windows that ended, and edits."""

import pytest

from store.database import Database, bump_revision
from store.ledger.caps import cap_states, delete_cap, reset_cap
from store.ledger.levels import Level, Levels
from store.ledger.raises import raise_cap
from store.ledger.types import Unit
from tests.store.ledger.till import HOUR_MS, START_MS, Till


@pytest.fixture
def levels(till: Till) -> Levels:
    till.cap("a", 1_000)
    till.cap("b", 500, window="1d")
    till.cap("r", 10, unit=Unit.REQUESTS)
    bump(till.database)
    made = Levels(till.database)
    made.read()
    return made


def bump(database: Database) -> None:
    with database.write() as connection:
        bump_revision(connection)


def test_all_caps_are_there_after_the_first_read(levels: Levels) -> None:
    assert levels.current["a"] == Level(0, 1_000, START_MS + HOUR_MS)
    assert set(levels.current) == {"a", "b", "r"}


def test_what_is_posted_counts_and_what_is_held_does_not(till: Till, levels: Levels) -> None:
    till.hold("c1", "a r", 900)
    levels.read()
    assert (levels.current["a"].used, levels.current["r"].used) == (0, 0)
    till.settle("c1", 850)
    levels.read()
    assert (levels.current["a"].percent, levels.current["r"].percent, levels.current["b"].percent) == (85.0, 10.0, 0.0)
    till.lose(held(till, "c2", "b", 200))
    levels.read()
    assert levels.current["b"].percent == 40.0
    till.settle("c2", 100)  # a late word: the difference is booked
    levels.read()
    assert levels.current["b"].percent == 20.0


def held(till: Till, call_id: str, caps: str, amount: int) -> str:
    till.hold(call_id, caps, amount)
    return call_id


def test_a_window_that_ended_is_empty_again(till: Till, levels: Levels) -> None:
    till.spend("c1", "a b", 400)
    levels.read()
    till.pass_ms(HOUR_MS)
    levels.read()
    assert (levels.current["a"].used, levels.current["b"].used) == (0, 400)
    assert levels.current["a"].ends_ms == START_MS + 2 * HOUR_MS


def test_an_edit_is_seen_and_new_caps_with_it(till: Till, levels: Levels) -> None:
    till.spend("c1", "a", 400)
    till.cap("a", 500)
    till.cap("new", 7)
    bump(till.database)
    levels.read()
    assert levels.current["a"].percent == 80.0 and levels.current["new"].used == 0


def test_resets_and_deletions_by_hand_are_seen(till: Till, levels: Levels) -> None:
    till.spend("c1", "a b", 400)
    levels.read()
    with till.database.write() as connection:
        reset_cap(connection, "a", "a test")
        delete_cap(connection, "r")
        bump_revision(connection)
    levels.read()
    assert levels.current["a"].used == 0 and levels.current["b"].used == 400 and "r" not in levels.current


def test_a_raise_counts_until_it_ends(till: Till, levels: Levels) -> None:
    till.spend("c1", "a", 900)
    with till.database.write() as connection:
        raise_cap(connection, "a", by=200, until_ms=START_MS + 600_000, reason="a test")
    levels.read()
    assert levels.current["a"] == Level(900, 1_200, START_MS + 600_000)
    till.pass_ms(600_000)
    levels.read()
    assert levels.current["a"] == Level(900, 1_000, START_MS + HOUR_MS)


def test_many_posts_at_once_are_all_seen(till: Till, levels: Levels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.ledger.levels.POSTS_AT_ONCE", 2)
    for number in range(5):
        till.spend(f"c{number}", "a", 100)
    levels.read()
    with till.database.read() as connection:
        truth = cap_states(connection, till.clock.now_ms(), ["a"])[0].used
    assert levels.current["a"].used == truth == 500


def test_after_forgetting_everything_is_read_anew(till: Till, levels: Levels) -> None:
    till.spend("c1", "a", 100)
    levels.forget()
    assert levels.current == {}
    levels.read()
    assert levels.current["a"].used == 100
