"""logs.db is completed from the ledger's posts: once, up to a watermark, and again after a store came back."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from addons import bookkeeping
from addons.bookkeeping import GRACE_MS, complete_logs, keep_logs_complete, leave_out
from store.clock import Ids, SystemClock
from store.database import Database, governance_revision
from store.errors import StoreUnavailable
from store.ledger.caps import put_cap
from store.ledger.history import newest_sequence
from store.ledger.ledger import Ledger
from store.ledger.types import CallFacts, Granted, HoldRequest, Settlement
from store.logs.catch_up import CatchUpReport
from store.logs.opening import open_logs
from store.logs.queries import LogReader
from store.sqlite import SqliteDatabase
from tests.support.calls import cap


@dataclass
class LaterClock(SystemClock):
    """The machine's clock, put forward."""

    ahead_ms: int = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@dataclass
class Books:
    """A ledger and empty logs."""

    ledger: Ledger
    database: Database
    logs: Database
    ids: Ids
    revision: int

    async def post(self, cost_nanos: int) -> str:
        """One call, held and settled, without a row in the logs."""
        call_id = self.ids.new()
        facts = CallFacts(virtual_key_id="vk-1", provider="openai", model="gpt-4o-mini")
        granted = await self.ledger.hold(HoldRequest(call_id, ("cap-1",), 5_000, 5_000, revision=self.revision, facts=facts))
        assert isinstance(granted, Granted)
        await self.ledger.settle(Settlement(call_id, cost_nanos, 60, sent=True, note="complete"))
        return call_id


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    clock = SystemClock()
    ids = Ids(clock)
    database = SqliteDatabase.open(tmp_path / "config.db", clock=clock)
    database.migrate()
    with database.write() as connection:
        put_cap(connection, cap())
        revision = governance_revision(connection)
    ledger = Ledger(database, clock=clock, ids=ids, lease_dir=tmp_path / "leases", spool_dir=tmp_path / "spool")
    await ledger.start()
    logs = open_logs(tmp_path / "logs.db", clock=clock)
    yield Books(ledger, database, logs, ids, revision)
    await ledger.close()
    logs.close()
    database.close()


async def test_a_post_without_a_row_gets_one_once(books: Books) -> None:
    call_id = await books.post(1_234)
    later = LaterClock(ahead_ms=GRACE_MS + 1_000)
    assert complete_logs(books.database, books.logs, later).inserted == 1
    assert complete_logs(books.database, books.logs, later).checked == 0
    row = LogReader(books.logs).get(call_id)
    assert row is not None and (row.cost_nanos, row.model, row.virtual_key_id) == (1_234, "gpt-4o-mini", "vk-1")


async def test_a_young_post_may_still_get_its_own_row(books: Books) -> None:
    await books.post(1_234)
    report = complete_logs(books.database, books.logs, SystemClock())
    assert (report.inserted, report.complete) == (0, False)


async def test_many_posts_are_read_in_pieces_and_none_is_lost(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookkeeping, "BATCH_POSTS", 3)
    for number in range(10):
        await books.post(number)
    report = complete_logs(books.database, books.logs, LaterClock(ahead_ms=GRACE_MS + 1_000))
    assert (report.checked, report.inserted) == (10, 10)
    assert LogReader(books.logs).booked() == (10, 45)


async def test_it_goes_on_after_a_store_was_out_of_reach(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first two passes fail, the third succeeds, and all are told."""
    monkeypatch.setattr(bookkeeping, "PAUSE_SECONDS", 0)
    real, passes, done = bookkeeping.complete_logs, 0, asyncio.Event()
    loop = asyncio.get_running_loop()
    await books.post(1_234)

    def sometimes(ledger: Database, logs: Database, clock: SystemClock) -> CatchUpReport:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise StoreUnavailable("gone")
        if passes == 2:
            raise ValueError("a row that makes no sense")
        report = real(ledger, logs, clock)
        if passes == 4:
            loop.call_soon_threadsafe(done.set)
        return report

    monkeypatch.setattr(bookkeeping, "complete_logs", sometimes)
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(keep_logs_complete(books.database, books.logs, LaterClock(ahead_ms=GRACE_MS + 1_000)))
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (
        "cannot be compared" in caplog.text
        and "a row that makes no sense" in caplog.text
        and "1 log rows were missing" in caplog.text
    )


async def test_calls_that_were_not_to_be_logged_stay_out(books: Books) -> None:
    """Logging was off for two calls; what is posted after them is completed as ever."""
    later = LaterClock(GRACE_MS * 2)
    first = await books.post(1_000)
    complete_logs(books.database, books.logs, later)
    await books.post(1_000)
    await books.post(1_000)
    with books.database.read() as connection:
        switched_on = newest_sequence(connection)
    last = await books.post(1_000)
    leave_out(books.database, books.logs, switched_on)
    leave_out(books.database, books.logs, 1)
    complete_logs(books.database, books.logs, later)
    assert {row.id for row in LogReader(books.logs).recent(10)} == {first, last}


async def test_while_nothing_is_logged_nothing_is_completed(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookkeeping, "PAUSE_SECONDS", 0.01)
    later = LaterClock(GRACE_MS * 2)
    passes = 0
    seen = asyncio.Event()

    def nothing_is_logged() -> None:
        nonlocal passes
        passes += 1
        if passes == 3:
            seen.set()

    await books.post(1_000)
    task = asyncio.ensure_future(keep_logs_complete(books.database, books.logs, later, nothing_is_logged))
    await asyncio.wait_for(seen.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    complete_logs(books.database, books.logs, later)
    assert LogReader(books.logs).recent(10) == []
