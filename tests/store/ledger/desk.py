"""A ledger without a thread: one fake process whose every step is taken by the test, on a clock that the test moves."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store.clock import Ids
from store.database import governance_revision
from store.ledger.caps import cap_states, put_cap
from store.ledger.line import Line
from store.ledger.operations import CancelOperation, HoldOperation, Operation, SettleOperation
from store.ledger.types import Cap, CapState, Enforcement, HoldRequest, Scope, Settlement, Unit
from store.ledger.verify import verify
from store.ledger.writer import Writer
from store.sqlite import SqliteDatabase

START_MS = 1_795_431_600_000  # 2026-11-23T11:00:00Z


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self, at_ms: int = START_MS) -> None:
        self.at_ms = at_ms
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.seconds

    def pass_ms(self, ms: int) -> None:
        self.at_ms += ms
        self.seconds += ms / 1000


class Box:
    """A future that is read at once."""

    def __init__(self) -> None:
        self.value: Any = None

    def done(self) -> bool:
        return self.value is not None

    def set_result(self, value: object) -> None:
        self.value = value

    def set_exception(self, value: Exception) -> None:
        self.value = value


class NowLoop:
    """An event loop that calls at once."""

    def create_future(self) -> Box:
        return Box()

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        callback(*args)


LOOP: Any = NowLoop()


class Desk:
    """One process's ledger, driven by hand."""

    def __init__(
        self,
        directory: Path,
        clock: HandClock | None = None,
        *,
        seed: int = 0,
        hold_wait_seconds: float = 10.0,
        calls_max: int = 1000,
        bytes_max: int = 2**30,
    ) -> None:
        self.clock = clock or HandClock()
        self.directory = directory
        self.database = SqliteDatabase.open(directory / "config.db", clock=self.clock)
        self.database.migrate()
        self.ids = Ids(self.clock, random.Random(seed).randbytes)
        self.live: set[str] = set()
        self.writer = Writer(
            self.database,
            clock=self.clock,
            ids=self.ids,
            hold_wait_seconds=hold_wait_seconds,
            lease_dir=directory / "leases",
            spool_dir=directory / "spool",
            line=Line(calls_max, bytes_max),
            live=self.live,
        )
        self.writer.open()

    def cap(self, cap_id: str, limit: int, unit: Unit = Unit.USD, window: str | None = "1h", **fields: Any) -> Cap:
        """Creates or changes a cap."""
        enforcement = fields.pop("enforcement", Enforcement.HARD)
        cap = Cap(cap_id, cap_id, Scope.VIRTUAL_KEY, "vk", "vk", unit, limit, window, enforcement=enforcement, **fields)
        with self.database.write() as connection:
            return put_cap(connection, cap)

    @property
    def revision(self) -> int:
        with self.database.read() as connection:
            return governance_revision(connection)

    def ask(self, call_id: str, caps: str, bound: int = 0, floor: int | None = None, **fields: Any) -> HoldOperation:
        """A hold that is not handed in yet. `caps` are ids separated by spaces."""
        revision = fields.pop("revision", None)
        request = HoldRequest(
            call_id,
            tuple(caps.split()),
            bound,
            bound if floor is None else floor,
            revision=self.revision if revision is None else revision,
            **fields,
        )
        self.live.add(call_id)
        return HoldOperation(request, LOOP, self.clock.monotonic())

    def hold(self, call_id: str, caps: str, bound: int = 0, floor: int | None = None, **fields: Any) -> Any:
        """Asks for a hold; returns the answer, or None when the call waits (see `answer`)."""
        operation = self.ask(call_id, caps, bound, floor, **fields)
        self.step(operation)
        return operation.future.value

    def settle(self, call_id: str, cost: int = 0, tokens: int = 0, *, sent: bool = True, **fields: Any) -> Any:
        """Settles; returns the answer or the exception."""
        box: Any = Box()
        self.step(SettleOperation(Settlement(call_id, cost, tokens, sent, **fields), loop=LOOP, future=box))
        return box.value

    def cancel(self, call_id: str) -> None:
        self.live.discard(call_id)
        self.step(CancelOperation(call_id))

    def step(self, *operations: Operation) -> None:
        """One batch."""
        self.writer.cycle(list(operations))

    def look_again(self) -> None:
        """What waiting calls do every 50 ms."""
        self.clock.pass_ms(50)
        self.step()

    def state(self, cap_id: str) -> CapState:
        with self.database.read() as connection:
            return cap_states(connection, self.clock.now_ms(), [cap_id])[0]

    def sums(self, cap_id: str) -> tuple[int, int]:
        """(used, held) of the current window."""
        state = self.state(cap_id)
        return state.used, state.held

    def differences(self) -> list[str]:
        return [str(difference) for difference in verify(self.database, self.clock).differences]

    def die(self) -> None:
        """What `kill -9` leaves: the lease is lifted, nothing else happens."""
        if self.writer.lease is not None:
            self.writer.lease.abandon()
            self.writer.lease = None
        self.writer._spool._lock and self.writer._spool._lock.close()
        self.database.close()

    def close(self) -> None:
        self.writer._end()
        self.database.close()
