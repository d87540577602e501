"""A whole page of reports on one time, with each call looked at as few times as possible."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from store.database import Database
from store.logs.collect import Column, collect_by, collect_latencies, whole_span
from store.logs.filters import LogFilter
from store.logs.histograms import Histogram, LatencyHistogram, latencies_of
from store.logs.periods import Span
from store.logs.rankings import Dimension, Ranked, ranked
from store.logs.sums import LogSums

_RANKED: tuple[tuple[Dimension, Column], ...] = (
    ("model", "model"),
    ("provider", "provider"),
    ("virtual_key", "virtual_key_id"),
    ("team", "team_id"),
    ("customer", "customer_id"),
)
type ByOwner = Mapping[tuple[int, tuple[str, ...]], LogSums]

_COLUMNS: tuple[Column, ...] = tuple(column for _, column in _RANKED)


@dataclass(frozen=True, slots=True)
class Overview:
    """Reports on one time, which add up to `total`."""

    span: Span
    total: LogSums
    by_model: Histogram
    by_provider: Histogram
    latency: LatencyHistogram
    latency_by_provider: LatencyHistogram
    rankings: Mapping[Dimension, list[Ranked]]


def overview(database: Database, given: LogFilter, now_ms: int) -> Overview:
    """All of it. Raises UserError for too many buckets, StoreUnavailable."""
    span = whole_span(database, given, now_ms)
    starts, width_ms = span.buckets(), span.bucket_ms
    known = given.start_ms is not None and span.before.start_ms >= 0
    # Beside one another: most of the time is the database's own.
    with ThreadPoolExecutor(4, thread_name_prefix="report") as pool:
        asked = pool.submit(collect_by, database, given, span, ("provider", "model"), width_ms)
        asked_latencies = pool.submit(collect_latencies, database, given, span, "provider", width_ms)
        asked_now = pool.submit(collect_by, database, given, span, _COLUMNS)
        asked_before = pool.submit(collect_by, database, given, span.before, _COLUMNS) if known else None
        found, counts, now = asked.result(), asked_latencies.result(), asked_now.result()
        before = asked_before.result() if asked_before is not None else None
    by_provider = _merged((at_ms, values[0], sums) for (at_ms, values), sums in found.items())
    by_model = _merged((at_ms, values[1], sums) for (at_ms, values), sums in found.items())
    total = LogSums()
    for sums in found.values():
        total.add(sums)
    return Overview(
        span,
        total,
        Histogram(span, width_ms, starts, _values(by_model), by_model),
        Histogram(span, width_ms, starts, _values(by_provider), by_provider),
        latencies_of(span, _merged_counts(counts), _merged((at_ms, "", sums) for (at_ms, _), sums in by_provider.items()), ("",)),
        latencies_of(span, counts, by_provider, _values(counts)),
        _rankings(now, before),
    )


def _rankings(now: ByOwner, before: ByOwner | None) -> Mapping[Dimension, list[Ranked]]:
    return {
        dimension: ranked(_one_column(now, index), None if before is None else _one_column(before, index))
        for index, (dimension, _) in enumerate(_RANKED)
    }


def _one_column(found: ByOwner, index: int) -> dict[str, LogSums]:
    merged = _merged((at_ms, values[index], sums) for (at_ms, values), sums in found.items())
    return {value: sums for (_, value), sums in merged.items()}


def _merged(parts: Iterable[tuple[int, str, LogSums]]) -> dict[tuple[int, str], LogSums]:
    made: dict[tuple[int, str], LogSums] = {}
    for at_ms, value, sums in parts:
        made.setdefault((at_ms, value), LogSums()).add(sums)
    return made


def _merged_counts(counts: Mapping[tuple[int, str], Mapping[int, int]]) -> dict[tuple[int, str], dict[int, int]]:
    made: dict[tuple[int, str], dict[int, int]] = {}
    for (at_ms, _), some in counts.items():
        into = made.setdefault((at_ms, ""), {})
        for latency_ms, calls in some.items():
            into[latency_ms] = into.get(latency_ms, 0) + calls
    return made


def _values(found: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(sorted({value for _, value in found}))
