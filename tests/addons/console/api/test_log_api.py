"""The log API over HTTP: filters, sums, histograms, rankings, values, deletion; every answer is of the shape it is described by."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from addons.console.api.log_overview import ROUTES as OVERVIEW
from addons.console.api.log_stats import ROUTES as STATS
from addons.console.api.logs import ROUTES as LOGS
from store.clock import iso_utc
from store.config_store.fields import loads_exact
from store.logs.batch import Bodies, write_rows
from store.logs.types import CallRow

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HISTOGRAMS = ("", "/tokens", "/cost", "/models", "/latency", "/throughput")
DESCRIBED = {route.path: route.handler for route in (*STATS, *OVERVIEW, *LOGS)}


def filled(console: Any) -> list[CallRow]:
    """Two teams' calls of the last two days."""
    now_ms = console.clock.now_ms()
    rows = []
    for number in range(60):
        refused = number % 10 == 9
        rows.append(
            CallRow(
                id=f"call-{number:02d}", at_ms=now_ms - number * HOUR_MS, http_status=402 if refused else 200,
                status="refused" if refused else "error" if number % 7 == 3 else "success",
                provider=("openai", "anthropic")[number % 2], model=("gpt-4o", "claude")[number % 2],
                virtual_key_id=f"vk-{number % 3}", virtual_key_name=f"key {number % 3}", team_id=("", "t-1")[number % 2],
                input_tokens=0 if refused else 100, output_tokens=0 if refused else number, latency_ms=100 * number + 50,
                cost_nanos=0 if refused else 1_000_000 + number, client="claude-cli/2.1 (x)", operation="chat_completion",
                caps_charged=() if refused else ("b-1",), refusal_type="budget_exceeded" if refused else "", path="/v1/x",
                refusal_cap="b-1" if refused else "", message="No." if refused else "", count=4 if refused else 1,
                request_body="{}", stop_reason="stop",
            )
        )  # fmt: skip
    with console.logs_database.write() as connection:
        write_rows(connection, rows, bodies=Bodies(1000))
    return rows


async def answer(console: Any, path: str, **params: Any) -> dict[str, Any]:
    got = await console.client.get(path, params=params)
    assert got.status_code == 200, got.text
    handler = DESCRIBED.get(path) or DESCRIBED["/api/logs/{call_id}"]
    described = handler.get.operation.answer  # type: ignore[attr-defined]
    made: dict[str, Any] = loads_exact(got.content)
    assert plain(TypeAdapter(described).validate_python(made)) == plain(made), "nothing beside what is described"
    return made


