"""The replay finds every tampered cache and mends it; seals explain what was pruned."""

import pytest

from store.clock import SystemClock
from store.errors import NotFound
from store.ledger.caps import delete_cap, reset_cap, top_up
from store.ledger.history import posts_of, posts_since
from store.ledger.raises import raise_cap
from store.ledger.rows import CAP_COLUMNS, post_parts, to_json
from store.ledger.seal import prune, seal_windows
from store.ledger.types import Granted, Unit
from store.ledger.verify import rebuild, verify
from tests.store.ledger.desk import START_MS, Desk
from tests.store.ledger.till import Till

HOUR_MS = 3_600_000


def busy(desk: Desk) -> None:
    """Some of everything."""
    desk.cap("a", 1000)
    desk.cap("p", 500, window=None)
    desk.cap("k", 1000, carry_over=True)
    desk.cap("t", 900, Unit.TOKENS)
    for number in range(4):
        desk.hold(f"c{number}", "a p k t", bound=100, floor=10, tokens=30)
    desk.settle("c0", cost=50, tokens=20)
    desk.settle("c1", sent=False)
    desk.live.discard("c2")
    desk.writer.compare_with_live()
    desk.settle("c2", cost=5, tokens=3)
    with desk.database.write() as connection:
        top_up(connection, "p", 70, "paid")
        top_up(connection, "a", 7, "gift")
        reset_cap(connection, "t", "why not")
    desk.clock.pass_ms(HOUR_MS)
    desk.hold("c9", "k", bound=10)
    desk.cap("a", 1000, window="1d")


def test_a_clean_book(desk: Desk) -> None:
    busy(desk)
    report = verify(desk.database, desk.clock)

    assert report.clean
    assert (report.holds, report.posts, report.open_holds, report.cost_nanos) == (5, 4, 2, 55)
    assert report.at_ms == desk.clock.now_ms()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE balances SET used = used + 1 WHERE cap_id = 'a'", "used of cap a"),
        ("UPDATE balances SET held = held - 1 WHERE cap_id = 'k' AND held > 0", "held of cap k"),
        ("UPDATE balances SET carried = 0 WHERE cap_id = 'k'", "carried of cap k"),
        ("DELETE FROM balances WHERE cap_id = 'p'", "used of cap p"),
        ("INSERT INTO balances VALUES ('a', 5, 1, 0, 0, 0)", "used of cap a in the window from 5: kept 1, the rows say 0"),
        ("UPDATE caps SET limit_amount = 9999 WHERE id = 'p'", "limit of cap p: kept 9999, the rows say 570"),
        ("DELETE FROM open_holds WHERE call_id = 'c3'", "open hold: kept settled, the rows say c3"),
        ("INSERT INTO open_holds VALUES ('c0', 'e', 1)", "open hold: kept c0, the rows say settled"),
    ],
)
def test_a_tampered_cache_is_found_and_mended(desk: Desk, damage: str, words: str) -> None:
    busy(desk)
    with desk.database.write() as connection:
        connection.execute(damage)
    before = desk.revision
    found = desk.differences()
    assert any(words in difference for difference in found), found

    mended = rebuild(desk.database, desk.clock)
    assert [str(difference) for difference in mended.differences] == found
    assert desk.differences() == []
    assert desk.revision == before + 1, "limits are cached by the revision"
    desk.settle("c3", cost=1)
    desk.settle("c9", cost=1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE posts SET cost_nanos = 51 WHERE call_id = 'c0'", "amount of cap a"),
        ("UPDATE posts SET tokens = 21 WHERE call_id = 'c0'", "amount of cap t"),
        ("DELETE FROM posts WHERE call_id = 'c0'", "open hold: kept settled, the rows say c0"),
        ("DELETE FROM holds WHERE call_id = 'c0'", "unknown hold: kept c0, the rows say nothing"),
    ],
)
def test_tampered_rows_are_found(desk: Desk, damage: str, words: str) -> None:
    busy(desk)
    with desk.database.write() as connection:
        saved = [connection.execute(f"SELECT * FROM {table}") for table in ("posts", "holds")]
        connection.execute(damage)
    found = desk.differences()
    assert any(words in difference for difference in found), found
    with desk.database.write() as connection:
        for table, rows in zip(("posts", "holds"), saved, strict=True):
            connection.execute(f"DELETE FROM {table}")
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def test_a_clean_book_is_not_touched_by_rebuild(desk: Desk) -> None:
    busy(desk)
    revision = desk.revision
    assert rebuild(desk.database, SystemClock()).clean
    assert desk.revision == revision


