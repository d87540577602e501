"""Learned figures against the same figures computed the slow way, from whole lists."""

import math
import statistics
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.steps.learned import MIN_TEXT_BYTES, RECENT_CALLS, AnswerSizes, Learned

DEFAULT = 0.4


def test_before_any_call_the_default_holds_and_outputs_are_unknown() -> None:
    learned = Learned()
    assert learned.tokens_per_byte("openai", "gpt-4o", DEFAULT) == DEFAULT
    assert learned.usual_output("vk", "openai", "gpt-4o") is None
    assert learned.typical_output("vk", "openai", "gpt-4o") is None


def test_ratio_is_the_highest_seen_with_a_quarter_on_top() -> None:
    learned = Learned()
    learned.observe("openai", "gpt-4o", "vk", 1000, 200, 10)
    learned.observe("openai", "gpt-4o", "vk", 1000, 300, 10)
    learned.observe("openai", "gpt-4o", "vk", 1000, 250, 10)
    assert learned.tokens_per_byte("openai", "gpt-4o", DEFAULT) == pytest.approx(0.375)


def test_ratio_never_passes_one_token_per_byte() -> None:
    learned = Learned()
    learned.observe("openai", "gpt-4o", "vk", 1000, 5000, 10)
    assert learned.tokens_per_byte("openai", "gpt-4o", DEFAULT) == 1.0


def test_ratio_forgets_what_is_older_than_the_recent_calls() -> None:
    learned = Learned()
    learned.observe("openai", "gpt-4o", "vk", 1000, 700, 10)
    for _ in range(RECENT_CALLS - 1):
        learned.observe("openai", "gpt-4o", "vk", 1000, 200, 10)
    assert learned.tokens_per_byte("openai", "gpt-4o", DEFAULT) == pytest.approx(0.875)
    learned.observe("openai", "gpt-4o", "vk", 1000, 200, 10)
    assert learned.tokens_per_byte("openai", "gpt-4o", DEFAULT) == pytest.approx(0.25)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=3 * RECENT_CALLS))
@settings(max_examples=60, deadline=None)
def test_sliding_maximum_equals_the_maximum_of_the_tail(tokens: list[int]) -> None:
    learned = Learned()
    for count in tokens:
        learned.observe("p", "m", "vk", 2000, count, 1)
    expected = max(tokens[-RECENT_CALLS:]) / 2000 * 1.25
    assert learned.tokens_per_byte("p", "m", DEFAULT) == pytest.approx(expected)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=3 * RECENT_CALLS))
@settings(max_examples=60, deadline=None)
def test_percentiles_equal_those_of_the_sorted_tail(outputs: list[int]) -> None:
    learned = Learned()
    for count in outputs:
        learned.observe("p", "m", "vk", 0, 0, count)
    tail = sorted(outputs[-RECENT_CALLS:])
    assert learned.usual_output("vk", "p", "m") == tail[math.ceil(len(tail) * 0.99) - 1]
    assert learned.typical_output("vk", "p", "m") == statistics.median_low(tail)


def test_p99_of_two_hundred_ignores_the_two_longest_answers() -> None:
    learned = Learned()
    for count in [100] * 198 + [9000, 9001]:
        learned.observe("p", "m", "vk", 0, 0, count)
    assert learned.usual_output("vk", "p", "m") == 100


def test_percentiles_by_hand() -> None:
    learned = Learned()
    for count in range(1, RECENT_CALLS + 1):
        learned.observe("p", "m", "vk", 0, 0, count)
    assert (learned.usual_output("vk", "p", "m"), learned.typical_output("vk", "p", "m")) == (198, 100)
    learned.observe("p", "m", "vk", 0, 0, 5000)  # 1 goes
    assert (learned.usual_output("vk", "p", "m"), learned.typical_output("vk", "p", "m")) == (199, 101)


def test_outputs_are_kept_apart_by_key_provider_and_model() -> None:
    learned = Learned()
    learned.observe("p", "m", "one", 0, 0, 10)
    learned.observe("p", "m", "two", 0, 0, 20)
    learned.observe("p", "n", "one", 0, 0, 30)
    learned.observe("q", "m", "one", 0, 0, 40)
    assert [learned.usual_output(*key) for key in (("one", "p", "m"), ("two", "p", "m"), ("one", "p", "n"), ("one", "q", "m"))] == [
        10,
        20,
        30,
        40,
    ]


@pytest.mark.parametrize("text_bytes, input_tokens", [(0, 500), (-5, 500), (1000, 0), (1000, -3), (MIN_TEXT_BYTES - 1, 100)])
def test_useless_samples_teach_no_ratio(text_bytes: int, input_tokens: int) -> None:
    learned = Learned()
    learned.observe("p", "m", "vk", text_bytes, input_tokens, 10)
    assert learned.tokens_per_byte("p", "m", DEFAULT) == DEFAULT
    assert learned.usual_output("vk", "p", "m") == 10


def test_answers_without_output_and_absurd_counts_do_no_harm() -> None:
    learned = Learned()
    learned.observe("p", "m", "vk", 1000, 10, 0)
    learned.observe("p", "m", "vk", 1000, 10, -1)
    assert learned.usual_output("vk", "p", "m") is None
    learned.observe("p", "m", "vk", 1000, 10, 10**30)
    assert learned.usual_output("vk", "p", "m") == 2**32 - 1


def test_the_least_recently_used_entries_go_first() -> None:
    learned = Learned(max_entries=10)
    for number in range(10):
        learned.observe("p", f"m{number}", "vk", 0, 0, number + 1)
    assert learned.usual_output("vk", "p", "m0") == 1  # looked at, so m1 is the oldest now
    learned.observe("p", "m10", "vk", 0, 0, 11)
    assert len(learned) == 10
    assert learned.usual_output("vk", "p", "m1") is None
    assert learned.usual_output("vk", "p", "m0") == 1


def test_size_is_bounded_for_any_number_of_names() -> None:
    learned = Learned(max_entries=100)
    for number in range(2000):
        learned.observe("p", f"m{number}", f"vk{number}", 1000, 100, 10)
        assert len(learned) <= 100


def test_a_look_costs_microseconds_not_a_sort() -> None:
    learned = Learned()
    for number in range(RECENT_CALLS):
        learned.observe("p", "m", "vk", 1000, 100, number + 1)
    started = time.perf_counter()
    for _ in range(2000):
        learned.usual_output("vk", "p", "m")
    assert (time.perf_counter() - started) / 2000 < 50e-6


def test_answers_are_remembered_and_forgotten_in_order() -> None:
    """The least recently made answer goes first, and an unknown one is None, not zero."""
    sizes = AnswerSizes(max_entries=2)
    for number, name in enumerate(("a", "b", "c")):
        sizes.remember(name, 10 * number)
    assert [sizes.tokens(name) for name in ("a", "b", "c")] == [None, 10, 20]