def plain(value: Any) -> Any:
    """Numbers without their types, which the description does not keep."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return float(value) if isinstance(value, Decimal) else value


async def test_a_page_has_the_sums_of_all_that_was_found(console: Any) -> None:
    rows = filled(console)
    page = await answer(console, "/api/logs", limit=5)
    assert [row["id"] for row in page["logs"]] == [f"call-{number:02d}" for number in range(5)]
    assert page["pagination"]["total_count"] == 60 and page["has_logs"] is True
    stats = page["stats"]
    refused = sum(row.count for row in rows if row.status == "refused")
    assert (stats["total_requests"], stats["refused"]) == (54 + refused, refused) == (78, 24)
    assert stats["total_cost"] == Decimal(sum(row.cost_nanos for row in rows)).scaleb(-9)
    assert stats["success_rate"] == Decimal(str(round(stats["success"] * 100 / 78, 3)))
    assert stats["completion_tokens"] == sum(row.output_tokens for row in rows)
    assert await answer(console, "/api/logs/stats") == stats
    none = await answer(console, "/api/logs", models="nothing")
    assert (none["logs"], none["has_logs"], none["stats"]["total_requests"]) == ([], True, 0)


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ({"providers": "openai"}, lambda row: row.provider == "openai"),
        ({"models": "gpt-4o,claude", "team_ids": "t-1"}, lambda row: row.team_id == "t-1"),
        ({"status": "refused,error"}, lambda row: row.status != "success"),
        ({"virtual_key_ids": "vk-1, vk-2"}, lambda row: row.virtual_key_id != "vk-0"),
        ({"cap_ids": "b-1"}, lambda row: True),
        ({"refusal_types": "budget_exceeded"}, lambda row: row.status == "refused"),
        ({"min_cost": "0.001000010", "max_cost": "0.00100002"}, lambda row: 1_000_010 <= row.cost_nanos <= 1_000_020),
        ({"min_latency": 1050, "max_latency": 2050}, lambda row: 1050 <= row.latency_ms <= 2050),
        ({"min_tokens": 110, "max_tokens": 120}, lambda row: 110 <= row.input_tokens + row.output_tokens <= 120),
        ({"apps": "claude-cli", "objects": "chat_completion", "stop_reasons": "stop"}, lambda row: True),
        ({"missing_cost_only": "true"}, lambda row: False),
        ({"content_search": "no."}, lambda row: row.status == "refused"),
        ({"aliases": "", "user_ids": "", "roots_only": "true", "models": ""}, lambda row: True),
        ({"period": "5h"}, lambda row: int(row.id[-2:]) <= 5),
    ],
)  # fmt: skip
async def test_filters(console: Any, query: dict[str, Any], holds: Any) -> None:
    rows = filled(console)
    page = await answer(console, "/api/logs", limit=100, **query)
    # One hour more or less at the edge of a period: the clock went on since the rows were made.
    expected = [row.id for row in rows if holds(row)]
    found = [row["id"] for row in page["logs"]]
    assert found == expected or ("period" in query and found == expected[:-1])
    assert page["pagination"]["total_count"] == len(found)


async def test_times_are_half_open_and_any_precision_of_rfc_3339(console: Any) -> None:
    rows = filled(console)
    start, end = rows[9].at_ms, rows[4].at_ms
    for write in (iso_utc, lambda ms: f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}000000+00:00"):
        page = await answer(console, "/api/logs", start_time=write(start), end_time=write(end))
        assert [row["id"] for row in page["logs"]] == [f"call-{number:02d}" for number in range(5, 10)]


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/api/logs", {"limit": "1001"}, "limit: must be at most 1000"),
        ("/api/logs", {"offset": "-1"}, "offset: must be a whole number"),
        ("/api/logs", {"sort_by": "colour"}, "sort_by"),
        ("/api/logs", {"virtual_key_id": "x"}, "did you mean 'virtual_key_ids'?"),
        ("/api/logs", {"user_ids": "u-1"}, "user_ids is not implemented"),
        ("/api/logs", {"metadata_env": "x"}, "metadata_env: unknown parameter"),
        ("/api/logs", {"status": "refussed"}, "'refussed' is no status"),
        ("/api/logs", {"start_time": "yesterday"}, "start_time: is not a time with a zone"),
        ("/api/logs", {"start_time": "2026-11-23T11:00:00"}, "start_time: is not a time with a zone"),
        ("/api/logs", {"start_time": "2026-11-23T11:00:00Z", "end_time": "2026-11-22T11:00:00Z"}, "end_time: is before"),
        ("/api/logs", {"period": "1h", "start_time": "2026-11-23T11:00:00Z"}, "period: goes without"),
        ("/api/logs", {"period": "soon"}, "period: 'soon' is not a duration"),
        ("/api/logs", {"min_cost": "NaN"}, "min_cost"),
        ("/api/logs", {"missing_cost_only": "perhaps"}, "missing_cost_only: must be true or false"),
        ("/api/logs", {"models": ",".join(map(str, range(501)))}, "models: holds more than 500"),
        ("/api/logs/histogram/cost/by-dimension", {}, "dimension: is required"),
        ("/api/logs/histogram/cost/by-dimension", {"dimension": "user_id"}, "dimension: must be"),
        ("/api/logs/rankings", {"limit": "1001"}, "limit: must be at most 1000"),
        ("/api/logs/rankings/by-dimension", {"dimension": "business_unit"}, "dimension"),
        ("/api/logs/filterdata", {"dimensions": "models,colours"}, "'colours' is no list of values"),
        ("/api/logs/histogram", {"start_time": "1970-01-01T00:00:00Z", "end_time": "2300-01-01T00:00:00Z"}, "ask for less"),
    ],
)  # fmt: skip
async def test_bad_input_is_named(console: Any, path: str, query: dict[str, str], words: str) -> None:
    got = await console.client.get(path, params=query)
    assert got.status_code == 400 and words in got.json()["error"]["message"], got.text


async def test_histograms_add_up_to_the_stats(console: Any) -> None:
    filled(console)
    for query in ({}, {"period": "1h"}, {"period": "24h", "providers": "openai"}, {"period": "30d"}, {"status": "success"}):
        stats = await answer(console, "/api/logs/stats", **query)
        counts = await answer(console, "/api/logs/histogram", **query)
        assert sum(bucket["count"] for bucket in counts["buckets"]) == stats["total_requests"]
        for name in ("success", "error", "cancelled", "refused", "other"):
            assert sum(bucket[name] for bucket in counts["buckets"]) == stats[name]
        times = [datetime.fromisoformat(bucket["timestamp"]).timestamp() for bucket in counts["buckets"]]
        assert {b - a for a, b in zip(times, times[1:], strict=False)} <= {counts["bucket_size_seconds"]}, "none is left out"
        cost = await answer(console, "/api/logs/histogram/cost", **query)
        assert sum(bucket["total_cost"] for bucket in cost["buckets"]) == stats["total_cost"]
        assert sum(sum(bucket["by_model"].values()) for bucket in cost["buckets"]) == stats["total_cost"]
        tokens = await answer(console, "/api/logs/histogram/tokens", **query)
        assert sum(bucket["total_tokens"] for bucket in tokens["buckets"]) == stats["total_tokens"]
        models = await answer(console, "/api/logs/histogram/models", **query)
        assert sum(one["count"] for bucket in models["buckets"] for one in bucket["by_model"].values()) == stats["total_requests"]
        for measure in HISTOGRAMS:
            split = await answer(console, f"/api/logs/histogram{measure}/by-provider", **query)
            assert len(split["buckets"]) == len(counts["buckets"])
            by_team = await answer(console, f"/api/logs/histogram{measure}/by-dimension", dimension="team_id", **query)
            assert by_team["dimension"] == "team_id" and set(by_team["dimension_values"]) <= {"", "t-1"}
            await answer(console, f"/api/logs/histogram{measure}", **query)
        ranked = await answer(console, "/api/logs/rankings/by-dimension", dimension="virtual_key", all="true", **query)
        assert sum(place["total_cost"] for place in ranked["rankings"]) == stats["total_cost"]
        page = await answer(console, "/api/logs/dashboard", **query)
        assert page["overview"]["stats"] == stats | {"average_latency": page["overview"]["stats"]["average_latency"]}
        assert page["overview"]["cost"]["buckets"] == cost["buckets"] or query.get("period")


async def test_latency_and_throughput(console: Any) -> None:
    rows = filled(console)
    found = await answer(console, "/api/logs/histogram/latency", start_time=iso_utc(rows[-1].at_ms))
    let_through = [row.latency_ms for row in rows if row.status != "refused"]
    assert sum(bucket["total_requests"] for bucket in found["buckets"]) == len(let_through)
    busy = [bucket for bucket in found["buckets"] if bucket["total_requests"] == 1]
    assert busy and all(bucket["avg_latency"] == bucket["p90_latency"] == bucket["p99_latency"] for bucket in busy)
    through = await answer(console, "/api/logs/histogram/throughput", period="72h")
    assert {bucket["tokens_per_second"] is None for bucket in through["buckets"]} == {True, False}


async def test_values_to_filter_by(console: Any) -> None:
    filled(console)
    made = (await console.client.post("/api/governance/teams", json={"name": "blue"})).json()["team"]
    with console.logs_database.write() as connection:
        write_rows(connection, [CallRow("last", console.clock.now_ms(), "success", 200, team_id=made["id"], client="curl/8")])
    found = await answer(console, "/api/logs/filterdata")
    assert (found["models"], found["providers"]) == (["claude", "gpt-4o"], ["anthropic", "openai"])
    assert found["virtual_keys"] == [{"id": f"vk-{number}", "name": f"key {number}"} for number in range(3)]
    assert {team["id"]: team["name"] for team in found["teams"]} == {made["id"]: "blue", "t-1": "t-1"}
    assert found["apps"] == ["claude-cli", "curl"] and found["aliases"] == [] and found["metadata_keys"] == {}
    assert (await answer(console, "/api/logs/filterdata", dimensions="status")) == {"status": ["error", "refused", "success"]}
    ranked = (await answer(console, "/api/logs/rankings/by-dimension", dimension="team", limit=1))["rankings"]
    assert [(place["id"], place["total_requests"]) for place in ranked] == [("", 30)]


async def test_deleting_takes_rows_out_and_leaves_sums_and_an_audit_row(console: Any) -> None:
    filled(console)
    before = console.logs.daily("2000-01-01", "2100-01-01")
    assert (await console.client.request("DELETE", "/api/logs", json={"ids": []})).status_code == 400
    assert (await console.client.request("DELETE", "/api/logs", json={})).status_code == 400
    assert (await console.client.request("DELETE", "/api/logs", json={"id": ["x"]})).status_code == 400
    got = await console.client.request(
        "DELETE", "/api/logs", json={"ids": ["call-00", "call-09", "unknown"], "reason": "a person asked"}
    )
    assert got.status_code == 200 and got.json() == {"message": "Logs deleted successfully", "deleted": 2}
    assert (await console.client.get("/api/logs/call-00")).status_code == 404
    assert (await answer(console, "/api/logs"))["pagination"]["total_count"] == 58
    assert console.logs.daily("2000-01-01", "2100-01-01") == before
    with console.store.ledger.read() as connection:
        rows = connection.execute("SELECT action, kind, actor, details, reason FROM audit ORDER BY sequence")
    action, kind, actor, details, reason = rows[-1]
    assert (action, kind, actor, reason) == ("delete", "log", "admin token", "a person asked")
    assert orjson.loads(details) == {"ids": ["call-00", "call-09", "unknown"]}
    with console.logs_database.write() as connection:
        write_rows(connection, [CallRow("call-00", console.clock.now_ms(), "success", 200, cost_nanos=5)])
    assert (await console.client.get("/api/logs/call-00")).status_code == 404, "what was deleted does not come back"
    assert console.logs.daily("2000-01-01", "2100-01-01") == before


async def test_lost_rows_are_told(console: Any) -> None:
    from store.logs.writer import LogWriter

    assert await answer(console, "/api/logs/dropped") == {"dropped_requests": 0}
    for _ in range(2):
        writer = LogWriter(console.logs_database, clock=console.clock, queue_rows=3)
        for number in range(5):
            writer.add(CallRow(f"c-{number}", console.clock.now_ms(), "success", 200))
        writer.start()
        assert writer.flush()
        writer.close()
    assert await answer(console, "/api/logs/dropped") == {"dropped_requests": 4}


async def test_nobody_reads_or_deletes_without_signing_in(console: Any) -> None:
    async with console.stranger() as anybody:
        for path in ("/api/logs/stats", "/api/logs/dashboard", "/api/logs/filterdata", "/api/governance/forecast"):
            assert (await anybody.get(path)).status_code == 401
        assert (await anybody.request("DELETE", "/api/logs", json={"ids": ["x"]})).status_code == 401
