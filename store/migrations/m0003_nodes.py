"""Several machines: epochs with a heartbeat, an identity for the ledger, and storage settings for rows that change all the time."""

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.database import Connection

_POSTGRES = (
    "ALTER TABLE balances SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)",
    "ALTER TABLE open_holds SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)",
)


def up(connection: "Connection") -> None:
    """Adds `epochs.heartbeat_ms` and `ledger_identity`."""
    connection.define("ALTER TABLE epochs ADD COLUMN heartbeat_ms INTEGER NOT NULL DEFAULT 0")
    connection.define("CREATE TABLE ledger_identity (id TEXT NOT NULL PRIMARY KEY)")
    connection.execute("INSERT INTO ledger_identity (id) VALUES (?)", (secrets.token_hex(16),))
    if connection.engine == "postgres":
        for statement in _POSTGRES:
            connection.execute(statement)
