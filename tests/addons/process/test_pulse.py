"""Silence, sleep and restarts as arithmetic: times are handed in, nothing waits."""

from hypothesis import given
from hypothesis import strategies as st

from addons.process.pulse import (
    LONGEST_STEP_SECONDS,
    PING_SECONDS,
    RESTART_PAUSE_SECONDS,
    SILENCE_SECONDS,
    STABLE_SECONDS,
    AwakeClock,
    Backoff,
    Pulse,
)


class Hands:
    """A clock that is set by hand."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


# -- the clock of one who may have slept


def test_time_that_is_looked_at_often_counts_in_full() -> None:
    hands = Hands()
    clock = AwakeClock(hands)
    assert clock.tick() == 0.0
    for _ in range(40):
        hands.at += 0.5
        clock.tick()
    assert clock.now == 20.0


def test_a_sleep_counts_for_one_step() -> None:
    hands = Hands()
    clock = AwakeClock(hands)
    clock.tick()
    hands.at += 8 * 3600
    assert clock.tick() == LONGEST_STEP_SECONDS
    hands.at += 0.25
    assert clock.tick() == LONGEST_STEP_SECONDS + 0.25


def test_one_step_alone_makes_nobody_silent() -> None:
    """Else a supervisor that wakes before its children would kill them."""
    assert LONGEST_STEP_SECONDS < SILENCE_SECONDS / 2


@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), max_size=50))
def test_it_never_goes_back_and_never_faster_than_time(steps: list[float]) -> None:
    hands = Hands(0.0)
    clock = AwakeClock(hands)
    clock.tick()
    for step in steps:
        before, hands.at = clock.now, hands.at + step
        assert 0.0 <= clock.tick() - before <= max(0.0, step) + 1e-9


# -- questions and answers


def test_one_question_at_a_time_and_a_pause_after_the_answer() -> None:
    pulse = Pulse()
    assert pulse.due(5.0) == 1
    assert pulse.due(9.0) is None
    pulse.answered(1, 9.0)
    assert pulse.due(9.0 + PING_SECONDS - 0.01) is None
    assert pulse.due(9.0 + PING_SECONDS) == 2


def test_silence_begins_with_the_question() -> None:
    pulse = Pulse()
    assert not pulse.is_silent(1e9), "it was never asked"
    pulse.due(100.0)
    assert not pulse.is_silent(100.0 + SILENCE_SECONDS - 0.01)
    assert pulse.is_silent(100.0 + SILENCE_SECONDS)
    pulse.answered(1, 100.0 + SILENCE_SECONDS)
    assert not pulse.is_silent(1e9)


def test_answers_to_other_questions_say_nothing() -> None:
    pulse = Pulse()
    pulse.answered(1, 0.0)
    assert pulse.due(0.0) == 1
    for number in (0, 2, 99):
        pulse.answered(number, 1.0)
    assert pulse.is_silent(SILENCE_SECONDS)


# -- restarts


def test_pauses_grow_with_early_deaths_and_stay_at_the_longest() -> None:
    backoff = Backoff()
    longest = RESTART_PAUSE_SECONDS[-1]
    assert [backoff.died(1.0) for _ in range(6)] == [*RESTART_PAUSE_SECONDS, longest, longest]
    assert list(RESTART_PAUSE_SECONDS) == sorted(set(RESTART_PAUSE_SECONDS)) and 0 < RESTART_PAUSE_SECONDS[0] <= 0.2
    assert longest <= 10


def test_a_long_life_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.died(STABLE_SECONDS)
    assert backoff.died(STABLE_SECONDS + 0.1) == RESTART_PAUSE_SECONDS[0]
    assert backoff.died(0.0) == RESTART_PAUSE_SECONDS[1]
