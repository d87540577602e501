"""The logs follow the ledger they belong to: one that was replaced, or put back from a backup, is followed anew."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from store.clock import Ids, SystemClock
from store.database import Database, governance_revision
from store.ledger.caps import put_cap
from store.ledger.history import PostRecord, ledger_identity, newest_sequence, posts_since
from store.ledger.ledger import Ledger
from store.ledger.types import CallFacts, Cap, Granted, HoldRequest, Scope, Settlement, Unit
from store.logs import ledgers
from store.logs.catch_up import CatchUpReport, catch_up, compare
from store.logs.ledgers import Tie, known_tie, read_watermark, tie
from store.logs.queries import LogReader
from store.logs.retention import delete_older, deleted_before_ms
from store.logs.schema import MIGRATIONS
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from tests.store.logs.stores import Stores

NOON_MS = 1_795_435_200_000
FACTS = CallFacts(virtual_key_id="vk-1", virtual_key_name="workshop", provider="openai", model="m")


def post(sequence: int, call_id: str, cost_nanos: int, **more: Any) -> PostRecord:
    values: dict[str, Any] = {
        "kind": "post", "at_ms": NOON_MS, "held_at_ms": NOON_MS, "facts": FACTS, "tokens": 0, "input_tokens": 0, "output_tokens": 0,
        "held_nanos": 5000, "estimated": False, "unconfirmed": False, "over_hold": False, "model": "m", "price_source": "",
        "note": "complete", "cap_ids": (),
    }  # fmt: skip
    return PostRecord(sequence=sequence, call_id=call_id, cost_nanos=cost_nanos, **(values | more))


class Till:
    """A real ledger with one budget, to make calls on."""

    def __init__(self, ledger: Ledger, revision: int) -> None:
        self._ledger = ledger
        self._ids = Ids(SystemClock())
        self._revision = revision

    async def calls(self, *costs_nanos: int) -> list[str]:
        made = []
        for cost_nanos in costs_nanos:
            call_id = self._ids.new()
            granted = await self._ledger.hold(HoldRequest(call_id, ("cap-1",), 5000, 5000, revision=self._revision, facts=FACTS))
            assert isinstance(granted, Granted)
            await self._ledger.settle(Settlement(call_id, cost_nanos, 60, sent=True, note="complete"))
            made.append(call_id)
        return made


@asynccontextmanager
async def till(database: Database, place: Path) -> AsyncIterator[Till]:
    clock = SystemClock()
    with database.write() as connection:
        put_cap(connection, Cap("cap-1", "budget", Scope.VIRTUAL_KEY, "vk-1", "workshop", Unit.USD, 10**12, None))
        revision = governance_revision(connection)
    ledger = Ledger(database, clock=clock, ids=Ids(clock), lease_dir=place / "leases", spool_dir=place / "spool")
    await ledger.start()
    try:
        yield Till(ledger, revision)
    finally:
        await ledger.close()


def follow(logs: Database, ledger: Database) -> CatchUpReport:
    """One pass over all that the ledger has."""
    followed = tie(logs, ledger)
    with ledger.read() as connection:
        posts = posts_since(connection, followed.watermark, 1000)
    return catch_up(logs, posts, followed, now_ms=SystemClock().now_ms())


def costs(logs: Database) -> dict[str, int]:
    return {row.id: row.cost_nanos for row in LogReader(logs).recent(1000)}


def daily_cost(logs: Database) -> int:
    return sum(total.cost_nanos for total in LogReader(logs).daily("2020-01-01", "2100-01-01"))


async def test_a_replaced_ledger_is_followed_from_its_first_row_and_the_old_rows_stay(
    stores: Stores, database: Database, tmp_path: Path
) -> None:
    first, second = stores.ledger(), stores.other_ledger()
    async with till(first, tmp_path / "first") as old:
        earlier = await old.calls(1, 2, 3, 4, 5)
        assert follow(database, first).inserted == 5
        async with till(second, tmp_path / "second") as new:
            later = await new.calls(10, 20, 30)
        report = follow(database, second)
        assert (report.checked, report.inserted, report.corrected, report.watermark) == (3, 3, 0, 3), "not taken for calls 1 to 3"
        assert costs(database) == dict(zip([*earlier, *later], [1, 2, 3, 4, 5, 10, 20, 30], strict=True))
        assert (compare(database, second).ledger_nanos, compare(database, second).agree) == (60, True)
        more = await old.calls(6, 7)
    report = follow(database, first)
    assert (report.checked, report.inserted, report.watermark) == (2, 2, 7), "and the first one where it was left"
    assert (compare(database, first).ledger_nanos, compare(database, first).agree) == (28, True)
    assert costs(database).keys() == {*earlier, *later, *more} and daily_cost(database) == 88
    assert {known_tie(database, _identity(first)), known_tie(database, _identity(second))} == {Tie(1, 7), Tie(2, 3)}


LOST = "2 calls of $0.000000009 that the logs know are missing"


async def test_a_ledger_put_back_from_a_backup_is_followed_anew_and_nothing_is_doubled(
    stores: Stores, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = stores.ledger()
    async with till(ledger, tmp_path) as desk:
        calls = await desk.calls(1, 2, 3, 4, 5)
        follow(database, ledger)
        _lose_posts_after(ledger, 3)
        assert follow(database, ledger).watermark == 3
        assert LOST in caplog.text
        caplog.clear()
        assert compare(database, ledger).agree and compare(database, ledger).ledger_nanos == 6
        calls += await desk.calls(60, 70, 80)
    report = follow(database, ledger)
    assert (report.inserted, report.watermark) == (3, 6), "their sequences had been other calls' before"
    assert list(costs(database).values()) == [80, 70, 60, 5, 4, 3, 2, 1], "what only the logs remember stays"
    assert (compare(database, ledger).ledger_nanos, compare(database, ledger).agree) == (216, True)
    assert daily_cost(database) == 225
    assert known_tie(database, _identity(ledger)) == Tie(2, 6)
    assert caplog.text == "", "told once"


async def test_a_ledger_that_has_outgrown_its_lost_rows_is_told_by_the_call_at_the_watermark(
    stores: Stores, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby took over without the last two rows, and the next calls came before anybody looked."""
    ledger = stores.ledger()
    async with till(ledger, tmp_path) as desk:
        calls = await desk.calls(1, 2, 3, 4, 5)
        follow(database, ledger)
        _lose_posts_after(ledger, 3)
        calls += await desk.calls(60, 70, 80, 90)
    monkeypatch.setattr(ledgers, "LOST_AT_ONCE", 1)  # counted piece by piece
    assert follow(database, ledger).inserted == 4
    assert LOST in caplog.text
    assert costs(database) == dict(zip(calls, [1, 2, 3, 4, 5, 60, 70, 80, 90], strict=True))
    assert (compare(database, ledger).ledger_nanos, compare(database, ledger).agree) == (306, True)
    assert follow(database, ledger).checked == 0 and daily_cost(database) == 315


