"""Ids in the order of time, and times as text."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.clock import Ids, SystemClock, iso_utc, ms_from_iso


class Still:
    """A clock that stands wherever it is put."""

    def __init__(self, at_ms: int = 1_700_000_000_000) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return 0.0


def test_ids_are_version_7_and_carry_the_time() -> None:
    clock = Still()
    made = uuid.UUID(Ids(clock).new())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == clock.at_ms


def test_ids_ascend_within_a_millisecond_and_when_the_clock_jumps_back() -> None:
    clock = Still()
    ids = Ids(clock)
    made = [ids.new() for _ in range(10_000)]
    clock.at_ms -= 5_000
    made += [ids.new() for _ in range(10_000)]
    clock.at_ms += 60_000
    made += [ids.new()]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_of_two_processes_differ() -> None:
    clock = Still()

    assert Ids(clock).new() != Ids(clock).new()


def test_id_shape() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", Ids(SystemClock()).new())


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [(0, "1970-01-01T00:00:00Z"), (1_795_431_600_000, "2026-11-23T11:00:00Z"), (1_795_431_600_007, "2026-11-23T11:00:00.007Z")],
)
def test_iso(at_ms: int, text: str) -> None:
    assert iso_utc(at_ms) == text
    assert ms_from_iso(text) == at_ms


@pytest.mark.parametrize("text", ["2026-11-23T11:00:00", "yesterday", ""])
def test_times_without_a_zone_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ms_from_iso(text)


@given(st.integers(0, 4_000_000_000_000))
def test_iso_there_and_back(at_ms: int) -> None:
    assert ms_from_iso(iso_utc(at_ms)) == at_ms
