"""`/api/governance/model-configs` over real HTTP: made, listed, changed, deleted, and shown in the virtual key's own JSON."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter

from addons.console.api.model_configs import ModelConfigDone, ModelConfigList, ModelConfigOne

ROUTE = "/api/governance/model-configs"
KEYS = "/api/governance/virtual-keys"
DAY = {"max_limit": 5, "reset_duration": "1d"}
BIFROST_KEYS = {
    "id", "model_name", "provider", "scope", "scope_id", "scope_name", "calendar_aligned", "budget_id", "rate_limit_id",
    "budgets", "rate_limit", "created_at", "updated_at",
}  # fmt: skip


async def make_key(console: Any, **fields: Any) -> Any:
    body = {"name": "ci", "provider_configs": [{"provider": "openai"}], **fields}
    answer = await console.client.post(KEYS, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["virtual_key"]


async def make(console: Any, model_name: str = "gpt-4o", **fields: Any) -> Any:
    answer = await console.client.post(ROUTE, json={"model_name": model_name, "budgets": [DAY], **fields})
    assert answer.status_code == 200, answer.text
    TypeAdapter(ModelConfigDone).validate_json(answer.text)
    return answer.json()["model_config"]


def words(answer: Any) -> str:
    return str(answer.json()["error"]["message"])


async def test_one_is_made_shown_changed_and_deleted(console: Any) -> None:
    key = await make_key(console)
    made = await make(console, provider="openai", scope="virtual_key", scope_id="ci", rate_limit={"concurrent_max_limit": 2})
    assert set(made) == BIFROST_KEYS
    assert (made["scope"], made["scope_id"], made["scope_name"], made["provider"]) == ("virtual_key", key["id"], "ci", "openai")
    (budget,) = made["budgets"]
    assert (budget["scope"], budget["scope_id"], budget["scope_name"]) == (
        "virtual_key_model",
        made["id"],
        "ci on gpt-4o at openai",
    )
    assert (made["budget_id"], budget["model_config_id"]) == (budget["id"], made["id"])
    assert made["rate_limit"]["concurrent_max_limit"] == 2

    one = await console.client.get(f"{ROUTE}/{made['id']}", params={"from_memory": "true"})
    TypeAdapter(ModelConfigOne).validate_json(one.text)
    assert one.json() == {"model_config": made}
    shown = (await console.client.get(f"{KEYS}/{key['id']}")).json()["virtual_key"]["provider_configs"][0]["model_budgets"]
    assert shown == [{name: made[name] for name in ("id", "model_name", "provider", "budgets", "rate_limit", "calendar_aligned")}]

    # An object that was read can be changed and sent back whole.
    wanted = {**made, "budgets": [{**budget, "max_limit": 9}], "rate_limit": None}
    changed = await console.client.put(f"{ROUTE}/{made['id']}", json=wanted, headers={"If-Match": one.headers["ETag"]})
    assert changed.status_code == 200, changed.text
    assert changed.json()["model_config"]["budgets"][0]["max_limit"] == 9 and changed.json()["model_config"]["rate_limit"] is None
    stale = await console.client.put(f"{ROUTE}/{made['id']}", json={"budgets": []}, headers={"If-Match": one.headers["ETag"]})
    assert stale.status_code == 412
    moved = await console.client.put(f"{ROUTE}/{made['id']}", json={"model_name": "o3"})
    assert (moved.status_code, words(moved).partition(":")[0]) == (400, "model_name")

    gone = await console.client.delete(f"{ROUTE}/{made['id']}")
    assert gone.json() == {"message": "Model config deleted successfully"}
    for method in ("get", "delete"):
        assert (await getattr(console.client, method)(f"{ROUTE}/{made['id']}")).status_code == 404


async def test_names_with_slashes_have_their_place_in_a_path(console: Any) -> None:
    made = await make(console, "openai/gpt-4o*")
    assert made["id"] == "openai/gpt-4o*"
    assert (await console.client.get(f"{ROUTE}/openai%2Fgpt-4o%2A")).json()["model_config"] == made


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model_name": "gpt-4o"}, 409, "there is already a model config for gpt-4o: change 'gpt-4o'"),
        ({"model_name": "o3", "provider": "opnai"}, 400, "did you mean 'openai'?"),
        ({"model_name": "o3", "scope": "virtual_key", "scope_id": "nobody"}, 400, "scope_id: there is no virtual key 'nobody'"),
        ({"model_name": "o3", "budget": {"max_limit": 1}}, 400, "budget: unknown key; did you mean 'budgets'?"),
        ({"model_name": "o3", "budgts": []}, 400, "budgts: unknown key; did you mean 'budgets'?"),
        ({"model_name": "o3", "budgets": [DAY, DAY]}, 400, "two budgets reset every 1d"),
        ({}, 400, "model_name: is required"),
    ],
)
async def test_what_is_refused_is_named(console: Any, body: dict[str, Any], status: int, said: str) -> None:
    await make(console)
    answer = await console.client.post(ROUTE, json=body)
    assert answer.status_code == status, answer.text
    assert said in words(answer)


async def test_lists_are_filtered_and_paged(console: Any) -> None:
    key = await make_key(console)
    for name in ("gpt-4o", "gpt-4.1", "o3"):
        await make(console, name)
    inside = await make(console, "o3", scope="virtual_key", scope_id=key["id"], provider="openai")
    everything = await console.client.get(ROUTE)
    TypeAdapter(ModelConfigList).validate_json(everything.text)
    listed = everything.json()
    assert {name: listed[name] for name in ("count", "total_count", "limit", "offset")} == {
        "count": 4, "total_count": 4, "limit": 4, "offset": 0,
    }  # fmt: skip

    async def found(**query: Any) -> tuple[list[str], int, int]:
        answer = (await console.client.get(ROUTE, params=query)).json()
        return sorted(one["model_name"] for one in answer["model_configs"]), answer["total_count"], answer["limit"]

    assert await found(search="GPT") == (["gpt-4.1", "gpt-4o"], 2, 25)
    assert await found(scope="global") == (["gpt-4.1", "gpt-4o", "o3"], 3, 25)
    assert (await console.client.get(ROUTE, params={"scope_id": key["id"]})).json()["model_configs"] == [inside]
    assert await found(provider="openai") == (["o3"], 1, 25)
    assert (await found(limit=1, offset=1))[1:] == (4, 1)
    assert (await found(limit=1, from_memory="true"))[1:] == (4, 4)
    for query in ({"limit": -1}, {"offset": "x"}, {"scope": "user"}, {"serach": "x"}):
        assert (await console.client.get(ROUTE, params=query)).status_code == 400


async def test_budgets_and_limits_reach_it_by_its_id(console: Any) -> None:
    key = await make_key(console)
    made = await make(console, scope="virtual_key", scope_id=key["id"])
    where = {"scope": "virtual_key_model", "scope_id": made["id"]}
    budget = await console.client.post("/api/governance/budgets", json={**where, "max_limit": 0.5, "reset_duration": "1h"})
    assert budget.status_code == 200, budget.text
    limit = await console.client.put(
        "/api/governance/rate-limits", json={**where, "request_max_limit": 3, "request_reset_duration": "1m"}
    )
    assert limit.json()["rate_limit"]["scope_name"] == "ci on gpt-4o"
    now = (await console.client.get(f"{ROUTE}/{made['id']}")).json()["model_config"]
    assert [one["reset_duration"] for one in now["budgets"]] == ["1h", "1d"] and now["rate_limit"]["request_max_limit"] == 3
    quota = await console.client.get(f"{KEYS}/quota", headers={"x-bf-vk": key["value"]})
    (config,) = quota.json()["model_configs"]
    assert set(config) == {"model_name", "provider", "budgets", "rate_limit"}
    assert [Decimal(str(one["max_limit"])) for one in config["budgets"]] == [Decimal("0.5"), Decimal(5)]
    raised = await console.client.put(
        f"{KEYS}/{key['id']}/budgets/{now['budgets'][0]['id']}/override", json={"amount": 1, "mode": "cycles", "cycles": 1}
    )
    assert raised.status_code == 200 and Decimal(str(raised.json()["effective_max_limit"])) == Decimal("1.5")
