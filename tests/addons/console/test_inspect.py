"""The inspector as a person meets it: real pages over HTTP, fed by a real feed and a real logs.db. It shows and changes nothing."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket
from mitmproxy import http
from mitmproxy.test import tflow

from addons.console.inspect import Inspector, InspectorLimits, start_inspector
from addons.console.inspect_web import allowed
from addons.inspector import InspectorFeed
from store.clock import SystemClock
from store.errors import UserError
from store.logs.opening import open_logs
from store.logs.queries import LogReader
from store.logs.types import CallRow
from store.logs.writer import LogWriter

TOKEN = "a-token-for-the-pages"
FEED_TOKEN = "a-token-for-the-feed"
PROVIDER_KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5q"
VIRTUAL_KEY = "sk-bf-7b0c2f3e-5d0a-4f64-9a51-3a5a2f3b9c11"
PLAIN_SECRET = "correct-horse-battery"
SECRETS = (PROVIDER_KEY, VIRTUAL_KEY, PLAIN_SECRET)
CALL_ID = "01a208b0-a849-7087-bca3-a1b937a132ba"


class FixedClock:
    """2026-11-23T13:00:00Z, for ever."""

    def now_ms(self) -> int:
        return 1_795_438_800_000

    def monotonic(self) -> float:
        return 1.0


CLOCK = FixedClock()


def a_flow(call_id: str, *, body: bytes = b'{"model":"gpt-4o-mini"}', provider: str = "openai") -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    flow.id = call_id
    flow.timestamp_created = CLOCK.now_ms() / 1000
    flow.request = http.Request.make(
        "POST",
        "https://api.openai.com/v1/chat/completions",
        body,
        {"authorization": f"Bearer {PROVIDER_KEY}", "x-api-key": VIRTUAL_KEY, "cookie": PLAIN_SECRET, "x-note": PLAIN_SECRET},
    )
    flow.response = http.Response.make(200, b'{"id":"x"}', {"content-type": "application/json", "set-cookie": PLAIN_SECRET})
    flow.comment = "workshop-vk-1 · gpt-4o-mini · $0.000123 · 12→48 tok"
    flow.metadata = {
        "tollgate": {
            "call": call_id, "key": "workshop-vk-1", "key_id": "vk-1", "model": "gpt-4o-mini", "provider": provider,
            "status": "success", "team": "research", "budgets": "workshop-vk-budget",
            "cost_usd": "0.000123", "input_tokens": 12, "output_tokens": 48,
        }
    }  # fmt: skip
    return flow


def a_row(call_id: str, **more: object) -> CallRow:
    values: dict[str, object] = {
        "id": call_id, "at_ms": CLOCK.now_ms() - 3_600_000, "status": "success", "http_status": 200, "provider": "openai",
        "model": "gpt-4o-mini", "virtual_key_id": "vk-1", "virtual_key_name": "workshop-vk-1",
        "input_tokens": 12, "output_tokens": 48, "cost_nanos": 123_000,
        "way_in": "reverse", "method": "POST", "path": "/openai/v1/chat/completions", "latency_ms": 250,
        "request_body": '{"model":"gpt-4o-mini"}', "response_body": '{"id":"y"}',
    } | more  # fmt: skip
    return CallRow(**values)  # type: ignore[arg-type]


@asynccontextmanager
async def an_inspector(**more: object) -> AsyncIterator[tuple[Inspector, httpx.AsyncClient]]:
    settings: dict[str, object] = {"limits": InspectorLimits(), "gateway_url": "http://127.0.0.1:9"} | more
    inspector = await start_inspector(web_token=TOKEN, feed_token=FEED_TOKEN, clock=CLOCK, port=0, **settings)  # type: ignore[arg-type]
    try:
        async with httpx.AsyncClient(base_url=inspector.base_url) as client:
            assert (await client.get("/", params={"token": TOKEN})).status_code == 200
            yield inspector, client
    finally:
        await inspector.close()


@asynccontextmanager
async def fed(inspector: Inspector, *flows: http.HTTPFlow, **settings: object) -> AsyncIterator[InspectorFeed]:
    feed = InspectorFeed(inspector.feed_address, FEED_TOKEN, **settings)  # type: ignore[arg-type]
    feed.start()
    try:
        for flow in flows:
            feed.offer(flow, secrets=SECRETS)
        await shown(inspector, len(flows))
        yield feed
    finally:
        await feed.close()


async def shown(inspector: Inspector, count: int) -> None:
    """Wait until so many pictures have arrived."""
    async with asyncio.timeout(5):
        while inspector.stats.received < count:  # noqa: ASYNC110  the page has no event for this
            await asyncio.sleep(0.005)


def logs_with(path: Path, rows: Sequence[CallRow]) -> LogReader:
    database = open_logs(path / "logs.db", clock=CLOCK)
    writer = LogWriter(database, clock=SystemClock())
    writer.start()
    for row in rows:
        writer.add(row)
    assert writer.flush()
    writer.close()
    return LogReader(database)


def xsrf(client: httpx.AsyncClient) -> dict[str, str]:
    """What the page's script sends with everything that is not a GET."""
    client.cookies.set("_mitmproxy_xsrf", "t")
    return {"X-XSRFToken": "t"}


