"""The one thread of a process that writes the ledger: it takes what waits, decides and commits it together, then answers."""

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue

from store.clock import Clock, Ids
from store.database import Connection, Database
from store.errors import StoreUnavailable, UserError
from store.ledger.batch import Batch, Waits, touched_caps
from store.ledger.books import Books
from store.ledger.decide import Slot
from store.ledger.epochs import HEARTBEAT_SECONDS, Lease, Pulse, beat, begin_epoch, end_epoch, open_calls, renew_epoch
from store.ledger.line import Line
from store.ledger.operations import (
    Answer,
    CancelOperation,
    HoldAnswer,
    HoldOperation,
    Operation,
    SettleOperation,
    deliver,
    is_patient,
    sort_out,
)
from store.ledger.recovery import book_leftovers, end_forgotten, recover_dead
from store.ledger.rows import HoldRow, StoredCap, balances_query
from store.ledger.spool import SHUT, Spool
from store.ledger.types import Granted, HoldRequest, Settled, Unit

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.05
"""How often waiting calls look for what other processes gave back."""
SHORT_WAIT_SECONDS = 2.0
"""How long a call waits for a place among parallel calls, or for a request that others hold."""
RECOVERY_SECONDS = 5.0
COMPARE_SECONDS = 30.0
BATCH_MAX = 1_000
_STATE = """SELECT (SELECT value FROM meta WHERE key = 'revision'), (SELECT ended_ms IS NULL FROM epochs WHERE id = ?), {clock}"""
LINGER_SECONDS = 0.004
"""How long settlements that nobody waits for are kept back for a hold to share their commit."""


