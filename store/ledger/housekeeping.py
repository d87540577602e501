"""What the books need now and then: raises whose time is up, windows to seal, rows to prune. In small steps, one at a time."""

from store.config_store.audit import prune_audit
from store.database import Connection, Database
from store.ledger.raises import end_raises
from store.ledger.seal import AT_ONCE, forget_epochs, look_at_windows, prune

IDLE_SECONDS = 10.0
"""How long to wait when there is nothing to do."""
SOON_SECONDS = 0.25
"""How long to wait after a step that found more than it could do: callers have the database to themselves meanwhile."""
PRUNE_EVERY_MS = 6 * 3_600_000
DAY_MS = 86_400_000


class Housekeeping:
    """The chores of one ledger database. Every process may run them: a row in the database keeps them from doing so together."""

    def __init__(self, database: Database, retention_days: int | None, audit_days: int | None = None) -> None:
        """How many days the rows of calls and those of the audit log are kept; None: for ever."""
        self._database = database
        self._retention_ms = None if retention_days is None else retention_days * DAY_MS
        self._audit_ms = None if audit_days is None else audit_days * DAY_MS

    def step(self) -> float:
        """One short transaction at most; returns after how many seconds to call again. Raises StoreUnavailable."""
        with self._database.read() as connection:
            if not self._is_anything_due(connection):
                return IDLE_SECONDS
        with self._database.write() as connection:
            now_ms = connection.now_ms()
            if not _take_turn(connection, now_ms):
                return IDLE_SECONDS
            return SOON_SECONDS if self._work(connection, now_ms) else IDLE_SECONDS

    def _is_anything_due(self, connection: Connection) -> bool:
        now_ms = connection.now_ms()
        if connection.execute("SELECT 1 FROM raises WHERE ended_ms IS NULL AND until_ms <= ? LIMIT 1", (now_ms,)):
            return True
        if connection.execute("SELECT 1 FROM balances WHERE look_ms IS NOT NULL AND look_ms <= ? LIMIT 1", (now_ms,)):
            return True
        if self._audit_ms is not None and _chore(connection, "audit")[0] <= now_ms:
            return True
        return self._retention_ms is not None and _chore(connection, "prune")[0] <= now_ms

    def _work(self, connection: Connection, now_ms: int) -> bool:
        """The first kind of work there is; True when more of it may be left."""
        if end_raises(connection, now_ms, AT_ONCE) == AT_ONCE:
            return True
        if look_at_windows(connection, now_ms, AT_ONCE)[0] > 0:
            return True
        if self._audit_ms is not None and self._prune_audit(connection, now_ms, now_ms - self._audit_ms):
            return True
        return self._retention_ms is not None and self._prune(connection, now_ms, now_ms - self._retention_ms)

    @staticmethod
    def _prune_audit(connection: Connection, now_ms: int, before_ms: int) -> bool:
        if _chore(connection, "audit")[0] > now_ms:
            return False
        if prune_audit(connection, before_ms, AT_ONCE) == AT_ONCE:
            return True
        _note(connection, "audit", now_ms + PRUNE_EVERY_MS, 0)
        return False

    @staticmethod
    def _prune(connection: Connection, now_ms: int, before_ms: int) -> bool:
        due_ms, position = _chore(connection, "prune")
        if due_ms > now_ms:
            return False
        _, following = prune(connection, before_ms, position, AT_ONCE)
        if following is not None:
            _note(connection, "prune", due_ms, following)
            return True
        forget_epochs(connection, before_ms)
        _note(connection, "prune", now_ms + PRUNE_EVERY_MS, 0)
        return False


def _take_turn(connection: Connection, now_ms: int) -> bool:
    """Whether the last step of anybody lies far enough back; this one is noted."""
    last_ms, _ = _chore(connection, "turn")
    if 0 <= now_ms - last_ms < SOON_SECONDS * 1000 * 0.9:
        return False
    _note(connection, "turn", now_ms, 0)
    return True


def _chore(connection: Connection, name: str) -> tuple[int, int]:
    """(time in ms, position) kept of a chore."""
    rows = connection.execute("SELECT at_ms, position FROM chores WHERE name = ?", (name,))
    return (rows[0][0], rows[0][1]) if rows else (0, 0)


def _note(connection: Connection, name: str, at_ms: int, position: int) -> None:
    connection.execute(
        """INSERT INTO chores (name, at_ms, position) VALUES (?, ?, ?)
        ON CONFLICT (name) DO UPDATE SET at_ms = excluded.at_ms, position = excluded.position""",
        (name, at_ms, position),
    )
