"""Keeps the current governance snapshot fresh: built in a thread beside the road, swapped in one step."""

import asyncio
import logging
from collections.abc import Callable

from store.config_store.snapshot import Snapshot
from store.errors import StoreUnavailable, UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class SnapshotKeeper:
    """`current` is what calls are decided by. A poll notices edits of other processes within half a second."""

    def __init__(self, load: Callable[[], Snapshot], revision: Callable[[], int], first: Snapshot) -> None:
        self._load = load
        self._revision = revision
        self._current = first
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> Snapshot:
        return self._current

    async def refresh(self, revision: int) -> None:
        """Returns once the snapshot is at `revision` or later. Raises StoreUnavailable when the store cannot be read."""
        while self._current.revision < revision:
            async with self._lock:
                if self._current.revision < revision:
                    self._current = await asyncio.to_thread(self._load)

    def start(self) -> None:
        """Begin to poll; needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._poll(), name="snapshot poll")

    async def close(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.refresh(await asyncio.to_thread(self._revision))
            except (StoreUnavailable, UserError) as fault:
                logger.warning("the configuration cannot be read, the last one stays in force: %s", fault)