class Writer:
    """Owns the queue, the line, the epoch and the spool of one process. Public methods may be called from any thread."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        ids: Ids,
        hold_wait_seconds: float,
        lease_dir: Path,
        spool_dir: Path,
        line: Line,
        live: set[str],
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._hold_wait_seconds = hold_wait_seconds
        self._short_wait_seconds = min(hold_wait_seconds, SHORT_WAIT_SECONDS)
        self._lease_dir = lease_dir
        self._spool_dir = spool_dir
        self._spool = Spool(spool_dir, ids.new())
        self._queue: SimpleQueue[Operation | None] = SimpleQueue()
        self._line = line
        self._live = live
        self._never_left: set[str] = set()
        self._unsafe: list[SettleOperation] = []
        self._own: dict[str, HoldRow] = {}
        """The open holds of this epoch as they were written; nobody else touches them until the epoch is fenced."""
        self._next_batch: list[Operation] = []
        self.pulse = Pulse(clock.monotonic())
        self._caps: dict[str, StoredCap] = {}
        self._caps_revision = -1
        self._locked: set[str] | None = None
        self._in_doubt = False  # whether a commit whose answer was lost may still be on its way
        self._last_ms = 0
        self._looked_at = 0.0
        self._due: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.epoch = ""
        self.lease: Lease | None = None
        self.busy_since: float | None = None
        self.batches = 0
        self.operations = 0

    # ---- for any thread

    def submit(self, operation: Operation) -> None:
        """Hands an operation to the writer."""
        self._queue.put(operation)

    def never_left(self, call_id: str) -> None:
        """Says that this call was not let through, whatever the database says of its hold."""
        self._never_left.add(call_id)

    @property
    def shut(self) -> bool:
        """True while a settlement could be written neither to the store nor to the spool: nothing new is let through."""
        return bool(self._unsafe)

    @property
    def idle(self) -> bool:
        """True when nothing is queued, waiting or being written."""
        return self._queue.empty() and not self._next_batch and not len(self._line) and self.busy_since is None

    @property
    def waiting(self) -> int:
        """How many calls stand in line."""
        return len(self._line)

    def spool(self, operations: Iterable[SettleOperation]) -> list[Answer]:
        """Puts settlements into the synced spool file; the answers say so. Never raises."""
        fresh = [operation for operation in operations if not operation.spooled]
        if not fresh:
            return []
        try:
            self._spool.append([operation.settlement for operation in fresh])
        except (OSError, ValueError, TypeError) as error:
            log.error("%d settlements could be written neither to the store nor to the spool: %s", len(fresh), error)
            self._unsafe.extend(operation for operation in fresh if operation not in self._unsafe)
            return []
        for operation in fresh:
            operation.spooled = True
        self._made_safe(fresh)
        return [(operation, Settled(operation.settlement.call_id, (), spooled=True)) for operation in fresh]

    # ---- life

    def open(self) -> None:
        """Begins an epoch and books what dead processes left. Raises StoreUnavailable, OSError."""
        with self._database.write() as connection:
            self.epoch, self.lease = begin_epoch(connection, self._lease_dir, self._ids)
        book_leftovers(self._database, self._spool_dir)
        if self.lease is not None:
            # Heartbeats are judged only after a while in touch with the server: an outage makes all of them stale.
            recover_dead(self._database, self.epoch, self._lease_dir)

    def start(self) -> None:
        """Opens the books and starts the thread. Raises as `open`."""
        self.open()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Finishes what is queued and ends the epoch; calls still open are left for the next process to find."""
        if self._thread is None:
            return
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            log.warning("the ledger's writer is stuck; what it holds is recovered by the next process")
            return
        self._thread = None
        self._end()

    def _end(self) -> None:
        try:
            with self._database.write() as connection:
                if not open_calls(connection, self.epoch, 1):
                    end_epoch(connection, self.epoch, connection.now_ms())
        except StoreUnavailable as error:
            log.warning("the epoch could not be ended: %s", error)
        if self.lease is not None:
            self.lease.drop()
        self._spool.close()

    # ---- the thread

    def _run(self) -> None:
        while True:
            first = self._next()
            if first is None and self._stopping and self._queue.empty() and not self._next_batch:
                break
            try:
                self.cycle([] if first is None else self._gather(first))
                self._maintain()
            except Exception:
                log.exception("the ledger's writer met something unexpected and goes on")
            finally:
                self.busy_since = None
        self._give_up_waiting()

    def _next(self) -> Operation | None:
        if self._next_batch:
            return self._next_batch.pop(0)
        try:
            return self._queue.get(timeout=LOOK_AGAIN_SECONDS if len(self._line) else 1.0)
        except Empty:
            return None

    def _gather(self, first: Operation) -> list[Operation]:
        """`first`, and what comes while only settlements are there that nobody waits for: the next hold shares their commit.

        A caller with one call at a time sends the next one right after an answer; without this its hold would stand behind
        the commit of the settlement before it. Nobody loses by it: what is settled late is held meanwhile.
        """
        operations = [first]
        if len(self._line):
            return operations
        deadline = self._clock.monotonic() + LINGER_SECONDS
        while is_patient(operations[-1]) and len(operations) < BATCH_MAX and not self._stopping:
            try:
                operation = self._queue.get(timeout=max(0.0, deadline - self._clock.monotonic()))
            except Empty:
                break
            if operation is None:
                self._queue.put(None)
                break
            operations.append(operation)
        return operations

    def _drain(self, operations: list[Operation]) -> None:
        operations += self._next_batch
        self._next_batch = []
        while len(operations) < BATCH_MAX:
            try:
                operation = self._queue.get_nowait()
            except Empty:
                return
            if operation is not None:
                operations.append(operation)

    def cycle(self, operations: list[Operation]) -> None:
        """Takes these and everything that waits, commits it together, answers. For the thread, and for tests without one."""
        self.busy_since = self._clock.monotonic()
        if not operations and not len(self._line):
            self._checkpoint()
            return
        try:
            if self._database.engine != "sqlite":
                self._drain(operations)  # which locks are needed follows from what is asked
            with self._database.write_batch() as connection:
                if self._database.engine == "sqlite":
                    self._drain(operations)
                answers, line, batch = self._work(connection, operations, self._line)
        except StoreUnavailable as error:
            self._drain(operations)
            self._store_failed(operations, error)
            return
        except Exception as error:
            log.debug("a batch of %d operations failed and is tried one by one: %s", len(operations), error)
            self._one_by_one(operations)
            return
        self._finish(operations, answers, line, batch)
        self._checkpoint()

    def _finish(self, operations: list[Operation], answers: list[Answer], line: Line, batch: Batch) -> None:
        self._line = line
        own = self._own
        own.update(batch.granted)
        if not self._in_doubt:
            self._never_left.difference_update(op.call_id for op in operations if isinstance(op, CancelOperation))
        for call_id in batch.closed_holds:
            own.pop(call_id, None)
        self.batches += 1
        self.operations += len(operations)
        if self._unsafe:
            self._made_safe(operations)
        for operation, answer in answers:
            if isinstance(answer, Granted):
                # A caller that was told to stay, or left, during the commit does not hear of it any more.
                if isinstance(operation, HoldOperation) and not operation.gone and answer.call_id in self._live:
                    self._never_left.discard(answer.call_id)
            elif isinstance(answer, Settled) or (isinstance(operation, SettleOperation) and isinstance(answer, UserError)):
                self._live.discard(operation.settlement.call_id)  # type: ignore[union-attr]
        deliver(answers)
        spooled = [op.settlement for op in operations if isinstance(op, SettleOperation) and op.spooled]
        if spooled:
            try:
                self._spool.booked(spooled)
            except OSError as error:
                # Booked they are; a line that stays in the file is booked once more and changes nothing.
                log.warning("the spool file could not be shortened: %s", error)

    def _made_safe(self, operations: Iterable[Operation]) -> None:
        safe = set(operations)
        self._unsafe = [operation for operation in self._unsafe if operation not in safe]

    def _one_by_one(self, operations: list[Operation]) -> None:
        self._own.clear()
        queued: list[Operation] = [*self._line, *operations]
        self._line = self._line.copy()
        for operation in queued:
            try:
                with self._database.write_batch() as connection:
                    answers, line, batch = self._work(connection, [operation], self._line, careful=True)
            except StoreUnavailable as error:
                self._store_failed([operation], error)
            except Exception as error:
                log.exception("an operation of the ledger failed")
                if isinstance(operation, SettleOperation):
                    deliver(self.spool([operation]))
                elif not isinstance(operation, CancelOperation):
                    deliver([(operation, error)])
            else:
                self._finish([operation], answers, line, batch)

    def _store_failed(self, operations: list[Operation], error: StoreUnavailable) -> None:
        self._own.clear()  # what was committed before the fault is known to the database alone
        self._in_doubt = True
        answers: list[Answer] = []
        for operation in [*self._line, *operations]:
            if isinstance(operation, HoldOperation):
                if not operation.repeats:
                    self._never_left.add(operation.request.call_id)
                answers.append((operation, error))
            elif isinstance(operation, CancelOperation):
                self._never_left.add(operation.call_id)
        self._line = self._line.copy()
        settles = [operation for operation in operations if isinstance(operation, SettleOperation)]
        answers += self.spool(settles)
        answers += [(op, error) for op in self._unsafe if op in settles and op.future is not None]
        deliver(answers)

    def _give_up_waiting(self) -> None:
        error = StoreUnavailable("the gateway is stopping")
        deliver([(operation, error) for operation in self._line])
        self._line = self._line.copy()

    def _checkpoint(self) -> None:
        try:
            self._database.tend(busy=not self._queue.empty())
        except StoreUnavailable as error:
            log.debug("no checkpoint now: %s", error)

    # ---- one transaction

    def _work(
        self, connection: Connection, operations: list[Operation], line: Line, *, careful: bool = False
    ) -> tuple[list[Answer], Line, Batch]:
        books, revision = self._open(connection, operations, line, admit_late=not careful)
        now = self._clock.monotonic()
        settles = [op for op in operations if isinstance(op, SettleOperation)]
        answers: list[Answer] = []
        waiting = [op for op in line if not op.gone]
        newcomers, cancelled = sort_out(operations, waiting, answers)
        if any(operation not in operations for operation in self._unsafe):
            answers += [(hold, StoreUnavailable(SHUT)) for hold in (*waiting, *newcomers)]
            waiting, newcomers = [], []
        look_again = bool(settles or cancelled) or not operations or now - self._looked_at >= LOOK_AGAIN_SECONDS
        batch = Batch(connection, books, epoch=self.epoch, revision=revision)
        candidates = [*waiting, *newcomers] if look_again else newcomers
        settled_ids = [*(op.settlement.call_id for op in settles), *cancelled]
        batch.prepare([op.request for op in candidates], settled_ids, self._own, careful=careful)
        if self._locked is not None and not batch.held_caps(set(settled_ids) - self._own.keys()) <= self._locked:
            # Committed after `touched_caps` had looked for it: others may be at work on those caps.
            raise RuntimeError("a hold came to light after its caps were to be locked")

        for settle in settles:
            try:
                answers.append((settle, batch.settle(settle.settlement)))
            except UserError as error:
                answers.append((settle, error))
        for call_id in cancelled:
            batch.void(call_id, "cancelled")

        still_waiting = line.copy()
        if look_again:
            self._looked_at = now
            for hold in waiting:
                self._try_hold(batch, hold, still_waiting, answers, now, newcomer=False)
        else:
            for hold in waiting:
                self._wait(batch, hold, still_waiting)
        for hold in newcomers:
            self._try_hold(batch, hold, still_waiting, answers, now, newcomer=True)
        batch.flush()
        return answers, still_waiting, batch

    def _open(self, connection: Connection, operations: list[Operation], line: Line, *, admit_late: bool) -> tuple[Books, int]:
        """Begins the batch: locks what it needs, then reads the time, the revision, whether we are alive, and likely balances.

        `admit_late` adds to `operations` what arrived while it waited for its locks.
        """
        shared = connection.engine != "sqlite"
        locked = touched_caps(connection, [*line, *operations], self._own) if shared else set()
        self._locked = locked if shared else None
        queries: list[tuple[str, tuple[object, ...]]] = [(_STATE.format(clock=connection.clock_sql), (self.epoch,))]
        keys = {(cap_id, self._caps[cap_id].start_at(self._last_ms)) for cap_id in locked if cap_id in self._caps}
        if keys:
            queries.append(balances_query(connection, keys))
        (state, *balances) = connection.open_batch(locked, queries)
        revision, alive = int(state[0][0] or 0), state[0][1]
        self._last_ms = connection.now_ms() if state[0][2] is None else state[0][2]
        if not alive:
            # Somebody took us for dead and has booked what we held: nothing that we remember of it holds any more.
            self._own.clear()
            self.epoch, self.lease = renew_epoch(connection, self.lease, self._lease_dir, self._ids)
        if revision != self._caps_revision:
            self._caps, self._caps_revision = {}, revision
        books = Books(connection, self._last_ms, self._caps)
        if balances:
            books.know(keys, balances[0])
        if shared and admit_late:
            # As far as the locks are enough; the rest is for the next batch.
            late: list[Operation] = []
            self._drain(late)
            self._next_batch = late  # all of them, should the connection be lost while their caps are looked up
            fitting = {operation for operation in late if touched_caps(connection, [operation], self._own) <= locked}
            self._next_batch = [operation for operation in late if operation not in fitting]
            operations += [operation for operation in late if operation in fitting]
        return books, revision

    def _try_hold(
        self, batch: Batch, hold: HoldOperation, line: Line, answers: list[Answer], now: float, *, newcomer: bool
    ) -> None:
        waited = max(0.0, now - hold.asked_at)
        waited_ms = 0 if newcomer else round(waited * 1000)
        try:
            result = batch.hold(hold.request, waited_ms)
        except UserError as error:
            answers.append((hold, error))
            return
        if not isinstance(result, Waits):
            answers.append((hold, result))
            return
        hold.needs = result.needs
        if waited >= self._patience(hold.request, result.verdict.blocking) or (newcomer and not line.has_room(hold)):
            refusal: HoldAnswer = batch.refusal(hold.request, result.verdict, held_only=True, waited_ms=waited_ms)
            answers.append((hold, refusal))
            return
        self._wait(batch, hold, line)

    def _patience(self, request: HoldRequest, blocking: tuple[Slot, ...]) -> float:
        # A request that is held is as good as used: only a call that never left gives it back, so nobody waits long for that.
        short = any(slot.stored.unit in (Unit.CONCURRENT, Unit.REQUESTS) for slot in blocking)
        return (self._short_wait_seconds if short else self._hold_wait_seconds) if request.may_wait else 0.0

    @staticmethod
    def _wait(batch: Batch, hold: HoldOperation, line: Line) -> None:
        line.add(hold)
        batch.queue(hold.needs)

    # ---- now and then

    def _maintain(self) -> None:
        if self._unsafe:
            self._rescue()
        if self._is_due("spool", 1.0):
            pending = self._spool.pending()
            if pending:
                self.cycle([SettleOperation(settlement, spooled=True) for settlement in pending])
        if self.lease is None and self._is_due("heartbeat", HEARTBEAT_SECONDS):
            self._guarded(self._beat)
        if self._is_due("recovery", RECOVERY_SECONDS):
            self._guarded(self._recover)
            self._guarded(lambda: book_leftovers(self._database, self._spool_dir))
        if self._is_due("compare", COMPARE_SECONDS) or self._never_left:
            self._guarded(self.compare_with_live)

    def _beat(self) -> None:
        with self._database.write_batch() as connection:
            connection.open_batch((), ())
            server_ms = beat(connection, self.epoch)
        self.pulse.beaten(self._clock.monotonic(), server_ms)

    def _recover(self) -> None:
        if self.lease is None:
            self._beat()  # whether we are in touch is to be known now
            if not self.pulse.may_judge(self._clock.monotonic()):
                return
        recover_dead(self._database, self.epoch, self._lease_dir)

    def _is_due(self, name: str, every_seconds: float) -> bool:
        now = self._clock.monotonic()
        if now < self._due.setdefault(name, now + every_seconds):
            return False
        self._due[name] = now + every_seconds
        return True

    def _rescue(self) -> None:
        """Tries once more to make safe what went neither into the store nor into the spool."""
        self.cycle([*self._unsafe])

    def compare_with_live(self) -> int:
        """Ends open holds of this epoch that no live call owns; returns how many."""
        never_left = self._never_left.copy()
        calls = end_forgotten(self._database, self.epoch, self._live, never_left, self._never_left, in_doubt=self._in_doubt)
        for call in calls:
            self._own.pop(call, None)
        self._never_left -= never_left
        self._in_doubt = False
        return len(calls)

    @staticmethod
    def _guarded(action: Callable[[], object]) -> None:
        try:
            action()
        except (StoreUnavailable, OSError) as error:
            log.debug("put off: %s", error)
