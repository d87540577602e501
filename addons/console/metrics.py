"""Prometheus text: what caps have used, hold and allow, and what the calls so far came to. The number of series is bounded."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric, SummaryMetricFamily

from addons.console.api.reading import states_of
from addons.console.context import ConsoleContext
from store.config_store.read_names import names_by_id
from store.ledger.open_calls import count_open
from store.ledger.types import CapState, Scope, Unit
from store.logs.collect import sums_of_everything
from store.logs.lost import lost_rows
from store.logs.sums import LogSums
from store.money import NANOS_PER_USD

MAX_CAPS = 1_000
"""So many caps are shown: those of teams, customers, providers and models first, then the fullest of the others."""
MAX_CALLERS = 1_000
"""Beyond so many sets of labels counters are by provider and model alone, for good: a series must never lose what it counted."""

_CAP_LABELS = ("cap_id", "name", "unit", "scope", "scope_id", "scope_name", "window", "enforcement")
_CALL_LABELS = (
    "provider", "model", "virtual_key_id", "virtual_key_name", "team_id", "team_name", "customer_id", "customer_name",
)  # fmt: skip
_ALWAYS = (Scope.TEAM, Scope.CUSTOMER, Scope.PROVIDER, Scope.MODEL)

type Labels = tuple[str, ...]


def metrics_text(context: ConsoleContext) -> bytes:
    """One scrape. Raises StoreUnavailable."""
    with context.store.ledger.read() as connection:
        states = [state for state in states_of(context, connection) if state.cap.scope is not Scope.RUN]
        in_flight = count_open(connection)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(context, states, in_flight))
    return generate_latest(registry)


def shown_caps(states: Sequence[CapState], limit: int = MAX_CAPS) -> list[CapState]:
    """At most so many caps, in the order they came in: the wide ones first, then those that are fullest."""
    if len(states) <= limit:
        return list(states)
    ranked = sorted(range(len(states)), key=lambda index: (states[index].cap.scope not in _ALWAYS, -_fullness(states[index])))
    return [states[index] for index in sorted(ranked[:limit])]


def by_labels(sums: Mapping[Labels, LogSums], limit: int = MAX_CALLERS) -> dict[Labels, LogSums]:
    """Sums by (provider, model, key, team, customer); the last three are empty when there are more sets than `limit`."""
    made: dict[Labels, LogSums] = {}
    for (key, team, customer, provider, model), found in sums.items():
        labels = (provider, model, key, team, customer) if len(sums) <= limit else (provider, model, "", "", "")
        made.setdefault(labels, LogSums()).add(found)
    return made


def _fullness(state: CapState) -> float:
    return (state.used + state.held) / state.limit if state.limit > 0 else 1.0


class _Scrape:
    """Everything of one scrape."""

    def __init__(self, context: ConsoleContext, states: list[CapState], in_flight: int) -> None:
        self._context = context
        self._states = states
        self._in_flight = in_flight

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        info = InfoMetricFamily("tollgate_build", "Which version answers.")
        info.add_metric((), {"version": self._context.version})
        yield info
        yield from self._context.family.metrics()
        active = GaugeMetricFamily("bifrost_active_requests", "Calls in flight.")
        active.add_metric((), self._in_flight)
        yield active
        yield from self._caps()
        if self._context.logs is not None:
            database = self._context.logs.database
            yield from self._calls(sums_of_everything(database))
            lost = CounterMetricFamily("tollgate_lost_log_rows", "Log rows lost; those of charged calls came back from the ledger.")
            lost.add_metric((), lost_rows(database))
            yield lost

    def _caps(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("tollgate_cap_used", "Used in the current window; USD for money.", labels=_CAP_LABELS)
        held = GaugeMetricFamily("tollgate_cap_held", "Held by calls in flight; USD for money.", labels=_CAP_LABELS)
        limit = GaugeMetricFamily("tollgate_cap_limit", "The limit in force; USD for money.", labels=_CAP_LABELS)
        left = GaugeMetricFamily("tollgate_cap_remaining", "What a new call may take; USD for money.", labels=_CAP_LABELS)
        resets = GaugeMetricFamily("tollgate_cap_resets_timestamp_seconds", "When the window ends.", labels=_CAP_LABELS)
        shown = shown_caps(self._states)
        for state in shown:
            cap = state.cap
            labels = (
                cap.id, cap.name, cap.unit.value, cap.scope.value, cap.scope_id, cap.scope_name, cap.window or "",
                cap.enforcement.value,
            )  # fmt: skip
            scale = NANOS_PER_USD if cap.unit is Unit.USD else 1
            used.add_metric(labels, state.used / scale)
            held.add_metric(labels, state.held / scale)
            limit.add_metric(labels, state.limit / scale)
            left.add_metric(labels, state.remaining / scale)
            if state.resets_at_ms is not None:
                resets.add_metric(labels, state.resets_at_ms / 1000)
        yield from (used, held, limit, left, resets)
        full = Counter(state.cap.unit.value for state in self._states if state.used + state.held >= state.limit)
        count = GaugeMetricFamily("tollgate_caps", "Caps, shown above or not.", labels=("unit",))
        used_up = GaugeMetricFamily("tollgate_caps_full", "Caps with nothing left, shown above or not.", labels=("unit",))
        for unit, number in sorted(Counter(state.cap.unit.value for state in self._states).items()):
            count.add_metric((unit,), number)
            used_up.add_metric((unit,), full[unit])
        yield from (count, used_up)

    def _calls(self, sums: Mapping[Labels, LogSums]) -> Iterator[Metric]:
        yield from _counters(self._named(by_labels(sums)))
        total = LogSums()
        for found in sums.values():
            total.add(found)
        calls = GaugeMetricFamily("tollgate_logged_calls", "Calls since the logs were made, by their end.", labels=("status",))
        for status, number in (
            ("success", total.succeeded), ("refused", total.refused), ("error", total.failed),
            ("other", total.cancelled + total.other),
        ):  # fmt: skip
            calls.add_metric((status,), number)
        cost = GaugeMetricFamily("tollgate_logged_cost_usd", "Cost of the calls since the logs were made.")
        cost.add_metric((), total.cost_nanos / NANOS_PER_USD)
        tokens = GaugeMetricFamily("tollgate_logged_tokens", "Tokens since the logs were made.", labels=("direction",))
        tokens.add_metric(("input",), total.input_tokens)
        tokens.add_metric(("output",), total.output_tokens)
        unpriced = GaugeMetricFamily("tollgate_logged_unpriced_calls", "Calls since the logs were made without a known price.")
        unpriced.add_metric((), total.unpriced)
        yield from (calls, cost, tokens, unpriced)

    def _named(self, sums: Mapping[Labels, LogSums]) -> dict[Labels, LogSums]:
        """The same with names beside the ids."""
        names: list[dict[str, str]] = []
        with self._context.store.reading() as (connection, _):
            for index, table in ((2, "virtual_keys"), (3, "teams"), (4, "customers")):
                ids = {labels[index] for labels in sums} - {""}
                names.append(names_by_id(connection, table, ids) if ids else {})  # type: ignore[arg-type]
        keys, teams, customers = names
        return {
            (provider, model, key, keys.get(key, ""), team, teams.get(team, ""), customer, customers.get(customer, "")): found
            for (provider, model, key, team, customer), found in sums.items()
        }


def _counters(sums: Mapping[Labels, LogSums]) -> Iterator[Metric]:
    """Bifrost's counters, and ours for refusals."""
    for name, text, field, scale in (
        ("bifrost_upstream_requests", "Calls that were let through.", "timed", 1),
        ("bifrost_success_requests", "Calls that ended well.", "succeeded", 1),
        ("bifrost_error_requests", "Calls that the provider's side failed.", "failed", 1),
        ("bifrost_input_tokens", "Tokens that went in.", "input_tokens", 1),
        ("bifrost_output_tokens", "Tokens that came out.", "output_tokens", 1),
        ("bifrost_cache_read_input_tokens", "Of the tokens that went in, those read from a cache.", "cache_read_tokens", 1),
        ("bifrost_cache_write_input_tokens", "Of the tokens that went in, those written to a cache.", "cache_write_tokens", 1),
        ("bifrost_cost", "USD.", "cost_nanos", NANOS_PER_USD),
        ("tollgate_refused_requests", "Calls that were refused.", "refused", 1),
        ("tollgate_cancelled_requests", "Calls whose client left.", "cancelled", 1),
        ("tollgate_unpriced_requests", "Calls whose price was not known.", "unpriced", 1),
    ):
        family: Any = CounterMetricFamily(name, text, labels=_CALL_LABELS)
        for labels, found in sums.items():
            family.add_metric(labels, getattr(found, field) / scale if scale != 1 else getattr(found, field))
        yield family
    latency = SummaryMetricFamily("bifrost_upstream_latency_seconds", "How long calls took.", labels=_CALL_LABELS)
    for labels, found in sums.items():
        latency.add_metric(labels, found.timed, found.latency_ms / 1000)
    yield latency
