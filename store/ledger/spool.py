"""Settlements that could not be booked: a synced file that outlives the process and is booked by call id later."""

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from store.filelock import FileLock
from store.ledger.types import Settlement

log = logging.getLogger(__name__)

_SUFFIX = ".spool"
SHUT = "a settlement could not be kept anywhere; nothing new is let through until it can"
"""What callers are told while store and spool both fail."""


class Spool:
    """The spool file of one epoch, made when it is first needed. Thread safe."""

    def __init__(self, directory: Path, name: str) -> None:
        self._path = directory / f"{name}{_SUFFIX}"
        self._mutex = threading.Lock()
        self._lock: FileLock | None = None
        self._pending: dict[str, Settlement] = {}

    def append(self, settlements: list[Settlement]) -> None:
        """Writes and syncs; when this returns they will be booked one day. Raises OSError."""
        with self._mutex:
            fd = self._opened()
            start = os.lseek(fd, 0, os.SEEK_END)
            data = b"".join(orjson.dumps(settlement._asdict()) + b"\n" for settlement in settlements)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except OSError:
                # Half a line would hide the next one.
                os.ftruncate(fd, start)
                raise
            self._pending.update((settlement.call_id, settlement) for settlement in settlements)

    def pending(self) -> list[Settlement]:
        """What is in the file and not booked yet."""
        with self._mutex:
            return list(self._pending.values())

    def booked(self, settlements: list[Settlement]) -> None:
        """Forgets these; the file is emptied with the last one."""
        with self._mutex:
            for settlement in settlements:
                if self._pending.get(settlement.call_id) is settlement:
                    del self._pending[settlement.call_id]
            if not self._pending and self._lock is not None:
                os.ftruncate(self._lock.fileno(), 0)
                os.fsync(self._lock.fileno())

    def close(self) -> None:
        """Closes the file, and removes it when everything in it is booked."""
        with self._mutex:
            if self._lock is None:
                return
            if not self._pending:
                self._path.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _opened(self) -> int:
        if self._lock is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _own_file(self._path)
            _sync_directory(self._path.parent)
        return self._lock.fileno()


@dataclass(frozen=True, slots=True)
class Leftover:
    """The spool file of a process that has died, locked by us while we book what is in it."""

    path: Path
    settlements: tuple[Settlement, ...]
    damaged: bool
    lock: FileLock

    def done(self) -> None:
        """Everything is booked: the file goes, or is put aside when part of it cannot be read."""
        if self.damaged:
            self.path.replace(self.path.with_suffix(".damaged"))
        else:
            self.path.unlink(missing_ok=True)
        self.lock.close()

    def leave(self) -> None:
        """Not everything could be booked: the file stays for another time."""
        self.lock.close()


def leftovers(directory: Path) -> Iterator[Leftover]:
    """The spool files whose owners have died, one after the other. End each with `done()` or `leave()`."""
    if not directory.is_dir():
        return
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        lock = FileLock(path)
        if not lock.try_acquire():
            lock.close()
            continue
        settlements, damaged = _read(path)
        yield Leftover(path, settlements, damaged, lock)


def _read(path: Path) -> tuple[tuple[Settlement, ...], bool]:
    """The settlements in a file, and whether a line inside it is damaged.

    A torn last line was never acknowledged to anybody, so it is no damage; its hold is recovered as unconfirmed.
    """
    settlements, damaged = [], False
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            settlements.append(Settlement(**orjson.loads(line)))
        except (ValueError, TypeError):
            damaged = True
            log.warning("line %d of the spool file %s cannot be read and is left out", number, path.name)
    return tuple(settlements), damaged


def _own_file(path: Path) -> FileLock:
    # The lock is on the file itself: a file nobody holds belongs to a process that has died. Such a process's heir may have taken
    # our new, still empty file for one and removed it before we had it locked: then we hold a file without a name, and try again.
    for _ in range(10):
        lock = FileLock(path)
        if lock.try_acquire() and path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
        lock.close()
    raise OSError(f"the spool file {path.name} is in use")


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
