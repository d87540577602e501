"""The management API as Bifrost's clients use it, against a real server and a real store."""

import hashlib
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.config_store.build import load_snapshot
from store.database import governance_revision
from store.ledger.ledger import Ledger
from store.ledger.types import Granted, HoldRequest, Settlement
from store.logs.types import CallRow
from store.logs.writer import LogWriter

KEYS = "/api/governance/virtual-keys"
BUDGETS = "/api/governance/budgets"


def exact(answer: httpx.Response) -> Any:
    return json.loads(answer.text, parse_float=Decimal)


def message(answer: httpx.Response) -> str:
    body = answer.json()
    assert set(body) == {"is_bifrost_error", "status_code", "error", "extra_fields"}
    assert body["is_bifrost_error"] is False and body["status_code"] == answer.status_code
    return str(body["error"]["message"])


async def make_key(console: Any, **fields: Any) -> Any:
    body = {"name": "workshop-vk-1", "provider_configs": [{"provider": "openai", "allowed_models": ["*"]}], **fields}
    answer = await console.client.post(KEYS, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["virtual_key"]


async def spend(console: Any, tmp_path: Path, cap_ids: tuple[str, ...], *, hold: int, cost: int | None) -> Ledger:
    store = console.store
    ledger = Ledger(store.database, clock=store.clock, ids=store.ids, lease_dir=tmp_path / "l", spool_dir=tmp_path / "s")
    await ledger.start()
    with store.database.read() as connection:
        revision = governance_revision(connection)
    answer = await ledger.hold(HoldRequest("call-1", cap_ids, bound_nanos=hold, floor_nanos=hold, revision=revision))
    assert isinstance(answer, Granted)
    if cost is not None:
        await ledger.settle(Settlement("call-1", cost, 10, True))
    return ledger


async def test_a_key_lives_through_create_read_update_rotate_delete(console: Any) -> None:
    answer = await console.client.post(
        KEYS,
        json={
            "name": "workshop-vk-1",
            "description": "for the workshop",
            "provider_configs": [{"provider": "openai", "weight": 0.5, "allowed_models": ["gpt-4o-mini"]}],
            "budgets": [{"max_limit": 0.5, "reset_duration": "1h"}, {"max_limit": 1000, "reset_duration": "1M"}],
            "rate_limit": {"token_max_limit": 1000, "token_reset_duration": "1m"},
        },
    )
    assert answer.status_code == 200
    body = exact(answer)
    assert set(body) == {"message", "virtual_key"} and body["message"].endswith("successfully")
    key = body["virtual_key"]
    assert key["name"] == "workshop-vk-1" and key["is_active"] is True and key["value"].startswith("sk-bf-")
    assert [(b["max_limit"], b["current_usage"], b["virtual_key_id"]) for b in key["budgets"]] == [
        (Decimal("0.5"), 0, key["id"]),
        (1000, 0, key["id"]),
    ]
    assert (key["rate_limit"]["token_max_limit"], key["rate_limit"]["request_max_limit"]) == (1000, None)
    assert key["provider_configs"][0]["allowed_models"] == ["gpt-4o-mini"]
    assert (key["team_id"], key["expires_at"]) == (None, None)

    path = f"{KEYS}/{key['id']}"
    assert exact(await console.client.get(path))["virtual_key"] == key
    assert exact(await console.client.get(f"{KEYS}/workshop-vk-1"))["virtual_key"]["id"] == key["id"]

    changed = (await console.client.put(path, json={"is_active": False, "expires_at": "2030-01-01T00:00:00Z"})).json()[
        "virtual_key"
    ]
    assert (changed["is_active"], changed["expires_at"], len(changed["budgets"])) == (False, "2030-01-01T00:00:00Z", 2)
    cleared = (await console.client.put(path, json={"expires_at": ""})).json()["virtual_key"]
    assert cleared["expires_at"] is None

    rotated = (await console.client.post(f"{path}/rotate")).json()["virtual_key"]
    assert rotated["id"] == key["id"] and rotated["value"] != key["value"]
    assert hashlib.sha256(rotated["value"].encode()).hexdigest() in load_snapshot(console.store, {}).by_hash

    several = (await console.client.post(f"{KEYS}/rotate", json={"ids": [key["id"], "nobody"]})).json()
    assert len(several["virtual_keys"]) == 1 and list(several["errors"]) == ["nobody"]
    assert "there is no virtual key 'nobody'" in message(await console.client.post(f"{KEYS}/rotate", json={"ids": ["nobody"]}))

    assert (await console.client.delete(path)).json() == {"message": "Virtual key deleted successfully"}
    assert (await console.client.get(path)).status_code == 404
    assert "there is no virtual key" in message(await console.client.delete(path))


async def test_lists_come_whole_or_in_pages(console: Any) -> None:
    for number in range(30):
        await make_key(console, name=f"key-{number:02d}")
    whole = (await console.client.get(KEYS)).json()
    assert (whole["count"], whole["total_count"], whole["limit"], whole["offset"]) == (30, 30, 30, 0)
    page = (await console.client.get(KEYS, params={"limit": 0, "offset": 25, "sort_by": "name"})).json()
    assert ([k["name"] for k in page["virtual_keys"]], page["total_count"], page["limit"]) == (
        [f"key-{n}" for n in range(25, 30)], 30, 25,
    )  # fmt: skip
    assert (await console.client.get(KEYS, params={"limit": 1000})).json()["limit"] == 100
    found = (await console.client.get(KEYS, params={"search": "KEY-07"})).json()
    assert [k["name"] for k in found["virtual_keys"]] == ["key-07"]
    for bad in ("-1", "x", "1.5", "٣"):
        assert message(await console.client.get(KEYS, params={"limit": bad})).startswith("limit: must be a whole number")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"name": "a", "budget": {"max_limit": 1}}', "budget: unknown key; did you mean 'budgets'?"),
        ('{"nmae": "a"}', "nmae: unknown key; did you mean 'name'?"),
        ('{"name": 5}', "name: must be text"),
        ('{"name": ""}', "name: must have at least 1 character"),
        ('{"name": "a", "is_active": 1}', "is_active: must be true or false"),
        ('{"name": "a", "budgets": {}}', "budgets: must be a list"),
        ('{"name": "a", "budgets": [{"max_limit": -0.5, "reset_duration": "1h"}]}', "budgets[0].max_limit: must not be negative"),
        ('{"name": "a", "budgets": [{"max_limit": 0.0000000001}]}', "budgets[0].max_limit: "),
        ('{"name": "a", "budgets": [{"max_limit": NaN}]}', "NaN is not a number in JSON"),
        ('{"name": "a", "budgets": [{"max_limit": 1e9999999}]}', "budgets[0].max_limit: is more than the ledger can hold"),
        ('{"name": "a", "budgets": [{"max_limit": 1, "reset_duration": "1 hour"}]}', "budgets[0].reset_duration: "),
        (
            '{"name": "a", "provider_configs": [{"provider": "opnai"}]}',
            "provider_configs[0].provider: invalid provider name 'opnai'",
        ),
        ('{"name": "a", "mcp_configs": [{"mcp_client_name": "x"}]}', "mcp_configs is not implemented; leave it out"),
        ('{"name": "a", "name": "b"}', "the key 'name' stands twice"),
        ('{"name": "a"', "the body is not valid JSON"),
        ("[]", "the body must be a JSON object"),
        ("[" * 50_000, "the body is nested too deeply"),
        (b"\xff\xfe\x00", "the body is not valid JSON"),
    ],
)
async def test_bad_bodies_are_400_with_a_path(console: Any, body: str | bytes, words: str) -> None:
    answer = await console.client.post(KEYS, content=body)
    assert answer.status_code == 400
    assert words in message(answer)
    assert (await console.client.get(KEYS)).json()["total_count"] == 0


