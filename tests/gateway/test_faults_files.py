"""Files that are damaged, replaced or removed under a gateway: a torn write-ahead log, garbage in the spool, lost leases and logs.

One gateway goes through all of it, test by test in this order, and the books are judged over everything since the beginning.
"""

import json
import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support import books, process_list, store_faults
from tests.support.config import budget, config_for, virtual_key
from tests.support.crowd import FIRST_LENGTH, Crowd, Heard
from tests.support.figures import figures
from tests.support.judge import Rows, judge, log_watermark, logs_agree, settled, sqlite_query
from tests.support.quick import Gateway, PretendProcess
from tests.support.waiting import eventually
from tests.support.wal import spoil, tear_tail

CLIENTS = 12
LOG_SECONDS = 60


class World:
    """A provider, a gateway that comes and goes, and everything that its clients have heard."""

    def __init__(self, provider: PretendProcess, gateway: Gateway) -> None:
        self.provider = provider
        self.gateway = gateway
        self.app_dir = gateway.app_dir
        self.rows = Rows(sqlite_query(gateway.app_dir / "config.db"))
        self.logs = gateway.app_dir / "logs.db"
        self.lengths = count(FIRST_LENGTH)
        self.heard: list[Heard] = []
        self.killed: set[int] = set()
        self.unseen: set[str] = set()
        """Calls whose rows went into a log file that was deleted."""

    def crowd(self, delay_ms: int = 20) -> Crowd:
        crowd = Crowd(lambda: self.gateway.url, clients=CLIENTS, lengths=self.lengths, delay_ms=delay_ms)
        crowd.heard = self.heard
        return crowd

    def kill9(self) -> None:
        self.killed.update(process_list.workers(self.gateway.pid))
        self.gateway.kill9()

    def judged(self, *, adjusted: bool = False) -> None:
        settled(self.rows)
        bill = eventually(self.provider.bill, lambda bill: bill["in_flight"] == 0)
        verdict = judge(bill, self.rows, self.heard, dead_epochs=self.rows.epochs_of(self.killed), adjusted=adjusted)
        figures("judged", **{name: getattr(verdict, name) for name in verdict.__slots__})
        assert books.replayed(self.app_dir).clean

    def logged(self) -> None:
        """Until logs.db is complete."""
        last = self.rows.last_sequence()
        eventually(lambda: log_watermark(self.logs), lambda mark: mark >= last, LOG_SECONDS)
        logs_agree(self.rows, self.gateway.log_rows, lambda: log_watermark(self.logs))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = [virtual_key(budgets=[budget(5_000, reset="30d")])]
    with PretendProcess() as provider:
        with Gateway(
            tmp_path_factory.mktemp("files"), config_for(provider.url, virtual_keys=keys), arguments=("--workers", "2")
        ) as gateway:
            yield World(provider, gateway)


def garbage(directory: Path) -> Path:
    """A spool file of nobody: noise, JSON that is no settlement, a settlement of a call that never was, half a line."""
    directory.mkdir(exist_ok=True)
    stranger = {"call_id": "01900000-0000-7000-8000-000000000000", "cost_nanos": 10**15, "tokens": 1, "sent": True}
    lines = [os.urandom(200).replace(b"\n", b""), b"[1, 2]", b'{"call_id": 7}', json.dumps(stranger).encode(), b'{"call_id": "01a']
    path = directory / "garbage.spool"
    path.write_bytes(b"\n".join(lines))
    return path


def test_nobody_notices_that_the_logs_are_deleted(world: World) -> None:
    with world.crowd() as crowd:
        crowd.wait_for_good(12)
        for path in world.app_dir.glob("logs.db*"):
            path.unlink()
        began = crowd.wait_for_good(24)
    assert [one for one in world.heard if not one.good] == []
    world.unseen = {one.call_id for one in world.heard if one.started >= began}


def test_a_torn_tail_of_the_log_and_a_spool_of_garbage_cost_nothing(world: World) -> None:
    """Behind the last commit nothing was promised to anybody; all before it is there."""
    with world.crowd() as crowd:
        crowd.wait_for_good(30)
        world.kill9()
    held = world.rows.open_calls()
    booked = world.rows.entries()
    tear_tail(world.app_dir / "config.db-wal")
    (world.app_dir / "config.db-shm").unlink()
    assert (world.rows.entries(), world.rows.open_calls()) == (booked, held), "a reader does not see the torn frame"
    spool = garbage(world.app_dir / "spool")
    world.gateway.restart()
    settled(world.rows)
    after = world.rows.entries()
    assert after[: len(booked)] == booked
    assert {entry.call_id for entry in after[len(booked) :]} == set(held)
    eventually(lambda: spool.with_suffix(".damaged").exists(), bool, 20)
    assert not spool.exists()
    with world.crowd() as crowd:
        crowd.wait_for_good(12)
    world.judged()
    assert "of the spool file garbage.spool cannot be read" in world.gateway.log()
    assert "Traceback" not in world.gateway.log()


