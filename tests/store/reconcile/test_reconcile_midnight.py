"""Boundaries other than ours: a provider that counts by another clock, or by the end of a call, is found out."""

import random

import pytest

from store.reconcile.midnight import Gaps, explain_midnights
from store.reconcile.sums import MIDNIGHT_MS
from store.reconcile.types import DAY_MS, OurCall, Tokens
from tests.store.reconcile.exports_here import NOV_20, NOV_21, NOV_22

MINUTE = 60_000


def call(started_ms: int, took_ms: int = 1000, tokens: int = 0) -> OurCall:
    count = tokens or (started_ms // 7) % 1000 + 1
    name = f"{started_ms}-{took_ms}"
    return OurCall(name, started_ms, started_ms + took_ms, "m", "m", Tokens(count, 0, 0, count), count * 10, 0)


def sums(calls: list[OurCall], instants: list[int], days: list[int]) -> dict[int, Tokens]:
    made = dict.fromkeys(days, Tokens())
    for one, at in zip(calls, instants, strict=True):
        day = at // DAY_MS * DAY_MS
        if day in made:
            made[day] = made[day] + one.tokens
    return made


def gaps(calls: list[OurCall], theirs: list[int], days: list[int]) -> Gaps:
    ours = sums(calls, [one.started_ms for one in calls], days)
    counted = sums(calls, theirs, days)
    return {day: counted[day].minus(ours[day]) for day in days}


def near(calls: list[OurCall], midnight_ms: int) -> list[OurCall]:
    return [one for one in calls if one.started_ms - MIDNIGHT_MS <= midnight_ms <= one.ended_ms + MIDNIGHT_MS]


DAYS = [NOV_20, NOV_21]


@pytest.mark.parametrize("late", [-14 * MINUTE, -1, 0, 5 * MINUTE])
@pytest.mark.parametrize("by_end", [False, True])
def test_another_clock_or_another_end_is_found(late: int, by_end: bool) -> None:
    chance = random.Random(f"{late} {by_end}")
    calls = [call(NOV_21 + chance.randrange(-12 * MINUTE, 12 * MINUTE), chance.randrange(1, 4 * MINUTE)) for _ in range(30)]
    theirs = [(one.ended_ms if by_end else one.started_ms) - late for one in calls]
    gap = gaps(calls, theirs, DAYS)
    found = explain_midnights(gap, {NOV_21: near(calls, NOV_21)})
    if gap[NOV_20].is_zero:
        assert found == {}
        return
    shift = found[NOV_21]
    assert gap[NOV_20].plus(shift.later).is_zero and gap[NOV_21].minus(shift.later).is_zero
    moved = [one for one, at in zip(calls, theirs, strict=True) if (one.started_ms < NOV_21) != (at < NOV_21)]
    assert shift.moved == len(moved)
    sign = {one.id: 1 if one.started_ms < NOV_21 else -1 for one in moved}
    assert shift.later_nanos == sum(sign[one.id] * one.cost_nanos for one in moved)
    assert shift.later_requests == sum(sign.values())


def test_a_difference_that_no_boundary_makes_stays() -> None:
    calls = [call(NOV_21 - MINUTE, tokens=10), call(NOV_21 + MINUTE, tokens=20)]
    some = Tokens(5, 0, 0, 5)
    gap = {NOV_20: some, NOV_21: Tokens().minus(some)}
    assert explain_midnights(gap, {NOV_21: calls}) == {}


def test_a_shift_must_not_break_the_other_day() -> None:
    late = call(NOV_21 - MINUTE, tokens=10)
    missing = {NOV_20: Tokens(-10, 0, 0, -10), NOV_21: Tokens()}
    assert explain_midnights(missing, {NOV_21: [late]}) == {}, "it is not on the day after either, so it is missing"
    moved = {NOV_20: Tokens(-10, 0, 0, -10), NOV_21: Tokens(10, 0, 0, 10)}
    assert set(explain_midnights(moved, {NOV_21: [late]})) == {NOV_21}


def test_calls_beyond_the_window_are_no_excuse() -> None:
    early = call(NOV_21 - MIDNIGHT_MS - 2, took_ms=1, tokens=10)
    close = call(NOV_21 - MIDNIGHT_MS + 2, took_ms=1, tokens=10)
    moved = {NOV_20: Tokens(-10, 0, 0, -10), NOV_21: Tokens(10, 0, 0, 10)}
    assert explain_midnights(moved, {NOV_21: [early]}) == {}
    assert explain_midnights(moved, {NOV_21: [close]}) != {}


def test_the_edges_of_what_is_compared() -> None:
    before, after = call(NOV_20 - MINUTE, tokens=3), call(NOV_22 + MINUTE, tokens=4)
    gap = {NOV_20: Tokens(3, 0, 0, 3), NOV_21: Tokens(4, 0, 0, 4)}
    found = explain_midnights(gap, {NOV_20: [before], NOV_22: [after]})
    assert {midnight: shift.later.input for midnight, shift in found.items()} == {NOV_20: 3, NOV_22: -4}


def test_a_chain_of_midnights() -> None:
    days = [NOV_20, NOV_21, NOV_22]
    calls = [
        call(day + DAY_MS - minute * MINUTE, tokens=17 * number + minute) for number, day in enumerate(days) for minute in (1, 3, 9)
    ]
    theirs = [one.started_ms + 4 * MINUTE for one in calls]
    gap = gaps(calls, theirs, days)
    found = explain_midnights(gap, {day: near(calls, day) for day in (NOV_21, NOV_22, NOV_22 + DAY_MS)})
    assert [found[day].moved for day in (NOV_21, NOV_22, NOV_22 + DAY_MS)] == [2, 2, 2]


def test_thousands_of_calls_are_no_trouble() -> None:
    calls = [call(NOV_21 - MIDNIGHT_MS + step * 600, took_ms=50 + step % 7 * 1000) for step in range(3000)]
    gap = gaps(calls, [one.ended_ms for one in calls], DAYS)
    assert not gap[NOV_20].is_zero
    crossing = sum(one.started_ms < NOV_21 <= one.ended_ms for one in calls)
    assert explain_midnights(gap, {NOV_21: calls})[NOV_21].moved == crossing