async def test_the_link_opens_it_and_nothing_else_does() -> None:
    async with an_inspector() as (inspector, client):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=a-token-for-the-pages", inspector.url)
        assert (await client.get("/flows")).json() == []
        async with httpx.AsyncClient(base_url=inspector.base_url) as stranger:
            for path in ("/", "/flows", "/state", "/options", "/events", "/commands", "/flows/dump"):
                assert (await stranger.get(path)).status_code == 403
                assert (await stranger.get(path, params={"token": "wrong"})).status_code == 403
                assert (await stranger.get(path, params={"token": "fälsch"})).status_code == 403
            assert (await stranger.get("/flows", headers={"authorization": f"Bearer {TOKEN}"})).json() == []
            rebound = await stranger.get("/flows", headers={"authorization": f"Bearer {TOKEN}", "host": "evil.example"})
            assert rebound.status_code == 403
            assert (await stranger.get("/static/favicon.ico")).status_code == 200


async def test_the_page_is_mitmwebs_with_our_style_and_asks_strangers_for_the_token() -> None:
    async with an_inspector() as (inspector, client):
        page = (await client.get("/")).text
        assert '<link rel="stylesheet" href="./tollgate.css"></head>' in page
        assert "static/index-Be7e-cwP.js" in page, "another mitmweb: look at the page, then mend inspect_style.py"
        style = await client.get("/tollgate.css")
        assert style.headers["content-type"].startswith("text/css") and ".col-comment" in style.text
        async with httpx.AsyncClient(base_url=inspector.base_url) as stranger:
            form = (await stranger.get("/")).text
            assert "<form" in form and "index-Be7e" not in form
            xsrf_token = xsrf(stranger)["X-XSRFToken"]
            for token, status in (("wrong", 403), (TOKEN, 200)):
                answer = await stranger.post("/", data={"token": token, "_xsrf": xsrf_token})
                assert answer.status_code == status
            assert (await stranger.get("/flows")).status_code == 200, "the form's answer set the cookie"


