"""Deletes single calls from the logs when a person asks for it. The sums stay, and the ledger is not concerned."""

from collections.abc import Iterable

import orjson

from store.database import Connection, Database


def delete_calls(database: Database, call_ids: Iterable[str]) -> list[str]:
    """Deletes the rows and bodies of these calls; returns the ids of those that were there. Raises StoreUnavailable.

    They are remembered until the retention would have deleted them, so that no row is made again from the ledger.
    """
    with database.write() as connection:
        rows = connection.execute(
            f"SELECT id, at_ms FROM calls WHERE id IN ({connection.listed})", (orjson.dumps(list(call_ids)).decode(),)
        )
        gone = orjson.dumps([row[0] for row in rows]).decode()
        connection.executemany("INSERT INTO deleted_calls (id, at_ms) VALUES (?, ?) ON CONFLICT (id) DO NOTHING", rows)
        connection.execute(f"DELETE FROM bodies WHERE call_id IN ({connection.listed})", (gone,))
        connection.execute(f"DELETE FROM calls WHERE id IN ({connection.listed})", (gone,))
    return sorted(row[0] for row in rows)


def deleted_among(connection: Connection, call_ids: Iterable[str]) -> set[str]:
    """Those of these calls that somebody has deleted."""
    rows = connection.execute(
        f"SELECT id FROM deleted_calls WHERE id IN ({connection.listed})", (orjson.dumps(list(call_ids)).decode(),)
    )
    return {row[0] for row in rows}


def forget_deleted(connection: Connection, before_ms: int) -> None:
    """Forgets deleted calls from before an instant, whose rows nobody makes again anyway."""
    connection.execute("DELETE FROM deleted_calls WHERE at_ms < ?", (before_ms,))
