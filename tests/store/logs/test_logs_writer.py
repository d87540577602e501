"""Rows reach logs.db in batches, once, bounded; losses are counted and said; calls never wait."""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest

from store.clock import SystemClock
from store.database import Database
from store.errors import StoreUnavailable
from store.logs.queries import LogReader
from store.logs.retention import delete_older
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from tests.store.logs.stores import Stores

DAY_MS = 86_400_000
NOON_MS = 1_795_435_200_000
"""2026-11-23T12:00:00Z"""


def row(call_id: str, **more: object) -> CallRow:
    values: dict[str, object] = {
        "id": call_id,
        "at_ms": NOON_MS,
        "status": "success",
        "http_status": 200,
        "provider": "openai",
        "model": "gpt-4o-mini",
        "virtual_key_id": "vk-1",
        "virtual_key_name": "workshop-vk-1",
        "input_tokens": 12,
        "output_tokens": 48,
        "cost_nanos": 123_000,
    }
    return CallRow(**(values | more))  # type: ignore[arg-type]


def refusal(call_id: str, at_ms: int, **more: object) -> CallRow:
    values: dict[str, object] = {"status": "refused", "http_status": 402, "refusal_type": "budget_exceeded", "refusal_cap": "cap-1"}
    return row(call_id, at_ms=at_ms, cost_nanos=0, input_tokens=0, output_tokens=0, **(values | more))


@pytest.fixture
def writer(database: Database) -> Iterator[LogWriter]:
    started = LogWriter(database, clock=SystemClock())
    started.start()
    yield started
    started.close()


class BrokenDatabase:
    """Stands in for a database that cannot be written until it is mended."""

    def __init__(self, real: Database) -> None:
        self.real = real
        self.broken = True
        self.tried = threading.Event()

    def write(self) -> object:
        if self.broken:
            self.tried.set()
            raise StoreUnavailable("the disk is full")
        return self.real.write()

    def read(self) -> object:
        return self.real.read()


def test_every_field_comes_back_as_it_was_added(database: Database, writer: LogWriter) -> None:
    whole = CallRow(
        id="c-1", at_ms=NOON_MS, status="cancelled", http_status=499, provider="anthropic", model="claude",
        answered_model="claude-x", operation="messages", stream=True, way_in="forward", virtual_key_id="vk",
        virtual_key_name="näme", team_id="t", customer_id="c", run_id="r", provider_key_id="pk", input_tokens=1,
        output_tokens=2, cache_read_tokens=3, cache_write_tokens=4, reasoning_tokens=5, cost_nanos=2**62, priced=False,
        estimated=True, held_nanos=7, price_source="genai-prices", caps_charged=("a", "b"), refusal_type="x",
        refusal_cap="y", message="m", latency_ms=8, first_token_ms=9, stop_reason="end", method="POST", path="/v1",
        client="curl/8", count=3, text_bytes=10, exceeded="[]", routing_rule_id="rr", recalculated_nanos=11,
        recalculated_source="rs", request_body='{"q":"ü"}', response_body="answer",
    )  # fmt: skip
    unset = [field.name for field in fields(CallRow) if getattr(whole, field.name) == field.default]
    assert unset == [], "a field at its default would not show a mix-up"
    writer.add(whole)
    assert writer.flush()
    reader = LogReader(database)
    assert reader.get("c-1") == whole
    assert reader.recent() == [replace(whole, request_body=None, response_body=None)], "lists come without bodies"


def test_the_models_and_the_schema_are_alike(database: Database) -> None:
    from store.models_logs import BodyLog, CallLog, DailyCost, DailyLatency, DeletedCall, LogLedger, LogMeta, TotalSums

    with database.read() as connection:
        for model in (CallLog, BodyLog, DailyCost, TotalSums, DailyLatency, DeletedCall, LogLedger, LogMeta):
            table = model._meta.table_name
            columns = {column.name: not column.null for column in connection.peewee.get_columns(table)}
            declared = {field.column_name: not field.null for field in model._meta.sorted_fields}
            assert declared.keys() == columns.keys(), table
            for name, required in columns.items():
                if name != "number":
                    assert declared[name] == required, (table, name)
        names = [column.name for column in connection.peewee.get_columns("calls")]
    ours = [name for name in names[1:] if not name.startswith("ledger")]
    assert ours == [field.name for field in fields(CallRow)][:-2], "columns stand in the order of CallRow"


