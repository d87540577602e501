"""The numbered schema steps of logs.db. A step is frozen once released; later changes are later steps."""

from store.database import Connection
from store.migrations import Migration

_FIRST = (
    """CREATE TABLE calls (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL, status TEXT NOT NULL,
        http_status INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, answered_model TEXT NOT NULL,
        operation TEXT NOT NULL, stream INTEGER NOT NULL, way_in TEXT NOT NULL, virtual_key_id TEXT NOT NULL,
        virtual_key_name TEXT NOT NULL, team_id TEXT NOT NULL, customer_id TEXT NOT NULL, run_id TEXT NOT NULL,
        provider_key_id TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
        cost_nanos INTEGER NOT NULL, priced INTEGER NOT NULL, estimated INTEGER NOT NULL, held_nanos INTEGER NOT NULL,
        price_source TEXT NOT NULL, caps_charged TEXT NOT NULL, refusal_type TEXT NOT NULL, refusal_cap TEXT NOT NULL,
        message TEXT NOT NULL, latency_ms INTEGER NOT NULL, first_token_ms INTEGER, stop_reason TEXT NOT NULL,
        method TEXT NOT NULL, path TEXT NOT NULL, client TEXT NOT NULL, count INTEGER NOT NULL, text_bytes INTEGER NOT NULL,
        ledger_sequence INTEGER NOT NULL DEFAULT 0, ledger_nanos INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX calls_by_time ON calls (at_ms)",
    "CREATE INDEX calls_by_key ON calls (virtual_key_id, at_ms)",
    "CREATE INDEX calls_by_model ON calls (model, at_ms)",
    "CREATE INDEX calls_by_status ON calls (status, at_ms) WHERE status <> 'success'",
    "CREATE INDEX calls_by_team ON calls (team_id, at_ms) WHERE team_id <> ''",
    "CREATE INDEX calls_by_customer ON calls (customer_id, at_ms) WHERE customer_id <> ''",
    "CREATE INDEX calls_by_run ON calls (run_id, at_ms) WHERE run_id <> ''",
    """CREATE TABLE bodies (
        call_id TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL, request TEXT, request_bytes INTEGER NOT NULL,
        response TEXT, response_bytes INTEGER NOT NULL
    )""",
    """CREATE TABLE daily_costs (
        day TEXT NOT NULL, virtual_key_id TEXT NOT NULL, team_id TEXT NOT NULL, customer_id TEXT NOT NULL,
        provider TEXT NOT NULL, model TEXT NOT NULL, calls INTEGER NOT NULL, refused INTEGER NOT NULL,
        failed INTEGER NOT NULL, unpriced INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, cost_nanos INTEGER NOT NULL,
        PRIMARY KEY (day, virtual_key_id, team_id, customer_id, provider, model)
    ) WITHOUT ROWID""",
    "CREATE TABLE log_meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO log_meta (key, value) VALUES ('watermark', 0)",
)


_LEDGERS = (
    """CREATE TABLE log_ledgers (
        number INTEGER NOT NULL PRIMARY KEY, identity TEXT NOT NULL, watermark INTEGER NOT NULL, call_id TEXT NOT NULL
    )""",
    # The ledger that these logs have followed so far has no name here until it is next seen.
    "INSERT INTO log_ledgers (number, identity, watermark, call_id) SELECT 1, '', value, '' FROM log_meta WHERE key = 'watermark'",
    "DELETE FROM log_meta WHERE key = 'watermark'",
    # The default is for the rows that are there: where `ledger_sequence` is 0 the number means nothing.
    "ALTER TABLE calls ADD COLUMN ledger INTEGER NOT NULL DEFAULT 1",
)


def _first(connection: Connection) -> None:
    for statement in _FIRST:
        connection.define(statement)


def _ledgers(connection: Connection) -> None:
    for statement in _LEDGERS:
        connection.define(statement)


MIGRATIONS = (Migration(1, "logs", _first), Migration(2, "ledgers", _ledgers))
