"""Holds: all caps or none, sharing what is left, waiting in line, refusing; each number worked out by hand."""

import pytest

from store.errors import Conflict, NotFound
from store.ledger.caps import delete_cap
from store.ledger.operations import CancelOperation
from store.ledger.types import CallerLeft, Enforcement, Granted, Refused, Stale, Unit
from tests.store.ledger.desk import START_MS, Desk


def test_a_hold_is_in_the_books_before_the_answer(desk: Desk) -> None:
    desk.cap("a", 1000)
    answer = desk.hold("c1", "a", bound=100)

    assert isinstance(answer, Granted)
    assert (answer.amount_nanos, answer.alone, answer.would_refuse) == (100, False, ())
    assert [(state.cap.id, state.used, state.held, state.remaining) for state in answer.caps] == [("a", 0, 100, 900)]
    assert desk.sums("a") == (0, 100)


def test_all_caps_or_none(desk: Desk) -> None:
    desk.cap("wide", 1000)
    desk.cap("narrow", 50)
    answer = desk.hold("c1", "narrow wide", bound=100)

    assert isinstance(answer, Refused)
    assert not answer.held_only
    assert [(hit.state.cap.id, hit.needed) for hit in answer.exceeded] == [("narrow", 100)]
    assert (desk.sums("wide"), desk.sums("narrow")) == ((0, 0), (0, 0))


def test_every_cap_that_is_hit_is_named_in_the_order_of_the_request(desk: Desk) -> None:
    for cap_id, limit in (("a", 10), ("b", 1000), ("c", 20), ("d", 30)):
        desk.cap(cap_id, limit)
    answer = desk.hold("c1", "d b a c", bound=100)

    assert [hit.state.cap.id for hit in answer.exceeded] == ["d", "a", "c"]


@pytest.mark.parametrize(
    ("limit", "bound", "floor", "amount", "alone"),
    [
        (1000, 400, 10, 400, False),  # less than half of what is free: the whole bound
        (1000, 500, 10, 500, False),  # exactly half
        (1000, 501, 10, 500, False),  # more than half: half
        (1000, 5000, 10, 500, False),
        (1001, 5000, 10, 500, False),  # half, rounded down
        (1000, 5000, 500, 500, False),  # the floor is half
        (1000, 5000, 501, 1000, True),  # not even the floor fits twice: alone with all that is left
        (1000, 700, 600, 700, False),  # never above the bound
        (1000, 1000, 1000, 1000, True),
        (1000, 900, 2000, 900, False),  # a floor above the bound means the bound
        (1, 5000, 1, 1, True),
    ],
)
def test_sharing_what_is_left(desk: Desk, limit: int, bound: int, floor: int, amount: int, alone: bool) -> None:
    desk.cap("a", limit)
    answer = desk.hold("c1", "a", bound=bound, floor=floor)

    assert (answer.amount_nanos, answer.alone) == (amount, alone)


def test_each_call_takes_half_of_what_the_others_left(desk: Desk) -> None:
    desk.cap("a", 1000)
    amounts = [desk.hold(f"c{number}", "a", bound=5000, floor=100).amount_nanos for number in range(4)]

    assert amounts == [500, 250, 125, 100]  # the fourth takes its floor: 125 are free, half of it is less
    assert desk.hold("c5", "a", bound=5000, floor=100) is None, "25 are left: it waits"
    assert desk.sums("a") == (0, 975)
    desk.cancel("c5")


