"""Rows that somebody deletes stay away and leave their sums; older logs get the sums that reports need."""

from dataclasses import replace

from store.clock import SystemClock
from store.ledger.history import ledger_identity
from store.logs.batch import Bodies, write_rows
from store.logs.catch_up import catch_up, compare
from store.logs.collect import collect, sums_of_everything
from store.logs.deletion import delete_calls, deleted_among
from store.logs.filters import LogFilter
from store.logs.histograms import latency_histogram
from store.logs.ledgers import known_tie, tie
from store.logs.periods import Span
from store.logs.queries import LogReader
from store.logs.retention import delete_older
from store.logs.schema import MIGRATIONS
from store.logs.types import CallRow
from tests.store.ledger.till import Till, TillClock
from tests.store.logs.stores import Stores
from tests.support.naive_logs import DAY, figures

NOON_MS = 1_795_435_200_000


def row(call_id: str, at_ms: int = NOON_MS, **more: object) -> CallRow:
    values: dict[str, object] = {"provider": "openai", "model": "m", "virtual_key_id": "vk", "cost_nanos": 5, "input_tokens": 3}
    return CallRow(call_id, at_ms, "success", 200, **(values | more))  # type: ignore[arg-type]


def test_bodies_go_with_their_rows_and_sums_stay(stores: Stores) -> None:
    database = stores.logs()
    with database.write() as connection:
        write_rows(connection, [row("a", request_body="x"), row("b", request_body="y")], bodies=Bodies(100))
    before = LogReader(database).daily("2026-01-01", "2027-01-01")
    assert delete_calls(database, ["b", "a", "a", "no"]) == ["a", "b"]
    assert delete_calls(database, ["a"]) == []
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM bodies") == [(0,)]
        assert deleted_among(connection, ["a", "b", "no"]) == {"a", "b"}
    assert LogReader(database).daily("2026-01-01", "2027-01-01") == before


def test_a_deleted_call_is_not_made_again_from_the_ledger(stores: Stores) -> None:
    clock = TillClock()
    ledger, logs = stores.ledger(clock), stores.logs()
    till = Till(ledger, clock)
    till.cap("day", 10**9, "1d")
    for call_id in ("call-1", "call-2"):
        till.spend(call_id, "day", 50)
    with logs.write() as connection:
        write_rows(connection, [row("call-1", clock.now_ms(), cost_nanos=50), row("call-2", clock.now_ms(), cost_nanos=50)])
    assert delete_calls(logs, ["call-1"]) == ["call-1"]
    from store.ledger.history import posts_since

    with ledger.read() as connection:
        posts = posts_since(connection, 0, 100)
        identity = ledger_identity(connection)
    report = catch_up(logs, posts, tie(logs, ledger), now_ms=clock.now_ms())
    assert (report.inserted, report.complete) == (0, True)
    reader = LogReader(logs)
    assert [found.id for found in reader.recent()] == ["call-2"]
    assert [day.cost_nanos for day in reader.daily("2026-01-01", "2027-01-01")] == [100], "counted once, though it is deleted"
    assert known_tie(logs, identity) is not None
    comparison = compare(logs, ledger)
    assert comparison.agree and comparison.ledger_nanos == 50, "what was deleted is left out on both sides"


def test_deleted_calls_are_forgotten_with_the_retention(stores: Stores) -> None:
    database = stores.logs()
    with database.write() as connection:
        write_rows(connection, [row("old", NOON_MS - 9 * DAY), row("older", NOON_MS - 9 * DAY), row("new")])
    delete_calls(database, ["old", "new"])
    assert delete_older(database, NOON_MS - DAY) == 1
    with database.read() as connection:
        assert deleted_among(connection, ["old", "older", "new"]) == {"new"}


def test_logs_of_the_version_before_get_their_sums(new_stores: Stores) -> None:
    rows = [
        row(f"c-{number}", NOON_MS - number * DAY // 3, model=f"m{number % 2}", latency_ms=number * 40, reasoning_tokens=number,
            priced=number % 5 > 0, cost_nanos=number)
        for number in range(40)
    ]  # fmt: skip
    rows[3:9] = [
        replace(one, status=status, count=1 + 6 * (status == "refused"))
        for one, status in zip(rows[3:9], ("error", "refused", "cancelled", "cut", "unconfirmed", "refused"), strict=True)
    ]
    old = new_stores.logs(clock=SystemClock(), migrations=MIGRATIONS[:2])
    from store.logs.daily import day_of

    with old.write() as connection:
        for one in rows:
            refused = one.status == "refused"
            connection.execute(
                "INSERT INTO calls (id, at_ms, status, http_status, provider, model, answered_model, operation, stream, way_in, "
                "virtual_key_id, virtual_key_name, team_id, customer_id, run_id, provider_key_id, input_tokens, output_tokens, "
                "cache_read_tokens, cache_write_tokens, reasoning_tokens, cost_nanos, priced, estimated, held_nanos, price_source, "
                "caps_charged, refusal_type, refusal_cap, message, latency_ms, stop_reason, method, path, client, count, text_bytes"
                ") VALUES (?, ?, ?, 200, ?, ?, '', '', 0, '', ?, '', '', '', '', '', ?, 0, 0, 0, ?, ?, ?, 0, 0, '', '[]', '', "
                "'', '', ?, '', '', '', '', ?, 0)",
                (one.id, one.at_ms, one.status, one.provider, one.model, one.virtual_key_id, one.input_tokens, one.reasoning_tokens,
                 one.cost_nanos, int(one.priced), one.latency_ms, one.count),
            )  # fmt: skip
            connection.execute(
                "INSERT INTO daily_costs (day, virtual_key_id, team_id, customer_id, provider, model, calls, refused, failed, "
                "unpriced, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_nanos) "
                "VALUES (?, ?, '', '', ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?) ON CONFLICT (day, virtual_key_id, team_id, customer_id, "
                "provider, model) DO UPDATE SET calls = daily_costs.calls + excluded.calls, "
                "refused = daily_costs.refused + excluded.refused, failed = daily_costs.failed + excluded.failed, "
                "unpriced = daily_costs.unpriced + excluded.unpriced, cost_nanos = daily_costs.cost_nanos + excluded.cost_nanos, "
                "input_tokens = daily_costs.input_tokens + excluded.input_tokens",
                (day_of(one.at_ms), one.virtual_key_id, one.provider, one.model, 0 if refused else one.count,
                 one.count if refused else 0, int(one.status == "error"), 0 if refused or one.priced else 1, one.input_tokens,
                 one.cost_nanos),
            )  # fmt: skip
        # A day of which retention has left nothing but the sums.
        connection.execute(
            "INSERT INTO daily_costs VALUES ('2026-01-05', 'vk', '', '', 'openai', 'gone', 10, 2, 3, 0, 0, 0, 0, 0, 77)"
        )
    database = new_stores.logs()
    span = Span(NOON_MS - 30 * DAY, NOON_MS + 1)
    found = collect(database, LogFilter(), span)[0, ""]
    assert {name: getattr(found, name) for name in figures([])} == figures(rows)
    points = latency_histogram(database, LogFilter(start_ms=span.start_ms, end_ms=span.end_ms), NOON_MS).points
    assert sum(point.calls for point in points.values()) == found.timed
    totals = sums_of_everything(database)
    gone = totals["vk", "", "", "openai", "gone"]
    assert (gone.calls, gone.refused, gone.failed, gone.succeeded, gone.cost_nanos, gone.timed) == (12, 2, 3, 7, 77, 0)
    assert sum(sums.cost_nanos for sums in totals.values()) == found.cost_nanos + 77
