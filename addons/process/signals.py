"""What signals ask of the supervisor. They wake its selector through a pipe, so that no wait is longer than it must be."""

import os
import selectors
import signal
import time
from collections.abc import Callable
from types import FrameType

AGAIN_SECONDS = 1.0
"""Signals for the end that come closer together are one: launchers such as `uv run` pass on what the whole group was sent."""


class Signals:
    """SIGTERM and SIGINT ask for the end, and again for a quicker one; SIGHUP asks for a reload.

    A hang-up of the terminal sends SIGHUP as well. Whoever closes the window of a gateway means its end, so it counts as that,
    unless the gateway was started under `nohup`.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last_stop: float | None = None
        self.stops = 0
        """How often the end was asked for."""
        self.reload_wanted = False
        self._survives_hangup = False
        self._had_terminal = False

    def catch(self, selector: selectors.BaseSelector) -> None:
        """From now on; the selector returns at once when a signal comes. Its entry has no data."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        signal.set_wakeup_fd(writer)
        selector.register(reader, selectors.EVENT_READ, None)
        for name in ("SIGTERM", "SIGINT"):
            signal.signal(getattr(signal, name), self._stop)
        if hasattr(signal, "SIGHUP"):
            self._survives_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            self._had_terminal = has_terminal()
            signal.signal(signal.SIGHUP, self._hang_up)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        now = self._monotonic()
        if self._last_stop is None or now - self._last_stop >= AGAIN_SECONDS:
            self._last_stop = now
            self.stops += 1

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._had_terminal and not self._survives_hangup and not has_terminal():
            self._stop(number, frame)
        else:
            self.reload_wanted = True


def has_terminal() -> bool:
    """Whether this process's session has a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
