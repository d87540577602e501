"""Request forms, interim answers, trailers: exchanges that mitmproxy alone would lose, hang or misread."""

import asyncio
import json

import pytest
from mitmproxy import http

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /v1/models?key=x HTTP/1.1\r\nHost: gw\r\n\r\n"


async def echo(server, talk):
    while True:
        await server.note(talk)
        await talk.send(OK)


async def test_one_connection_alternates_between_servers(gateway, upstream):
    servers = [await upstream(echo), await upstream(echo)]
    wire = await gateway.wire()
    for turn in range(4):
        gateway.recorder.upstream = ("127.0.0.1", servers[turn % 2].port)
        assert (await wire.ask(GET)).body == b"ok"
    assert [len(server.heads) for server in servers] == [2, 2]
    assert [server.connections for server in servers] == [1, 1]


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
