"""Sums and latencies over time, bucket by bucket, empty ones among them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from store.database import Database
from store.logs.collect import Column, collect, collect_latencies, whole_span
from store.logs.filters import LogFilter
from store.logs.latencies import percentiles
from store.logs.periods import Span
from store.logs.sums import LogSums

PERCENTS = (90, 95, 99)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Sums by bucket. `values` are those of the column asked for, sorted; one empty value when none was."""

    span: Span
    bucket_ms: int
    starts: range
    values: tuple[str, ...]
    sums: dict[tuple[int, str], LogSums]
    """By (bucket's start, value); where nothing was there is no entry."""

    def at(self, start_ms: int, value: str = "") -> LogSums:
        """The sums of one bucket and value."""
        return self.sums.get((start_ms, value)) or LogSums()

    def whole(self, start_ms: int) -> LogSums:
        """The sums of one bucket over all values."""
        total = LogSums()
        for value in self.values:
            if found := self.sums.get((start_ms, value)):
                total.add(found)
        return total


@dataclass(frozen=True, slots=True)
class LatencyPoint:
    """Latencies of the calls of one bucket that were not refused, in milliseconds. Percentiles by nearest rank."""

    calls: int = 0
    average_ms: float = 0.0
    p90_ms: int = 0
    p95_ms: int = 0
    p99_ms: int = 0


@dataclass(frozen=True, slots=True)
class LatencyHistogram:
    """Latencies by bucket; `values` as in `Histogram`."""

    span: Span
    bucket_ms: int
    starts: range
    values: tuple[str, ...]
    points: dict[tuple[int, str], LatencyPoint]

    def at(self, start_ms: int, value: str = "") -> LatencyPoint:
        """One bucket and value."""
        return self.points.get((start_ms, value)) or LatencyPoint()


def histogram(database: Database, given: LogFilter, now_ms: int, column: Column | None = None) -> Histogram:
    """Sums by bucket and column. Raises UserError for more buckets than `periods.MAX_BUCKETS`, StoreUnavailable."""
    span = whole_span(database, given, now_ms)
    starts = span.buckets()
    found = collect(database, given, span, column, span.bucket_ms)
    return Histogram(span, span.bucket_ms, starts, _values(found, column), found)


def latency_histogram(database: Database, given: LogFilter, now_ms: int, column: Column | None = None) -> LatencyHistogram:
    """Latencies by bucket and column. Raises as `histogram`."""
    span = whole_span(database, given, now_ms)
    span.buckets()
    sums = collect(database, given, span, column, span.bucket_ms)
    counts = collect_latencies(database, given, span, column, span.bucket_ms)
    return latencies_of(span, counts, sums, _values(counts, column))


def latencies_of(
    span: Span,
    counts: Mapping[tuple[int, str], Mapping[int, int]],
    sums: Mapping[tuple[int, str], LogSums],
    values: tuple[str, ...],
) -> LatencyHistogram:
    """The histogram of latencies that were counted, with averages from the sums of the same buckets."""
    points = {
        key: LatencyPoint(sums[key].timed if key in sums else 0, _average(sums.get(key)), *percentiles(some.items(), PERCENTS))
        for key, some in counts.items()
    }
    return LatencyHistogram(span, span.bucket_ms, span.buckets(), values, points)


def _average(sums: LogSums | None) -> float:
    return sums.average_latency_ms if sums is not None else 0.0


def _values(found: Iterable[tuple[int, str]], column: Column | None) -> tuple[str, ...]:
    if column is None:
        return ("",)
    return tuple(sorted({value for _, value in found}))
