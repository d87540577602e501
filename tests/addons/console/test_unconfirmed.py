"""Unconfirmed calls through the API: listed with what they were charged, confirmed or corrected once, with a reason."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.ledger.caps import put_cap
from store.ledger.history import posts_since
from store.ledger.types import CallFacts, Cap, Scope, Unit
from store.logs.catch_up import catch_up
from store.logs.ledgers import tie
from tests.store.ledger.till import Till

UNCONFIRMED = "/api/governance/unconfirmed"


def exact(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


@pytest.fixture
async def lost(console: Any) -> AsyncIterator[Till]:
    """Three calls of a process that died: 5, 10 and 15 cents held."""
    till = Till(console.store.database, console.clock)
    with console.store.database.write() as connection:
        put_cap(connection, Cap("cap-1", "day", Scope.VIRTUAL_KEY, "vk", "robot", Unit.USD, 10**9, "1d"))
    for number in (1, 2, 3):
        till.hold(f"call-{number}", "cap-1", number * 50_000_000, tokens=100 * number)
        till.lose(f"call-{number}")
    yield till
    assert till.differences() == []


async def test_the_list_says_what_was_charged_and_why(console: Any, lost: Till) -> None:
    found = exact(await console.client.get(UNCONFIRMED))
    assert (found["count"], found["total_count"]) == (3, 3)
    call = found["calls"][0]
    assert (call["call_id"], call["cost"], call["tokens"], call["note"]) == ("call-1", Decimal("0.05"), 100, "the gateway died")
    assert call["caps"] == [{"id": "cap-1", "name": "day"}]
    page = exact(await console.client.get(UNCONFIRMED, params={"limit": 2, "offset": 2}))
    assert ([each["call_id"] for each in page["calls"]], page["total_count"]) == (["call-3"], 3)


async def test_a_correction_is_booked_once_and_reaches_the_logs(console: Any, lost: Till) -> None:
    body = {"cost": "0.0123", "tokens": 42, "reason": "the provider's dashboard"}
    made = exact(await console.client.post(f"{UNCONFIRMED}/call-2/confirm", json=body))["call"]
    assert made == {
        "call_id": "call-2",
        "cost": Decimal("0.0123"),
        "tokens": 42,
        "posted": Decimal("0.1"),
        "reason": "the provider's dashboard",
    }
    assert lost.used("cap-1") == 50_000_000 + 12_300_000 + 150_000_000
    assert [call["call_id"] for call in exact(await console.client.get(UNCONFIRMED))["calls"]] == ["call-1", "call-3"]
    again = await console.client.post(f"{UNCONFIRMED}/call-2/confirm", json=body)
    assert again.status_code == 409 and "before" in again.json()["error"]["message"]
    with console.store.database.read() as connection:
        posts = posts_since(connection, 0, 100)
    followed = tie(console.logs_database, console.store.database)
    catch_up(console.logs_database, posts, followed, now_ms=console.clock.now_ms())
    row = console.logs.get("call-2")
    assert (row.cost_nanos, row.status) == (12_300_000, "success")


async def test_confirming_as_charged_changes_no_sum(console: Any, lost: Till) -> None:
    made = exact(await console.client.post(f"{UNCONFIRMED}/call-1/confirm", json={"reason": "it was so"}))["call"]
    assert made["cost"] == made["posted"] == Decimal("0.05")
    assert lost.used("cap-1") == 300_000_000
    assert exact(await console.client.get(UNCONFIRMED))["total_count"] == 2


async def test_it_was_free_after_all(console: Any, lost: Till) -> None:
    made = exact(await console.client.post(f"{UNCONFIRMED}/call-3/confirm", json={"cost": 0, "tokens": 0, "reason": "not billed"}))
    assert made["call"]["cost"] == 0
    assert lost.used("cap-1") == 150_000_000


@pytest.mark.parametrize(
    ("call", "body", "status", "words"),
    [
        ("nothing", {"reason": "x"}, 404, "'nothing' is not unconfirmed"),
        ("call-1", {}, 400, "reason"),
        ("call-1", {"reason": "  "}, 400, "must say why"),
        ("call-1", {"reason": "x", "cost": -1}, 400, "negative"),
        ("call-1", {"reason": "x", "cost": "1.0000000001"}, 400, "nine decimals"),
        ("call-1", {"reason": "x", "tokens": -1}, 400, "tokens"),
        ("call-1", {"reason": "x", "tokens": 2**63}, 400, "tokens"),
        ("call-1", {"reason": "x", "price": 1}, 400, "price"),
    ],
)
async def test_mistakes_change_nothing(console: Any, lost: Till, call: str, body: dict[str, Any], status: int, words: str) -> None:
    answer = await console.client.post(f"{UNCONFIRMED}/{call}/confirm", json=body)
    assert answer.status_code == status and words in answer.json()["error"]["message"], answer.text
    assert lost.used("cap-1") == 300_000_000


async def test_strangers_see_nothing(console: Any, tmp_path: Path) -> None:
    async with console.stranger() as stranger:
        assert (await stranger.get(UNCONFIRMED)).status_code == 401
        assert (await stranger.post(f"{UNCONFIRMED}/x/confirm", json={"reason": "x"})).status_code == 401


def test_facts_are_shown() -> None:
    """The list tells whose call it was."""
    from store.config_store.shapes import unconfirmed_json
    from store.ledger.history import PostRecord

    facts = CallFacts("vk-1", "robot", "t-1", "c-1", "run-1", "openai", "gpt-4o", "chat", True)
    record = PostRecord(1, "c", "unconfirmed", 2000, 1000, facts, 5, 6, 0, 0, 5, True, True, False, "", "", "forgotten", ("a", "b"))
    shown = unconfirmed_json(record, {"a": "day"})
    assert shown["caps"] == [{"id": "a", "name": "day"}, {"id": "b", "name": ""}]
    assert (shown["virtual_key_name"], shown["provider"], shown["model"], shown["run_id"]) == ("robot", "openai", "gpt-4o", "run-1")
    assert (shown["held_at"], shown["posted_at"]) == ("1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z")
