"""Every operation of the API that changes something leaves exactly one row that says who, from where, what, before and after."""

import string
from typing import Any

from addons.console.app import API_ROUTES
from addons.console.routes import methods_of
from store.ledger.caps import put_cap
from store.ledger.types import Cap, Scope, Unit
from tests.store.ledger.till import Till

G = "/api/governance"
KEYS = f"{G}/virtual-keys"
BUDGET = {"max_limit": 1, "reset_duration": "1d"}
FOR_A_WHILE = {"amount": 1, "duration": "1h", "reason": "Thursday"}
FOR_CYCLES = {"amount": 1, "mode": "cycles", "cycles": 1, "reason": "Thursday"}
RULE = {"name": "all", "cel_expression": "true", "targets": [{"provider": "openai", "weight": 1}]}
PRICE = {
    "name": "dear", "scope_kind": "global", "match_type": "exact", "pattern": "gpt-4o", "request_types": ["chat_completion"],
    "patch": {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002},
}  # fmt: skip
LAB = {
    "provider": "lab",
    "network_config": {"base_url": "https://lab.example"},
    "custom_provider_config": {"base_provider_type": "openai"},
}
CREATED, CHANGED, GONE, TOLD = (False, True), (True, True), (True, False), (False, False)
"""Whether there is a document before and after; `TOLD`: details or the name say it all."""

Step = tuple[str, str, Any, str, str, tuple[bool, bool]]

