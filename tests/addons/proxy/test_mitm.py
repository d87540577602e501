"""Putting our classes in place; and the same core under mitmproxy's own tools, whose addons come before ours."""

import asyncio

import pytest
from mitmproxy import options
from mitmproxy.tools.dump import DumpMaster

from addons.proxy import mitm, tunnel
from addons.proxy.limits import Limits


class Policy:
    """What the gateway's addon does when it is loaded by `mitmdump -s`."""

    def __init__(self):
        self.upstream, self.intercepted, self.forms, self.errors = None, False, [], []
        self.started = asyncio.Event()

    def load(self, loader):
        mitm.install()
        mitm.apply_safe_options(loader.master.options, listening_on_loopback=True)

    def running(self):
        self.started.set()

    def next_layer(self, nextlayer):
        tunnel.decide(nextlayer, lambda host, port: self.intercepted)

    def requestheaders(self, flow):
        self.forms.append(mitm.request_form(flow))
        if self.upstream:
            flow.request.scheme, flow.request.host, flow.request.port = "http", "127.0.0.1", self.upstream

    def error(self, flow):
        self.errors.append(flow.error.msg)


@pytest.fixture
async def dump(gateway, confdir):
    """A `DumpMaster` listening by itself, in place of the gateway's own master."""
    await gateway.stop()
    policy = Policy()
    opts = options.Options(confdir=str(confdir), listen_host="127.0.0.1", listen_port=0)
    owner = DumpMaster(opts, with_termlog=False, with_dumper=False)
    owner.addons.add(policy)
    task = asyncio.ensure_future(owner.run())
    await asyncio.wait_for(policy.started.wait(), 10)
    gateway.host, gateway.port = owner.addons.get("proxyserver").listen_addrs()[0][:2]
    gateway.master, gateway._task, gateway.policy = owner, task, policy
    return gateway


async def test_calls_faults_limits_and_tunnels_work_alike(dump, upstream):
    async def script(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def greeting(server, talk):
        await talk.send(b"220 hello\r\n")
        await server.await_close(talk)

    server = await upstream(script)
    dump.policy.upstream = server.port
    wire = await dump.wire()
    assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n")).body == b"ok"

    mitm.set_limits(Limits(max_body_bytes=1000))
    answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001)
    assert (answer.status, answer.json()["type"]) == (413, "request_too_large")

    server.stop()
    dump.policy.upstream = 1
    answer = await (await dump.wire()).ask(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert (answer.status, answer.json()["type"]) == (502, "upstream_unreachable")
    assert dump.policy.forms == ["origin", "origin", "absolute"]
    assert len(dump.policy.errors) == 2

    smtp = await upstream(greeting)
    wire, answer = await dump.tunnel_to("127.0.0.1", smtp.port)
    assert answer.status == 200
    assert await asyncio.wait_for(wire.reader.readline(), 5) == b"220 hello\r\n"


async def test_interception_works_alike(dump, upstream):
    async def script(server, talk):
        while True:
            await server.note(talk)
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    server = await upstream(script)
    dump.policy.upstream, dump.policy.intercepted = server.port, True
    wire, _ = await dump.tunnel_to("api.example", 80)
    await wire.send(b"\r\nG")
    await asyncio.sleep(0.05)
    assert (await wire.ask(b"ET / HTTP/1.1\r\nHost: api.example\r\n\r\n")).body == b"ok"


def test_installing_twice_changes_nothing():
    before = [getattr(owner, name) for owner, name, _ in mitm._PLACES]
    mitm.install()
    assert [getattr(owner, name) for owner, name, _ in mitm._PLACES] == before == [ours for _, _, ours in mitm._PLACES]


def test_install_refuses_a_mitmproxy_that_is_built_differently(monkeypatch):
    from mitmproxy.proxy.layers.http import _http1

    monkeypatch.delattr(_http1, "make_body_reader")
    with pytest.raises(RuntimeError, match=r"has no .*make_body_reader; this gateway needs mitmproxy 12\.2\.3"):
        mitm.install()
