"""Stretches of time: merged, cut to a range, asked whether they hold an instant, and by day."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from store.reconcile.types import DAY_MS, Span


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same time without overlaps, ascending; stretches that touch become one."""
    made: list[Span] = []
    for start, end in sorted(spans):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return tuple(made)


def within(spans: Iterable[Span], limits: Span) -> tuple[Span, ...]:
    """What of it lies inside `limits`."""
    cut = ((max(start, limits[0]), min(end, limits[1])) for start, end in spans)
    return tuple((start, end) for start, end in cut if start < end)


def day_of(at_ms: int) -> str:
    """The UTC day of an instant, `2026-11-20`."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d")


def days(spans: Iterable[Span]) -> Iterator[int]:
    """The start of every UTC day that the time touches, ascending."""
    last = None
    for start, end in spans:
        first = start // DAY_MS
        for day in range(first if last is None else max(first, last + 1), (end - 1) // DAY_MS + 1):
            last = day
            yield day * DAY_MS


class Coverage:
    """Whether an instant lies in the time that an export was asked about."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = merged(spans)
        self._starts = [start for start, _ in self.spans]

    def __contains__(self, at_ms: int) -> bool:
        place = bisect_right(self._starts, at_ms) - 1
        return place >= 0 and at_ms < self.spans[place][1]

    def __bool__(self) -> bool:
        return bool(self.spans)

    def touches(self, day_ms: int) -> bool:
        """Whether any of a day is covered."""
        return any(start < day_ms + DAY_MS and end > day_ms for start, end in self.spans)

    def covers(self, day_ms: int) -> bool:
        """Whether a whole day is covered."""
        return any(start <= day_ms and end >= day_ms + DAY_MS for start, end in self.spans)
