"""Owners that die: their holds are posted by whoever notices first, never those of the living, each call once."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from store.clock import Ids, SystemClock
from store.ledger.caps import put_cap
from store.ledger.epochs import Lease, running_epochs
from store.ledger.history import posts_of, unconfirmed
from store.ledger.recovery import book_leftovers, recover_dead
from store.ledger.spool import Spool, leftovers
from store.ledger.types import Cap, Granted, Scope, Settlement, Unit
from store.ledger.verify import verify
from store.sqlite import SqliteDatabase
from tests.store.ledger.desk import Desk, HandClock


def test_calls_of_a_dead_process_are_posted_at_their_holds(tmp_path: Path) -> None:
    clock = HandClock()
    dead = Desk(tmp_path, clock, seed=1)
    dead.cap("a", 1000)
    dead.hold("c1", "a", bound=300)
    dead.hold("c2", "a", bound=200)
    dead.settle("c2", cost=20)
    dead.die()

    heir = Desk(tmp_path, clock, seed=2)
    assert heir.sums("a") == (320, 0)
    with heir.database.read() as connection:
        assert [row.call_id for row in unconfirmed(connection)] == ["c1"]
        assert [epoch.id for epoch in running_epochs(connection)] == [heir.writer.epoch]
    assert heir.differences() == []
    assert len(list((tmp_path / "leases").iterdir())) == 1
    heir.close()
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_living_process_keeps_its_holds(tmp_path: Path) -> None:
    clock = HandClock()
    first = Desk(tmp_path, clock, seed=1)
    first.cap("a", 1000)
    first.hold("c1", "a", bound=300)
    second = Desk(tmp_path, clock, seed=2)

    assert second.sums("a") == (0, 300)
    assert recover_dead(second.database, second.writer.epoch, second.writer._lease_dir) == 0
    first.settle("c1", cost=10)
    assert second.sums("a") == (10, 0)
    first.close()
    second.close()


def test_a_living_process_notices_that_another_one_died(tmp_path: Path) -> None:
    clock = HandClock()
    first, second = Desk(tmp_path, clock, seed=1), Desk(tmp_path, clock, seed=2)
    first.cap("a", 1000)
    first.hold("c1", "a", bound=1000)
    waiting = second.ask("c2", "a", 400)
    second.step(waiting)
    first.die()
    clock.pass_ms(5_100)
    second.writer._maintain()
    clock.pass_ms(5_100)
    second.writer._maintain()
    second.look_again()

    assert second.sums("a") == (1000, 0)
    assert not waiting.future.value.held_only, "the hold became a post: there is nothing left to wait for"
    second.close()


def test_a_process_that_ends_in_order_leaves_its_open_calls_to_be_found(tmp_path: Path) -> None:
    clock = HandClock()
    first = Desk(tmp_path, clock, seed=1)
    first.cap("a", 1000)
    first.hold("c1", "a", bound=300)
    first.close()
    second = Desk(tmp_path, clock, seed=2)

    assert second.sums("a") == (300, 0)
    second.close()


def test_many_open_calls_are_recovered_in_several_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.ledger.recovery.CALLS_AT_ONCE", 3)
    clock = HandClock()
    dead = Desk(tmp_path, clock, seed=1)
    dead.cap("a", 10**6)
    for number in range(7):
        dead.hold(f"c{number}", "a", bound=10)
    dead.die()
    heir = Desk(tmp_path, clock, seed=2)

    assert heir.sums("a") == (70, 0)
    assert heir.differences() == []
    heir.close()


def test_a_process_woken_after_it_was_taken_for_dead(tmp_path: Path) -> None:
    """Its old holds were posted; its late settlements correct them; its new holds are of a new epoch."""
    clock = HandClock()
    sleeper, other = Desk(tmp_path, clock, seed=1), Desk(tmp_path, clock, seed=2)
    sleeper.cap("a", 1000)
    sleeper.hold("c1", "a", bound=300)
    fenced = sleeper.writer.epoch
    assert sleeper.writer.lease is not None
    sleeper.writer.lease.abandon()
    assert recover_dead(other.database, other.writer.epoch, other.writer._lease_dir) == 1
    assert other.sums("a") == (300, 0)

    settled = sleeper.settle("c1", cost=100)
    assert settled.adjusted
    assert sleeper.sums("a") == (100, 0)
    assert isinstance(sleeper.hold("c2", "a", bound=50), Granted)
    assert sleeper.writer.epoch != fenced
    assert recover_dead(other.database, other.writer.epoch, other.writer._lease_dir) == 0, "the new epoch is alive"
    assert other.sums("a") == (100, 50)
    assert other.differences() == []
    sleeper.settle("c2", cost=1)
    sleeper.close()
    other.close()


def test_a_lease_belongs_to_one(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path / "x.lease")
    assert lease is not None
    assert Lease.take(tmp_path / "x.lease") is None
    lease.drop()
    again = Lease.take(tmp_path / "x.lease")
    assert again is not None
    again.drop()


def test_a_lease_directory_that_is_gone_recovers_nothing_yet(tmp_path: Path) -> None:
    clock = HandClock()
    first, second = Desk(tmp_path, clock, seed=1), Desk(tmp_path, clock, seed=2)
    first.cap("a", 1000)
    first.hold("c1", "a", bound=300)
    with second.database.write() as connection:
        connection.execute("UPDATE epochs SET lease = '/nowhere/at/all.lease' WHERE id = ?", (first.writer.epoch,))

    assert recover_dead(second.database, second.writer.epoch, second.writer._lease_dir) == 0
    assert second.sums("a") == (0, 300)
    first.settle("c1", cost=1)
    first.close()
    second.close()


def test_leases_are_found_after_the_directory_was_moved(tmp_path: Path) -> None:
    """The path written down is of the old place; the lease file came along."""
    clock = HandClock()
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    dead = Desk(old, clock, seed=1)
    dead.cap("a", 1000)
    dead.hold("c1", "a", bound=300)
    if dead.writer.lease is not None:
        dead.writer.lease.abandon()
    dead.database.close()
    old.rename(new)
    heir = Desk(new, clock, seed=2)
    assert heir.sums("a") == (300, 0)
    heir.close()


# ---- the spool


def test_a_spooled_settlement_is_booked_instead_of_a_guess(tmp_path: Path) -> None:
    clock = HandClock()
    dead = Desk(tmp_path, clock, seed=1)
    dead.cap("a", 1000)
    dead.hold("c1", "a", bound=300)
    dead.writer._spool.append([Settlement("c1", 42, 7, True, note="complete")])
    dead.die()
    heir = Desk(tmp_path, clock, seed=2)

    assert heir.sums("a") == (42, 0)
    with heir.database.read() as connection:
        assert [(row.kind, row.cost_nanos) for row in posts_of(connection, "c1")] == [("post", 42)]
    assert list((tmp_path / "spool").iterdir()) == []
    heir.close()


def test_booking_a_spool_twice_changes_nothing(tmp_path: Path) -> None:
    clock = HandClock()
    desk = Desk(tmp_path, clock)
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    line = b'{"call_id":"c1","cost_nanos":42,"tokens":7,"sent":true}\n'
    for name in ("one", "two"):
        (tmp_path / "spool").mkdir(exist_ok=True)
        (tmp_path / "spool" / f"{name}.spool").write_bytes(
            line + line + b'{"call_id":"nobody","cost_nanos":1,"tokens":0,"sent":true}\n'
        )

    assert book_leftovers(desk.database, tmp_path / "spool") == 6
    assert desk.sums("a") == (42, 0)
    assert desk.differences() == []
    desk.close()


def test_the_spool_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "mine")
    spool.append([Settlement("c1", 1, 1, True)])

    assert list(leftovers(tmp_path)) == []
    assert [settlement.call_id for settlement in spool.pending()] == ["c1"]
    spool.booked(spool.pending())
    assert (tmp_path / "mine.spool").read_bytes() == b""
    spool.close()
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_a_spool_that_is_not_booked_outlives_its_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "mine")
    settlement = Settlement(
        "c1", 5, 1, True, estimated=True, input_tokens=3, output_tokens=4, model="m", price_source="p", note="é"
    )
    spool.append([settlement])
    spool.close()
    (leftover,) = leftovers(tmp_path)

    assert leftover.settlements == (settlement,)
    leftover.leave()
    (leftover,) = leftovers(tmp_path)
    leftover.done()
    assert list(leftovers(tmp_path)) == []


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    good = b'{"call_id":"c1","cost_nanos":42,"tokens":7,"sent":true}\n'
    (tmp_path / "x.spool").write_bytes(good + b'{"call_id":"c2","cost_na')
    (leftover,) = leftovers(tmp_path)

    assert [settlement.call_id for settlement in leftover.settlements] == ["c1"]
    leftover.done()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_spool_is_put_aside_not_thrown_away(tmp_path: Path) -> None:
    good = b'{"call_id":"c1","cost_nanos":42,"tokens":7,"sent":true}\n'
    (tmp_path / "x.spool").write_bytes(b"\x00\x00\x00\n" + good)
    (leftover,) = leftovers(tmp_path)

    assert [settlement.call_id for settlement in leftover.settlements] == ["c1"]
    leftover.done()
    assert [path.name for path in tmp_path.iterdir()] == ["x.damaged"]


def test_a_spool_that_cannot_be_written_says_so_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "mine")
    spool.append([Settlement("c1", 1, 1, True)])
    before = (tmp_path / "mine.spool").read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("store.ledger.spool.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        spool.append([Settlement("c2", 1, 1, True)])
    monkeypatch.undo()
    assert (tmp_path / "mine.spool").read_bytes() == before
    assert [settlement.call_id for settlement in spool.pending()] == ["c1"]
    spool.close()


# ---- real processes

HOLDER = """
import asyncio, sys
from pathlib import Path
from store.clock import Ids, SystemClock
from store.database import governance_revision
from store.sqlite import SqliteDatabase
from store.ledger.ledger import Ledger
from store.ledger.types import Granted, HoldRequest, Settlement

