"""One fake process: a real ledger without its thread, every turn of which is taken by the simulation."""

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from queue import Empty
from typing import TYPE_CHECKING, Any

from store.clock import Ids
from store.database import Connection
from store.errors import StoreUnavailable
from store.ledger.ledger import Ledger
from store.ledger.line import Line
from store.ledger.operations import CancelOperation, HoldOperation, Operation, SettleOperation
from store.ledger.types import HoldRequest, Settlement
from tests.simulation.auditor import Ask, LineRecord
from tests.simulation.faults import Crash, FaultyDatabase
from tests.simulation.records import CallRecord, Expected, PostRecord, SettleRecord, Violation

if TYPE_CHECKING:
    from tests.simulation.world import World


class Asked:
    """An ask on its way, with what its caller heard."""

    def __init__(self, ask: Ask, request: HoldRequest, task: "asyncio.Task[Any]") -> None:
        self.ask = ask
        self.request = request
        self.task = task
        self.expected: Expected | None = None
        self.repeats = False
        """The call was let through before; this asks once more."""
        self.refused_early = False
        """The front door did not even let it in."""


class Ended:
    """A settlement on its way; `heard` are the answers so far."""

    def __init__(self, record: SettleRecord, settlement: Settlement) -> None:
        self.record = record
        self.settlement = settlement
        self.task: asyncio.Task[Any] | None = None
        self.heard: list[Any] = []
        self.expected: Expected | None = None
        self.judged = 0


