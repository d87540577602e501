"""Calls near midnight: no provider documents which instant of a call puts it on a day, so another one may explain a difference.

We count by the instant at which the hold was taken, just before the call left. A provider may count by another clock, or by the end
of the call. For each midnight there is a row of possible boundaries, by begin or by end; one of them may make both days agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from store.reconcile.sums import MIDNIGHT_MS
from store.reconcile.types import DAY_MS, OurCall, Tokens

Gaps = Mapping[int, Tokens]
"""Start of a compared day → tokens of theirs minus ours."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Calls that are counted on the other side of one midnight: net sums that leave the day before for the day after."""

    later: Tokens
    """Negative where calls move to the day before."""
    later_requests: int
    later_nanos: int
    moved: int
    """How many calls change sides."""


def explain_midnights(gaps: Gaps, near: Mapping[int, Sequence[OurCall]]) -> dict[int, Shift]:
    """For each midnight the shift that makes the days beside it agree exactly; empty when there is none that harms no other day."""
    left = dict(gaps)
    chosen: dict[int, Shift] = {}
    for midnight_ms in sorted(near):
        before, after = midnight_ms - DAY_MS, midnight_ms
        if before in left and not left[before].is_zero:
            fitting = [one for one in _shifts(near[midnight_ms], midnight_ms) if left[before].plus(one.later).is_zero]
        elif before not in left and after in left and not left[after].is_zero:
            fitting = [one for one in _shifts(near[midnight_ms], midnight_ms) if left[after].minus(one.later).is_zero]
        else:
            continue
        if not fitting:
            continue
        shift = min(fitting, key=lambda one: (after in left and not left[after].minus(one.later).is_zero, one.moved))
        chosen[midnight_ms] = shift
        if before in left:
            left[before] = left[before].plus(shift.later)
        if after in left:
            left[after] = left[after].minus(shift.later)
    touched = {day for midnight_ms in chosen for day in (midnight_ms - DAY_MS, midnight_ms) if day in left}
    return chosen if all(left[day].is_zero for day in touched) else {}


def _shifts(calls: Sequence[OurCall], midnight_ms: int) -> Iterator[Shift]:
    """Every way to draw the line within the window, by begin and by end of the calls."""
    for instant_of in (_begin, _end):
        ordered = sorted(calls, key=instant_of)
        moved = [call for call in calls if call.started_ms < midnight_ms]
        # Below every call the line sends all of them to the day after; each call that it passes goes to the day before.
        shift = Shift(
            sum((call.tokens for call in moved), start=Tokens()),
            sum(call.is_request for call in moved),
            sum(call.cost_nanos for call in moved),
            len(moved),
        )
        for place, call in enumerate(ordered):
            line_ms = instant_of(call)
            is_new = place == 0 or line_ms != instant_of(ordered[place - 1])
            if is_new and shift.moved and midnight_ms - MIDNIGHT_MS <= line_ms <= midnight_ms + MIDNIGHT_MS:
                yield shift
            shift = _passed(shift, call, 1 if call.started_ms >= midnight_ms else -1)
        if shift.moved and ordered and instant_of(ordered[-1]) < midnight_ms + MIDNIGHT_MS:
            yield shift


def _passed(shift: Shift, call: OurCall, moved: int) -> Shift:
    return Shift(
        shift.later.minus(call.tokens),
        shift.later_requests - call.is_request,
        shift.later_nanos - call.cost_nanos,
        shift.moved + moved,
    )


def _begin(call: OurCall) -> int:
    return call.started_ms


def _end(call: OurCall) -> int:
    return call.ended_ms
