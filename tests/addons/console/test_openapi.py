"""The description of the API: valid, whole, made of the code, and true of real answers."""

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel
from schemathesis.specs.openapi.definitions import OPENAPI_31

from addons.console.app import API_ROUTES
from addons.console.handler import ConsoleHandler
from addons.console.openapi import openapi_document, operation_ids, operations
from addons.console.routes import Route, methods_of, operation

OPEN = {
    "/health", "/health/readiness", "/api/version", "/api/session/login", "/api/session/logout", "/api/session/is-auth-enabled",
    "/api/governance/virtual-keys/quota",
}  # fmt: skip
"""What answers without a sign-in; the last asks for a virtual key."""


@pytest.fixture
def engine() -> str:
    """The description does not depend on the store."""
    return "sqlite"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return openapi_document(API_ROUTES, version="1.2.3", cookie_name="tollgate_x")


def each_operation(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, told) for path, item in document["paths"].items() for method, told in item.items()]


def test_every_method_says_what_it_does() -> None:
    silent = [
        f"{name.upper()} {route.path}"
        for route in API_ROUTES
        for name in methods_of(route.handler)
        if not hasattr(getattr(route.handler, name), "operation")
    ]
    assert silent == [], "without @operation"


def test_the_document_is_valid_openapi_3_1(described: dict[str, Any]) -> None:
    """By the OpenAPI Initiative's own JSON Schema, and each shape by the JSON Schema of JSON Schemas."""
    text = json.loads(json.dumps(described))
    assert [str(error) for error in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(text)] == []
    for name, shape in text["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(shape), name
    refs = set(re.findall(r'"\$ref": "#/components/([^"]+)"', json.dumps(described)))
    known = {f"{kind}/{name}" for kind, things in described["components"].items() for name in things}
    assert refs - known == set()


def test_every_operation_has_a_name_a_tag_a_line_and_its_failures(described: dict[str, Any]) -> None:
    found = each_operation(described)
    names = [told["operationId"] for _, _, told in found]
    assert sorted(set(names)) == sorted(names) and all(re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name) for name in names)
    for path, method, told in found:
        assert told["summary"] and "\n" not in told["summary"] and len(told["tags"]) == 1, (path, method)
        parts = re.findall(r"\{([a-z_]+)\}", path)
        in_path = [one["name"] for one in told.get("parameters", ()) if one["in"] == "path"]
        assert in_path == parts, (path, method)
        good, *failures = [status for status in told["responses"] if status != "204"]
        assert good in ("200", "201", "202")
        assert ("204" in told["responses"]) == any(one["name"] == "X-Tollgate-Rehearse" for one in told.get("parameters", ()))
        shapes = {one["content"]["application/json"]["schema"]["$ref"] for one in map(told["responses"].get, failures)}
        assert shapes == {"#/components/schemas/ErrorAnswer"}, (path, method)
        if method != "get" and path not in OPEN:
            assert {"400", "401", "404", "409"} <= {*failures}, (path, method)


def test_signing_in_is_asked_for_everywhere_but_where_it_is_said(described: dict[str, Any]) -> None:
    assert described["security"] == [{"bearer": []}, {"basic": []}, {"session": []}]
    assert {path for path, _, told in each_operation(described) if "security" in told} == OPEN
    quota = described["paths"]["/api/governance/virtual-keys/quota"]["get"]
    assert quota["security"][0] == {"virtualKey": []}


def test_names_of_operations_are_those_a_person_would_choose(described: dict[str, Any]) -> None:
    found = each_operation(described)
    names = {(method, path.removeprefix("/api/governance/")): told["operationId"] for path, method, told in found}
    assert names["get", "virtual-keys"] == "list_virtual_keys"
    assert names["post", "virtual-keys"] == "create_virtual_key"
    assert names["get", "virtual-keys/{key_id}"] == "get_virtual_key"
    assert names["post", "virtual-keys/rotate"] == "rotate_virtual_keys"
    assert names["post", "virtual-keys/{key_id}/rotate"] == "rotate_virtual_key"
    assert names["post", "budgets/{budget_id}/topup"] == "topup_budget"
    assert names["put", "/api/providers/{name}"] == "update_provider"


def test_shapes_say_types_limits_and_nulls(described: dict[str, Any]) -> None:
    shapes = described["components"]["schemas"]
    budget = shapes["BudgetAnswer"]
    assert budget["properties"]["max_limit"]["type"] == "number" and "max_limit" in budget["required"]
    assert {"type": "null"} in budget["properties"]["reset_duration"]["anyOf"]
    assert shapes["BudgetSpec"]["additionalProperties"] is False and shapes["BudgetSpec"]["required"] == ["max_limit"]
    told = described["paths"]["/api/governance/virtual-keys"]["get"]
    parameters = {one["name"]: one for one in told["parameters"]}
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 0}
    assert parameters["sort_by"]["schema"]["enum"] == ["name", "created_at", "status", "budget_spent"]
    changed = described["paths"]["/api/governance/virtual-keys/{key_id}"]["put"]
    assert [one["name"] for one in changed["parameters"]] == ["key_id", "If-Match", "X-Tollgate-Rehearse"]
    assert {"204", "412"} <= set(changed["responses"]) and "content" not in changed["responses"]["204"]
    assert changed["responses"]["200"]["headers"] == {"ETag": {"$ref": "#/components/headers/ETag"}}


class _Body(BaseModel):
    word: str


class _Handler(ConsoleHandler):
    @operation("Reads")
    async def get(self, name: str) -> None: ...

    @operation("Writes", body=_Body, status=201)
    async def put(self, name: str) -> None: ...


class _Silent(ConsoleHandler):
    async def get(self) -> None: ...


def test_equal_names_are_told_apart() -> None:
    routes = (Route("/api/things/{name}", _Handler), Route("/api/governance/things/{name}", _Handler))
    assert sorted(operation_ids(list(operations(routes))).values()) == [
        "get_governance_thing", "get_thing", "update_governance_thing", "update_thing",
    ]  # fmt: skip
    made = openapi_document(routes, version="", cookie_name="c")
    assert list(made["paths"]["/api/things/{name}"]["put"]["responses"])[0] == "201"
    assert made["components"]["schemas"]["_Body"]["required"] == ["word"]


def test_a_method_without_a_description_is_an_error() -> None:
    with pytest.raises(ValueError, match="GET /api/x has no @operation"):
        openapi_document((Route("/api/x", _Silent),), version="1", cookie_name="c")


async def test_it_is_served_to_whoever_is_signed_in(console: Any) -> None:
    answer = await console.client.get("/api/openapi.json")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/json")
    document = answer.json()
    assert document["info"]["version"] == "9.8.7" and set(document["paths"]) == {route.path for route in API_ROUTES}
    async with console.stranger() as stranger:
        assert (await stranger.get("/api/openapi.json")).status_code == 401
