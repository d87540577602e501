"""Windows are sealed and rows pruned in small steps by whoever comes first, and the books still add up from what is left."""

import random
import statistics
import time
from pathlib import Path

import pytest

from store.clock import Ids, SystemClock
from store.config_store.audit import check_chain
from store.config_store.edits import Actor, Edit, write_audit_row
from store.database import governance_revision
from store.errors import NotFound
from store.ledger.caps import delete_cap, reset_cap, top_up
from store.ledger.history import confirm, posts_of
from store.ledger.housekeeping import IDLE_SECONDS, PRUNE_EVERY_MS, SOON_SECONDS, Housekeeping
from store.ledger.ledger import Ledger
from store.ledger.rows import NO_WINDOW
from store.ledger.seal import AT_ONCE, PREPAID_LOOK_MS, look_at_windows, prune, seal_windows
from store.ledger.types import Granted, HoldRequest, Scope, Settlement, Unit
from tests.store.ledger.till import DAY_MS, HOUR_MS, START_MS, Till


def seal(till: Till, limit: int = AT_ONCE) -> int:
    with till.database.write() as connection:
        return seal_windows(connection, till.clock.now_ms(), limit)


def prune_all(till: Till, before_ms: int | None = None) -> int:
    with till.database.write() as connection:
        return prune(connection, till.clock.now_ms() + 1 if before_ms is None else before_ms)[0]


def calls(till: Till) -> list[str]:
    return [row[0] for row in till.rows("SELECT call_id FROM posts ORDER BY sequence")]


def run(till: Till, house: Housekeeping) -> int:
    """Steps until there is nothing to do, as the writer takes them; how many."""
    for count in range(1, 10_000):
        if house.step() == IDLE_SECONDS:
            return count
        till.pass_ms(round(SOON_SECONDS * 1000))
    raise AssertionError("it never ends")


# ---- seals


def test_a_balance_costs_few_looks_in_its_life(till: Till) -> None:
    till.cap("a", 1000, "1d")
    till.spend("c", "a", 10)
    looks = []
    for _ in range(30):
        with till.database.write() as connection:
            looks.append(look_at_windows(connection, till.clock.now_ms()))
        till.pass_ms(HOUR_MS)
    assert sum(looked for looked, _ in looks) == 2, "once when it is new, once when it is over"
    assert looks[0] == (1, 0) and looks[24] == (1, 1)


def test_a_window_with_an_open_hold_waits_for_it(till: Till) -> None:
    till.cap("a", 1000)
    till.hold("c", "a", 10)
    till.pass_ms(HOUR_MS)
    assert seal(till) == 0
    till.settle("c", 3)
    assert seal(till) == 0, "looked at again in a minute"
    till.pass_ms(60_000)
    assert seal(till) == 1
    assert till.rows("SELECT used, posts_sequence FROM seals") == [(3, 1)]


def test_prepaid_money_is_sealed_every_day_anew_and_its_rows_can_go(till: Till) -> None:
    """Without this one prepaid budget, or one limit on parallel calls, would keep every row for ever."""
    till.cap("p", 1000, None)
    till.cap("n", 5, None, Unit.CONCURRENT)
    till.spend("one", "p n", 10)
    till.hold("open", "p n", 50)
    assert seal(till) == 2
    till.spend("two", "p n", 20)
    assert prune_all(till) == 1
    assert seal(till) == 0
    till.pass_ms(PREPAID_LOOK_MS)
    assert seal(till) == 2
    assert till.rows("SELECT used FROM seals WHERE cap_id = 'p'") == [(30,)]
    till.settle("open", 7)
    assert calls(till) == ["two", "open"] and prune_all(till) == 1, "the newest stays"
    assert (till.used("p"), calls(till)) == (37, ["open"])


def test_a_reset_after_the_seal_of_prepaid_money(till: Till) -> None:
    till.cap("p", 1000, None)
    till.spend("one", "p", 10)
    seal(till)
    till.spend("two", "p", 20)
    with till.database.write() as connection:
        reset_cap(connection, "p", "")
        top_up(connection, "p", 5, "")
    prune_all(till)
    assert (till.used("p"), till.state("p").limit) == (0, 1005)