async def test_money_is_exact_both_ways_and_never_an_exponent(console: Any) -> None:
    text = '{"name": "a", "budgets": [{"max_limit": 0.000000001, "reset_duration": "1h"}, {"max_limit": 123456789.123456789}]}'
    answer = await console.client.post(KEYS, content=text)
    assert '"max_limit":0.000000001,' in answer.text and '"max_limit":123456789.123456789,' in answer.text
    assert not re.search(r"[:,\[]-?[0-9.]+[eE]", answer.text)


async def test_budgets_on_their_own(console: Any, tmp_path: Path) -> None:
    key = await make_key(console)
    body = {
        "name": "workshop-vk-budget", "max_limit": 0.5, "reset_duration": "1h", "scope": "virtual_key", "scope_id": "workshop-vk-1",
    }  # fmt: skip
    made = (await console.client.post(BUDGETS, json=body)).json()["budget"]
    assert (made["name"], made["scope"], made["scope_id"], made["scope_name"]) == (
        "workshop-vk-budget", "virtual_key", key["id"], "workshop-vk-1",
    )  # fmt: skip
    assert (await console.client.post(BUDGETS, json=body)).status_code == 409
    assert "scope_id: there is no team 'x'" in message(
        await console.client.post(BUDGETS, json={**body, "scope": "team", "scope_id": "x"})
    )
    assert message(await console.client.post(BUDGETS, json={**body, "scope": "planet"})).startswith(
        "scope: must be 'provider_config'"
    )

    ledger = await spend(console, tmp_path, (made["id"],), hold=100_000_000, cost=None)
    held = exact(await console.client.get(f"{BUDGETS}/{made['id']}"))["budget"]
    assert (held["held"], held["current_usage"], held["remaining"]) == (Decimal("0.1"), 0, Decimal("0.4"))
    await ledger.settle(Settlement("call-1", 123_456_789, 10, True))
    spent = exact(await console.client.get(BUDGETS))
    assert spent["count"] == 1
    assert (spent["budgets"][0]["held"], spent["budgets"][0]["current_usage"]) == (0, Decimal("0.123456789"))

    path = f"{BUDGETS}/{made['id']}"
    raised = exact(await console.client.put(path, json={"max_limit": 2, "reason": "more to do"}))["budget"]
    assert (raised["max_limit"], raised["current_usage"]) == (2, Decimal("0.123456789"))
    topped = exact(await console.client.post(f"{path}/topup", json={"amount": "0.25"}))["budget"]
    assert (topped["max_limit"], topped["effective_max_limit"]) == (2, Decimal("2.25"))
    assert exact(await console.client.post(f"{path}/reset"))["budget"]["current_usage"] == 0
    assert (await console.client.delete(path)).json() == {"message": "Budget deleted successfully"}
    assert (await console.client.get(path)).status_code == 404
    assert (await console.client.post(f"{path}/reset", json={})).status_code == 404
    await ledger.close()


