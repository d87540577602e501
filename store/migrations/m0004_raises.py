"""Temporary raises of a cap's limit, the instant at which a balance is next looked at for sealing, and how far chores have come."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.database import Connection

_STATEMENTS = (
    """CREATE TABLE raises (
        id INTEGER PRIMARY KEY, cap_id TEXT NOT NULL, amount INTEGER NOT NULL, from_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
        reason TEXT NOT NULL, ended_ms INTEGER
    )""",
    # Unique: a cap has at most one raise that has not ended.
    "CREATE UNIQUE INDEX raises_open ON raises (cap_id) WHERE ended_ms IS NULL",
    "ALTER TABLE balances ADD COLUMN look_ms INTEGER DEFAULT 0",
    "CREATE INDEX balances_to_seal ON balances (look_ms) WHERE look_ms IS NOT NULL",
    "CREATE INDEX entries_resets ON entries (cap_id, posts_sequence) WHERE kind = 'reset'",
    "CREATE TABLE chores (name TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID",
)


def up(connection: "Connection") -> None:
    """Makes the tables, the column and the indexes."""
    for statement in _STATEMENTS:
        connection.define(statement)
