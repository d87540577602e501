"""The watchdog's three timers, and that it leaves everything else alone."""

import asyncio
import socket

import pytest

from addons.proxy.limits import Limits
from addons.proxy.timeouts import Watchdog, timed_out

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = {"connect_timeout_seconds": 60.0, "first_byte_timeout_seconds": 60.0, "idle_stream_timeout_seconds": 60.0}


def watch(gateway, stream=True, **seconds):
    dog = Watchdog(Limits(**{**LONG, **seconds}))

    def headers(flow):
        dog.headers(flow)
        flow.response.stream = stream

    gateway.recorder.actions.update(request=dog.sent, responseheaders=headers, response=dog.done, error=dog.done)
    return dog


@pytest.fixture
def full_listener():
    """A port whose queue of connections is full: connecting to it neither succeeds nor fails."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    waiting = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(sock.getsockname())
        waiting.append(client)
    yield sock.getsockname()[1]
    for client in [*waiting, sock]:
        client.close()


async def test_connecting_too_long_is_a_504(gateway, full_listener):
    dog = watch(gateway, connect_timeout_seconds=0.2)
    gateway.recorder.upstream = ("127.0.0.1", full_listener)
    answer = await (await gateway.wire()).ask(GET)
    assert (answer.status, answer.json()["type"]) == (504, "upstream_timeout")
    assert "accept a connection" in answer.json()["message"]
    flow = gateway.recorder.last("error")
    assert timed_out(flow) == "connect"
    assert len(dog) == 0


async def test_a_tls_handshake_that_hangs_counts_as_connecting(gateway, upstream):
    async def script(server, talk):
        await server.await_close(talk)

    server = await upstream(script)
    dog = watch(gateway, connect_timeout_seconds=0.2)

    def to_tls(flow):
        flow.request.scheme, flow.request.host, flow.request.port = "https", "127.0.0.1", server.port

    gateway.recorder.actions["requestheaders"] = to_tls
    answer = await (await gateway.wire()).ask(GET)
    assert answer.status == 504
    assert timed_out(gateway.recorder.last("error")) == "connect"
    await asyncio.wait_for(server.closed.wait(), 5)
    assert len(dog) == 0


async def test_no_first_byte_is_a_504(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    watch(gateway, connect_timeout_seconds=0.05, first_byte_timeout_seconds=0.3)
    began = asyncio.get_running_loop().time()
    answer = await (await gateway.wire()).ask(GET)
    assert 0.25 < asyncio.get_running_loop().time() - began < 2
    assert (answer.status, answer.json()["type"]) == (504, "upstream_timeout")
    flow = gateway.recorder.last("error")
    assert (timed_out(flow), flow.response) == ("first_byte", None)
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_interim_answers_do_not_count_as_a_beginning(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    watch(gateway, first_byte_timeout_seconds=0.2)
    assert (await (await gateway.wire()).ask(GET)).status == 504


@pytest.mark.parametrize("framing", [CHUNKED + b"5\r\nhello\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello"], ids=["chunked", "until close"])
async def test_a_stream_that_stalls_breaks_off_with_an_error(gateway, upstream, framing):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(framing)
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    dog = watch(gateway, idle_stream_timeout_seconds=0.2)
    wire = await gateway.wire()
    await wire.send(GET)
    assert (await wire.head()).status == 200
    assert b"hello" in await wire.rest()
    flow = await gateway.recorder.wait_for("error")
    assert timed_out(flow) == "idle"
    assert flow.error.msg == "the upstream server stopped sending its answer"
    assert "response" not in gateway.recorder.names()
    await asyncio.wait_for(server.closed.wait(), 5)
    assert len(dog) == 0


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "buffered"])
async def test_a_slow_but_steady_answer_is_left_alone(gateway, upstream, stream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(CHUNKED)
        for _ in range(10):
            await asyncio.sleep(0.06)
            await talk.send(b"5\r\nhello\r\n")
        await talk.send(b"0\r\n\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    dog = watch(gateway, stream, idle_stream_timeout_seconds=0.2)
    answer = await (await gateway.wire()).ask(GET)
    assert answer.body == b"hello" * 10
    assert timed_out(gateway.recorder.last("response")) is None
    assert len(dog) == 0


async def test_a_buffered_answer_that_stalls_is_a_504(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(CHUNKED + b"5\r\nhello\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    watch(gateway, stream=False, idle_stream_timeout_seconds=0.2)
    assert (await (await gateway.wire()).ask(GET)).status == 504


async def test_a_flow_without_upstream_is_not_left_hanging(gateway):
    dog = watch(gateway, connect_timeout_seconds=0.1)
    never = asyncio.Event()

    async def stuck(flow):
        dog.sent(flow)
        await never.wait()

    gateway.recorder.actions["request"] = stuck
    wire = await gateway.wire()
    await wire.send(GET)
    assert await wire.rest() == b""
    never.set()
    await gateway.recorder.wait_for("error")
    assert len(dog) == 0


async def test_one_timer_a_flow_however_many_chunks(gateway, upstream, monkeypatch):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(CHUNKED + b"1\r\nx\r\n" * 1000)
        await asyncio.sleep(0.02)
        await talk.send(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    armed = []
    original = Watchdog._arm
    monkeypatch.setattr(Watchdog, "_arm", lambda self, watch, due: (armed.append(due), original(self, watch, due))[1])
    watch(gateway)
    assert len((await (await gateway.wire()).ask(GET)).body) == 2000
    assert len(armed) <= 2


async def test_activity_without_a_core_puts_off_the_end(gateway):
    dog = Watchdog(Limits(**{**LONG, "idle_stream_timeout_seconds": 0.15}))
    flows = []

    async def hold(flow):
        flows.append(flow)
        dog.sent(flow)
        dog.headers(flow)
        for _ in range(6):
            await asyncio.sleep(0.05)
            dog.activity(flow)
        flow.response = None
        dog.done(flow)
        flow.kill()

    gateway.recorder.actions["request"] = hold
    wire = await gateway.wire()
    await wire.send(GET)
    assert await wire.rest() == b""
    assert timed_out(flows[0]) is None
