"""The numbered schema steps of logs.db. A step is frozen once released; later changes are later steps."""

from collections.abc import Sequence
from datetime import UTC, datetime

from store.database import Connection
from store.logs.latencies import step_of
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


_REPORTS = (
    "ALTER TABLE calls ADD COLUMN exceeded TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN routing_rule_id TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN recalculated_nanos INTEGER",
    "ALTER TABLE calls ADD COLUMN recalculated_source TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX calls_by_provider ON calls (provider, at_ms)",
    "CREATE INDEX calls_unpriced ON calls (at_ms) WHERE priced = 0",
    "ALTER TABLE daily_costs ADD COLUMN succeeded INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE daily_costs ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE daily_costs ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE daily_costs ADD COLUMN timed INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE daily_costs ADD COLUMN latency_ms INTEGER NOT NULL DEFAULT 0",
    # Of calls that retention has deleted it is known that they did not fail, and no more.
    "UPDATE daily_costs SET succeeded = calls - failed",
    """CREATE TABLE total_sums (
        virtual_key_id TEXT NOT NULL, team_id TEXT NOT NULL, customer_id TEXT NOT NULL, provider TEXT NOT NULL,
        model TEXT NOT NULL, calls INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL,
        unpriced INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, cost_nanos INTEGER NOT NULL,
        succeeded INTEGER NOT NULL, cancelled INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
        timed INTEGER NOT NULL, latency_ms INTEGER NOT NULL,
        PRIMARY KEY (virtual_key_id, team_id, customer_id, provider, model)
    ) WITHOUT ROWID""",
    """CREATE TABLE daily_latencies (
        day TEXT NOT NULL, provider TEXT NOT NULL, step INTEGER NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (day, provider, step)
    ) WITHOUT ROWID""",
    "CREATE TABLE deleted_calls (id TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID",
)
_OWNER = ("virtual_key_id", "team_id", "customer_id", "provider", "model")
_SUMMED = (
    "calls", "refused", "failed", "unpriced", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "cost_nanos", "succeeded", "cancelled", "reasoning_tokens", "timed", "latency_ms",
)  # fmt: skip


def _first(connection: Connection) -> None:
    for statement in _FIRST:
        connection.define(statement)


def _ledgers(connection: Connection) -> None:
    for statement in _LEDGERS:
        connection.define(statement)


def _reports(connection: Connection) -> None:
    for statement in _REPORTS:
        connection.define(statement)
    _fill_days(connection)
    _fill_latencies(connection)
    _fill_totals(connection)


def _fill_days(connection: Connection) -> None:
    """What the daily sums did not count so far, from the calls that are there."""
    owner = ", ".join(_OWNER)
    rows = connection.execute(
        f"""SELECT at_ms / 86400000, {owner},
            coalesce(sum(count) FILTER (WHERE status NOT IN ('success', 'error', 'refused')), 0),
            coalesce(sum(count) FILTER (WHERE status = 'cancelled'), 0), sum(reasoning_tokens),
            coalesce(sum(count) FILTER (WHERE status <> 'refused'), 0),
            coalesce(sum(latency_ms) FILTER (WHERE status <> 'refused'), 0)
        FROM calls GROUP BY at_ms / 86400000, {owner}"""
    )
    connection.executemany(
        "UPDATE daily_costs SET succeeded = calls - failed - ?, cancelled = ?, reasoning_tokens = ?, timed = ?, latency_ms = ? "
        f"WHERE day = ? AND {' AND '.join(f'{name} = ?' for name in _OWNER)}",
        [(*map(int, row[6:]), _day(row[0]), *row[1:6]) for row in rows],
    )


def _fill_latencies(connection: Connection) -> None:
    counts: dict[tuple[str, str, int], int] = {}
    for days, provider, latency_ms, calls in connection.execute(
        """SELECT at_ms / 86400000, provider, latency_ms, sum(count) FROM calls WHERE status <> 'refused'
        GROUP BY at_ms / 86400000, provider, latency_ms"""
    ):
        key = (_day(days), provider, step_of(latency_ms))
        counts[key] = counts.get(key, 0) + int(calls)
    connection.executemany(
        "INSERT INTO daily_latencies (day, provider, step, calls) VALUES (?, ?, ?, ?)",
        [(*key, calls) for key, calls in counts.items()],
    )


def _fill_totals(connection: Connection) -> None:
    totals: dict[Sequence[str], list[int]] = {}
    size = len(_OWNER)
    for row in connection.execute(f"SELECT {', '.join(_OWNER + _SUMMED)} FROM daily_costs"):
        sums = totals.setdefault(row[:size], [0] * len(_SUMMED))
        for index, more in enumerate(row[size:]):
            sums[index] += more
    marks = ", ".join("?" * (size + len(_SUMMED)))
    connection.executemany(
        f"INSERT INTO total_sums ({', '.join(_OWNER + _SUMMED)}) VALUES ({marks})",
        [(*owner, *(min(2**63 - 1, amount) for amount in sums)) for owner, sums in totals.items()],
    )


def _day(days: int) -> str:
    return datetime.fromtimestamp(days * 86_400, UTC).strftime("%Y-%m-%d")


MIGRATIONS = (Migration(1, "logs", _first), Migration(2, "ledgers", _ledgers), Migration(3, "reports", _reports))
