"""Lists, pages, filters and sums, compared with the same questions asked of a plain list."""

import random

import pytest

from store.clock import SystemClock
from store.database import Database
from store.logs.queries import LogReader
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from tests.store.logs.stores import Stores

NOON_MS = 1_795_435_200_000
STATUSES = ("success", "error", "refused", "cancelled")


def rows() -> list[CallRow]:
    chance = random.Random(7)
    made = []
    for number in range(500):
        status = chance.choice(STATUSES)
        made.append(
            CallRow(
                id=f"c-{number:04d}",
                at_ms=NOON_MS + number // 3 * 1000,
                status=status,
                http_status=200,
                provider=chance.choice(("openai", "anthropic")),
                model=chance.choice(("m1", "m2", "m3")),
                virtual_key_id=chance.choice(("vk-1", "vk-2")),
                team_id=chance.choice(("", "t-1", "t-2")),
                run_id=chance.choice(("", "r-1")),
                cost_nanos=chance.choice((0, 1, 10**15, 9 * 10**18)) if status == "success" else 0,
                input_tokens=chance.randrange(1000),
                output_tokens=chance.randrange(1000),
                latency_ms=chance.randrange(5000),
                refusal_type=f"type-{number}" if status == "refused" else "",
                message=f"message 100% of_{number}",
                priced=chance.random() < 0.9,
            )
        )
    return made


ROWS = rows()


@pytest.fixture(scope="module")
def reader(module_stores: Stores) -> LogReader:
    database = module_stores.logs()
    writer = LogWriter(database, clock=SystemClock())
    writer.start()
    for item in ROWS:
        writer.add(item)
    writer.close()
    return LogReader(database)


def ids(found: list[CallRow]) -> list[str]:
    return [item.id for item in found]


def test_pages_join_without_gap_or_double_even_within_one_millisecond(reader: LogReader) -> None:
    seen: list[str] = []
    before: str | None = None
    while page := reader.recent(7, before):
        seen += ids(page)
        before = page[-1].id
    assert seen == [item.id for item in reversed(ROWS)]
    assert ids(reader.recent(5, offset=3)) == seen[3:8]
    assert reader.recent(5, before="unknown") == []
    assert reader.recent(0) == [] and len(reader.recent(10**9)) == 500


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"virtual_key_ids": ["vk-1"]}, lambda row: row.virtual_key_id == "vk-1"),
        ({"virtual_key_ids": "vk-1"}, lambda row: row.virtual_key_id == "vk-1"),
        ({"models": ["m1", "m2"], "providers": ["openai"]}, lambda row: row.model in ("m1", "m2") and row.provider == "openai"),
        ({"team_ids": ["t-1"]}, lambda row: row.team_id == "t-1"),
        ({"team_ids": ["", "t-1"]}, lambda row: row.team_id in ("", "t-1")),
        ({"run_ids": ["r-1"]}, lambda row: row.run_id == "r-1"),
        ({"statuses": ["refused", "error"]}, lambda row: row.status in ("refused", "error")),
        ({"statuses": ["success"]}, lambda row: row.status == "success"),
        ({"start_ms": NOON_MS + 20_000, "end_ms": NOON_MS + 40_000}, lambda row: NOON_MS + 20_000 <= row.at_ms < NOON_MS + 40_000),
        ({"min_cost_nanos": 10, "max_cost_nanos": 10**16}, lambda row: 10 <= row.cost_nanos <= 10**16),
        ({"min_latency_ms": 4000}, lambda row: row.latency_ms >= 4000),
        ({"text": "100%"}, lambda row: True),
        ({"text": "OF_49"}, lambda row: "of_49" in row.message),
        ({"text": "of%49"}, lambda row: False),
        ({"models": ["' OR 1=1 --"]}, lambda row: False),
    ],
)
def test_filters(reader: LogReader, conditions: dict[str, object], holds: object) -> None:
    expected = [item.id for item in reversed(ROWS) if holds(item)]  # type: ignore[operator]
    assert ids(reader.recent(1000, **conditions)) == expected
    assert reader.count(**conditions) == len(expected)
    assert reader.count(at_most=5, **conditions) == min(5, len(expected))


def test_unknown_conditions_orders_and_groupings_are_errors(reader: LogReader) -> None:
    with pytest.raises(TypeError):
        reader.recent(5, colour="red")
    with pytest.raises(ValueError, match="cannot be sorted by"):
        reader.recent(5, sort_by="id; DROP TABLE calls")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be grouped by"):
        reader.totals("message")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not by colour"):
        reader.daily("2026-01-01", "2026-12-31", by=("colour",))
    with pytest.raises(ValueError, match="newest first"):
        reader.recent(5, "c-0001", sort_by="cost")


def test_orders(reader: LogReader) -> None:
    slowest = sorted(enumerate(ROWS), key=lambda pair: (pair[1].latency_ms, pair[0]), reverse=True)
    assert ids(reader.recent(10, sort_by="latency")) == [item.id for _, item in slowest[:10]]
    most = max(item.input_tokens + item.output_tokens for item in ROWS)
    assert sum((item.input_tokens, item.output_tokens)[0] for item in ROWS) > 0
    (top,) = reader.recent(1, sort_by="tokens")
    assert top.input_tokens + top.output_tokens == most
    assert ids(reader.recent(3, ascending=True)) == ["c-0000", "c-0001", "c-0002"]


