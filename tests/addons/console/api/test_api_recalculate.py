"""`/api/logs/recalculate-cost` over HTTP: a run in the background, one at a time; the ledger and its sums stand still."""

import asyncio
import json
from decimal import Decimal
from threading import Event
from typing import Any

import pytest

from addons.console.recalculation import Recalculation
from store.clock import Ids, SystemClock
from store.database import Database
from store.errors import Conflict
from store.logs.filters import LogFilter
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from tests.addons.console.conftest import Console

PATH = "/api/logs/recalculate-cost"
OVERRIDE = {
    "name": "house", "scope_kind": "virtual_key", "virtual_key_id": "workshop", "match_type": "exact", "pattern": "house-model",
    "request_types": ["chat_completion"], "patch": {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000004},
}  # fmt: skip


def write(console: Console, *rows: CallRow) -> None:
    writer = LogWriter(console.logs_database, clock=console.clock)
    writer.start()
    for row in rows:
        writer.add(row)
    writer.close()


def call(number: int, **fields: Any) -> CallRow:
    values: dict[str, Any] = {
        "id": f"call-{number}", "at_ms": 1_795_435_200_000 + number, "status": "success", "http_status": 200,
        "provider": "openai", "model": "house-model", "operation": "chat_completion", "input_tokens": 100, "output_tokens": 10,
        "priced": False,
    }  # fmt: skip
    return CallRow(**(values | fields))


async def ended(console: Console) -> dict[str, Any]:
    for _ in range(500):
        job: dict[str, Any] = (await console.client.get(f"{PATH}/status")).json()
        if job["status"] != "running":
            return job
        await asyncio.sleep(0.01)
    raise AssertionError(job)


async def shown(console: Console, number: int) -> Any:
    return json.loads((await console.client.get(f"/api/logs/call-{number}")).text, parse_float=Decimal)


async def test_calls_without_a_price_get_a_figure_beside_their_cost(console: Console) -> None:
    """100 × $1 + 10 × $4 per million is 140,000 nano-dollars; gpt-4o-mini: 100 × 150 + 10 × 600 = 21,000."""
    assert (await console.client.get(f"{PATH}/status")).json()["status"] == "idle"
    key = (await console.client.post("/api/governance/virtual-keys", json={"name": "workshop"})).json()["virtual_key"]["id"]
    write(
        console, call(1, virtual_key_id=key), call(2, virtual_key_id="somebody"), call(3, model="gpt-4o-mini"),
        call(4, model="gpt-4o-mini", priced=True, cost_nanos=5), call(5, model="gpt-4o-mini", input_tokens=0, output_tokens=0),
        call(6, model="house-alias", answered_model="gpt-4o-mini"),
    )  # fmt: skip
    sums = (await console.client.get("/api/logs/stats")).json()
    assert (await console.client.post("/api/governance/pricing-overrides", json=OVERRIDE)).status_code == 201
    started = await console.client.post(PATH, json={})
    assert started.status_code == 202, started.text
    job = await ended(console)
    assert job["id"] == started.json()["id"]
    assert (await console.client.get(f"{PATH}/status", params={"id": job["id"]})).json() == job
    assert [job[name] for name in ("status", "total", "processed", "updated", "skipped", "unpriceable", "failure")] == [
        "completed", 5, 5, 3, 0, 2, None,
    ]  # fmt: skip
    first = await shown(console, 1)
    assert (first["cost"], first["recalculated_cost"], first["priced"]) == (None, Decimal("0.00014"), False)
    assert first["recalculated_source"].startswith("override house (")
    assert [(await shown(console, number))["recalculated_cost"] for number in (2, 3, 4, 5, 6)] == [
        None, Decimal("0.000021"), None, None, Decimal("0.000021"),
    ]  # fmt: skip
    assert (await console.client.get("/api/logs/stats")).json() == sums
    with console.store.ledger.read() as connection:
        assert connection.execute("SELECT count(*) FROM posts")[0][0] == 0
        assert connection.execute("SELECT count(*) FROM audit WHERE action = 'recalculate'")[0][0] == 1


async def test_filters_as_the_log_list_has_them(console: Console) -> None:
    write(console, call(1, model="gpt-4o-mini", provider="openai"), call(2, model="gpt-4o-mini", priced=True, cost_nanos=5))
    await console.client.post(PATH, json={"filters": {"providers": ["anthropic"]}})
    assert (await ended(console))["total"] == 0
    await console.client.post(PATH, json={"filters": {"providers": "openai", "missing_cost_only": False}, "limit": 1})
    assert (await ended(console))["total"] == 1
    await console.client.post(PATH, json={"filters": {"missing_cost_only": False}})
    assert (await ended(console))["skipped"] == 1  # the one that is done
    assert (await shown(console, 2))["cost"] == Decimal("0.000000005")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"filter": {}}, "did you mean 'filters'?"),
        ({"filters": {"provider": "x"}}, "did you mean 'providers'?"),
        ({"filters": {"providers": 5}}, "must be a list"),
        ({"filters": {"start_time": "yesterday"}}, "not a time"),
        ({"limit": -1}, "limit"),
    ],
)
async def test_bad_input(console: Console, body: Any, words: str) -> None:
    answer = await console.client.post(PATH, json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text


async def test_a_second_request_is_told_of_the_first(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prices are not there yet: the run waits, a second one is refused with it, and it is cancelled."""
    gate = Event()

    def no_prices_yet(*_: object) -> Any:
        gate.wait(20)
        return lambda row: (1, "late prices")

    monkeypatch.setattr("addons.console.api.recalculate.todays_prices", no_prices_yet)
    write(console, call(1))
    first = await console.client.post(PATH, json={})
    second = await console.client.post(PATH, json={"filters": {"providers": ["other"]}})
    assert (first.status_code, second.status_code) == (202, 409)
    assert second.json()["id"] == first.json()["id"] and "running already" in second.json()["error"]["message"]
    cancelled = await console.client.post(f"{PATH}/cancel")
    assert (cancelled.status_code, cancelled.json()["id"]) == (200, first.json()["id"])
    gate.set()
    job = await ended(console)
    assert (job["status"], job["processed"]) == ("cancelled", 0)


async def test_what_there_is_not(console: Console) -> None:
    nothing = await console.client.post(f"{PATH}/cancel")
    assert nothing.status_code == 409
    unknown = await console.client.get(f"{PATH}/status", params={"id": "no such run"})
    assert unknown.status_code == 404


def test_a_second_run_waits_for_nobody(open_any: Any) -> None:

    database: Database = open_any()
    clock, gate = SystemClock(), Event()
    runs = Recalculation()

    def waits() -> Any:
        gate.wait(10)
        raise Conflict("no prices today")

    first, is_new = runs.start(database, LogFilter(), waits, clock=clock, ids=Ids(clock))
    again, is_second_new = runs.start(database, LogFilter(), waits, clock=clock, ids=Ids(clock))
    assert (is_new, is_second_new, again) == (True, False, first)
    assert runs.cancel() is first and runs.job(first.id) is first
    gate.set()
    runs.close()
    assert (first.status, first.error) == ("failed", "no prices today")
    with pytest.raises(Conflict, match="no recalculation is running"):
        runs.cancel()


@pytest.mark.parametrize("number", [-1, True, 10**30, "-1"])
async def test_numbers_of_filters_are_whole_and_not_negative_in_bodies_too(console: Console, number: Any) -> None:
    answer = await console.client.post(PATH, json={"filters": {"min_tokens": number}})
    assert answer.status_code == 400 and "filters.min_tokens: must be a whole number, not negative" in answer.text