def test_settlements_in_the_spool_of_a_killed_worker_are_booked_as_what_they_are(world: World) -> None:
    """The store was locked when the calls ended, and then the workers died: what they had written to the spool is no guess."""
    with world.crowd(delay_ms=60) as crowd:
        crowd.wait_for_good(CLIENTS)
        with store_faults.locked_by_a_sleeper(world.app_dir / "config.db"):
            spool = world.app_dir / "spool"
            workers = process_list.workers(world.gateway.pid)
            eventually(lambda: [path for path in spool.glob("*.spool") if path.stat().st_size], bool, 30)
            time.sleep(0.5)  # for further ones; the more the better
            for pid in workers:
                world.killed.add(pid)
                process_list.kill9(pid)
            spooled = [json.loads(line)["call_id"] for path in spool.glob("*.spool") for line in path.read_bytes().splitlines()]
        crowd.wait_for_good(CLIENTS)
    world.judged(adjusted=True)
    booked = world.rows.booked()
    figures("spool of the dead", spooled=len(spooled), kinds=sorted({booked[call].kinds for call in spooled}))
    assert spooled
    assert not [call for call in spooled if booked[call].in_doubt]
    eventually(lambda: list(spool.glob("*.spool")), lambda found: not found, 20)


def test_a_worker_whose_lease_was_removed_is_taken_for_dead_and_corrects_it(world: World) -> None:
    """Somebody has tidied up `leases/`. The other worker books what it finds at the holds; the living one settles after all."""
    with world.crowd(delay_ms=250) as crowd:
        eventually(world.rows.open_calls, lambda found: len(found) == CLIENTS, 20)
        for lease in (world.app_dir / "leases").iterdir():
            lease.unlink()
        eventually(lambda: [one for one in world.rows.entries() if one.kind == "adjust"], bool, 30)
        guessed = {call.epoch for call in world.rows.booked().values() if "unconfirmed" in call.kinds}
        fenced = guessed & world.rows.epochs_of(process_list.workers(world.gateway.pid))
        crowd.wait_for_good(CLIENTS)
    world.judged(adjusted=True)
    assert fenced and not [call for call in world.rows.booked().values() if call.in_doubt and call.epoch in fenced]
    assert "was taken for dead" in world.gateway.log()


def test_the_ledger_has_filled_the_logs_again(world: World) -> None:
    """After the restart of the torn log: what was written into the deleted file, and what nobody wrote for the dead."""
    world.logged()
    found = {row["id"]: str(row["message"]) for row in world.gateway.log_rows()}
    assert world.unseen <= set(found)
    assert [call for call in world.unseen if not found[call].startswith("row made from the ledger")] == []


def test_damaged_logs_hurt_no_call_and_are_named_at_the_next_start(world: World) -> None:
    with world.crowd() as crowd:
        crowd.wait_for_good(12)
        for path in (world.logs, world.logs.with_name("logs.db-wal")):
            with path.open("r+b") as file:
                file.write(os.urandom(max(4096, path.stat().st_size)))
        began = crowd.wait_for_good(24)
    assert [one for one in world.heard if one.started >= began and not one.good] == []
    world.judged(adjusted=True)
    assert world.gateway.terminate() == 0
    with pytest.raises(RuntimeError) as told:
        world.gateway.start()
    line = next(line for line in str(told.value).splitlines() if line.startswith("tollgate: "))
    assert "logs.db" in line and "move it away" in line
    assert "ended with 2" in str(told.value) and "Traceback" not in str(told.value)
    for path in world.app_dir.glob("logs.db*"):
        path.rename(path.with_name("damaged-" + path.name))
    world.gateway.start()


def test_destroyed_transactions_are_gone_but_not_in_silence(world: World) -> None:
    """A disk that forgets what it has synced takes the newest spending with it: nobody can book that again, but it is said."""
    with world.crowd() as crowd:
        crowd.wait_for_good(60)
    settled(world.rows)
    world.logged()
    known = world.rows.booked()
    with world.crowd(delay_ms=60) as crowd:
        crowd.wait_for_good(6)
        world.kill9()
    kept = spoil(world.app_dir / "config.db-wal", 0.5)
    (world.app_dir / "config.db-shm").unlink()
    world.gateway.restart()
    settled(world.rows)
    left = world.rows.booked()
    lost = [call for call in known.values() if call.call_id not in left]
    figures("destroyed", transactions_kept=kept, calls_lost=len(lost), lost_nanos=sum(call.cost_nanos for call in lost))
    assert lost, "the half that was destroyed held spending"
    # What is left is consistent, and the gateway serves.
    assert books.replayed(world.app_dir).clean
    code, told = books.verify_command(world.gateway)
    assert (code, told["clean"]) == (0, True)
    eventually(world.gateway.log, lambda log: "has lost its newest rows" in log, 20)
    # The logs still know every call that was lost.
    rows = {row["id"]: row["cost_nanos"] for row in world.gateway.log_rows()}
    assert {call.call_id: call.cost_nanos for call in lost} == {call.call_id: rows.get(call.call_id) for call in lost}
