"""`/api/logs/filterdata` and `/api/logs/dashboard`: the values to filter by, and one payload for a whole page."""

from typing import Any, NotRequired, TypedDict

from addons.console.api.log_answers import LogStats, Ranking, stats_json
from addons.console.api.log_names import names_of
from addons.console.api.log_query import FilterDataQuery, RankingsQuery, log_database
from addons.console.api.log_stats import (
    CostHistogram,
    CountHistogram,
    LatencyAnswer,
    Measure,
    ModelHistogram,
    ProviderHistogram,
    ThroughputHistogram,
    TokenHistogram,
    latencies_json,
    latencies_split,
    places,
    places_json,
    sums_json,
    sums_split,
)
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import iso_utc
from store.config_store.shapes import Json
from store.errors import UserError
from store.logs.facets import facets
from store.logs.filters import LogFilter
from store.logs.overview import overview

_NAMED = {
    "virtual_keys": ("virtual_key_id", "virtual_key"),
    "selected_keys": ("provider_key_id", "selected_key"),
    "routing_rules": ("routing_rule_id", "routing_rule"),
    "teams": ("team_id", "team"),
    "customers": ("customer_id", "customer"),
}
_PLAIN = {
    "models": "model",
    "providers": "provider",
    "status": "status",
    "stop_reasons": "stop_reason",
    "refusal_types": "refusal_type",
    "objects": "operation",
    "user_agents": "client",
    "apps": "client",
    "runs": "run_id",
}
_SPLITS: dict[str, Measure] = {"requests": "count", "tokens": "tokens", "cost": "cost", "throughput": "throughput"}
_OVERVIEW: dict[str, Measure] = {**_SPLITS, "models": "models"}
_EMPTY = ("aliases", "routing_engines", "users", "business_units", "metadata_keys")
"""Bifrost's lists of things that do not exist here."""


class IdName(TypedDict):
    id: str
    name: str


class FilterData(TypedDict):
    """The lists that were asked for."""

    models: NotRequired[list[str]]
    providers: NotRequired[list[str]]
    status: NotRequired[list[str]]
    stop_reasons: NotRequired[list[str]]
    refusal_types: NotRequired[list[str]]
    objects: NotRequired[list[str]]
    user_agents: NotRequired[list[str]]
    apps: NotRequired[list[str]]
    runs: NotRequired[list[str]]
    virtual_keys: NotRequired[list[IdName]]
    selected_keys: NotRequired[list[IdName]]
    routing_rules: NotRequired[list[IdName]]
    teams: NotRequired[list[IdName]]
    customers: NotRequired[list[IdName]]
    aliases: NotRequired[list[str]]
    routing_engines: NotRequired[list[str]]
    users: NotRequired[list[IdName]]
    business_units: NotRequired[list[IdName]]
    metadata_keys: NotRequired[dict[str, Any]]


class DashboardMeta(TypedDict):
    start_time: str
    end_time: str
    bucket_size_seconds: int


class DashboardOverview(TypedDict):
    stats: LogStats
    requests: CountHistogram
    tokens: TokenHistogram
    cost: CostHistogram
    models: ModelHistogram
    latency: LatencyAnswer
    throughput: ThroughputHistogram


class ProviderUsage(TypedDict):
    requests: ProviderHistogram
    tokens: ProviderHistogram
    cost: ProviderHistogram
    latency: ProviderHistogram
    throughput: ProviderHistogram


class DashboardRankings(TypedDict):
    provider: list[Ranking]
    virtual_key: list[Ranking]
    team: list[Ranking]
    customer: list[Ranking]


class Dashboard(TypedDict):
    """Everything of one time; all parts add up to `overview.stats`."""

    meta: DashboardMeta
    overview: DashboardOverview
    provider_usage: ProviderUsage
    model_rankings: list[Ranking]
    dimension_rankings: DashboardRankings


class FilterDataHandler(ConsoleHandler):
    """Lists of values."""

    @operation("The values that calls can be filtered by", query=FilterDataQuery, answer=FilterData)
    async def get(self) -> None:
        wanted = self.query_as(FilterDataQuery).dimensions
        known = (*_PLAIN, *_NAMED, *_EMPTY)
        for name in wanted:
            if name not in known:
                raise UserError(f"dimensions: {name!r} is no list of values here; known are {', '.join(known)}")
        self.send(await self.on_thread(filter_data, self.context, wanted or known))


class DashboardHandler(ConsoleHandler):
    """One payload."""

    @operation("Overview, use by provider and rankings of one time, in one answer", query=RankingsQuery, answer=Dashboard)
    async def get(self) -> None:
        query = self.query_as(RankingsQuery)
        given = query.log_filter(self.context.store.clock.now_ms())
        self.send(await self.on_thread(dashboard_json, self.context, given, places(query)))


def filter_data(context: ConsoleContext, wanted: tuple[str, ...]) -> Json:
    """The lists asked for. Blocks."""
    columns = {_PLAIN[name] for name in wanted if name in _PLAIN} | {_NAMED[name][0] for name in wanted if name in _NAMED}
    found = facets(log_database(context), tuple(columns))
    made: Json = {}
    for name in wanted:
        if name in _NAMED:
            column, kind = _NAMED[name]
            names = names_of(context, kind, found.values[column])
            made[name] = [{"id": value, "name": names.get(value, value)} for value in found.values[column]]
        elif name in _PLAIN:
            made[name] = list(found.apps if name == "apps" else found.values[_PLAIN[name]])
        else:
            made[name] = {} if name == "metadata_keys" else []
    return made


def dashboard_json(context: ConsoleContext, given: LogFilter, limit: int | None) -> Json:
    """The whole page, of one time. Blocks."""
    found = overview(log_database(context), given, context.store.clock.now_ms())
    places = {kind: places_json(context, kind, ranked[:limit]) for kind, ranked in found.rankings.items()}
    splits = {name: sums_split(found.by_provider, measure, "by_provider") for name, measure in _SPLITS.items()}
    splits["latency"] = latencies_split(found.latency_by_provider, "by_provider")
    return {
        "meta": {
            "start_time": iso_utc(found.span.start_ms),
            "end_time": iso_utc(found.span.end_ms),
            "bucket_size_seconds": found.span.bucket_ms // 1000,
        },
        "overview": {
            "stats": stats_json(found.total),
            **{name: sums_json(found.by_model, measure) for name, measure in _OVERVIEW.items()},
            "latency": latencies_json(found.latency),
        },
        "provider_usage": {
            name: {"buckets": buckets, "bucket_size_seconds": seconds, "providers": values}
            for name, (buckets, seconds, values) in splits.items()
        },
        "model_rankings": places.pop("model"),
        "dimension_rankings": places,
    }


ROUTES = (
    Route("/api/logs/filterdata", FilterDataHandler),
    Route("/api/logs/dashboard", DashboardHandler),
)
