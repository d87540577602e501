"""Locks between processes that the operating system drops when their holder dies, however it dies."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` alone; waits for whoever holds it now. Raises OSError when it cannot be opened."""
    with path.open("ab") as file:
        _lock(file)
        try:
            yield
        finally:
            _unlock(file)


class Party:
    """People in a room: anybody may be in, and the one who leaves last is told so, to turn off the light.

    On Windows, where shared locks are not to be had, nobody knows of the others: `leave` says so with None.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def enter(self) -> None:
        """Be in; waits while somebody is turning off the light."""
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def leave(self) -> Iterator[bool | None]:
        """Leave. True: nobody else is in, and nobody can enter before this block ends. False: others are. None: nobody can tell."""
        last: bool | None = None
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                last = True
            except BlockingIOError:
                last = False
        try:
            yield last
        finally:
            self._file.close()


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        while True:  # LK_LOCK gives up after ten tries of a second
            try:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError:
                time.sleep(0.05)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _unlock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        with contextlib.suppress(OSError):
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


def process_exists(pid: int) -> bool:
    """Whether a process with this id lives; one of another user counts."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
