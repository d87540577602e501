"""What a client may send: heads, bodies, how slowly, how much."""

import asyncio
import resource

import pytest
from mitmproxy import http

from addons.proxy import client_side, mitm
from addons.proxy.limits import Limits

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"
KIB = 1024
GONE = (ConnectionError, RuntimeError)  # what asyncio and uvloop raise for a write to a closed connection


def local(flow):
    flow.response = http.Response.make(200, b"%d" % len(flow.request.content))


@pytest.fixture
def answering(gateway):
    gateway.recorder.actions["request"] = local
    return gateway


# -- bodies ----------------------------------------------------------------------------------------------------------


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(answering):
    mitm.set_limits(Limits(max_body_bytes=1000))
    wire = await answering.wire()
    answer = await wire.ask(b"POST /x?key=1 HTTP/1.1\r\nHost: gw\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
    assert answer.status == 413
    assert answer.json()["type"] == "request_too_large"
    assert "1000 bytes" in answer.json()["message"]
    assert answer.headers["connection"] == "close"
    assert answering.recorder.names().count("error") == 1
    assert "request" not in answering.recorder.names()


async def test_a_body_at_the_limit_passes(answering):
    mitm.set_limits(Limits(max_body_bytes=1000))
    wire = await answering.wire()
    for _ in range(2):
        answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        assert answer.body == b"1000"


async def test_chunks_are_counted(answering):
    mitm.set_limits(Limits(max_body_bytes=1000))
    wire = await answering.wire()
    await wire.send(b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(3):
        await wire.send(b"1f4\r\n" + b"x" * 500 + b"\r\n")
    answer = await wire.answer()
    assert answer.status == 413
    # The client may still be sending; the connection closes when its body is over.
    await wire.send(b"1f4\r\n" + b"x" * 500 + b"\r\n0\r\n\r\n")
    assert await wire.rest() == b""
    await answering.recorder.wait_for("client_disconnected")
    assert answering.recorder.names().count("error") == 1


async def test_a_flow_may_have_its_own_limit(answering):
    mitm.set_limits(Limits(max_body_bytes=1000))
    limits = iter([100, 5000, None])
    answering.recorder.actions["requestheaders"] = lambda flow: mitm.set_body_limit(flow, next(limits))
    for size, status in ((101, 413), (5000, 200), (100_000, 200)):
        wire = await answering.wire()
        answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        assert answer.status == status, size


async def test_streamed_bodies_and_answers_are_not_limited(gateway, upstream):
    mitm.set_limits(Limits(max_body_bytes=1000))

    async def script(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n" + b"y" * 50_000)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["requestheaders"] = lambda flow: setattr(flow.request, "stream", True)
    wire = await gateway.wire()
    answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)
    assert (answer.status, len(answer.body)) == (200, 50_000)
    assert server.bodies == [b"x" * 5000]


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_a_huge_upload_is_refused_without_being_kept(answering, framing):
    size, piece = 100 * KIB * KIB, b"x" * (64 * KIB)
    head = {"content-length": b"Content-Length: %d" % size, "chunked": b"Transfer-Encoding: chunked"}[framing]
    wrap = (lambda data: data) if framing == "content-length" else (lambda data: b"%x\r\n%s\r\n" % (len(data), data))
    mitm.set_limits(Limits(max_body_bytes=2 * KIB * KIB))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wire = await answering.wire()
    await wire.send(b"POST / HTTP/1.1\r\nHost: gw\r\n" + head + b"\r\n\r\n")
    for _ in range(size // len(piece)):
        await wire.send(wrap(piece))
    answer = await wire.answer()
    assert answer.status == 413
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * KIB  # in KiB on Linux
    assert (await (await answering.wire()).ask(GET)).body == b"0"


async def test_a_refused_upload_that_stalls_is_closed(answering, monkeypatch):
    monkeypatch.setattr(client_side, "LINGER_SECONDS", 0.1)
    mitm.set_limits(Limits(max_body_bytes=1000))
    wire = await answering.wire()
    answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5000\r\n\r\n" + b"x" * 100)
    assert answer.status == 413
    assert await wire.rest() == b""


async def test_a_body_that_outruns_a_slow_hook_is_not_kept(answering, monkeypatch):
    mitm.set_limits(Limits(max_body_bytes=100_000))
    monkeypatch.setattr(client_side, "UNDECIDED_BYTES", 100_000)
    go_on = asyncio.Event()

    async def slow(flow):
        await go_on.wait()

    answering.recorder.actions["requestheaders"] = slow
    wire = await answering.wire()
    await wire.send(b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        await wire.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
    go_on.set()
    assert (await wire.answer()).status == 413


async def test_the_413_page_does_not_hang_after_a_100_continue(answering):
    mitm.set_limits(Limits(max_body_bytes=1000))
    wire = await answering.wire()
    head = b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    await wire.send(head)
    assert (await wire.head()).status == 100
    assert (await wire.ask(b"800\r\n" + b"x" * 0x800 + b"\r\n0\r\n\r\n")).status == 413


async def test_a_client_that_leaves_in_its_body_is_no_answer(answering):
    wire = await answering.wire()
    await wire.send(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5000\r\n\r\n" + b"x" * 100)
    await answering.recorder.wait_for("requestheaders")
    await wire.close()
    await answering.recorder.wait_for("error")
    assert "request" not in answering.recorder.names()


# -- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [False, True])
async def test_a_head_over_the_limit_is_a_431(answering, complete):
    mitm.set_limits(Limits(max_header_bytes=2000))
    wire = await answering.wire()
    assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: gw\r\nx-pad: " + b"a" * 1900 + b"\r\n\r\n")).status == 200
    head = b"GET / HTTP/1.1\r\nHost: gw\r\nx-pad: " + b"a" * 3000 + (b"\r\n\r\n" if complete else b"")
    answer = await wire.ask(head)
    assert answer.status == 431
    assert answer.json()["type"] == "headers_too_large"
    assert answering.recorder.names().count("request") == 1


async def test_an_endless_head_is_neither_kept_nor_endless(answering, monkeypatch):
    monkeypatch.setattr(client_side, "LINGER_SECONDS", 0.3)
    wire = await answering.wire()
    with pytest.raises(GONE):
        for _ in range(5_000):
            await wire.send(b"x-a: " + b"a" * 10_000 + b"\r\n")
            await asyncio.sleep(0.001)
    assert (await (await answering.wire()).ask(GET)).status == 200


async def test_a_large_body_right_behind_its_head_is_no_large_head(answering):
    mitm.set_limits(Limits(max_header_bytes=200))
    wire = await answering.wire()
    answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)
    assert answer.body == b"5000"


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nHost: gw\r\n"])
async def test_heads_must_arrive_in_time(gateway, start):
    await gateway.stop()
    mitm.set_limits(Limits(header_timeout_seconds=0.2))
    await gateway.start()
    wire = await gateway.wire()
    began = asyncio.get_running_loop().time()
    await wire.send(start)
    assert await wire.rest() == b""
    assert 0.15 < asyncio.get_running_loop().time() - began < 2


async def test_a_dripping_head_is_not_in_time(answering):
    mitm.set_limits(Limits(header_timeout_seconds=0.2))
    wire = await answering.wire()
    began = asyncio.get_running_loop().time()
    with pytest.raises(GONE):
        for byte in GET[:-1] + b"a" * 1000:
            await wire.send(bytes([byte]))
            await asyncio.sleep(0.02)
    assert asyncio.get_running_loop().time() - began < 2


async def test_idle_connections_stay_but_later_heads_must_be_quick(answering):
    mitm.set_limits(Limits(header_timeout_seconds=0.15))
    wire = await answering.wire()
    assert (await wire.ask(GET)).status == 200
    await asyncio.sleep(0.4)
    assert (await wire.ask(GET)).status == 200
    await wire.send(GET[:10])
    began = asyncio.get_running_loop().time()
    assert await wire.rest() == b""
    assert 0.1 < asyncio.get_running_loop().time() - began < 2


async def test_blank_lines_before_a_request_are_skipped(answering):
    wire = await answering.wire()
    assert (await wire.ask(b"\r\n\r\n" + GET)).status == 200
    assert (await wire.ask(b"\r\n" + GET)).status == 200


async def test_pipelined_requests_are_answered_in_order(answering):
    wire = await answering.wire()
    await wire.send(b"".join(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n%s" % (n, b"x" * n) for n in range(1, 5)))
    assert [(await wire.answer()).body for _ in range(4)] == [b"1", b"2", b"3", b"4"]


async def test_a_client_that_never_stops_sending_is_closed(gateway, upstream):
    mitm.set_limits(Limits(max_body_bytes=100_000, max_header_bytes=10_000))

    async def script(server, talk):
        await server.note(talk)
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    await wire.send(GET)
    await gateway.recorder.wait_for("request")
    with pytest.raises(GONE):
        for _ in range(10_000):
            await wire.send(b"x" * 10_000)
            await asyncio.sleep(0)
    await asyncio.wait_for(server.closed.wait(), 5)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE sk-bf-secret\r\n\r\n",
        b"GET / HTTP/9\r\nHost: gw\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost gw\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : gw\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: -3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: nonsense\r\n\r\nabc",
        b"GET http://a:b:c/ HTTP/1.1\r\nHost: gw\r\n\r\n",
        b"CONNECT nowhere HTTP/1.1\r\nHost: gw\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_400_in_json_that_quotes_nothing(answering, request_bytes):
    wire = await answering.wire()
    answer = await wire.ask(request_bytes)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["type"] == "bad_request"
    assert b"secret" not in answer.body and b"html" not in answer.body
    await wire.rest()
    assert "request" not in answering.recorder.names()