# ---- seals


def test_windows_that_are_over_are_sealed_and_their_rows_pruned(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("d", 1000, window="1d")
    for number in range(5):
        desk.hold(f"c{number}", "a", bound=100)
        desk.settle(f"c{number}", cost=10)
    desk.hold("both", "a d", bound=100)
    desk.settle("both", cost=7)
    desk.hold("open", "a", bound=100)
    with desk.database.write() as connection:
        assert seal_windows(connection, desk.clock.now_ms()) == 0, "not over yet"
    desk.clock.pass_ms(HOUR_MS)
    with desk.database.write() as connection:
        assert seal_windows(connection, desk.clock.now_ms()) == 0, "a hold is open"
        assert prune(connection, desk.clock.now_ms() + 1) == (0, None)
    desk.settle("open", cost=3)
    desk.hold("now", "a", bound=100)
    desk.settle("now", cost=2)
    desk.clock.pass_ms(60_000)
    with desk.database.write() as connection:
        assert seal_windows(connection, desk.clock.now_ms()) == 1
        assert seal_windows(connection, desk.clock.now_ms()) == 0
        assert prune(connection, START_MS) == (0, None), "all are younger than the retention"
        assert prune(connection, desk.clock.now_ms() + 1, limit=3) == (3, 3)
        assert prune(connection, desk.clock.now_ms() + 1, after_sequence=3) == (3, None)
        left = [record.call_id for record in posts_since(connection, 0, 100)]
    assert left == ["both", "now"], "one is in a window that is not over, the newest always stays"
    assert desk.differences() == []
    assert desk.sums("d") == (7, 0)


def test_settling_a_pruned_call_is_an_error_and_no_charge(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=100)
    desk.settle("c1", cost=10)
    desk.clock.pass_ms(HOUR_MS)
    desk.hold("c2", "a", bound=100)
    desk.settle("c2", cost=1)
    with desk.database.write() as connection:
        seal_windows(connection, desk.clock.now_ms())
        assert prune(connection, desk.clock.now_ms()) == (1, None)

    assert isinstance(desk.settle("c1", cost=10), NotFound)
    assert desk.sums("a") == (1, 0)


def test_a_correction_after_the_seal_counts(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=100)
    desk.live.clear()
    desk.writer.compare_with_live()
    desk.clock.pass_ms(HOUR_MS)
    desk.hold("c2", "a", bound=100)
    desk.settle("c2", cost=1)
    with desk.database.write() as connection:
        assert seal_windows(connection, desk.clock.now_ms()) == 1
        assert prune(connection, desk.clock.now_ms() + 1) == (0, None), "an unconfirmed call waits for its confirmation"
    assert desk.settle("c1", cost=40).adjusted
    with desk.database.read() as connection:
        assert connection.execute("SELECT used FROM balances WHERE cap_id = 'a' ORDER BY window_start_ms") == [(40,), (1,)]
        assert len(posts_of(connection, "c1")) == 2
    assert desk.differences() == []


def test_windows_of_deleted_caps_are_sealed_too(desk: Desk) -> None:
    desk.cap("a", 1000)
    assert isinstance(desk.hold("c1", "a", bound=100), Granted)
    desk.settle("c1", cost=10)
    with desk.database.write() as connection:
        delete_cap(connection, "a")
    desk.clock.pass_ms(HOUR_MS)
    with desk.database.write() as connection:
        assert seal_windows(connection, desk.clock.now_ms()) == 1
    assert desk.differences() == []


# ---- on either engine, page by page


def busy_till(till: Till) -> None:
    """Some of everything, over several windows, with seals, a correction, a reset and a raise."""
    till.cap("a", 10**9, carry_over=True)
    till.cap("p", 10**9, None)
    till.cap("t", 10**6, "1d", Unit.TOKENS)
    for number in range(11):
        till.hold(f"c{number}", "a p t", 100, tokens=10)
        if number % 5 == 0:
            till.lose(f"c{number}")
        if number != 7:
            till.settle(f"c{number}", 90 + number, 5 + number)
        if number == 4:
            till.pass_ms(HOUR_MS)
            with till.database.write() as connection:
                seal_windows(connection, till.clock.now_ms())
        if number == 6:
            with till.database.write() as connection:
                reset_cap(connection, "p", "")
                raise_cap(connection, "a", by=5, until_ms=till.clock.now_ms() + HOUR_MS, reason="")


@pytest.mark.parametrize("page", [1, 2, 3, 5_000])
def test_pages_of_any_size_add_up_to_the_same(till: Till, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """By hand: 11 calls of 90 to 100, one still open; 3 of them were corrected, so they have two rows."""
    busy_till(till)
    monkeypatch.setattr("store.ledger.replay.PAGE", page)
    monkeypatch.setattr("store.ledger.verify.PAGE", page)
    report = verify(till.database, till.clock)
    assert report.clean, report.differences
    assert (report.holds, report.posts, report.open_holds) == (11, 13, 1)
    assert report.cost_nanos == sum(90 + number for number in range(11)) - 97

    with till.database.write() as connection:
        connection.execute("UPDATE balances SET used = used + 1")
        connection.execute("UPDATE seals SET carried = carried + 2")
        connection.execute("DELETE FROM balances WHERE cap_id = 't'")
    found = till.differences()
    assert len([line for line in found if line.startswith("used of")]) == len(till.rows("SELECT 1 FROM balances")) + 1
    assert [line for line in found if line.startswith("carried of cap t")] == []
    rebuild(till.database, till.clock)
    assert till.differences() == []


def test_an_unknown_cap_is_named_and_does_not_end_the_replay(till: Till) -> None:
    busy_till(till)
    with till.database.write() as connection:
        saved = connection.execute(f"SELECT {CAP_COLUMNS} FROM caps WHERE id = 't'")
        connection.execute("DELETE FROM caps WHERE id = 't'")
    found = till.differences()
    assert any(line.startswith("unknown cap of cap t") and "of call c7" in line for line in found), found
    with till.database.write() as connection:
        marks = ", ".join("?" * len(saved[0]))
        connection.execute(f"INSERT INTO caps ({CAP_COLUMNS}) VALUES ({marks})", saved[0])


@pytest.mark.parametrize(
    ("step", "cap_id", "wrong", "words"),
    [
        (1, "t", 999, "kept 999, the rows say 6"),
        (2, "a", 0, "of call c0: kept 0, the rows say -10"),
        (2, "t", 3, "of call c0: kept 3, the rows say -5"),
    ],
)
def test_postings_that_book_something_else_than_they_say(till: Till, step: int, cap_id: str, wrong: int, words: str) -> None:
    """c0 was charged 100 and 10 tokens and cost 90 and 5; c1 cost 91 and 6."""
    busy_till(till)
    call_id = "c1" if step == 1 else "c0"
    (text,) = till.rows("SELECT parts FROM posts WHERE call_id = ? AND step = ?", call_id, step)[0]
    parts = [[part[0], part[1], wrong if part[0] == cap_id else part[2]] for part in post_parts(text)]
    with till.database.write() as connection:
        connection.execute("UPDATE posts SET parts = ? WHERE call_id = ? AND step = ?", (to_json(parts), call_id, step))
    assert any(line.startswith(f"amount of cap {cap_id}") and words in line for line in till.differences()), till.differences()
    with till.database.write() as connection:
        connection.execute("UPDATE posts SET parts = ? WHERE call_id = ? AND step = ?", (text, call_id, step))
