"""Editing caps never loses money: matching, windows that change, resets, top-ups, tombstones."""

from dataclasses import replace

import pytest

from store.clock import Ids
from store.database import Connection, governance_revision
from store.errors import Conflict, NotFound
from store.ledger.caps import cap_states, delete_cap, load_caps, put_cap, reset_cap, sync_caps, top_up
from store.ledger.types import Cap, Enforcement, Granted, Refused, Scope, Unit
from tests.store.ledger.desk import START_MS, Desk

HOUR_MS = 3_600_000


def wanted(name: str, limit: int, window: str | None = "1h", unit: Unit = Unit.USD, cap_id: str = "") -> Cap:
    return Cap(cap_id, name, Scope.TEAM, "t1", "team", unit, limit, window)


def sync(desk: Desk, *caps: Cap) -> list[Cap]:
    with desk.database.write() as connection:
        return sync_caps(connection, Scope.TEAM, "t1", caps, desk.ids)


def loaded(desk: Desk) -> list[Cap]:
    with desk.database.read() as connection:
        return load_caps(connection)


def spend(desk: Desk, cap_id: str, cost: int, call_id: str = "") -> None:
    call_id = call_id or desk.ids.new()
    assert isinstance(desk.hold(call_id, cap_id, bound=cost), Granted)
    desk.settle(call_id, cost=cost)


def test_a_cap_is_kept_as_it_was_given(desk: Desk) -> None:
    cap = Cap(
        "a", "Daily", Scope.CUSTOMER, "cu", "Acme", Unit.USD, 5 * 10**9, "1d", True, "Europe/Berlin", 4, Enforcement.SOFT,
        strict=True, carry_over=True, created_ms=START_MS - 5,
    )  # fmt: skip
    with desk.database.write() as connection:
        assert put_cap(connection, cap) == cap

    assert loaded(desk) == [cap]


def test_the_creation_is_now_unless_told(desk: Desk) -> None:
    assert desk.cap("a", 1).created_ms == START_MS
    desk.clock.pass_ms(1_000)
    assert desk.cap("a", 2).created_ms == START_MS, "editing does not make it younger"


def test_every_edit_counts_in_the_revision_and_no_edit_does_not(desk: Desk) -> None:
    before = desk.revision
    desk.cap("a", 1)
    assert desk.revision == before + 1
    desk.cap("a", 1)
    assert desk.revision == before + 1
    with desk.database.write() as connection:
        top_up(connection, "a", 5, "gift")
        assert governance_revision(connection) == before + 2
        delete_cap(connection, "a")
        assert governance_revision(connection) == before + 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit": -1}, "from 0"),
        ({"limit": 2**63}, "from 0"),
        ({"limit": True}, "from 0"),
        ({"window": "1 fortnight"}, "not a duration"),
        ({"window": "1h", "calendar_aligned": True}, "too short"),
        ({"unit": Unit.CONCURRENT}, "takes no window"),
        ({"window": None, "carry_over": True}, "nothing to carry over"),
        ({"id": ""}, "needs an id"),
        ({"scope_id": ""}, "needs an id"),
    ],
)
def test_bad_caps(desk: Desk, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words), desk.database.write() as connection:
        put_cap(connection, replace(wanted("x", 1, cap_id="x"), **changes))
    assert loaded(desk) == []


def test_a_cap_cannot_change_what_it_counts(desk: Desk) -> None:
    desk.cap("a", 1000)
    with pytest.raises(Conflict, match="make a new one to count tokens"):
        desk.cap("a", 1000, Unit.TOKENS)


# ---- a whole set of caps


def test_sync_matches_by_unit_and_window_and_keeps_what_was_used(desk: Desk) -> None:
    hourly, daily = sync(desk, wanted("h", 100), wanted("d", 500, "1d"))
    spend(desk, hourly.id, 30)
    new_daily, new_hourly = sync(desk, wanted("day", 900, "1d"), wanted("hour", 200))

    assert (new_daily.id, new_hourly.id) == (daily.id, hourly.id)
    assert (new_daily.name, new_hourly.limit) == ("day", 200)
    assert desk.sums(hourly.id) == (30, 0)


