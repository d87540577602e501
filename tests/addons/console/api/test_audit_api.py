"""`/api/audit`: pages, one row, and exports that other programs can read; nothing secret in any of them."""

import asyncio
import csv
import io
import json
import re
from typing import Any

import pytest

from addons.console.api import audit as audit_api
from store.config_store import audit
from store.config_store.audit import PAGE
from store.errors import StoreUnavailable

KEYS = "/api/governance/virtual-keys"


@pytest.fixture
async def busy(console: Any) -> Any:
    """A console in which a few things were changed."""
    for name in ("alpha", "beta", "=HYPERLINK(1)"):
        assert (await console.client.post("/api/governance/teams", json={"name": name})).status_code == 200
    made = (await console.client.post(KEYS, json={"name": "robot", "budgets": [{"max_limit": 0.1, "reset_duration": "1h"}]})).json()
    budget = made["virtual_key"]["budgets"][0]["id"]
    topup = {"amount": 0.25, "reason": 'for "Thursday" ]\nnext line'}
    assert (await console.client.post(f"/api/governance/budgets/{budget}/topup", json=topup)).status_code == 200
    return console


async def test_pages_and_filters(busy: Any) -> None:
    page = (await busy.client.get("/api/audit", params={"limit": 2})).json()
    assert [(row["action"], row["kind"]) for row in page["entries"]] == [("topup", "budget"), ("create", "virtual_key")]
    assert (page["count"], page["total_count"], page["total_is_exact"], page["limit"], page["offset"]) == (2, 5, True, 2, 0)
    topup, created = page["entries"]
    assert topup["details"] == {"amount": 0.25} and topup["reason"].startswith("for")
    assert (topup["actor"], topup["method"], topup["address"]) == ("admin token", "bearer", "127.0.0.1")
    assert created["before"] is None and created["after"]["budgets"] == [
        {"id": created["after"]["budgets"][0]["id"], "max_limit": 0.1, "reset_duration": "1h"}
    ]
    teams = (await busy.client.get("/api/audit", params={"kind": "team", "search": "ALPHA"})).json()
    assert [row["entity_name"] for row in teams["entries"]] == ["alpha"]
    one = (await busy.client.get(f"/api/audit/{topup['sequence']}")).json()
    assert one == topup
    times = {"start_time": topup["timestamp"], "end_time": "2999-01-01T00:00:00Z"}
    assert topup["sequence"] in [row["sequence"] for row in (await busy.client.get("/api/audit", params=times)).json()["entries"]]
    for path in ("/api/audit/99", "/api/audit/0", "/api/audit/x", f"/api/audit/{10**30}"):
        assert (await busy.client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"actr": "x"}, "actr: unknown parameter; did you mean 'actor'"),
        ({"limit": "-1"}, "limit"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"search": "x" * 5000}, "search"),
    ],
)
async def test_bad_questions_are_400(console: Any, params: dict[str, str], words: str) -> None:
    answer = await console.client.get("/api/audit", params=params)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


async def test_it_cannot_be_changed_through_the_api_nor_read_by_strangers(busy: Any) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/api/audit", "/api/audit/1", "/api/audit/export"):
            assert (await busy.client.request(method, path)).status_code == 405
    async with busy.stranger() as stranger:
        for path in ("/api/audit", "/api/audit/1", "/api/audit/export"):
            assert (await stranger.get(path)).status_code == 401


async def export(console: Any, form: str, **params: Any) -> Any:
    answer = await console.client.get("/api/audit/export", params={"format": form, **params})
    assert answer.status_code == 200, answer.text
    return answer


async def test_json_and_json_lines_hold_what_the_pages_show(busy: Any) -> None:
    shown = (await busy.client.get("/api/audit")).json()["entries"][::-1]
    answer = await export(busy, "json")
    assert answer.json() == shown and answer.headers["content-type"] == "application/json"
    lines = await export(busy, "jsonl")
    assert [json.loads(line) for line in lines.text.splitlines()] == shown
    assert lines.headers["content-disposition"] == 'attachment; filename="tollgate-audit.jsonl"'
    assert (await busy.client.get("/api/audit/export")).text == lines.text
    assert (await export(busy, "json", actor="nobody")).json() == []
    assert (await export(busy, "jsonl", kind="team", search="beta")).text.count("\n") == 1


async def test_csv_is_harmless_in_a_spreadsheet(busy: Any) -> None:
    rows = list(csv.DictReader(io.StringIO((await export(busy, "csv")).text, newline="")))
    assert [row["sequence"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[2]["entity_name"] == "'=HYPERLINK(1)" and rows[0]["entity_name"] == "alpha"
    assert rows[4]["reason"] == 'for "Thursday" ]\nnext line' and json.loads(rows[3]["after"])["name"] == "robot"
    assert rows[0]["before"] == ""
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())


RFC_5424 = re.compile(
    r"<(?P<priority>[0-9]{1,3})>1 (?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{1,6})?Z) (?P<host>[!-~]{1,255}) "
    r"(?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    r'\[(?P<sd>[!#-<>-\\^-~]{1,32})(?P<params>( [!#-<>-\\^-~]{1,32}="(\\["\\\]]|[^"\\\]])*")*)\] \ufeff(?P<message>.*)'
)
"""The grammar of RFC 5424 section 6, for messages in UTF-8."""