def test_rows_are_readable_soon_without_flushing(database: Database, writer: LogWriter) -> None:
    writer.add(row("c-1"))
    deadline = time.monotonic() + 3
    while not LogReader(database).count() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert LogReader(database).count() == 1


def test_a_row_added_again_replaces_the_first_and_sums_move_by_the_difference(database: Database, writer: LogWriter) -> None:
    writer.add(row("c-1"))
    writer.flush()
    writer.add(row("c-1", cost_nanos=500_000, output_tokens=50, at_ms=NOON_MS + DAY_MS))
    writer.add(row("c-2"))
    writer.add(row("c-2", cost_nanos=1))
    writer.flush()
    reader = LogReader(database)
    assert reader.count() == 2 and reader.stats().cost_nanos == 500_001
    daily = {
        total.group: (total.calls, total.cost_nanos, total.output_tokens) for total in reader.daily("2026-01-01", "2027-01-01")
    }
    assert daily == {("2026-11-23",): (1, 1, 48), ("2026-11-24",): (1, 500_000, 50)}


def test_identical_refusals_within_a_second_are_one_row(database: Database, writer: LogWriter) -> None:
    for number in range(10):
        writer.add(refusal(f"a-{number}", NOON_MS + number * 100))
    writer.flush()
    for number in range(5):
        writer.add(refusal(f"b-{number}", NOON_MS + 950 + number * 10))
    writer.add(refusal("other-key", NOON_MS + 960, virtual_key_id="vk-2"))
    writer.add(refusal("other-model", NOON_MS + 960, model="gpt-4o"))
    writer.add(refusal("other-type", NOON_MS + 960, refusal_type="token_limited"))
    writer.add(refusal("other-cap", NOON_MS + 960, refusal_cap="cap-2"))
    writer.add(row("good", at_ms=NOON_MS + 960))
    writer.flush()
    reader = LogReader(database)
    counts = {found.id: found.count for found in reader.recent()}
    assert counts == {"a-0": 15, "other-key": 1, "other-model": 1, "other-type": 1, "other-cap": 1, "good": 1}
    writer.add(refusal("held", NOON_MS + 970, caps_charged=("cap-1",)))
    writer.flush()
    assert reader.get("held") is not None, "what the ledger knows by its id keeps a row of its own"
    writer.add(refusal("c-0", NOON_MS + 1000))
    writer.flush()
    assert reader.get("c-0") is not None, "a second later a new row begins"
    assert reader.stats().refused == 21 and reader.stats().calls == 22
    (day,) = reader.daily("2026-11-23", "2026-11-23")
    assert (day.refused, day.calls) == (21, 1)
    assert writer.stats.merged == 14 and writer.stats.written == 22


def test_bodies_are_clipped_between_characters_cleaned_and_counted(database: Database) -> None:
    writer = LogWriter(database, clock=SystemClock(), body_bytes=10, clean=lambda text: text.replace("hunter2", "***"))
    writer.start()
    writer.add(row("c-1", request_body="äöüäöüäöü", response_body="x", message="said hunter2"))
    writer.add(row("c-2", request_body="1234567hunter2", response_body=None))
    writer.close()
    reader = LogReader(database)
    first, second = reader.with_bodies(["c-1", "c-2"])
    assert (first.request_body, first.response_body, first.message) == ("äöüäö", "x", "said ***")
    assert second.request_body == "1234567***", "what is cut is cleaned before"
    assert reader.body_lengths(["c-1", "c-2", "c-3"]) == {"c-1": (18, 1), "c-2": (14, 0)}


