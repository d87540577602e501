"""After a crash the ledger's posts bring lost rows back, once, and both books show the same sums."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from store.clock import Ids, SystemClock
from store.database import Database, governance_revision
from store.ledger.caps import put_cap
from store.ledger.history import PostRecord, posts_since
from store.ledger.ledger import Ledger
from store.ledger.types import CallFacts, Cap, Granted, HoldRequest, Scope, Settlement, Unit
from store.logs.catch_up import catch_up, compare
from store.logs.ledgers import Tie, read_watermark, tie
from store.logs.queries import LogReader
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from tests.store.logs.stores import Stores

TIE = Tie(1, 0)
"""The ledger that fresh logs have not met yet."""
NOON_MS = 1_795_435_200_000
FACTS = CallFacts(
    virtual_key_id="vk-1", virtual_key_name="workshop", team_id="t", customer_id="c", run_id="r", provider="openai", model="m",
    operation="chat_completion", stream=True,
)  # fmt: skip


def post(sequence: int, call_id: str, **more: Any) -> PostRecord:
    values: dict[str, Any] = {
        "kind": "post", "at_ms": NOON_MS, "held_at_ms": NOON_MS - 250, "facts": FACTS, "cost_nanos": 1000, "tokens": 60,
        "input_tokens": 12, "output_tokens": 48, "held_nanos": 5000, "estimated": False, "unconfirmed": False, "over_hold": False,
        "model": "m-2026", "price_source": "genai-prices", "note": "complete", "cap_ids": ("cap-1",),
    }  # fmt: skip
    return PostRecord(sequence=sequence, call_id=call_id, **(values | more))


def row(call_id: str, cost_nanos: int = 1000) -> CallRow:
    return CallRow(
        id=call_id, at_ms=NOON_MS, status="success", http_status=200, provider="openai", model="m", virtual_key_id="vk-1",
        virtual_key_name="workshop", team_id="t", customer_id="c", input_tokens=12, output_tokens=48, cost_nanos=cost_nanos,
    )  # fmt: skip


def write(database: Database, *rows: CallRow) -> None:
    writer = LogWriter(database, clock=SystemClock())
    writer.start()
    for item in rows:
        writer.add(item)
    writer.close()
    assert writer.stats.written == len(rows)


def daily_cost(database: Database) -> int:
    return sum(total.cost_nanos for total in LogReader(database).daily("2026-01-01", "2027-01-01"))


def test_a_lost_row_is_made_from_the_ledger_with_all_it_knows(database: Database) -> None:
    report = catch_up(database, [post(1, "c-1", estimated=True, note="client_left")], TIE, now_ms=NOON_MS)
    assert (report.watermark, report.checked, report.inserted, report.corrected, report.complete) == (1, 1, 1, 0, True)
    found = LogReader(database).get("c-1")
    assert found == CallRow(
        id="c-1", at_ms=NOON_MS - 250, status="cancelled", http_status=0, provider="openai", model="m", answered_model="m-2026",
        operation="chat_completion", stream=True, virtual_key_id="vk-1", virtual_key_name="workshop", team_id="t", customer_id="c",
        run_id="r", input_tokens=12, output_tokens=48, cost_nanos=1000, estimated=True, held_nanos=5000,
        price_source="genai-prices", caps_charged=("cap-1",), message="row made from the ledger (client_left)",
    )  # fmt: skip
    assert daily_cost(database) == 1000


def test_nothing_is_ever_doubled(database: Database) -> None:
    write(database, row("c-1"))
    posts = [post(1, "c-1"), post(2, "c-2")]
    assert catch_up(database, posts, TIE, now_ms=NOON_MS).inserted == 1
    for _ in range(3):
        assert catch_up(database, posts, TIE, now_ms=NOON_MS).checked == 0
    write(database, row("c-2"))
    reader = LogReader(database)
    assert reader.count() == 2 and reader.booked() == (2, 2000) and daily_cost(database) == 2000
    full = reader.get("c-2")
    assert full is not None and (full.status, full.http_status, full.message) == ("success", 200, ""), (
        "the full row replaces the other"
    )
    with database.read() as connection:
        assert read_watermark(connection, TIE.number) == 2


def test_the_ledger_is_right_where_the_two_differ(database: Database) -> None:
    write(database, row("c-1", cost_nanos=999))
    report = catch_up(database, [post(1, "c-1", cost_nanos=1000)], TIE, now_ms=NOON_MS)
    assert (report.corrected, LogReader(database).stats().cost_nanos, daily_cost(database)) == (1, 1000, 1000)
    write(database, row("c-1", cost_nanos=5))
    assert LogReader(database).stats().cost_nanos == 1000 == daily_cost(database), "a row that comes late does not undo it"


def test_a_correction_moves_the_cost_by_its_difference_once(database: Database) -> None:
    held = post(1, "c-1", cost_nanos=5000, input_tokens=0, output_tokens=0, unconfirmed=True, note="")
    catch_up(database, [held], TIE, now_ms=NOON_MS)
    found = LogReader(database).get("c-1")
    assert found is not None and (found.status, found.cost_nanos, found.estimated) == ("unconfirmed", 5000, True)
    real = post(2, "c-1", kind="adjust", cost_nanos=-3800)
    for _ in range(2):
        catch_up(database, [held, real], TIE, now_ms=NOON_MS)
    found = LogReader(database).get("c-1")
    assert found is not None and (found.status, found.cost_nanos, found.input_tokens) == ("success", 1200, 12)
    assert LogReader(database).booked() == (1, 1200) and daily_cost(database) == 1200


def test_a_young_post_waits_for_its_row(database: Database) -> None:
    posts = [
        post(1, "old", at_ms=NOON_MS - 60_000),
        post(2, "young", at_ms=NOON_MS - 1000),
        post(3, "old-too", at_ms=NOON_MS - 60_000),
    ]
    report = catch_up(database, posts, TIE, now_ms=NOON_MS, grace_ms=10_000)
    assert (report.watermark, report.inserted, report.complete) == (1, 1, False), "the watermark never jumps over a gap"
    write(database, row("young"))
    report = catch_up(database, posts, TIE, now_ms=NOON_MS, grace_ms=10_000)
    assert (report.watermark, report.inserted, report.complete) == (3, 1, True)


def test_any_mixture_ends_with_equal_books(database: Database) -> None:
    chance = random.Random(20261123)
    posts = [post(number, f"c-{number}", cost_nanos=chance.randrange(10**12)) for number in range(1, 1500)]
    kept = [row(one.call_id, one.cost_nanos) for one in posts if chance.random() < 0.7]
    early, late = kept[: len(kept) // 2], kept[len(kept) // 2 :]
    write(database, *early)
    catch_up(database, posts[:700], TIE, now_ms=NOON_MS)
    write(database, *late)
    catch_up(database, iter(posts), TIE, now_ms=NOON_MS)
    corrections = [replace(posts[index], sequence=2000 + index, cost_nanos=-5) for index in range(0, 1000, 100)]
    catch_up(database, corrections, TIE, now_ms=NOON_MS)
    expected = sum(one.cost_nanos for one in posts) - 5 * len(corrections)
    reader = LogReader(database)
    assert reader.booked() == (len(posts), expected)
    assert reader.stats().cost_nanos == expected == daily_cost(database)
    assert reader.count() == len(posts)


async def test_a_real_ledger_and_the_logs_agree_after_a_crash_of_the_logs(
    tmp_path: Path, stores: Stores, database: Database
) -> None:
    clock = SystemClock()
    ids = Ids(clock)
    config = stores.ledger(clock)
    cap = Cap("cap-1", "budget", Scope.VIRTUAL_KEY, "vk-1", "workshop", Unit.USD, 10**12, None)
    with config.write() as connection:
        put_cap(connection, cap)
        revision = governance_revision(connection)
    ledger = Ledger(config, clock=clock, ids=ids, lease_dir=tmp_path / "leases", spool_dir=tmp_path / "spool")
    await ledger.start()
    for number in range(40):
        call_id = ids.new()
        granted = await ledger.hold(HoldRequest(call_id, ("cap-1",), 5000, 5000, revision=revision, facts=FACTS))
        assert isinstance(granted, Granted)
        await ledger.settle(Settlement(call_id, 1000 + number, 60, sent=True, input_tokens=12, output_tokens=48, note="complete"))
        if number % 3:
            write(database, replace(row(call_id, 1000 + number), at_ms=clock.now_ms()))
    before = compare(database, config)
    assert (before.watermark, before.ledger_nanos) == (0, 0)
    with config.read() as connection:
        posts = posts_since(connection, 0, 1000)
    report = catch_up(database, posts, tie(database, config), now_ms=clock.now_ms())
    assert (report.checked, report.inserted, report.corrected, report.complete) == (40, 14, 0, True)
    expected = sum(1000 + number for number in range(40))
    after = compare(database, config)
    assert (after.ledger_nanos, after.logs_nanos, after.agree) == (expected, expected, True)
    with database.write() as connection:
        connection.execute("DELETE FROM calls WHERE id = ?", (posts[-1].call_id,))
    broken = compare(database, config)
    assert not broken.agree and broken.missing == (posts[-1].call_id,)
    await ledger.close()
