"""The hooks and their two guards: before upstream a fault is a 503 and nothing leaves; after it a log line, and the bytes go on."""

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from mitmproxy import connection, flow, http
from mitmproxy.proxy import server_hooks

from addons import chain, holding, outcomes
from addons.gateway import Gateway
from addons.proxy.faults import ProtocolFault
from addons.proxy.flow_state import state_of
from addons.refusal import Refusal
from addons.services import ConnectionFacts
from store.errors import StoreUnavailable
from store.ledger.types import Exceeded, Granted, HoldRequest, Refused, Stale
from store.logs.types import CallRow
from store.usage import Reading
from tests.support import calls
from tests.support.calls import KEY, FixedSnapshots, RecordingLedger, RecordingLogs, cap, cap_state
from tests.support.opened import UNKNOWN, boom, connecting, opened, refused

ANSWER = (
    b'{"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":48,"total_tokens":60}}'
)  # fmt: skip


def chat_flow(path: str = "/openai/v1/chat/completions", body: bytes | None = None, **more: Any) -> http.HTTPFlow:
    headers = {"x-bf-vk": KEY} | more.pop("headers", {})
    return calls.call(path, body=calls.chat(max_tokens=100) if body is None else body, headers=headers, **more).flow


def ledger_of(made: Gateway) -> RecordingLedger:
    return cast(RecordingLedger, made.services.ledger)


def rows_of(made: Gateway) -> list[CallRow]:
    return cast(RecordingLogs, made.services.logs).rows


async def headed(made: Gateway, of: http.HTTPFlow) -> None:
    waiting = made.requestheaders(of)
    if waiting is not None:
        await waiting


async def to_upstream(made: Gateway, of: http.HTTPFlow) -> http.HTTPFlow:
    await headed(made, of)
    await made.request(of)
    return of


def come(of: http.HTTPFlow, content: bytes = ANSWER, status: int = 200, content_type: str = "application/json") -> http.Response:
    of.response = http.Response.make(status, content, {"content-type": content_type})
    return of.response


# A good call


async def test_a_call_there_and_back() -> None:
    made = opened()
    of = await to_upstream(made, chat_flow())
    assert (of.response, of.request.host, of.request.headers["accept-encoding"]) == (None, "api.openai.com", "identity")
    assert not made.idle.is_set()
    response = come(of)
    made.responseheaders(of)
    made.response(of)
    assert response.content == ANSWER
    assert response.headers["x-tollgate-cost-usd"] == "0.0000306"
    assert response.headers["x-tollgate-request-id"] == rows_of(made)[0].id == ledger_of(made).settlements[0].call_id
    assert "x-tollgate-trimmed" not in response.headers
    assert (made.calls, made.idle.is_set(), len(made.runtime.watchdog)) == ({}, True, 0)


async def test_headers_tell_what_is_left_and_what_was_trimmed() -> None:
    """$0.50 with a hold of 40,000 nano-dollars: 57 tokens out (34,750 / 600); after a cost of 30,600, $0.4999694 are left."""
    made = opened()
    state = cap_state(cap(), used=0, held=40_000)
    ledger_of(made).answers.append(Granted("x", 40_000, False, (state,)))
    of = await to_upstream(made, chat_flow())
    response = come(of)
    made.responseheaders(of)
    made.response(of)
    assert json.loads(of.request.content or b"")["max_tokens"] == 57
    assert response.headers["x-tollgate-trimmed"] == "57"
    assert response.headers["x-tollgate-budget-remaining-usd"] == "0.4999694"


async def test_a_stream_tells_what_is_left_before_it_runs() -> None:
    made = opened()
    ledger_of(made).answers.append(Granted("x", 65_250, False, (cap_state(cap(), held=65_250),)))
    of = await to_upstream(made, chat_flow(body=calls.chat(max_tokens=100, stream=True)))
    response = come(of, b"data: [DONE]\n\n", content_type="text/event-stream")
    made.responseheaders(of)
    assert callable(response.stream)
    assert response.headers["x-tollgate-budget-remaining-usd"] == "0.49993475"
    assert "x-tollgate-cost-usd" not in response.headers
    assert response.headers["transfer-encoding"] == "chunked"


async def test_local_answers_need_no_upstream() -> None:
    made = opened()
    of = await to_upstream(made, chat_flow("/health", method="GET"))
    assert of.response is not None and of.response.status_code == 200
    made.response(of)
    assert (rows_of(made), ledger_of(made).holds) == ([], [])


# The guard before upstream