async def test_teams_and_customers(console: Any) -> None:
    customer = (await console.client.post("/api/governance/customers", json={"name": "Acme", "budgets": [{"max_limit": 9}]})).json()
    assert customer["customer"]["budgets"][0]["customer_id"] == customer["customer"]["id"]
    body = {"name": "Blue / Green", "customer_id": "Acme", "rate_limit": {"request_max_limit": 3, "request_reset_duration": "1m"}}
    team = (await console.client.post("/api/governance/teams", json=body)).json()["team"]
    assert team["customer_id"] == customer["customer"]["id"] and team["rate_limit"]["request_max_limit"] == 3
    await make_key(console, team_id=team["id"])
    listed = (await console.client.get("/api/governance/teams")).json()
    assert [(t["name"], t["virtual_key_count"]) for t in listed["teams"]] == [("Blue / Green", 1)]
    by_name = await console.client.get("/api/governance/teams/Blue%20%2F%20Green")
    assert by_name.json()["team"]["id"] == team["id"]
    assert (await console.client.post("/api/governance/teams", json={"name": "Blue / Green"})).status_code == 409
    changed = await console.client.put(f"/api/governance/teams/{team['id']}", json={"customer_id": None, "name": "Blue"})
    assert (changed.json()["team"]["customer_id"], changed.json()["team"]["name"]) == (None, "Blue")
    limits = (await console.client.get("/api/governance/rate-limits")).json()
    assert (limits["count"], limits["rate_limits"][0]["scope_name"]) == (1, "Blue")
    assert (await console.client.delete(f"/api/governance/teams/{team['id']}")).json()["message"] == "Team deleted successfully"
    assert (await console.client.delete("/api/governance/customers/Acme")).status_code == 200
    assert (await console.client.get("/api/governance/customers")).json()["customers"] == []


