"""Will a budget last? What is left, divided by how fast it went of late. Pure.

The formula is that of budget alerts on forecast spend (Oracle Cloud's budgets: spent ÷ days gone × days in the period), with the
spending of a recent span in place of the whole period's, so that a change of pace shows. With used, held and limit of this moment
and `spent` in the `observed` time before it, the budget runs out at the first instant t with

    used + held + spent × (t − now) ÷ observed ≥ limit(t)

where limit(t) is without a raise that has ended by then. Everything is integer arithmetic, rounded up to whole milliseconds.
"""

from dataclasses import dataclass

from store.ledger.types import CapState

MINUTE_MS = 60_000
DAY_MS = 86_400_000
LEAST_SPAN_MS = 15 * MINUTE_MS
LONGEST_SPAN_MS = 7 * DAY_MS
LEAST_CALLS = 5
"""Fewer calls than that say nothing about a pace; none at all do, if they were waited for long enough."""
LEAST_OBSERVED_MS = MINUTE_MS
FARTHEST_MS = 100 * 365 * DAY_MS
"""What is farther away than that is no forecast."""


@dataclass(frozen=True, slots=True)
class Recent:
    """What was spent on a budget since an instant, in nano-dollars, and by how many calls."""

    since_ms: int
    spent_nanos: int
    calls: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be expected of a budget. One of the three endings holds; none does for a prepaid budget that nobody uses."""

    span_ms: int
    """The recent time that should be looked at."""
    observed_ms: int
    """As much of it as could be."""
    rate_nanos_per_hour: int | None
    """None when there is not enough data."""
    even_pace_nanos: int | None
    """What would be used now if the limit were used evenly over the window; None without a window."""
    runs_out_at_ms: int | None
    lasts_until_reset: bool
    not_enough_data: bool


def span_ms(state: CapState) -> int:
    """How far to look back: a quarter of the window, at least a quarter of an hour, at most a week; a week without a window."""
    if state.window_start_ms is None or state.resets_at_ms is None:
        return LONGEST_SPAN_MS
    return max(LEAST_SPAN_MS, min(LONGEST_SPAN_MS, (state.resets_at_ms - state.window_start_ms) // 4))


def forecast(state: CapState, recent: Recent, now_ms: int) -> Forecast:
    """What the spending of the recent span makes of a budget, whose sums are of `now_ms`."""
    span = span_ms(state)
    observed = max(0, now_ms - recent.since_ms)
    spent = max(0, recent.spent_nanos)
    full = state.used + state.held >= state.limit
    enough = observed >= LEAST_OBSERVED_MS and (recent.calls >= LEAST_CALLS or (recent.calls == 0 and 3 * observed >= span))
    runs_out_ms = now_ms if full else _runs_out_ms(state, spent, observed, now_ms) if enough else None
    resets_ms = state.resets_at_ms
    before_reset = runs_out_ms is not None and (resets_ms is None or runs_out_ms < resets_ms)
    known = enough or full
    return Forecast(
        span_ms=span,
        observed_ms=observed,
        rate_nanos_per_hour=spent * 60 * MINUTE_MS // observed if enough else None,
        even_pace_nanos=_even_pace(state, now_ms),
        runs_out_at_ms=runs_out_ms if before_reset else None,
        lasts_until_reset=known and not before_reset and resets_ms is not None,
        not_enough_data=not known,
    )


def _runs_out_ms(state: CapState, spent: int, observed_ms: int, now_ms: int) -> int | None:
    base = state.used + state.held
    reached_ms = _reached_ms(state.limit - base, spent, observed_ms, now_ms)
    raised = state.raised
    if raised is None or (reached_ms is not None and reached_ms < raised.until_ms):
        return reached_ms
    lower = _reached_ms(state.limit - raised.amount - base, spent, observed_ms, now_ms)
    return None if lower is None else max(lower, raised.until_ms)


def _reached_ms(left: int, spent: int, observed_ms: int, now_ms: int) -> int | None:
    """When so much more is spent at the pace of `spent` in `observed_ms`; None when that is never, or beyond any forecast."""
    if left <= 0:
        return now_ms
    if spent <= 0:
        return None
    after_ms = -(-left * observed_ms // spent)
    return now_ms + after_ms if after_ms <= FARTHEST_MS else None


def _even_pace(state: CapState, now_ms: int) -> int | None:
    if state.window_start_ms is None or state.resets_at_ms is None:
        return None
    length_ms = state.resets_at_ms - state.window_start_ms
    gone_ms = min(length_ms, max(0, now_ms - state.window_start_ms))
    return state.limit * gone_ms // length_ms if length_ms > 0 else None