async def test_syslog_follows_the_grammar(busy: Any) -> None:
    await busy.client.post("/api/governance/teams", json={"name": 'a "quoted" \\ ] name'})
    lines = (await export(busy, "syslog")).text.split("\n")
    assert lines.pop() == "" and len(lines) == 6
    found = [RFC_5424.fullmatch(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    last, topup = found[-1], found[-2]
    assert last is not None and topup is not None
    assert (int(last["priority"]) // 8, int(last["priority"]) % 8) == (13, 5), "log audit, notice"
    assert r'entity_name="a \"quoted\" \\ \] name"' in last["params"]
    assert json.loads(topup["message"])["reason"] == 'for "Thursday" ]\nnext line'
    assert topup["id"] == "topup"


async def test_a_long_log_is_sent_in_pieces(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than a piece holds; the pieces are counted where they are read."""
    store = console.store
    with store.ledger.write() as connection:
        for number in range(2 * PAGE + 7):
            store.note(connection, "x", "thing", str(number))
    asked: list[int] = []
    real = audit_api.audit_rows

    def counting(connection: Any, query: Any, after: int) -> Any:
        asked.append(after)
        found = real(connection, query, after)
        assert len(found) <= PAGE
        return found

    monkeypatch.setattr(audit_api, "audit_rows", counting)
    rows = (await export(console, "json")).json()
    assert [row["entity_id"] for row in rows] == [str(number) for number in range(2 * PAGE + 7)]
    assert asked == [0, PAGE, 2 * PAGE, 2 * PAGE + 7]


async def test_an_export_that_breaks_off_does_not_look_whole(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = console.store
    with store.ledger.write() as connection:
        for number in range(PAGE + 7):
            store.note(connection, "x", "thing", str(number))
    real = audit_api.audit_rows

    def breaking(connection: Any, query: Any, after: int) -> Any:
        if after:
            raise StoreUnavailable("the disk is gone")
        return real(connection, query, after)

    monkeypatch.setattr(audit_api, "audit_rows", breaking)
    with pytest.raises(Exception) as fault:
        await console.client.get("/api/audit/export")
    assert type(fault.value).__module__.startswith("httpx")


CANARY = "canary-1f7d5e-secret"


async def test_no_secret_reaches_the_log(console: Any) -> None:
    """A canary in every field that holds a secret; none of them is in any row."""
    client = console.client
    key = {"name": "main", "value": f"sk-{CANARY}-one"}
    provider = {
        "provider": "lab",
        "network_config": {"base_url": "https://lab.example", "extra_headers": {"x-key": f"{CANARY}-two"}},
        "custom_provider_config": {"base_provider_type": "openai"},
        "keys": [key],
    }
    assert (await client.post("/api/providers", json=provider)).status_code == 200
    changed = {"network_config": {"base_url": "https://lab.example/v2", "extra_headers": {"x-key": f"{CANARY}-three"}}}
    assert (await client.put("/api/providers/lab", json=changed)).status_code == 200
    more = {"name": "second", "value": f"sk-{CANARY}-four"}
    made = await client.post("/api/providers/lab/keys", json=more)
    assert made.status_code == 200
    assert (await client.put("/api/providers/lab/keys/second", json={"value": f"sk-{CANARY}-five"})).status_code == 200
    assert (await client.delete("/api/providers/lab/keys/second")).status_code == 200
    value = "sk-bf-0b7c3e2a-5d1f-4c3b-9a8e-0123456789ab"
    robot = (await client.post(KEYS, json={"name": "robot", "value": value})).json()["virtual_key"]
    rotated = (await client.post(f"{KEYS}/{robot['id']}/rotate")).json()["virtual_key"]["value"]
    run = (await client.post("/api/governance/runs", json={"virtual_key": "robot"})).json()
    await client.delete("/api/providers/lab")
    text = (await export(console, "jsonl")).text
    assert text.count("\n") >= 9
    for secret in (CANARY, value, rotated, value[6:], *(part for part in run.values() if str(part).startswith("sk-bf-"))):
        assert str(secret) not in text
    assert console.client.headers["authorization"].removeprefix("Bearer ") not in text


async def test_a_reader_that_stands_still_stops_the_reading(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client has not taken is not piled up in memory: the log is read on only when it has."""
    monkeypatch.setattr(audit, "PAGE", 10)
    rows = 400
    with console.store.ledger.write() as connection:
        for number in range(rows):
            console.store.note(connection, "x", "thing", str(number), details={"text": "x" * 25_000})
    asked: list[int] = []
    real = audit_api.audit_rows

    def counting(connection: Any, query: Any, after: int) -> Any:
        asked.append(after)
        return real(connection, query, after)

    monkeypatch.setattr(audit_api, "audit_rows", counting)
    host, port = console.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(
        f"GET /api/audit/export HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        f"Authorization: {console.client.headers['authorization']}\r\n\r\n".encode()
    )
    seen = -1
    while len(asked) != seen:  # as long as the buffers of the connection fill
        seen = len(asked)
        await asyncio.sleep(0.5)
    assert 0 < seen < rows // 10, "it waits with most of it unread"
    taken = 0
    while piece := await reader.read(65_536):
        taken += piece.count(b'"action":"x"')
    assert abs(taken - rows) <= rows // 25 and asked[-1] == rows  # a few are cut in two by the pieces
    writer.close()
