"""Tells open pages that something has moved: one look at the stores a second for all of them, and none while nobody watches.

A page is told *that* governance, ledger or logs have moved, not what: it reads again what it shows. So nothing can pile up for a
slow page: a newer message takes the place of one that was not sent yet.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from store.clock import Clock, iso_utc
from store.errors import StoreUnavailable
from store.markers import Markers

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
MAX_VIEWERS = 100
_FAULT = "the console failed to look at its stores; its log says why"


class TooManyViewers(Exception):
    """As many pages as may watch are watching."""


class Viewer:
    """One page that watches. `next` waits for what it is to be told; only the newest message is kept."""

    def __init__(self) -> None:
        self._message: bytes | None = None
        self._stirred = asyncio.Event()
        self.is_over = False
        """The page has gone, or the console stops."""

    def tell(self, message: bytes) -> None:
        """Puts a message in the place of the one that waits."""
        self._message = message
        self._stirred.set()

    def end(self) -> None:
        """Wakes whoever waits in `next`."""
        self.is_over = True
        self._stirred.set()

    async def next(self, within_seconds: float) -> bytes | None:
        """The next message; None when there is none in this time, or the watching is over."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._stirred.wait()
        except TimeoutError:
            return None
        self._stirred.clear()
        message, self._message = self._message, None
        return message


class Live:
    """Looks at the stores while somebody watches. Used from the event loop; `look` runs on a thread of `executor`."""

    def __init__(
        self,
        look: Callable[[], Markers],
        executor: Executor,
        clock: Clock,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        max_viewers: int = MAX_VIEWERS,
    ) -> None:
        self._look = look
        self._executor = executor
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._max_viewers = max_viewers
        self._viewers: set[Viewer] = set()
        self._seen: Markers | str | None = None
        """The marks, or the words of the trouble, that viewers were told last."""
        self._newest: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """How many pages watch."""
        return len(self._viewers)

    @property
    def is_looking(self) -> bool:
        """Whether the stores are looked at."""
        return self._task is not None

    def join(self) -> Viewer:
        """A page begins to watch; it is told at once how things stand. Raises TooManyViewers."""
        if len(self._viewers) >= self._max_viewers:
            raise TooManyViewers
        viewer = Viewer()
        self._viewers.add(viewer)
        if self._newest is not None:
            viewer.tell(self._newest)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="live events")
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """A page watches no more; with the last one the looking ends."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._rest()

    def close(self) -> None:
        """Ends every viewer, because the console stops."""
        for viewer in self._viewers:
            viewer.end()
        self._rest()

    def _rest(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task, self._seen, self._newest = None, None, None

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            seen: Markers | str
            try:
                seen = await loop.run_in_executor(self._executor, self._look)
            except StoreUnavailable as fault:
                seen = str(fault)
            except Exception:
                log.exception("live events: the stores could not be looked at")
                seen = _FAULT
            if seen != self._seen:
                self._seen, self._newest = seen, self._message(seen)
                for viewer in self._viewers:
                    viewer.tell(self._newest)
            await asyncio.sleep(self._interval_seconds)

    def _message(self, seen: Markers | str) -> bytes:
        if isinstance(seen, str):
            return event("trouble", {"message": seen})
        at = iso_utc(self._clock.now_ms())
        return event("moved", {"config": seen.config, "ledger": seen.ledger, "calls": seen.calls, "at": at})


def event(name: str, data: dict[str, object]) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2); JSON has no line break outside of strings, and none inside."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
