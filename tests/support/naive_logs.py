"""Reports on calls as anybody would work them out by hand from a plain list, for comparison with those of the product."""

import math
from collections.abc import Callable, Iterable

from store.logs.types import CallRow

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def bucket_width(length_ms: int) -> int:
    """How wide buckets are, from Bifrost's table."""
    if length_ms < 2 * HOUR:
        return MINUTE
    if length_ms < 24 * HOUR:
        return 10 * MINUTE
    if length_ms < 3 * DAY:
        return HOUR
    if length_ms < 7 * DAY:
        return 8 * HOUR
    if length_ms <= 31 * DAY:
        return DAY
    if length_ms < 90 * DAY:
        return 3 * DAY
    return 7 * DAY if length_ms < 365 * DAY else 30 * DAY


def in_time(rows: Iterable[CallRow], start_ms: int, end_ms: int) -> list[CallRow]:
    return [row for row in rows if start_ms <= row.at_ms < end_ms]


def figures(rows: Iterable[CallRow]) -> dict[str, int]:
    """Every sum, by name."""
    rows = list(rows)
    let_through = [row for row in rows if row.status != "refused"]
    return {
        "calls": sum(row.count for row in rows),
        "succeeded": sum(row.count for row in rows if row.status == "success"),
        "refused": sum(row.count for row in rows if row.status == "refused"),
        "failed": sum(row.count for row in rows if row.status == "error"),
        "cancelled": sum(row.count for row in rows if row.status == "cancelled"),
        "unpriced": sum(row.count for row in let_through if not row.priced),
        "cost_nanos": sum(row.cost_nanos for row in rows),
        "input_tokens": sum(row.input_tokens for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "cache_read_tokens": sum(row.cache_read_tokens for row in rows),
        "cache_write_tokens": sum(row.cache_write_tokens for row in rows),
        "reasoning_tokens": sum(row.reasoning_tokens for row in rows),
        "timed": sum(row.count for row in let_through),
        "latency_ms": sum(row.latency_ms for row in let_through),
    }


def by(rows: Iterable[CallRow], key: Callable[[CallRow], object]) -> dict[object, list[CallRow]]:
    made: dict[object, list[CallRow]] = {}
    for row in rows:
        made.setdefault(key(row), []).append(row)
    return made


def nearest_rank(values: list[int], percent: int) -> int:
    """The value at the rank that so many percent of all come up to."""
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1] if values else 0
