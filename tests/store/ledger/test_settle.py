"""Settlements: posted in full, once, to the caps that were held; unconfirmed ones corrected."""

from store.errors import NotFound
from store.ledger.caps import delete_cap, put_cap
from store.ledger.history import confirm, posts_of, posts_since, total_posted, unconfirmed
from store.ledger.types import CallFacts, Cap, Scope, Settlement, Unit
from tests.store.ledger.desk import START_MS, Desk


def test_posts_the_real_cost_and_gives_the_hold_back(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("t", 1000, Unit.TOKENS)
    desk.cap("r", 10, Unit.REQUESTS)
    desk.cap("p", 10, Unit.CONCURRENT, window=None)
    desk.hold("c1", "a t r p", bound=300, tokens=50)
    settled = desk.settle("c1", cost=120, tokens=33, input_tokens=30, output_tokens=3)

    assert (settled.call_id, settled.over_hold, settled.repeated, settled.adjusted, settled.spooled) == (
        "c1",
        False,
        False,
        False,
        False,
    )
    assert [(state.cap.id, state.used, state.held) for state in settled.caps] == [
        ("a", 120, 0),
        ("t", 33, 0),
        ("r", 1, 0),
        ("p", 0, 0),
    ]
    assert [desk.sums(cap_id) for cap_id in "atrp"] == [(120, 0), (33, 0), (1, 0), (0, 0)]


def test_a_call_that_was_not_sent_costs_nothing(desk: Desk) -> None:
    for cap_id, unit in (("a", Unit.USD), ("t", Unit.TOKENS), ("r", Unit.REQUESTS)):
        desk.cap(cap_id, 1000, unit)
    desk.hold("c1", "a t r", bound=300, tokens=50)
    desk.settle("c1", cost=120, tokens=33, sent=False)

    assert [desk.sums(cap_id) for cap_id in "atr"] == [(0, 0)] * 3
    with desk.database.read() as connection:
        assert [(row.kind, row.cost_nanos) for row in posts_of(connection, "c1")] == [("void", 0)]


def test_more_than_was_held_is_booked_in_full_and_flagged(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    settled = desk.settle("c1", cost=5000)

    assert settled.over_hold
    assert desk.sums("a") == (5000, 0)
    assert desk.state("a").remaining == 0
    with desk.database.read() as connection:
        assert [row.over_hold for row in posts_of(connection, "c1")] == [True]


def test_exactly_the_hold_is_not_over(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)

    assert not desk.settle("c1", cost=300).over_hold


def test_a_call_is_settled_once(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    desk.settle("c1", cost=100)
    again = desk.settle("c1", cost=250)

    assert again.repeated
    assert [(state.used, state.held) for state in again.caps] == [(100, 0)]
    assert desk.sums("a") == (100, 0)


def test_a_call_that_was_voided_stays_voided(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    desk.settle("c1", sent=False)

    assert desk.settle("c1", cost=100).repeated
    assert desk.sums("a") == (0, 0)


def test_settling_an_unknown_call_is_an_error_and_no_charge(desk: Desk) -> None:
    desk.cap("a", 1000)
    answer = desk.settle("nobody", cost=100)

    assert isinstance(answer, NotFound)
    assert desk.sums("a") == (0, 0)


def test_posts_go_to_the_caps_that_were_held_even_deleted_ones(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("b", 1000)
    desk.hold("c1", "a b", bound=300)
    with desk.database.write() as connection:
        delete_cap(connection, "a")
    settled = desk.settle("c1", cost=100)

    assert [state.cap.id for state in settled.caps] == ["b"]
    with desk.database.write() as connection:
        put_cap(connection, Cap("a", "a", Scope.VIRTUAL_KEY, "vk", "vk", Unit.USD, 1000, "1h"))
    assert desk.sums("a") == (100, 0), "the tombstone kept the books"


def test_a_call_without_caps_is_still_in_the_books(desk: Desk) -> None:
    answer = desk.hold("c1", "", bound=300)
    assert (answer.amount_nanos, answer.caps) == (300, ())
    settled = desk.settle("c1", cost=5000)

    assert not settled.over_hold, "nothing was held anywhere"
    with desk.database.read() as connection:
        assert total_posted(connection) == 5000


def test_posts_tell_what_a_log_row_needs(desk: Desk) -> None:
    desk.cap("a", 1000)
    facts = CallFacts("vk-1", "key", "t", "cu", "run", "openai", "gpt-4o-mini", "chat_completion", True)
    desk.hold("c1", "a", bound=300, facts=facts)
    desk.clock.pass_ms(1_500)
    desk.settle(
        "c1", 100, 40, input_tokens=30, output_tokens=10, estimated=True, model="gpt-4o-mini-2024", price_source="book", note="cut"
    )
    desk.hold("c2", "a", bound=10)
    desk.settle("c2", cost=7)
    with desk.database.read() as connection:
        first, second = posts_since(connection, 0, 10)
        assert posts_since(connection, first.sequence, 10) == [second]
        assert posts_since(connection, 0, 1) == [first]
        assert posts_since(connection, second.sequence, 10) == []
        assert total_posted(connection) == 107
        assert total_posted(connection, first.sequence) == 100
    assert first.facts == facts
    assert (first.call_id, first.kind, first.at_ms, first.held_at_ms) == ("c1", "post", START_MS + 1_500, START_MS)
    assert (first.cost_nanos, first.tokens, first.input_tokens, first.output_tokens, first.held_nanos) == (100, 40, 30, 10, 300)
    assert (first.estimated, first.unconfirmed, first.over_hold) == (True, False, False)
    assert (first.model, first.price_source, first.note, first.cap_ids) == ("gpt-4o-mini-2024", "book", "cut", ("a",))


# ---- unconfirmed


def left_behind(desk: Desk) -> None:
    """Posts c1 as unconfirmed, as recovery does."""
    desk.live.discard("c1")
    desk.writer.compare_with_live()


def test_an_unconfirmed_call_is_posted_at_its_hold(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("t", 100, Unit.TOKENS)
    desk.cap("r", 10, Unit.REQUESTS)
    desk.cap("p", 10, Unit.CONCURRENT, window=None)
    desk.hold("c1", "a t r p", bound=300, tokens=500)
    left_behind(desk)

    assert [desk.sums(cap_id) for cap_id in "atrp"] == [(300, 0), (100, 0), (1, 0), (0, 0)]
    with desk.database.read() as connection:
        (row,) = unconfirmed(connection)
    assert (row.call_id, row.kind, row.cost_nanos, row.unconfirmed, row.estimated) == ("c1", "unconfirmed", 300, True, True)


def test_the_first_real_outcome_corrects_it(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("t", 100, Unit.TOKENS)
    desk.hold("c1", "a t", bound=300, tokens=60)
    left_behind(desk)
    settled = desk.settle("c1", cost=120, tokens=75, input_tokens=70, output_tokens=5)

    assert (settled.adjusted, settled.repeated, settled.over_hold) == (True, False, False)
    assert (desk.sums("a"), desk.sums("t")) == ((120, 0), (75, 0))
    with desk.database.read() as connection:
        assert unconfirmed(connection) == []
        rows = posts_of(connection, "c1")
        assert [(row.kind, row.cost_nanos, row.tokens, row.input_tokens) for row in rows] == [
            ("unconfirmed", 300, 60, 0),
            ("adjust", -180, 15, 70),
        ]
        assert total_posted(connection) == 120


def test_only_the_first_correction_counts(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    left_behind(desk)
    desk.settle("c1", cost=120)

    assert desk.settle("c1", cost=200).repeated
    assert desk.sums("a") == (120, 0)


def test_an_unconfirmed_call_that_was_never_sent(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.cap("r", 5, Unit.REQUESTS)
    desk.hold("c1", "a r", bound=300)
    left_behind(desk)
    desk.settle("c1", sent=False)

    assert (desk.sums("a"), desk.sums("r")) == ((0, 0), (0, 0))


def test_a_correction_above_the_hold_is_flagged(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    left_behind(desk)

    assert desk.settle("c1", cost=301).over_hold
    assert desk.sums("a") == (301, 0)


def test_a_correction_goes_to_the_window_of_the_hold(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    left_behind(desk)
    desk.clock.pass_ms(3_600_000)
    desk.settle("c1", cost=100)

    assert desk.sums("a") == (0, 0)


def test_a_person_confirms_or_corrects(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    left_behind(desk)
    with desk.database.write() as connection:
        confirm(connection, "c1", reason="asked the provider")
    assert desk.sums("a") == (300, 0)
    with desk.database.read() as connection:
        assert unconfirmed(connection) == []
        assert posts_of(connection, "c1")[1].note == "asked the provider"

    desk.hold("c2", "a", bound=300)
    desk.live.discard("c2")
    desk.writer.compare_with_live()
    with desk.database.write() as connection:
        assert confirm(connection, "c2", cost_nanos=40).adjusted
    assert desk.sums("a") == (340, 0)


def test_what_was_settled_properly_cannot_be_confirmed(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    desk.settle("c1", cost=5)
    for call_id in ("c1", "nobody"):
        try:
            with desk.database.write() as connection:
                confirm(connection, call_id)
        except NotFound as error:
            assert call_id in str(error)
        else:
            raise AssertionError("confirmed what was not unconfirmed")


def test_holds_of_live_calls_are_left_alone(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)

    assert desk.writer.compare_with_live() == 0
    assert desk.sums("a") == (0, 300)


def test_a_hold_that_never_left_is_voided(desk: Desk) -> None:
    desk.cap("a", 1000)
    desk.hold("c1", "a", bound=300)
    desk.live.discard("c1")
    desk.writer.never_left("c1")
    desk.writer.compare_with_live()

    assert desk.sums("a") == (0, 0)


def test_sums_beyond_64_bits_stop_instead_of_failing(desk: Desk) -> None:
    largest = 2**63 - 1
    desk.cap("a", largest)
    for call_id in ("c1", "c2"):
        desk.hold(call_id, "a", bound=10)
        desk.settle(call_id, cost=largest)

    assert desk.sums("a") == (largest, 0)
    assert Settlement("x", largest, 0, True).cost_nanos == largest