class FakeProcess:
    """A ledger, its callers, and the faults that it meets. Made alive; ends with `die`."""

    def __init__(self, world: "World", serial: int, line: LineRecord) -> None:
        self.world = world
        self.serial = serial
        self.alive = True
        self.asleep = False
        self.busy = False
        self.line = line
        self.asked: list[Asked] = []
        self.ended: list[Ended] = []
        self.unsafe: list[SettleRecord] = []
        self.snapshot: tuple[int, dict[str, tuple[str, ...]]] = (0, {})
        self.pending: Callable[[], list[PostRecord]] | None = None
        self.began_ms = 0
        self.booked = True
        """The model could follow the last batch to its end."""
        self.flying: list[CallRecord] = []
        """Calls that were let through and are not settled."""
        self.stale: list[CallRecord] = []
        """Calls to be resolved again."""
        self.stuck = False
        self.ids = Ids(world.clock, random.Random(serial).randbytes)
        self.database = FaultyDatabase(
            world.open_database(world.clock), began=self._began, committed=self._committed, rolled_back=self._rolled_back
        )
        self.ledger = Ledger(
            self.database,  # type: ignore[arg-type]
            clock=world.clock,
            ids=self.ids,
            hold_wait_seconds=line.hold_wait_seconds,
            lease_dir=world.directory / "leases",
            spool_dir=world.directory / "spool",
            line_calls_max=line.calls_max,
            line_bytes_max=line.bytes_max,
        )
        self.ledger._loop = world.loop
        self.writer = self.ledger._writer
        self._work = self.writer._work
        self.writer._work = self._recorded_work  # type: ignore[method-assign]
        self.epochs: set[str] = set()

    def open(self) -> None:
        """What a start does: an epoch, and the books of the dead. Raises StoreUnavailable, Crash."""
        self.writer.open()
        self.epochs.add(self.writer.epoch)

    # ---- callers

    def ask(self, call: CallRecord) -> Asked:
        ask = Ask(call, self.world.clock.monotonic())
        request = HoldRequest(
            call.id,
            call.caps,
            call.bound,
            call.floor,
            call.strict_bound,
            call.strict_floor,
            call.tokens,
            call.trim,
            call.revision,
            waiting_bytes=call.waiting_bytes,
            may_wait=call.may_wait,
        )
        asked = Asked(ask, request, self.world.loop.create_task(self.ledger.hold(request)))
        self.asked.append(asked)
        shut = self.writer.shut
        self.world.pump()
        asked.refused_early = shut and asked.task.done()
        return asked

    def settle(self, record: SettleRecord, *, waits: bool) -> None:
        record = replace(record)
        settlement = Settlement(record.call.id, record.cost, record.tokens, record.sent)
        ended = Ended(record, settlement)
        self.ended.append(ended)
        if waits:
            ended.task = self.world.loop.create_task(self.ledger.settle(settlement))
        else:
            self.ledger.settle_soon(settlement, ended.heard.append)
        self.world.pump()

    def cancel(self, call: CallRecord, *, by_task: bool) -> None:
        """The caller goes away before its call leaves."""
        call.told_to_stay = True
        mine = [asked for asked in self.asked if asked.ask.call is call]
        if by_task and mine:
            for asked in mine:
                asked.ask.gone = True
                asked.task.cancel()
            self.asked = [asked for asked in self.asked if asked not in mine]
        else:
            self.ledger.cancel(call.id)
        self.world.pump()

    # ---- the writer

    def turn(self) -> bool:
        """One turn of the writer: what is queued and waits. False when the process died in it."""
        return self.guarded(lambda: self.writer.cycle(self._queued()))

    def maintain(self) -> bool:
        """What the writer does now and then. False when the process died in it."""
        return self.guarded(self.writer._maintain)

    def guarded(self, action: Callable[[], object]) -> bool:
        """Does something of the writer's and looks at the answers. False when the process died in it."""
        self.database.hurt.clear()
        self.stuck = False
        self.busy = True
        try:
            action()
        except Crash:
            self.world.killed(self)
            return False
        except (StoreUnavailable, RuntimeError):
            if not self.database.hurt:
                raise
        finally:
            self.busy = False
            self.database.at.clear()
            self.writer.busy_since = None
        self.world.hear(self)
        return True

    def answer_for_stuck_writer(self) -> None:
        """What the event loop does while the writer is at one transaction for too long."""
        if self.ledger._is_stuck():
            self.stuck = True
            for asked in self.asked:
                asked.ask.gone = True
            self.ledger._answer_for_stuck_writer()

    def die(self) -> None:
        """What `kill -9` leaves behind."""
        self.alive = False
        for task in (*(a.task for a in self.asked), *(e.task for e in self.ended)):
            if task is not None:
                task.cancel()
        self.world.pump()
        self.lose_lease()
        if self.writer._spool._lock is not None:
            self.writer._spool._lock.close()
            self.writer._spool._lock = None
        self.database.close()

    def lose_lease(self) -> None:
        """What others see of a process that is dead, or was suspended for too long."""
        if self.writer.lease is not None:
            self.writer.lease.abandon()

    # ---- what the recorder sees

    def _queued(self) -> list[Operation]:
        operations: list[Operation] = self.writer._next_batch
        self.writer._next_batch = []
        while True:
            try:
                operation = self.writer._queue.get_nowait()
            except Empty:
                return operations
            if operation is not None:
                operations.append(operation)

    def _recorded_work(self, connection: Connection, operations: list[Operation], line: Line, **options: Any) -> Any:
        at_ms, now = connection.now_ms(), self.world.clock.monotonic()
        shut = any(operation not in operations for operation in self.writer._unsafe)
        gone = {id(asked.ask) for asked in self.asked if asked.ask.gone}
        result = self._work(connection, operations, line, **options)
        own = set(self.writer._own).union(operation.call_id for operation in operations if not isinstance(operation, HoldOperation))
        settles = [self._ended(op) for op in operations if isinstance(op, SettleOperation)]
        cancelled = [op.call_id for op in operations if isinstance(op, CancelOperation)]
        newcomers = self._present([op for op in operations if isinstance(op, HoldOperation)], gone)
        waiting = self._present(line, gone)
        dropped = [asked.ask for asked in waiting if asked.ask.call.id in cancelled]
        for place, operation in enumerate(operations):
            later = {op.call_id for op in operations[place:] if isinstance(op, CancelOperation)}
            dropped += [asked.ask for asked in newcomers if asked.request is _request(operation) and asked.ask.call.id in later]

        for asked in (*newcomers, *waiting):
            asked.ask.known = bool(options.get("careful")) or asked.ask.call.id in own

        def book() -> list[PostRecord]:
            self.line.asks = [asked.ask for asked in waiting]
            booked = [ended.record for ended in settles]
            unsafe = [r for r in self.unsafe if r not in booked and r.call.state in ("open", "unconfirmed")]
            answers, posts = self.world.auditor.batch(
                self.line,
                [ended.record for ended in settles],
                cancelled,
                [asked.ask for asked in newcomers],
                dropped,
                empty=not operations,
                shut=shut,
                at_ms=at_ms,
                now=now,
                epoch=self.writer.epoch,
            )
            self.unsafe = unsafe
            for ended in settles:
                ended.expected = answers.get(id(ended.record))
                if ended.record in ended.record.call.spooled:
                    ended.record.call.spooled.remove(ended.record)
            for asked in (*waiting, *newcomers):
                asked.expected = answers.get(id(asked.ask))
                granted = asked.expected is not None and asked.expected.word == "granted"
                if granted and unsafe:
                    self.world.fail("open in doubt", f"{asked.ask.call.id} was let through while {unsafe[0].call.id} is unsafe")
            self.booked = True
            return posts

        self.booked = False
        self.pending = book
        return result

    def _present(self, operations: Iterable[HoldOperation], gone: set[int]) -> list[Asked]:
        """The asks behind operations, without those whose callers have gone."""
        by_request = {id(asked.request): asked for asked in self.asked}
        found = [by_request.get(id(operation.request)) for operation in operations]
        return [asked for asked in found if asked is not None and id(asked.ask) not in gone]

    def _ended(self, operation: SettleOperation) -> Ended:
        for ended in self.ended:
            if ended.settlement is operation.settlement:
                return ended
        self.world.fail("unknown settlement", f"nobody settled {operation.settlement.call_id} like this")

    def _began(self) -> None:
        self.pending = None
        self.began_ms = self.world.clock.now_ms()

    def _rolled_back(self) -> None:
        self.pending = None

    def _committed(self) -> None:
        pending, self.pending = self.pending, None
        try:
            self.world.observe(pending, self.began_ms)
        except Violation as violation:
            if pending is None:
                raise
            self.world.doubts(self, violation)


def _request(operation: Operation) -> HoldRequest | None:
    return operation.request if isinstance(operation, HoldOperation) else None