def test_sync_matches_by_id_first(desk: Desk) -> None:
    hourly, daily = sync(desk, wanted("h", 100), wanted("d", 500, "1d"))
    swapped = sync(desk, wanted("h", 100, "1d", cap_id=hourly.id), wanted("d", 500, "1h", cap_id=daily.id))

    assert [(cap.id, cap.window) for cap in swapped] == [(hourly.id, "1d"), (daily.id, "1h")]


def test_sync_matches_by_name_when_the_window_changed(desk: Desk) -> None:
    (hourly,) = sync(desk, wanted("main", 100))
    spend(desk, hourly.id, 30)
    (daily,) = sync(desk, wanted("main", 100, "1d"))

    assert daily.id == hourly.id
    assert desk.sums(daily.id) == (30, 0), "what was spent since the start of the day"


def test_sync_never_matches_another_unit(desk: Desk) -> None:
    (money,) = sync(desk, wanted("main", 100))
    (tokens,) = sync(desk, wanted("main", 100, unit=Unit.TOKENS))

    assert tokens.id != money.id
    assert [cap.id for cap in loaded(desk)] == [tokens.id]


def test_sync_deletes_what_is_not_wanted_and_leaves_other_owners_alone(desk: Desk) -> None:
    desk.cap("other", 1)
    first, second = sync(desk, wanted("a", 1), wanted("b", 1, "1d"))
    assert sync(desk, wanted("b", 1, "1d")) == [second]
    assert {cap.id for cap in loaded(desk)} == {"other", second.id}
    assert sync(desk) == []
    assert {cap.id for cap in loaded(desk)} == {"other"}
    assert first.id not in {cap.id for cap in loaded(desk)}


def test_sync_refuses_the_id_of_somebody_elses_cap(desk: Desk) -> None:
    desk.cap("other", 1)
    with pytest.raises(Conflict, match="belongs to a cap of 'vk'"):
        sync(desk, wanted("a", 1, cap_id="other"))


def test_sync_of_the_same_set_changes_nothing(desk: Desk) -> None:
    first = sync(desk, wanted("a", 1), wanted("b", 1, "1d"))
    revision = desk.revision

    assert sync(desk, wanted("a", 1), wanted("b", 1, "1d")) == first
    assert desk.revision == revision


# ---- windows that change


def test_a_longer_window_counts_what_was_spent_since_its_start(desk: Desk) -> None:
    desk.cap("a", 1000, window="1h")
    spend(desk, "a", 100)
    desk.clock.pass_ms(2 * HOUR_MS)
    spend(desk, "a", 10)
    assert desk.sums("a") == (10, 0)
    desk.cap("a", 1000, window="1d")
    assert desk.sums("a") == (110, 0)


def test_a_shorter_window_forgets_what_lies_before_it(desk: Desk) -> None:
    desk.cap("a", 1000, window="1d")
    spend(desk, "a", 100)
    desk.clock.pass_ms(2 * HOUR_MS)
    spend(desk, "a", 10)
    desk.cap("a", 1000, window="1h")
    assert desk.sums("a") == (10, 0)


def test_there_and_back_again(desk: Desk) -> None:
    desk.cap("a", 1000, window="1d")
    spend(desk, "a", 100)
    desk.cap("a", 1000, window="1h")
    spend(desk, "a", 10)
    desk.cap("a", 1000, window="1d")
    assert desk.sums("a") == (110, 0)
    desk.cap("a", 1000, window=None)
    assert desk.sums("a") == (110, 0)


