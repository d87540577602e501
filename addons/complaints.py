"""One line instead of a flood: a fault that meets every call is told at once, and then now and then with how many it met."""

import logging
from collections.abc import Callable

EVERY_SECONDS = 10.0


class Complaints:
    """Tells of one kind of fault. `now` is a steady clock in seconds."""

    def __init__(self, logger: logging.Logger, now: Callable[[], float], every_seconds: float = EVERY_SECONDS) -> None:
        self._logger = logger
        self._now = now
        self._every_seconds = every_seconds
        self._quiet_until = float("-inf")
        self._untold = 0

    def tell(self, what: str, reason: object) -> None:
        """`what: reason`, at most once in `every_seconds`, with the number of times it was not told."""
        now = self._now()
        if now < self._quiet_until:
            self._untold += 1
            return
        more = f" ({self._untold} more such calls since the last such line)" if self._untold else ""
        self._logger.error("%s: %s%s", what, reason, more)
        self._quiet_until, self._untold = now + self._every_seconds, 0