async def test_everything_that_is_more_than_looking_is_closed() -> None:
    async with an_inspector() as (inspector, client):
        async with fed(inspector, a_flow("01-a")):
            headers = xsrf(client)
            for method, path in (
                ("PUT", "/options"), ("POST", "/options/save"), ("PUT", "/flows/01-a"), ("POST", "/flows/01-a/kill"),
                ("POST", "/flows/01-a/resume"), ("POST", "/flows/01-a/revert"), ("POST", "/flows/resume"), ("POST", "/flows/kill"),
                ("POST", "/flows/01-a/request/content.data"), ("POST", "/flows/dump"), ("GET", "/processes"),
                ("GET", "/executable-icon?path=/bin/ls"), ("POST", "/commands/script.run"), ("POST", "/commands/save.file"),
                ("POST", "/commands/set"), ("POST", "/commands/options.load"), ("POST", "/commands/replay.client.file"),
                ("POST", "/commands/view.flows.load"), ("POST", "/commands/flow.set"), ("POST", "/commands/cut.save"),
                ("POST", "/commands/export.file"), ("POST", "/commands/browser.start"), ("POST", "/commands/inject.tcp"),
                ("PATCH", "/flows"), ("OPTIONS", "/flows"), ("GET", "/anything/new"),
            ):  # fmt: skip
                answer = await client.request(method, path, headers=headers, json={"arguments": ["@all", "/tmp/x"]})
                assert answer.status_code == 403, (method, path, answer.text)
            listed = (await client.get("/commands")).json()
            assert set(listed) == {"tollgate.load", "export", "export.formats", "commands.history.get", "commands.history.add"}
            assert "script.run" in inspector._master.commands.commands, "the list is filtered for the answer only"


def test_what_a_later_mitmproxy_adds_is_closed() -> None:
    from mitmproxy.tools.web import app

    patterns = {pattern for pattern, _ in app.handlers}
    assert len(patterns) == 24, "mitmweb has other routes than this was written for: go through ALLOWED again"
    assert not allowed("POST", "/flows/abc/something-new")
    assert not allowed("PUT", "/") and not allowed("DELETE", "/flows")


async def test_a_live_flow_is_shown_with_its_comment_mark_and_no_secret() -> None:
    refused = a_flow("02-b")
    refused.marked = ":no_entry:"
    refused.response = http.Response.make(402, f'{{"error":"{PLAIN_SECRET}"}}')
    async with an_inspector() as (inspector, client):
        async with fed(inspector, a_flow("01-a", body=f'{{"prompt":"{PROVIDER_KEY} {VIRTUAL_KEY}"}}'.encode()), refused):
            flows = (await client.get("/flows")).json()
            assert [flow["id"] for flow in flows] == ["01-a", "02-b"]
            assert flows[0]["comment"] == "workshop-vk-1 · gpt-4o-mini · $0.000123 · 12→48 tok"
            assert [flow["marked"] for flow in flows] == ["", "⛔"]
            assert flows[1]["response"]["status_code"] == 402
            assert (await client.get("/options")).json()["web_columns"]["value"].count("comment") == 1
            everything = [(await client.get(path)).content for path in ("/flows", "/flows/dump", "/events", "/options", "/state")]
            for message in ("request", "response"):
                everything.append((await client.get(f"/flows/01-a/{message}/content.data")).content)
                for view in ("auto", "raw", "json", "LLM%20usage", "hex%20dump"):
                    everything.append((await client.get(f"/flows/01-a/{message}/content/{view}.json")).content)
            exported = await client.post("/commands/export", headers=xsrf(client), json={"arguments": ["curl", "@01-a" + "-" * 40]})
            everything.append(exported.content)
            for content in everything:
                assert not any(secret.encode() in content for secret in SECRETS)
            assert b"[redacted]" in everything[0]


