"""Deletes calls that are older than the retention, a few at a time; daily sums stay."""

import orjson

from store.database import Connection, Database
from store.logs.deletion import forget_deleted

DAY_MS = 86_400_000
BATCH_ROWS = 500


def delete_older(database: Database, before_ms: int, *, limit: int = BATCH_ROWS) -> int:
    """Delete at most `limit` of the oldest calls from before `before_ms`, with their bodies. Returns how many went.

    Raises StoreUnavailable.
    """
    with database.read() as connection:
        if not connection.execute("SELECT 1 FROM calls WHERE at_ms < ? LIMIT 1", (before_ms,)):
            return 0
    with database.write() as connection:
        rows = connection.execute("SELECT id, at_ms FROM calls WHERE at_ms < ? ORDER BY at_ms LIMIT ?", (before_ms, limit))
        ids = orjson.dumps([row[0] for row in rows]).decode()
        connection.execute(f"DELETE FROM bodies WHERE call_id IN ({connection.listed})", (ids,))
        connection.execute(f"DELETE FROM calls WHERE id IN ({connection.listed})", (ids,))
        gone_before_ms = before_ms if len(rows) < limit else rows[-1][1]
        forget_deleted(connection, gone_before_ms)
        _note_deleted(connection, gone_before_ms)
    return len(rows)


def deleted_before_ms(connection: Connection) -> int:
    """Calls from before this instant were deleted by the retention, as far as there were any; 0: none were.

    Their daily sums still stand, so nobody may write them again.
    """
    rows = connection.execute("SELECT value FROM log_meta WHERE key = 'deleted_before_ms'")
    return int(rows[0][0]) if rows else 0


def _note_deleted(connection: Connection, before_ms: int) -> None:
    connection.execute(
        """INSERT INTO log_meta (key, value) VALUES ('deleted_before_ms', ?)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE excluded.value > log_meta.value""",
        (before_ms,),
    )
