"""`/api/governance/rate-limits` over real HTTP: set on every scope, shown wherever its owner is shown, refused in words."""

from typing import Any

import pytest

ROUTE = "/api/governance/rate-limits"
WINDOWED = {"token_max_limit": 900, "token_reset_duration": "1m", "request_max_limit": 4, "request_reset_duration": "1d"}


async def owners(console: Any) -> dict[str, str]:
    """One owner of each scope; their ids."""
    client = console.client
    customer = (await client.post("/api/governance/customers", json={"name": "Acme"})).json()["customer"]
    team = (await client.post("/api/governance/teams", json={"name": "Blue", "customer_id": customer["id"]})).json()["team"]
    body = {"name": "ci", "team_id": team["id"], "provider_configs": [{"provider": "openai"}]}
    key = (await client.post("/api/governance/virtual-keys", json=body)).json()["virtual_key"]
    return {
        "customer": customer["id"], "team": team["id"], "virtual_key": key["id"],
        "provider_config": key["provider_configs"][0]["id"], "provider": "openai", "model": "gpt-4o",
    }  # fmt: skip


SCOPES = ("customer", "team", "virtual_key", "provider_config", "provider", "model")


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_limit_is_set_shown_changed_and_removed(console: Any, scope: str) -> None:
    scope_id = (await owners(console))[scope]
    wanted = {"scope": scope, "scope_id": scope_id, **WINDOWED, "concurrent_max_limit": 2}
    answer = await console.client.put(ROUTE, json=wanted)
    assert answer.status_code == 200
    made = answer.json()["rate_limit"]
    assert {name: made[name] for name in wanted} == wanted
    for name in ("token_current_usage", "token_held", "request_current_usage", "request_held", "concurrent_current"):
        assert made[name] == 0
    assert made["enforcement"] == "hard" and made["token_resets_at"] > made["token_last_reset"]

    listed = (await console.client.get(ROUTE)).json()
    assert listed == {"rate_limits": [made], "count": 1}
    assert await shown_by_owner(console, scope, scope_id) in (made["concurrent_max_limit"], None)

    again = await console.client.put(ROUTE, json=made)  # what was read may be sent back as it is
    assert again.json()["rate_limit"] == made
    less = {"scope": scope, "scope_id": scope_id, "request_max_limit": 5, "request_reset_duration": "1d"}
    changed = (await console.client.put(ROUTE, json=less)).json()["rate_limit"]
    assert (changed["request_max_limit"], changed["token_max_limit"]) == (5, None) and "concurrent_max_limit" not in changed
    gone = await console.client.put(ROUTE, json={"scope": scope, "scope_id": scope_id, "request_max_limit": None})
    assert gone.json()["rate_limit"] is None
    assert (await console.client.get(ROUTE)).json()["count"] == 0


async def shown_by_owner(console: Any, scope: str, scope_id: str) -> int | None:
    """The limit on parallel calls as the owner's own route tells it; None for owners without a route."""
    routes = {"customer": "customers", "team": "teams", "virtual_key": "virtual-keys", "provider_config": "virtual-keys"}
    if scope not in routes:
        return None
    owner = scope_id if scope != "provider_config" else "ci"
    body = (await console.client.get(f"/api/governance/{routes[scope]}/{owner}")).json()
    found = body["virtual_key"]["provider_configs"][0] if scope == "provider_config" else body[scope]
    return int(found["rate_limit"]["concurrent_max_limit"])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"scope": "team", "scope_id": "nobody", "concurrent_max_limit": 1}, 404, "scope_id: there is no team 'nobody'"),
        ({"scope": "provider", "scope_id": "opnai", "concurrent_max_limit": 1}, 404, "openai"),
        ({"scope": "run", "scope_id": "x", "concurrent_max_limit": 1}, 400, "scope"),
        ({"scope": "team", "concurrent_max_limit": 1}, 400, "scope_id: is required"),
        ({"scope": "model", "scope_id": "m", "request_max_limit": 1}, 400, "request_max_limit needs request_reset_duration"),
        ({"scope": "model", "scope_id": "m", "request_limit": 1}, 400, "request_max_limit"),
        ({"scope": "model", "scope_id": "m", "token_max_limit": -1, "token_reset_duration": "1m"}, 400, "token_max_limit"),
        ({"scope": "model", "scope_id": "m", "token_max_limit": 1, "token_reset_duration": "1m", "calendar_aligned": True}, 400,
         "rate_limit: a window of 1m is too short to be calendar aligned"),
    ],
)  # fmt: skip
async def test_bad_requests_are_told_in_words(console: Any, body: dict[str, Any], status: int, words: str) -> None:
    answer = await console.client.put(ROUTE, json=body)
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text
    assert (await console.client.get(ROUTE)).json()["count"] == 0


async def test_it_needs_a_login(console: Any) -> None:
    async with console.stranger() as stranger:
        body = {"scope": "model", "scope_id": "m", "concurrent_max_limit": 1}
        assert (await stranger.put(ROUTE, json=body)).status_code == 401


async def test_a_run_shows_its_limits(console: Any) -> None:
    await owners(console)
    body = {"virtual_key": "ci", "rate_limit": {"request_max_limit": 20, "request_reset_duration": "1h"}}
    run = (await console.client.post("/api/governance/runs", json=body)).json()["run"]
    assert (run["rate_limit"]["request_max_limit"], run["rate_limit"]["request_current_usage"]) == (20, 0)
    assert (await console.client.get(ROUTE)).json()["count"] == 0, "a run's limits go with the run"
    plain = (await console.client.post("/api/governance/runs", json={"virtual_key": "ci"})).json()["run"]
    assert plain["rate_limit"] is None