async def test_runs_for_exec(console: Any, tmp_path: Path) -> None:
    await make_key(console)
    body = {"virtual_key": "workshop-vk-1", "budget_usd": "2", "ttl_seconds": 3600}
    run = (await console.client.post("/api/governance/runs", json=body)).json()["run"]
    assert run["value"].startswith("sk-bf-run-") and run["virtual_key_name"] == "workshop-vk-1" and run["budget_usd"] == "2"
    key = load_snapshot(console.store, {}).by_hash[hashlib.sha256(run["value"].encode()).hexdigest()]
    ledger = await spend(console, tmp_path, tuple(cap.id for cap in key.run_caps), hold=50_000_000, cost=None)
    open_run = (await console.client.get(f"/api/governance/runs/{run['id']}")).json()["run"]
    assert (open_run["open_calls"], open_run["cost_usd"], open_run["held_usd"]) == (1, "0", "0.05")
    await ledger.settle(Settlement("call-1", 12_300_000, 10, True))
    await ledger.close()
    writer = LogWriter(console.logs_database, clock=console.clock)
    writer.start()
    writer.add(
        CallRow(
            id="r1",
            at_ms=console.clock.now_ms(),
            status="refused",
            http_status=402,
            run_id=run["id"],
            refusal_type="budget_exceeded",
        )
    )
    assert writer.flush()
    writer.close()
    done = (await console.client.get(f"/api/governance/runs/{run['id']}")).json()["run"]
    assert (done["cost_usd"], done["calls"], done["refused"], done["open_calls"]) == ("0.0123", 2, 1, 0)
    assert "value" not in done
    shown = [(b["name"], b["scope"]) for b in (await console.client.get(BUDGETS)).json()["budgets"]]
    assert shown == [("run budget", "run")]
    assert (await console.client.delete(f"/api/governance/runs/{run['id']}")).status_code == 200
    assert (await console.client.get(BUDGETS)).json()["budgets"] == []
    free = (await console.client.post("/api/governance/runs", json={"virtual_key": None, "budget_usd": None})).json()["run"]
    assert free["budget_usd"] is None
    assert (await console.client.post("/api/governance/runs", json={"virtual_key": "nobody"})).status_code == 404
    assert (await console.client.get("/api/governance/runs/nothing")).status_code == 404


async def test_the_quota_of_a_key_needs_the_key_and_nothing_else(console: Any) -> None:
    key = await make_key(
        console,
        budgets=[{"name": "pot", "max_limit": 0.5, "reset_duration": "1h"}],
        provider_configs=[{"provider": "openai", "budgets": [{"max_limit": 0.1, "reset_duration": "1d"}]}],
        is_active=False,
    )
    async with console.stranger() as anybody:
        for headers in ({"x-bf-vk": key["value"]}, {"Authorization": f"Bearer {key['value']}"}, {"x-api-key": key["value"]}):
            answer = await anybody.get(f"{KEYS}/quota", headers=headers)
            assert answer.status_code == 200
        body = exact(answer)
        assert set(body) == {"virtual_key_name", "is_active", "budgets", "rate_limit", "provider_configs", "model_configs"}
        assert (body["virtual_key_name"], body["is_active"], body["budgets"][0]["max_limit"]) == (
            "workshop-vk-1",
            False,
            Decimal("0.5"),
        )
        assert body["provider_configs"][0]["budgets"][0]["max_limit"] == Decimal("0.1")
        assert (await anybody.get(f"{KEYS}/quota")).status_code == 401
        assert (await anybody.get(f"{KEYS}/quota", headers={"x-bf-vk": "sk-bf-unknown"})).status_code == 401
        assert (await anybody.get(f"{KEYS}/quota", headers={"x-api-key": "sk-openai"})).status_code == 401


