"""Windows of rate limits as they pass: what a real ledger answers at each instant, and the Retry-After that is made of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from addons.refusal import Refusal
from addons.steps.reserve import refusal_of
from store.clock import iso_utc, ms_from_iso
from store.ledger.types import Granted, Refused, Unit
from tests.store.ledger.desk import Desk

NOON_LESS_ONE = ms_from_iso("2026-11-23T11:00:00Z")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    assert made.clock.now_ms() == NOON_LESS_ONE
    yield made
    assert made.differences() == []
    made.close()


def at(desk: Desk, clock: str) -> None:
    """Move on to this time of the day."""
    desk.clock.pass_ms(ms_from_iso(f"2026-11-23T{clock}Z") - desk.clock.now_ms())


def use(desk: Desk, caps: str, *call_ids: str, tokens: int = 0) -> None:
    for call_id in call_ids:
        assert isinstance(desk.hold(call_id, caps, tokens=tokens), Granted)
        desk.settle(call_id, tokens=tokens)


def told(answer: Any) -> Refusal:
    assert isinstance(answer, Refused)
    return refusal_of(answer, answer.at_ms)


@pytest.mark.parametrize(
    ("window", "clock", "resets_at", "retry_after"),
    [
        ("1m", "11:00:10.500", "11:01:00.000", 50),  # 49.5 seconds, rounded up
        ("1m", "11:00:00.000", "11:01:00.000", 60),
        ("1m", "11:00:59.999", "11:01:00.000", 1),
        ("1m", "13:30:20.000", "13:31:00.000", 40),  # windows go on by themselves, used or not
        ("90s", "11:00:10.000", "11:01:30.000", None),  # 80 seconds: too long
        ("90s", "11:04:10.000", "11:04:30.000", 20),  # the third window began at 11:03:00
        ("1h", "11:00:10.000", "12:00:00.000", None),
        ("1h", "11:58:59.999", "12:00:00.000", None),  # 60.001 seconds
        ("1h", "11:59:00.000", "12:00:00.000", 60),
        ("1h", "11:59:59.001", "12:00:00.000", 1),
        ("1h", "13:15:00.000", "14:00:00.000", None),
    ],
)
def test_a_window_that_is_used_up(desk: Desk, window: str, clock: str, resets_at: str, retry_after: int | None) -> None:
    desk.cap("r", 2, Unit.REQUESTS, window)
    at(desk, clock)
    use(desk, "r", "c1", "c2")
    refusal = told(desk.hold("c3", "r"))
    assert (refusal.status, refusal.type, refusal.retry_after) == (429, "request_limited", retry_after)
    end = ms_from_iso(f"2026-11-23T{resets_at}Z")
    assert refusal.exceeded[0].state.resets_at_ms == end
    assert f"has 0 of 2 requests left; it resets at {iso_utc(end)} (every {window})" in refusal.message

    desk.clock.pass_ms(end - 1 - desk.clock.now_ms())
    assert isinstance(desk.hold("c4", "r"), Refused), "a millisecond too early"
    desk.clock.pass_ms(1)
    use(desk, "r", "c5", "c6")
    assert desk.sums("r") == (2, 0)


def test_the_ledgers_clock_decides(desk: Desk) -> None:
    """A process whose own clock is wrong by half a minute tells the same wait: the one of the ledger."""
    desk.cap("r", 1, Unit.REQUESTS, "1m")
    at(desk, "11:00:20.000")
    use(desk, "r", "c1")
    answer = desk.hold("c2", "r")
    assert answer.at_ms == desk.clock.now_ms()
    assert [refusal_of(answer, desk.clock.now_ms() + skew_ms).retry_after for skew_ms in (-30_000, 0, 30_000)] == [40, 40, 40]


def test_the_wait_is_for_the_last_of_several(desk: Desk) -> None:
    desk.cap("r", 1, Unit.REQUESTS, "10s")
    desk.cap("t", 100, Unit.TOKENS, "1m")
    at(desk, "11:00:12.000")
    use(desk, "r t", "c1", tokens=100)
    both = told(desk.hold("c2", "r t", tokens=100))
    assert (both.type, both.retry_after, [hit.state.cap.id for hit in both.exceeded]) == ("rate_limited", 48, ["r", "t"])
    at(desk, "11:00:20.000")
    one = told(desk.hold("c3", "r t", tokens=100))
    assert (one.type, one.retry_after, [hit.state.cap.id for hit in one.exceeded]) == ("token_limited", 40, ["t"])


def test_a_call_counts_in_the_window_in_which_it_left(desk: Desk) -> None:
    desk.cap("r", 1, Unit.REQUESTS, "1m")
    at(desk, "11:00:59.000")
    desk.hold("c1", "r")
    at(desk, "11:01:05.000")
    assert isinstance(desk.hold("c2", "r"), Granted)
    desk.settle("c1")
    assert desk.sums("r") == (0, 1)
    desk.settle("c2")
    assert desk.sums("r") == (1, 0)


@pytest.mark.parametrize(("window", "retry_after"), [("1m", 28), ("1h", 2)])
def test_requests_that_others_hold_are_waited_for_shortly(desk: Desk, window: str, retry_after: int) -> None:
    """They come back only when a call never left. The next window is the next chance, unless that is far away."""
    desk.cap("r", 1, Unit.REQUESTS, window)
    at(desk, "11:00:30.000")
    desk.hold("c1", "r")
    waiting = desk.ask("c2", "r")
    desk.step(waiting)
    desk.clock.pass_ms(1_950)
    desk.step()
    assert not waiting.future.done()
    desk.clock.pass_ms(100)
    desk.step()
    answer = waiting.future.value
    assert (answer.held_only, answer.waited_ms) == (True, 2_050)
    refusal = told(answer)
    assert (refusal.type, refusal.retry_after) == ("request_limited", retry_after)
    desk.settle("c1")


def test_tokens_that_others_hold_are_worth_the_whole_wait(desk: Desk) -> None:
    """They are estimates, so some of them come back."""
    desk.cap("t", 100, Unit.TOKENS, "1h")
    desk.hold("c1", "t", tokens=80)
    waiting, late = desk.ask("c2", "t", tokens=60), desk.ask("c3", "t", tokens=60)
    desk.step(waiting)
    desk.clock.pass_ms(5_000)
    desk.settle("c1", tokens=30)
    assert isinstance(waiting.future.value, Granted)
    desk.step(late)
    desk.clock.pass_ms(10_000)
    desk.step()
    refusal = told(late.future.value)
    assert (refusal.type, refusal.retry_after) == ("token_limited", 2)
    assert "has 10 of 100 tokens left and this call needs about 60" in refusal.message
    desk.settle("c2", tokens=70)
    assert desk.sums("t") == (100, 0)
