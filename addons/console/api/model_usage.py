"""What each model used of a virtual key's budgets since they began, from the logs: `per_model_usage` of the quota."""

from collections.abc import Callable

from addons.patterns import matches_any
from store.config_store.shapes import Json
from store.config_store.snapshot import ANY, VirtualKey
from store.database import Database
from store.ledger.types import CapState, Scope
from store.logs.collect import collect_by, whole_span
from store.logs.filters import LogFilter
from store.logs.sums import LogSums
from store.money import usd_from_nanos

Used = dict[tuple[str, str], LogSums]
"""(provider, model) → what the key's calls were."""


def model_usage(logs: Database, key: VirtualKey) -> Callable[[CapState], list[Json]]:
    """Answers for one budget of this key after another; windows that began at the same instant are looked up once.

    The answer may raise StoreUnavailable.
    """
    known: dict[int, Used] = {}
    named = {config.provider for config in key.provider_configs}
    providers = {config.id: config.provider for config in key.provider_configs}
    models = {limit.id: limit for limit in key.model_caps.limits}

    def binds(state: CapState, provider: str, model: str) -> bool:
        cap = state.cap
        if cap.scope is Scope.PROVIDER_CONFIG:
            wanted = providers.get(cap.scope_id, "")
            return provider not in named if wanted == ANY else provider == wanted
        if cap.scope is Scope.VIRTUAL_KEY_MODEL:
            limit = models[cap.scope_id]
            return limit.provider in (None, provider) and matches_any((limit.model_name,), model, provider)
        return True

    def usage(state: CapState) -> list[Json]:
        start_ms = state.cap.created_ms if state.window_start_ms is None else state.window_start_ms
        if start_ms not in known:
            known[start_ms] = _since(logs, key.id, start_ms)
        found = [(at, sums) for at, sums in known[start_ms].items() if binds(state, *at)]
        return [_row(*at, sums) for at, sums in sorted(found, key=lambda row: (-row[1].cost_nanos, row[0]))]

    return usage


def _since(logs: Database, key_id: str, start_ms: int) -> Used:
    given = LogFilter(virtual_key_ids=(key_id,), start_ms=start_ms)
    found = collect_by(logs, given, whole_span(logs, given), ("provider", "model"))
    return {(values[0], values[1]): sums for (_, values), sums in found.items() if sums.calls > sums.refused}


def _row(provider: str, model: str, sums: LogSums) -> Json:
    return {
        "model": model,
        "provider": provider,
        "total_requests": sums.calls - sums.refused,
        "total_tokens": sums.input_tokens + sums.output_tokens,
        "total_cost": usd_from_nanos(sums.cost_nanos),
    }