async def test_providers_never_show_their_secrets(console: Any) -> None:
    secret = "sk-very-secret-provider-key"
    made = await console.client.post(
        "/api/providers",
        json={
            "provider": "openai",
            "keys": [{"name": "main", "value": secret, "models": ["*"], "weight": 1.0}],
            "network_config": {"base_url": "https://example.com/openai", "extra_headers": {"x-secret": "header-secret"}},
        },
    )
    assert made.status_code == 200 and made.json()["name"] == "openai"
    assert (await console.client.post("/api/providers", json={"provider": "openai"})).status_code == 409
    added = await console.client.post(
        "/api/providers/openai/keys", json={"name": "second", "value": {"ref": "SECOND_KEY", "type": "env"}}
    )
    assert added.json()["value"] == "env.SECOND_KEY"
    listed = await console.client.get("/api/providers")
    assert {p["name"]: p["configured"] for p in listed.json()["providers"]} == {"openai": True, "anthropic": False, "gemini": False}
    keys = await console.client.get("/api/providers/openai/keys")
    assert keys.json()["total"] == 2
    one = await console.client.get("/api/providers/openai/keys/main")
    bare = await console.client.get("/api/keys")
    assert len(bare.json()) == 2
    changed = await console.client.put("/api/providers/openai/keys/main", json={"weight": 3, "value": one.json()["value"]})
    config = await console.client.get("/api/config")
    for answer in (made, added, listed, keys, one, bare, changed, config, await console.client.get("/api/providers/openai")):
        assert secret not in answer.text and "header-secret" not in answer.text
    assert load_snapshot(console.store, {}).providers["openai"].keys[0].value == secret
    assert (await console.client.put("/api/providers/openai", json={"network_config": {"base_url": None}})).status_code == 200
    assert load_snapshot(console.store, {}).providers["openai"].base_url is None
    assert (await console.client.delete("/api/providers/openai/keys/second")).json()["name"] == "second"
    assert (await console.client.delete("/api/providers/openai")).json()["name"] == "openai"
    assert (await console.client.put("/api/providers/nobody", json={})).status_code == 404


async def test_logs_with_filters_and_bodies(console: Any) -> None:
    writer = LogWriter(console.logs_database, clock=console.clock)
    writer.start()
    now_ms = console.clock.now_ms()
    for number in range(3):
        writer.add(
            CallRow(
                id=f"c{number}", at_ms=now_ms + number, status="success", http_status=200, virtual_key_id="v", model="gpt-4o",
                input_tokens=10, output_tokens=2, cost_nanos=123, priced=number != 2, request_body='{"a":1}', response_body="ok",
            )
        )  # fmt: skip
    writer.add(CallRow(id="r", at_ms=now_ms + 9, status="refused", http_status=402, refusal_type="budget_exceeded", message="No."))
    assert writer.flush()
    writer.close()
    body = exact(await console.client.get("/api/logs"))
    assert [row["id"] for row in body["logs"]] == ["r", "c2", "c1", "c0"] and body["has_logs"] is True
    assert body["pagination"] == {"limit": 50, "offset": 0, "sort_by": "timestamp", "order": "desc", "total_count": 4}
    assert (body["logs"][3]["cost"], body["logs"][1]["cost"]) == (Decimal("0.000000123"), None)
    assert "request_body" not in body["logs"][1]
    some = (await console.client.get("/api/logs", params={"virtual_key_ids": "v,w", "limit": 1, "offset": 1})).json()
    assert ([row["id"] for row in some["logs"]], some["pagination"]["total_count"]) == (["c1"], 3)
    refused = (await console.client.get("/api/logs", params={"status": "refused"})).json()["logs"]
    assert [(row["refusal_type"], row["message"]) for row in refused] == [("budget_exceeded", "No.")]
    one = (await console.client.get("/api/logs/c0")).json()
    assert (one["request_body"], one["response_body"], one["total_tokens"]) == ('{"a":1}', "ok", 12)
    assert (await console.client.get("/api/logs/none")).status_code == 404
    for query in ({"limit": "1001"}, {"offset": "-1"}, {"sort_by": "x"}, {"order": "x"}, {"statsu": "x"}, {"start_time": "x"}):
        assert (await console.client.get("/api/logs", params=query)).status_code == 400


