"""Forecasts over HTTP, from the rows of a real ledger with a clock that the test moves."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter

from addons.console.api.forecast import ROUTES
from store.config_store.fields import loads_exact
from store.ledger.recent import recent_spending
from store.ledger.types import Unit
from tests.addons.console.api.test_log_api import plain
from tests.store.ledger.till import HOUR_MS, Till

USD = 10**9


async def forecasts(console: Any, status: int = 200, **params: Any) -> Any:
    got = await console.client.get("/api/governance/forecast", params=params)
    assert got.status_code == status, got.text
    made = loads_exact(got.content)
    if status == 200:
        described = ROUTES[0].handler.get.operation.answer  # type: ignore[attr-defined]
        assert plain(TypeAdapter(described).validate_python(made)) == plain(made)
    return made


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def test_each_budget_has_its_own_outlook(console: Any) -> None:
    till = Till(console.store.database, console.clock)
    till.cap("fast", 10 * USD, "1d")
    till.cap("slow", 1000 * USD, "1d")
    till.cap("new", 10 * USD, "1d")
    till.cap("tokens", 10, "1d", Unit.TOKENS)
    found = {one["budget_id"]: one for one in (await forecasts(console))["forecasts"]}
    assert found.keys() == {"fast", "slow", "new"}, "budgets are in money"
    assert all(one["not_enough_data"] and one["outlook"] == "not enough history yet" for one in found.values())
    for number in range(10):
        console.clock.ahead_seconds += 360
        till.spend(f"call-{number}", "fast slow", USD // 2)
    page = await forecasts(console)
    found = {one["budget_id"]: one for one in page["forecasts"]}
    fast = found["fast"]
    # $5 in the hour since it was made, so the other $5 take an hour more.
    assert (fast["current_usage"], fast["calls_in_span"], fast["spent_in_span"]) == (5, 10, 5)
    assert abs(at(fast["runs_out_at"]) - at(page["at"]) - 3600) < 5 and not fast["lasts_until_reset"]
    assert abs(fast["observed_seconds"] - 3600) < 5 and fast["span_seconds"] == 6 * 3600
    assert abs(fast["even_pace"] - Decimal(10) / 24) < Decimal("0.01")
    assert fast["outlook"].startswith("runs out 2")
    assert found["slow"]["lasts_until_reset"] and found["slow"]["runs_out_at"] is None
    assert found["new"]["not_enough_data"], "an hour of nothing is not a third of six"
    console.clock.ahead_seconds += 3600
    one = (await forecasts(console, budget_id="new"))["forecasts"][0]
    assert one["lasts_until_reset"] and one["rate_per_hour"] == 0
    till.hold("flying", "fast", 5 * USD)
    one = (await forecasts(console, budget_id="fast"))["forecasts"][0]
    assert one["runs_out_at"] is not None and one["outlook"] == "used up by calls in flight"
    assert till.differences() == []


async def test_pages_and_bad_input(console: Any) -> None:
    till = Till(console.store.database, console.clock)
    for number in range(4):
        till.cap(f"b{number}", USD)
    page = await forecasts(console, limit=3, offset=2)
    assert [one["budget_id"] for one in page["forecasts"]] == ["b2", "b3"]
    assert (page["count"], page["total_count"], page["limit"], page["offset"]) == (2, 4, 3, 2)
    assert [one["name"] for one in (await forecasts(console, search="b1"))["forecasts"]] == ["b1"]
    assert "there is no budget 'x'" in (await forecasts(console, 404, budget_id="x"))["error"]["message"]
    assert "did you mean 'budget_id'?" in (await forecasts(console, 400, budgetid="b1"))["error"]["message"]


async def test_what_was_spent_of_late_is_read_newest_first_and_within_bounds(console: Any) -> None:
    till = Till(console.store.database, console.clock)
    till.cap("a", 1000 * USD, "30d")
    till.cap("b", 1000 * USD, "30d")
    start_ms = console.clock.now_ms()
    times = []
    for number in range(12):
        console.clock.ahead_seconds += 600
        times.append(console.clock.now_ms())
        till.spend(f"c-{number}", "a b" if number % 2 else "a", 10 + number)
    till.hold("void", "a", 5)
    till.settle("void", 0, sent=False)
    found = recent_spending(till.database, {"a": start_ms, "b": times[6] - 1, "none": start_ms})
    assert (found["a"].spent_nanos, found["a"].calls) == (sum(range(10, 22)), 12), "a call that never left is none"
    assert (found["b"].spent_nanos, found["b"].calls) == (17 + 19 + 21, 3)
    assert (found["none"].spent_nanos, found["none"].calls) == (0, 0)
    assert found["a"].since_ms == start_ms
    some = recent_spending(till.database, {"a": start_ms, "b": times[11]}, max_posts=4)
    assert (some["a"].calls, some["a"].spent_nanos) == (3, 19 + 20 + 21), "three calls and the void one"
    assert times[9] <= some["a"].since_ms <= times[9] + HOUR_MS // 6, "how far it came is told"
    assert some["b"].since_ms >= times[11]
    assert recent_spending(till.database, {}) == {}
