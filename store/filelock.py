"""Locks that hold between threads and between processes, and that the operating system lifts when their owner dies."""

import os
import sys
import threading
import time
from collections import deque
from pathlib import Path

_POLL_SECONDS = 0.001

if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _lock(fd: int) -> None:
        while not _try_lock(fd):
            time.sleep(_POLL_SECONDS)

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


class FairLock:
    """A mutex between threads that is handed over in the order of asking."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def acquire(self, timeout_seconds: float | None = None) -> bool:
        """True once held; False when the time is up first. None waits for as long as it takes."""
        with self._mutex:
            if not self._held:
                self._held = True
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        if gate.acquire(timeout=-1 if timeout_seconds is None else max(0.0, timeout_seconds)):
            return True
        with self._mutex:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return False
        return True  # handed over in the very moment the time was up

    def release(self) -> None:
        """Hands the lock to whoever has waited longest."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class FileLock:
    """An exclusive lock on a file, for one owner: use `FairLock` in front of it when threads share it.

    It belongs to this object, not to the process: a second FileLock on the same path in the same process has to wait as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def try_acquire(self) -> bool:
        """True when the lock is ours now."""
        return _try_lock(self._open_fd())

    def acquire(self, timeout_seconds: float | None = None) -> bool:
        """True once held; False when the time is up. None waits in the kernel, at the lowest latency."""
        fd = self._open_fd()
        if _try_lock(fd):
            return True
        if timeout_seconds is None:
            _lock(fd)
            return True
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            if _try_lock(fd):
                return True
        return False

    def release(self) -> None:
        """Gives the lock back; the file stays."""
        _unlock(self._open_fd())

    def fileno(self) -> int:
        """The open file. Raises ValueError after `close`."""
        return self._open_fd()

    def close(self) -> None:
        """Gives the lock back, if held, and forgets the file. May be called twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"the lock on {self.path.name} is closed")
        return self._fd
