"""Cutting a streamed answer: a proper end for the client, none for the upstream server."""

import asyncio

import pytest

from addons.proxy import mitm

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Tee:
    """A stream callable that cuts the answer when it has seen enough."""

    def __init__(self, flow, after, farewell=b"event: error"):
        self.flow, self.after, self.farewell, self.seen, self.calls_after = flow, after, farewell, b"", 0

    def __call__(self, data):
        if mitm.is_cut(self.flow):
            self.calls_after += 1
            return []
        self.seen += data
        if len(self.seen) >= self.after:
            return mitm.cut_stream(self.flow, [data, self.farewell])
        return data


def cutting(gateway, after, **options):
    tees = []

    def tee(flow):
        if options.get("cuttable"):
            mitm.make_cuttable(flow)
        flow.response.stream = Tee(flow, after)
        tees.append(flow.response.stream)

    gateway.recorder.actions["responseheaders"] = tee
    return tees


async def test_a_chunked_answer_ends_properly_and_the_connection_goes_on(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(CHUNKED + b"5\r\nhello\r\n")
        try:
            while True:
                await talk.send(b"5\r\nagain\r\n")
                await asyncio.sleep(0.01)
        finally:
            server.closed.set()

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    for turn in range(3):
        server.closed.clear()
        tees = cutting(gateway, after=10)
        answer = await wire.ask(GET)
        assert answer.body == b"helloagain" + b"event: error"
        await asyncio.wait_for(server.closed.wait(), 5)
        assert tees[0].calls_after == 0
        assert server.connections == turn + 1
    names = gateway.recorder.names()
    await gateway.recorder.wait_for("error")
    assert (names.count("error"), names.count("response")) == (3, 0)
    assert gateway.recorder.last("error").error.msg == "cut by the gateway"


@pytest.mark.parametrize("ending", ["after the cut", "in the same packet"])
async def test_an_answer_that_ends_as_it_is_cut_ends_once(gateway, upstream, ending):
    async def script(server, talk):
        while True:
            await server.note(talk)
            if ending == "in the same packet":
                await talk.send(CHUNKED + b"5\r\nhello\r\n5\r\nagain\r\n0\r\n\r\n")
            else:
                await talk.send(CHUNKED + b"5\r\nhello\r\n")
                await asyncio.sleep(0)
                await talk.send(b"5\r\nagain\r\n0\r\n\r\n")

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    for turn in range(3):
        cutting(gateway, after=5)
        assert (await wire.ask(GET)).body == b"hello" + b"event: error"
        await gateway.until(lambda turn=turn: gateway.recorder.names().count("error") > turn)
    assert gateway.recorder.names().count("error") == 3
    assert "response" not in gateway.recorder.names()


async def test_a_slow_error_hook_does_not_delay_the_end_and_the_next_request_waits(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(CHUNKED + b"5\r\nhello\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    go_on = asyncio.Event()

    async def slow(flow):
        await go_on.wait()

    gateway.recorder.actions["error"] = slow
    cutting(gateway, after=5)
    wire = await gateway.wire()
    assert (await wire.ask(GET)).body == b"hello" + b"event: error"
    await wire.send(GET)
    await gateway.recorder.wait_for("error")
    await asyncio.sleep(0.05)
    assert gateway.recorder.names().count("requestheaders") == 1
    go_on.set()
    assert (await wire.answer()).body == b"hello" + b"event: error"


async def test_an_answer_that_ends_with_its_connection_is_cut_by_closing(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    cutting(gateway, after=5)
    wire = await gateway.wire()
    assert (await wire.ask(GET)).body == b"hello" + b"event: error"
    assert (await gateway.recorder.wait_for("error")).error.msg == "cut by the gateway"
    await asyncio.wait_for(server.closed.wait(), 5)
    assert "response" not in gateway.recorder.names()


async def test_an_answer_with_a_length_is_broken_off(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    cutting(gateway, after=5)
    wire = await gateway.wire()
    await wire.send(GET)
    assert (await wire.head()).headers["content-length"] == "100"
    assert await wire.rest() == b""
    await gateway.recorder.wait_for("error")
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_an_answer_with_a_length_can_be_made_cuttable(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    wire = await gateway.wire()
    for _ in range(2):
        cutting(gateway, after=5, cuttable=True)
        answer = await wire.ask(GET)
        assert answer.body == b"hello" + b"event: error"
        assert "content-length" not in answer.headers


async def test_a_cuttable_answer_that_is_not_cut_is_whole(gateway, upstream):
    async def script(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhelloagain")

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    cutting(gateway, after=1000, cuttable=True)
    wire = await gateway.wire()
    for _ in range(2):
        assert (await wire.ask(GET)).body == b"helloagain"
    assert gateway.recorder.names().count("response") == 2
    assert server.connections == 1


async def test_the_client_may_leave_as_it_is_cut(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(CHUNKED + b"5\r\nhello\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    cutting(gateway, after=5)
    for _ in range(5):
        wire = await gateway.wire()
        await wire.send(GET)
        await wire.head()
        await wire.close()
    await gateway.until(lambda: gateway.recorder.names().count("error") == 5)
    await asyncio.sleep(0.02)
    assert gateway.recorder.names().count("error") == 5