async def test_the_usage_view_reads_like_a_receipt() -> None:
    async with an_inspector() as (inspector, client):
        async with fed(inspector, a_flow("01-a")):
            view = (await client.get("/flows/01-a/response/content/LLM%20usage.json")).json()
            assert "llm usage" in (await client.get("/state")).json()["contentViews"]
            lines = dict(line.split(":", 1) for line in view["text"].splitlines())
            assert {name.strip(): value.strip() for name, value in lines.items()} == {
                "call": "01-a", "virtual key": "workshop-vk-1", "team": "research", "provider": "openai", "model": "gpt-4o-mini",
                "status": "success", "input tokens": "12", "output tokens": "48", "cost": "$0.000123",
                "budgets": "workshop-vk-budget",
            }  # fmt: skip
            auto = (await client.get("/flows/01-a/response/content/auto.json")).json()
            assert auto["view_name"] == "JSON", "a message opens as the message it is"


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("~comment workshop", ["01-a", "02-b"]),
        ('~meta "^model: gpt-4o-mini$"', ["01-a"]),
        ('~meta "^team: research"', ["01-a", "02-b"]),
        ('~meta "^budgets: .*workshop-vk-budget"', ["01-a", "02-b"]),
        ("~marked", ["02-b"]),
        ("~c 402", ["02-b"]),
        ("~meta nobody", []),
    ],
)
async def test_filters_find_keys_teams_models_and_budgets(expression: str, found: list[str]) -> None:
    other = a_flow("02-b")
    other.metadata["tollgate"]["model"] = "gpt-4o"
    other.marked = ":no_entry:"
    other.response = http.Response.make(402)
    async with an_inspector() as (inspector, client):
        async with fed(inspector, a_flow("01-a"), other):
            link = inspector.base_url.replace("http", "ws") + "/updates"
            request = tornado.httpclient.HTTPRequest(
                link, headers={"authorization": f"Bearer {TOKEN}", "origin": inspector.base_url}
            )
            page = await tornado.websocket.websocket_connect(request)
            await page.write_message(json.dumps({"type": "flows/updateFilter", "payload": {"name": "search", "expr": expression}}))
            answer = json.loads(await asyncio.wait_for(page.read_message(), 5) or "{}")
            assert answer["payload"]["matching_flow_ids"] == found
            page.close()


async def test_an_open_page_is_told_of_new_and_changed_flows() -> None:
    async with an_inspector() as (inspector, _):
        link = inspector.base_url.replace("http", "ws") + "/updates"
        request = tornado.httpclient.HTTPRequest(link, headers={"authorization": f"Bearer {TOKEN}", "origin": inspector.base_url})
        page = await tornado.websocket.websocket_connect(request)
        async with fed(inspector) as feed:
            flow = a_flow("01-a")
            feed.offer(flow, live=True)
            first = json.loads(await asyncio.wait_for(page.read_message(), 5) or "{}")
            flow.comment = "done"
            feed.offer(flow)
            second = json.loads(await asyncio.wait_for(page.read_message(), 5) or "{}")
            assert (first["type"], second["type"]) == ("flows/add", "flows/update")
            assert second["payload"]["flow"]["comment"] == "done"
        page.close()


async def test_the_updates_need_the_token_and_the_right_origin() -> None:
    async with an_inspector() as (inspector, _):
        link = inspector.base_url.replace("http", "ws") + "/updates"
        for headers in ({}, {"authorization": f"Bearer {TOKEN}", "origin": "http://evil.example"}):
            with pytest.raises(tornado.httpclient.HTTPClientError) as refusal:
                await tornado.websocket.websocket_connect(tornado.httpclient.HTTPRequest(link, headers=headers))
            assert refusal.value.code == 403


async def test_the_view_holds_no_more_flows_and_bytes_than_allowed() -> None:
    async with an_inspector(limits=InspectorLimits(flows=20, megabytes=1)) as (inspector, client):
        async with fed(inspector, bodies="full") as feed:
            for number in range(60):
                feed.offer(a_flow(f"{number:02d}-a"))
            await shown(inspector, 60)
            assert [flow["id"] for flow in (await client.get("/flows")).json()] == [f"{number:02d}-a" for number in range(40, 60)]
            for number in range(60, 70):
                feed.offer(a_flow(f"{number:02d}-a", body=b"x" * 300_000))
            await shown(inspector, 70)
            assert inspector.stats.bytes <= 1024 * 1024
            assert [flow["id"] for flow in (await client.get("/flows")).json()] == ["67-a", "68-a", "69-a"]
            view = inspector._master.view
            assert len(view._store) == 3 and len(view.settings._values) == 3, "mitmproxy keeps nothing of the others"
            assert inspector.stats.evicted == 67


