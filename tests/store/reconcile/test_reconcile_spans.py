"""Time as stretches, compared with the same questions asked of every single minute."""

from hypothesis import given
from hypothesis import strategies as st

from store.reconcile.spans import Coverage, day_of, days, merged, within
from store.reconcile.types import DAY_MS
from tests.store.reconcile.exports_here import NOV_20, NOV_21, NOV_22, NOV_23

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda one: (one[0], one[0] + one[1])), max_size=8)


@given(SPANS, st.integers(0, 50))
def test_merging_keeps_every_instant(spans: list[tuple[int, int]], at: int) -> None:
    made = merged(spans)
    assert all(one[1] < other[0] for one, other in zip(made, made[1:], strict=False))
    assert (at in Coverage(spans)) == any(start <= at < end for start, end in spans)


@given(SPANS, st.integers(0, 20), st.integers(20, 50), st.integers(0, 50))
def test_cutting_keeps_what_is_inside(spans: list[tuple[int, int]], first: int, end: int, at: int) -> None:
    assert (at in Coverage(within(spans, (first, end)))) == (at in Coverage(spans) and first <= at < end)


def test_days() -> None:
    hour = 3_600_000
    spans = [(NOV_20 + hour, NOV_20 + 2 * hour), (NOV_20 + 3 * hour, NOV_21 + hour), (NOV_22, NOV_23)]
    assert list(days(spans)) == [NOV_20, NOV_21, NOV_22]
    assert day_of(NOV_21 - 1) == "2026-11-20" and day_of(NOV_21) == "2026-11-21"
    coverage = Coverage(spans)
    assert [coverage.touches(NOV_20 + n * DAY_MS) for n in range(-1, 4)] == [False, True, True, True, False]
    assert [coverage.covers(NOV_20 + n * DAY_MS) for n in range(4)] == [False, False, True, False]
    assert not Coverage([]) and coverage