STEPS: tuple[Step, ...] = (
    # method, path, body, action, kind, documents; {name} in a path is an answer's id, remembered under `name=` of an earlier step
    ("POST customer=", f"{G}/customers", {"name": "acme"}, "create", "customer", CREATED),
    ("PUT", f"{G}/customers/{{customer}}", {"budgets": [BUDGET]}, "update", "customer", CHANGED),
    ("POST team=", f"{G}/teams", {"name": "blue"}, "create", "team", CREATED),
    ("PUT", f"{G}/teams/{{team}}", {"budgets": [BUDGET]}, "update", "team", CHANGED),
    ("POST", "/api/providers", LAB, "create", "provider", CREATED),
    ("PUT", "/api/providers/lab", {"hosts": ["lab.example"]}, "update", "provider", CHANGED),
    ("POST", "/api/providers/lab/keys", {"name": "k", "value": "sk-lab-123456789"}, "update", "provider", CHANGED),
    ("PUT", "/api/providers/lab/keys/k", {"weight": 2}, "update", "provider", CHANGED),
    ("DELETE", "/api/providers/lab/keys/k", None, "update", "provider", CHANGED),
    ("PUT", f"{G}/providers/lab", {"budgets": [BUDGET]}, "update", "provider_limits", CHANGED),
    ("DELETE", f"{G}/providers/lab", None, "delete", "provider_limits", CHANGED),
    ("DELETE", "/api/providers/lab", None, "delete", "provider", GONE),
    ("POST virtual_key=", KEYS, {"name": "robot"}, "create", "virtual_key", CREATED),
    ("PUT", f"{KEYS}/{{virtual_key}}", {"description": "new"}, "update", "virtual_key", CHANGED),
    ("POST", f"{KEYS}/{{virtual_key}}/rotate", {"overlap": "1h"}, "rotate", "virtual_key", CHANGED),
    ("DELETE", f"{KEYS}/{{virtual_key}}/previous-value", None, "end overlap", "virtual_key", CHANGED),
    ("POST", f"{KEYS}/rotate", {"ids": ["{virtual_key}"]}, "rotate", "virtual_key", CHANGED),
    ("POST budget=", f"{G}/budgets", {**BUDGET, "scope": "virtual_key", "scope_id": "robot"}, "create", "budget", CREATED),
    ("PUT", f"{G}/budgets/{{budget}}", {"max_limit": 2, "reason": "more"}, "update", "budget", CHANGED),
    ("POST", f"{G}/budgets/{{budget}}/topup", {"amount": 1}, "topup", "budget", CHANGED),
    ("POST", f"{G}/budgets/{{budget}}/reset", {"reason": "anew"}, "reset", "budget", CHANGED),
    ("PUT", f"{G}/budgets/{{budget}}/override", FOR_A_WHILE, "raise", "budget", CHANGED),
    ("DELETE", f"{G}/budgets/{{budget}}/override", None, "unraise", "budget", CHANGED),
    ("PUT", f"{KEYS}/{{virtual_key}}/budgets/{{budget}}/override", FOR_CYCLES, "raise", "budget", CHANGED),
    ("DELETE", f"{KEYS}/{{virtual_key}}/budgets/{{budget}}/override", None, "unraise", "budget", CHANGED),
    ("DELETE", f"{G}/budgets/{{budget}}", None, "delete", "budget", GONE),
    (
        "PUT",
        f"{G}/rate-limits",
        {"scope": "virtual_key", "scope_id": "robot", "request_max_limit": 5, "request_reset_duration": "1m"},
        "update",
        "virtual_key",
        CHANGED,
    ),
    ("POST run=", f"{G}/runs", {"virtual_key": "robot", "ttl_seconds": 60}, "create", "run", TOLD),
    ("DELETE", f"{G}/runs/{{run}}", None, "end", "run", TOLD),
    ("POST model_config=", f"{G}/model-configs", {"model_name": "gpt-4o", "budgets": [BUDGET]}, "create", "model_config", CREATED),
    ("PUT", f"{G}/model-configs/{{model_config}}", {"budgets": []}, "update", "model_config", CHANGED),
    ("DELETE", f"{G}/model-configs/{{model_config}}", None, "delete", "model_config", GONE),
    ("POST rule=", f"{G}/routing-rules", RULE, "create", "routing_rule", CREATED),
    ("PUT", f"{G}/routing-rules/{{rule}}", {"enabled": False}, "update", "routing_rule", CHANGED),
    ("DELETE", f"{G}/routing-rules/{{rule}}", None, "delete", "routing_rule", GONE),
    ("POST price=", f"{G}/pricing-overrides", PRICE, "create", "pricing_override", CREATED),
    ("PUT", f"{G}/pricing-overrides/{{price}}", {**PRICE, "name": "dearer"}, "update", "pricing_override", CHANGED),
    ("DELETE", f"{G}/pricing-overrides/{{price}}", None, "delete", "pricing_override", GONE),
    ("POST", "/api/prompts", {"name": "p", "text": "one"}, "create", "prompt", CREATED),
    ("PUT", "/api/prompts/p", {"text": "two"}, "update", "prompt", CHANGED),
    ("POST", "/api/prompts/p/versions", {"text": "three"}, "update", "prompt", CHANGED),
    ("DELETE", "/api/prompts/p", None, "delete", "prompt", GONE),
    ("PUT", "/api/config", {"client_config": {"log_retention_days": 7}}, "update", "client_config", CHANGED),
    ("POST", f"{G}/unconfirmed/call-1/confirm", {"cost": "0.01", "reason": "the bill"}, "confirm", "call", TOLD),
    ("DELETE", "/api/logs", {"ids": ["call-1"], "reason": "asked to"}, "delete", "log", TOLD),
    ("POST", "/api/logs/recalculate-cost", {"reason": "new prices"}, "recalculate", "log", TOLD),
    ("DELETE", f"{KEYS}/{{virtual_key}}", None, "delete", "virtual_key", GONE),
    ("DELETE", f"{G}/teams/{{team}}", None, "delete", "team", GONE),
    ("DELETE", f"{G}/customers/{{customer}}", None, "delete", "customer", GONE),
    ("POST", f"{G}/import", {"governance": {"teams": [{"name": "green"}]}}, "create", "team", CREATED),
)
ELSEWHERE = {
    ("POST", "/api/session/login"), ("POST", "/api/session/logout"),  # test_sign_ins.py
    ("POST", "/api/logs/recalculate-cost/cancel"),  # changes nothing that stays
}  # fmt: skip


