"""Letting go of idle connections, and waiting for clients that take their answers slowly."""

import asyncio
import socket

import pytest
from mitmproxy import http

from addons.proxy import mitm
from addons.proxy.connections import live_clients

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"
LARGE = b"x" * 12_000_000
"""More than the kernel's buffers of a connection hold."""


def local(flow):
    flow.response = http.Response.make(200, b"here")


def large(flow):
    flow.response = http.Response.make(200, LARGE)


async def idle_client(gateway):
    wire = await gateway.wire()
    assert (await wire.ask(GET)).body == b"here"
    return wire


async def test_a_connection_is_closed_after_so_many_looks_without_change(gateway):
    gateway.recorder.actions["request"] = local
    wire = await idle_client(gateway)
    quiet = mitm.QuietClients(3)
    assert [quiet.close(busy=()) for _ in range(4)] == [0, 0, 0, 1]
    assert await wire.rest() == b""
    await gateway.until(lambda: not mitm.live_connections())
    assert quiet.close(busy=()) == 0


async def test_anything_that_comes_starts_the_count_again(gateway):
    gateway.recorder.actions["request"] = local
    wire = await idle_client(gateway)
    quiet = mitm.QuietClients(2)
    for _ in range(4):
        assert [quiet.close(busy=()) for _ in range(2)] == [0, 0]
        assert (await wire.ask(GET)).status == 200
    assert [quiet.close(busy=()) for _ in range(3)] == [0, 0, 1]


async def test_whoever_is_busy_is_left_alone_and_counted_anew_afterwards(gateway):
    gateway.recorder.actions["request"] = local
    await idle_client(gateway)
    (client,) = [handler.client.id for handler in live_clients()]
    quiet = mitm.QuietClients(1)
    assert [quiet.close(busy={client}) for _ in range(5)] == [0] * 5
    assert [quiet.close(busy=()) for _ in range(2)] == [0, 1]


async def test_a_client_that_never_said_anything_is_let_go_too(gateway):
    wire = await gateway.wire()
    await gateway.until(mitm.live_connections)
    quiet = mitm.QuietClients(1)
    assert [quiet.close(busy=()) for _ in range(2)] == [0, 1]
    assert await wire.rest() == b""


async def test_a_raw_tunnel_stays_however_quiet_it_is(gateway, upstream):
    async def script(server, talk):
        await talk.send(await talk.reader.readexactly(4))
        await server.await_close(talk)

    server = await upstream(script)
    wire, answer = await gateway.tunnel_to("127.0.0.1", server.port)
    assert answer.status == 200
    quiet = mitm.QuietClients(1)
    assert [quiet.close(busy=()) for _ in range(5)] == [0] * 5
    await wire.send(b"echo")
    assert await wire.reader.readexactly(4) == b"echo"


@pytest.fixture
async def slow_reader(gateway):
    """A client that was answered with far more than it takes, on a connection that ends with the answer."""
    gateway.recorder.actions["request"] = large
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (gateway.host, gateway.port))
    await asyncio.get_running_loop().sock_sendall(sock, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await gateway.until(mitm.unsent_answers)
    yield sock
    sock.close()


async def take_all(sock: socket.socket) -> int:
    count = 0
    while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1_000_000), 20):
        count += len(data)
    return count


async def test_a_client_counts_until_it_has_everything(gateway, slow_reader):
    quiet = mitm.QuietClients(1)
    assert [quiet.close(busy=()) for _ in range(4)] == [0] * 4
    await asyncio.sleep(0.1)
    assert (mitm.live_connections(), mitm.unsent_answers()) == (1, 1)
    assert await take_all(slow_reader) > len(LARGE)
    await gateway.until(lambda: not mitm.live_connections())
    assert mitm.unsent_answers() == 0


async def test_a_client_that_goes_without_taking_it_counts_no_more(gateway, slow_reader):
    slow_reader.close()
    await gateway.until(lambda: not mitm.live_connections())
    assert mitm.unsent_answers() == 0