def test_a_window_that_comes_back_is_sealed_again(till: Till) -> None:
    till.cap("a", 1000)
    till.spend("one", "a", 10)
    till.cap("a", 1000, None)
    assert seal(till) == 2, "the hour has no lattice any more, and the balance without a window"
    till.cap("a", 1000)
    till.spend("two", "a", 20)
    assert till.used("a") == 30
    till.pass_ms(HOUR_MS)
    assert seal(till) == 1
    till.spend("three", "a", 1)
    assert prune_all(till) == 2
    assert calls(till) == ["three"]


def test_a_restored_prepaid_cap_is_sealed_again(till: Till) -> None:
    till.cap("p", 1000, None)
    till.spend("one", "p", 10)
    with till.database.write() as connection:
        delete_cap(connection, "p")
    seal(till)
    assert till.rows("SELECT look_ms FROM balances") == [(None,)], "a tombstone is looked at no more"
    till.cap("p", 1000, None)
    till.spend("two", "p", 20)
    assert seal(till) == 1
    assert till.rows("SELECT used FROM seals") == [(30,)]


def test_one_step_seals_no_more_than_its_limit(till: Till) -> None:
    for number in range(7):
        till.cap(f"c{number}", 10)
    till.pass_ms(HOUR_MS)
    assert [seal(till, 3) for _ in range(4)] == [3, 3, 1, 0]


# ---- pruning


def test_rows_go_when_every_balance_they_name_is_sealed(till: Till) -> None:
    till.cap("h", 1000)
    till.cap("d", 1000, "1d", carry_over=True)
    till.spend("hour", "h", 1)
    till.spend("both", "h d", 2)
    till.hold("void", "h", 5)
    till.settle("void", 0, sent=False)
    till.pass_ms(HOUR_MS)
    till.spend("last", "h d", 3)
    seal(till)
    assert prune_all(till, START_MS) == 0, "all are younger than the retention"
    assert prune_all(till) == 2 and calls(till) == ["both", "last"]
    till.pass_ms(DAY_MS)
    till.spend("new", "h d", 4)
    seal(till)
    assert prune_all(till) == 2 and calls(till) == ["new"]
    assert till.rows("SELECT call_id FROM holds") == [("new",)]
    assert till.differences() == []
    with pytest.raises(NotFound, match="nothing was charged"):
        till.settle("both", 99)


def test_unconfirmed_calls_stay_with_their_corrections(till: Till) -> None:
    till.cap("a", 1000)
    for call_id in ("lost", "found"):
        till.hold(call_id, "a", 100)
        till.lose(call_id)
    till.settle("found", 40)
    till.pass_ms(HOUR_MS)
    till.spend("last", "a", 1)
    seal(till)
    assert prune_all(till) == 0
    with till.database.write() as connection:
        assert confirm(connection, "lost", cost_nanos=5, reason="").adjusted
    with till.database.read() as connection:
        assert len(posts_of(connection, "lost")) == 2
    assert till.rows("SELECT used FROM balances WHERE window_start_ms = ?", START_MS) == [(45,)]


def test_a_changed_window_counts_what_is_still_kept_of_pruned_times(till: Till) -> None:
    """`used` of the day is recomputed from rows; those behind the retention are gone, younger ones are not."""
    till.cap("a", 1000)
    till.spend("old", "a", 10)
    till.pass_ms(HOUR_MS)
    till.spend("young", "a", 7)
    seal(till)
    assert prune_all(till, till.clock.now_ms()) == 1
    till.cap("a", 1000, "1d")
    assert till.used("a") == 7


# ---- the chores


def test_the_chores_seal_and_prune_everything_in_steps(till: Till) -> None:
    till.cap("a", 10**9)
    for number in range(30):
        till.spend(f"c{number}", "a", 1)
    house = Housekeeping(till.database, 400)
    run(till, house)
    assert len(calls(till)) == 30
    till.pass_ms(401 * DAY_MS)
    till.spend("now", "a", 1)
    run(till, house)
    assert calls(till) == ["now"]
    assert till.rows("SELECT position FROM chores WHERE name = 'prune'") == [(0,)]
    assert house.step() == IDLE_SECONDS


