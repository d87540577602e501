"""The questions asked of logs.db: lists by time, one call with its bodies, counts and sums. Every read is short and indexed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from store.database import Database
from store.logs.collect import Column, collect, whole_span
from store.logs.filters import LogFilter, where_calls
from store.logs.rows import COLUMN_LIST, COLUMNS, from_columns
from store.logs.sums import LogSums, exact, joined
from store.logs.types import CallRow

MAX_LIMIT = 1_000

type Order = Literal["timestamp", "latency", "tokens", "cost"]

_DAILY_GROUPINGS = ("day", "virtual_key_id", "team_id", "customer_id", "provider", "model")
_ORDERS = {"timestamp": "at_ms", "latency": "latency_ms", "tokens": "input_tokens + output_tokens", "cost": "cost_nanos"}


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

    @property
    def database(self) -> Database:
        """Where the logs are, for the reports of this package."""
        return self._database

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
        where = where_calls(self._database.engine, LogFilter(**conditions))
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
        where = where_calls(self._database.engine, LogFilter(**conditions))
        with self._database.read() as connection:
            if at_most is None:
                rows = connection.execute(f"SELECT count(*) FROM calls {where.sql}", where.values)
            else:
                rows = connection.execute(
                    f"SELECT count(*) FROM (SELECT 1 FROM calls {where.sql} LIMIT ?) AS found", (*where.values, at_most)
                )
        return int(rows[0][0])

    def stats(self, start_ms: int | None = None, end_ms: int | None = None, **conditions: Any) -> LogSums:
        """Sums over all calls of a time, under further conditions. Long times are made of daily sums, as everything that shows
        sums is (`store.logs.collect`)."""
        given = LogFilter(start_ms=start_ms, end_ms=end_ms, **conditions)
        found = collect(self._database, given, whole_span(self._database, given))
        return found.get((0, ""), LogSums())

    def totals(self, by: Column, start_ms: int | None = None, end_ms: int | None = None, **conditions: Any) -> dict[str, LogSums]:
        """The same sums for every value of one column."""
        given = LogFilter(start_ms=start_ms, end_ms=end_ms, **conditions)
        found = collect(self._database, given, whole_span(self._database, given), by)
        return {value: sums for (_, value), sums in found.items()}

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
                f"SELECT {columns}, {sums}, {exact('cost_nanos')} FROM daily_costs WHERE day BETWEEN ? AND ? "
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
            rows = connection.execute(f"SELECT DISTINCT {column} FROM total_sums WHERE {column} <> '' ORDER BY 1")
        return [row[0] for row in rows]

    def booked(self) -> tuple[int, int]:
        """(calls, nano-dollars) of the rows that a ledger has booked: to be compared with it."""
        with self._database.read() as connection:
            row = connection.execute(f"SELECT count(*), {exact('cost_nanos')} FROM calls WHERE ledger_sequence > 0")[0]
        return int(row[0]), joined(row[1], row[2])


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


def _daily_total(row: Sequence[Any], size: int) -> DailyTotal:
    values = [tuple(row[:size]), *row[size:-2], joined(row[-2], row[-1])]
    return DailyTotal(*values)


def _column(texts: Iterable[str]) -> str:
    """The parameter of a row set with one column."""
    return orjson.dumps([(text,) for text in texts]).decode()


def _qualified() -> str:
    return ", ".join(f"c.{name}" for name in COLUMNS)


def _bounded_limit(limit: int) -> int:
    return max(0, min(limit, MAX_LIMIT))
