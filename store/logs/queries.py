"""The questions asked of logs.db: lists by time, one call with its bodies, counts and sums. Every read is short and indexed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import orjson

from store.database import Database, Engine
from store.like import contains, pattern
from store.logs.rows import COLUMN_LIST, COLUMNS, from_columns
from store.logs.types import CallRow

MAX_LIMIT = 1_000
_LOW_BITS = 0xFFFF_FFFF

type Grouping = Literal["virtual_key_id", "team_id", "customer_id", "provider", "model", "status", "run_id", "operation"]
type Order = Literal["timestamp", "latency", "tokens", "cost"]

_GROUPINGS = ("virtual_key_id", "team_id", "customer_id", "provider", "model", "status", "run_id", "operation")
_DAILY_GROUPINGS = ("day", "virtual_key_id", "team_id", "customer_id", "provider", "model")
_ORDERS = {"timestamp": "at_ms", "latency": "latency_ms", "tokens": "input_tokens + output_tokens", "cost": "cost_nanos"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which calls: all given conditions together; within one, any of its values. Empty: no condition."""

    virtual_key_ids: Sequence[str] = ()
    virtual_key_names: Sequence[str] = ()
    team_ids: Sequence[str] = ()
    customer_ids: Sequence[str] = ()
    run_ids: Sequence[str] = ()
    providers: Sequence[str] = ()
    models: Sequence[str] = ()
    statuses: Sequence[str] = ()
    operations: Sequence[str] = ()
    refusal_types: Sequence[str] = ()
    start_ms: int | None = None
    """Calls from this instant on."""
    end_ms: int | None = None
    """Calls before this instant."""
    min_cost_nanos: int | None = None
    max_cost_nanos: int | None = None
    min_latency_ms: int | None = None
    max_latency_ms: int | None = None
    text: str = ""
    """Part of the message, the path or the client's name; any case."""


@dataclass(frozen=True, slots=True)
class LogSums:
    """Sums over a set of calls. Money in nano-dollars, exact."""

    calls: int = 0
    """Refusals that share a row are counted one by one."""
    succeeded: int = 0
    refused: int = 0
    failed: int = 0
    """`error`: the provider's fault."""
    unpriced: int = 0
    cost_nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    average_latency_ms: float = 0.0
    """Over calls that were not refused; 0 when there are none."""


@dataclass(frozen=True, slots=True)
class DailyTotal:
    """One group of the daily sums, which outlive the calls. `group` holds the values of the columns grouped by."""

    group: tuple[str, ...]
    calls: int
    refused: int
    failed: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_nanos: int


