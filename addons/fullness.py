"""How full the caps of a call are, for routing rules that ask: read beside the road while some rule does, never on it."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from addons.complaints import Complaints
from store.errors import StoreUnavailable
from store.ledger.levels import Levels
from store.ledger.types import Cap, Enforcement, Unit

logger = logging.getLogger(__name__)

EVERY_SECONDS = 0.4


class Fullness:
    """Keeps `Levels` fresh while `wanted` says that some rule asks for them. Without levels nothing is known."""

    def __init__(
        self, levels: Levels | None = None, wanted: Callable[[], bool] = lambda: False, every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._levels = levels
        self._wanted = wanted
        self._every_seconds = every_seconds
        self._task: asyncio.Task[None] | None = None

    def percent(self, caps: Iterable[Cap], unit: Unit) -> float | None:
        """How full the fullest of the hard caps in this unit is, 0 to 100; 0 without any, None when it is not known."""
        known = self._levels.current if self._levels is not None else {}
        fullest = 0.0
        for cap in caps:
            if cap.unit is unit and cap.enforcement is Enforcement.HARD:
                level = known.get(cap.id)
                if level is None:
                    return None
                fullest = max(fullest, level.percent)
        return fullest

    async def start(self) -> None:
        """Read for the first time, where it is wanted, and go on in a task."""
        if self._levels is not None:
            await self._read(self._levels, Complaints(logger, asyncio.get_running_loop().time))
            self._task = asyncio.create_task(self._run(self._levels), name="fullness of caps")

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, levels: Levels) -> None:
        complaints = Complaints(logger, asyncio.get_running_loop().time)
        while True:
            await asyncio.sleep(self._every_seconds)
            await self._read(levels, complaints)

    async def _read(self, levels: Levels, complaints: Complaints) -> None:
        if not self._wanted():
            levels.forget()
            return
        try:
            await asyncio.to_thread(levels.read)
        except StoreUnavailable as fault:
            complaints.tell("how full caps are cannot be read, routing rules use what was read last", fault)
        except Exception:
            logger.exception("how full caps are could not be read, and is tried again")
