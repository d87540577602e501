"""Prometheus text: what every cap has used, holds and allows, and what the calls so far came to."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from addons.console.api.reading import states_of
from addons.console.context import ConsoleContext
from store.ledger.types import CapState, Scope, Unit
from store.money import NANOS_PER_USD

_LABELS = ("cap_id", "name", "unit", "scope", "scope_id", "scope_name", "window", "enforcement")


def metrics_text(context: ConsoleContext) -> bytes:
    """One scrape, from one instant of the store. Raises StoreUnavailable."""
    with context.store.ledger.read() as connection:
        states = [state for state in states_of(context, connection) if state.cap.scope is not Scope.RUN]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(context, states))
    return generate_latest(registry)


class _Scrape:
    """Everything of one scrape."""

    def __init__(self, context: ConsoleContext, states: list[CapState]) -> None:
        self._context = context
        self._states = states

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        info = InfoMetricFamily("tollgate_build", "Which version answers.")
        info.add_metric((), {"version": self._context.version})
        yield info
        yield from self._context.family.metrics()
        yield from self._caps()
        if self._context.logs is not None:
            yield from self._calls()

    def _caps(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("tollgate_cap_used", "Used in the current window; USD for money.", labels=_LABELS)
        held = GaugeMetricFamily("tollgate_cap_held", "Held by calls in flight; USD for money.", labels=_LABELS)
        limit = GaugeMetricFamily("tollgate_cap_limit", "The limit in force; USD for money.", labels=_LABELS)
        left = GaugeMetricFamily("tollgate_cap_remaining", "What a new call may take; USD for money.", labels=_LABELS)
        resets = GaugeMetricFamily("tollgate_cap_resets_timestamp_seconds", "When the window ends.", labels=_LABELS)
        for state in self._states:
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

    def _calls(self) -> Iterator[Metric]:
        logs = self._context.logs
        if logs is None:
            return
        sums = logs.stats()
        # Gauges, as retention takes old calls out of the logs.
        calls = GaugeMetricFamily("tollgate_logged_calls", "Calls in the logs, by how they ended.", labels=("status",))
        other = sums.calls - sums.succeeded - sums.refused - sums.failed
        for status, count in (
            ("success", sums.succeeded), ("refused", sums.refused), ("error", sums.failed), ("other", other),
        ):  # fmt: skip
            calls.add_metric((status,), count)
        yield calls
        cost = GaugeMetricFamily("tollgate_logged_cost_usd", "Cost of the calls in the logs.")
        cost.add_metric((), sums.cost_nanos / NANOS_PER_USD)
        yield cost
        tokens = GaugeMetricFamily("tollgate_logged_tokens", "Tokens of the calls in the logs.", labels=("direction",))
        tokens.add_metric(("input",), sums.input_tokens)
        tokens.add_metric(("output",), sums.output_tokens)
        yield tokens
        unpriced = GaugeMetricFamily("tollgate_logged_unpriced_calls", "Calls in the logs whose price was not known.")
        unpriced.add_metric((), sums.unpriced)
        yield unpriced