class LogReader:
    """Answers questions about the logs. Safe from any thread; every method may raise StoreUnavailable.

    Wherever conditions can be given they are `LogFilter`'s fields by name; an unknown name raises TypeError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(
        self,
        limit: int = 50,
        before: str | None = None,
        *,
        offset: int = 0,
        sort_by: Order = "timestamp",
        ascending: bool = False,
        **conditions: Any,
    ) -> list[CallRow]:
        """The latest calls, newest first, without bodies; `before` is the id of the last call already seen.

        `before` goes with the order by time only (newest first); an unknown id gives an empty list.
        """
        where = _where(self._database.engine, conditions)
        if sort_by not in _ORDERS:
            raise ValueError(f"logs cannot be sorted by {sort_by!r}; it must be one of {', '.join(_ORDERS)}")
        if before is not None and (sort_by != "timestamp" or ascending):
            raise ValueError("`before` goes with the newest first only; use `offset` in other orders")
        direction = "ASC" if ascending else "DESC"
        with self._database.read() as connection:
            if before is not None:
                last = connection.execute("SELECT at_ms, number FROM calls WHERE id = ?", (before,))
                if not last:
                    return []
                where.add("(at_ms, number) < (?, ?)", *last[0])
            rows = connection.execute(
                f"SELECT {COLUMN_LIST} FROM calls {where.sql} ORDER BY {_ORDERS[sort_by]} {direction}, number {direction} "
                "LIMIT ? OFFSET ?",
                (*where.values, _bounded_limit(limit), max(0, offset)),
            )
        return [from_columns(row) for row in rows]

    def get(self, call_id: str) -> CallRow | None:
        """One call with its bodies as far as they were kept; None when there is no such call."""
        found = self.with_bodies((call_id,))
        return found[0] if found else None

    def with_bodies(self, call_ids: Iterable[str]) -> list[CallRow]:
        """These calls with their bodies, oldest first; unknown ids are left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {_qualified()}, b.request, b.response FROM {connection.rowset('text')} AS k "
                "CROSS JOIN calls AS c ON c.id = k.c0 LEFT JOIN bodies AS b ON b.call_id = c.id ORDER BY c.at_ms, c.number",
                (_column(call_ids),),
            )
        return [from_columns(row[:-2], row[-2], row[-1]) for row in rows]

    def body_lengths(self, call_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Bytes of request and response text before they were cut; calls whose bodies were not kept are left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT b.call_id, b.request_bytes, b.response_bytes FROM {connection.rowset('text')} AS k "
                "CROSS JOIN bodies AS b ON b.call_id = k.c0",
                (_column(call_ids),),
            )
        return {row[0]: (row[1], row[2]) for row in rows}

    def since(self, at_ms: int, limit: int = MAX_LIMIT, **conditions: Any) -> list[CallRow]:
        """The newest `limit` calls since an instant, oldest first, without bodies."""
        return self.recent(limit, start_ms=at_ms, **conditions)[::-1]

    def count(self, at_most: int | None = None, **conditions: Any) -> int:
        """How many rows there are; with `at_most` counting stops there."""
        where = _where(self._database.engine, conditions)
        with self._database.read() as connection:
            if at_most is None:
                rows = connection.execute(f"SELECT count(*) FROM calls {where.sql}", where.values)
            else:
                rows = connection.execute(
                    f"SELECT count(*) FROM (SELECT 1 FROM calls {where.sql} LIMIT ?) AS found", (*where.values, at_most)
                )
        return int(rows[0][0])

    def stats(self, start_ms: int | None = None, end_ms: int | None = None, **conditions: Any) -> LogSums:
        """Sums over all calls of a time, under further conditions."""
        where = _where(self._database.engine, {"start_ms": start_ms, "end_ms": end_ms} | conditions)
        with self._database.read() as connection:
            row = connection.execute(f"SELECT {_SUMS} FROM calls {where.sql}", where.values)[0]
        return _sums(row)

    def totals(self, by: Grouping, start_ms: int | None = None, end_ms: int | None = None, **conditions: Any) -> dict[str, LogSums]:
        """The same sums for every value of one column."""
        if by not in _GROUPINGS:
            raise ValueError(f"logs cannot be grouped by {by!r}; it must be one of {', '.join(_GROUPINGS)}")
        where = _where(self._database.engine, {"start_ms": start_ms, "end_ms": end_ms} | conditions)
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT {by}, {_SUMS} FROM calls {where.sql} GROUP BY {by}", where.values)
        return {row[0]: _sums(row[1:]) for row in rows}

    def daily(self, first_day: str, last_day: str, by: Sequence[str] = ("day",)) -> list[DailyTotal]:
        """Sums of whole UTC days (`2026-11-23`, both included), grouped by some of day, virtual_key_id, team_id,
        customer_id, provider, model; also of calls that retention has deleted."""
        unknown = [name for name in by if name not in _DAILY_GROUPINGS]
        if unknown or not by:
            raise ValueError(
                f"daily sums can be grouped by {', '.join(_DAILY_GROUPINGS)}; not by {', '.join(unknown) or 'nothing'}"
            )
        columns = ", ".join(by)
        sums = ", ".join(f"sum({name})" for name in _DAILY_SUMS)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {columns}, {sums}, {_exact('cost_nanos')} FROM daily_costs WHERE day BETWEEN ? AND ? "
                f"GROUP BY {columns} ORDER BY {columns}",
                (first_day, last_day),
            )
        size = len(by)
        return [_daily_total(row, size) for row in rows]

    def values(self, column: Literal["virtual_key_id", "team_id", "customer_id", "provider", "model"]) -> list[str]:
        """The distinct values of one column, from the daily sums: quick however many calls there are."""
        if column not in _DAILY_GROUPINGS[1:]:
            raise ValueError(f"there is no list of values for {column!r}")
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT DISTINCT {column} FROM daily_costs WHERE {column} <> '' ORDER BY 1")
        return [row[0] for row in rows]

    def booked(self) -> tuple[int, int]:
        """(calls, nano-dollars) of the rows that a ledger has booked: to be compared with it."""
        with self._database.read() as connection:
            row = connection.execute(f"SELECT count(*), {_exact('cost_nanos')} FROM calls WHERE ledger_sequence > 0")[0]
        return int(row[0]), _joined(row[1], row[2])


