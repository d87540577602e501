"""Chunked bodies: trailers, and framing without end."""

import asyncio

import h11
import pytest
from h11._receivebuffer import ReceiveBuffer
from hypothesis import given
from hypothesis import strategies as st

from addons.proxy.bodies import MAX_FRAMING_BYTES, BoundedChunkedReader, make_body_reader

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /v1/models?key=x HTTP/1.1\r\nHost: gw\r\n\r\n"


async def echo(server, talk):
    while True:
        await server.note(talk)
        await talk.send(OK)


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


def read(pieces):
    """The body and the last event that a reader makes of these pieces."""
    reader, buffer, body = BoundedChunkedReader(), ReceiveBuffer(), b""
    for piece in pieces:
        buffer += piece
        while (event := reader(buffer)) is not None:
            if isinstance(event, h11.EndOfMessage):
                return body, event
            body += bytes(event.data)
    return body, None


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    st.lists(st.sampled_from([b"x-sum: 1", b"x-more: two"]), max_size=3),
    st.lists(st.integers(1, 30), min_size=1, max_size=50),
)
def test_bodies_are_whole_however_they_are_split(chunks, trailers, cuts):
    wire = b"".join(b"%x;note=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    wire += b"0\r\n" + b"".join(trailer + b"\r\n" for trailer in trailers) + b"\r\n"
    pieces, start = [], 0
    while start < len(wire):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(wire[start : start + size])
        start += size
    body, end = read(pieces)
    assert body == b"".join(chunks)
    assert end is not None and not end.headers


@pytest.mark.parametrize("start", [b"5;note=", b"0\r\nx-a: "])
def test_framing_without_end_is_an_error(start):
    with pytest.raises(h11.RemoteProtocolError, match="too long"):
        read([start, *[b"a" * 1000] * (MAX_FRAMING_BYTES // 1000 + 2)])


def test_other_framings_are_left_to_mitmproxy():
    assert type(make_body_reader(5)).__name__ == "ContentLengthReader"
    assert type(make_body_reader(-1)).__name__ == "Http10Reader"
    assert isinstance(make_body_reader(None), BoundedChunkedReader)
