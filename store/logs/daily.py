"""Sums by key, team, customer, provider and model, per day and over all days. Added up here, never in 64-bit arithmetic."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from store.database import Connection
from store.logs.latencies import step_of
from store.logs.types import CallRow
from store.money import MAX_NANOS

type OwnerKey = tuple[str, str, str, str, str]
"""Virtual key, team, customer, provider, model; ids, the last two names."""
type DailyKey = tuple[str, str, str, str, str, str]
"""Day (`2026-11-23`, UTC), then as `OwnerKey`."""

_DAY_MS = 86_400_000
_OWNER = ("virtual_key_id", "team_id", "customer_id", "provider", "model")
_SUM_NAMES = (
    "calls",
    "refused",
    "failed",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_nanos",
    "succeeded",
    "cancelled",
    "reasoning_tokens",
    "timed",
    "latency_ms",
)


@dataclass(slots=True)
class DailySums:
    """Sums of one key. Money in nano-dollars."""

    calls: int = 0
    """Refused ones are not among them."""
    refused: int = 0
    failed: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nanos: int = 0
    succeeded: int = 0
    cancelled: int = 0
    reasoning_tokens: int = 0
    timed: int = 0
    """Calls whose latency is in `latency_ms`."""
    latency_ms: int = 0

    def is_zero(self) -> bool:
        """True when adding these sums would change nothing."""
        return not any(getattr(self, name) for name in _SUM_NAMES)

    def add(self, other: "DailySums") -> None:
        """Takes in the sums of another key."""
        for name in _SUM_NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class DailyChanges:
    """Collects what a batch changes, to be written once."""

    def __init__(self) -> None:
        self._sums: dict[DailyKey, DailySums] = {}
        self._latencies: Counter[tuple[str, str, int]] = Counter()

    def add(self, row: CallRow, sign: int = 1) -> None:
        """Count a `bounded` row, or take it out again with `sign` -1."""
        sums = self._sums.setdefault(daily_key(row), DailySums())
        count = sign * row.count
        if row.status == "refused":
            sums.refused += count
        else:
            sums.calls += count
            sums.failed += count if row.status == "error" else 0
            sums.succeeded += count if row.status == "success" else 0
            sums.cancelled += count if row.status == "cancelled" else 0
            sums.unpriced += 0 if row.priced else count
            sums.timed += count
            sums.latency_ms += sign * row.latency_ms
            self._latencies[day_of(row.at_ms), row.provider, step_of(row.latency_ms)] += count
        sums.input_tokens += sign * row.input_tokens
        sums.output_tokens += sign * row.output_tokens
        sums.cache_read_tokens += sign * row.cache_read_tokens
        sums.cache_write_tokens += sign * row.cache_write_tokens
        sums.reasoning_tokens += sign * row.reasoning_tokens
        sums.cost_nanos += sign * row.cost_nanos

    def write(self, connection: Connection) -> None:
        """Apply the changes inside the caller's transaction."""
        changes = {key: sums for key, sums in self._sums.items() if not sums.is_zero()}
        if changes:
            totals: dict[OwnerKey, DailySums] = {}
            for key, sums in changes.items():
                totals.setdefault(key[1:], DailySums()).add(sums)
            _apply(connection, "daily_costs", ("day", *_OWNER), changes)
            _apply(connection, "total_sums", _OWNER, totals)
        steps = [(*key, count) for key, count in self._latencies.items() if count]
        if steps:
            keys = ("day", "provider", "step")
            _put(connection, "daily_latencies", keys, ("calls",), steps, "calls = daily_latencies.calls + excluded.calls")


def _apply(
    connection: Connection, table: str, keys: Sequence[str], changes: Mapping[OwnerKey, DailySums] | Mapping[DailyKey, DailySums]
) -> None:
    stored = _read(connection, table, keys, changes)
    rows = []
    for key, change in changes.items():
        before = stored.get(key, (0,) * len(_SUM_NAMES))
        after = [_bounded(old + getattr(change, name)) for old, name in zip(before, _SUM_NAMES, strict=True)]
        rows.append((*key, *after))
    _put(connection, table, keys, _SUM_NAMES, rows, ", ".join(f"{name} = excluded.{name}" for name in _SUM_NAMES))


def _put(
    connection: Connection, table: str, keys: Sequence[str], sums: Sequence[str], rows: Sequence[Sequence[object]], update: str
) -> None:
    """Writes all rows in one statement: on PostgreSQL one for each would be a round trip for each."""
    types = [*("bigint" if name == "step" else "text" for name in keys), *("bigint" for _ in sums)]
    marks = ", ".join(f"c{index}" for index in range(len(types)))
    connection.execute(
        f"INSERT INTO {table} ({', '.join((*keys, *sums))}) SELECT {marks} FROM {connection.rowset(*types)} AS k WHERE true "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {update}",
        (orjson.dumps(rows).decode(),),
    )


def daily_key(row: CallRow) -> DailyKey:
    """Where a row is counted."""
    return day_of(row.at_ms), row.virtual_key_id, row.team_id, row.customer_id, row.provider, row.model


def day_of(at_ms: int) -> str:
    """The UTC day of an instant."""
    return _day(at_ms // _DAY_MS)


@lru_cache(maxsize=64)
def _day(days: int) -> str:
    return datetime.fromtimestamp(days * 86_400, UTC).strftime("%Y-%m-%d")


def _read(
    connection: Connection, table: str, names: Sequence[str], keys: Iterable[tuple[str, ...]]
) -> dict[tuple[str, ...], tuple[int, ...]]:
    match = " AND ".join(f"d.{name} = k.c{index}" for index, name in enumerate(names))
    rows = connection.execute(
        f"SELECT {', '.join((*names, *_SUM_NAMES))} FROM {connection.rowset(*('text',) * len(names))} AS k "
        f"CROSS JOIN {table} AS d ON {match}",
        (orjson.dumps(list(keys)).decode(),),
    )
    return {row[: len(names)]: row[len(names) :] for row in rows}


def _bounded(amount: int) -> int:
    return max(-MAX_NANOS, min(MAX_NANOS, amount))