class _Where:
    """Grows a WHERE clause with its values."""

    def __init__(self) -> None:
        self._terms: list[str] = []
        self.values: list[Any] = []

    def add(self, term: str, *values: Any) -> None:
        self._terms.append(term)
        self.values.extend(values)

    @property
    def sql(self) -> str:
        return "WHERE " + " AND ".join(self._terms) if self._terms else ""


_LISTS = {
    "virtual_key_ids": "virtual_key_id",
    "virtual_key_names": "virtual_key_name",
    "team_ids": "team_id",
    "customer_ids": "customer_id",
    "run_ids": "run_id",
    "providers": "provider",
    "models": "model",
    "statuses": "status",
    "operations": "operation",
    "refusal_types": "refusal_type",
}
_BOUNDS = {
    "start_ms": "at_ms >= ?",
    "end_ms": "at_ms < ?",
    "min_cost_nanos": "cost_nanos >= ?",
    "max_cost_nanos": "cost_nanos <= ?",
    "min_latency_ms": "latency_ms >= ?",
    "max_latency_ms": "latency_ms <= ?",
}
_SEARCHED = ("message", "path", "client")
_PARTIAL = {"team_ids": "team_id <> ''", "customer_ids": "customer_id <> ''", "run_ids": "run_id <> ''"}
"""Repeated in the clause so that the database may use the partial index."""


def _where(engine: Engine, conditions: dict[str, Any]) -> _Where:
    given = LogFilter(**conditions)
    where = _Where()
    for field in fields(given):
        value = getattr(given, field.name)
        if field.name in _LISTS and value:
            wanted = [value] if isinstance(value, str) else list(value)
            where.add(f"{_LISTS[field.name]} IN ({', '.join('?' * len(wanted))})", *wanted)
            if field.name in _PARTIAL and all(wanted):
                where.add(_PARTIAL[field.name])
            if field.name == "statuses" and "success" not in wanted:
                where.add("status <> 'success'")
        elif field.name in _BOUNDS and value is not None:
            where.add(_BOUNDS[field.name], value)
    if given.text:
        terms = " OR ".join(contains(engine, column) for column in _SEARCHED)
        where.add(f"({terms})", *(pattern(given.text),) * len(_SEARCHED))
    return where


def _exact(column: str) -> str:
    """Two partial sums that cannot overflow 64 bits; `_joined` puts them together in Python's unbounded integers."""
    return f"coalesce(sum({column} >> 32), 0), coalesce(sum({column} & {_LOW_BITS}), 0)"


def _joined(high: int, low: int) -> int:
    return (int(high) << 32) + int(low)


_DAILY_SUMS = (
    "calls",
    "refused",
    "failed",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
)
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_SUMS = ", ".join(
    (
        "coalesce(sum(count), 0)",
        "coalesce(sum(count) FILTER (WHERE status = 'success'), 0)",
        "coalesce(sum(count) FILTER (WHERE status = 'refused'), 0)",
        "coalesce(sum(count) FILTER (WHERE status = 'error'), 0)",
        "coalesce(sum(count) FILTER (WHERE priced = 0 AND status <> 'refused'), 0)",
        "coalesce(avg(latency_ms) FILTER (WHERE status <> 'refused'), 0.0)",
        *(f"coalesce(sum({name}), 0)" for name in _TOKENS),
        _exact("cost_nanos"),
    )
)


def _sums(row: Sequence[Any]) -> LogSums:
    calls, succeeded, refused, failed, unpriced, latency_ms, *tokens, high, low = row
    values = [calls, succeeded, refused, failed, unpriced, _joined(high, low), *tokens, float(latency_ms)]
    return LogSums(*values)


def _daily_total(row: Sequence[Any], size: int) -> DailyTotal:
    values = [tuple(row[:size]), *row[size:-2], _joined(row[-2], row[-1])]
    return DailyTotal(*values)


def _column(texts: Iterable[str]) -> str:
    """The parameter of a row set with one column."""
    return orjson.dumps([(text,) for text in texts]).decode()


def _qualified() -> str:
    return ", ".join(f"c.{name}" for name in COLUMNS)


def _bounded_limit(limit: int) -> int:
    return max(0, min(limit, MAX_LIMIT))
