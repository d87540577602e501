"""The first schema: caps, balances, holds, posts and what surrounds them. Frozen; later changes are later steps."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.database import Connection

_STATEMENTS = (
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta (key, value) VALUES ('revision', 0)",
    """CREATE TABLE caps (
        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL, scope_id TEXT NOT NULL, scope_name TEXT NOT NULL,
        unit TEXT NOT NULL, limit_amount INTEGER NOT NULL, window TEXT, calendar_aligned INTEGER NOT NULL, timezone TEXT NOT NULL,
        quarter_start_month INTEGER NOT NULL, enforcement TEXT NOT NULL, strict INTEGER NOT NULL, carry_over INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, deleted INTEGER NOT NULL, generation INTEGER NOT NULL
    )""",
    "CREATE INDEX caps_by_scope ON caps (scope, scope_id)",
    """CREATE TABLE balances (
        cap_id TEXT NOT NULL, window_start_ms INTEGER NOT NULL, used INTEGER NOT NULL, held INTEGER NOT NULL,
        carried INTEGER NOT NULL, PRIMARY KEY (cap_id, window_start_ms)
    ) WITHOUT ROWID""",
    """CREATE TABLE holds (
        call_id TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL, epoch TEXT NOT NULL, amount_nanos INTEGER NOT NULL,
        tokens INTEGER NOT NULL, alone INTEGER NOT NULL, parts TEXT NOT NULL, facts TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE open_holds (call_id TEXT NOT NULL PRIMARY KEY, epoch TEXT NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE posts (
        sequence INTEGER PRIMARY KEY, call_id TEXT NOT NULL, step INTEGER NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
        held_ms INTEGER NOT NULL, cost_nanos INTEGER NOT NULL, tokens INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL, flags INTEGER NOT NULL, model TEXT NOT NULL, price_source TEXT NOT NULL, note TEXT NOT NULL,
        parts TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX posts_once ON posts (call_id, step)",
    "CREATE INDEX posts_unconfirmed ON posts (call_id) WHERE kind = 'unconfirmed'",
    """CREATE TABLE entries (
        sequence INTEGER PRIMARY KEY, cap_id TEXT NOT NULL, window_start_ms INTEGER NOT NULL, kind TEXT NOT NULL,
        amount INTEGER NOT NULL, at_ms INTEGER NOT NULL, posts_sequence INTEGER NOT NULL, reason TEXT NOT NULL
    )""",
    "CREATE INDEX entries_by_cap ON entries (cap_id, window_start_ms)",
    """CREATE TABLE seals (
        cap_id TEXT NOT NULL, window_start_ms INTEGER NOT NULL, used INTEGER NOT NULL, carried INTEGER NOT NULL,
        posts_sequence INTEGER NOT NULL, entries_sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (cap_id, window_start_ms)
    ) WITHOUT ROWID""",
    """CREATE TABLE epochs (
        id TEXT NOT NULL PRIMARY KEY, started_ms INTEGER NOT NULL, ended_ms INTEGER, process_id INTEGER NOT NULL,
        lease TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX epochs_alive ON epochs (started_ms) WHERE ended_ms IS NULL",
)


def up(connection: "Connection") -> None:
    """Makes every table of the ledger."""
    for statement in _STATEMENTS:
        connection.define(statement)
