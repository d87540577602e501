"""Deletes calls that are older than the retention, a few at a time; daily sums stay."""

from store.database import Database

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
        rows = connection.execute("SELECT number, id FROM calls WHERE at_ms < ? ORDER BY at_ms LIMIT ?", (before_ms, limit))
        connection.executemany("DELETE FROM bodies WHERE call_id = ?", [(row[1],) for row in rows])
        connection.executemany("DELETE FROM calls WHERE number = ?", [(row[0],) for row in rows])
    return len(rows)
