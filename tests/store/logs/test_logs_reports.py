"""Sums, histograms, latencies and rankings against a naive model of the same calls, on both engines."""

import random
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.database import Database
from store.errors import UserError
from store.logs.batch import write_rows
from store.logs.collect import collect, collect_by, sums_of_everything, whole_span
from store.logs.facets import facets, key_names
from store.logs.filters import LogFilter, app_of
from store.logs.histograms import histogram, latency_histogram
from store.logs.latencies import longest_in, percentiles, step_of
from store.logs.overview import overview
from store.logs.periods import MAX_BUCKETS, Span
from store.logs.rankings import rankings
from store.logs.sums import SUM_FIELDS, LogSums
from store.logs.types import CallRow
from tests.store.logs.stores import Stores
from tests.support.naive_logs import DAY, HOUR, MINUTE, bucket_width, by, figures, in_time, nearest_rank

START_MS = 1_790_000_000_000
"""2026-09-21, in the middle of a day."""
NOW_MS = START_MS + 40 * DAY + 12_345_678
EDGE_MS = START_MS // DAY * DAY + 9 * DAY
EMPTY = LogSums()


def made_rows(count: int = 900) -> list[CallRow]:
    chance = random.Random(11)
    rows = []
    for number in range(count):
        status = chance.choices(("success", "error", "refused", "cancelled", "cut", "unconfirmed"), (60, 10, 15, 5, 5, 5))[0]
        refused = status == "refused"
        rows.append(
            CallRow(
                id=f"c-{number:04d}",
                # Most in the last day, so that short times have calls too; some at the very edge of a day.
                at_ms=chance.choice((NOW_MS - chance.randrange(DAY), chance.randrange(START_MS, NOW_MS), EDGE_MS)),
                status=status,
                http_status=402 if refused else 200,
                provider=chance.choice(("openai", "anthropic")),
                model=chance.choice(("m1", "m2", "m3")),
                virtual_key_id=chance.choice(("vk-1", "vk-2", "vk-3")),
                virtual_key_name="named",
                team_id=chance.choice(("", "t-1", "t-2")),
                customer_id=chance.choice(("", "c-1")),
                operation=chance.choice(("chat_completion", "embedding")),
                client=chance.choice(("claude-cli/2.1 (x)", "claude-cli/2.2", "curl/8", "python", "")),
                stop_reason=chance.choice(("stop", "length", "")),
                caps_charged=() if refused else ("cap-a",),
                refusal_type="budget_exceeded" if refused else "",
                refusal_cap="cap-b" if refused else "",
                cost_nanos=0 if refused else chance.choice((0, 1, 123_456_789, 10**15)),
                input_tokens=0 if refused else chance.randrange(5_000),
                output_tokens=0 if refused else chance.randrange(500),
                cache_read_tokens=chance.randrange(50),
                cache_write_tokens=chance.randrange(50),
                reasoning_tokens=chance.randrange(50),
                latency_ms=chance.choice((0, 1, 31, 32, 33, 400, chance.randrange(100_000))),
                priced=chance.random() < 0.9,
                count=chance.randrange(1, 9) if refused else 1,
            )
        )  # fmt: skip
    return rows


