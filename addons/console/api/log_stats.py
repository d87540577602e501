"""`/api/logs/stats`, histograms, rankings, lists of values and the dashboard: sums over calls, which add up to one another."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

from addons.console.api.log_answers import (
    Cost,
    Counts,
    Latency,
    LogStats,
    Ranking,
    Throughput,
    Tokens,
    cost_json,
    counts_json,
    latency_json,
    ranking_json,
    stats_json,
    throughput_json,
    tokens_json,
)
from addons.console.api.log_names import names_of
from addons.console.api.log_query import (
    DimensionQuery,
    DimensionRankingsQuery,
    LogFilterQuery,
    RankingsQuery,
    log_database,
)
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import iso_utc
from store.config_store.shapes import Json
from store.errors import UserError
from store.logs.collect import Column, collect, whole_span
from store.logs.filters import LogFilter
from store.logs.histograms import Histogram, LatencyHistogram, histogram, latency_histogram
from store.logs.lost import lost_rows
from store.logs.rankings import Dimension, Ranked, rankings
from store.logs.sums import LogSums

PLACES = 25
MAX_PLACES = 1_000

type Measure = Literal["count", "tokens", "cost", "models", "latency", "throughput"]
type Part = Callable[[LogSums, int], Any]

_PARTS: dict[Measure, Part] = {
    "count": lambda sums, _: counts_json(sums),
    "tokens": lambda sums, _: tokens_json(sums),
    "cost": lambda sums, _: cost_json(sums),
    "models": lambda sums, _: counts_json(sums),
    "throughput": lambda sums, bucket_ms: throughput_json(sums, bucket_ms),
}
_BY_MODEL = ("cost", "models")
_DIMENSIONS: dict[str, Column] = {
    "provider": "provider",
    "model": "model",
    "virtual_key_id": "virtual_key_id",
    "team_id": "team_id",
    "customer_id": "customer_id",
    "status": "status",
    "object": "operation",
}


class Bucket(TypedDict):
    timestamp: str


class CountBucket(Bucket, Counts):
    pass


class TokenBucket(Bucket, Tokens):
    pass


class CostBucket(Bucket, Cost):
    by_model: dict[str, Any]


class ModelBucket(Bucket):
    by_model: dict[str, Counts]


class LatencyBucket(Bucket, Latency):
    pass


class ThroughputBucket(Bucket, Throughput):
    pass


class ProviderBucket(Bucket):
    by_provider: dict[str, dict[str, Any]]


class DimensionBucket(Bucket):
    by_dimension: dict[str, dict[str, Any]]


class CountHistogram(TypedDict):
    buckets: list[CountBucket]
    bucket_size_seconds: int


class TokenHistogram(TypedDict):
    buckets: list[TokenBucket]
    bucket_size_seconds: int


class CostHistogram(TypedDict):
    buckets: list[CostBucket]
    bucket_size_seconds: int
    models: list[str]


class ModelHistogram(TypedDict):
    buckets: list[ModelBucket]
    bucket_size_seconds: int
    models: list[str]


class LatencyAnswer(TypedDict):
    buckets: list[LatencyBucket]
    bucket_size_seconds: int


class ThroughputHistogram(TypedDict):
    buckets: list[ThroughputBucket]
    bucket_size_seconds: int


class ProviderHistogram(TypedDict):
    buckets: list[ProviderBucket]
    bucket_size_seconds: int
    providers: list[str]


class DimensionHistogram(TypedDict):
    buckets: list[DimensionBucket]
    bucket_size_seconds: int
    dimension: str
    dimension_values: list[str]


class Rankings(TypedDict):
    rankings: list[Ranking]


class DimensionRankings(TypedDict):
    rankings: list[Ranking]
    dimension: str
    total_count: int


class Dropped(TypedDict):
    dropped_requests: int


class StatsHandler(ConsoleHandler):
    """Sums over a time."""

    @operation("Sums over the calls that a filter finds", query=LogFilterQuery, answer=LogStats)
    async def get(self) -> None:
        given = self.query_as(LogFilterQuery).log_filter(self.context.store.clock.now_ms())
        self.send(stats_json(await self.on_thread(sums_over, self.context, given)))


class DroppedHandler(ConsoleHandler):
    """Rows that never reached the logs."""

    @operation("How many log rows were lost; those of charged calls came back from the ledger", answer=Dropped)
    async def get(self) -> None:
        self.send({"dropped_requests": await self.on_thread(lost_rows, log_database(self.context))})


class _HistogramHandler(ConsoleHandler):
    """Buckets of one measure."""

    measure: Measure = "count"

    async def _answer(self) -> None:
        given = self.query_as(LogFilterQuery).log_filter(self.context.store.clock.now_ms())
        self.send(await self.on_thread(histogram_json, self.context, given, self.measure))


class CountHandler(_HistogramHandler):
    measure = "count"

    @operation("Calls over time, by how they ended", query=LogFilterQuery, answer=CountHistogram)
    async def get(self) -> None:
        await self._answer()


class TokensHandler(_HistogramHandler):
    measure = "tokens"

    @operation("Tokens over time", query=LogFilterQuery, answer=TokenHistogram)
    async def get(self) -> None:
        await self._answer()


class CostHandler(_HistogramHandler):
    measure = "cost"

    @operation("Cost over time, in all and by model", query=LogFilterQuery, answer=CostHistogram)
    async def get(self) -> None:
        await self._answer()


class ModelsHandler(_HistogramHandler):
    measure = "models"

    @operation("Calls over time by model", query=LogFilterQuery, answer=ModelHistogram)
    async def get(self) -> None:
        await self._answer()


class LatencyHandler(_HistogramHandler):
    measure = "latency"

    @operation("Latency over time: average and percentiles by nearest rank", query=LogFilterQuery, answer=LatencyAnswer)
    async def get(self) -> None:
        await self._answer()


class ThroughputHandler(_HistogramHandler):
    measure = "throughput"

    @operation("Calls and tokens a second over time", query=LogFilterQuery, answer=ThroughputHistogram)
    async def get(self) -> None:
        await self._answer()


class ByProviderHandler(ConsoleHandler):
    """One measure, split by provider."""

    def initialize(self, measure: Measure = "count") -> None:
        """Which measure."""
        self.measure: Measure = measure

    @operation("The same, split by provider", query=LogFilterQuery, answer=ProviderHistogram)
    async def get(self) -> None:
        given = self.query_as(LogFilterQuery).log_filter(self.context.store.clock.now_ms())
        buckets, seconds, values = await self.on_thread(split_json, self.context, given, self.measure, "provider", "by_provider")
        self.send({"buckets": buckets, "bucket_size_seconds": seconds, "providers": values})


class ByDimensionHandler(ByProviderHandler):
    """One measure, split by whatever is asked for."""

    @operation("The same, split by a dimension", query=DimensionQuery, answer=DimensionHistogram)
    async def get(self) -> None:
        query = self.query_as(DimensionQuery)
        given = query.log_filter(self.context.store.clock.now_ms())
        column = _DIMENSIONS[query.dimension]
        buckets, seconds, values = await self.on_thread(split_json, self.context, given, self.measure, column, "by_dimension")
        self.send(
            {
                "buckets": buckets,
                "bucket_size_seconds": seconds,
                "dimension": query.dimension,
                "dimension_values": values,
            }
        )


class RankingsHandler(ConsoleHandler):
    """Models, dearest first."""

    @operation("Models by what they cost, with the change against the time before", query=RankingsQuery, answer=Rankings)
    async def get(self) -> None:
        query = self.query_as(RankingsQuery)
        given = query.log_filter(self.context.store.clock.now_ms())
        found = await self.on_thread(rankings_json, self.context, given, "model")
        self.send({"rankings": found[: places(query)]})


class DimensionRankingsHandler(ConsoleHandler):
    """Keys, teams, customers, programs, …, dearest first."""

    @operation("Keys, teams, customers or programs by what they cost", query=DimensionRankingsQuery, answer=DimensionRankings)
    async def get(self) -> None:
        query = self.query_as(DimensionRankingsQuery)
        given = query.log_filter(self.context.store.clock.now_ms())
        found = await self.on_thread(rankings_json, self.context, given, query.dimension)
        self.send({"rankings": found[: places(query)], "dimension": query.dimension, "total_count": len(found)})


def places(query: RankingsQuery) -> int | None:
    """How many are shown; None for all. Raises UserError."""
    if query.all:
        return None
    if (query.limit or 0) > MAX_PLACES:
        raise UserError(f"limit: must be at most {MAX_PLACES}; all=true gives every place")
    return query.limit or PLACES


def sums_over(context: ConsoleContext, given: LogFilter) -> LogSums:
    """All the calls together. Blocks."""
    database = log_database(context)
    span = whole_span(database, given, context.store.clock.now_ms())
    return collect(database, given, span).get((0, ""), LogSums())


def histogram_json(context: ConsoleContext, given: LogFilter, measure: Measure) -> Json:
    """One measure over time. Blocks."""
    database, now_ms = log_database(context), context.store.clock.now_ms()
    if measure == "latency":
        return latencies_json(latency_histogram(database, given, now_ms))
    return sums_json(histogram(database, given, now_ms, "model" if measure in _BY_MODEL else None), measure)


def split_json(
    context: ConsoleContext, given: LogFilter, measure: Measure, column: Column, name: str
) -> tuple[list[Json], int, list[str]]:
    """One measure over time by the values of a column: (buckets, their width in seconds, the values). Blocks."""
    database, now_ms = log_database(context), context.store.clock.now_ms()
    if measure == "latency":
        return latencies_split(latency_histogram(database, given, now_ms, column), name)
    return sums_split(histogram(database, given, now_ms, column), measure, name)


def latencies_json(found: LatencyHistogram) -> Json:
    """Latencies over time."""
    rows = [{"timestamp": iso_utc(at_ms), **latency_json(found.at(at_ms))} for at_ms in found.starts]
    return {"buckets": rows, "bucket_size_seconds": found.bucket_ms // 1000}


def latencies_split(found: LatencyHistogram, name: str) -> tuple[list[Json], int, list[str]]:
    """Latencies over time by value, as `split_json`."""
    rows: list[Json] = [
        {
            "timestamp": iso_utc(at_ms),
            name: {value: latency_json(found.at(at_ms, value)) for value in found.values if (at_ms, value) in found.points},
        }
        for at_ms in found.starts
    ]
    return rows, found.bucket_ms // 1000, list(found.values)


def sums_json(found: Histogram, measure: Measure) -> Json:
    """One measure of sums over time; `cost` and `models` take sums by model."""
    rows = [_bucket(found, at_ms, measure) for at_ms in found.starts]
    answer: Json = {"buckets": rows, "bucket_size_seconds": found.bucket_ms // 1000}
    return {**answer, "models": list(found.values)} if measure in _BY_MODEL else answer


def sums_split(found: Histogram, measure: Measure, name: str) -> tuple[list[Json], int, list[str]]:
    """One measure of sums over time by value, as `split_json`."""
    rows: list[Json] = [{"timestamp": iso_utc(at_ms), name: _parts(found, at_ms, measure)} for at_ms in found.starts]
    return rows, found.bucket_ms // 1000, list(found.values)


def _bucket(found: Histogram, at_ms: int, measure: Measure) -> Json:
    made: Json = {"timestamp": iso_utc(at_ms)}
    if measure != "models":
        made.update(_PARTS[measure](found.whole(at_ms), found.bucket_ms))
    if measure in _BY_MODEL:
        parts = _parts(found, at_ms, measure)
        made["by_model"] = {value: part["total_cost"] for value, part in parts.items()} if measure == "cost" else parts
    return made


def _parts(found: Histogram, at_ms: int, measure: Measure) -> Json:
    part = _PARTS[measure]
    return {value: part(found.at(at_ms, value), found.bucket_ms) for value in found.values if (at_ms, value) in found.sums}


def rankings_json(context: ConsoleContext, given: LogFilter, dimension: Dimension) -> list[Json]:
    """Every place, with names where things have one. Blocks."""
    return places_json(context, dimension, rankings(log_database(context), given, context.store.clock.now_ms(), dimension))


def places_json(context: ConsoleContext, dimension: Dimension, found: Sequence[Ranked]) -> list[Json]:
    """Places with names where things have one. Blocks."""
    if dimension == "model":
        return [{"model": one.value, **ranking_json(one.sums, one.before)} for one in found]
    names = names_of(context, dimension, [one.value for one in found])
    return [{"id": one.value, "name": names.get(one.value, one.value), **ranking_json(one.sums, one.before)} for one in found]


_MEASURES: tuple[tuple[str, Measure, type[ConsoleHandler]], ...] = (
    ("", "count", CountHandler),
    ("/tokens", "tokens", TokensHandler),
    ("/cost", "cost", CostHandler),
    ("/models", "models", ModelsHandler),
    ("/latency", "latency", LatencyHandler),
    ("/throughput", "throughput", ThroughputHandler),
)

ROUTES = (
    Route("/api/logs/stats", StatsHandler),
    Route("/api/logs/dropped", DroppedHandler),
    Route("/api/logs/rankings", RankingsHandler),
    Route("/api/logs/rankings/by-dimension", DimensionRankingsHandler),
    *(Route(f"/api/logs/histogram{path}", handler) for path, _, handler in _MEASURES),
    *(Route(f"/api/logs/histogram{path}/by-provider", ByProviderHandler, {"measure": measure}) for path, measure, _ in _MEASURES),
    *(Route(f"/api/logs/histogram{path}/by-dimension", ByDimensionHandler, {"measure": measure}) for path, measure, _ in _MEASURES),
)