async def test_calls_under_way_are_evicted_last_and_never_for_ever() -> None:
    async with an_inspector(limits=InspectorLimits(flows=5, megabytes=10)) as (inspector, client):
        async with fed(inspector) as feed:
            feed.offer(a_flow("00-f"), live=True)
            for number in range(1, 10):
                feed.offer(a_flow(f"{number:02d}-a"))
            await shown(inspector, 10)
            assert [flow["id"] for flow in (await client.get("/flows")).json()] == ["00-f", "06-a", "07-a", "08-a", "09-a"]
            for number in range(10, 20):
                feed.offer(a_flow(f"{number:02d}-a"), live=True)
            await shown(inspector, 20)
            assert inspector.stats.flows == 5


async def test_what_people_do_to_the_list_is_accounted_for() -> None:
    async with an_inspector() as (inspector, client):
        async with fed(inspector, a_flow("01-a"), a_flow("02-b")) as feed:
            headers = xsrf(client)
            assert (await client.delete("/flows/01-a", headers=headers)).status_code == 200
            assert (await client.post("/flows/02-b/duplicate", headers=headers)).status_code == 200
            assert inspector.stats.flows == 2 == len((await client.get("/flows")).json())
            assert (await client.post("/clear", headers=headers)).status_code == 200
            assert (inspector.stats.flows, inspector.stats.bytes) == (0, 0)
            feed.offer(a_flow("02-b"))
            await shown(inspector, 3)
            assert inspector.stats.flows == 1
            assert (await client.delete("/flows/02-b")).status_code == 403, "without the cross-site token"


async def test_it_is_refilled_from_the_logs_at_start(tmp_path: Path) -> None:
    rows = [a_row(f"{number:02d}-a", at_ms=CLOCK.now_ms() - (30 - number) * 3_600_000) for number in range(30)]
    rows.append(a_row("a0-a", status="refused", http_status=402, refusal_type="budget_exceeded", cost_nanos=0, count=7))
    logs = logs_with(tmp_path, rows)
    async with an_inspector(logs=logs, limits=InspectorLimits(history_ms=86_400_000)) as (inspector, client):
        assert inspector.refilled is not None
        await inspector.refilled
        flows = (await client.get("/flows")).json()
        assert [flow["id"] for flow in flows] == [f"{number:02d}-a" for number in range(6, 29)] + ["29-a", "a0-a"]
        assert flows[0]["comment"] == "workshop-vk-1 · gpt-4o-mini · $0.000123 · 12→48 tok"
        assert flows[-1]["comment"] == "workshop-vk-1 · gpt-4o-mini · 402 budget_exceeded ×7"
        assert (flows[-1]["marked"], flows[-1]["response"]["status_code"]) == ("⛔", 402)
        assert (await client.get("/flows/06-a/request/content.data")).text == '{"model":"gpt-4o-mini"}'


async def test_history_keeps_within_the_bounds_and_prefers_the_newest(tmp_path: Path) -> None:
    rows = [a_row(f"{number:02d}-a", at_ms=CLOCK.now_ms() - (30 - number) * 1000) for number in range(30)]
    logs = logs_with(tmp_path, rows)
    async with an_inspector(logs=logs, limits=InspectorLimits(flows=4)) as (inspector, client):
        assert inspector.refilled is not None and await inspector.refilled == 4
        assert [flow["id"] for flow in (await client.get("/flows")).json()] == ["26-a", "27-a", "28-a", "29-a"]


async def test_a_logged_call_and_its_live_picture_are_one_flow(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, [a_row("01-a")])
    async with an_inspector(logs=logs) as (inspector, client):
        assert inspector.refilled is not None
        await inspector.refilled
        async with fed(inspector, a_flow("01-a")):
            assert await inspector.load(["id=01-a"]) == 0
            assert [flow["id"] for flow in (await client.get("/flows")).json()] == ["01-a"]


