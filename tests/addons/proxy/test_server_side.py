"""What upstream servers may send before their answer."""

import asyncio

import pytest

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /v1/models?key=x HTTP/1.1\r\nHost: gw\r\n\r\n"


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


async def test_an_endless_answer_head_is_a_502(gateway, upstream):
    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await talk.send(b"x-a: " + b"a" * 10_000 + b"\r\n")

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    assert (await (await gateway.wire()).ask(GET)).status == 502
