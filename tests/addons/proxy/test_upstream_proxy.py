"""Calls and tunnels through a corporate proxy."""

import asyncio
import base64

import pytest

from addons.proxy import mitm
from addons.proxy.limits import Limits
from addons.proxy.upstream_proxy import UpstreamProxy, route

LOGIN = "Basic " + base64.b64encode(b"us er:p@ss").decode()


def corporate(heads, refuse=False, hang=False):
    """A proxy that takes CONNECT and relays bytes."""

    async def script(server, talk):
        head = await talk.reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        if hang:
            await server.await_close(talk)
            return
        if refuse:
            await talk.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return
        port = int(head.split()[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await talk.send(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source, sink):
            while data := await source.read(65536):
                sink.write(data)
            sink.write_eof()

        try:
            await asyncio.gather(pump(talk.reader, writer), pump(reader, talk.writer))
        except (ConnectionError, RuntimeError):
            pass
        finally:
            writer.close()

    return script


async def through(make_gateway, proxy_server, target_port=None):
    proxy = UpstreamProxy.parse(f"http://us%20er:p%40ss@127.0.0.1:{proxy_server.port}")
    gateway = await make_gateway(upstream_proxy=proxy)

    def send_through(flow):
        if target_port is not None and flow.request.method != "CONNECT":
            flow.request.scheme, flow.request.host, flow.request.port = "http", "api.example", target_port
        route(flow, proxy)

    gateway.recorder.actions.update(requestheaders=send_through, http_connect=send_through)
    return gateway


async def test_a_call_goes_through_with_a_login(make_gateway, upstream):
    async def echo(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    heads = []
    server = await upstream(echo)
    gateway = await through(make_gateway, await upstream(corporate(heads)), server.port)
    wire = await gateway.wire()
    for _ in range(2):
        assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")).body == b"ok"
    assert len(heads) == 1
    assert heads[0].startswith(b"CONNECT api.example:%d HTTP/1.1\r\n" % server.port)
    assert b"proxy-authorization: " + LOGIN.encode() in heads[0]
    assert b"proxy-authorization" not in server.heads[0]


async def test_a_tunnel_goes_through(make_gateway, upstream):
    async def script(server, talk):
        await talk.send(b"220 hello\r\n")
        assert await talk.reader.readuntil(b"\n") == b"QUIT\n"
        await talk.send(b"221 bye\r\n")

    heads = []
    server = await upstream(script)
    gateway = await through(make_gateway, await upstream(corporate(heads)))
    wire, answer = await gateway.tunnel_to("127.0.0.1", server.port)
    assert answer.status == 200
    assert await wire.reader.readline() == b"220 hello\r\n"
    await wire.send(b"QUIT\n")
    assert await wire.reader.readline() == b"221 bye\r\n"
    assert b"proxy-authorization: " + LOGIN.encode() in heads[0]
    assert not {"request", "tcp_start"} & set(gateway.recorder.names())


async def test_a_proxy_that_refuses_is_a_502(make_gateway, upstream):
    heads = []
    gateway = await through(make_gateway, await upstream(corporate(heads, refuse=True)), 443)
    _, answer = await gateway.tunnel_to("api.example", 443)
    assert (answer.status, answer.json()["type"]) == (502, "upstream_unreachable")
    assert "403" in answer.json()["message"]
    answer = await (await gateway.wire()).ask(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")
    assert (answer.status, answer.json()["type"]) == (502, "upstream_unreachable")


async def test_a_proxy_that_hangs_is_a_504(make_gateway, upstream):
    mitm.set_limits(Limits(connect_timeout_seconds=0.2))
    heads = []
    proxy = await upstream(corporate(heads, hang=True))
    gateway = await through(make_gateway, proxy)
    _, answer = await gateway.tunnel_to("api.example", 443)
    assert (answer.status, answer.json()["type"]) == (504, "upstream_timeout")
    await asyncio.wait_for(proxy.closed.wait(), 5)


async def test_cancelling_a_call_through_a_proxy(make_gateway, upstream):
    async def silent(server, talk):
        await server.note(talk)
        await server.await_close(talk)

    server, heads = await upstream(silent), []
    gateway = await through(make_gateway, await upstream(corporate(heads)), server.port)
    wire = await gateway.wire()
    await wire.send(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")
    await gateway.until(lambda: server.heads)
    assert mitm.cancel_upstream(gateway.recorder.last("request"), "because") is True
    assert (await wire.answer()).status == 502
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_cancelling_while_the_proxy_hangs(make_gateway, upstream):
    heads = []
    proxy = await upstream(corporate(heads, hang=True))
    gateway = await through(make_gateway, proxy, 443)
    wire = await gateway.wire()
    await wire.send(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")
    await gateway.until(lambda: heads)
    assert mitm.cancel_upstream(gateway.recorder.last("request"), "because") is True
    assert (await wire.answer()).status == 502


@pytest.mark.parametrize(
    ("url", "spec"),
    [
        ("http://proxy.example:3128", ("http", ("proxy.example", 3128))),
        ("https://proxy.example", ("https", ("proxy.example", 443))),
        ("proxy.example:8080", ("http", ("proxy.example", 8080))),
        ("http://[fd00::1]:3128/", ("http", ("fd00::1", 3128))),
    ],
)
def test_addresses_are_understood(url, spec):
    proxy = UpstreamProxy.parse(url)
    assert proxy.spec == spec
    assert proxy.is_at(*spec[1])
    assert proxy.authorization is None


@pytest.mark.parametrize("url", ["", "http://", "socks5://proxy:1080", "http://user:hunter2@:80", "http://user:hunter2@host:port"])
def test_other_addresses_are_refused_without_their_password(url):
    with pytest.raises(ValueError, match="upstream proxy must be written like") as caught:
        UpstreamProxy.parse(url)
    assert "hunter2" not in str(caught.value)


def test_the_password_is_not_shown():
    proxy = UpstreamProxy.parse("http://user:hunter2@proxy.example:3128")
    assert proxy.authorization == "Basic " + base64.b64encode(b"user:hunter2").decode()
    assert "hunter2" not in repr(proxy) and proxy.authorization not in repr(proxy)
