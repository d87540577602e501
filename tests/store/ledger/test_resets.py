"""A reset forgives the calls posted before it, and nothing else, whatever they turn out to have cost."""

import random
from dataclasses import dataclass

import pytest

from store.ledger.caps import reset_cap
from store.ledger.history import confirm
from store.ledger.types import Granted, Unit
from store.windows import parse_duration
from tests.store.ledger.till import HOUR_MS, START_MS, Till


def reset(till: Till, cap_id: str) -> None:
    with till.database.write() as connection:
        reset_cap(connection, cap_id, "for the test")


def test_a_cheaper_outcome_after_a_reset_takes_nothing_from_what_was_spent_since(till: Till) -> None:
    """Spent since the reset: 30. Before the rule was there, `used` came out at 30 - 60 = -30."""
    till.cap("a", 1000)
    till.hold("lost", "a", 100)
    till.lose("lost")
    reset(till, "a")
    till.spend("new", "a", 30)

    assert till.settle("lost", 40).adjusted

    assert till.used("a") == 30
    assert till.rows("SELECT cost_nanos FROM posts WHERE call_id = 'lost' ORDER BY sequence") == [(100,), (-60,)]


def test_a_dearer_outcome_after_a_reset_adds_nothing_either(till: Till) -> None:
    """The reset forgave the call, not the guess at its cost: as if it had been booked right in the first place."""
    till.cap("a", 1000)
    till.hold("lost", "a", 100)
    till.lose("lost")
    reset(till, "a")

    assert till.settle("lost", 140).over_hold
    assert till.used("a") == 0


def test_a_correction_before_the_reset_and_one_after_another_call_count_in_full(till: Till) -> None:
    till.cap("a", 1000)
    for call_id in ("one", "two"):
        till.hold(call_id, "a", 100)
    till.lose("one")
    till.settle("one", 10)
    assert till.used("a") == 10
    reset(till, "a")
    till.lose("two")
    assert till.used("a") == 100, "it was held across the reset and posted after it"
    till.settle("two", 25)
    assert till.used("a") == 25


def test_only_the_cap_that_was_reset_forgives(till: Till) -> None:
    till.cap("a", 1000)
    till.cap("b", 1000, "1d")
    till.cap("t", 5000, unit=Unit.TOKENS)
    till.hold("lost", "a b t", 100, tokens=700)
    till.lose("lost")
    reset(till, "a")

    till.settle("lost", 40, 300)

    assert (till.used("a"), till.used("b"), till.used("t")) == (0, 40, 300)


def test_a_changed_window_does_not_bring_back_what_was_forgiven(till: Till) -> None:
    """The call belongs to an hour that was over when the next one was reset; the day is recomputed from the reset on."""
    till.cap("a", 1000)
    till.hold("lost", "a", 100)
    till.lose("lost")
    till.pass_ms(HOUR_MS)
    till.spend("second", "a", 30)
    reset(till, "a")
    till.spend("third", "a", 7)
    till.settle("lost", 40)
    till.cap("a", 1000, "1d")

    assert till.used("a") == 7


def test_a_correction_after_reset_and_window_change(till: Till) -> None:
    till.cap("a", 1000)
    till.hold("lost", "a", 100)
    till.lose("lost")
    reset(till, "a")
    till.cap("a", 1000, "1d")
    till.spend("new", "a", 9)

    till.settle("lost", 40)

    assert till.used("a") == 9


def test_a_person_confirms_after_a_reset(till: Till) -> None:
    till.cap("a", 1000)
    till.hold("lost", "a", 100)
    till.lose("lost")
    reset(till, "a")
    with till.database.write() as connection:
        assert confirm(connection, "lost", cost_nanos=40, reason="the invoice says so").adjusted

    assert till.used("a") == 0


def test_without_a_reset_nothing_changes(till: Till) -> None:
    till.cap("a", 1000)
    till.hold("lost", "a", 100)
    till.lose("lost")
    till.pass_ms(3 * HOUR_MS)
    till.cap("a", 1000, "1d")
    till.settle("lost", 40)

    assert till.used("a") == 40


@pytest.mark.parametrize(("row", "says"), [(-60, 0), (0, -60)])
def test_verify_knows_the_rule(till: Till, row: int, says: int) -> None:
    """A correction that books where it must not, and one that does not where it must, are both found."""
    till.cap("a", 1000)
    till.hold("lost", "a", 100)
    till.lose("lost")
    if says == 0:
        reset(till, "a")
    till.settle("lost", 40)
    forged, right = f'[["a",{START_MS},{row}]]', f'[["a",{START_MS},{says}]]'
    with till.database.write() as connection:
        connection.execute("UPDATE posts SET parts = ? WHERE step = 2", (forged,))
    assert f"amount of cap a in the window from {START_MS} of call lost: kept {row}, the rows say {says}" in till.differences()
    with till.database.write() as connection:
        connection.execute("UPDATE posts SET parts = ? WHERE step = 2", (right,))


# ---- against a naive model


@dataclass
class Call:
    """What the model knows of a call."""

    held_ms: int
    held: int
    state: str = "open"
    worth: int = 0
    forgiven: bool = False


class Model:
    """One cap: every call with what it is worth now; `used` is added up from them whenever it is asked."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.window: str | None = "1h"

    def used(self, now_ms: int) -> int:
        return sum(call.worth for call in self.calls.values() if not call.forgiven and self._same(call.held_ms, now_ms))

    def held(self, now_ms: int) -> int:
        return sum(call.held for call in self.calls.values() if call.state == "open" and self._same(call.held_ms, now_ms))

    def _same(self, one_ms: int, other_ms: int) -> bool:
        if self.window is None:
            return True
        length_ms = parse_duration(self.window).ms
        return (one_ms - START_MS) // length_ms == (other_ms - START_MS) // length_ms

    def reset(self) -> None:
        for call in self.calls.values():
            call.forgiven = call.forgiven or call.state != "open"


@pytest.mark.parametrize("seed", range(12))
def test_any_history_of_resets_corrections_and_windows_agrees_with_a_naive_model(till: Till, seed: int) -> None:
    chance, model = random.Random(seed), Model()
    till.clock.at_ms = START_MS
    till.cap("a", 10**15, created_ms=START_MS)
    for step in range(70):
        some = chance.choice(list(model.calls)) if model.calls else ""
        match chance.choice(["hold", "hold", "hold", "lose", "settle", "settle", "settle", "reset", "window", "wait"]):
            case "hold":
                amount = chance.randint(1, 500)
                assert isinstance(till.hold(f"c{step}", "a", amount), Granted)
                model.calls[f"c{step}"] = Call(till.clock.at_ms, amount)
            case "lose" if some and model.calls[some].state == "open":
                till.lose(some)
                model.calls[some].state, model.calls[some].worth = "lost", model.calls[some].held
            case "settle" if some:
                cost = chance.randint(0, 700)
                till.settle(some, cost)
                if model.calls[some].state in ("open", "lost"):
                    model.calls[some].state, model.calls[some].worth = "settled", cost
            case "reset":
                reset(till, "a")
                model.reset()
            case "window":
                model.window = chance.choice(["30m", "1h", "5h", "1d", None])
                till.cap("a", 10**15, model.window, created_ms=START_MS)
            case "wait":
                till.pass_ms(chance.choice([1, 60_000, HOUR_MS // 2, HOUR_MS, 3 * HOUR_MS]))
        state = till.state("a")
        assert (state.used, state.held) == (model.used(till.clock.at_ms), model.held(till.clock.at_ms)), f"seed {seed}, step {step}"
    assert till.differences() == []