async def main(directory):
    clock = SystemClock()
    database = SqliteDatabase.open(directory / "config.db")
    with database.read() as connection:
        revision = governance_revision(connection)
    ids = Ids(clock)
    ledger = Ledger(database, clock=clock, ids=ids, lease_dir=directory / "leases", spool_dir=directory / "spool")
    await ledger.start()

    async def caller():
        while True:
            call_id = ids.new()
            answer = await ledger.hold(HoldRequest(call_id, ("a", "b"), 100, 100, revision=revision))
            if not isinstance(answer, Granted):
                await asyncio.sleep(0.01)
                continue
            print("left", call_id, flush=True)
            await asyncio.sleep(0.001)
            settled = await ledger.settle(Settlement(call_id, 60, 5, True))
            print("settled", call_id, flush=True)

    await asyncio.gather(*(caller() for _ in range(8)))

asyncio.run(main(Path(sys.argv[1])))
"""


SPENDER = """
import asyncio, sys
from pathlib import Path
from store.clock import Ids, SystemClock
from store.database import governance_revision
from store.sqlite import SqliteDatabase
from store.ledger.ledger import Ledger
from store.ledger.types import Granted, HoldRequest, Settlement

async def main(directory):
    clock = SystemClock()
    database = SqliteDatabase.open(directory / "config.db")
    with database.read() as connection:
        revision = governance_revision(connection)
    ids = Ids(clock)
    ledger = Ledger(database, clock=clock, ids=ids, lease_dir=directory / "leases", spool_dir=directory / "spool")
    await ledger.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    spent = 0

    async def call():
        nonlocal spent
        call_id = ids.new()
        answer = await ledger.hold(HoldRequest(call_id, ("a",), 100, 100, revision=revision))
        if isinstance(answer, Granted):
            await asyncio.sleep(0.001)
            await ledger.settle(Settlement(call_id, 90, 5, True))
            spent += 90

    await asyncio.gather(*(call() for _ in range(150)))
    await ledger.close()
    database.close()
    print(spent, flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_two_processes_share_a_cap_exactly(tmp_path: Path) -> None:
    """300 calls of two processes on a cap that fits 111 of them."""
    clock = SystemClock()
    database = SqliteDatabase.open(tmp_path / "config.db")
    database.migrate()
    with database.write() as connection:
        put_cap(connection, Cap("a", "a", Scope.TEAM, "t", "t", Unit.USD, 10_000, None))
    pair = [
        subprocess.Popen([sys.executable, "-c", SPENDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    spent = [int(process.communicate(timeout=60)[0]) for process in pair]

    assert sum(spent) == 111 * 90, "after 111 calls 10 are left; 110 leave 100, which fits one more"
    with database.read() as connection:
        assert connection.execute("SELECT used, held FROM balances") == [(sum(spent), 0)]
    assert verify(database, clock).clean
    database.close()


def test_kill_minus_nine_under_load_loses_nothing(tmp_path: Path) -> None:
    """Two real processes on one file, killed and replaced; every call that left is in the books once, the cap held throughout."""
    clock = SystemClock()
    database = SqliteDatabase.open(tmp_path / "config.db")
    database.migrate()
    limit = 10**12
    with database.write() as connection:
        for cap_id in ("a", "b"):
            put_cap(connection, Cap(cap_id, cap_id, Scope.TEAM, "t", "t", Unit.USD, limit, None))
    left: set[str] = set()
    settled: set[str] = set()
    killed: list[int] = []
    for _ in range(3):
        pair = [
            subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        said: list[list[str]] = [[], []]
        enough = threading.Event()

        def read(process: "subprocess.Popen[str]", lines: list[str], all_lines: list[list[str]], enough: threading.Event) -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if all(len(some) > 150 for some in all_lines):
                    enough.set()

        readers = [
            threading.Thread(target=read, args=(process, lines, said, enough)) for process, lines in zip(pair, said, strict=True)
        ]
        for reader in readers:
            reader.start()
        assert enough.wait(30)
        for process in pair:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.wait())
        for reader in readers:
            reader.join(10)
        for process in pair:
            assert process.stdout is not None
            process.stdout.close()
        for lines in said:
            for line in lines:
                word, _, call_id = line.strip().partition(" ")
                if len(call_id) == 36:
                    (left if word == "left" else settled).add(call_id)
    assert killed == [-9] * 6

    ids = Ids(clock)
    recovered = recover_dead(database, ids.new(), tmp_path / "leases")
    with database.read() as connection:
        rows = {row[0]: row[1:] for row in connection.execute("SELECT call_id, kind, cost_nanos FROM posts")}
        assert connection.execute("SELECT count(*) FROM open_holds") == [(0,)]
        assert connection.execute("SELECT count(*) FROM posts") == [(len(rows),)], "no call twice"
        used = connection.execute("SELECT used FROM balances ORDER BY cap_id")
    report = verify(database, clock)
    assert report.clean, [str(difference) for difference in report.differences]
    assert left <= rows.keys(), "every call that left is in the books"
    assert all(rows[call_id] == ("post", 60) for call_id in settled), "what was answered is durable"
    guessed = [call_id for call_id, (kind, _) in rows.items() if kind == "unconfirmed"]
    assert len(guessed) <= 6 * 8
    assert recovered <= len(guessed), "later processes recovered the rest at their start"
    total = sum(cost for _, cost in rows.values())
    assert used == [(total,), (total,)]
    database.close()
