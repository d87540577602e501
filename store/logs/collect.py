"""Sums of calls by bucket and column, made of daily sums where whole days lie in the time and of the calls at its edges.

Everything that shows sums asks here with the same time and conditions, so that they add up to one another.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from store.database import Database, Row
from store.logs.daily import day_of
from store.logs.filters import LogFilter, where_calls, where_daily
from store.logs.latencies import longest_in, step_of
from store.logs.periods import DAILY_FROM_MS, DAY_MS, Span
from store.logs.sums import OF_CALLS, OF_DAYS, LogSums, sums_of

type Column = Literal["virtual_key_id", "team_id", "customer_id", "provider", "model", "status", "run_id", "operation", "client"]
type Key = tuple[int, str]
"""(start of the bucket, value of the column); the value is empty where no column was asked for."""

COLUMNS = ("virtual_key_id", "team_id", "customer_id", "provider", "model", "status", "run_id", "operation", "client")
DAILY_COLUMNS = ("virtual_key_id", "team_id", "customer_id", "provider", "model")


_NOTHING = LogSums()


def whole_span(database: Database, given: LogFilter, now_ms: int = 0) -> Span:
    """The time that is asked for. Where it says no start it begins with the oldest sums, where it says no end it ends now, or
    with a newer call. Raises StoreUnavailable.
    """
    if given.start_ms is not None and given.end_ms is not None:
        return Span(given.start_ms, given.end_ms)
    with database.read() as connection:
        day = connection.execute("SELECT min(day) FROM daily_costs")[0][0]
        oldest = connection.execute("SELECT min(at_ms) FROM calls")[0][0]
        newest = connection.execute("SELECT max(at_ms) FROM calls")[0][0]
    end_ms = max(now_ms, newest or 0) + 1 if given.end_ms is None else given.end_ms
    starts = [at_ms for at_ms in (_midnight(day) if day else None, oldest) if at_ms is not None]
    return Span(min(starts, default=end_ms) if given.start_ms is None else given.start_ms, end_ms)


def collect(
    database: Database, given: LogFilter, span: Span, column: Column | None = None, bucket_ms: int | None = None
) -> dict[Key, LogSums]:
    """Sums of the calls in a time (the filter's own is not looked at) by bucket and column; empty ones are left out.

    Without `bucket_ms` there is one bucket, 0. Each statement is a short read of its own. Raises StoreUnavailable.
    """
    found = collect_by(database, given, span, () if column is None else (column,), bucket_ms)
    return {(at_ms, values[0] if values else ""): sums for (at_ms, values), sums in found.items()}


def collect_by(
    database: Database, given: LogFilter, span: Span, columns: Sequence[Column], bucket_ms: int | None = None
) -> dict[tuple[int, tuple[str, ...]], LogSums]:
    """As `collect`, by several columns at once: (bucket, their values)."""
    for column in columns:
        if column not in COLUMNS:
            raise ValueError(f"logs cannot be grouped by {column!r}; it must be one of {', '.join(COLUMNS)}")
    found: dict[tuple[int, tuple[str, ...]], LogSums] = {}
    days, edges = _parts(database, given, span, all(column in DAILY_COLUMNS for column in columns))
    if days is not None:
        for row in _days(database, given, days, columns, bucket_ms):
            _take(found, _bucket(_midnight(row[0]), bucket_ms) if bucket_ms else 0, row, len(columns))
    for edge in edges:
        for row in _calls(database, given, edge, columns, bucket_ms):
            _take(found, row[0], row, len(columns))
    return found


def collect_latencies(
    database: Database, given: LogFilter, span: Span, column: Column | None = None, bucket_ms: int | None = None
) -> dict[Key, dict[int, int]]:
    """How often which latency (milliseconds) was, of calls that were not refused, by bucket and column.

    Exact, but where daily sums are used: there a latency is the longest of its step, at most a sixteenth more than it was.
    """
    found: dict[Key, dict[int, int]] = {}
    fits = given.fits_daily and not any((given.virtual_key_ids, given.team_ids, given.customer_ids, given.models))
    days, edges = _parts(database, given, span, fits and column in (None, "provider"))
    if days is not None:
        where = where_daily(given, day_of(days.start_ms), day_of(days.end_ms - 1))
        with database.read() as connection:
            rows = connection.execute(
                f"SELECT day, provider, step, calls FROM daily_latencies {where.sql} AND calls > 0", where.values
            )
        for day, provider, step, calls in rows:
            _count(found, _bucket(_midnight(day), bucket_ms), provider if column else "", longest_in(step), calls)
    by = "''" if column is None else column
    bucket = _bucket_sql(bucket_ms)
    for edge in edges:
        where = where_calls(database.engine, given.within(edge.start_ms, edge.end_ms))
        where.add("status <> 'refused'")
        groups = "1, 2, 3" if column is not None else "1, 3"
        with database.read() as connection:
            rows = connection.execute(
                f"SELECT {bucket}, {by}, latency_ms, sum(count) FROM calls {where.sql} GROUP BY {groups}", where.values
            )
        for start_ms, value, latency_ms, calls in rows:
            latency = longest_in(step_of(latency_ms)) if days is not None else latency_ms
            _count(found, start_ms, value, latency, int(calls))
    return found


def _count(found: dict[Key, dict[int, int]], bucket_ms: int, value: str, latency_ms: int, calls: int) -> None:
    counts = found.setdefault((bucket_ms, value), {})
    counts[latency_ms] = counts.get(latency_ms, 0) + calls


def _parts(database: Database, given: LogFilter, span: Span, fits: bool) -> tuple[Span | None, Iterator[Span]]:
    """Whole days that the daily sums answer for, and the rest in pieces of at most a day."""
    days = span.whole_days() if fits and given.fits_daily and span.length_ms >= DAILY_FROM_MS else None
    if days is None:
        return None, _present(database, span).days() if span.length_ms > DAY_MS else iter((span,) if span.length_ms else ())
    edges = (Span(span.start_ms, days.start_ms), Span(days.end_ms, span.end_ms))
    return days, (edge for edge in edges if edge.length_ms)


def _present(database: Database, span: Span) -> Span:
    """The part of a time in which there are calls, so that empty days cost nothing."""
    with database.read() as connection:
        oldest = connection.execute("SELECT min(at_ms) FROM calls")[0][0]
        newest = connection.execute("SELECT max(at_ms) FROM calls")[0][0]
    if oldest is None:
        return Span(span.start_ms, span.start_ms)
    return Span(max(span.start_ms, oldest), min(span.end_ms, newest + 1))


def _days(database: Database, given: LogFilter, days: Span, columns: Sequence[Column], bucket_ms: int | None) -> list[Row]:
    where = where_daily(given, day_of(days.start_ms), day_of(days.end_ms - 1))
    keys = [*(("day",) if bucket_ms else ()), *columns]
    with database.read() as connection:
        return connection.execute(
            f"SELECT {'' if bucket_ms else '0, '}{''.join(f'{name}, ' for name in keys)}{OF_DAYS} FROM daily_costs {where.sql}"
            + (f" GROUP BY {', '.join(keys)}" if keys else ""),
            where.values,
        )


def _calls(database: Database, given: LogFilter, span: Span, columns: Sequence[Column], bucket_ms: int | None) -> list[Row]:
    where = where_calls(database.engine, given.within(span.start_ms, span.end_ms))
    keys = [*((_bucket_sql(bucket_ms),) if bucket_ms else ()), *columns]
    with database.read() as connection:
        return connection.execute(
            f"SELECT {'' if bucket_ms else '0, '}{''.join(f'{name}, ' for name in keys)}{OF_CALLS} FROM calls {where.sql}"
            + (f" GROUP BY {', '.join(keys)}" if keys else ""),
            where.values,
        )


def _take(found: dict[tuple[int, tuple[str, ...]], LogSums], at_ms: int, row: Row, size: int) -> None:
    """Adds a row of (bucket, the columns, the sums)."""
    sums = sums_of(row[1 + size :])
    if sums == _NOTHING:
        return
    key = (at_ms, row[1 : 1 + size])
    if key in found:
        found[key].add(sums)
    else:
        found[key] = sums


def _bucket(at_ms: int, bucket_ms: int | None) -> int:
    return at_ms // bucket_ms * bucket_ms if bucket_ms else 0


def _bucket_sql(bucket_ms: int | None) -> str:
    return f"at_ms / {int(bucket_ms)} * {int(bucket_ms)}" if bucket_ms else "0"


@lru_cache(4096)
def _midnight(day: str) -> int:
    return round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def sums_of_everything(database: Database) -> dict[tuple[str, ...], LogSums]:
    """Sums over all days by key, team, customer, provider and model; also of calls that are no more in the logs.

    Raises StoreUnavailable.
    """
    size = len(DAILY_COLUMNS)
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT {', '.join(DAILY_COLUMNS)}, {OF_DAYS} FROM total_sums GROUP BY {', '.join(DAILY_COLUMNS)}"
        )
    return {row[:size]: sums_of(row[size:]) for row in rows}
