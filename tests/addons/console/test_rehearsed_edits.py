"""`X-Tollgate-Rehearse: 1`: every change goes through all its checks and leaves the database row for row as it was."""

import hashlib
from typing import Any

import httpx
import pytest

from addons.console.app import API_ROUTES
from addons.console.routes import methods_of
from store.database import Connection
from tests.addons.console.test_audit_coverage import BUDGET, STEPS, G, _filled, _id_of, lost_call

REHEARSED = {"X-Tollgate-Rehearse": "1"}
NOT_REHEARSED = {
    ("POST", "/api/session/login"), ("POST", "/api/session/logout"), ("DELETE", "/api/logs"), ("POST", f"{G}/import"),
    ("POST", "/api/logs/recalculate-cost"), ("POST", "/api/logs/recalculate-cost/cancel"), ("POST", "/api/inspector/load"),
}  # fmt: skip
"""What is no single transaction of the store."""


def every_row(console: Any) -> dict[str, str]:
    """A digest of each table's rows, of configuration, ledger, audit log and logs."""
    made = {}
    for place, database in (("config", console.store.database), ("logs", console.logs_database)):
        with database.read() as connection:
            for table in _tables(connection):
                rows = sorted(repr(row) for row in connection.execute(f"SELECT * FROM {table}"))
                made[f"{place}.{table}"] = f"{len(rows)} {hashlib.sha256(repr(rows).encode()).hexdigest()}"
    return made


def _tables(connection: Connection) -> list[str]:
    if connection.engine == "sqlite":
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    else:
        found = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
    return sorted(name for (name,) in found)


def said(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


async def test_each_change_is_first_rehearsed_and_then_made(console: Any) -> None:
    lost_call(console)
    ids: dict[str, str] = {}
    assert len(every_row(console)) > 20
    for words, path, body, *_ in STEPS:
        method, _, name = words.partition(" ")
        address, sent = _filled(path, ids), _filled(body, ids) if body is not None else None
        before = every_row(console)
        answer = await console.client.request(method, address, json=sent, headers=REHEARSED)
        if (method, path) in NOT_REHEARSED:
            assert (answer.status_code, said(answer)) == (
                400,
                "this cannot be rehearsed; leave the header X-Tollgate-Rehearse out to do it",
            )
        else:
            assert (answer.status_code, answer.content) == (204, b""), (words, path, answer.text)
            assert "etag" not in answer.headers and "content-type" not in answer.headers
        assert every_row(console) == before, (words, path)
        done = await console.client.request(method, address, json=sent)
        assert done.status_code < 300, (words, path, done.text)
        if name:
            ids[name.removesuffix("=")] = _id_of(done.json())


def test_what_cannot_be_rehearsed_is_known() -> None:
    """Whoever adds an operation that is no transaction of the store says so of it, and here."""
    told = {
        (name.upper(), route.path)
        for route in API_ROUTES
        for name in methods_of(route.handler)
        if name != "get" and not getattr(route.handler, name).operation.rehearsal
    }
    assert told - NOT_REHEARSED == set()
    assert NOT_REHEARSED - told <= {("POST", "/api/inspector/load")}


async def test_what_would_fail_says_what_the_change_itself_would_say(console: Any) -> None:
    made = (await console.client.post(f"{G}/teams", json={"name": "blue"})).json()["team"]
    path = f"{G}/teams/{made['id']}"
    requests: tuple[tuple[str, str, Any, dict[str, str], int], ...] = (
        ("POST", f"{G}/teams", {"nam": "x"}, {}, 400),
        ("POST", f"{G}/teams", {"name": "blue"}, {}, 409),
        ("POST", f"{G}/virtual-keys", {"name": "k", "team_id": "none"}, {}, 400),
        ("PUT", f"{G}/teams/none", {"name": "x"}, {}, 404),
        ("PUT", path, {"name": "x"}, {"If-Match": '"stale"'}, 412),
        ("POST", f"{G}/budgets", {**BUDGET, "scope": "team", "scope_id": "none"}, {}, 404),
        ("POST", f"{G}/virtual-keys/rotate", {"ids": ["none"]}, {}, 404),
    )
    for method, address, body, headers, status in requests:
        before = every_row(console)
        rehearsed = await console.client.request(method, address, json=body, headers={**headers, **REHEARSED})
        assert every_row(console) == before
        real = await console.client.request(method, address, json=body, headers=headers)
        assert (rehearsed.status_code, rehearsed.json()) == (real.status_code, real.json()), address
        assert real.status_code == status, (address, real.text)


async def test_many_rotations_are_each_rehearsed(console: Any) -> None:
    keys = [(await console.client.post(f"{G}/virtual-keys", json={"name": name})).json()["virtual_key"]["id"] for name in "ab"]
    before = every_row(console)
    answer = await console.client.post(f"{G}/virtual-keys/rotate", json={"ids": [*keys, "none"]}, headers=REHEARSED)
    assert answer.status_code == 204 and every_row(console) == before


@pytest.mark.parametrize("value", ["0", "true", "yes", ""])
async def test_the_header_has_one_value(console: Any, value: str) -> None:
    """What was meant as a rehearsal must not be a change."""
    before = every_row(console)
    answer = await console.client.post(f"{G}/teams", json={"name": "t"}, headers={"X-Tollgate-Rehearse": value})
    assert answer.status_code == 400 and said(answer).startswith("X-Tollgate-Rehearse: must be 1")
    assert every_row(console) == before


async def test_reading_takes_no_notice_of_it(console: Any) -> None:
    assert (await console.client.get(f"{G}/teams", headers=REHEARSED)).json()["count"] == 0


async def test_it_opens_no_door(console: Any) -> None:
    async with console.stranger() as stranger:
        assert (await stranger.post(f"{G}/teams", json={"name": "t"}, headers=REHEARSED)).status_code == 401