def test_the_tightest_cap_decides_for_all(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("b", 600)
    answer = desk.hold("c1", "a b", bound=5000, floor=10)

    assert answer.amount_nanos == 300
    assert desk.sums("a") == (0, 300)
    assert desk.sums("b") == (0, 300)


def test_without_trimming_the_full_bound_is_held_waits_or_is_refused(desk: Desk) -> None:
    desk.cap("a", 1000)

    assert desk.hold("c1", "a", bound=700, floor=10, trim=False).amount_nanos == 700
    assert desk.hold("c2", "a", bound=700, floor=10, trim=False) is None
    refused = desk.hold("c3", "a", bound=1001, floor=10, trim=False)
    assert isinstance(refused, Refused)
    assert refused.exceeded[0].needed == 1001
    desk.cancel("c2")


def test_it_is_refused_only_if_it_would_not_fit_without_the_others(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=100)
    desk.settle("c1", cost=400)
    desk.hold("c2", "a", bound=600)  # used 400, held 600, free 0

    assert desk.hold("c3", "a", bound=600) is None, "it fits limit - used: it waits"
    refused = desk.hold("c4", "a", bound=601)
    assert (refused.held_only, refused.exceeded[0].needed) == (False, 601)
    assert (refused.exceeded[0].state.used, refused.exceeded[0].state.held) == (400, 600)
    desk.cancel("c3")


def test_a_call_that_costs_nothing_is_never_refused_by_money(desk: Desk) -> None:
    for cap_id, enforcement in (("h", Enforcement.HARD), ("s", Enforcement.SOFT), ("o", Enforcement.OBSERVE)):
        desk.cap(cap_id, 0, enforcement=enforcement)
    answer = desk.hold("c1", "h s o", bound=0)

    assert (answer.amount_nanos, answer.would_refuse) == (0, ())
    assert desk.settle("c1", cost=7).over_hold
    assert desk.sums("h") == (7, 0)
    assert isinstance(desk.hold("c2", "h s o", bound=0), Granted)


def test_a_floor_of_nothing_lets_nobody_past_a_full_cap(desk: Desk) -> None:
    desk.cap("a", 100)
    desk.hold("c1", "a", bound=50)
    desk.settle("c1", cost=100)

    assert isinstance(desk.hold("c2", "a", bound=50, floor=0), Refused)


def test_a_free_call_still_counts_as_a_request(desk: Desk) -> None:
    desk.cap("r", 1, Unit.REQUESTS)

    assert isinstance(desk.hold("c1", "r", bound=0), Granted)
    desk.settle("c1")
    assert isinstance(desk.hold("c2", "r", bound=0), Refused)


def test_soft_caps_refuse_once_they_are_used_up_and_holds_do_not_count(desk: Desk) -> None:
    desk.cap("s", 100, enforcement=Enforcement.SOFT)

    assert [desk.hold(f"c{number}", "s", bound=500).amount_nanos for number in range(3)] == [500, 500, 500]
    desk.settle("c0", cost=99)
    assert isinstance(desk.hold("c3", "s", bound=500), Granted)
    desk.settle("c1", cost=1)
    assert desk.sums("s") == (100, 1000)
    refused = desk.hold("c4", "s", bound=500)
    assert (refused.held_only, refused.exceeded[0].state.cap.id) == (False, "s")


def test_observe_caps_never_refuse_or_trim_and_tell_what_would_have_been(desk: Desk) -> None:
    desk.cap("o", 100, enforcement=Enforcement.OBSERVE)
    first = desk.hold("c1", "o", bound=60)
    second = desk.hold("c2", "o", bound=60)
    third = desk.hold("c3", "o", bound=101)

    assert [(answer.amount_nanos, answer.would_refuse) for answer in (first, second, third)] == [
        (60, ()),
        (60, ()),  # only held: it would have waited, not been refused
        (101, ("o",)),
    ]
    desk.settle("c1", cost=90)
    assert desk.hold("c4", "o", bound=11).would_refuse == ("o",)


def test_observed_parallel_calls_are_told_when_all_places_are_taken(desk: Desk) -> None:
    """Nothing is ever used up of them, so what is held is what counts."""
    desk.cap("o", 2, Unit.CONCURRENT, window=None, enforcement=Enforcement.OBSERVE)
    told = [desk.hold(f"c{number}", "o", bound=1).would_refuse for number in range(3)]
    assert told == [(), (), ("o",)]
    desk.settle("c0", cost=1)
    desk.settle("c1", cost=1)
    assert desk.hold("c3", "o", bound=1).would_refuse == ()


def test_what_another_cap_refuses_is_not_observed(desk: Desk) -> None:
    desk.cap("o", 100, enforcement=Enforcement.OBSERVE)
    desk.cap("h", 10)
    answer = desk.hold("c1", "o h", bound=500)

    assert [hit.state.cap.id for hit in answer.exceeded] == ["h"]


def test_strict_caps_hold_one_token_a_byte(desk: Desk) -> None:
    desk.cap("a", 10_000)
    desk.cap("b", 10_000, strict=True)

    assert desk.hold("c1", "a", bound=100, strict_bound_nanos=400, strict_floor_nanos=300).amount_nanos == 100
    assert desk.hold("c2", "a b", bound=100, strict_bound_nanos=400, strict_floor_nanos=300).amount_nanos == 400
    assert desk.hold("c3", "b", bound=100).amount_nanos == 100, "never less than the learnt bound"


@pytest.mark.parametrize(("estimate", "held"), [(0, 1), (1, 1), (400, 400), (1000, 1000), (5000, 1000)])
def test_tokens_hold_the_estimate_at_most_the_limit(desk: Desk, estimate: int, held: int) -> None:
    desk.cap("t", 1000, Unit.TOKENS)
    desk.hold("c1", "t", bound=5, tokens=estimate)

    assert desk.sums("t") == (0, held)


def test_tokens_are_posted_in_full_and_then_refuse(desk: Desk) -> None:
    desk.cap("t", 1000, Unit.TOKENS)
    desk.hold("c1", "t", bound=5, tokens=100)
    desk.settle("c1", cost=3, tokens=1500)

    assert desk.sums("t") == (1500, 0)
    refused = desk.hold("c2", "t", bound=5, tokens=1)
    assert (refused.held_only, refused.exceeded[0].needed) == (False, 1)


def test_tokens_never_trim_money(desk: Desk) -> None:
    desk.cap("t", 100, Unit.TOKENS)

    assert desk.hold("c1", "t", bound=777, floor=1, tokens=90).amount_nanos == 777


def test_requests_hold_one_and_count_when_sent(desk: Desk) -> None:
    desk.cap("r", 2, Unit.REQUESTS)
    desk.hold("c1", "r", bound=5)
    desk.hold("c2", "r", bound=5)

    assert desk.hold("c3", "r", bound=5) is None, "it waits: both are only held"
    desk.settle("c1", cost=1)
    desk.settle("c2", sent=False)
    assert desk.sums("r") == (1, 1), "c2 was not sent and gave its place to c3"
    desk.settle("c3", cost=1)
    assert isinstance(desk.hold("c4", "r", bound=5), Refused)


def test_parallel_calls_are_given_back(desk: Desk) -> None:
    desk.cap("p", 1, Unit.CONCURRENT, window=None)
    assert isinstance(desk.hold("c1", "p", bound=5), Granted)
    waiting = desk.ask("c2", "p", 5)
    desk.step(waiting)
    assert not waiting.future.done()
    desk.settle("c1", cost=5)
    assert isinstance(waiting.future.value, Granted)
    assert desk.sums("p") == (0, 1)


def test_parallel_calls_wait_only_shortly(desk: Desk) -> None:
    desk.cap("p", 1, Unit.CONCURRENT, window=None)
    desk.hold("c1", "p", bound=5)
    waiting = desk.ask("c2", "p", 5)
    desk.step(waiting)
    desk.clock.pass_ms(1_900)
    desk.step()
    assert not waiting.future.done()
    desk.clock.pass_ms(200)
    desk.step()
    refused = waiting.future.value
    assert (refused.held_only, refused.waited_ms, refused.exceeded[0].state.cap.id) == (True, 2_100, "p")


def test_a_cap_of_no_parallel_calls_refuses_at_once(desk: Desk) -> None:
    desk.cap("p", 0, Unit.CONCURRENT, window=None)

    assert not desk.hold("c1", "p", bound=5).held_only


# ---- the line


def test_waiting_calls_get_what_is_given_back(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=1000)
    waiting = desk.ask("c2", "a", 400)
    desk.step(waiting)
    desk.clock.pass_ms(1_234)
    desk.settle("c1", cost=100)
    answer = waiting.future.value

    assert (answer.amount_nanos, answer.waited_ms) == (400, 1_234)
    assert desk.sums("a") == (100, 400)


def test_waiting_calls_are_refused_as_soon_as_it_is_hopeless(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=1000)
    waiting = desk.ask("c2", "a", 400)
    desk.step(waiting)
    desk.settle("c1", cost=601)
    answer = waiting.future.value

    assert isinstance(answer, Refused)
    assert (answer.held_only, answer.exceeded[0].needed, answer.exceeded[0].state.used) == (False, 400, 601)


def test_who_may_not_wait_is_told_at_once_and_stands_in_nobodys_way(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=1000)
    refused = desk.hold("c2", "a", bound=400, may_wait=False)

    assert isinstance(refused, Refused)
    assert (refused.held_only, refused.waited_ms, refused.exceeded[0].needed) == (True, 0, 400)
    desk.settle("c1", cost=500)
    assert isinstance(desk.hold("c2", "a", bound=400, may_wait=False), Granted), "the same call may ask again"
    assert desk.hold("c3", "a", bound=200) is None, "who may wait does"


def test_who_may_not_wait_does_not_pass_those_who_do(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=700)
    assert desk.hold("c2", "a", bound=400) is None
    refused = desk.hold("c3", "a", bound=100, may_wait=False)
    assert isinstance(refused, Refused) and refused.held_only, "what is free is for the one who waits"


def test_waiting_ends_with_held_only(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=1000)
    waiting = desk.ask("c2", "a", 400)
    desk.step(waiting)
    desk.clock.pass_ms(9_990)
    desk.step()
    assert not waiting.future.done()
    desk.clock.pass_ms(60)
    desk.step()
    answer = waiting.future.value

    assert (answer.held_only, answer.waited_ms) == (True, 10_050)
    assert [(hit.state.cap.id, hit.needed) for hit in answer.exceeded] == [("a", 400)]
    desk.settle("c1", cost=0)
    assert desk.sums("a") == (0, 0), "nobody waits while holding"


def test_first_come_first_served(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=900)
    big = desk.ask("big", "a", 600, trim=False)
    desk.step(big)
    small = desk.ask("small", "a", 50, trim=False)
    desk.step(small)

    assert not small.future.done(), "100 are free, but the one ahead needs 600"
    desk.settle("c1", cost=0)
    assert big.future.value.amount_nanos == 600
    assert small.future.value.amount_nanos == 50


def test_a_newcomer_must_fit_together_with_those_ahead(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("b", 1000)
    desk.hold("c1", "a", bound=900)
    ahead = desk.ask("ahead", "a b", 600, trim=False)
    desk.step(ahead)

    assert isinstance(desk.hold("fits", "b", bound=400, trim=False), Granted)
    assert desk.hold("does-not", "b", bound=1, trim=False) is None, "400 held and 600 kept for the one ahead"
    assert isinstance(desk.hold("elsewhere", "", bound=5), Granted), "a call without caps waits for nobody"
    desk.settle("c1", cost=0)
    assert ahead.future.value.amount_nanos == 600
    desk.cancel("does-not")


def test_a_call_that_fits_only_alone_runs_alone(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=50)
    alone = desk.ask("c2", "a", 5000, floor=960)
    desk.step(alone)
    assert not alone.future.done()
    desk.settle("c1", cost=20)
    answer = alone.future.value

    assert (answer.amount_nanos, answer.alone) == (980, True)


def test_the_line_is_bounded_in_calls(tmp_path_factory: pytest.TempPathFactory) -> None:
    desk = Desk(tmp_path_factory.mktemp("d"), calls_max=2)
    desk.cap("a", 100)
    desk.hold("c1", "a", bound=100)
    assert desk.hold("c2", "a", bound=100) is None
    assert desk.hold("c3", "a", bound=100) is None
    refused = desk.hold("c4", "a", bound=100)

    assert (refused.held_only, refused.waited_ms) == (True, 0)
    desk.close()


def test_the_line_is_bounded_in_bytes(tmp_path_factory: pytest.TempPathFactory) -> None:
    desk = Desk(tmp_path_factory.mktemp("d"), bytes_max=1000)
    desk.cap("a", 100)
    desk.hold("c1", "a", bound=100)
    assert desk.hold("c2", "a", bound=100, waiting_bytes=900) is None
    assert desk.hold("c3", "a", bound=100, waiting_bytes=101).held_only
    assert desk.hold("c4", "a", bound=100, waiting_bytes=100) is None
    desk.close()


def test_a_window_that_begins_lets_waiting_calls_in(desk: Desk) -> None:
    desk.cap("a", 1000, window="1s")
    desk.hold("c1", "a", bound=1000)
    waiting = desk.ask("c2", "a", 1000)
    desk.step(waiting)
    assert not waiting.future.done()
    desk.clock.pass_ms(1_000)
    desk.step()

    assert isinstance(waiting.future.value, Granted)


# ---- ids, revisions, unknown caps


def test_repeating_a_hold_changes_nothing(desk: Desk) -> None:
    desk.cap("a", 1000)
    first = desk.hold("c1", "a", bound=300)
    again = desk.hold("c1", "a", bound=300)

    assert (again.amount_nanos, again.caps) == (first.amount_nanos, first.caps)
    assert desk.sums("a") == (0, 300)


def test_repeating_a_hold_in_one_batch_changes_nothing(desk: Desk) -> None:
    desk.cap("a", 1000)
    first, second = desk.ask("c1", "a", 300), desk.ask("c1", "a", 300)
    desk.step(first, second)

    assert first.future.value == second.future.value
    assert desk.sums("a") == (0, 300)


def test_the_id_of_a_settled_call_is_refused(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    desk.settle("c1", cost=1)

    assert isinstance(desk.hold("c1", "a", bound=300), Conflict)
    assert desk.sums("a") == (1, 0)


def test_a_cap_named_twice_is_held_once(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a a", bound=300)

    assert desk.sums("a") == (0, 300)


def test_an_older_revision_is_stale(desk: Desk) -> None:
    desk.cap("a", 1000)
    old = desk.revision
    desk.cap("b", 1000)

    assert desk.hold("c1", "a", bound=1, revision=old) == Stale(old + 1)
    assert isinstance(desk.hold("c1", "a", bound=1, revision=old + 1), Granted)


def test_waiting_calls_become_stale_when_the_caps_change(desk: Desk) -> None:
    desk.cap("a", 100)
    desk.hold("c1", "a", bound=100)
    waiting = desk.ask("c2", "a", 100)
    desk.step(waiting)
    desk.cap("a", 1000)
    desk.look_again()

    assert waiting.future.value == Stale(desk.revision)


def test_a_raised_limit_counts_at_once(desk: Desk) -> None:
    desk.cap("a", 100)
    assert isinstance(desk.hold("c1", "a", bound=500), Refused)
    desk.cap("a", 1000)
    assert isinstance(desk.hold("c1", "a", bound=500), Granted)


def test_lowering_a_limit_revokes_nothing(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=500)
    desk.cap("a", 100)

    assert desk.sums("a") == (0, 500)
    assert desk.state("a").remaining == 0
    assert desk.hold("c2", "a", bound=100) is None, "it fits when the other one is voided"
    desk.cancel("c2")


def test_an_unknown_cap_is_an_error(desk: Desk) -> None:
    answer = desk.hold("c1", "nowhere", bound=1)

    assert isinstance(answer, NotFound)
    assert "nowhere" in str(answer)


def test_a_deleted_cap_binds_nobody(desk: Desk) -> None:
    desk.cap("a", 0)
    with desk.database.write() as connection:
        delete_cap(connection, "a")

    assert desk.hold("c1", "a", bound=1).caps == ()


# ---- windows


def test_a_hold_belongs_to_the_window_in_which_it_was_taken(desk: Desk) -> None:
    desk.cap("a", 1000, window="1h")
    desk.hold("c1", "a", bound=1000)
    desk.clock.pass_ms(3_600_000)

    assert desk.sums("a") == (0, 0)
    assert desk.state("a").window_start_ms == START_MS + 3_600_000
    assert desk.state("a").resets_at_ms == START_MS + 7_200_000
    assert isinstance(desk.hold("c2", "a", bound=1000), Granted)
    settled = desk.settle("c1", cost=999)
    assert [(state.used, state.held) for state in settled.caps] == [(0, 1000)], "the state told is that of the current window"
    assert desk.sums("a") == (0, 1000)
    desk.settle("c2", cost=5)
    assert desk.sums("a") == (5, 0)


def test_carry_over_is_frozen_at_the_roll(desk: Desk) -> None:
    desk.cap("a", 1000, carry_over=True)
    desk.hold("c1", "a", bound=300)
    desk.hold("c2", "a", bound=100)
    desk.settle("c1", cost=250)
    desk.clock.pass_ms(3_600_000)
    assert (desk.state("a").carried, desk.state("a").limit) == (650, 1650), "1000 - 250 used - 100 held"
    desk.hold("c3", "a", bound=1)
    desk.settle("c2", cost=0)
    assert desk.state("a").carried == 650, "what comes back later changes nothing"
    desk.clock.pass_ms(3_600_000)
    assert desk.state("a").carried == 1000, "never more than the limit: 1000 + 650 - 1 held"
    desk.settle("c3", cost=1)


def test_carry_over_of_windows_nobody_used(desk: Desk) -> None:
    desk.cap("a", 1000, carry_over=True)
    desk.clock.pass_ms(5 * 3_600_000)

    assert desk.state("a").carried == 1000
    assert desk.hold("c1", "a", bound=1900, trim=False).amount_nanos == 1900


def test_nothing_is_carried_into_the_first_window(desk: Desk) -> None:
    desk.cap("a", 1000, carry_over=True)

    assert desk.state("a").carried == 0


# ---- callers that leave


def test_a_call_whose_caller_left_gives_its_hold_back(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    desk.cancel("c1")

    assert desk.sums("a") == (0, 0)
    assert desk.settle("c1", cost=5).repeated, "it was voided: settling it changes nothing"
    assert desk.sums("a") == (0, 0)


def test_a_waiting_call_whose_caller_left_holds_nothing(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=1000)
    waiting = desk.ask("c2", "a", 1000)
    desk.step(waiting)
    desk.cancel("c2")
    assert isinstance(waiting.future.value, CallerLeft)
    desk.settle("c1", cost=0)

    assert desk.sums("a") == (0, 0)


def test_cancelling_what_was_never_asked_changes_nothing(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cancel("nobody")

    assert desk.sums("a") == (0, 0)


def test_a_caller_that_leaves_before_the_batch_holds_nothing(desk: Desk) -> None:
    desk.cap("a", 1000)
    operation = desk.ask("c1", "a", 1000)
    again = desk.ask("c1", "a", 1000)
    desk.step(operation, CancelOperation("c1"), again)

    assert isinstance(operation.future.value, CallerLeft)
    assert isinstance(again.future.value, Granted), "asked for after the cancellation"
    desk.settle("c1", sent=False)
    assert desk.sums("a") == (0, 0)
    assert isinstance(desk.hold("c2", "a", bound=1000), Granted)
