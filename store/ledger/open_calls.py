"""Calls in flight, as the ledger knows them."""

from store.database import Connection


def open_since_ms(connection: Connection, call_id: str) -> int | None:
    """When the call's hold was taken, while it is open; None for a call that is not in flight."""
    rows = connection.execute("SELECT at_ms FROM open_holds WHERE call_id = ?", (call_id,))
    return int(rows[0][0]) if rows else None


def count_open(connection: Connection) -> int:
    """How many calls are in flight."""
    return int(connection.execute("SELECT count(*) FROM open_holds")[0][0])
