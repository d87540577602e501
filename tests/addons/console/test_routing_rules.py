"""`/api/governance/routing-rules` over HTTP: Bifrost's envelopes, filters, pages, and what is refused."""

from typing import Any

import pytest

RULES = "/api/governance/routing-rules"
MINI = {"provider": "openai", "model": "gpt-4o-mini"}


async def make(console: Any, **fields: Any) -> Any:
    body = {"name": "cheap", "cel_expression": "budget_used > 80", "targets": [MINI], **fields}
    return await console.client.post(RULES, json=body)


def message(answer: Any) -> str:
    return str(answer.json()["error"]["message"])


async def test_a_rule_from_its_making_to_its_end(console: Any) -> None:
    made = await make(console, query={"combinator": "and", "rules": []}, fallbacks=["openai/gpt-4o"], chain_rule=True)
    assert made.status_code == 200 and set(made.json()) == {"message", "rule"}
    rule = made.json()["rule"]
    assert {name: rule[name] for name in ("name", "enabled", "chain_rule", "scope", "scope_id", "priority", "query")} == {
        "name": "cheap", "enabled": True, "chain_rule": True, "scope": "global", "scope_id": None, "priority": 0,
        "query": {"combinator": "and", "rules": []},
    }  # fmt: skip
    assert rule["targets"] == [{"provider": "openai", "model": "gpt-4o-mini", "key_id": None, "weight": 1.0}]
    one = await console.client.get(f"{RULES}/{rule['id']}")
    assert one.json() == {"rule": rule} and one.headers["etag"]
    assert (await console.client.put(f"{RULES}/{rule['id']}", json=rule)).status_code == 200, "what was read can be sent back"
    changed = await console.client.put(f"{RULES}/{rule['id']}", json={"enabled": False}, headers={"If-Match": one.headers["etag"]})
    assert changed.json()["rule"] == rule | {"enabled": False, "updated_at": changed.json()["rule"]["updated_at"]}
    stale = await console.client.put(f"{RULES}/{rule['id']}", json={"priority": 1}, headers={"If-Match": one.headers["etag"]})
    assert stale.status_code == 412
    assert (await console.client.delete(f"{RULES}/{rule['id']}")).json() == {"message": "Routing rule deleted successfully"}
    for method in ("GET", "DELETE"):
        assert (await console.client.request(method, f"{RULES}/{rule['id']}")).status_code == 404


async def test_lists_filter_search_and_page(console: Any) -> None:
    key = (await console.client.post("/api/governance/virtual-keys", json={"name": "ci"})).json()["virtual_key"]["id"]
    for number in range(3):
        await make(console, name=f"Global {number}", priority=number)
    await make(console, name="of ci", scope="virtual_key", scope_id="ci")
    every = (await console.client.get(RULES, params={"from_memory": "true"})).json()
    assert (every["count"], every["total_count"], every["limit"], every["offset"]) == (4, 4, 4, 0)
    page = (await console.client.get(RULES, params={"scope": "global", "limit": 2, "offset": 1})).json()
    assert [rule["name"] for rule in page["rules"]] == ["Global 1", "Global 2"]
    assert (page["count"], page["total_count"], page["limit"], page["offset"]) == (2, 3, 2, 1)
    assert [rule["name"] for rule in (await console.client.get(RULES, params={"scope_id": key})).json()["rules"]] == ["of ci"]
    assert (await console.client.get(RULES, params={"search": "gLoBal"})).json()["total_count"] == 3


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"cel_expression": "budget > 1"}, 400, "cel_expression: uses 'budget', which is no variable here"),
        ({"targets": [{"provider": "opnai"}]}, 400, "there is no provider 'opnai'"),
        ({"targets": [MINI, MINI | {"model": "b"}]}, 400, "their sum is 2"),
        ({"fallback": []}, 400, "fallback: unknown key; did you mean 'fallbacks'?"),
        ({"scope": "team", "scope_id": "none"}, 400, "there is no team 'none'"),
    ],
)
async def test_what_is_refused(console: Any, fields: dict[str, Any], status: int, words: str) -> None:
    answer = await make(console, **fields)
    assert answer.status_code == status and words in message(answer), answer.text


async def test_a_second_rule_of_that_name_is_a_conflict(console: Any) -> None:
    await make(console)
    answer = await make(console)
    assert answer.status_code == 409 and "named 'cheap'" in message(answer)


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "scope=user", "sope=global", "from_memory=perhaps"])
async def test_wrong_queries_are_told(console: Any, query: str) -> None:
    assert (await console.client.get(f"{RULES}?{query}")).status_code == 400