async def test_the_load_command_brings_back_what_was_asked_for_and_charges_nothing(tmp_path: Path) -> None:
    yesterday = CLOCK.now_ms() - 20 * 3_600_000
    logs = logs_with(
        tmp_path,
        [
            a_row("01-a", at_ms=yesterday),
            a_row("02-b", at_ms=yesterday, virtual_key_name="other"),
            a_row("03-c", at_ms=yesterday, model="m"),
        ],
    )
    before = (logs.stats(), logs.count())
    async with an_inspector(logs=logs, limits=InspectorLimits(history_ms=0)) as (inspector, client):
        headers = xsrf(client)
        answer = await client.post(
            "/commands/tollgate.load", headers=headers, json={"arguments": ["key=workshop-vk-1", "since=yesterday"]}
        )
        assert answer.json() == {"value": 2}
        assert {flow["id"] for flow in (await client.get("/flows")).json()} == {"01-a", "03-c"}
        again = await client.post(
            "/commands/tollgate.load", headers=headers, json={"arguments": ["key=workshop-vk-1 since=yesterday"]}
        )
        assert again.json() == {"value": 0}, "as one text, and already there"
        for wrong, part in (("since=whenever", "is not a time"), ("kee=x", "not understood"), ("limit=no", "not a number")):
            answer = await client.post("/commands/tollgate.load", headers=headers, json={"arguments": [wrong]})
            assert part in answer.json()["error"]
        assert inspector._master.commands.execute("tollgate.load key=other") == 1, "mitmproxy's own command works as well"
        assert await inspector.open_call("03-c") == inspector.url + "#/flows/03-c/request"
        assert await inspector.open_call("99-f") is None
    assert (logs.stats(), logs.count()) == before


class FakeGateway(tornado.web.RequestHandler):
    """Answers as the gateway would and remembers what it was asked."""

    def initialize(self, asked: list[tuple[str, dict[str, str], bytes]]) -> None:
        self.asked = asked

    def post(self) -> None:
        self.asked.append((self.request.uri or "", dict(self.request.headers), self.request.body))
        self.set_header("x-tollgate-request-id", CALL_ID)
        self.set_header("set-cookie", PLAIN_SECRET)
        self.set_status(402)
        self.write({"type": "budget_exceeded"})


@asynccontextmanager
async def a_gateway() -> AsyncIterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    asked: list[tuple[str, dict[str, str], bytes]] = []
    server = tornado.httpserver.HTTPServer(tornado.web.Application([(r".*", FakeGateway, {"asked": asked})]))
    (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}", asked
    server.stop()
    await server.close_all_connections()


async def replayed(inspector: Inspector) -> None:
    await asyncio.wait_for(asyncio.gather(*inspector._tasks), 5)


async def test_replay_goes_through_the_gateway_under_the_calls_own_key() -> None:
    async with a_gateway() as (url, asked):
        async with an_inspector(gateway_url=url, credential={"vk-1": "run-credential"}.get) as (inspector, client):
            async with fed(inspector, a_flow("01-a"), a_flow("02-b", provider="gemini")) as feed:
                headers = xsrf(client)
                assert (await client.post("/flows/01-a/replay", headers=headers)).status_code == 200
                await replayed(inspector)
                ((uri, sent, body),) = asked
                assert uri == "/openai/v1/chat/completions" and body == b'{"model":"gpt-4o-mini"}'
                assert sent["X-Bf-Vk"] == "run-credential"
                assert not {"Authorization", "X-Api-Key", "Cookie", "X-Note"} & sent.keys()
                flows = {flow["id"]: flow for flow in (await client.get("/flows")).json()}
                assert flows.keys() == {"01-a", "02-b", CALL_ID}
                assert flows[CALL_ID]["is_replay"] == "request" and flows[CALL_ID]["response"]["status_code"] == 402
                assert PLAIN_SECRET not in json.dumps(flows)
                feed.offer(a_flow(CALL_ID))
                await shown(inspector, 3)
                governed = {flow["id"]: flow for flow in (await client.get("/flows")).json()}[CALL_ID]
                assert governed["comment"].startswith("workshop-vk-1") and governed["is_replay"] == "request"
                await client.post("/flows/02-b/replay", headers=headers)
                await replayed(inspector)
                assert asked[1][0] == "/genai/v1/chat/completions"


