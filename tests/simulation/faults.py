"""What can go wrong around a transaction, injected where a database is opened and where the spool file is written."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import Any, Protocol

from store.clock import Clock
from store.database import Connection, Database
from store.errors import StoreUnavailable


class Crash(BaseException):
    """The process dies at this point: nothing after it happens."""


class Fault(Enum):
    """One thing that goes wrong in one transaction."""

    UNAVAILABLE = "the store does not answer"
    BREAKS = "an exception inside the transaction"
    FULL = "the commit fails and nothing is written"
    LOST = "the commit succeeds and its answer is lost"
    DIES_BEFORE = "the process dies before the commit"
    DIES_AFTER = "the process dies after the commit"


class Moment(Enum):
    """Points of a transaction at which time may pass and others may act."""

    BEFORE_READ = "before a look"
    BEFORE_LOCK = "before the lock"
    BEFORE_COMMIT = "before the commit"
    AFTER_COMMIT = "after the commit"


class SimulatedClock:
    """Wall time and running time, moved by hand and apart from each other."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.seconds

    def pass_ms(self, ms: int) -> None:
        self.at_ms += ms
        self.seconds += ms / 1000

    def jump_ms(self, ms: int) -> None:
        """The wall clock is set; no time passes."""
        self.at_ms += ms


class OpenDatabase(Protocol):
    """Opens one more connection to the world's database, whatever the engine."""

    def __call__(self, clock: Clock) -> Database: ...


class FaultyDatabase:
    """A database whose transactions go wrong on order. Everything else is the real one's."""

    def __init__(
        self,
        database: Database,
        *,
        began: Callable[[], None],
        committed: Callable[[], None],
        rolled_back: Callable[[], None],
    ) -> None:
        self._database = database
        self._began = began
        self._committed = committed
        self._rolled_back = rolled_back
        self.faults: deque[Fault | None] = deque()
        """What goes wrong in the next transactions, one each; without one they go well."""
        self.away = False
        """True while the store is unavailable for reading and writing."""
        self.at: dict[Moment, Callable[[], None]] = {}
        """What happens at a moment of the next transaction, once."""
        self.hurt: list[Fault] = []
        """What went wrong since this list was emptied."""
        self.transactions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def write(self, **options: Any) -> AbstractContextManager[Connection]:
        return self._faulty(lambda: self._database.write(**options))

    def write_batch(self) -> AbstractContextManager[Connection]:
        return self._faulty(self._database.write_batch)

    def read(self) -> AbstractContextManager[Connection]:
        if self.away:
            self.hurt.append(Fault.UNAVAILABLE)
            raise StoreUnavailable("simulated: the store is away")
        self._moment(Moment.BEFORE_READ)
        return self._database.read()

    def tend(self, *, busy: bool) -> None:
        if self.away:
            raise StoreUnavailable("simulated: the store is away")
        self._database.tend(busy=busy)

    @contextmanager
    def _faulty(self, begin: Callable[[], AbstractContextManager[Connection]]) -> Iterator[Connection]:
        fault = self.faults.popleft() if self.faults else None
        if self.away:
            fault = Fault.UNAVAILABLE
        self.transactions += 1
        self._moment(Moment.BEFORE_LOCK)
        if fault is not None:
            self.hurt.append(fault)
        if fault is Fault.UNAVAILABLE:
            raise StoreUnavailable("simulated: the store is away")
        try:
            with begin() as connection:
                self._began()
                yield connection
                self._moment(Moment.BEFORE_COMMIT)
                if fault is Fault.BREAKS:
                    raise RuntimeError("simulated: a fault inside the transaction")
                if fault is Fault.FULL:
                    raise StoreUnavailable("simulated: the disk is full")
                if fault is Fault.DIES_BEFORE:
                    raise Crash
        except BaseException:
            self._rolled_back()
            raise
        self._committed()
        self._moment(Moment.AFTER_COMMIT)
        if fault is Fault.LOST:
            raise StoreUnavailable("simulated: the answer to the commit was lost")
        if fault is Fault.DIES_AFTER:
            raise Crash

    def _moment(self, moment: Moment) -> None:
        action = self.at.pop(moment, None)
        if action is not None:
            action()


class SpoolDisk:
    """Stands in for `os` in the spool: its writes can stop half way, and its syncs can fail."""

    def __init__(self) -> None:
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: "memoryview[int]") -> int:
        if self.full and len(data) < 20:
            raise OSError(28, "simulated: no space left")
        return os.write(fd, data[: len(data) // 2] if self.full else data)

    def fsync(self, fd: int) -> None:
        if self.full:
            raise OSError(28, "simulated: no space left")
        # Nothing is synced: within one machine's run a written file is as good as a synced one.