def test_without_a_retention_nothing_is_pruned_but_windows_are_sealed(till: Till) -> None:
    till.cap("a", 1000)
    till.spend("c", "a", 1)
    till.pass_ms(4000 * DAY_MS)
    till.spend("d", "a", 1)
    run(till, Housekeeping(till.database, None))
    assert calls(till) == ["c", "d"]
    assert till.rows("SELECT count(*) FROM seals") == [(1,)]


def test_pruning_goes_on_where_anybody_left_off(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, one position: each page is looked at once."""
    monkeypatch.setattr("store.ledger.housekeeping.AT_ONCE", 4)
    till.cap("a", 1000)
    for number in range(10):
        till.spend(f"c{number}", "a", 1)
    till.pass_ms(HOUR_MS)
    till.spend("now", "a", 1)
    one, two = Housekeeping(till.database, 1), Housekeeping(till.database, 1)
    till.pass_ms(2 * DAY_MS)
    assert one.step() == SOON_SECONDS, "the windows first"
    assert two.step() == IDLE_SECONDS, "so soon after the other it is not its turn"
    seen = []
    for house in (two, one, two, one, two):
        till.pass_ms(250)
        house.step()
        seen.append(len(calls(till)))
    assert seen == [7, 3, 1, 1, 1]


def test_a_pass_comes_again_only_after_some_hours(till: Till) -> None:
    house = Housekeeping(till.database, 1)
    run(till, house)
    due = till.rows("SELECT at_ms FROM chores WHERE name = 'prune'")[0][0]
    assert due - till.clock.now_ms() <= PRUNE_EVERY_MS
    turn = till.rows("SELECT at_ms FROM chores WHERE name = 'turn'")
    till.pass_ms(1000)
    assert house.step() == IDLE_SECONDS
    assert till.rows("SELECT at_ms FROM chores WHERE name = 'turn'") == turn, "nothing was written"


def test_epochs_that_ended_long_ago_are_forgotten_unless_they_hold(till: Till) -> None:
    with till.database.write() as connection:
        columns = "id, started_ms, ended_ms, process_id, lease, heartbeat_ms"
        rows = [
            ("old", 1, 2, 1, "", 1),
            ("holding", 1, 2, 1, "", 1),
            ("young", 1, START_MS, 1, "", 1),
            ("alive", 1, None, 1, "", 1),
        ]
        connection.executemany(f"INSERT INTO epochs ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO open_holds (call_id, epoch, at_ms) VALUES ('c', 'holding', 1)")
    run(till, Housekeeping(till.database, 1))
    assert till.rows("SELECT id FROM epochs ORDER BY id") == [("alive",), ("holding",), ("young",)]
    with till.database.write() as connection:
        connection.execute("DELETE FROM open_holds")


def test_a_clock_that_was_ahead_does_not_stop_the_chores(till: Till) -> None:
    house = Housekeeping(till.database, None)
    till.cap("a", 10, None)
    till.pass_ms(100 * DAY_MS)
    assert house.step() == SOON_SECONDS
    till.pass_ms(-100 * DAY_MS)
    till.cap("b", 10, None)
    assert house.step() == SOON_SECONDS


# ---- at size


def test_steps_stay_short_among_many_caps_and_rows(sqlite_till: Till) -> None:
    """10,000 caps and 100,000 balances: what a step reads is found by an index and bounded, however much else there is."""
    till, now_ms = sqlite_till, START_MS
    with till.database.write() as connection:
        for number in range(10_000):
            connection.execute(
                """INSERT INTO caps (id, name, scope, scope_id, scope_name, unit, limit_amount, window, calendar_aligned, timezone,
                quarter_start_month, enforcement, strict, carry_over, created_ms, deleted, generation)
                VALUES (?, 'n', ?, 'o', 'o', 'usd', 0, '1h', 0, 'UTC', 1, 'hard', 0, 0, ?, 0, 0)""",
                (f"cap-{number:05}", Scope.TEAM.value, now_ms),
            )
        connection.execute(
            """INSERT INTO balances (cap_id, window_start_ms, used, held, carried, look_ms)
            SELECT c.id, ? - h.value * 3600000, 0, 0, 0, NULL FROM caps AS c, json_each('[0,1,2,3,4,5,6,7,8,9]') AS h""",
            (now_ms,),
        )
        connection.execute("UPDATE balances SET look_ms = 0 WHERE cap_id < 'cap-00300' AND window_start_ms < ?", (now_ms,))
    plans = []
    with till.database.read() as connection:
        for sql in (
            "SELECT 1 FROM balances WHERE look_ms IS NOT NULL AND look_ms <= 5 LIMIT 1",
            "SELECT cap_id FROM balances WHERE look_ms IS NOT NULL AND look_ms <= 5 ORDER BY look_ms LIMIT 500",
            "SELECT 1 FROM raises WHERE ended_ms IS NULL AND until_ms <= 5 LIMIT 1",
            "SELECT cap_id, max(posts_sequence) FROM entries WHERE kind = 'reset' AND cap_id IN ('a') GROUP BY cap_id",
            "SELECT sequence FROM posts WHERE sequence > 4 AND at_ms < 9 ORDER BY sequence LIMIT 500",
        ):
            plans.append(" ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")))
    assert "balances_to_seal" in plans[0] and "balances_to_seal" in plans[1] and "TEMP B-TREE" not in plans[1]
    assert "raises_open" in plans[2]
    assert "entries_resets" in plans[3]
    assert "PRIMARY KEY (rowid>?)" in plans[4]
    assert [seal(till) for _ in range(7)] == [500, 500, 500, 500, 500, 200, 0]


def test_a_call_that_is_kept_by_a_balance_without_a_window(till: Till) -> None:
    """The key of a balance without a window is a seal's key like any other."""
    till.cap("p", 10, None)
    till.spend("c", "p", 1)
    assert isinstance(till.hold("d", "p", 1), Granted)
    seal(till)
    assert till.rows("SELECT window_start_ms FROM seals") == [(NO_WINDOW,)]
    till.settle("d", 1)
    assert prune_all(till) == 1


def old_calls(till: Till, count: int) -> None:
    """As many calls of one cap, all in one hour, written straight into the tables."""
    till.cap("old", 10**15)
    rows = [(f"old-{number:07}", till.clock.at_ms, f'[["old",{START_MS},1,0]]') for number in range(count)]
    with till.database.write() as connection:
        connection.executemany(
            """INSERT INTO holds (call_id, at_ms, epoch, amount_nanos, tokens, alone, parts, facts)
            VALUES (?, ?, 'e', 1, 0, 0, ?, '[]')""",
            rows,
        )
        connection.executemany(
            """INSERT INTO posts (call_id, step, kind, at_ms, held_ms, cost_nanos, tokens, input_tokens, output_tokens, flags,
            model, price_source, note, parts) VALUES (?, 1, 'post', ?, ?, 1, 0, 0, 0, 0, 'm', '', '', ?)""",
            [(row[0], row[1], row[1], f'[["old",{START_MS},1]]') for row in rows],
        )
        connection.execute("UPDATE balances SET used = ? WHERE cap_id = 'old'", (count,))


async def test_a_running_ledger_keeps_house_beside_its_calls(till: Till, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,600 old calls go while new ones are held and settled; no hold waits long, and the books agree."""
    monkeypatch.setattr("store.ledger.ledger.IDLE_SECONDS", 0.02)
    monkeypatch.setattr("store.ledger.housekeeping.IDLE_SECONDS", 0.02)
    monkeypatch.setattr("store.ledger.housekeeping.SOON_SECONDS", 0.02)
    old_calls(till, 2_600)
    till.pass_ms(401 * DAY_MS)
    till.cap("a", 10**15)
    with till.database.read() as connection:
        revision = governance_revision(connection)
    clock = SystemClock()
    ledger = Ledger(
        till.database, clock=clock, ids=Ids(clock), lease_dir=tmp_path / "l", spool_dir=tmp_path / "s", retention_days=400
    )
    await ledger.start()
    waits = []
    try:
        deadline = time.monotonic() + 20
        number = 0
        while till.rows("SELECT count(*) FROM posts WHERE call_id LIKE 'old-%'") != [(0,)]:
            assert time.monotonic() < deadline
            till.pass_ms(20)
            number += 1
            began = time.monotonic()
            answer = await ledger.hold(HoldRequest(f"new-{number}", ("a",), 10, 10, revision=revision))
            waits.append(time.monotonic() - began)
            assert isinstance(answer, Granted)
            await ledger.settle(Settlement(f"new-{number}", 1, 0, True))
    finally:
        await ledger.close()
    assert len(waits) > 5 and statistics.median(waits) < 0.1
    assert till.used("a") == number
    assert till.rows("SELECT used FROM seals WHERE cap_id = 'old'") == [(2_600,)]


@pytest.mark.parametrize("seed", range(6))
def test_any_history_with_seals_and_pruning_adds_up(till: Till, seed: int) -> None:
    """Against plain sums: what was spent in the hour, and prepaid since the last reset, whatever has been pruned meanwhile."""
    chance = random.Random(seed)
    till.cap("h", 10**12, created_ms=START_MS)
    till.cap("p", 10**12, None)
    worth: dict[str, tuple[int, int]] = {}
    open_calls: list[str] = []
    lost: list[str] = []
    forgiven: set[str] = set()
    house = Housekeeping(till.database, 1)
    for step in range(90):
        match chance.choice(["hold", "hold", "settle", "settle", "lose", "found", "reset", "wait", "house", "house"]):
            case "hold":
                till.hold(f"c{step}", "h p", chance.randint(1, 99))
                open_calls.append(f"c{step}")
                worth[f"c{step}"] = (till.clock.at_ms, 0)
            case "settle" if open_calls:
                call_id = open_calls.pop(chance.randrange(len(open_calls)))
                cost = chance.randint(0, 99)
                till.settle(call_id, cost)
                worth[call_id] = (worth[call_id][0], cost)
            case "lose" if open_calls:
                call_id = open_calls.pop(0)
                till.lose(call_id)
                lost.append(call_id)
                held = till.rows("SELECT amount_nanos FROM holds WHERE call_id = ?", call_id)[0][0]
                worth[call_id] = (worth[call_id][0], held)
            case "found" if lost:
                call_id = lost.pop()
                cost = chance.randint(0, 99)
                till.settle(call_id, cost)
                worth[call_id] = (worth[call_id][0], cost)
            case "reset":
                with till.database.write() as connection:
                    reset_cap(connection, "p", "")
                forgiven |= worth.keys() - set(open_calls)
            case "wait":
                till.pass_ms(chance.choice([60_000, HOUR_MS // 2, HOUR_MS, 30 * HOUR_MS]))
            case "house":
                run(till, house)
        hour = (till.clock.at_ms - START_MS) // HOUR_MS
        spent = sum(cost for at_ms, cost in worth.values() if (at_ms - START_MS) // HOUR_MS == hour)
        prepaid = sum(cost for call_id, (_, cost) in worth.items() if call_id not in forgiven)
        assert (till.used("h"), till.used("p")) == (spent, prepaid), f"seed {seed}, step {step}"
    assert till.differences() == []
    till.pass_ms(3 * DAY_MS)
    for call_id in open_calls:
        till.settle(call_id, 1)
    till.pass_ms(3 * DAY_MS)
    run(till, house)
    assert len(calls(till)) <= 1 + 2 * sum(1 for row in till.rows("SELECT 1 FROM posts WHERE kind = 'unconfirmed'"))


def test_the_audit_log_has_a_retention_of_its_own(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.ledger.housekeeping.AT_ONCE", 4)

    def write(count: int) -> None:
        with till.database.write() as connection:
            for _ in range(count):
                write_audit_row(connection, Actor(), Edit(connection, "x", "thing", "1"), None, None, at_ms=till.clock.now_ms())

    write(10)
    house = Housekeeping(till.database, None, 30)
    run(till, house)
    assert till.rows("SELECT count(*) FROM audit") == [(10,)]
    till.pass_ms(31 * DAY_MS)
    write(2)
    run(till, Housekeeping(till.database, None, None))
    assert till.rows("SELECT count(*) FROM audit") == [(12,)], "for ever"
    run(till, house)
    assert till.rows("SELECT sequence FROM audit ORDER BY sequence") == [(11,), (12,)]
    assert check_chain(till.database).holds
