"""The front door of the ledger: hold before a call leaves, settle after it, read what is left."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from store.clock import Clock, Ids
from store.database import Database
from store.errors import StoreUnavailable
from store.ledger.caps import cap_states
from store.ledger.housekeeping import IDLE_SECONDS, Housekeeping
from store.ledger.line import LINE_BYTES_MAX, LINE_CALLS_MAX, Line
from store.ledger.operations import CancelOperation, HoldOperation, SettleOperation, deliver
from store.ledger.rows import MAX_AMOUNT
from store.ledger.spool import SHUT
from store.ledger.types import CallerLeft, CapState, Granted, HoldRequest, Refused, Settled, Settlement, Stale
from store.ledger.writer import Writer

log = logging.getLogger(__name__)

STORE_WAIT_SECONDS = 1.5
"""A writer that has been at one transaction for so long counts as a store that cannot be written: callers are to hear of it within
two seconds, also those who came a moment before."""


class Ledger:
    """Caps, holds and posts of one process on a shared database. Make one per process and `start` it.

    `live` holds the ids of calls that were granted and are not settled. Whoever loses a call for good without settling it takes
    its id out; the hold is then posted as unconfirmed.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        ids: Ids,
        hold_wait_seconds: float = 10.0,
        lease_dir: Path,
        spool_dir: Path,
        line_calls_max: int = LINE_CALLS_MAX,
        line_bytes_max: int = LINE_BYTES_MAX,
        store_wait_seconds: float = STORE_WAIT_SECONDS,
        retention_days: int | None = None,
        audit_days: int | None = None,
    ) -> None:
        self.live: set[str] = set()
        self._database = database
        self._clock = clock
        self._store_wait_seconds = store_wait_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._house = Housekeeping(database, retention_days, audit_days)
        self._asked: set[HoldOperation] = set()
        self._settling: set[SettleOperation] = set()
        self._closed = False
        self._writer = Writer(
            database,
            clock=clock,
            ids=ids,
            hold_wait_seconds=hold_wait_seconds,
            lease_dir=lease_dir,
            spool_dir=spool_dir,
            line=Line(line_calls_max, line_bytes_max),
            live=self.live,
        )

    async def start(self) -> None:
        """Begins an epoch, books what dead processes left, starts the writer. Raises StoreUnavailable, OSError."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._writer.start)
        self._tasks.append(asyncio.create_task(self._watch_writer(), name="ledger-watch"))
        self._tasks.append(asyncio.create_task(self._keep_house(), name="ledger-house"))

    @property
    def epoch(self) -> str:
        """The id of this run: the owner of its holds."""
        return self._writer.epoch

    @property
    def waiting(self) -> int:
        """How many calls stand in line."""
        return self._writer.waiting

    async def hold(self, request: HoldRequest) -> Granted | Refused | Stale:
        """Holds on all caps of the call or on none; durable when this returns `Granted`.

        Waits in line while only other calls' holds are in the way. Raises StoreUnavailable when the ledger cannot be written (the
        call must not leave), NotFound for a cap that never was, Conflict for the id of a settled call, ValueError for bad amounts.
        """
        _check_request(request)
        self._check_open()
        call_id = request.call_id
        operation = HoldOperation(request, asyncio.get_running_loop(), self._clock.monotonic())
        known = operation.repeats = call_id in self.live
        self.live.add(call_id)
        self._asked.add(operation)
        self._writer.submit(operation)
        try:
            answer = await operation.future
        except asyncio.CancelledError:
            operation.gone = True
            if not known:
                self.cancel(call_id)
            raise
        except BaseException:
            if not known:
                self.live.discard(call_id)
            raise
        finally:
            self._asked.discard(operation)
        if isinstance(answer, Granted):
            if call_id not in self.live:
                # Cancelled while it was being committed: it is voided, and what voids it may have been handled before it.
                self.cancel(call_id)
                raise CallerLeft(f"the caller of {call_id} has left")
        elif not known:
            self.live.discard(call_id)
        return answer

    async def settle(self, settlement: Settlement) -> Settled:
        """Posts or voids what the call held, once; a call posted unconfirmed is corrected.

        When the store cannot be written the settlement goes to a synced file and is booked later (`spooled`). Raises
        StoreUnavailable when even that fails (it is kept in memory and nothing new is let through), NotFound for an unknown call,
        ValueError for bad amounts.
        """
        _check_settlement(settlement)
        loop = asyncio.get_running_loop()
        operation = SettleOperation(settlement, loop=loop, future=loop.create_future())
        return await self._settle(operation)

    def settle_soon(self, settlement: Settlement, done: Callable[[Settled], None] | None = None) -> None:
        """Settles without being waited for, from any thread; never raises. `done` is called on the caller's event loop."""
        try:
            _check_settlement(settlement)
            loop = _running_loop() or self._loop
            operation = SettleOperation(settlement, loop=loop, done=done, finished=self._settling.discard)
            self._settling.add(operation)
            if self._closed:
                deliver(self._writer.spool([operation]))
            else:
                self._writer.submit(operation)
        except Exception:
            log.exception("the call %s could not be settled; its hold is posted instead", settlement.call_id)
            self.live.discard(settlement.call_id)

    def cancel(self, call_id: str) -> None:
        """The caller went away before its call left: whatever it holds is voided in the next batch. From any thread."""
        # Said first: between here and the next batch the writer may compare its open holds with the calls that are alive.
        self._writer.never_left(call_id)
        self.live.discard(call_id)
        self._writer.submit(CancelOperation(call_id))

    def states(self, cap_ids: Iterable[str] | None = None) -> tuple[CapState, ...]:
        """The caps and their sums now, read from the database: not for an event loop. Raises StoreUnavailable."""
        wanted = None if cap_ids is None else list(cap_ids)
        with self._database.read() as connection:
            return tuple(cap_states(connection, connection.now_ms(), wanted))

    async def cap_states(self, cap_ids: Sequence[str] | None = None) -> tuple[CapState, ...]:
        """As `states`, on another thread."""
        return await asyncio.to_thread(self.states, cap_ids)

    async def drain(self, timeout_seconds: float) -> bool:
        """Waits until everything handed in is answered; False when the time was up first."""
        deadline = self._clock.monotonic() + timeout_seconds
        while not (self._writer.idle and not self._settling and not self._asked):
            if self._clock.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    async def close(self) -> None:
        """Writes what is queued, stops the writer and ends the epoch. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._writer.stop)

    # ---- inside

    async def _settle(self, operation: SettleOperation) -> Settled:
        future = operation.future
        if future is None:
            raise ValueError("this settlement is not waited for")
        if self._closed:
            answers = self._writer.spool([operation])
            if not answers:
                raise StoreUnavailable("the ledger is closed and the settlement could not be kept")
            return Settled(operation.settlement.call_id, (), spooled=True)
        self._settling.add(operation)
        self._writer.submit(operation)
        try:
            # A caller that stops waiting cancels this future and nothing else: the settlement is on its way.
            return await future
        finally:
            self._settling.discard(operation)

    def _check_open(self) -> None:
        if self._closed or self._loop is None:
            raise StoreUnavailable("the ledger is not open")
        if self._writer.shut:
            raise StoreUnavailable(SHUT)
        if self._is_stuck():
            raise StoreUnavailable("the ledger's database does not answer")

    def _is_stuck(self) -> bool:
        busy_since = self._writer.busy_since
        return busy_since is not None and self._clock.monotonic() - busy_since > self._store_wait_seconds

    async def _watch_writer(self) -> None:
        """Answers callers while the writer is stuck in one transaction, for instance behind a suspended process."""
        while True:
            await asyncio.sleep(min(0.2, self._store_wait_seconds / 4))
            if self._is_stuck():
                self._answer_for_stuck_writer()

    async def _keep_house(self) -> None:
        """Notes ends of raises, seals and prunes: beside the writer, in steps that nobody waits long for."""
        pause = IDLE_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = IDLE_SECONDS
            try:
                pause = await asyncio.to_thread(self._house.step)
            except StoreUnavailable as error:
                log.debug("put off: %s", error)
            except Exception:
                log.exception("the ledger's housekeeping met something unexpected and goes on")

    def _answer_for_stuck_writer(self) -> None:
        for operation in list(self._asked):
            if not operation.future.done():
                operation.gone = True
                if not operation.repeats:
                    self._writer.never_left(operation.request.call_id)
                    self._writer.submit(CancelOperation(operation.request.call_id))
                operation.future.set_exception(StoreUnavailable("the ledger's database does not answer"))
        waiting = [op for op in self._settling if not op.spooled and (op.future is None or not op.future.done())]
        deliver(self._writer.spool(waiting))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _check_request(request: HoldRequest) -> None:
    amounts = (
        request.bound_nanos,
        request.floor_nanos,
        request.strict_bound_nanos,
        request.strict_floor_nanos,
        request.tokens,
        request.waiting_bytes,
    )
    if not request.call_id:
        raise ValueError("a call needs an id")
    if min(amounts) < 0 or max(amounts) > MAX_AMOUNT:
        raise ValueError(f"an amount of the call {request.call_id!r} is negative or more than the ledger can hold")


def _check_settlement(settlement: Settlement) -> None:
    amounts = (settlement.cost_nanos, settlement.tokens, settlement.input_tokens, settlement.output_tokens)
    if min(amounts) < 0 or max(amounts) > MAX_AMOUNT:
        raise ValueError(f"an amount of the settlement of {settlement.call_id!r} is negative or more than the ledger can hold")
