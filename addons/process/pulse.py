"""When a silent child counts as wedged, and how long one that keeps dying waits: plain arithmetic on times handed in."""

from collections.abc import Callable
from dataclasses import dataclass, field

PING_SECONDS = 1.0
"""Between an answer and the next question."""
SILENCE_SECONDS = 10.0
"""A child that has not answered for so long does not turn its event loop any more."""
READY_SECONDS = 60.0
"""What a child may take from its start until it serves."""
LONGEST_STEP_SECONDS = 2.0
"""Several times what the supervisor sleeps at most. More time between two looks means that it was not running itself."""
RESTART_PAUSE_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Between restarts of a child that keeps dying."""
STABLE_SECONDS = 30.0
"""Whoever ran for so long is not one that keeps dying."""


@dataclass(slots=True)
class AwakeClock:
    """Counts the time in which this process ran.

    A laptop that sleeps, a frozen container or Ctrl-Z stops everybody at once. Were that time counted, a supervisor that wakes
    first would find all of its children silent and kill them.
    """

    monotonic: Callable[[], float]
    """Seconds, as `time.monotonic`."""
    now: float = 0.0
    """Seconds this process was awake; moved on by `tick`."""
    _last: float | None = None

    def tick(self) -> float:
        """Look at the clock again; returns the new `now`. Call it once in every turn of the loop."""
        read = self.monotonic()
        if self._last is not None:
            self.now += min(max(0.0, read - self._last), LONGEST_STEP_SECONDS)
        self._last = read
        return self.now


@dataclass(slots=True)
class Pulse:
    """The questions to one child: one at a time, the next one a while after the answer."""

    asked_at: float | None = None
    """When the open question was put; None while there is none."""
    number: int = 0
    """Of the last question."""
    _next_at: float = 0.0

    def due(self, now: float) -> int | None:
        """The number of the question to put now, if it is time for one."""
        if self.asked_at is not None or now < self._next_at:
            return None
        self.number += 1
        self.asked_at = now
        return self.number

    def answered(self, number: int, now: float) -> None:
        """An answer came; one to an older question says nothing."""
        if self.asked_at is not None and number == self.number:
            self.asked_at = None
            self._next_at = now + PING_SECONDS

    def is_silent(self, now: float) -> bool:
        """Whether an answer has been owed for too long."""
        return self.asked_at is not None and now - self.asked_at >= SILENCE_SECONDS


@dataclass(slots=True)
class Backoff:
    """How a place whose child died is filled again: at once the first time, then after growing pauses."""

    failures: int = field(default=0)
    """Deaths in a row, each after a short life."""

    def died(self, lived_seconds: float) -> float:
        """Seconds to wait before the next start."""
        self.failures = 1 if lived_seconds > STABLE_SECONDS else self.failures + 1
        return RESTART_PAUSE_SECONDS[min(self.failures, len(RESTART_PAUSE_SECONDS)) - 1]
