"""Forecasts: exact at a constant pace, never in the past, monotone in everything that matters; against a walk in small steps."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ledger.forecast import (
    DAY_MS,
    FARTHEST_MS,
    LEAST_CALLS,
    LEAST_OBSERVED_MS,
    LEAST_SPAN_MS,
    LONGEST_SPAN_MS,
    MINUTE_MS,
    Recent,
    forecast,
    span_ms,
)
from store.ledger.types import Cap, CapState, Raise, Scope, Unit

NOW_MS = 1_795_435_200_000
HOUR_MS = 60 * MINUTE_MS
USD = 10**9


def state(
    used: int, *, limit: int = 100 * USD, held: int = 0, gone_ms: int = 6 * HOUR_MS, length_ms: int | None = DAY_MS,
    raised: Raise | None = None,
) -> CapState:  # fmt: skip
    cap = Cap("b", "day", Scope.TEAM, "t", "blue", Unit.USD, limit, "1d" if length_ms else None)
    if length_ms is None:
        return CapState(cap, used, held, 0, None, None, raised)
    return CapState(cap, used, held, 0, NOW_MS - gone_ms, NOW_MS - gone_ms + length_ms, raised)


def recent(spent: int, *, over_ms: int = 6 * HOUR_MS, calls: int = 100) -> Recent:
    return Recent(NOW_MS - over_ms, spent, calls)


def test_a_constant_pace_is_met_to_the_millisecond() -> None:
    # $10 in 6 h leaves $80 - $2 held = 46.8 h at this pace: after the reset, 18 h from now.
    found = forecast(state(20 * USD, held=2 * USD), recent(10 * USD), NOW_MS)
    assert (found.lasts_until_reset, found.runs_out_at_ms, found.not_enough_data) == (True, None, False)
    # $30 in 6 h: $78 last 15.6 h.
    found = forecast(state(20 * USD, held=2 * USD), recent(30 * USD), NOW_MS)
    assert found.runs_out_at_ms == NOW_MS + 15 * HOUR_MS + 36 * MINUTE_MS and not found.lasts_until_reset
    assert found.rate_nanos_per_hour == 5 * USD
    assert found.even_pace_nanos == 25 * USD, "a quarter of the day is gone"


def test_prepaid_has_no_reset_to_last_until() -> None:
    found = forecast(state(40 * USD, length_ms=None), recent(7 * USD, over_ms=7 * DAY_MS), NOW_MS)
    assert found.runs_out_at_ms == NOW_MS + 60 * DAY_MS
    assert (found.even_pace_nanos, found.lasts_until_reset) == (None, False)
    idle = forecast(state(40 * USD, length_ms=None), recent(0, over_ms=7 * DAY_MS, calls=0), NOW_MS)
    assert (idle.runs_out_at_ms, idle.lasts_until_reset, idle.not_enough_data) == (None, False, False)
    slow = forecast(state(0, length_ms=None), recent(5, over_ms=7 * DAY_MS), NOW_MS)
    assert slow.runs_out_at_ms is None, "further than a century is no forecast"


@pytest.mark.parametrize(
    ("spending", "enough"),
    [
        (recent(USD, calls=LEAST_CALLS), True),
        (recent(USD, calls=LEAST_CALLS - 1), False),
        (recent(USD, over_ms=LEAST_OBSERVED_MS), True),
        (recent(USD, over_ms=LEAST_OBSERVED_MS - 1), False),
        (recent(0, calls=0, over_ms=2 * HOUR_MS), True),
        (recent(0, calls=0, over_ms=2 * HOUR_MS - 1), False),
        (recent(USD, over_ms=-5), False),
    ],
)
def test_no_forecast_from_too_little(spending: Recent, enough: bool) -> None:
    found = forecast(state(20 * USD), spending, NOW_MS)
    assert found.not_enough_data is not enough
    assert (found.rate_nanos_per_hour is None) is not enough
    if not enough:
        assert found.runs_out_at_ms is None and not found.lasts_until_reset


def test_a_full_budget_needs_no_history() -> None:
    found = forecast(state(90 * USD, held=10 * USD), recent(0, calls=0, over_ms=0), NOW_MS)
    assert found.runs_out_at_ms == NOW_MS and not found.not_enough_data


def test_spans() -> None:
    assert span_ms(state(0)) == 6 * HOUR_MS
    assert span_ms(state(0, gone_ms=0, length_ms=60_000)) == LEAST_SPAN_MS
    assert span_ms(state(0, length_ms=90 * DAY_MS)) == LONGEST_SPAN_MS
    assert span_ms(state(0, length_ms=None)) == LONGEST_SPAN_MS


def test_a_raise_that_ends_takes_its_part_away() -> None:
    raised = Raise(50 * USD, NOW_MS - HOUR_MS, NOW_MS + 2 * HOUR_MS)
    # $98 used of $100 + $50: at $1/h the raise ends with $100 used, which is all of the limit then.
    found = forecast(state(98 * USD, raised=raised), recent(6 * USD), NOW_MS)
    assert found.runs_out_at_ms == raised.until_ms
    # At $1/h $80 would last 20 h: the raise is over by then and changes nothing.
    found = forecast(state(90 * USD, raised=raised), recent(6 * USD), NOW_MS)
    assert found.runs_out_at_ms == NOW_MS + 10 * HOUR_MS
    # At $30/h it is gone before the raise ends.
    found = forecast(state(98 * USD, raised=raised), recent(180 * USD), NOW_MS)
    assert found.runs_out_at_ms == NOW_MS + 52 * HOUR_MS // 30
    # Nothing is spent, but more is used than the limit without the raise.
    found = forecast(state(120 * USD, raised=raised), recent(0, calls=0), NOW_MS)
    assert found.runs_out_at_ms == raised.until_ms


AMOUNT = st.integers(0, 200 * USD)


@st.composite
def situations(draw: st.DrawFn) -> tuple[CapState, Recent]:
    length = draw(st.sampled_from([None, HOUR_MS, DAY_MS, 30 * DAY_MS]))
    gone = draw(st.integers(0, (length or DAY_MS) - 1))
    raised = None
    if draw(st.booleans()):
        raised = Raise(draw(st.integers(1, 100 * USD)), NOW_MS - 5, NOW_MS + draw(st.integers(1, 2 * DAY_MS)))
    made = state(draw(AMOUNT), held=draw(AMOUNT), limit=draw(AMOUNT), gone_ms=gone, length_ms=length, raised=raised)
    return made, recent(draw(AMOUNT), over_ms=draw(st.integers(0, 7 * DAY_MS)), calls=draw(st.integers(0, 30)))


@given(situations())
def test_it_is_never_before_now_and_exactly_when_the_limit_is_reached(situation: tuple[CapState, Recent]) -> None:
    made, spending = situation
    found = forecast(made, spending, NOW_MS)
    assert sum((found.runs_out_at_ms is not None, found.lasts_until_reset, found.not_enough_data)) <= 1
    if found.not_enough_data:
        return

    def is_out(at_ms: int) -> bool:
        limit = made.cap.limit + (made.raised.amount if made.raised and at_ms < made.raised.until_ms else 0)
        pace = Fraction(spending.spent_nanos, NOW_MS - spending.since_ms) if NOW_MS > spending.since_ms else Fraction(0)
        return made.used + made.held + pace * (at_ms - NOW_MS) >= limit

    at_ms = found.runs_out_at_ms
    if at_ms is not None:
        assert at_ms >= NOW_MS and is_out(at_ms)
        assert at_ms == NOW_MS or not is_out(at_ms - 1), "the first such millisecond"
        assert made.resets_at_ms is None or at_ms < made.resets_at_ms
    elif made.resets_at_ms is not None:
        assert found.lasts_until_reset and not is_out(made.resets_at_ms - 1)
    else:
        assert not is_out(NOW_MS + FARTHEST_MS - 1)


@given(situations(), st.integers(1, 50 * USD))
def test_it_is_monotone(situation: tuple[CapState, Recent], more: int) -> None:
    made, spending = situation
    spending = Recent(NOW_MS - 6 * HOUR_MS, spending.spent_nanos, 100)

    def ends(one: CapState, pace: Recent = spending) -> int:
        found = forecast(one, pace, NOW_MS).runs_out_at_ms
        return found if found is not None else 2**62

    now = ends(made)
    assert ends(made._replace(used=made.used + more)) <= now
    assert ends(made._replace(held=made.held + more)) <= now
    assert ends(made, Recent(spending.since_ms, spending.spent_nanos + more, 100)) <= now
    assert ends(made._replace(carried=made.carried + more)) >= now
