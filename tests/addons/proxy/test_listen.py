"""Listening sockets: inherited ones, several at once, and giving them up without hurting anybody."""

import asyncio
import os
import socket

import pytest
from mitmproxy import http

from addons.proxy import mitm
from addons.proxy.limits import Limits

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"


def local(flow):
    flow.response = http.Response.make(200, b"here")


async def test_the_loop_under_test_is_the_one_named(request):
    loop = asyncio.get_running_loop()
    assert ("uvloop" in request.node.name) == ("uvloop" in type(loop).__module__)


async def test_inherited_sockets_are_served_and_reported(gateway):
    gateway.recorder.actions["request"] = local
    await mitm.stop_accepting(gateway.master)
    first, second = mitm.open_sockets("127.0.0.1", 0)[0], mitm.open_sockets("127.0.0.1", 0)[0]
    ports = [first.getsockname()[1], second.getsockname()[1]]
    await mitm.serve_sockets(gateway.master, [first, second])
    for port in ports:
        gateway.port = port
        assert (await (await gateway.wire()).ask(GET)).body == b"here"
        assert gateway.recorder.last("request").client_conn.sockname[1] == port
    addon = gateway.master.addons.get("proxyserver")
    assert [address[1] for address in addon.listen_addrs()] == ports


async def test_stopping_keeps_live_connections_and_siblings(gateway, upstream):
    go_on = asyncio.Event()

    async def script(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await go_on.wait()
            await talk.send(b"3\r\nbye\r\n0\r\n\r\n")

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    gateway.recorder.actions["responseheaders"] = lambda flow: setattr(flow.response, "stream", True)
    await mitm.stop_accepting(gateway.master)
    ours = mitm.open_sockets("127.0.0.1", 0)[0]
    # What a sibling process holds: its own descriptor for the same listening socket.
    siblings = socket.socket(fileno=os.dup(ours.fileno()))
    gateway.port = ours.getsockname()[1]
    await mitm.serve_sockets(gateway.master, [ours])
    wire = await gateway.wire()
    await wire.send(GET)
    await wire.head()
    assert await wire.chunk() == b"hello"

    await mitm.stop_accepting(gateway.master)
    await asyncio.sleep(0.05)
    assert ours.fileno() == -1
    late = await gateway.wire()
    await late.send(GET)
    siblings.setblocking(False)
    accepted, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(siblings), 5)
    accepted.setblocking(False)
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(accepted, 1000), 5) == GET
    accepted.close()
    siblings.close()

    go_on.set()
    assert await wire.chunk() == b"bye"
    assert await wire.chunk() == b""
    assert (await wire.ask(GET)).body == b"hellobye"
    await gateway.recorder.wait_for("response")


async def test_after_stopping_nobody_listens(gateway):
    await mitm.stop_accepting(gateway.master)
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await gateway.wire()
    await mitm.stop_accepting(gateway.master)


async def test_a_port_in_use_is_an_os_error(gateway):
    with pytest.raises(OSError, match="[Aa]ddress already in use"):
        await mitm.serve_address(gateway.master, "127.0.0.1", gateway.port)


async def test_listening_sockets_take_a_queue_of_connections():
    sock = mitm.open_sockets("127.0.0.1", 0)[0]
    clients = []
    try:
        for _ in range(200):  # more than asyncio's and mitmproxy's default backlog of 100
            client = socket.socket()
            client.settimeout(2)
            client.connect(sock.getsockname())
            clients.append(client)
    finally:
        for client in clients:
            client.close()
        sock.close()


async def test_more_connections_than_allowed_are_turned_away(gateway):
    gateway.recorder.actions["request"] = local
    mitm.set_limits(Limits(max_connections=2))
    kept = [await gateway.wire() for _ in range(2)]
    for wire in kept:
        assert (await wire.ask(GET)).body == b"here"
    extra = await gateway.wire()
    answer = await extra.answer()
    assert (answer.status, answer.json()["type"]) == (503, "gateway_unavailable")
    assert await extra.rest() == b""
    await kept[0].close()
    await gateway.recorder.wait_for("client_disconnected")
    await gateway.until(lambda: mitm.live_connections() == 1)
    assert (await (await gateway.wire()).ask(GET)).body == b"here"


async def test_client_and_server_sockets_are_kept_alive(gateway, upstream):
    from addons.proxy.connections import handler_of

    async def script(server, talk):
        await server.note(talk)
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await server.await_close(talk)

    server = await upstream(script)
    gateway.recorder.upstream = ("127.0.0.1", server.port)
    await (await gateway.wire()).ask(GET)
    flow = gateway.recorder.last("response")
    transports = handler_of(flow.client_conn).transports
    assert len(transports) == 2
    for io in transports.values():
        sock = io.writer.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