async def test_a_logged_call_is_replayed_on_the_path_it_came_by(tmp_path: Path) -> None:
    logs = logs_with(tmp_path, [a_row("01-a")])
    async with a_gateway() as (url, asked):
        async with an_inspector(gateway_url=url, logs=logs, credential={"vk-1": "run-credential"}.get) as (inspector, client):
            assert inspector.refilled is not None
            await inspector.refilled
            assert (await client.post("/flows/01-a/replay", headers=xsrf(client))).status_code == 200
            await replayed(inspector)
            assert (asked[0][0], asked[0][2]) == ("/openai/v1/chat/completions", b'{"model":"gpt-4o-mini"}')
            assert asked[0][1]["X-Bf-Vk"] == "run-credential"


async def test_what_cannot_be_replayed_says_why() -> None:
    async with an_inspector() as (inspector, client):
        async with fed(inspector, a_flow("01-a", body=b"x" * 200), a_flow("02-b", body=PROVIDER_KEY.encode()), bodies=100):
            headers = xsrf(client)
            clipped = await client.post("/flows/01-a/replay", headers=headers)
            assert clipped.status_code == 409 and "first 100 of 200 bytes" in clipped.text
            assert (await client.post("/flows/02-b/replay", headers=headers)).status_code == 409
            assert (await client.post("/flows/99-f/replay", headers=headers)).status_code == 404
            assert "was not kept whole" in (await client.get("/events")).text


async def test_a_gateway_that_is_down_shows_as_the_replays_error() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with an_inspector(gateway_url=f"http://127.0.0.1:{port}") as (inspector, client):
        async with fed(inspector, a_flow("01-a")):
            await client.post("/flows/01-a/replay", headers=xsrf(client))
            await replayed(inspector)
            failed = [flow for flow in (await client.get("/flows")).json() if flow["is_replay"]]
            assert len(failed) == 1 and "the gateway could not be reached" in failed[0]["error"]["msg"]


async def test_it_shares_a_loop_with_another_tornado_application_and_leaves_no_trace() -> None:
    import logging

    class Hello(tornado.web.RequestHandler):
        def get(self) -> None:
            self.write("console")

    handlers = list(logging.getLogger().handlers)
    console = tornado.httpserver.HTTPServer(tornado.web.Application([("/", Hello)]))
    (sock,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    console.add_socket(sock)
    async with an_inspector() as (inspector, client):
        assert (await client.get(f"http://127.0.0.1:{sock.getsockname()[1]}/")).text == "console"
        logging.getLogger("somebody").error("an error elsewhere, with %s", PLAIN_SECRET)
        await asyncio.sleep(0)
        assert (await client.get("/events")).json() == []
        assert logging.getLogger().handlers == handlers
        assert asyncio.get_running_loop().get_task_factory() is None
        base_url = inspector.base_url
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(base_url)
    console.stop()
    await console.close_all_connections()


async def test_ports_that_are_taken_and_addresses_that_are_not_ours_are_one_clear_line() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*; choose another --inspect-port"):
            await start_inspector(web_token="t", feed_token="f", gateway_url="http://x", clock=CLOCK, port=port)
    with pytest.raises(UserError, match="loopback only"):
        await start_inspector(web_token="t", feed_token="f", gateway_url="http://x", clock=CLOCK, host="0.0.0.0", port=0)
    outside = tornado.netutil.bind_sockets(0, "0.0.0.0")
    with pytest.raises(UserError, match="loopback only"):
        await start_inspector(web_token="t", feed_token="f", gateway_url="http://x", clock=CLOCK, sockets=outside)
    for sock in outside:
        sock.close()


async def test_sockets_can_be_handed_in() -> None:
    web, feed = tornado.netutil.bind_sockets(0, "127.0.0.1"), tornado.netutil.bind_sockets(0, "127.0.0.1")
    async with an_inspector(sockets=web, feed_sockets=feed) as (inspector, _):
        assert inspector.base_url.endswith(f":{web[0].getsockname()[1]}")
        assert inspector.feed_address == feed[0].getsockname()
