"""`/metrics` read by Prometheus' own parser: counters, gauges of every cap, and bounds on the number of series."""

from decimal import Decimal
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from addons.console.metrics import MAX_CALLERS, by_labels, shown_caps
from store.ledger.types import Cap, CapState, Scope, Unit
from store.logs.batch import write_rows
from store.logs.sums import LogSums
from store.logs.types import CallRow
from tests.store.ledger.till import Till

USD = 10**9


async def scrape(console: Any) -> dict[str, list[Any]]:
    got = await console.client.get("/metrics")
    assert got.status_code == 200
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(got.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


async def test_caps_calls_and_counters(console: Any) -> None:
    team = (await console.client.post("/api/governance/teams", json={"name": 'blue "team"\n'})).json()["team"]
    till = Till(console.store.database, console.clock)
    till.cap("day", 5 * USD, "1d")
    till.cap("rate", 100, "1h", Unit.TOKENS)
    till.spend("call-1", "day", 2 * USD)
    till.hold("call-2", "day rate", USD, tokens=10)
    rows = [
        CallRow(f"c-{number}", console.clock.now_ms(), status, 200, provider="openai", model="gpt-4o", virtual_key_id="vk",
                team_id=team["id"], input_tokens=10, output_tokens=3, cache_read_tokens=4, cost_nanos=1_500_000_000,
                latency_ms=250, priced=number != 1)
        for number, status in enumerate(("success", "success", "error", "cancelled"))
    ]  # fmt: skip
    rows.append(CallRow("r", console.clock.now_ms(), "refused", 402, provider="openai", model="gpt-4o", count=30))
    with console.logs_database.write() as connection:
        write_rows(connection, rows)
    found = await scrape(console)
    caps = {sample.labels["cap_id"]: sample.value for sample in found["tollgate_cap_held"]}
    assert caps == {"day": 1.0, "rate": 10.0}
    for name, value in (("used", 2.0), ("limit", 5.0), ("remaining", 2.0)):
        assert {sample.value for sample in found[f"tollgate_cap_{name}"] if sample.labels["cap_id"] == "day"} == {value}
    resets = {sample.labels["cap_id"]: sample.value for sample in found["tollgate_cap_resets_timestamp_seconds"]}
    assert abs(resets["day"] - console.clock.now_ms() / 1000 - 86_400) < 60
    assert [sample.value for sample in found["bifrost_active_requests"]] == [1.0]
    assert {sample.labels["unit"]: sample.value for sample in found["tollgate_caps"]} == {"usd": 1.0, "tokens": 1.0}

    def counted(name: str, key: str = "vk") -> float:
        (sample,) = [sample for sample in found[name] if sample.labels["virtual_key_id"] == key]
        assert (sample.labels["provider"], sample.labels["model"]) == ("openai", "gpt-4o")
        return float(sample.value)

    assert counted("bifrost_upstream_requests_total") == 4 and counted("bifrost_upstream_requests_total", "") == 0
    assert (counted("bifrost_success_requests_total"), counted("bifrost_error_requests_total")) == (2, 1)
    assert (counted("bifrost_input_tokens_total"), counted("bifrost_output_tokens_total")) == (40, 12)
    assert counted("bifrost_cache_read_input_tokens_total") == 16 and counted("bifrost_cost_total") == 6.0
    assert counted("tollgate_refused_requests_total", "") == 30 and counted("tollgate_unpriced_requests_total") == 1
    assert (counted("bifrost_upstream_latency_seconds_count"), counted("bifrost_upstream_latency_seconds_sum")) == (4, 1.0)
    (named,) = [sample for sample in found["bifrost_cost_total"] if sample.labels["virtual_key_id"] == "vk"]
    assert named.labels["team_name"] == 'blue "team"\n', "names are escaped"
    assert {sample.labels["status"]: sample.value for sample in found["tollgate_logged_calls"]} == {
        "success": 2, "refused": 30, "error": 1, "other": 1,
    }  # fmt: skip


async def test_counters_go_on_when_rows_are_deleted(console: Any) -> None:
    with console.logs_database.write() as connection:
        write_rows(connection, [CallRow("c", console.clock.now_ms(), "success", 200, provider="p", model="m", cost_nanos=7)])
    before = await scrape(console)
    await console.client.request("DELETE", "/api/logs", json={"ids": ["c"]})
    after = await scrape(console)
    assert after["bifrost_upstream_requests_total"] == before["bifrost_upstream_requests_total"]
    assert Decimal(str(after["bifrost_cost_total"][0].value)) == Decimal("7E-9")


def state(number: int, scope: Scope, used: int, limit: int = 100) -> CapState:
    return CapState(Cap(f"cap-{number}", "n", scope, "s", "s", Unit.USD, limit, "1h"), used, 0)


def test_of_many_caps_the_wide_and_the_fullest_are_shown() -> None:
    states = [state(number, Scope.VIRTUAL_KEY, number) for number in range(50)] + [state(50, Scope.TEAM, 0)]
    assert shown_caps(states, 51) == states
    assert [one.cap.id for one in shown_caps(states, 3)] == ["cap-48", "cap-49", "cap-50"]
    assert shown_caps([state(1, Scope.VIRTUAL_KEY, 99), state(2, Scope.VIRTUAL_KEY, 0, 0)], 1)[0].cap.id == "cap-2"


def test_many_callers_are_counted_together_and_nothing_is_lost() -> None:
    few = {(f"vk-{number}", "t", "", "p", f"m{number % 2}"): LogSums(calls=1, cost_nanos=number) for number in range(MAX_CALLERS)}
    assert len(by_labels(few)) == MAX_CALLERS
    many = few | {("one more", "", "c", "p", "m0"): LogSums(calls=1, cost_nanos=5)}
    found = by_labels(many)
    assert {labels: (sums.calls, sums.cost_nanos) for labels, sums in found.items()} == {
        ("p", "m0", "", "", ""): (MAX_CALLERS // 2 + 1, sum(range(0, MAX_CALLERS, 2)) + 5),
        ("p", "m1", "", "", ""): (MAX_CALLERS // 2, sum(range(1, MAX_CALLERS, 2))),
    }
    assert all(sums.calls == 1 for sums in many.values()), "what was given is left as it was"
