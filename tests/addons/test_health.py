"""What a worker remembers of failures: for how long, of whom, and never without bound."""

import pytest

from addons.health import FAULT_SECONDS, LONGEST_SECONDS, REMEMBERED, Health
from tests.support.calls import FixedClock


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def health(clock: FixedClock) -> Health:
    return Health(clock.monotonic)


@pytest.mark.parametrize("status", [500, 502, 503, 529, 599])
def test_a_fault_of_the_provider_counts_for_all_its_keys_for_some_seconds(health: Health, clock: FixedClock, status: int) -> None:
    health.answered("east", "k1", status, None)
    assert health.is_failing("east") and health.is_failing("east", "k2") and not health.is_failing("west")
    clock.seconds += FAULT_SECONDS - 0.01
    assert health.is_failing("east")
    clock.seconds += 0.01
    assert not health.is_failing("east")


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("3600", LONGEST_SECONDS), (None, FAULT_SECONDS), ("Mon, 23 Nov 2026 11:00:00 GMT", FAULT_SECONDS),
     ("-1", FAULT_SECONDS), ("²", FAULT_SECONDS), ("9" * 400, FAULT_SECONDS)],
)  # fmt: skip
def test_429_counts_for_the_key_alone_as_long_as_is_asked(
    health: Health, clock: FixedClock, retry_after: str | None, seconds: float
) -> None:
    health.answered("east", "k1", 429, retry_after)
    assert health.is_failing("east", "k1") and not health.is_failing("east") and not health.is_failing("east", "k2")
    clock.seconds += seconds - 0.01
    assert health.is_failing("east", "k1")
    clock.seconds += 0.02
    assert not health.is_failing("east", "k1")


@pytest.mark.parametrize("status", [200, 400, 401, 404])
def test_any_other_answer_shows_that_it_lives(health: Health, status: int) -> None:
    health.failed("east")
    health.answered("east", "k1", 429, "30")
    health.answered("east", "k1", status, None)
    assert not health.is_failing("east", "k1")


def test_memory_is_bounded_and_what_recovers_first_is_forgotten(health: Health, clock: FixedClock) -> None:
    health.failed("first", seconds=1)
    for number in range(REMEMBERED - 1):
        health.failed(f"p{number}", seconds=30)
    health.failed("last", seconds=30)
    assert not health.is_failing("first") and health.is_failing("last") and health.is_failing("p0")
    clock.seconds += 31
    health.failed("new")
    assert len(health._until) == 1, "what is over goes first"
