"""What callers hand to the writer thread, and how their answers come back to their event loops."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from store.ledger.types import CallerLeft, Granted, HoldRequest, Refused, Settled, Settlement, Stale

log = logging.getLogger(__name__)

HoldAnswer = Granted | Refused | Stale


class HoldOperation:
    """A hold on its way. `gone` says that its caller has left; `needs` is its place in the line.

    `repeats`: the call is known to have been asked for before, so a failure of this ask says nothing of whether it left.
    """

    __slots__ = ("asked_at", "future", "gone", "loop", "needs", "repeats", "request")

    def __init__(self, request: HoldRequest, loop: asyncio.AbstractEventLoop, asked_at: float) -> None:
        self.request = request
        self.loop = loop
        self.future: asyncio.Future[HoldAnswer] = loop.create_future()
        self.asked_at = asked_at
        self.gone = False
        self.repeats = False
        self.needs: tuple[tuple[str, int], ...] = ()

    @property
    def call_id(self) -> str:
        return self.request.call_id


class SettleOperation:
    """A settlement on its way. `spooled` says that it is safe in the spool file already."""

    __slots__ = ("done", "finished", "future", "loop", "settlement", "spooled")

    def __init__(
        self,
        settlement: Settlement,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        future: "asyncio.Future[Settled] | None" = None,
        done: Callable[[Settled], None] | None = None,
        finished: Callable[["SettleOperation"], None] | None = None,
        spooled: bool = False,
    ) -> None:
        self.settlement = settlement
        self.loop = loop
        self.future = future
        self.done = done
        self.finished = finished
        self.spooled = spooled

    @property
    def call_id(self) -> str:
        return self.settlement.call_id


class CancelOperation:
    """The caller of this hold has gone: what it holds, or would hold, is given back."""

    __slots__ = ("call_id",)

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id


Operation = HoldOperation | SettleOperation | CancelOperation


def is_patient(operation: Operation) -> bool:
    """Whether nobody waits for its answer."""
    return isinstance(operation, SettleOperation) and operation.future is None


Answer = tuple[HoldOperation | SettleOperation, HoldAnswer | Settled | Exception]


def sort_out(
    operations: list[Operation], waiting: list[HoldOperation], answers: list[Answer]
) -> tuple[list[HoldOperation], set[str]]:
    """The new holds, and the ids of the cancelled ones; holds asked for before their cancellation are answered with it."""
    newcomers: list[HoldOperation] = []
    cancelled: set[str] = set()
    for operation in operations:
        if isinstance(operation, HoldOperation):
            if not operation.gone:
                newcomers.append(operation)
        elif isinstance(operation, CancelOperation):
            call_id = operation.call_id
            cancelled.add(call_id)
            for holds in (waiting, newcomers):
                left = [hold for hold in holds if hold.request.call_id == call_id]
                if left:
                    answers += [(hold, CallerLeft(f"the caller of {call_id} has left")) for hold in left]
                    holds[:] = [hold for hold in holds if hold.request.call_id != call_id]
    return newcomers, cancelled


def deliver(answers: Iterable[Answer]) -> None:
    """Brings answers to their event loops, with one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer[0].loop, []).append(answer)
    for loop, batch in by_loop.items():
        if loop is None:
            _resolve(batch)
            continue
        try:
            loop.call_soon_threadsafe(_resolve, batch)
        except RuntimeError:
            log.debug("an event loop was closed before %d answers of the ledger", len(batch))


def _resolve(answers: list[Answer]) -> None:
    for operation, value in answers:
        future = operation.future
        if future is not None and not future.done():
            if isinstance(value, Exception):
                future.set_exception(value)
            else:
                future.set_result(value)  # type: ignore[arg-type]
        elif isinstance(operation, SettleOperation):
            _call_done(operation, value)


def _call_done(operation: SettleOperation, value: object) -> None:
    if operation.finished is not None:
        operation.finished(operation)
    if isinstance(value, Exception):
        log.warning("the call %s could not be settled: %s", operation.settlement.call_id, value)
    elif operation.done is not None and isinstance(value, Settled):
        try:
            operation.done(value)
        except Exception:
            log.exception("what follows the settlement of %s failed", operation.settlement.call_id)
