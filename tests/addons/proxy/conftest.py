"""A real gateway core on real sockets, upstream servers written out byte by byte, and a client that hides nothing."""

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from mitmproxy import certs, http

from addons.proxy import faults, mitm, tunnel
from addons.proxy.limits import Limits


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ca")


@pytest.fixture(scope="session", autouse=True)
def one_key_load() -> Iterator[None]:
    """Reading the authority's key checks its primes, 40 ms each time; once is enough for all tests."""
    original = certs.load_pem_private_key
    certs.load_pem_private_key = functools.lru_cache(original)
    yield
    certs.load_pem_private_key = original


@pytest.fixture(autouse=True)
def clean_process() -> Iterator[None]:
    mitm.install()
    level = logging.getLogger("mitmproxy").level
    yield
    mitm.set_limits(Limits())
    mitm.set_fault_writer(faults.plain_fault)
    logging.getLogger("mitmproxy").setLevel(level)


@dataclass
class Answer:
    """One HTTP response as it was on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A client that speaks HTTP/1 by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Answer:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        lines = raw.decode("latin1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        return Answer(int(lines[0].split()[1]), headers, b"")

    async def chunk(self) -> bytes:
        size = int((await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 10)).strip(), 16)
        data = await asyncio.wait_for(self.reader.readexactly(size + 2), 10)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def answer(self, *, head_only: bool = False) -> Answer:
        answer = await self.head()
        if head_only:
            return answer
        if "chunked" in answer.headers.get("transfer-encoding", ""):
            while piece := await self.chunk():
                answer.body += piece
        elif "content-length" in answer.headers:
            answer.body = await asyncio.wait_for(self.reader.readexactly(int(answer.headers["content-length"])), 10)
        else:
            answer.body = await asyncio.wait_for(self.reader.read(), 10)
        return answer

    async def ask(self, request: bytes) -> Answer:
        await self.send(request)
        return await self.answer()

    async def rest(self) -> bytes:
        """Everything until the other side closes; a reset counts as closing."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(Exception):
            await self.writer.wait_closed()


class Conversation(Wire):
    """The upstream server's end of one connection."""

    async def request(self) -> tuple[bytes, bytes]:
        """Head and raw body of the next request (the body still in chunks if it came so)."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            return head, await self.reader.readuntil(b"0\r\n\r\n")
        if b"content-length:" in lowered:
            size = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0])
            return head, await self.reader.readexactly(size)
        return head, b""


Script = Callable[[Conversation], Awaitable[None]]


class Upstream:
    """A server that runs a script for every connection."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.closed = asyncio.Event()
        """Set when a client's side of a connection was found closed by the script (`await_close`)."""
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def start(self, **options: Any) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, **options)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = Conversation(reader, writer)
        try:
            await self._script(talk)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def await_close(self, talk: Conversation) -> None:
        """Ends when the gateway closes its side of this connection."""
        with contextlib.suppress(ConnectionError):
            while await talk.reader.read(65536):
                pass
        self.closed.set()

    async def note(self, talk: Conversation) -> None:
        head, body = await talk.request()
        self.heads.append(head)
        self.bodies.append(body)

    def stop(self) -> None:
        self._server.close()


