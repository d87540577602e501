"""How many rows never reached the logs, counted in the logs themselves: every process of the gateway adds its own."""

from store.database import Connection, Database

_KEY = "lost_rows"


def note_lost(connection: Connection, more: int) -> None:
    """Counts rows that a process has lost since it last counted."""
    connection.execute(
        "INSERT INTO log_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = log_meta.value + excluded.value",
        (_KEY, more),
    )


def lost_rows(database: Database) -> int:
    """Rows lost since these logs were made. Those of charged calls came back from the ledger. Raises StoreUnavailable."""
    with database.read() as connection:
        rows = connection.execute("SELECT value FROM log_meta WHERE key = ?", (_KEY,))
    return int(rows[0][0]) if rows else 0
