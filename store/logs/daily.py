"""Daily sums by key, team, customer, provider and model. Added up here, never in the database's 64-bit arithmetic."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from store.database import Connection
from store.logs.types import CallRow
from store.money import MAX_NANOS

type DailyKey = tuple[str, str, str, str, str, str]
"""Day (`2026-11-23`, UTC), virtual key, team, customer, provider, model; ids, the last two names."""

_DAY_MS = 86_400_000
_KEYS = "day, virtual_key_id, team_id, customer_id, provider, model"
_SUMS = "calls, refused, failed, unpriced, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_nanos"
_SUM_NAMES = _SUMS.split(", ")


@dataclass(slots=True)
class DailySums:
    """Sums of one key. Money in nano-dollars."""

    calls: int = 0
    refused: int = 0
    failed: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nanos: int = 0

    def is_zero(self) -> bool:
        """True when adding these sums would change nothing."""
        return not any(getattr(self, name) for name in _SUM_NAMES)


class DailyChanges:
    """Collects what a batch changes, to be written once."""

    def __init__(self) -> None:
        self._sums: dict[DailyKey, DailySums] = {}

    def add(self, row: CallRow, sign: int = 1) -> None:
        """Count a `bounded` row, or take it out again with `sign` -1."""
        sums = self._sums.setdefault(daily_key(row), DailySums())
        count = sign * row.count
        if row.status == "refused":
            sums.refused += count
        else:
            sums.calls += count
            sums.failed += count if row.status == "error" else 0
            sums.unpriced += 0 if row.priced else count
        sums.input_tokens += sign * row.input_tokens
        sums.output_tokens += sign * row.output_tokens
        sums.cache_read_tokens += sign * row.cache_read_tokens
        sums.cache_write_tokens += sign * row.cache_write_tokens
        sums.cost_nanos += sign * row.cost_nanos

    def write(self, connection: Connection) -> None:
        """Apply the changes inside the caller's transaction."""
        changes = {key: sums for key, sums in self._sums.items() if not sums.is_zero()}
        if not changes:
            return
        stored = _read(connection, changes)
        rows = []
        for key, change in changes.items():
            before = stored.get(key, (0,) * len(_SUM_NAMES))
            after = [_bounded(old + getattr(change, name)) for old, name in zip(before, _SUM_NAMES, strict=True)]
            rows.append((*key, *after))
        updates = ", ".join(f"{name} = excluded.{name}" for name in _SUM_NAMES)
        marks = ", ".join("?" * (6 + len(_SUM_NAMES)))
        connection.executemany(
            f"INSERT INTO daily_costs ({_KEYS}, {_SUMS}) VALUES ({marks}) ON CONFLICT ({_KEYS}) DO UPDATE SET {updates}", rows
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


def _read(connection: Connection, keys: Iterable[DailyKey]) -> dict[DailyKey, tuple[int, ...]]:
    names = _KEYS.split(", ")
    match = " AND ".join(f"d.{name} = k.c{index}" for index, name in enumerate(names))
    rows = connection.execute(
        f"SELECT {_KEYS}, {_SUMS} FROM {connection.rowset(*('text',) * len(names))} AS k CROSS JOIN daily_costs AS d ON {match}",
        (orjson.dumps(list(keys)).decode(),),
    )
    return {(row[0], row[1], row[2], row[3], row[4], row[5]): row[6:] for row in rows}


def _bounded(amount: int) -> int:
    return max(-MAX_NANOS, min(MAX_NANOS, amount))
