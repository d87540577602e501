"""`/api/governance/providers` over real HTTP: deployment-wide caps of a provider."""

from typing import Any

from pydantic import TypeAdapter

from addons.console.api.governance_providers import ProviderLimitsDone, ProviderLimitsList

ROUTE = "/api/governance/providers"
DAY = {"max_limit": 5, "reset_duration": "1d"}


async def put(console: Any, name: str = "openai", **body: Any) -> Any:
    answer = await console.client.put(f"{ROUTE}/{name}", json=body)
    assert answer.status_code == 200, answer.text
    TypeAdapter(ProviderLimitsDone).validate_json(answer.text)
    return answer.json()["provider"]


async def test_caps_are_set_changed_listed_and_removed(console: Any) -> None:
    made = await put(console, budgets=[DAY, {"max_limit": 1, "reset_duration": "1h"}], rate_limit={"concurrent_max_limit": 9})
    assert set(made) == {"provider", "budgets", "rate_limit", "calendar_aligned"}
    assert [(one["reset_duration"], one["scope"], one["scope_id"]) for one in made["budgets"]] == [
        ("1h", "provider", "openai"), ("1d", "provider", "openai"),
    ]  # fmt: skip
    kept = await put(console, rate_limit=None)
    assert (kept["budgets"], kept["rate_limit"]) == (made["budgets"], None), "absent fields stay, null removes"
    aligned = await put(console, budgets=[DAY], calendar_aligned=True)
    assert aligned["calendar_aligned"] and [one["id"] for one in aligned["budgets"]] == [made["budgets"][1]["id"]]
    week = await put(console, budgets=[*aligned["budgets"], {"max_limit": 9, "reset_duration": "1w"}], reset_budget_usage=True)
    assert [one["calendar_aligned"] for one in week["budgets"]] == [True, True], "new windows follow those that there are"
    single = await put(console, "anthropic", budget=DAY)

    listed = await console.client.get(ROUTE, params={"from_memory": "true"})
    TypeAdapter(ProviderLimitsList).validate_json(listed.text)
    assert listed.json() == {"providers": [single, week], "count": 2}

    for _ in range(2):  # idempotent
        gone = await console.client.delete(f"{ROUTE}/openai")
        assert (gone.status_code, gone.json()) == (200, {"message": "Provider governance deleted successfully"})
    assert (await console.client.get(ROUTE)).json() == {"providers": [single], "count": 1}


async def test_what_is_refused_is_named(console: Any) -> None:
    for method, body in (("PUT", {"budgets": [DAY]}), ("DELETE", None)):
        answer = await console.client.request(method, f"{ROUTE}/opnai", json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "there is no provider 'opnai'; did you mean 'openai'?"
    for body, said in (
        ({"budgets": [DAY, DAY]}, "two budgets reset every 1d"),
        ({"budget": DAY, "budgets": [DAY]}, "budget and budgets are both given"),
        ({"budgets": [{"max_limit": 1, "reset_duration": "1h", "calendar_aligned": True}]}, "budgets[0]"),
        ({"rate_limits": []}, "rate_limits: unknown key; did you mean 'rate_limit'?"),
    ):
        answer = await console.client.put(f"{ROUTE}/openai", json=body)
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), answer.text
    assert (await console.client.get(ROUTE)).json() == {"providers": [], "count": 0}


async def test_a_stale_edit_is_refused(console: Any) -> None:
    first = await console.client.put(f"{ROUTE}/openai", json={"budgets": [DAY]})
    tag = {"If-Match": first.headers["ETag"]}
    assert (await console.client.put(f"{ROUTE}/openai", json={"budgets": []}, headers=tag)).status_code == 200
    assert (await console.client.put(f"{ROUTE}/openai", json={"budgets": [DAY]}, headers=tag)).status_code == 412