def test_calls_in_flight_move_with_the_window(desk: Desk) -> None:
    desk.cap("a", 1000, window="1h")
    desk.hold("c1", "a", bound=600)
    desk.cap("a", 1000, window="1d")
    assert desk.sums("a") == (0, 600), "promise 1 holds across the change"
    assert desk.hold("c2", "a", bound=500) is None
    desk.cancel("c2")
    desk.settle("c1", cost=50)
    assert desk.sums("a") == (50, 0)


def test_calls_in_flight_move_more_than_once(desk: Desk) -> None:
    desk.cap("a", 1000, window="1h")
    desk.hold("c1", "a", bound=600)
    desk.clock.pass_ms(HOUR_MS)
    desk.cap("a", 1000, window="1d")
    assert desk.sums("a") == (0, 600)
    desk.cap("a", 1000, window="30m")
    assert desk.sums("a") == (0, 0), "the hold belongs to a half hour that is over"
    desk.cap("a", 1000, window=None)
    desk.settle("c1", cost=50)
    assert desk.sums("a") == (50, 0)


def test_a_correction_follows_a_window_that_changed(desk: Desk) -> None:
    desk.cap("a", 1000, window="1h")
    desk.hold("c1", "a", bound=600)
    desk.live.clear()
    desk.writer.compare_with_live()
    desk.cap("a", 1000, window="1d")
    assert desk.sums("a") == (600, 0)
    desk.settle("c1", cost=50)
    assert desk.sums("a") == (50, 0)


def test_calendar_alignment_keeps_usage(desk: Desk) -> None:
    desk.cap("a", 1000, window="1d")
    spend(desk, "a", 100)
    desk.cap("a", 1000, window="1d", calendar_aligned=True)

    assert desk.sums("a") == (100, 0)
    assert desk.state("a").window_start_ms == START_MS - 11 * HOUR_MS


def test_a_changed_time_zone_is_a_changed_window(desk: Desk) -> None:
    desk.cap("a", 1000, window="1d", calendar_aligned=True)
    spend(desk, "a", 100)
    desk.cap("a", 1000, window="1d", calendar_aligned=True, timezone="Asia/Tokyo")

    assert desk.sums("a") == (100, 0)
    assert desk.state("a").window_start_ms == START_MS - 20 * HOUR_MS, "20:00 in Tokyo"


# ---- reset, top-up, delete


def test_a_reset_takes_away_what_was_used_and_keeps_holds(desk: Desk) -> None:
    desk.cap("a", 1000)
    spend(desk, "a", 900)
    desk.hold("c1", "a", bound=60)
    with desk.database.write() as connection:
        state = reset_cap(connection, "a", "the boss said so")
        rows = connection.execute("SELECT kind, amount, reason FROM entries WHERE kind = 'reset'")
    assert (state.used, state.held) == (0, 60)
    assert rows == [("reset", -900, "the boss said so")]
    desk.settle("c1", cost=50)
    assert desk.sums("a") == (50, 0)


def test_what_was_reset_does_not_come_back_with_another_window(desk: Desk) -> None:
    desk.cap("a", 1000, window="1h")
    spend(desk, "a", 900)
    with desk.database.write() as connection:
        reset_cap(connection, "a", "")
    spend(desk, "a", 7)
    desk.cap("a", 1000, window="1d")

    assert desk.sums("a") == (7, 0)


def test_prepaid_money_is_the_sum_of_its_top_ups(desk: Desk) -> None:
    desk.cap("a", 100, window=None)
    spend(desk, "a", 100)
    assert isinstance(desk.hold("c1", "a", bound=1), Refused)
    with desk.database.write() as connection:
        state = top_up(connection, "a", 50, "paid")
    assert (state.limit, state.used, state.remaining, state.resets_at_ms) == (150, 100, 50, None)
    assert isinstance(desk.hold("c2", "a", bound=50), Granted)
    desk.clock.pass_ms(10**12)
    assert desk.state("a").limit == 150


