"""Request forms, interim answers, trailers: exchanges that mitmproxy alone would lose, hang or misread."""

import asyncio
import json

import pytest
from mitmproxy import http

from addons.proxy import mitm

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /v1/models?key=x HTTP/1.1\r\nHost: gw\r\n\r\n"


async def echo(server, talk):
    while True:
        await server.note(talk)
        await talk.send(OK)


@pytest.mark.parametrize(
    ("line", "form"),
    [
        (b"GET /path HTTP/1.1", "origin"),
        (b"GET http://127.0.0.1:%d/path HTTP/1.1", "absolute"),
        (b"get HTTP://127.0.0.1:%d/path HTTP/1.1", "absolute"),
        (b"OPTIONS * HTTP/1.1", "origin"),
    ],
)
async def test_the_form_of_the_request_line_is_kept(gateway, upstream, line, form):
    server = await upstream(echo)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    head = (line % server.port if b"%d" in line else line) + b"\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port
    answer = await wire.ask(head)
    assert (answer.status, answer.body) == (200, b"ok")
    flow = gateway.recorder.last("requestheaders")
    assert mitm.request_form(flow) == form
    assert mitm.connect_target(flow) is None


async def test_connect_is_in_authority_form(gateway, upstream):
    server = await upstream(echo)
    _, answer = await gateway.tunnel_to("127.0.0.1", server.port)
    assert answer.status == 200
    flow = gateway.recorder.last("http_connect")
    assert mitm.request_form(flow) == "authority"
    assert mitm.connect_target(flow) is None


async def test_requests_inside_connect_know_their_form_and_their_connect(gateway, upstream):
    server = await upstream(echo)
    gateway.recorder.is_intercepted = lambda host, port: True
    wire, _ = await gateway.tunnel_to("127.0.0.1", server.port)
    for path, form in ((b"/a", "origin"), (b"http://127.0.0.1:%d/b" % server.port, "absolute"), (b"/c", "origin")):
        answer = await wire.ask(b"GET %s HTTP/1.1\r\nHost: somewhere.else\r\n\r\n" % path)
        assert answer.body == b"ok"
        flow = gateway.recorder.last("requestheaders")
        assert mitm.request_form(flow) == form
        assert mitm.connect_target(flow) == ("127.0.0.1", server.port)


async def test_one_connection_alternates_between_servers(gateway, upstream):
    servers = [await upstream(echo), await upstream(echo)]
    wire = await gateway.wire()
    for turn in range(4):
        gateway.recorder.upstream = ("127.0.0.1", servers[turn % 2].port)
        assert (await wire.ask(GET)).body == b"ok"
    assert [len(server.heads) for server in servers] == [2, 2]
    assert [server.connections for server in servers] == [1, 1]


@pytest.mark.parametrize("pieces", [1, 7], ids=["at-once", "in-pieces"])
async def test_interim_answers_are_swallowed(gateway, upstream, pieces):
    interim = (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n"
    )

    async def script(server, talk):
        while True:
            await server.note(talk)
            data = interim + OK
            size = -(-len(data) // pieces)
            for start in range(0, len(data), size):
                await talk.send(data[start : start + size])
                await asyncio.sleep(0.005)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    for _ in range(2):
        answer = await wire.ask(GET)
        assert (answer.status, answer.body) == (200, b"ok")
        assert "link" not in answer.headers
    assert gateway.recorder.names().count("response") == 2
    assert gateway.recorder.last("response").response.status_code == 200
    assert server.connections == 1


async def test_an_upstream_that_dies_in_an_interim_answer_is_a_502(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Ear")

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    answer = await (await gateway.wire()).ask(GET)
    assert answer.status == 502
    assert answer.json()["type"] == "upstream_unreachable"


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
async def test_trailers_of_an_answer_are_dropped(gateway, upstream, stream):
    async def script(server, talk):
        while True:
            await server.note(talk)
            await talk.send(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
                b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"
            )

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", stream)
    wire = await gateway.wire()
    for _ in range(2):
        answer = await wire.ask(GET)
        assert (answer.status, answer.body) == (200, b"hello")
    assert server.connections == 1
    assert "error" not in gateway.recorder.names()


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
async def test_trailers_of_a_request_are_dropped(gateway, upstream, stream):
    server = await upstream(echo)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["requestheaders"] = lambda flow: setattr(flow.request, "stream", stream)
    wire = await gateway.wire()
    for _ in range(2):
        answer = await wire.ask(
            b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
        )
        assert answer.body == b"ok"
    assert server.bodies == [b"5\r\nhello\r\n0\r\n\r\n"] * 2


@pytest.mark.parametrize("direction", ["request", "answer"])
async def test_endless_trailers_end_the_exchange(gateway, upstream, direction):
    junk = b"x-a: " + b"a" * 1000 + b"\r\n"

    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        while True:
            await talk.send(junk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    if direction == "answer":
        assert (await wire.ask(GET)).status == 502
    else:
        await wire.send(b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        with pytest.raises((ConnectionError, RuntimeError)):
            for _ in range(10_000):
                await wire.send(junk)
                await asyncio.sleep(0)
    await gateway.recorder.wait_for("error")


async def test_h2c_upgrades_do_not_reach_a_streamed_upload(gateway, upstream):
    server = await upstream(echo)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["requestheaders"] = lambda flow: setattr(flow.request, "stream", True)
    await (await gateway.wire()).ask(
        b"POST / HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        b"Content-Length: 2\r\n\r\nhi"
    )
    lowered = server.heads[0].lower()
    assert b"h2c" not in lowered and b"http2-settings" not in lowered and b"upgrade" not in lowered


async def test_http_1_0_without_host_is_for_the_gateway_itself(gateway):
    def reply(flow):
        flow.response = http.Response.make(200, b"fine")

    gateway.recorder.actions["request"] = reply
    wire = await gateway.wire()
    await wire.send(b"GET /health HTTP/1.0\r\n\r\n")
    assert (await wire.rest()).endswith(b"fine")
    flow = gateway.recorder.last("request")
    assert (flow.request.host, flow.request.port) == (gateway.host, gateway.port)


async def test_http_1_1_without_host_is_a_400_in_json(gateway):
    wire = await gateway.wire()
    answer = await wire.ask(b"GET /health HTTP/1.1\r\n\r\n")
    assert answer.status == 400
    assert "Host" in json.loads(answer.body)["message"]
    assert await wire.rest() == b""


@pytest.mark.parametrize("broken", ["raises", "returns nothing"])
async def test_a_stream_callable_that_fails_ends_the_exchange(gateway, upstream, broken):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await server.await_close(talk)

    def tee(data):
        if broken == "raises":
            raise ZeroDivisionError

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", tee)
    wire = await gateway.wire()
    await wire.send(GET)
    assert (await wire.head()).status == 200
    assert await wire.rest() == b""
    await gateway.recorder.wait_for("error")
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_a_client_that_leaves_ends_the_upstream_side(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", True)
    wire = await gateway.wire()
    await wire.send(GET)
    await wire.head()
    assert await wire.chunk() == b"hello"
    await wire.close()
    await asyncio.wait_for(server.closed.wait(), 5)
    assert (await gateway.recorder.wait_for("error")).error.msg == "Client disconnected."