@dataclass
class Recorder:
    """The addon under whose policy the gateway core runs, and which writes down what happens."""

    name = "recorder"
    upstream: tuple[str, int] | None = None
    hooks: list[tuple[str, Any]] = field(default_factory=list)
    actions: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    is_intercepted: Callable[[str, int], bool] = lambda host, port: False
    sni_allowed: Callable[[str, str], bool] = lambda host, sni: True
    started: asyncio.Event = field(default_factory=asyncio.Event)
    fired: dict[str, asyncio.Event] = field(default_factory=dict)

    def running(self) -> None:
        self.started.set()

    def names(self) -> list[str]:
        return [name for name, _ in self.hooks]

    def last(self, name: str) -> Any:
        return next(what for hook, what in reversed(self.hooks) if hook == name)

    async def wait_for(self, name: str) -> Any:
        if name not in self.names():
            await asyncio.wait_for(self.fired.setdefault(name, asyncio.Event()).wait(), 10)
        return self.last(name)

    def _note(self, name: str, what: Any) -> Any:
        self.hooks.append((name, what))
        self.fired.setdefault(name, asyncio.Event()).set()
        action = self.actions.get(name)
        return action(what) if action is not None else None

    def next_layer(self, nextlayer: Any) -> None:
        tunnel.decide(nextlayer, self.is_intercepted, self.sni_allowed)

    def requestheaders(self, flow: http.HTTPFlow) -> Any:
        if self.upstream is not None and mitm.request_form(flow) == "origin":
            flow.request.scheme, flow.request.host, flow.request.port = "http", *self.upstream
        return self._note("requestheaders", flow)

    def request(self, flow: http.HTTPFlow) -> Any:
        return self._note("request", flow)

    def responseheaders(self, flow: http.HTTPFlow) -> Any:
        return self._note("responseheaders", flow)

    def response(self, flow: http.HTTPFlow) -> Any:
        return self._note("response", flow)

    def error(self, flow: http.HTTPFlow) -> Any:
        return self._note("error", flow)

    def http_connect(self, flow: http.HTTPFlow) -> Any:
        return self._note("http_connect", flow)

    def http_connected(self, flow: http.HTTPFlow) -> Any:
        return self._note("http_connected", flow)

    def http_connect_error(self, flow: http.HTTPFlow) -> Any:
        return self._note("http_connect_error", flow)

    def server_connect(self, data: Any) -> Any:
        return self._note("server_connect", data)

    def server_connected(self, data: Any) -> Any:
        return self._note("server_connected", data)

    def server_disconnected(self, data: Any) -> Any:
        return self._note("server_disconnected", data)

    def client_disconnected(self, client: Any) -> Any:
        return self._note("client_disconnected", client)

    def tls_clienthello(self, data: Any) -> Any:
        return self._note("tls_clienthello", data)

    def tcp_start(self, flow: Any) -> Any:
        return self._note("tcp_start", flow)


class Gateway:
    """A running `SlimMaster` with a `Recorder`."""

    def __init__(self, confdir: Path, **master_options: Any) -> None:
        self.recorder = Recorder()
        self._confdir = confdir
        self._master_options = master_options
        self._wires: list[Wire] = []

    async def start(self, ca_file: Path | None = None) -> None:
        options = mitm.make_options(confdir=self._confdir, upstream_ca_file=ca_file)
        self.master = mitm.SlimMaster(options, **self._master_options)
        self.master.addons.add(self.recorder)
        self._task = asyncio.ensure_future(self.master.run())
        await asyncio.wait_for(self.recorder.started.wait(), 10)
        self.host, self.port = (await mitm.serve_address(self.master, "127.0.0.1", 0))[0]

    async def wire(self, **options: Any) -> Wire:
        wire = Wire(*await asyncio.open_connection(self.host, self.port, **options))
        self._wires.append(wire)
        return wire

    async def tunnel_to(self, host: str, port: int) -> tuple[Wire, Answer]:
        wire = await self.wire()
        await wire.send(b"CONNECT %s:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (host.encode(), port))
        answer = await wire.head()
        if answer.status != 200:
            answer.body = await wire.reader.readexactly(int(answer.headers["content-length"]))
        return wire, answer

    async def until(self, happened: Callable[[], Any]) -> None:
        """Ends when something that announces itself nowhere has happened."""
        for _ in range(5000):
            if happened():
                return
            await asyncio.sleep(0.002)
        raise AssertionError("it did not happen within ten seconds")

    async def stop(self) -> None:
        await mitm.stop_accepting(self.master)
        for wire in self._wires:
            await wire.close()
        await self.until(lambda: not mitm.live_connections())
        self.master.shutdown()
        await self._task


@pytest.fixture
async def gateway(confdir: Path) -> AsyncIterator[Gateway]:
    running = Gateway(confdir)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def make_gateway(confdir: Path) -> AsyncIterator[Callable[..., Awaitable[Gateway]]]:
    running: list[Gateway] = []

    async def make(ca_file: Path | None = None, **master_options: Any) -> Gateway:
        gateway = Gateway(confdir, **master_options)
        await gateway.start(ca_file)
        running.append(gateway)
        return gateway

    yield make
    for gateway in running:
        await gateway.stop()


@pytest.fixture
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[Upstream]]]:
    started: list[Upstream] = []

    async def make(script: Callable[..., Awaitable[None]], **options: Any) -> Upstream:
        server: Upstream

        async def run(talk: Conversation) -> None:
            await script(server, talk)

        server = Upstream(run)
        await server.start(**options)
        started.append(server)
        return server

    yield make
    for server in started:
        server.stop()