def test_a_windowed_cap_is_topped_up_for_its_current_window(desk: Desk) -> None:
    desk.cap("a", 100)
    spend(desk, "a", 100)
    with desk.database.write() as connection:
        assert top_up(connection, "a", 50, "paid").remaining == 50
    spend(desk, "a", 50)
    desk.clock.pass_ms(HOUR_MS)
    assert desk.state("a").limit == 100


@pytest.mark.parametrize("amount", [0, -5, 2**63, True])
def test_bad_top_ups(desk: Desk, amount: int) -> None:
    desk.cap("a", 100)
    with pytest.raises(ValueError, match="above 0"), desk.database.write() as connection:
        top_up(connection, "a", amount, "")


def test_a_prepaid_cap_cannot_grow_past_what_the_ledger_holds(desk: Desk) -> None:
    desk.cap("a", 2**63 - 1, window=None)
    with pytest.raises(ValueError, match="more than the ledger"), desk.database.write() as connection:
        top_up(connection, "a", 1, "")


def test_a_window_cannot_be_topped_up_past_what_the_ledger_holds(desk: Desk) -> None:
    desk.cap("a", 100)
    with desk.database.write() as connection:
        assert top_up(connection, "a", 2**63 - 1 - 100, "").limit == 2**63 - 1
    with pytest.raises(ValueError, match="more than the ledger"), desk.database.write() as connection:
        top_up(connection, "a", 1, "")
    assert desk.state("a").limit == 2**63 - 1


def test_deleted_caps_are_gone_but_not_forgotten(desk: Desk) -> None:
    desk.cap("a", 1000)
    spend(desk, "a", 30)
    with desk.database.write() as connection:
        delete_cap(connection, "a")
        assert load_caps(connection) == []
        assert [cap.id for cap in load_caps(connection, deleted=True)] == ["a"]
        assert cap_states(connection, desk.clock.now_ms()) == []
        with pytest.raises(NotFound):
            delete_cap(connection, "a")
        with pytest.raises(NotFound):
            reset_cap(connection, "a", "")
        with pytest.raises(NotFound):
            top_up(connection, "a", 1, "")
    desk.cap("a", 1000)
    assert desk.sums("a") == (30, 0)


def test_states_of_caps_in_the_order_asked(desk: Desk) -> None:
    for cap_id in "abc":
        desk.cap(cap_id, 10)
    spend(desk, "b", 4)
    with desk.database.read() as connection:
        states = cap_states(connection, desk.clock.now_ms(), ["c", "b", "nowhere"])

    assert [(state.cap.id, state.used) for state in states] == [("c", 0), ("b", 4)]


def test_reading_states_writes_nothing(desk: Desk) -> None:
    desk.cap("a", 10, carry_over=True)
    desk.clock.pass_ms(HOUR_MS)

    def rows(connection: Connection) -> object:
        return connection.execute("SELECT * FROM balances"), connection.execute("SELECT * FROM entries")

    with desk.database.read() as connection:
        before = rows(connection)
        cap_states(connection, desk.clock.now_ms())
        assert rows(connection) == before


def test_ids_come_from_outside(desk: Desk) -> None:
    (made,) = sync(desk, wanted("a", 1))

    assert isinstance(desk.ids, Ids)
    assert len(made.id) == 36


def test_a_lower_limit_revokes_nothing_and_grants_nothing_more(desk: Desk) -> None:
    desk.cap("a", 1000)
    assert isinstance(desk.hold("c1", "a", bound=800), Granted)
    desk.cap("a", 100)
    assert desk.sums("a") == (0, 800) and desk.state("a").remaining == 0
    desk.settle("c1", cost=800)
    assert desk.sums("a") == (800, 0), "booked in full"
    assert isinstance(desk.hold("c2", "a", bound=1), Refused)
    desk.cap("a", 801)
    assert isinstance(desk.hold("c3", "a", bound=1), Granted)