def test_no_bodies_are_kept_when_the_policy_says_none(database: Database) -> None:
    writer = LogWriter(database, clock=SystemClock(), body_bytes=0)
    writer.start()
    writer.add(row("c-1", request_body="secret plans"))
    writer.close()
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM bodies") == [(0,)]


def test_a_full_queue_drops_and_says_so(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    broken = BrokenDatabase(database)
    writer = LogWriter(broken, clock=SystemClock(), queue_rows=10, batch_seconds=0.01, batch_rows=5)  # type: ignore[arg-type]
    writer.start()
    writer.add(row("first"))
    assert broken.tried.wait(5)
    started = time.perf_counter()
    for number in range(100):
        writer.add(row(f"c-{number:03d}"))
    assert time.perf_counter() - started < 0.5, "adding does not wait for a database that is down"
    assert writer.stats.dropped == 90
    broken.broken = False
    assert writer.flush(10)
    writer.close()
    assert LogReader(database).count() == 11, "what waited is written once the database is back"
    assert "90 log rows were lost" in caplog.text and "cannot be written for now" in caplog.text


def test_bodies_go_before_rows_when_memory_is_short(database: Database) -> None:
    writer = LogWriter(database, clock=SystemClock(), queue_bytes=1000)
    for number in range(5):
        writer.add(row(f"c-{number}", request_body="x" * 400))
    writer.start()
    writer.close()
    assert [bool(found.request_body) for found in LogReader(database).with_bodies([f"c-{n}" for n in range(5)])] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert writer.stats.bodies_dropped == 3 and writer.stats.written == 5


def test_closing_with_a_database_that_stays_down_ends_and_counts(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    broken = BrokenDatabase(database)
    writer = LogWriter(broken, clock=SystemClock())  # type: ignore[arg-type]
    writer.start()
    for number in range(3):
        writer.add(row(f"c-{number}"))
    started = time.monotonic()
    writer.close(timeout_seconds=10)
    assert time.monotonic() - started < 5
    assert writer.stats.dropped == 3 and "3 log rows were lost" in caplog.text
    writer.add(row("late"))
    assert writer.stats.dropped == 4
    writer.close()


def test_odd_values_do_not_take_their_neighbours_down(database: Database, writer: LogWriter) -> None:
    writer.add(row("c-1"))
    writer.add(row("c-2", message="\ud800 lone", path="x" * 100_000, cost_nanos=2**70))
    writer.add(row("c-3", at_ms="never"))
    writer.add(row("c-4", request_body="\ud800"))
    writer.flush()
    found = {item.id for item in LogReader(database).recent()}
    assert found == {"c-1", "c-2", "c-4"}
    assert writer.stats.failed == 1 and writer.stats.written == 3
    second = LogReader(database).get("c-2")
    assert second is not None and second.message == "? lone" and len(second.path) == 4096 and second.cost_nanos == 2**63 - 1


def test_numbers_beyond_measure_and_endless_names_break_no_sum_and_no_index(database: Database, writer: LogWriter) -> None:
    """What a client sends as a model's name, and a provider as its usage, is anybody's guess."""
    chance = random.Random(3)

    def endless() -> str:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyzäöü€😀", k=5000))  # so that nothing can compress it

    for number in range(3):
        writer.add(
            row(
                f"c-{number}", model=endless(), provider=endless(), virtual_key_id=endless(), team_id=endless(),
                customer_id=endless(), run_id=endless(), input_tokens=2**80, output_tokens=2**63 - 1, latency_ms=2**62,
                count=2**62, cost_nanos=2**62, first_token_ms=-(2**70),
            )
        )  # fmt: skip
    writer.add(row("c-3", model="gpt\0four", message="a\0b", virtual_key_name="\0"))
    writer.add(row("c-3", model="gpt\0four", cost_nanos=1))
    writer.flush()
    reader = LogReader(database)
    assert writer.stats.failed == 0 and reader.count() == 4
    sums = reader.stats()
    assert (sums.input_tokens, sums.output_tokens) == (3 * 10**12 + 12, 3 * 10**12 + 48)
    assert sums.cost_nanos == 3 * 2**62 + 1, "money is exact, whatever the size"
    total = reader.daily("2026-11-23", "2026-11-23")
    assert sum(day.cost_nanos for day in total) == sums.cost_nanos and sum(day.calls for day in total) == sums.calls
    first, last = reader.get("c-0"), reader.get("c-3")
    assert first is not None and all(400 < len(text.encode()) <= 500 for text in (first.model, first.team_id, first.provider))
    assert first.first_token_ms == -(10**12)
    assert last is not None and (last.model, last.message) == ("gpt\ufffdfour", "")
    assert [found.id for found in reader.recent(models=[first.model])] == ["c-0"]


def test_many_threads_add_and_nothing_is_lost_or_doubled(database: Database) -> None:
    writer = LogWriter(database, clock=SystemClock(), batch_rows=97)
    writer.start()

    def work(name: int) -> None:
        for number in range(300):
            writer.add(row(f"{name}-{number}", cost_nanos=number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    stats = LogReader(database).stats()
    assert (stats.calls, stats.cost_nanos) == (1800, 6 * sum(range(300)))
    (day,) = LogReader(database).daily("2026-11-23", "2026-11-23")
    assert (day.calls, day.cost_nanos) == (1800, 6 * sum(range(300)))


def test_two_writers_on_one_database_agree_on_the_sums(stores: Stores) -> None:
    databases = [stores.logs() for _ in range(2)]
    writers = [LogWriter(database, clock=SystemClock(), batch_rows=20, batch_seconds=0.01) for database in databases]
    for number, writer in enumerate(writers):
        writer.start()
        for call in range(200):
            writer.add(row(f"{number}-{call}"))
    for writer in writers:
        writer.close()
    reader = LogReader(databases[0])
    (day,) = reader.daily("2026-11-23", "2026-11-23")
    assert (reader.count(), day.calls, day.cost_nanos) == (400, 400, 400 * 123_000)


def test_retention_deletes_calls_and_bodies_a_few_at_a_time_and_keeps_the_sums(database: Database, writer: LogWriter) -> None:
    for number in range(30):
        writer.add(row(f"c-{number:02d}", at_ms=NOON_MS - (30 - number) * DAY_MS, request_body="x"))
    writer.flush()
    reader = LogReader(database)
    before = reader.daily("2026-01-01", "2027-01-01")
    assert delete_older(database, NOON_MS - 10 * DAY_MS, limit=15) == 15
    assert reader.count() == 15 and reader.recent(ascending=True)[0].id == "c-15", "the oldest go first"
    assert delete_older(database, NOON_MS - 10 * DAY_MS, limit=15) == 5
    assert delete_older(database, NOON_MS - 10 * DAY_MS, limit=15) == 0
    assert reader.count() == 10
    assert reader.body_lengths([f"c-{number:02d}" for number in range(30)]).keys() == {f"c-{number}" for number in range(20, 30)}
    assert reader.daily("2026-01-01", "2027-01-01") == before


def test_the_writer_applies_the_retention_by_itself(database: Database) -> None:
    class Clock:
        def now_ms(self) -> int:
            return NOON_MS

        def monotonic(self) -> float:
            return 5.0

    writer = LogWriter(database, clock=Clock(), retention_days=7)
    writer.start()
    writer.add(row("old", at_ms=NOON_MS - 7 * DAY_MS - 1))
    writer.add(row("young", at_ms=NOON_MS - 7 * DAY_MS + 1))
    writer.flush()
    deadline = time.monotonic() + 5
    while writer.stats.expired == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [found.id for found in LogReader(database).recent()] == ["young"]
    writer.close()


def test_a_read_only_reader_works_beside_the_writer(stores: Stores, writer: LogWriter) -> None:
    writer.add(row("c-1"))
    writer.flush()
    reader = stores.logs(read_only=True)
    assert LogReader(reader).count() == 1
    with pytest.raises(StoreUnavailable):
        delete_older(reader, NOON_MS + DAY_MS)
