"""Callers that leave while their hold is being committed: the call is told to stay, and nothing of it remains in the books."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.clock import Ids, SystemClock
from store.database import Connection, governance_revision
from store.ledger.caps import put_cap
from store.ledger.ledger import Ledger
from store.ledger.types import CallerLeft, Cap, HoldRequest, Scope, Unit
from store.ledger.verify import verify
from store.sqlite import SqliteDatabase
from tests.store.ledger.desk import Desk


async def test_a_call_cancelled_during_its_commit_is_told_to_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hold is voided, so a call that went on would be charged to nobody: its settlement finds nothing to post."""
    database, clock = SqliteDatabase.open(tmp_path / "config.db"), SystemClock()
    database.migrate()
    with database.write() as connection:
        put_cap(connection, Cap("a", "a", Scope.TEAM, "t", "t", Unit.USD, 1000, None))
        revision = governance_revision(connection)
    ledger = Ledger(database, clock=clock, ids=Ids(clock), lease_dir=tmp_path / "leases", spool_dir=tmp_path / "spool")
    await ledger.start()
    committing, cancelled = threading.Event(), threading.Event()
    write_batch = database.write_batch

    @contextmanager
    def slow() -> Iterator[Connection]:
        with write_batch() as connection:
            yield connection
            committing.set()
            assert cancelled.wait(1)

    monkeypatch.setattr(database, "write_batch", slow)
    asked = asyncio.create_task(ledger.hold(HoldRequest("c1", ("a",), 300, 300, revision=revision)))
    assert await asyncio.to_thread(committing.wait, 5)
    monkeypatch.setattr(database, "write_batch", write_batch)
    ledger.cancel("c1")
    cancelled.set()
    with pytest.raises(CallerLeft):
        await asked
    assert await ledger.drain(5)
    (state,) = ledger.states(["a"])
    assert (state.used, state.held) == (0, 0)
    assert "c1" not in ledger.live
    await ledger.close()
    assert verify(database, clock).clean
    database.close()


def test_a_call_cancelled_during_its_commit_is_never_taken_for_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the commit and the batch that voids it the writer may compare what is open with what is alive."""
    desk.cap("a", 1000)
    write_batch = desk.database.write_batch

    @contextmanager
    def slow() -> Iterator[Connection]:
        with write_batch() as connection:
            yield connection
            desk.writer.never_left("c1")
            desk.live.discard("c1")

    operation = desk.ask("c1", "a", bound=300)
    monkeypatch.setattr(desk.database, "write_batch", slow)
    desk.step(operation)
    monkeypatch.setattr(desk.database, "write_batch", write_batch)
    desk.writer.compare_with_live()
    desk.cancel("c1")
    assert desk.sums("a") == (0, 0)
