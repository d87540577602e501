"""Raises through the API: the limit shown is the one in force, its end is told, and mistakes change nothing."""

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from store.clock import iso_utc, ms_from_iso

BUDGETS = "/api/governance/budgets"


def exact(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)["budget"]


async def make_budget(console: Any, **fields: Any) -> str:
    key = await console.client.post("/api/governance/virtual-keys", json={"name": "vk", "provider_configs": []})
    body = {"name": "day", "max_limit": 2, "reset_duration": "1d", "scope": "virtual_key", **fields}
    made = await console.client.post(BUDGETS, json={**body, "scope_id": key.json()["virtual_key"]["id"]})
    return str(exact(made)["id"])


async def test_a_raise_is_shown_with_its_end_and_ends_by_itself(console: Any) -> None:
    path = f"{BUDGETS}/{await make_budget(console)}"
    assert exact(await console.client.get(path))["override"] is None
    before_ms = console.clock.now_ms()
    raised = exact(await console.client.put(f"{path}/override", json={"amount": "0.5", "duration": "90s", "reason": "a demo"}))
    after_ms = console.clock.now_ms()

    assert (raised["max_limit"], raised["effective_max_limit"], raised["remaining"]) == (2, Decimal("2.5"), Decimal("2.5"))
    shown = raised["override"]
    assert (shown["amount"], shown["reason"]) == (Decimal("0.5"), "a demo")
    assert before_ms + 90_000 <= ms_from_iso(shown["until"]) <= after_ms + 90_000
    assert before_ms <= ms_from_iso(shown["since"]) <= after_ms
    console.clock.ahead_seconds = 90
    over = exact(await console.client.get(path))
    assert (over["override"], over["effective_max_limit"]) == (None, 2)


async def test_a_raise_to_an_amount_until_a_time_and_back(console: Any) -> None:
    path = f"{BUDGETS}/{await make_budget(console)}"
    until = iso_utc((console.clock.now_ms() // 1000 + 3600) * 1000)
    raised = exact(await console.client.put(f"{path}/override", json={"max_limit": 10, "until": until}))
    assert (raised["effective_max_limit"], raised["override"]["until"]) == (10, until)
    assert raised["override"]["reason"] == "raised by hand"

    lowered = exact(await console.client.request("DELETE", f"{path}/override", json={"reason": "no need"}))
    assert (lowered["effective_max_limit"], lowered["override"]) == (2, None)
    again = await console.client.delete(f"{path}/override")
    assert again.status_code == 404 and "'day' is not raised now" in again.json()["error"]["message"]
    with console.store.database.read() as connection:
        rows = connection.execute("SELECT kind, amount, reason FROM entries WHERE kind IN ('raise', 'unraise') ORDER BY sequence")
    assert rows == [("raise", 8 * 10**9, "raised by hand"), ("unraise", -8 * 10**9, "no need")]


async def test_what_was_read_can_be_written_back(console: Any) -> None:
    """A raise in the object does not stand in the way of a PUT, and the edit leaves the raise alone."""
    path = f"{BUDGETS}/{await make_budget(console)}"
    await console.client.put(f"{path}/override", json={"amount": 1, "duration": "1h"})
    read = (await console.client.get(path)).json()["budget"]
    answer = await console.client.put(path, json={**read, "max_limit": 3})
    assert exact(answer)["effective_max_limit"] == 4


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "needs amount"),
        ({"amount": 1}, "needs until"),
        ({"amount": 1, "max_limit": 5, "duration": "1h"}, "needs amount"),
        ({"amount": 1, "duration": "1h", "until": "2099-01-01T00:00:00Z"}, "needs until"),
        ({"amount": 0, "duration": "1h"}, "above 0"),
        ({"amount": -1, "duration": "1h"}, "negative"),
        ({"amount": "1e400", "duration": "1h"}, "more than the ledger"),
        ({"amount": "9223372036", "duration": "1h"}, "within what the ledger can hold"),
        ({"max_limit": 2, "duration": "1h"}, "that high already"),
        ({"amount": 1, "duration": "soon"}, "not a duration"),
        ({"amount": 1, "until": "2020-01-01T00:00:00Z"}, "is over"),
        ({"amount": 1, "until": "2099-01-01T00:00:00"}, "time with a zone"),
        ({"amount": 1, "until": "9999-01-01T00:00:00Z"}, "within a hundred years"),
        ({"amount": 1, "duration": "1h", "mode": "forever"}, "mode is not implemented"),
        ({"amount": 1, "duratoin": "1h"}, "did you mean 'duration'"),
        ({"amount": 1, "duration": "1h", "reason": "a\0b"}, "reason: has a NUL character"),
        ({"amount": 1, "duration": "1h", "reason": "a" * 1001}, "reason: must have at most 1000 characters"),
    ],
)
async def test_mistakes_are_400_and_change_nothing(console: Any, body: dict[str, Any], words: str) -> None:
    path = f"{BUDGETS}/{await make_budget(console)}"
    answer = await console.client.put(f"{path}/override", json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text
    assert exact(await console.client.get(path))["effective_max_limit"] == 2


@pytest.mark.parametrize("act", ["reset", "topup"])
async def test_a_reason_that_is_no_text_is_400(console: Any, act: str) -> None:
    path = f"{BUDGETS}/{await make_budget(console)}/{act}"
    body = '{"reason": "\\ud800"' + (', "amount": 1}' if act == "topup" else "}")
    answer = await console.client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "reason: has half of a surrogate pair" in answer.text


async def test_no_such_budget(console: Any) -> None:
    for method, body in (("PUT", {"amount": 1, "duration": "1h"}), ("DELETE", {})):
        answer = await console.client.request(method, f"{BUDGETS}/nothing/override", json=body)
        assert answer.status_code == 404


async def test_a_prepaid_budget_never_resets_and_may_be_raised_too(console: Any) -> None:
    path = f"{BUDGETS}/{await make_budget(console, reset_duration=None)}"
    assert exact(await console.client.get(path))["resets_at"] is None
    assert exact(await console.client.post(f"{path}/topup", json={"amount": 3}))["max_limit"] == 5
    raised = exact(await console.client.put(f"{path}/override", json={"amount": 1, "duration": "1h"}))
    assert (raised["effective_max_limit"], raised["resets_at"]) == (6, None)
