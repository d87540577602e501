"""Error pages: always JSON, through one writer, without quoting secrets."""

import asyncio
import socket

import pytest

from addons.proxy import faults, mitm

GET = b"GET /v1/models?key=sk-bf-secret HTTP/1.1\r\nHost: gw\r\n\r\n"


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def test_a_refused_connection_is_a_502(gateway):
    port = closed_port()
    gateway.recorder.upstream = ("127.0.0.1", port)
    wire = await gateway.wire()
    answer = await wire.ask(GET)
    assert answer.status == 502
    assert answer.headers["content-type"] == "application/json"
    page = answer.json()
    assert (page["type"], page["status_code"], page["error"]["code"]) == ("upstream_unreachable", 502, "upstream_unreachable")
    assert f"127.0.0.1:{port}" in page["message"]
    assert b"secret" not in answer.body
    assert gateway.recorder.names().count("error") == 1
    assert await wire.rest() == b""


SCRIPTS = {
    "closes before headers": (b"", "closed the connection before it answered"),
    "dies in its headers": (b"HTTP/1.1 200 OK\r\ncontent-le", "incomplete or malformed"),
    "dies in a buffered body": (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "incomplete or malformed"),
    "dies in a chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", "incomplete or malformed"),
    "is no HTTP": (b"SSH-2.0-OpenSSH sk-real-secret\r\n\r\n", "incomplete or malformed"),
    "contradicts itself": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "not valid HTTP",
    ),
    "has a bad length": (b"HTTP/1.1 200 OK\r\ncontent-length: three\r\n\r\nabc", "incomplete or malformed"),
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_an_upstream_that_gives_no_answer_is_a_502(gateway, upstream, name):
    data, expected = SCRIPTS[name]

    async def script(server, talk):
        await server.note(talk)
        await talk.send(data)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    answer = await (await gateway.wire()).ask(GET)
    assert answer.status == 502
    assert expected in answer.json()["message"]
    assert b"secret" not in answer.body
    assert gateway.recorder.names().count("error") == 1
    assert "response" not in gateway.recorder.names()


async def test_an_upstream_that_dies_in_a_streamed_body_breaks_the_answer(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nb")

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", True)
    wire = await gateway.wire()
    await wire.send(GET)
    assert (await wire.head()).status == 200
    assert await wire.chunk() == b"hello"
    assert not (await wire.rest()).endswith(b"0\r\n\r\n")
    await gateway.recorder.wait_for("error")
    assert gateway.recorder.names().count("error") == 1


async def test_a_head_request_gets_no_page(gateway):
    gateway.recorder.upstream = ("127.0.0.1", closed_port())
    wire = await gateway.wire()
    await wire.send(GET.replace(b"GET", b"HEAD"))
    answer = await wire.answer(head_only=True)
    assert answer.status == 502
    assert await wire.rest() == b""


async def test_the_writer_decides_about_the_page(gateway):
    seen = []

    def writer(fault):
        seen.append(fault)
        return 599, [(b"X-Reason", fault.code.encode()), (b"Content-Length", b"999")], b"mine"

    mitm.set_fault_writer(writer)
    gateway.recorder.upstream = ("127.0.0.1", closed_port())
    wire = await gateway.wire()
    answer = await wire.ask(GET)
    assert (answer.status, answer.body, answer.headers["x-reason"]) == (599, b"mine", "upstream_unreachable")
    (fault,) = seen
    assert fault.flow is gateway.recorder.last("error")
    assert (fault.path, fault.status) == ("/v1/models", 502)
    await (await gateway.wire()).ask(b"NONSENSE\r\n\r\n")
    assert (seen[1].code, seen[1].flow, seen[1].path) == ("bad_request", None, None)


async def test_a_writer_that_fails_is_replaced(gateway):
    def writer(fault):
        raise ZeroDivisionError

    mitm.set_fault_writer(writer)
    gateway.recorder.upstream = ("127.0.0.1", closed_port())
    answer = await (await gateway.wire()).ask(GET)
    assert (answer.status, answer.json()["type"]) == (502, "upstream_unreachable")


async def test_the_gateway_serves_others_while_one_upstream_fails(gateway, upstream):
    async def script(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    server = await upstream(script)
    good = await gateway.wire()
    for _ in range(3):
        gateway.recorder.upstream = ("127.0.0.1", closed_port())
        assert (await (await gateway.wire()).ask(GET)).status == 502
        gateway.recorder.upstream = ("127.0.0.1", server.port)
        assert (await good.ask(GET)).body == b"ok"


def test_a_page_carries_its_own_framing():
    fault = faults.ProtocolFault(413, "request_too_large", "too large", None, None)
    raw = faults.response_bytes(fault)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"content-length: %d" % len(body) in head
    assert b"connection: close" in head
    assert faults.response_bytes(fault, without_body=True) == head + b"\r\n\r\n"


async def test_killing_a_flow_writes_no_page(gateway):
    gateway.recorder.actions["request"] = lambda flow: flow.kill()
    wire = await gateway.wire()
    await wire.send(GET)
    assert await wire.rest() == b""
    await asyncio.wait_for(gateway.recorder.wait_for("error"), 5)
