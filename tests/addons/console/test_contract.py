"""What holds for every route: entity tags, strict parameters and bodies, sign-in; and the lists of keys, teams and customers."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from addons.console.app import API_ROUTES
from addons.console.openapi import operations
from store.config_store import read
from store.ledger.ledger import Ledger
from store.ledger.types import Granted, HoldRequest, Settlement
from store.windows import window_at

KEYS = "/api/governance/virtual-keys"
TEAMS = "/api/governance/teams"
CUSTOMERS = "/api/governance/customers"
BUDGETS = "/api/governance/budgets"
OPEN = ("/health", "/api/version", "/api/session/")
OPERATIONS = list(operations(API_ROUTES))


def message(answer: httpx.Response, status: int = 400) -> str:
    body = answer.json()
    assert answer.status_code == body["status_code"] == status, answer.text
    assert set(body) == {"is_bifrost_error", "status_code", "error", "extra_fields"}
    return str(body["error"]["message"])


async def make(console: Any, path: str, **body: Any) -> Any:
    answer = await console.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    return next((value for name, value in made.items() if name != "message" and isinstance(value, dict)), made)


async def spend(console: Any, tmp_path: Path, charges: dict[str, int]) -> None:
    """Posts a call of so many nano-dollars on each cap."""
    store = console.store
    ledger = Ledger(store.database, clock=store.clock, ids=store.ids, lease_dir=tmp_path / "l", spool_dir=tmp_path / "s")
    await ledger.start()
    for cap_id, nanos in charges.items():
        answer = await ledger.hold(HoldRequest(f"call-{cap_id}", (cap_id,), bound_nanos=nanos, floor_nanos=nanos, revision=10**9))
        assert isinstance(answer, Granted)
        await ledger.settle(Settlement(f"call-{cap_id}", nanos, 10, True))
    await ledger.close()


# -- entity tags


@pytest.mark.parametrize("kind", ["virtual_key", "team", "customer", "budget", "provider"])
async def test_a_stale_edit_is_412_and_changes_nothing(console: Any, kind: str) -> None:
    key = await make(console, KEYS, name="k", provider_configs=[{"provider": "openai"}])
    change: dict[str, Any]
    if kind == "virtual_key":
        path, change, field = f"{KEYS}/{key['id']}", {"description": "two"}, "description"
    elif kind in ("team", "customer"):
        group = await make(console, f"/api/governance/{kind}s", name="g")
        path, change, field = f"/api/governance/{kind}s/{group['id']}", {"name": "two"}, "name"
    elif kind == "budget":
        budget = await make(console, BUDGETS, max_limit=1, reset_duration="1h", scope="virtual_key", scope_id="k")
        path, change, field = f"{BUDGETS}/{budget['id']}", {"name": "two"}, "name"
    else:
        await make(console, "/api/providers", provider="openai", keys=[{"name": "main", "value": "sk-x"}])
        path, change, field = "/api/providers/openai", {"hosts": ["two.example.com"]}, "hosts"
    read = await console.client.get(path)
    tag = read.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{20}"', tag)
    assert (await console.client.get(path)).headers["etag"] == tag

    changed = await console.client.put(path, json=change, headers={"If-Match": f'"other", {tag}'})
    assert changed.status_code == 200 and changed.headers["etag"] not in ("", tag)
    before = (await console.client.get(path)).text
    for stale in (tag, '"made-up"', 'W/"x"'):
        refused = await console.client.put(path, json={field: change[field]}, headers={"If-Match": stale})
        assert "was changed meanwhile" in message(refused, 412)
        assert "was changed meanwhile" in message(await console.client.delete(path, headers={"If-Match": stale}), 412)
    assert (await console.client.get(path)).text == before
    assert (await console.client.put(path, json=change, headers={"If-Match": "*"})).status_code == 200
    last = (await console.client.get(path)).headers["etag"]
    assert (await console.client.delete(path, headers={"If-Match": last})).status_code == 200


async def test_the_tag_says_nothing_of_what_is_spent_and_lists_answer_304(console: Any, tmp_path: Path) -> None:
    key = await make(console, KEYS, name="k", budgets=[{"max_limit": 1, "reset_duration": "1h"}])
    path = f"{KEYS}/{key['id']}"
    tag = (await console.client.get(path)).headers["etag"]
    await spend(console, tmp_path, {key["budgets"][0]["id"]: 1_000_000})
    again = await console.client.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.headers["etag"]) == (200, tag)
    assert again.json()["virtual_key"]["budgets"][0]["current_usage"] == 0.001
    version = await console.client.get("/api/version")
    assert (await console.client.get("/api/version", headers={"If-None-Match": version.headers["etag"]})).status_code == 304


# -- strictness, for every operation there is


def address(one: Any) -> str:
    return re.sub(r"\{[a-z_]+\}", "nobody", one.route.path)


async def test_nothing_is_answered_without_credentials(console: Any) -> None:
    async with console.stranger() as stranger:
        for one in OPERATIONS:
            if not one.route.path.startswith(OPEN):
                answer = await stranger.request(one.method, address(one), json={} if one.operation.body else None)
                assert answer.status_code == 401, one.key
                message(answer, 401)


async def test_unknown_parameters_are_400_everywhere(console: Any) -> None:
    for one in OPERATIONS:
        if one.method == "get" and not one.takes_virtual_key:
            words = message(await console.client.get(address(one), params={"limti": "1"}))
            assert "limti: unknown parameter; " in words, (one.key, words)
    assert "did you mean 'limit'?" in message(await console.client.get(KEYS, params={"limti": "1"}))
    assert "user_id is not implemented" in message(await console.client.get(KEYS, params={"user_id": "u"}))
    assert message(await console.client.get(KEYS, params={"sort_by": "age"})).startswith("sort_by: must be 'name'")
    assert "from_memory: must be true or false" in message(await console.client.get(KEYS, params={"from_memory": "maybe"}))


BROKEN: list[tuple[bytes, str]] = [
    (b"[]", "must be a JSON object"),
    (b"null", "must be a JSON object"),
    (b'"x"', "must be a JSON object"),
    (b"{", "not valid JSON"),
    (b'{"a": NaN}', "NaN is not a number"),
    (b'{"a": 1, "a": 2}', "stands twice"),
    (b"[" * 10_000, "nested too deeply"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
    (b"\xff\xfe", "not valid JSON"),
]


async def test_broken_bodies_are_400_everywhere(console: Any) -> None:
    for one in OPERATIONS:
        for body, words in BROKEN:
            answer = await console.client.request(one.method, address(one), content=body) if one.operation.body else None
            if answer is not None and answer.status_code != 401:  # the login's own word on nothing at all
                assert answer.status_code in (400, 404), (one.key, answer.text)
                if answer.status_code == 400:
                    assert words in message(answer), (one.key, body[:20])


async def test_misspelt_fields_are_named_with_the_nearest_everywhere(console: Any) -> None:
    for one in OPERATIONS:
        model = one.operation.body
        if model is None or not model.model_fields or model.model_config.get("extra") != "forbid":
            continue
        name = next(field.alias or name for name, field in model.model_fields.items())
        misspelt = name + "_x"
        answer = await console.client.request(one.method, address(one), json={misspelt: 1})
        if answer.status_code not in (404,):
            assert f"{misspelt}: unknown key; did you mean '" in message(answer), one.key


async def test_a_body_that_nobody_reads_is_400(console: Any) -> None:
    await make(console, KEYS, name="k")
    assert "takes no body" in message(await console.client.request("DELETE", f"{KEYS}/k", json={"force": True}))
    assert (await console.client.get(f"{KEYS}/k")).status_code == 200
    assert (await console.client.request("DELETE", f"{KEYS}/k", json={})).status_code == 200


async def test_a_large_body_is_413(console: Any) -> None:
    body = json.dumps({"name": "a", "description": "x" * 3_000_000}).encode()
    assert "larger than 2,097,152 bytes" in message(await console.client.post(KEYS, content=body), 413)
    async with console.stranger() as stranger:
        assert (await stranger.post(KEYS, content=body)).status_code == 401
    assert (await console.client.get(KEYS)).json()["total_count"] == 0


HARD_IDS = ["x" * 10_000, "%00", "a%00b", "%FF%FE", "%ED%A0%80", "..%2f..", "%20", "'; DROP TABLE virtual_keys; --", "%F0%9F%94%91"]


@pytest.mark.parametrize("hard", HARD_IDS, ids=range(len(HARD_IDS)))
async def test_ids_of_any_kind_are_no_fault_of_ours(console: Any, hard: str) -> None:
    for one in OPERATIONS:
        if not one.route.parts:
            continue
        path = re.sub(r"\{[a-z_]+\}", hard, one.route.path)
        answer = await console.client.request(one.method, path, json={} if one.operation.body else None)
        assert answer.status_code in (200, 400, 404, 409), (one.key, answer.status_code, answer.text)
    assert (await console.client.get(KEYS)).json()["total_count"] == 0


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (KEYS, {"name": "a\0"}, "name: has a NUL"),
        (KEYS, {"name": "a", "description": "\0"}, "description: has a NUL"),
        (KEYS, {"name": "a", "description": "x" * 10_001}, "description: must have at most 10000"),
        (KEYS, {"name": "a", "team_id": "t", "customer_id": "c"}, "not to both"),
        (KEYS, {"name": "a", "team_id": "nobody"}, "team_id: there is no team 'nobody'"),
        (KEYS, {"name": "a", "customer_id": "nobody"}, "customer_id: there is no customer"),
        (KEYS, {"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at: is in the past"),
        (KEYS, {"name": "a", "budgets": [{"max_limit": 1, "reset_duration": "1h"}] * 2}, "two budgets reset every 1h"),
        (KEYS, {"name": "a", "provider_configs": [{"provider": "openai", "key_ids": ["zzz"]}]}, "provider_configs[0].key_ids[0]"),
        (KEYS, {"name": "a", "rate_limit": {"token_max_limit": -1, "token_reset_duration": "1h"}}, "rate_limit.token_max_limit"),
        (KEYS, {"name": "a", "rate_limit": {"token_max_limit": 1}}, "rate_limit: token_max_limit needs token_reset_duration"),
        (TEAMS, {"name": "a", "customer_id": "nobody"}, "customer_id: there is no customer"),
        (TEAMS, {"name": "a", "budget": {"max_limit": 1}}, "budget: unknown key; did you mean"),
        (CUSTOMERS, {"name": "a", "budget": {"max_limit": 1}, "budgets": []}, "leave budget out"),
        (CUSTOMERS, {"name": "a", "budget": {"max_limit": -1}}, "max_limit: must not be negative"),
        ("/api/providers", {"provider": "openai", "network_config": {"bas_url": "x"}}, "did you mean 'base_url'?"),
    ],
)
async def test_wrong_values_are_400_with_a_path_and_nothing_is_made(console: Any, path: str, body: Any, words: str) -> None:
    assert words in message(await console.client.post(path, json=body))
    for listed in (KEYS, TEAMS, CUSTOMERS):
        assert (await console.client.get(listed)).json()["total_count"] == 0


async def test_half_a_surrogate_pair_is_no_text(console: Any) -> None:
    for body in ('{"name": "\\ud800"}', '{"name": "a", "description": "\\udfff"}'):
        assert "half of a surrogate pair" in message(await console.client.post(KEYS, content=body))


async def test_head_is_get_without_a_body_and_405_names_the_methods(console: Any) -> None:
    head, get = await console.client.head(KEYS), await console.client.get(KEYS)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(get.content)))
    wrong = await console.client.patch(KEYS, json={})
    assert message(wrong, 405) and wrong.headers["allow"] == "GET, POST"


# -- lists


async def test_keys_by_what_they_spent_and_who_has_no_owner(console: Any, tmp_path: Path) -> None:
    team = await make(console, TEAMS, name="Blue")
    made = {}
    for name, hours, months, extra in (("a", 1, 5, {}), ("b", 9, 2, {}), ("c", 0, 0, {"team_id": team["id"]}), ("d", 3, 3, {})):
        budgets = [{"max_limit": 50, "reset_duration": window} for window in ("1h", "1M")]
        made[name] = await make(console, KEYS, name=name, budgets=budgets, **extra)
        caps = [budget["id"] for budget in made[name]["budgets"]]
        charges = {cap: cents * 10_000_000 for cap, cents in zip(caps, (hours, months), strict=True) if cents}
        await spend(console, tmp_path / name, charges)

    async def names(**query: Any) -> list[str]:
        found = (await console.client.get(KEYS, params=query)).json()
        assert found["count"] == len(found["virtual_keys"]) <= found["total_count"]
        return [key["name"] for key in found["virtual_keys"]]

    assert await names(sort_by="budget_spent", order="desc") == ["b", "a", "d", "c"]
    assert await names(sort_by="budget_spent", order="asc", limit=2, offset=1) == ["d", "a"]
    assert await names(sort_by="budget_spent", order="desc", search="A") == ["a"]
    console.clock.ahead_seconds = 3 * 3600  # the hours are over, the months are not
    assert await names(sort_by="budget_spent", order="desc") == ["a", "d", "b", "c"]
    assert await names(exclude_assigned_virtual_keys="true") == ["a", "b", "d"]
    assert await names(team_id=team["id"]) == ["c"]
    assert await names(export="true", limit=1) == ["a", "b", "c", "d"]
    assert await names(from_memory="true", limit=1, offset=3) == ["a", "b", "c", "d"]
    assert await names(limit=1, offset=3) == ["d"]


async def test_teams_and_customers_in_pages_with_their_members(console: Any) -> None:
    acme = await make(console, CUSTOMERS, name="Acme", budget={"max_limit": 7, "reset_duration": "1d"})
    assert [(one["max_limit"], one["reset_duration"]) for one in acme["budgets"]] == [(7, "1d")]
    for number in range(30):
        owner = {"customer_id": acme["id"]} if number < 3 else {}
        await make(console, TEAMS, name=f"team-{number:02d}", budgets=[{"max_limit": number, "reset_duration": "1h"}], **owner)
    key = await make(console, KEYS, name="in-team", team_id=(await console.client.get(f"{TEAMS}/team-01")).json()["team"]["id"])
    own = await make(console, KEYS, name="own", customer_id=acme["id"])

    whole = (await console.client.get(TEAMS)).json()
    assert (whole["count"], whole["total_count"], whole["limit"], whole["offset"]) == (30, 30, 30, 0)
    page = (await console.client.get(TEAMS, params={"limit": 0, "offset": 28})).json()
    assert ([team["name"] for team in page["teams"]], page["limit"], page["total_count"]) == (["team-28", "team-29"], 25, 30)
    assert [team["budgets"][0]["max_limit"] for team in page["teams"]] == [28, 29]
    assert (await console.client.get(TEAMS, params={"limit": 1000})).json()["limit"] == 100
    found = (await console.client.get(TEAMS, params={"customer_id": acme["id"], "search": "M-01"})).json()
    assert [(team["name"], team["customer"], team["virtual_keys"]) for team in found["teams"]] == [
        ("team-01", {"id": acme["id"], "name": "Acme"}, [{"id": key["id"], "name": "in-team"}])
    ]
    shown = (await console.client.get(f"{CUSTOMERS}/Acme")).json()["customer"]
    assert [team["name"] for team in shown["teams"]] == ["team-00", "team-01", "team-02"]
    assert (shown["virtual_keys"], shown["virtual_key_count"]) == ([{"id": own["id"], "name": "own"}], 1)
    for path in (TEAMS, CUSTOMERS, KEYS, BUDGETS):
        for bad in ("-1", "x", "1.5", ""):
            assert "limit: must be a whole number" in message(await console.client.get(path, params={"limit": bad}))

    changed = await console.client.put(f"{CUSTOMERS}/Acme", json={"budget": {"max_limit": 8, "reset_duration": "1d"}})
    assert [one["max_limit"] for one in changed.json()["customer"]["budgets"]] == [8]
    assert (await console.client.put(f"{CUSTOMERS}/Acme", json={"budgets": None})).json()["customer"]["budgets"] != []
    assert (await console.client.put(f"{CUSTOMERS}/Acme", json={"budgets": []})).json()["customer"]["budgets"] == []


async def test_tri_state_owner_expiry_and_reset_on_request(console: Any, tmp_path: Path) -> None:
    team = await make(console, TEAMS, name="a b/c")
    key = await make(
        console,
        KEYS,
        name="k",
        team_id=team["id"],
        expires_at="2099-01-01T00:00:00Z",
        budgets=[{"max_limit": 1, "reset_duration": "1h"}],
    )
    await spend(console, tmp_path, {key["budgets"][0]["id"]: 250_000_000})
    path = f"{KEYS}/k"

    async def put(**body: Any) -> Any:
        answer = await console.client.put(path, json=body)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text, parse_float=Decimal)["virtual_key"]

    kept = await put(description="x")
    assert (kept["team"]["name"], kept["expires_at"], kept["budgets"][0]["current_usage"]) == (
        "a b/c", "2099-01-01T00:00:00Z", Decimal("0.25"),
    )  # fmt: skip
    assert (await put(expires_at=""))["expires_at"] is None
    longer = await put(budgets=[{"id": key["budgets"][0]["id"], "max_limit": 2, "reset_duration": "1h"}])
    assert longer["budgets"][0]["current_usage"] == Decimal("0.25")
    assert (await put(reset_budget_usage=True))["budgets"][0]["current_usage"] == 0
    assert (await put(team_id=None))["team_id"] is None
    assert (await console.client.get(f"{TEAMS}/a%20b%2Fc")).json()["team"]["id"] == team["id"]


async def test_an_override_of_cycles_ends_with_its_window(console: Any) -> None:
    key = await make(console, KEYS, name="k", budgets=[{"max_limit": 1, "reset_duration": "1h"}, {"max_limit": 5}])
    hourly, prepaid = key["budgets"]
    path = f"{KEYS}/k/budgets/{hourly['id']}/override"
    answer = await console.client.put(path, json={"amount": 0.5, "mode": "cycles", "cycles": 3})
    made = json.loads(answer.text, parse_float=Decimal)
    assert set(made) == {"budget", "effective_max_limit"} and made["effective_max_limit"] == Decimal("1.5")
    with console.store.database.read() as connection:
        cap = read.cap(connection, hourly["id"])
        assert cap is not None
        window = window_at(cap, console.clock.now_ms())
        assert window is not None
        until = connection.execute("SELECT until_ms FROM raises WHERE cap_id = ?", (cap.id,))[0][0]
    assert until == window[1] + 2 * 3_600_000
    console.clock.ahead_seconds = 3 * 3600
    assert (await console.client.get(f"{BUDGETS}/{hourly['id']}")).json()["budget"]["effective_max_limit"] == 1
    assert "is not raised now" in message(await console.client.delete(path), 404)
    assert (await console.client.put(path, json={"amount": 1, "mode": "cycles", "cycles": 1})).status_code == 200
    assert (await console.client.delete(path)).json()["effective_max_limit"] == 1
    for body, words in (
        ({"amount": 1, "mode": "forever"}, "mode forever is not implemented"),
        ({"amount": 1, "mode": "cycles"}, "cycles is required"),
        ({"amount": 1, "mode": "cycles", "cycles": 0}, "cycles: must be greater than or equal to 1"),
        ({"amount": 0, "mode": "cycles", "cycles": 1}, "above 0"),
    ):
        assert words in message(await console.client.put(path, json=body))
    endless = f"{KEYS}/k/budgets/{prepaid['id']}/override"
    assert "never resets" in message(await console.client.put(endless, json={"amount": 1, "mode": "cycles", "cycles": 1}))
    other = await make(console, KEYS, name="other", budgets=[{"max_limit": 1, "reset_duration": "1h"}])
    foreign = f"{KEYS}/k/budgets/{other['budgets'][0]['id']}/override"
    assert "has no budget" in message(await console.client.put(foreign, json={"amount": 1, "mode": "cycles", "cycles": 1}), 404)
