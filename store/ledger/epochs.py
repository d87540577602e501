"""Who owns a hold: an epoch is one run of one process, alive for as long as it keeps the lock on its lease file."""

import os
from dataclasses import dataclass
from pathlib import Path

from store.clock import Clock, Ids
from store.database import Connection
from store.filelock import FileLock


class Lease:
    """The lock on a lease file. The operating system lifts it when the process dies, whatever way."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def take(cls, path: Path) -> "Lease | None":
        """The lease, or None when somebody alive has it."""
        lock = FileLock(path)
        if lock.try_acquire():
            return cls(path, lock)
        lock.close()
        return None

    def drop(self) -> None:
        """Gives the lease back and removes its file."""
        self.path.unlink(missing_ok=True)
        self._lock.close()

    def abandon(self) -> None:
        """Gives the lock back and leaves the file, as the death of the process would."""
        self._lock.close()


@dataclass(frozen=True, slots=True)
class EpochRow:
    """An epoch that has not ended."""

    id: str
    started_ms: int
    lease: str


def begin_epoch(connection: Connection, lease_dir: Path, ids: Ids, clock: Clock) -> tuple[str, Lease]:
    """Starts an epoch: its lease is locked before anybody can read of it. Returns (id, lease). Raises OSError."""
    epoch = ids.new()
    lease_dir.mkdir(parents=True, exist_ok=True)
    lease = Lease.take(lease_dir / f"{epoch}.lease")
    if lease is None:
        raise OSError(f"the new lease file {epoch}.lease is locked already")
    connection.execute(
        "INSERT INTO epochs (id, started_ms, ended_ms, process_id, lease) VALUES (?, ?, NULL, ?, ?)",
        (epoch, clock.now_ms(), os.getpid(), str(lease.path)),
    )
    return epoch, lease


def end_epoch(connection: Connection, epoch: str, now_ms: int) -> None:
    """Fences the epoch: it gets no new holds."""
    connection.execute("UPDATE epochs SET ended_ms = ? WHERE id = ? AND ended_ms IS NULL", (now_ms, epoch))


def is_fenced(connection: Connection, epoch: str) -> bool:
    """True when the epoch was ended, by itself or by somebody who found it dead."""
    rows = connection.execute("SELECT ended_ms FROM epochs WHERE id = ?", (epoch,))
    return not rows or rows[0][0] is not None


def running_epochs(connection: Connection) -> list[EpochRow]:
    """All epochs that have not ended, dead ones that nobody has noticed included."""
    return [EpochRow(*row) for row in connection.execute("SELECT id, started_ms, lease FROM epochs WHERE ended_ms IS NULL")]


def open_calls(connection: Connection, epoch: str, limit: int = -1) -> list[str]:
    """Ids of calls that this epoch holds for, oldest first; all of them unless limited."""
    rows = connection.execute("SELECT call_id FROM open_holds WHERE epoch = ? ORDER BY call_id LIMIT ?", (epoch, limit))
    return [row[0] for row in rows]
