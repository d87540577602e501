"""`/api/governance/forecast`: when each budget runs out, or that it lasts until its reset."""

from typing import TypedDict

from addons.console.api.answers import Money
from addons.console.api.paging import PageQuery, list_envelope
from addons.console.api.reading import budget_page
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import iso_utc
from store.config_store.shapes import Json, time_json
from store.errors import NotFound
from store.ledger.forecast import Forecast, forecast, span_ms
from store.ledger.recent import recent_spending
from store.ledger.types import CapState, Unit
from store.money import format_usd, usd_from_nanos

_DAY_MS = 86_400_000


class ForecastQuery(PageQuery):
    """One budget, or a page of them."""

    filters = frozenset({"search"})

    budget_id: str = ""
    search: str = ""


class BudgetForecast(TypedDict):
    """Amounts in USD. One of `runs_out_at`, `lasts_until_reset` and `not_enough_data` holds; `outlook` says it in words.

    `span_seconds` of spending are looked at, `observed_seconds` of them could be. `even_pace` is what would be used by now if the
    limit were used evenly.
    """

    budget_id: str
    name: str
    scope: str
    scope_id: str
    scope_name: str
    current_usage: Money
    held: Money
    remaining: Money
    effective_max_limit: Money
    even_pace: Money | None
    last_reset: str | None
    resets_at: str | None
    span_seconds: int
    observed_seconds: int
    spent_in_span: Money
    calls_in_span: int
    rate_per_hour: Money | None
    runs_out_at: str | None
    lasts_until_reset: bool
    not_enough_data: bool
    outlook: str


class ForecastPage(TypedDict):
    forecasts: list[BudgetForecast]
    count: int
    total_count: int
    limit: int
    offset: int
    at: str


class ForecastHandler(ConsoleHandler):
    """One budget, or a page of them in the order of `/api/governance/budgets`."""

    @operation("When each budget runs out, from what was spent of late", query=ForecastQuery, answer=ForecastPage)
    async def get(self) -> None:
        self.send(await self.on_thread(forecast_page, self.context, self.query_as(ForecastQuery)))


def forecast_page(context: ConsoleContext, query: ForecastQuery) -> Json:
    """The page asked for. Raises NotFound. Blocks."""
    now_ms = context.store.clock.now_ms()
    limit, offset = query.page()
    if query.budget_id:
        with context.store.ledger.read() as connection:
            states = [state for state in context.states(connection, now_ms, (query.budget_id,)) if state.cap.unit is Unit.USD]
        if not states:
            raise NotFound(f"there is no budget {query.budget_id!r}")
        limit, offset, total = None, 0, 1
    else:
        states, total = budget_page(context, limit, offset, query.search)
    found = forecasts(context, states, now_ms)
    return {**list_envelope("forecasts", found, total=total, limit=limit, offset=offset), "at": iso_utc(now_ms)}


def forecasts(context: ConsoleContext, states: list[CapState], now_ms: int) -> list[Json]:
    """A forecast for each of these budgets. Blocks."""
    kept_days = context.settings.gateway.ledger_retention_days
    kept_ms = now_ms - kept_days * _DAY_MS if kept_days else 0
    since = {state.cap.id: max(now_ms - span_ms(state), state.cap.created_ms, kept_ms) for state in states}
    recent = recent_spending(context.store.ledger, since)
    made = []
    for state in states:
        spending = recent[state.cap.id]
        expected = forecast(state, spending, now_ms)
        cap, rate = state.cap, expected.rate_nanos_per_hour
        made.append(
            {
                "budget_id": cap.id,
                "name": cap.name,
                "scope": cap.scope.value,
                "scope_id": cap.scope_id,
                "scope_name": cap.scope_name,
                "current_usage": usd_from_nanos(state.used),
                "held": usd_from_nanos(state.held),
                "remaining": usd_from_nanos(state.remaining),
                "effective_max_limit": usd_from_nanos(state.limit),
                "even_pace": None if expected.even_pace_nanos is None else usd_from_nanos(expected.even_pace_nanos),
                "last_reset": time_json(state.window_start_ms),
                "resets_at": time_json(state.resets_at_ms),
                "span_seconds": expected.span_ms // 1000,
                "observed_seconds": expected.observed_ms // 1000,
                "spent_in_span": usd_from_nanos(spending.spent_nanos),
                "calls_in_span": spending.calls,
                "rate_per_hour": None if rate is None else usd_from_nanos(rate),
                "runs_out_at": time_json(expected.runs_out_at_ms),
                "lasts_until_reset": expected.lasts_until_reset,
                "not_enough_data": expected.not_enough_data,
                "outlook": outlook(state, expected, now_ms),
            }
        )
    return made


def outlook(state: CapState, expected: Forecast, now_ms: int) -> str:
    """The forecast in words."""
    if expected.not_enough_data:
        return "not enough history yet"
    if expected.runs_out_at_ms is None:
        return "lasts until reset" if expected.lasts_until_reset else "nothing is being spent"
    if expected.runs_out_at_ms <= now_ms:
        return "used up" if state.used >= state.limit else "used up by calls in flight"
    return f"runs out {iso_utc(expected.runs_out_at_ms)} at {format_usd(expected.rate_nanos_per_hour or 0)} an hour"


ROUTES = (Route("/api/governance/forecast", ForecastHandler),)
