"""Writes logs.db behind the calls: a bounded queue, a thread of its own, batches. A call never waits for it."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from store.clock import Clock
from store.database import Database
from store.errors import StoreUnavailable
from store.logs.batch import Bodies, write_rows
from store.logs.lost import note_lost
from store.logs.refusals import RefusalMerger
from store.logs.retention import BATCH_ROWS, DAY_MS, delete_older
from store.logs.types import CallRow

logger = logging.getLogger(__name__)

DEFAULT_BODY_BYTES = 64 * 1024
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_RETENTION_SECONDS = 60.0
_REPORT_SECONDS = 10.0


@dataclass(slots=True)
class LogStats:
    """What became of the rows added since the start."""

    added: int = 0
    written: int = 0
    """Rows that reached the database, merged refusals included."""
    merged: int = 0
    """Of those, refusals that went into the row of an identical one."""
    dropped: int = 0
    """Rows lost because the queue was full, or because the database could not be written until the end."""
    failed: int = 0
    """Rows that the database would not take at all."""
    bodies_dropped: int = 0
    """Rows whose bodies were left out because the queue held too many bytes."""
    expired: int = 0
    """Rows deleted because they were older than the retention."""
    queued: int = 0


class LogWriter:
    """The writer of one process. `add` may be called from any thread."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        body_bytes: int = DEFAULT_BODY_BYTES,
        clean: Callable[[str], str] | None = None,
        retention_days: int | None = None,
        queue_rows: int = 20_000,
        queue_bytes: int = 64 * 1024 * 1024,
        batch_rows: int = 1_000,
        batch_seconds: float = 0.2,
    ) -> None:
        """`body_bytes` bounds each kept body (0: none); `clean` takes secrets out of bodies and messages."""
        self._database = database
        self._clock = clock
        self._bodies = Bodies(body_bytes, clean)
        self._body_bytes = body_bytes
        self._clean = clean
        self._retention_days = retention_days
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._batch_rows = batch_rows
        self._batch_seconds = batch_seconds
        self._merger = RefusalMerger()
        self._condition = threading.Condition()
        self._rows: list[CallRow] = []
        self._bytes = 0
        self._done = 0
        self._hurry_until = 0
        self._closing = False
        self._stats = LogStats()
        self._reported = LogStats()
        self._reported_at = float("-inf")
        self._noted = 0
        self._retained_at = float("-inf")
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write. Rows added before are written then."""
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
            self._thread.start()

    def keep(self, *, body_bytes: int, retention_days: int | None) -> None:
        """From now on keep so much of each body, and rows for so long. From any thread."""
        if body_bytes != self._body_bytes:
            self._bodies, self._body_bytes = Bodies(body_bytes, self._clean), body_bytes
        if retention_days != self._retention_days:
            self._retention_days, self._retained_at = retention_days, float("-inf")

    def add(self, row: CallRow) -> None:
        """Queue one row. Never waits and never raises; when the queue is full the row is counted as dropped."""
        size = len(row.request_body or "") + len(row.response_body or "")
        with self._condition:
            if self._closing or len(self._rows) >= self._queue_rows:
                self._count(dropped=1)
                return
            if size and self._bytes + size > self._queue_bytes:
                row, size = replace(row, request_body=None, response_body=None), 0
                self._count(bodies_dropped=1)
            self._rows.append(row)
            self._bytes += size
            self._stats.added += 1
            if len(self._rows) == 1 or len(self._rows) == self._batch_rows:
                self._condition.notify_all()

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Wait until every row added so far is written or given up; False when the time was not enough."""
        with self._condition:
            target = self._stats.added
            self._hurry_until = max(self._hurry_until, target)
            self._condition.notify_all()
            return self._condition.wait_for(lambda: self._done >= target, timeout_seconds)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Write what is queued and stop. Rows that cannot be written in this time are counted as dropped. May be called twice."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        with self._condition:
            if self._rows:
                self._count(dropped=len(self._rows))
                self._rows = []
        self._report(now=True)

    @property
    def stats(self) -> LogStats:
        """Counters of this moment."""
        with self._condition:
            return replace(self._stats, queued=self._stats.added - self._done)

    # ---- the thread

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch:
                self._write(batch)
                with self._condition:
                    self._done += len(batch)
                    self._condition.notify_all()
            self._report()
            if self._closing:
                if not self._rows:
                    return
            else:
                self._expire()

    def _next_batch(self) -> list[CallRow]:
        with self._condition:
            self._condition.wait_for(lambda: self._rows or self._closing, _RETENTION_SECONDS / 4)
            if self._rows:
                self._condition.wait_for(self._is_due, self._batch_seconds)
            batch, self._rows = self._rows[: self._batch_rows], self._rows[self._batch_rows :]
            self._bytes -= sum(len(row.request_body or "") + len(row.response_body or "") for row in batch)
            return batch

    def _is_due(self) -> bool:
        return self._closing or len(self._rows) >= self._batch_rows or self._hurry_until > self._done

    def _write(self, batch: list[CallRow]) -> None:
        try:
            rows, further = self._merger.merge(self._cleaned(row) for row in batch)
        except Exception:
            logger.exception("refusals could not be merged; writing them one by one")
            rows, further = batch, {}
        tries = 0
        while True:
            try:
                self._commit(rows, further)
                self._count_written(batch, rows)
                return
            except StoreUnavailable as error:
                tries += 1
                if tries == 1:
                    logger.warning("the logs cannot be written for now; they wait in memory: %s", error)
                if not self._pause(tries):
                    self._count(dropped=len(batch))
                    return
            except Exception:
                logger.exception("a batch of %d log rows failed; trying them one by one", len(rows))
                self._write_one_by_one(rows, further)
                return

    def _write_one_by_one(self, rows: list[CallRow], further: dict[str, int]) -> None:
        for row in rows:
            try:
                self._commit([self._cleaned(row)], {})
                self._count(written=row.count, merged=row.count - 1)
            except Exception:
                self._count(failed=row.count)
        try:
            self._commit([], further)
            self._count(written=sum(further.values()), merged=sum(further.values()))
        except Exception:
            self._count(failed=sum(further.values()))

    def _commit(self, rows: list[CallRow], further: dict[str, int]) -> None:
        lost = self.stats.dropped + self.stats.failed
        with self._database.write() as connection:
            write_rows(connection, rows, further, bodies=self._bodies)
            if lost > self._noted:
                note_lost(connection, lost - self._noted)
        self._noted = lost

    def _cleaned(self, row: CallRow) -> CallRow:
        if self._clean is None or not (row.message or row.path):
            return row
        return replace(row, message=self._clean(row.message), path=self._clean(row.path))  # cleaning twice changes nothing

    def _pause(self, tries: int) -> bool:
        """Wait before the next try; False when there is no time for one."""
        seconds = _RETRY_SECONDS[min(tries, len(_RETRY_SECONDS)) - 1]
        with self._condition:
            if self._closing and tries > 2:
                return False
            self._condition.wait_for(lambda: self._closing, seconds)
        return True

    def _expire(self) -> None:
        if self._retention_days is None or self._clock.monotonic() - self._retained_at < _RETENTION_SECONDS:
            return
        try:
            deleted = delete_older(self._database, self._clock.now_ms() - self._retention_days * DAY_MS)
        except Exception as error:
            logger.warning("old log rows could not be deleted: %s", error)
            deleted = 0
        self._count(expired=deleted)
        if deleted < BATCH_ROWS:
            self._retained_at = self._clock.monotonic()

    # ---- counting

    def _count_written(self, batch: list[CallRow], rows: list[CallRow]) -> None:
        self._count(written=len(batch), merged=len(batch) - len(rows))

    def _count(self, **more: int) -> None:
        with self._condition:
            for name, number in more.items():
                setattr(self._stats, name, getattr(self._stats, name) + number)

    def _report(self, *, now: bool = False) -> None:
        """Losses are never silent: one line now and then says how many."""
        stats = self.stats
        lost = (stats.dropped + stats.failed) - (self._reported.dropped + self._reported.failed)
        bodies = stats.bodies_dropped - self._reported.bodies_dropped
        if not (lost or bodies) or (not now and self._clock.monotonic() - self._reported_at < _REPORT_SECONDS):
            return
        logger.warning(
            "%d log rows were lost and %d lost their bodies because the log database could not keep up; "
            "the ledger is complete, and rows of charged calls come back from it",
            lost,
            bodies,
        )
        self._reported, self._reported_at = stats, self._clock.monotonic()
