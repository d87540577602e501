"""One simulated world: some processes and people on one database, a clock that is moved, and the auditor beside them."""

import asyncio
import importlib
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from store.clock import Ids
from store.ledger.epochs import beat
from store.ledger.types import CallerLeft
from store.ledger.verify import verify
from tests.simulation.auditor import Auditor, LineRecord, key
from tests.simulation.compare import compare, is_unavailable
from tests.simulation.faults import FaultyDatabase, OpenDatabase, SimulatedClock, SpoolDisk
from tests.simulation.observer import Observer, Seen
from tests.simulation.process import Asked, Ended, FakeProcess
from tests.simulation.records import CallRecord, PostRecord, Violation


class Office:
    """Where people and chores edit the books: a connection of its own, with faults."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.pending: Callable[[], list[PostRecord]] | None = None
        self.began_ms = 0
        self.database = FaultyDatabase(
            world.open_database(world.clock), began=self._began, committed=self._committed, rolled_back=self._rolled_back
        )

    def _began(self) -> None:
        self.pending = None
        self.began_ms = self.world.clock.now_ms()

    def _rolled_back(self) -> None:
        self.pending = None

    def _committed(self) -> None:
        pending, self.pending = self.pending, None
        self.world.observe(pending, self.began_ms)


class World:
    """Everything of one run. `close` ends it."""

    def __init__(self, directory: Path, open_database: OpenDatabase, seed: int) -> None:
        self.directory = directory
        self.open_database = open_database
        self.seed = seed
        self.random = random.Random(f"world {seed}")
        starts = [1_795_431_600_000, 1_792_879_200_000, 1_774_652_400_000, 1_793_498_400_000, 1_775_311_000_000]
        self.clock = SimulatedClock(self.random.choice(starts))
        self.loop = asyncio.new_event_loop()
        self.auditor = Auditor()
        self.log: deque[str] = deque(maxlen=100_000)
        self.processes: list[FakeProcess] = []
        self.made = 0
        self.processes_max = 3
        self.calls_made = 0
        self.doubt: tuple[FakeProcess, Violation] | None = None
        self.disk = SpoolDisk()
        self.before_ms: int | None = None
        self.owners: dict[str, list[str]] = {}
        self.earliest_ms = 0
        """The clock is not set back to before this: a window that was changed since knows nothing of earlier ones."""
        self.ids = Ids(self.clock, random.Random(seed).randbytes)
        self._spool = _module("store.ledger.spool")
        self._os = self._spool.os
        self._spool.os = self.disk
        self.first = open_database(self.clock)
        self.first.migrate()
        self.leases = self.first.engine == "sqlite"
        self.observer = Observer(self.first)
        self.office = Office(self)

    def note(self, text: str) -> None:
        self.log.append(f"{self.clock.seconds - 1000:10.3f} s  {text}")

    def fail(self, check: str, detail: str) -> NoReturn:
        raise Violation(check, detail)

    # ---- processes

    def start_process(self, line: LineRecord) -> FakeProcess:
        """A new process; the caller opens it."""
        self.made += 1
        process = FakeProcess(self, self.made, line)
        self.processes.append(process)
        return process

    def killed(self, process: FakeProcess) -> None:
        """It has died. What its event loop had heard by then is checked all the same."""
        self.pump()
        self.hear(process, dying=True)
        self.auditor.dead_epochs |= process.epochs | {process.writer.epoch}
        process.die()
        self.processes.remove(process)
        self.note(f"process {process.serial} is dead")

    def put_to_sleep(self, process: FakeProcess) -> None:
        """Suspended for so long that others take it for dead."""
        process.asleep = True
        process.lose_lease()
        if self.leases:
            self.auditor.dead_epochs.add(process.writer.epoch)

    def pass_ms(self, ms: int) -> None:
        """Time passes; processes that are awake give their signs of life."""
        self.clock.pass_ms(ms)
        if not self.leases:
            for process in self.processes:
                if not process.asleep and not process.database.away:
                    with self.first.write_batch() as connection:
                        beat(connection, process.writer.epoch)
                    process.writer.pulse.beaten_at, process.writer.pulse.server_ms = self.clock.monotonic(), self.clock.now_ms()

    def pump(self) -> None:
        """Lets every event loop come to rest."""
        for _ in range(4):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    # ---- what becomes durable

    def observe(self, pending: Callable[[], list[PostRecord]] | None, at_ms: int) -> None:
        """A transaction was committed: the model books it, and the rows must be the model's."""
        if self.doubt is None:
            self._observe(pending, at_ms)

    def doubts(self, process: FakeProcess, violation: Violation) -> None:
        """Something is wrong with the books, and answers follow: that a call was let through says more than that a sum is wrong."""
        self.doubt = self.doubt or (process, violation)

    def _observe(self, pending: Callable[[], list[PostRecord]] | None, at_ms: int) -> None:
        auditor = self.auditor
        auditor.carry_rows.clear()
        if pending is not None:
            expected = pending()
            seen = self.observer.look()
            auditor.same_posts(expected, seen.posts)
        else:
            seen = self.observer.look()
            for cap_id in seen.raises_ended:
                auditor.raise_ended(cap_id, at_ms)
            for cap_id, start_ms, _ in seen.carries:
                if start_ms == auditor.caps[cap_id].period(at_ms)[0]:
                    auditor.touch(cap_id, at_ms)
            for row in seen.posts:
                auditor.found(row, at_ms)
        if sorted(auditor.carry_rows) != sorted(seen.carries):
            self.fail("carry-over", f"wanted {sorted(auditor.carry_rows)}, found {sorted(seen.carries)}")
        if seen.revision < auditor.revision:
            self.fail("revision", f"it went back from {auditor.revision} to {seen.revision}")
        auditor.revision, auditor.ended_epochs, auditor.heartbeats = seen.revision, seen.ended, seen.heartbeats
        for row in seen.posts:
            self.note(f"    booked: {row.kind} {row.call_id} {row.cost} {row.amounts}")
        self.check(seen)

    def check(self, seen: Seen) -> None:
        """The caches say what the model adds up."""
        auditor, now_ms = self.auditor, self.clock.now_ms()
        auditor.latest_ms = max(auditor.latest_ms, now_ms)
        gone = {call.id for call in auditor.calls.values() if call.state != "new" and not call.pruned} - seen.holds
        if gone:
            auditor.pruned(gone, self.before_ms if self.before_ms is not None else -1)
        if seen.open_calls != auditor.open_calls():
            self.fail("open holds", f"wanted {sorted(auditor.open_calls())}, found {sorted(seen.open_calls)}")
        for cap in auditor.caps.values():
            start = key(cap.period(now_ms)[0])
            wanted = (cap.used(now_ms), cap.held(now_ms), cap.extra.get(cap.period(now_ms)[0], 0))
            found = seen.balances.get((cap.id, start), (0, 0, 0))
            if wanted != found:
                self.fail("balance", f"(used, held, carried) of {cap.id} are {found}, its rows add up to {wanted}")

    def verify(self) -> None:
        """The ledger's own replay finds nothing."""
        differences = [str(difference) for difference in verify(self.first, self.clock).differences]
        if differences:
            self.fail("verify", "; ".join(differences))

    # ---- what callers hear

    def hear(self, process: FakeProcess, *, dying: bool = False) -> None:
        """Compares every new answer with the model's, and acts on it as a caller would."""
        if self.doubt is None or process.booked:
            self._hear(process, dying=dying)
        if self.doubt is not None and self.doubt[0] is process:
            raise self.doubt[1]

    def _hear(self, process: FakeProcess, *, dying: bool) -> None:
        self.pump()
        process.epochs.add(process.writer.epoch)
        for asked in list(process.asked):
            if asked.task.done():
                process.asked.remove(asked)
                self._hear_hold(process, asked)
            elif asked.expected is not None and not dying:
                self.fail("answered once decided", f"{asked.ask.call.id} was decided ({asked.expected.word}) and hears nothing")
        for ended in list(process.ended):
            self._hear_settlement(process, ended)
        spooled = self.spooled_calls()
        for record in list(process.unsafe):
            if record.call.id in spooled:
                process.unsafe.remove(record)
                record.call.spooled.append(record)

    def _hear_hold(self, process: FakeProcess, asked: Asked) -> None:
        call = asked.ask.call
        heard = _outcome(asked.task)
        if is_unavailable(heard) or isinstance(heard, RuntimeError):
            shut = asked.expected is not None and asked.expected.word == "unavailable"
            if not (process.database.hurt or process.stuck or asked.refused_early or shut):
                self.fail("refused without cause", f"{call.id} heard {heard!r} and nothing was wrong")
            self.note(f"    {call.id}: {heard}")
            if not asked.repeats:
                call.told_to_stay = True
            self.auditor.noted("unavailable")
            return
        if isinstance(heard, CallerLeft) and call.told_to_stay and asked.expected is not None:
            return  # it went away while its answer was on its way
        compare(call.id, asked.expected, heard, waits=asked.ask in process.line.asks)
        word = asked.expected.word if asked.expected is not None else ""
        self.note(f"    {call.id}: {word} {asked.expected.amount if asked.expected else ''}")
        if word == "granted" and not asked.repeats:
            process.flying.append(call)
            call.told_to_stay = False
        elif word == "stale" and not asked.repeats:
            process.stale.append(call)

    def _hear_settlement(self, process: FakeProcess, ended: Ended) -> None:
        call = ended.record.call
        if ended.task is not None and ended.task.done() and not ended.heard:
            ended.heard.append(_outcome(ended.task))
        for heard in ended.heard[ended.judged :]:
            ended.judged += 1
            if is_unavailable(heard):
                if not process.database.hurt:
                    self.fail("refused without cause", f"the settlement of {call.id} heard {heard!r} and nothing was wrong")
                process.unsafe.append(ended.record)
                self.note(f"    {call.id}: its settlement is nowhere safe")
            elif getattr(heard, "spooled", False):
                matters = ended.expected is None and call.state in ("open", "unconfirmed")
                if matters and call.id not in self.spooled_calls():
                    self.fail("spooled and gone", f"{call.id} was told that its settlement is spooled, and no file has it")
                if ended.expected is None:
                    call.spooled.append(ended.record)
                self.note(f"    {call.id}: spooled")
                self.auditor.noted("spooled")
            else:
                compare(f"the settlement of {call.id}", ended.expected, heard)
                self.note(f"    {call.id}: {ended.expected.word if ended.expected else ''}")
        if ended.task is None and ended.expected is not None and ended.expected.word == "unknown":
            ended.judged += 1  # who does not wait is not told of errors
        unsafe = any(operation.settlement is ended.settlement for operation in process.writer._unsafe)
        if unsafe and ended.judged == 0 and ended.record not in process.unsafe:
            process.unsafe.append(ended.record)

    def spooled_calls(self) -> set[str]:
        """Ids of calls with a whole line in some spool file."""
        folder = self.directory / "spool"
        lines = [line for path in folder.glob("*.spool") for line in path.read_bytes().split(b"\n")[:-1]] if folder.is_dir() else []
        return {line.split(b'"call_id":"', 1)[1].split(b'"', 1)[0].decode() for line in lines if b'"call_id":"' in line}

    def new_call_id(self) -> str:
        self.calls_made += 1
        return f"call-{self.calls_made}"

    def add_call(self, call: CallRecord) -> None:
        self.auditor.calls[call.id] = call

    def close(self) -> None:
        self._spool.os = self._os
        for process in list(self.processes):
            process.die()
        self.office.database.close()
        self.first.close()
        self.loop.close()


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _outcome(task: "asyncio.Task[Any]") -> Any:
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()