@pytest.mark.parametrize(
    "place", ["read", "admit", "candidates", "hold_first", "holding.estimate", "holding.ask", "trim", "credentials", "address"]
)
async def test_a_fault_before_upstream_is_a_503_and_nothing_leaves(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = place.rpartition(".")[2]
    monkeypatch.setattr(holding if "." in place else chain, name, boom)
    made = opened()
    with caplog.at_level(logging.ERROR):
        of = await to_upstream(made, chat_flow())
    assert refused(of) == (503, "gateway_unavailable")
    assert of.response is not None and of.response.headers["retry-after"] == "5"
    assert "secret" not in (of.response.text or "")
    assert of.request.host == "127.0.0.1" and "the call was refused" in caplog.text
    made.response(of)
    assert [(row.status, row.http_status, row.cost_nanos) for row in rows_of(made)] == [("refused", 503, 0)]
    held = bool(ledger_of(made).holds)
    assert [s.sent for s in ledger_of(made).settlements] == ([False] if held else []), "what was held is given back"


async def test_a_ledger_out_of_reach_is_a_503(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RecordingLedger):
        async def hold(self, request: HoldRequest) -> Granted | Refused | Stale:
            raise StoreUnavailable("disk full")

    made = opened()
    made.services.ledger = Broken()
    with caplog.at_level(logging.ERROR):
        of = await to_upstream(made, chat_flow())
    assert refused(of) == (503, "gateway_unavailable")
    assert of.response is not None and "ledger cannot be written" in (of.response.text or "")
    assert "disk full" in caplog.text and "disk full" not in (of.response.text or "")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("place", ["route", "identify"])
async def test_a_fault_at_the_head_is_a_503(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, place, boom)
    made = opened()
    of = await to_upstream(made, chat_flow())
    assert refused(of) == (503, "gateway_unavailable")
    assert (of.request.stream, of.request.host) == (False, "127.0.0.1")
    made.response(of)
    assert made.calls == {}


async def test_a_fault_at_the_head_of_a_free_path_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the body would be streamed through: the request must not go on."""
    monkeypatch.setattr(chain, "credentials", boom)
    of = await to_upstream(opened(), chat_flow("/openai/v1/files/1", method="GET", body=b""))
    assert (refused(of), of.request.stream) == ((503, "gateway_unavailable"), False)


async def test_a_fault_in_a_second_look_lets_nobody_in() -> None:
    made = opened()

    class Broken(FixedSnapshots):
        async def look(self) -> bool:
            raise RuntimeError("fault")

    made.services.snapshots = Broken(made.services.snapshots.current)
    of = await to_upstream(made, chat_flow(headers={"x-bf-vk": UNKNOWN}))
    assert refused(of) == (401, "virtual_key_not_found")
    assert of.request.host == "127.0.0.1"


async def test_a_refusal_that_cannot_be_written_is_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a response mitmproxy would send the request to wherever its Host header says."""
    made = opened()
    monkeypatch.setattr(made, "write_refusal", boom)
    of = await to_upstream(made, chat_flow(headers={"x-bf-vk": UNKNOWN}))
    assert refused(of) == (401, "virtual_key_not_found")
    assert of.response is not None and of.response.headers["x-should-retry"] == "false"


async def test_draining_takes_nothing_new() -> None:
    made = opened(draining=True)
    of = await to_upstream(made, chat_flow())
    assert refused(of) == (503, "gateway_unavailable")
    assert ledger_of(made).holds == []


# The guard after upstream


async def test_a_fault_as_the_answer_begins_is_a_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer passes as it came, and is charged by estimate: nothing is free by accident."""
    made = opened()
    of = await to_upstream(made, chat_flow())
    monkeypatch.setattr(chain, "answer", boom)
    response = come(of)
    with caplog.at_level(logging.ERROR):
        made.responseheaders(of)
        made.response(of)
    assert (response.content, response.status_code) == (ANSWER, 200)
    assert "the answer was passed on" in caplog.text
    (settlement,) = ledger_of(made).settlements
    assert (settlement.sent, settlement.estimated) == (True, True) and settlement.cost_nanos > 0


@pytest.mark.parametrize("place", ["settle", "record", "label"])
async def test_a_fault_at_the_end_is_a_log_line(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = opened()
    of = await to_upstream(made, chat_flow())
    response = come(of)
    made.responseheaders(of)
    monkeypatch.setattr(chain, place, boom)
    with caplog.at_level(logging.ERROR):
        made.response(of)
    assert response.content == ANSWER
    assert "after upstream" in caplog.text
    assert (made.calls, made.idle.is_set()) == ({}, True)
    assert len(ledger_of(made).settlements) == (0 if place == "settle" else 1)


async def test_a_reader_with_a_fault_loses_no_charge() -> None:
    """The whole answer cannot be read: it is passed on, settled at its hold, and has its row."""

    class Failing:
        def feed(self, chunk: bytes) -> bytes:
            raise RuntimeError("fault")

        def finish(self) -> bytes:
            return b""

        def reading(self) -> Reading:
            return Reading()

        def transcript(self, limit: int) -> str:
            return ""

        def cut(self, event: bytes, body: bytes) -> bytes:
            return event

    made = opened()
    of = await to_upstream(made, chat_flow())
    response = come(of)
    made.responseheaders(of)
    made.calls[of.id].reader = Failing()
    made.response(of)
    assert response.content == ANSWER
    (settlement,) = ledger_of(made).settlements
    assert (settlement.cost_nanos, settlement.estimated, len(rows_of(made))) == (65_100, True, 1)


@pytest.mark.parametrize("hook", ["responseheaders", "response", "error"])
def test_flows_of_nobody_are_left_alone(hook: str) -> None:
    """A flow that was loaded, replayed or ended before has no call."""
    of = chat_flow()
    response = come(of)
    getattr(opened(), hook)(of)
    assert (of.response, response.content) == (response, ANSWER)


# Endings


@pytest.mark.parametrize(
    ("message", "headed_already", "prepare", "outcome", "status"),
    [
        ("Client disconnected.", False, "", outcomes.CLIENT_LEFT, 499),
        ("server closed connection", False, "", outcomes.UPSTREAM_FAILED, 502),
        ("server closed connection", True, "", outcomes.UPSTREAM_FAILED, 502),
        ("too late", False, "timed_out", outcomes.TIMED_OUT, 504),
        ("connection refused", False, "unconnected", outcomes.UPSTREAM_FAILED, 502),
        ("Client disconnected.", False, "stopping", outcomes.STOPPED, 499),
        ("cut by the gateway", True, "cut", outcomes.CUT, 502),
    ],
)
async def test_how_it_broke(message: str, headed_already: bool, prepare: str, outcome: str, status: int) -> None:
    made = opened()
    of = await to_upstream(made, chat_flow())
    call = made.calls[of.id]
    if headed_already:
        come(of)
        made.responseheaders(of)
    if prepare == "timed_out":
        state_of(of).timed_out = "first_byte"
    elif prepare == "unconnected":
        of.server_conn.timestamp_start = None
    elif prepare == "stopping":
        made.runtime.draining = made.runtime.grace_over = True
    elif prepare == "cut":
        call.cut = True
    of.error = flow.Error(message)
    made.error(of)
    (settlement,) = ledger_of(made).settlements
    assert (settlement.note, settlement.sent) == (outcome, prepare != "unconnected")
    assert rows_of(made)[0].http_status == status
    assert made.idle.is_set()


async def test_a_refused_call_whose_client_left_is_voided() -> None:
    made = opened()
    of = await to_upstream(made, chat_flow(body=b"{"))
    assert refused(of)[0] == 400
    of.error = flow.Error("Client disconnected.")
    made.error(of)
    assert ledger_of(made).settlements == []
    assert rows_of(made)[0].status == "refused"


async def test_the_error_page_speaks_the_callers_dialect_after_the_call_is_gone() -> None:
    made = opened()
    of = await to_upstream(made, chat_flow("/anthropic/v1/messages", calls.message()))
    of.error = flow.Error("server closed connection")
    made.error(of)
    status, headers, body = made.write_fault(
        ProtocolFault(502, "upstream_unreachable", "The provider cannot be reached.", of, None)
    )
    told = json.loads(body)
    assert (status, told["type"], told["error"]["code"]) == (502, "error", "upstream_unreachable")
    assert dict(headers)[b"request-id"].decode() == rows_of(made)[0].id == told["request_id"]


async def test_an_error_page_without_any_flow() -> None:
    status, _, body = opened().write_fault(ProtocolFault(400, "invalid_request", "No HTTP.", None, None))
    assert (status, json.loads(body)["type"]) == (400, "invalid_request")


async def test_the_end_settles_what_is_open() -> None:
    """A stock tool that is stopped: mitmproxy fires neither `response` nor `error`."""
    made = opened()
    await to_upstream(made, chat_flow())
    await made.done()
    assert [(s.note, s.sent) for s in ledger_of(made).settlements] == [("stopped", True)]
    assert made.calls == {}


# Refusals


async def test_codex_is_told_in_its_own_words() -> None:
    state = cap_state(cap(), used=500_000_000)
    for agent, status in (("codex_cli_rs/0.60", 429), ("curl/8", 402)):
        made = opened()
        ledger_of(made).answers.append(Refused("x", (Exceeded(state, 65_250),), False))
        of = await to_upstream(made, chat_flow(headers={"user-agent": agent}))
        assert of.response is not None and of.response.status_code == status
        error = json.loads(of.response.content or b"")["error"]
        assert error["type"] == ("usage_limit_reached" if status == 429 else "budget_exceeded")
        assert "retry-after" not in of.response.headers


async def test_an_unknown_key_is_looked_for_before_it_is_refused() -> None:
    services = calls.services(calls.snapshot({}))
    services.snapshots = FixedSnapshots(services.snapshots.current, [calls.snapshot(revision=2)])
    of = await to_upstream(opened(services), chat_flow())
    assert (of.response, of.request.host) == (None, "api.openai.com")


async def test_a_key_that_nobody_knows_is_refused() -> None:
    of = await to_upstream(opened(), chat_flow(headers={"x-bf-vk": UNKNOWN}))
    assert refused(of) == (401, "virtual_key_not_found")
    assert of.response is not None and UNKNOWN not in (of.response.text or "")


async def test_a_web_socket_at_a_provider_is_426() -> None:
    of = chat_flow("/openai/v1/responses", method="GET", body=b"", headers={"upgrade": "websocket", "connection": "upgrade"})
    await to_upstream(opened(), of)
    assert refused(of) == (426, "upgrade_required")


# Client connections


def test_a_client_that_leaves_ends_its_waiting_holds_only() -> None:
    made = opened()
    waits, runs, other = chat_flow(), chat_flow(), chat_flow()
    for number, of in enumerate((waits, runs, other)):
        call = calls.call()
        call.id, call.flow = f"call-{number}", of
        made.calls[of.id] = call
    runs.client_conn = waits.client_conn
    made.calls[runs.id].hold = Granted("call-1", 1, False, ())
    made.client_disconnected(waits.client_conn)
    assert ledger_of(made).cancelled == ["call-0"]


def test_the_listeners_port_is_remembered_and_forgotten() -> None:
    made = opened()
    client = connection.Client(peername=("127.0.0.1", 5), sockname=("127.0.0.1", 8090), state=connection.ConnectionState.OPEN)
    made.client_connected(client)
    assert made.services.connections[client.id] == ConnectionFacts(port=8090)
    made.client_disconnected(client)
    assert made.services.connections == {}


# A stock tool before its stores are open

HOOKS: list[Callable[[Gateway, http.HTTPFlow], Awaitable[None] | None]] = [
    lambda made, of: made.http_connect(of),
    lambda made, of: made.requestheaders(of),
]


@pytest.mark.parametrize("hook", HOOKS)
async def test_before_the_stores_are_open_everything_is_refused(hook: Callable[..., Any]) -> None:
    made = Gateway()
    of = chat_flow()
    waiting = hook(made, of)
    if waiting is not None:
        await waiting
    assert refused(of) == (503, "gateway_unavailable")
    await made.request(of)
    made.responseheaders(of)
    made.response(of)
    assert refused(of) == (503, "gateway_unavailable")


async def test_before_the_stores_are_open_no_server_is_dialled() -> None:
    made = Gateway()
    data = server_hooks.ServerConnectionHookData(
        server=connection.Server(address=("api.openai.com", 443)), client=chat_flow().client_conn
    )
    made.server_connect(data)
    assert data.server.error is not None


async def test_before_the_stores_are_open_clients_come_and_go_and_the_tool_may_end() -> None:
    made = Gateway()
    client = chat_flow().client_conn
    made.client_connected(client)
    made.client_disconnected(client)
    await made.done()
    assert not made.is_open


# Plain requests to anybody


@pytest.mark.parametrize(
    ("host", "fields", "key", "expected"),
    [
        ("example.com", {}, None, None),
        ("example.com", {"unmatched": "deny"}, None, 403),
        ("example.com", {"require_auth": True}, None, 403),
        ("example.com", {"require_auth": True}, KEY, None),
        ("169.254.169.254", {}, None, 403),
        ("metadata.google.internal", {}, None, 403),
    ],
)
async def test_plain_requests(host: str, fields: dict[str, Any], key: str | None, expected: int | None) -> None:
    """Streamed through and not logged, or 403; the proxy's credentials stay here."""
    made = opened(**fields)
    of = connecting(host, 80, key)
    of.request.method, of.request.path = "GET", "/"
    state_of(of).form = "absolute"
    await to_upstream(made, of)
    assert (of.response.status_code if of.response else None) == expected
    assert of.request.stream is (expected is None)
    assert "proxy-authorization" not in of.request.headers
    made.response(of)
    assert rows_of(made) == []


def test_settlements_of_refused_flows_are_never_charges() -> None:
    """`refuse_flow` on a call in whatever state: the first refusal stands."""
    made = opened()
    of = chat_flow()
    made.refuse_flow(of, Refusal(503, "gateway_unavailable", "first"))
    made.refuse_flow(of, Refusal(500, "second", "second"))
    assert refused(of) == (503, "gateway_unavailable")
    made.response(of)
    assert ledger_of(made).settlements == []
    assert rows_of(made)[0].refusal_type == "gateway_unavailable"