async def test_each_change_leaves_one_row(console: Any) -> None:
    lost_call(console)
    ids: dict[str, str] = {}
    newest = 0
    for words, path, body, action, kind, documents in STEPS:
        method, _, name = words.partition(" ")
        answer = await console.client.request(method, _filled(path, ids), json=_filled(body, ids) if body is not None else None)
        assert answer.status_code < 300, (words, path, answer.text)
        if name:
            ids[name.removesuffix("=")] = _id_of(answer.json())
        rows = (await console.client.get("/api/audit", params={"limit": 5})).json()["entries"]
        fresh = [row for row in rows if row["sequence"] > newest]
        newest = rows[0]["sequence"]
        assert [(row["action"], row["kind"]) for row in fresh] == [(action, kind)], (words, path)
        (row,) = fresh
        assert (row["actor"], row["method"], row["address"]) == ("admin token", "bearer", "127.0.0.1"), path
        assert (row["before"] is not None, row["after"] is not None) == documents, (words, path)
        assert row["entity_id"] or row["details"], (words, path)
        if row["after"] or row["before"]:
            assert row["entity_id"] == (row["after"] or row["before"]).get("id", row["entity_name"])
        if isinstance(body, dict) and body.get("reason"):
            assert row["reason"] == body["reason"], (words, path)


def lost_call(console: Any) -> None:
    """One call that nobody knows the cost of."""
    till = Till(console.store.database, console.clock)
    with console.store.database.write() as connection:
        put_cap(connection, Cap("cap-1", "day", Scope.VIRTUAL_KEY, "vk", "robot", Unit.USD, 10**9, "1d"))
    till.hold("call-1", "cap-1", 50_000_000, tokens=100)
    till.lose("call-1")


async def test_what_is_refused_leaves_none(console: Any) -> None:
    refused = (
        ("POST", f"{G}/teams", {"nam": "x"}, 400),
        ("PUT", f"{G}/teams/none", {"name": "x"}, 404),
        ("DELETE", f"{KEYS}/none", None, 404),
        ("POST", f"{G}/budgets/none/reset", {}, 404),
        ("POST", KEYS, {"name": "x", "team_id": "none"}, (400, 404)),
        ("PUT", "/api/config", {"client_config": {"log_retention_days": 0}}, 400),
    )
    for method, path, body, status in refused:
        answer = await console.client.request(method, path, json=body)
        assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    assert (await console.client.get("/api/audit")).json()["entries"] == []


def test_no_operation_is_left_out() -> None:
    """Whoever adds an operation says here what row it leaves."""
    there = {
        (method.upper(), _shape(route.path)) for route in API_ROUTES for method in methods_of(route.handler) if method != "get"
    }
    told = {(words.partition(" ")[0], _shape(_template(path))) for words, path, *_ in STEPS}
    assert there - told - ELSEWHERE == set()


def _template(path: str) -> str:
    """The route that a step's path is one of."""
    parts = path.split("/")
    for route in API_ROUTES:
        pattern = route.path.split("/")
        if len(pattern) == len(parts) and all(p.startswith("{") or p == part for p, part in zip(pattern, parts, strict=True)):
            return route.path
    raise LookupError(path)


def _shape(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/")) if "{" in path else path


def _filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        return string.Formatter().vformat(value, (), ids) if "{" in value else value
    if isinstance(value, dict):
        return {key: _filled(item, ids) for key, item in value.items()}
    return [_filled(item, ids) for item in value] if isinstance(value, list) else value


def _id_of(answer: Any) -> str:
    """The id of the one thing in an answer."""
    for value in answer.values():
        if isinstance(value, dict) and "id" in value:
            return str(value["id"])
    return str(answer.get("id"))