async def test_health_version_config_and_metrics(console: Any, tmp_path: Path) -> None:
    from addons.console.context import Health

    key = await make_key(console, budgets=[{"name": 'pot "1"', "max_limit": 0.5, "reset_duration": "1h"}])
    ledger = await spend(console, tmp_path, (key["budgets"][0]["id"],), hold=100_000_000, cost=20_000_000)
    await ledger.close()
    async with console.stranger() as anybody:
        assert (await anybody.get("/health")).json() == {"status": "ok", "components": {"config_store": "ok"}}
        assert (await anybody.get("/api/version")).json() == "9.8.7"
        console.health.append(Health(False, {"logs": "lost"}))
        sick = await anybody.get("/health/readiness")
        assert sick.status_code == 503 and message(sick) == "not healthy: logs lost"
        assert (await anybody.get("/metrics")).status_code == 401
    config = (await console.client.get("/api/config")).json()
    assert config["client_config"]["enforce_auth_on_inference"] is True and config["is_db_connected"] is True
    metrics = await console.client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    line = next(line for line in metrics.text.splitlines() if line.startswith("tollgate_cap_used{"))
    assert 'name="pot \\"1\\""' in line and 'scope="virtual_key"' in line and line.endswith(" 0.02")
    assert 'tollgate_logged_calls{status="refused"} 0.0' in metrics.text


async def test_a_store_that_cannot_be_reached_is_503_in_json(console: Any) -> None:
    console.store.database.close()
    for answer in (await console.client.get(KEYS), await console.client.post(KEYS, json={"name": "x"})):
        assert answer.status_code == 503 and "closed" in message(answer)


async def test_what_was_read_can_be_changed_and_sent_back(console: Any) -> None:
    budgets = [{"name": "pot", "max_limit": 0.5, "reset_duration": "1h"}]
    team = (await console.client.post("/api/governance/teams", json={"name": "Blue", "budgets": budgets})).json()["team"]
    key = await make_key(
        console,
        budgets=budgets,
        team_id=team["id"],
        rate_limit={"token_max_limit": 5, "token_reset_duration": "1m"},
        provider_configs=[{"provider": "openai", "budgets": [{"max_limit": 1, "reset_duration": "1d"}]}],
    )
    path = f"{KEYS}/{key['id']}"
    before = load_snapshot(console.store, {}).virtual_keys[key["id"]]
    key["budgets"][0]["max_limit"] = 0.75
    sent = await console.client.put(path, json=key)
    assert sent.status_code == 200, sent.text
    after = load_snapshot(console.store, {}).virtual_keys[key["id"]]
    assert [cap.limit for cap in after.caps if cap.window == "1h"] == [750_000_000]
    assert after.provider_configs == before.provider_configs and after.team_caps == before.team_caps
    assert [cap.id for cap in after.caps] == [cap.id for cap in before.caps]
    assert "rotate the key" in message(await console.client.put(path, json={"value": "sk-bf-chosen-by-me"}))
    for address in (f"/api/governance/teams/{team['id']}", f"{BUDGETS}/{key['budgets'][0]['id']}", "/api/providers/openai"):
        found = (await console.client.get(address)).json()
        entity = found.get("team") or found.get("budget") or found
        again = await console.client.put(address, json=entity)
        assert again.status_code == 200, again.text


async def test_budgets_in_pages(console: Any) -> None:
    for number in range(5):
        await make_key(console, name=f"key_{number}", budgets=[{"max_limit": number, "reset_duration": "1h"}])
    whole = (await console.client.get(BUDGETS)).json()
    assert (whole["count"], whole["total_count"]) == (5, 5)
    page = (await console.client.get(BUDGETS, params={"limit": 2, "offset": 3})).json()
    assert [b["max_limit"] for b in page["budgets"]] == [3, 4] and page["total_count"] == 5
    found = (await console.client.get(BUDGETS, params={"search": "Y_2"})).json()
    assert ([b["scope_name"] for b in found["budgets"]], found["total_count"]) == (["key_2"], 1)
    one_owner = (await console.client.get(BUDGETS, params={"scope": "team"})).json()
    assert one_owner["budgets"] == []