async def test_rows_that_were_pruned_in_good_order_start_nothing_anew(stores: Stores, database: Database, tmp_path: Path) -> None:
    ledger = stores.ledger()
    async with till(ledger, tmp_path) as desk:
        await desk.calls(1, 2, 3)
        follow(database, ledger)
        await desk.calls(4)
        with ledger.write() as connection:
            connection.execute("DELETE FROM posts WHERE sequence <= 3")
        report = follow(database, ledger)
    assert (report.checked, report.watermark, known_tie(database, _identity(ledger))) == (1, 4, Tie(1, 4))


async def test_a_call_that_was_booked_before_in_another_ledger_costs_what_this_one_says(stores: Stores, database: Database) -> None:
    """It was open when the backup was made, and is booked again with another cost."""
    ledger = stores.ledger()
    followed = tie(database, ledger)
    catch_up(database, [post(1, "a", 10), post(2, "open", 20)], followed, now_ms=NOON_MS)
    catch_up(database, [post(1, "a", 10), post(2, "b", 7), post(3, "open", 5000)], Tie(9, 0), now_ms=NOON_MS)
    assert costs(database) == {"a": 10, "b": 7, "open": 5000} and daily_cost(database) == 5017


def test_two_processes_that_meet_a_new_ledger_give_it_one_number(stores: Stores) -> None:
    ledger, other = stores.ledger(), stores.other_ledger()
    tie(stores.logs(), other)
    logs = [stores.logs() for _ in range(4)]
    gate = threading.Barrier(len(logs))
    found: list[Tie] = []

    def work(database: Database) -> None:
        gate.wait(10)
        found.append(tie(database, ledger))

    threads = [threading.Thread(target=work, args=(database,)) for database in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [Tie(2, 0)] * 4
    with logs[0].read() as connection:
        assert connection.execute("SELECT number, watermark FROM log_ledgers ORDER BY number") == [(1, 0), (2, 0)]


def test_several_consoles_catch_up_at_once_and_double_nothing(stores: Stores) -> None:
    databases = [stores.logs() for _ in range(3)]
    posts = [post(number, f"c-{number}", number) for number in range(1, 1201)]
    reports: list[CatchUpReport] = []

    def work(database: Database) -> None:
        reports.append(catch_up(database, posts, Tie(1, 0), now_ms=NOON_MS))

    threads = [threading.Thread(target=work, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [report.watermark for report in reports] == [1200] * 3
    assert sum(report.inserted for report in reports) == 1200 == LogReader(databases[0]).count()
    assert daily_cost(databases[0]) == 1200 * 1201 // 2
    with databases[0].read() as connection:
        assert read_watermark(connection, 1) == 1200


def test_what_retention_deleted_does_not_come_back(database: Database) -> None:
    old, young = NOON_MS - 86_400_000, NOON_MS
    posts = [post(1, "old", 10, held_at_ms=old, at_ms=old), post(2, "young", 5, held_at_ms=young)]
    catch_up(database, posts, Tie(1, 0), now_ms=NOON_MS + 1)
    assert delete_older(database, NOON_MS - 1000) == 1
    for number in (1, 2):
        report = catch_up(database, posts, Tie(number, 0), now_ms=NOON_MS + 1)
        assert report.inserted == 0
    assert costs(database) == {"young": 5} and daily_cost(database) == 15, "its sums are those from before"
    with database.read() as connection:
        assert deleted_before_ms(connection) == NOON_MS - 1000
    writer = LogWriter(database, clock=SystemClock())
    writer.start()
    writer.add(CallRow("late", NOON_MS - 9000, "success", 200))
    writer.close()
    assert delete_older(database, NOON_MS - 5000) == 1
    with database.read() as connection:
        assert deleted_before_ms(connection) == NOON_MS - 1000, "a longer retention brings nothing back"


def test_logs_from_before_ledgers_had_names_go_on_where_they_were(new_stores: Stores) -> None:
    _old_logs(new_stores, watermark=2)
    ledger = new_stores.ledger()
    _claim_newest(ledger, 7)
    logs = new_stores.logs()
    followed = tie(logs, ledger)
    assert followed == Tie(1, 2)
    report = catch_up(logs, [post(1, "a", 10), post(2, "b", 20), post(3, "a", -4, kind="adjust")], followed, now_ms=NOON_MS)
    assert (report.checked, report.inserted, report.corrected) == (1, 0, 1)
    assert costs(logs) == {"a": 6, "b": 20, "never": 0}


def test_logs_from_before_that_are_another_ledgers_are_not_taken_for_this_ones(new_stores: Stores) -> None:
    _old_logs(new_stores, watermark=900)
    ledger = new_stores.ledger()
    _claim_newest(ledger, 7)
    logs = new_stores.logs()
    assert tie(logs, ledger) == Tie(2, 0)
    assert tie(logs, ledger) == Tie(2, 0)


def _identity(ledger: Database) -> str:
    with ledger.read() as connection:
        return ledger_identity(connection)


def _lose_posts_after(ledger: Database, sequence: int) -> None:
    """As if an older copy of the database had been put back: the next row gets the next sequence after the last one kept."""
    with ledger.write() as connection:
        connection.execute("DELETE FROM posts WHERE sequence > ?", (sequence,))
        if connection.engine == "postgres":
            connection.execute("SELECT setval(pg_get_serial_sequence('posts', 'sequence'), ?)", (sequence,))
        assert newest_sequence(connection) == sequence


def _claim_newest(ledger: Database, sequence: int) -> None:
    with ledger.write() as connection:
        connection.execute(
            """INSERT INTO posts (sequence, call_id, step, kind, at_ms, held_ms, cost_nanos, tokens, input_tokens, output_tokens,
            flags, model, price_source, note, parts) VALUES (?, 'x', 1, 'post', 0, 0, 0, 0, 0, 0, 0, '', '', '', '[]')""",
            (sequence,),
        )


def _old_logs(stores: Stores, watermark: int) -> None:
    """Logs of the first schema: two calls booked, one not."""
    old = stores.logs(migrations=MIGRATIONS[:1])
    columns = (
        "id, at_ms, status, http_status, provider, model, answered_model, operation, stream, way_in, virtual_key_id, "
        "virtual_key_name, team_id, customer_id, run_id, provider_key_id, input_tokens, output_tokens, cache_read_tokens, "
        "cache_write_tokens, reasoning_tokens, cost_nanos, priced, estimated, held_nanos, price_source, caps_charged, "
        "refusal_type, refusal_cap, message, latency_ms, stop_reason, method, path, client, count, text_bytes, "
        "ledger_sequence, ledger_nanos"
    )
    with old.write() as connection:
        for call_id, cost_nanos, sequence in (("a", 10, 1), ("b", 20, 2), ("never", 0, 0)):
            connection.execute(
                f"""INSERT INTO calls ({columns}) VALUES (?, {NOON_MS}, 'success', 200, '', '', '', '', 0, '', '', '', '', '', '',
                '', 0, 0, 0, 0, 0, ?, 1, 0, 0, '', '[]', '', '', '', 0, '', '', '', '', 1, 0, ?, ?)""",
                (call_id, cost_nanos, sequence, cost_nanos),
            )
        connection.execute("UPDATE log_meta SET value = ? WHERE key = 'watermark'", (watermark,))


def test_a_row_written_again_keeps_what_its_ledger_booked(database: Database) -> None:
    catch_up(database, [post(1, "a", 10)], Tie(3, 0), now_ms=NOON_MS)
    writer = LogWriter(database, clock=SystemClock())
    writer.start()
    writer.add(CallRow("a", NOON_MS, "success", 200, cost_nanos=999))
    writer.close()
    assert costs(database) == {"a": 10}
    with database.read() as connection:
        assert connection.execute("SELECT ledger, ledger_sequence, ledger_nanos FROM calls") == [(3, 1, 10)]