ROWS = made_rows()
COLUMNS = {
    "virtual_key_id": lambda row: row.virtual_key_id,
    "team_id": lambda row: row.team_id,
    "customer_id": lambda row: row.customer_id,
    "provider": lambda row: row.provider,
    "model": lambda row: row.model,
    "status": lambda row: row.status,
    "operation": lambda row: row.operation,
}
HALF_DAY, WEEK = DAY // 2, 7 * DAY
SPANS = [
    (NOW_MS - HOUR, NOW_MS), (NOW_MS - 2 * HOUR, NOW_MS), (NOW_MS - DAY + 1, NOW_MS), (NOW_MS - DAY, NOW_MS + 1),
    (NOW_MS - 3 * DAY, NOW_MS), (NOW_MS - WEEK + 1, NOW_MS), (NOW_MS - WEEK, NOW_MS), (NOW_MS - 31 * DAY, NOW_MS),
    (NOW_MS - 31 * DAY - 1, NOW_MS), (START_MS - 60 * DAY, NOW_MS), (START_MS - 400 * DAY, NOW_MS + DAY),
    (NOW_MS // DAY * DAY - 10 * DAY, NOW_MS // DAY * DAY), (NOW_MS, NOW_MS),
]  # fmt: skip
CONDITIONS: list[tuple[LogFilter, object]] = [
    (LogFilter(), lambda row: True),
    (LogFilter(models=("m1", "m2"), team_ids=("t-1",)), lambda row: row.model in ("m1", "m2") and row.team_id == "t-1"),
    (LogFilter(providers=("openai",)), lambda row: row.provider == "openai"),
    (LogFilter(statuses=("error", "refused")), lambda row: row.status in ("error", "refused")),
    (LogFilter(operations=("embedding",), min_latency_ms=32), lambda row: row.operation == "embedding" and row.latency_ms >= 32),
]


@pytest.fixture(scope="module")
def filled(module_stores: Stores) -> Database:
    database = module_stores.logs()
    with database.write() as connection:
        write_rows(connection, ROWS)
    return database


def as_figures(sums: LogSums) -> dict[str, int]:
    return {name: getattr(sums, name) for name in SUM_FIELDS}


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(("conditions", "holds"), CONDITIONS)
def test_histograms_and_sums_are_those_of_the_plain_list(
    filled: Database, span: tuple[int, int], conditions: LogFilter, holds: object
) -> None:
    start_ms, end_ms = span
    wanted = conditions.within(start_ms, end_ms)
    rows = [row for row in in_time(ROWS, start_ms, end_ms) if holds(row)]  # type: ignore[operator]
    total = collect(filled, wanted, Span(start_ms, end_ms)).get((0, ""), EMPTY)
    assert as_figures(total) == figures(rows)
    width = bucket_width(end_ms - start_ms)
    for column, key in (("model", COLUMNS["model"]), ("status", COLUMNS["status"])):
        found = histogram(filled, wanted, NOW_MS, column)  # type: ignore[arg-type]
        assert found.bucket_ms == width
        assert (
            list(found.starts) == list(range(start_ms // width * width, end_ms, width)) if end_ms > start_ms else not found.starts
        )
        expected = {at: figures(some) for at, some in by(rows, lambda row, key=key: (row.at_ms // width * width, key(row))).items()}
        assert {at: as_figures(sums) for at, sums in found.sums.items()} == expected
        added = LogSums()
        for at_ms in found.starts:
            added.add(found.whole(at_ms))
        assert added == total, "the buckets add up to the sums exactly"


@pytest.mark.parametrize("column", COLUMNS)
def test_each_column_splits_without_a_rest(filled: Database, column: str) -> None:
    found = collect(filled, LogFilter(), Span(START_MS, NOW_MS), column)  # type: ignore[arg-type]
    expected = by(in_time(ROWS, START_MS, NOW_MS), COLUMNS[column])
    assert {value: as_figures(sums) for (_, value), sums in found.items()} == {
        value: figures(rows) for value, rows in expected.items()
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_time_and_any_split_add_up(filled: Database, data: st.DataObject) -> None:
    start_ms = data.draw(st.integers(START_MS - 2 * DAY, NOW_MS))
    end_ms = data.draw(st.integers(start_ms, NOW_MS + DAY))
    columns = data.draw(st.lists(st.sampled_from(list(COLUMNS)[:5]), unique=True, max_size=3))
    width = Span(start_ms, end_ms).bucket_ms
    rows = in_time(ROWS, start_ms, end_ms)
    found = collect_by(filled, LogFilter(), Span(start_ms, end_ms), columns, width)  # type: ignore[arg-type]
    expected = by(rows, lambda row: (row.at_ms // width * width, tuple(COLUMNS[column](row) for column in columns)))
    assert {at: as_figures(sums) for at, sums in found.items()} == {at: figures(some) for at, some in expected.items()}


@pytest.mark.parametrize("span", [(NOW_MS - DAY + 1, NOW_MS), (NOW_MS - 6 * DAY, NOW_MS)])
def test_latencies_of_short_times_are_exact(filled: Database, span: tuple[int, int]) -> None:
    width = bucket_width(span[1] - span[0])
    found = latency_histogram(filled, LogFilter(start_ms=span[0], end_ms=span[1]), NOW_MS, "provider")
    rows = [row for row in in_time(ROWS, *span) if row.status != "refused"]
    groups = by(rows, lambda row: (row.at_ms // width * width, row.provider))
    assert found.points.keys() == groups.keys()
    for at, some in groups.items():
        values, point = [row.latency_ms for row in some], found.points[at]  # type: ignore[index]
        assert (point.p90_ms, point.p95_ms, point.p99_ms) == tuple(nearest_rank(values, percent) for percent in (90, 95, 99))
        assert point.calls == len(values) and point.average_ms == pytest.approx(sum(values) / len(values))


def test_latencies_of_long_times_are_at_most_a_sixteenth_too_long(filled: Database) -> None:
    found = latency_histogram(filled, LogFilter(start_ms=START_MS, end_ms=NOW_MS), NOW_MS)
    rows = [row for row in in_time(ROWS, START_MS, NOW_MS) if row.status != "refused"]
    width = bucket_width(NOW_MS - START_MS)
    groups = by(rows, lambda row: row.at_ms // width * width)
    assert len(groups) > 10
    for at_ms, some in groups.items():
        values, point = [row.latency_ms for row in some], found.at(at_ms)  # type: ignore[arg-type]
        assert point.average_ms == pytest.approx(sum(values) / len(values)), "averages come from exact sums"
        for percent, shown in ((90, point.p90_ms), (95, point.p95_ms), (99, point.p99_ms)):
            exact = nearest_rank(values, percent)
            assert exact <= shown <= exact + exact / 16


@given(st.integers(0, 10**12))
def test_a_latency_lies_in_its_step(latency_ms: int) -> None:
    step = step_of(latency_ms)
    longest = longest_in(step)
    assert latency_ms <= longest <= latency_ms * 17 / 16
    assert step_of(longest) == step and step_of(longest + 1) == step + 1


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60))
def test_percentiles_by_nearest_rank(values: list[int]) -> None:
    counts = {value: values.count(value) for value in values}
    assert percentiles(counts.items(), (1, 50, 90, 100)) == tuple(nearest_rank(values, percent) for percent in (1, 50, 90, 100))
    assert percentiles([], (90, 99)) == (0, 0)


def test_the_page_is_what_its_parts_are(filled: Database) -> None:
    for wanted in (
        LogFilter(),
        LogFilter(start_ms=NOW_MS - DAY, end_ms=NOW_MS),
        LogFilter(start_ms=NOW_MS - 20 * DAY, end_ms=NOW_MS),
    ):
        page = overview(filled, wanted, NOW_MS)
        span = whole_span(filled, wanted, NOW_MS)
        assert page.total == collect(filled, wanted, span).get((0, ""), EMPTY)
        assert page.by_model == histogram(filled, wanted, NOW_MS, "model")
        assert page.by_provider == histogram(filled, wanted, NOW_MS, "provider")
        assert page.latency == latency_histogram(filled, wanted, NOW_MS)
        assert page.latency_by_provider == latency_histogram(filled, wanted, NOW_MS, "provider")
        for dimension, found in page.rankings.items():
            assert found == rankings(filled, wanted, NOW_MS, dimension)


def test_rankings_with_the_time_before(filled: Database) -> None:
    wanted = LogFilter(start_ms=NOW_MS - DAY, end_ms=NOW_MS)
    found = rankings(filled, wanted, NOW_MS, "app")
    now = by(in_time(ROWS, NOW_MS - DAY, NOW_MS), lambda row: app_of(row.client))
    before = by(in_time(ROWS, NOW_MS - 2 * DAY, NOW_MS - DAY), lambda row: app_of(row.client))
    assert {one.value for one in found} == set(now) == {"claude-cli", "curl", "python", ""}
    for one in found:
        assert as_figures(one.sums) == figures(now[one.value])
        assert one.before is not None and as_figures(one.before) == figures(before.get(one.value, []))
    costs = [one.sums.cost_nanos for one in found]
    assert costs == sorted(costs, reverse=True)
    assert all(one.before is None for one in rankings(filled, LogFilter(), NOW_MS, "team")), "nothing was before everything"


def test_all_time_begins_with_the_oldest_day_and_ends_now(filled: Database) -> None:
    oldest = min(row.at_ms for row in ROWS)
    assert whole_span(filled, LogFilter(), NOW_MS) == Span(oldest // DAY * DAY, NOW_MS + 1)
    assert whole_span(filled, LogFilter(), 5).end_ms == max(row.at_ms for row in ROWS) + 1
    with pytest.raises(UserError, match="start_time: the time asked for has"):
        histogram(filled, LogFilter(start_ms=0, end_ms=(MAX_BUCKETS + 1) * 30 * DAY), NOW_MS)


def test_sums_of_everything_are_by_owner(filled: Database) -> None:
    found = sums_of_everything(filled)
    expected = by(ROWS, lambda row: (row.virtual_key_id, row.team_id, row.customer_id, row.provider, row.model))
    assert {key: as_figures(sums) for key, sums in found.items()} == {key: figures(rows) for key, rows in expected.items()}


def test_facets_are_the_values_there_are(filled: Database) -> None:
    found = facets(filled)
    for column in ("virtual_key_id", "team_id", "customer_id", "provider", "model", "status", "stop_reason", "client"):
        assert set(found.values[column]) == {getattr(row, column) for row in ROWS} - {""}
    assert found.apps == ("claude-cli", "curl", "python")
    assert facets(filled, ("model",)).values.keys() == {"model"}
    assert key_names(filled, ("vk-1", "vk-9")) == {"vk-1": "named"}


def test_reports_are_read_from_indexes_and_sums(filled: Database) -> None:
    """Of a day only its calls are looked at; of long times, lists of values and counters none that whole days or totals know."""
    if filled.engine != "sqlite":
        pytest.skip("asks SQLite's own plans")
    with filled.read() as connection:
        raw = connection.raw  # type: ignore[attr-defined]
        seen: list[str] = []
        raw.set_exec_trace(lambda cursor, sql, bindings: seen.append(sql) or True)
    try:
        histogram(filled, LogFilter(start_ms=NOW_MS - 30 * DAY, end_ms=NOW_MS), NOW_MS, "provider")
        sums_of_everything(filled)
        facets(filled, ("model", "virtual_key_id"))
    finally:
        raw.set_exec_trace(None)
    with filled.read() as connection:
        reads = [sql for sql in seen if sql.startswith("SELECT") and "FROM calls" in sql]
        assert reads and all("at_ms >= ?" in sql and "at_ms < ?" in sql for sql in reads), "edges alone are read from the calls"
        for sql in reads:
            plan = " ".join(step[-1] for step in connection.execute("EXPLAIN QUERY PLAN " + sql, (0,) * sql.count("?")))
            assert "USING INDEX calls_by_time" in plan, plan


def test_every_condition_is_a_field_that_where_knows() -> None:
    """A condition that was forgotten in the clause would silently find everything."""
    from store.logs.filters import where_calls

    for field in fields(LogFilter):
        value = ("x",) if field.default == () else True if field.default is False else "x" if field.default == "" else 7
        assert where_calls("sqlite", replace(LogFilter(), **{field.name: value})).sql, field.name
        assert not LogFilter(**{field.name: value}).is_everything  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"apps": ("claude-cli",)}, lambda row: row.client.startswith("claude-cli/")),
        ({"apps": ("python",)}, lambda row: row.client == "python"),
        ({"apps": ("c%",)}, lambda row: False),
        ({"clients": ("curl/8", "python")}, lambda row: row.client in ("curl/8", "python")),
        ({"stop_reasons": ("length",)}, lambda row: row.stop_reason == "length"),
        ({"cap_ids": ("cap-a",)}, lambda row: row.status != "refused"),
        ({"cap_ids": ("cap-b",)}, lambda row: row.status == "refused"),
        ({"cap_ids": ("cap-",)}, lambda row: False),
        ({"min_tokens": 3_000, "max_tokens": 4_000}, lambda row: 3_000 <= row.input_tokens + row.output_tokens <= 4_000),
        ({"unpriced_only": True}, lambda row: not row.priced and row.status != "refused"),
        ({"refusal_types": ("budget_exceeded",)}, lambda row: row.status == "refused"),
    ],
)  # fmt: skip
def test_conditions_of_the_calls_alone(filled: Database, conditions: dict[str, object], holds: object) -> None:
    rows = [row for row in ROWS if holds(row)]  # type: ignore[operator]
    found = collect(filled, LogFilter(**conditions), Span(START_MS - DAY, NOW_MS + 1))  # type: ignore[arg-type]
    assert as_figures(found.get((0, ""), EMPTY)) == figures(rows)


def test_bucket_widths() -> None:
    for length in (
        0,
        MINUTE,
        2 * HOUR - 1,
        2 * HOUR,
        DAY - 1,
        DAY,
        3 * DAY,
        7 * DAY - 1,
        7 * DAY,
        31 * DAY,
        31 * DAY + 1,
        90 * DAY,
        400 * DAY,
    ):
        assert Span(NOW_MS, NOW_MS + length).bucket_ms == bucket_width(length)