def test_sums_are_exact_beyond_64_bits(reader: LogReader) -> None:
    expected = sum(item.cost_nanos for item in ROWS)
    assert expected > 2**63, "the point of this test"
    stats = reader.stats()
    assert stats.cost_nanos == expected
    assert stats.calls == 500 and stats.input_tokens == sum(item.input_tokens for item in ROWS)
    for status, number in (("success", stats.succeeded), ("refused", stats.refused), ("error", stats.failed)):
        assert number == sum(item.status == status for item in ROWS)
    assert stats.unpriced == sum(not item.priced and item.status != "refused" for item in ROWS)
    allowed = [item.latency_ms for item in ROWS if item.status != "refused"]
    assert stats.average_latency_ms == pytest.approx(sum(allowed) / len(allowed))
    by_model = reader.totals("model", NOON_MS, NOON_MS + 10**9)
    assert {model: sums.cost_nanos for model, sums in by_model.items()} == {
        model: sum(item.cost_nanos for item in ROWS if item.model == model) for model in ("m1", "m2", "m3")
    }
    nothing = reader.stats(start_ms=NOON_MS + 10**12)
    assert (nothing.calls, nothing.cost_nanos, nothing.average_latency_ms) == (0, 0, 0.0)


def test_daily_sums_agree_with_the_rows(reader: LogReader) -> None:
    by_team = {total.group: total.input_tokens for total in reader.daily("2026-11-23", "2026-11-23", by=("day", "team_id"))}
    assert by_team == {
        ("2026-11-23", team): sum(item.input_tokens for item in ROWS if item.team_id == team) for team in ("", "t-1", "t-2")
    }
    assert reader.daily("2026-11-24", "2026-11-30") == []
    assert reader.values("model") == ["m1", "m2", "m3"] and reader.values("team_id") == ["t-1", "t-2"]


def test_lists_use_an_index(reader: LogReader) -> None:
    database: Database = reader._database
    plans = {
        "SELECT id FROM calls ORDER BY at_ms DESC, number DESC LIMIT 5": "calls_by_time",
        "SELECT id FROM calls WHERE virtual_key_id IN ('x') AND at_ms > 5 ORDER BY at_ms DESC, number DESC LIMIT 5": "calls_by_key",
        "SELECT id FROM calls WHERE team_id IN ('x') AND team_id <> '' ORDER BY at_ms DESC, number DESC LIMIT 5": "calls_by_team",
        "SELECT id FROM calls WHERE provider IN ('x') ORDER BY at_ms DESC, number DESC LIMIT 5": "calls_by_provider",
        "SELECT id FROM calls WHERE status IN ('error') AND status <> 'success' ORDER BY at_ms DESC LIMIT 5": "calls_by_status",
    }
    with database.read() as connection:
        explain = "EXPLAIN QUERY PLAN " if database.engine == "sqlite" else "EXPLAIN "
        if database.engine == "postgres":
            connection.execute("SET LOCAL enable_seqscan = off")  # of 500 rows any plan is a good one
        for sql, index in plans.items():
            plan = " ".join(step[-1] for step in connection.execute(explain + sql))
            assert index in plan and "TEMP B-TREE" not in plan, plan
            assert "Sort" not in plan.replace("Incremental Sort", "").replace("Sort Key", ""), plan
        by_id = f"SELECT status FROM calls WHERE id IN ({connection.listed})"
        plan = " ".join(step[-1] for step in connection.execute(explain + by_id, ('["c-0001", "c-0002"]',)))
        assert ("calls_id_key" if database.engine == "postgres" else "USING INDEX") in plan, plan


def test_a_search_knows_the_case_of_ascii_letters_alone_and_takes_any_length(stores: Stores) -> None:
    database = stores.logs()
    writer = LogWriter(database, clock=SystemClock())
    writer.start()
    for number, message in enumerate(("Straße ÄNDERUNG", "strasse", "100%_\\", "x" * 4096)):
        writer.add(CallRow(f"c-{number}", NOON_MS, "success", 200, message=message))
    writer.close()
    reader = LogReader(database)
    found = {
        text: ids(reader.recent(text=text))
        for text in ("STRA", "STRAßE", "änderung", "%_\\", "\\", "x" * 4096, "x" * 4097, "x" * 70_000, "\0", "")
    }
    assert found == {
        "STRA": ["c-1", "c-0"], "STRAßE": ["c-0"], "änderung": [], "%_\\": ["c-2"], "\\": ["c-2"], "x" * 4096: ["c-3"],
        "x" * 4097: [], "x" * 70_000: [], "\0": [], "": ["c-3", "c-2", "c-1", "c-0"],
    }  # fmt: skip


def test_since_gives_the_newest_oldest_first(reader: LogReader) -> None:
    found = reader.since(NOON_MS + 100_000, limit=4)
    assert ids(found) == ["c-0496", "c-0497", "c-0498", "c-0499"]
    assert reader.get("nothing") is None
