"""Keeps the current governance snapshot fresh: built in a thread beside the road, swapped in one step."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from store.config_store.secret_file import fingerprint
from store.config_store.snapshot import Snapshot
from store.errors import StoreUnavailable, UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
Files = tuple[tuple[Path, tuple[int, ...] | None], ...]
LOOK_PAUSE_SECONDS = 0.02
"""Between looks on behalf of unknown keys: garbage must not turn into a stream of database reads."""


class SnapshotKeeper:
    """`current` is what calls are decided by. A poll notices edits of other processes within half a second; `watch`, where the
    database can tell of them, within milliseconds. `load` is given the snapshot to go on from; None: read everything."""

    def __init__(
        self,
        load: Callable[[Snapshot | None], Snapshot],
        revision: Callable[[], int],
        first: Snapshot,
        watch: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._load = load
        self._revision = revision
        self._current = first
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None
        self._watch = watch
        self._told = asyncio.Event()
        self.on_new: Callable[[Snapshot], None] = lambda snapshot: None
        """Told of each new snapshot, on the loop; must be quick and must not raise."""

    @property
    def current(self) -> Snapshot:
        return self._current

    async def refresh(self, revision: int) -> None:
        """Returns once the snapshot is at `revision` or later. Raises StoreUnavailable when the store cannot be read."""
        while self._current.revision < revision:
            async with self._lock:
                if self._current.revision < revision:
                    self._current = await asyncio.to_thread(self._load, self._current)
                    self.on_new(self._current)

    async def look(self) -> bool:
        """Ask the store now whether there is something newer; True when `current` has changed. Never raises.

        For a key that is not known (yet): it may have been made a moment ago in another process. Callers at the same time
        share one look.
        """
        before = self._current.revision
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._look_once(), name="look for a new snapshot")
        # Shielded: a caller that goes away must not end the look for the others.
        await asyncio.shield(self._look)
        return self._current.revision != before

    async def _look_once(self) -> None:
        await asyncio.sleep(LOOK_PAUSE_SECONDS)
        try:
            await self.refresh(await asyncio.to_thread(self._revision))
        except (StoreUnavailable, UserError) as fault:
            logger.warning("the configuration cannot be read, the last one stays in force: %s", fault)

    def start(self) -> None:
        """Begin to poll; needs a running loop."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._poll(), name="snapshot poll")
        if self._watch is not None:
            self._watch(lambda: self._tell(loop))

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop may be closed: nobody wants to know any more
            loop.call_soon_threadsafe(self._told.set)

    async def close(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow_files(self) -> None:
        """Read again when a file that holds a secret was written or replaced."""
        files = self._current.secret_files
        changed: bool = bool(files) and await asyncio.to_thread(_differ, files)
        if changed:
            async with self._lock:
                before, self._current = self._current, await asyncio.to_thread(self._load, None)
                self.on_new(self._current)
            logger.info("a file that holds a secret has changed and was read again")
            for sentence in self._current.unusable:
                if sentence not in before.unusable:
                    logger.warning("%s", sentence)

    async def _poll(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), POLL_SECONDS)
            self._told.clear()
            try:
                await self.refresh(await asyncio.to_thread(self._revision))
                await self._follow_files()
            except (StoreUnavailable, UserError) as fault:
                logger.warning("the configuration cannot be read, the last one stays in force: %s", fault)
            except Exception:
                # Whatever it was: a worker that stops looking would go by old permissions for ever.
                logger.exception("the configuration could not be read, the last one stays in force; it is tried again")


def _differ(files: Files) -> bool:
    return any(fingerprint(path) != known for path, known in files)
