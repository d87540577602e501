"""Who owns a hold: an epoch is one run of one process.

On SQLite it is alive for as long as it keeps the lock on its lease file; on PostgreSQL, where processes on other machines cannot
see such a file, while its heartbeat (the server's time) is fresh.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from store.clock import Ids
from store.database import Connection
from store.filelock import FileLock

log = logging.getLogger(__name__)


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


HEARTBEAT_SECONDS = 2.0
STALE_SECONDS = 15.0
"""An epoch whose heartbeat is older than this is dead; whoever says so must have been in touch with the server for as long."""


@dataclass(frozen=True, slots=True)
class EpochRow:
    """An epoch that has not ended, or that still has open holds."""

    id: str
    started_ms: int
    lease: str
    heartbeat_ms: int = 0
    ended: bool = False


def begin_epoch(connection: Connection, lease_dir: Path, ids: Ids) -> tuple[str, Lease | None]:
    """Starts an epoch: its lease is locked before anybody can read of it. Returns (id, lease or None). Raises OSError."""
    epoch = ids.new()
    lease = None
    if connection.engine == "sqlite":
        lease_dir.mkdir(parents=True, exist_ok=True)
        lease = Lease.take(lease_dir / f"{epoch}.lease")
        if lease is None:
            raise OSError(f"the new lease file {epoch}.lease is locked already")
    now_ms = connection.now_ms()
    connection.execute(
        "INSERT INTO epochs (id, started_ms, ended_ms, process_id, lease, heartbeat_ms) VALUES (?, ?, NULL, ?, ?, ?)",
        (epoch, now_ms, os.getpid(), "" if lease is None else str(lease.path), now_ms),
    )
    return epoch, lease


def renew_epoch(connection: Connection, old: Lease | None, lease_dir: Path, ids: Ids) -> tuple[str, Lease | None]:
    """A new epoch for a process that was taken for dead: new holds need one that is alive. Returns as `begin_epoch`."""
    log.warning("this process was taken for dead; its open calls were posted at their holds")
    begun = begin_epoch(connection, lease_dir, ids)
    if old is not None:
        old.drop()
    return begun


class Pulse:
    """For how long a process has been in touch with a server, by its own clock: whether it may judge the heartbeats of others."""

    __slots__ = ("beaten_at", "server_ms", "steady_since")

    def __init__(self, now: float) -> None:
        self.beaten_at = self.steady_since = now
        self.server_ms = 0

    def beaten(self, now: float, server_ms: int) -> None:
        """Our own heartbeat was written, at this time of the server."""
        silent = now - self.beaten_at
        shift = (server_ms - self.server_ms) / 1000 - silent
        if max(silent, abs(shift)) > 3 * HEARTBEAT_SECONDS:
            # After an outage, or when the server's clock was set, the heartbeats of the living look old until their next ones.
            self.steady_since = now
        self.beaten_at, self.server_ms = now, server_ms

    def may_judge(self, now: float) -> bool:
        """Whether everybody alive has had the time to beat since anything was in the way; ask after a beat."""
        return now - self.steady_since > STALE_SECONDS


def is_silent(heartbeat_ms: int, now_ms: int) -> bool:
    """Whether a heartbeat is too far away to be that of a living process; one in the future is from before the clock was set."""
    return abs(now_ms - heartbeat_ms) > STALE_SECONDS * 1000


def beat(connection: Connection, epoch: str) -> int:
    """Says that the epoch's process lives; returns the database's time."""
    now_ms = connection.now_ms()
    connection.execute("UPDATE epochs SET heartbeat_ms = ? WHERE id = ? AND ended_ms IS NULL", (now_ms, epoch))
    return now_ms


def end_epoch(connection: Connection, epoch: str, now_ms: int) -> None:
    """Fences the epoch: it gets no new holds."""
    connection.execute("UPDATE epochs SET ended_ms = ? WHERE id = ? AND ended_ms IS NULL", (now_ms, epoch))


def running_epochs(connection: Connection) -> list[EpochRow]:
    """All epochs that have not ended, dead ones that nobody has noticed included, and ended ones that still have open holds."""
    rows = connection.execute(
        """SELECT id, started_ms, lease, heartbeat_ms, 0 FROM epochs WHERE ended_ms IS NULL
        UNION ALL SELECT id, started_ms, lease, heartbeat_ms, 1 FROM epochs
        WHERE ended_ms IS NOT NULL AND id IN (SELECT epoch FROM open_holds)"""
    )
    return [EpochRow(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]


def open_calls(connection: Connection, epoch: str, limit: int = 2**31) -> list[str]:
    """Ids of calls that this epoch holds for, oldest first; all of them unless limited."""
    rows = connection.execute("SELECT call_id FROM open_holds WHERE epoch = ? ORDER BY call_id LIMIT ?", (epoch, limit))
    return [row[0] for row in rows]
