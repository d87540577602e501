"""One worker without its supervisor: what it serves and refuses, how it drains, and that it ends with whoever started it."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mitmproxy.test import tflow

from addons.call import Call
from addons.gateway import Gateway
from addons.process import worker
from addons.process.options import ChildSpec
from addons.proxy import mitm
from addons.runtime import Address, open_runtime
from addons.sockets import open_sockets
from store.settings import settings_from
from tests.addons.process.one_child import OneChild, seeded
from tests.support.config import config_for
from tests.support.waiting import eventually
from tests.support.wire import Wire, request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children inherit sockets by number")


# -- draining, with a real master on a real socket


@dataclass
class Running:
    gateway: Gateway
    master: mitm.SlimMaster
    port: int
    hurry: asyncio.Event

    def a_call(self, number: int) -> Call:
        """A call in flight, as the addon keeps it."""
        call = Call(f"call-{number}", tflow.tflow(), 0, 0.0)
        self.gateway.calls[call.flow.id] = call
        self.gateway.idle.clear()
        return call

    async def drain(self, grace: float) -> None:
        await worker.drain(self.gateway, self.gateway.runtime, self.master, grace, self.hurry)

    def end(self, call: Call) -> None:
        """What mitmproxy does when the flow is over."""
        self.gateway.response(call.flow)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    mitm.install()
    sockets = open_sockets("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    document = {"client": {"enable_logging": False}}
    settings = settings_from(document, {}, source="config.json")
    runtime = await open_runtime(tmp_path, settings, Address("127.0.0.1", port), version="test", environ={})
    gateway = Gateway(runtime)
    master = mitm.SlimMaster(mitm.make_options(confdir=tmp_path / "ca", listening_on_loopback=True))
    master.addons.add(gateway)  # type: ignore[no-untyped-call]
    task = asyncio.get_running_loop().create_task(master.run())
    async with asyncio.timeout(10):
        await gateway.started.wait()
    await mitm.serve_sockets(master, sockets)
    yield Running(gateway, master, port, asyncio.Event())
    await mitm.stop_accepting(master)
    gateway.calls.clear()
    master.shutdown()  # type: ignore[no-untyped-call]
    await task
    await runtime.close()


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False


async def test_without_calls_it_drains_at_once(running: Running) -> None:
    assert _accepts(running.port)
    async with asyncio.timeout(2):
        await running.drain(60.0)
    assert running.gateway.runtime.draining
    assert not _accepts(running.port)


@pytest.mark.parametrize("grace", [0.0, 0.001])
async def test_a_tiny_grace_is_no_trouble_without_calls(running: Running, grace: float, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(2):
        await running.drain(grace)
    assert "still running" not in caplog.text


async def test_it_ends_as_soon_as_the_last_call_does(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    first, second = running.a_call(1), running.a_call(2)
    draining = asyncio.create_task(running.drain(60.0))
    await asyncio.to_thread(eventually, lambda: _accepts(running.port), lambda accepts: not accepts, 5)
    assert running.gateway.runtime.draining and not running.gateway.runtime.grace_over
    running.end(first)
    await asyncio.sleep(0.05)
    assert not draining.done()
    running.end(second)
    async with asyncio.timeout(5):
        await draining
    assert "still running" not in caplog.text


async def test_it_ends_what_is_left_after_the_grace(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "LAST_WORDS_SECONDS", 0.1)
    running.end(running.a_call(1))
    left = running.a_call(2)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(5):
            await running.drain(0.3)
    assert time.monotonic() - began >= 0.3 + 0.1
    assert running.gateway.runtime.grace_over
    (warned,) = [record.getMessage() for record in caplog.records if "still running" in record.getMessage()]
    assert left.id in warned and "call-1" not in warned


async def test_the_last_words_are_waited_for_no_longer_than_they_take(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is ended settles in its own hook a moment later; then the worker need not wait on."""
    monkeypatch.setattr(worker, "LAST_WORDS_SECONDS", 60.0)
    left = running.a_call(1)
    monkeypatch.setattr(
        mitm, "cancel_upstream", lambda flow, reason: asyncio.get_running_loop().call_later(0.05, running.end, left)
    )
    async with asyncio.timeout(5):
        await running.drain(0.05)


# -- the process


@dataclass
class Alone:
    child: OneChild
    spec: ChildSpec
    port: int
    listener: int

    def ask(self, data: bytes, port: int = 0) -> tuple[int, dict[str, object]]:
        with Wire.to("127.0.0.1", port or self.port) as wire:
            answer = wire.ask(data)
            return answer.status, json.loads(answer.body)


@contextlib.contextmanager
def alone(app_dir: Path, **changes: object) -> Iterator[Alone]:
    """A worker on a port and a listener of its own."""
    ours, theirs = open_sockets("127.0.0.1", 0), open_sockets("127.0.0.1", 0)
    port, listener = ours[0].getsockname()[1], theirs[0].getsockname()[1]
    config = app_dir / "config.json"
    listeners = {"listeners": [{"port": listener, "virtual_key": "workshop-vk-1"}]}
    config.write_text(json.dumps(config_for("http://127.0.0.1:9", gateway=listeners | changes)))
    seeded(app_dir)
    spec = ChildSpec(
        "worker", str(app_dir), str(config), "127.0.0.1", port, "127.0.0.1", 18082, 18081, grace=5.0, version="9.9.9",
        gateway_fds=(ours[0].fileno(),), listener_fds=((theirs[0].fileno(),),),
    )  # fmt: skip
    with OneChild(spec, [*ours, *theirs]) as child:
        for sock in (*ours, *theirs):
            sock.close()
        yield Alone(child, spec, port, listener)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with alone(tmp_path_factory.mktemp("worker")) as made:
        assert made.child.line() == "ready\n"
        yield made


def test_it_serves_the_socket_it_was_given(serving: Alone) -> None:
    status, body = serving.ask(request("GET", "/health"))
    assert status == 200 and body["status"] == "ok"
    assert "9.9.9" in json.dumps(serving.ask(request("GET", "/"))[1])


def test_a_listener_has_the_key_of_its_own(serving: Alone) -> None:
    quota = request("GET", "/api/governance/virtual-keys/quota")
    assert serving.ask(quota, serving.port)[0] == 401
    status, body = serving.ask(quota, serving.listener)
    assert status == 200 and body["virtual_key_name"] == "workshop-vk-1"


@pytest.mark.parametrize("which", ["port", "listener", "console", "inspector"])
def test_no_port_of_the_gateways_own_is_reached_through_it(serving: Alone, which: str) -> None:
    port = {"port": serving.port, "listener": serving.listener, "console": 18082, "inspector": 18081}[which]
    for host in ("127.0.0.1", "localhost"):
        with Wire.to("127.0.0.1", serving.port) as wire:
            answer = wire.ask(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert answer.status == 403, answer
        assert b"one of its own ports" in answer.body


def test_the_terminals_interrupt_is_for_the_supervisor_and_sigterm_for_it(tmp_path: Path) -> None:
    with alone(tmp_path) as made:
        assert made.child.line() == "ready\n"
        made.child.process.send_signal(signal.SIGINT)
        assert made.ask(request("GET", "/health"))[0] == 200
        made.child.process.send_signal(signal.SIGTERM)
        assert made.child.end() == (0, "", "")


def test_it_drains_and_ends_when_its_supervisor_is_gone(serving: Alone) -> None:
    """Last of those that share it."""
    serving.child.drop_lifeline()
    code, _, complained = serving.child.end()
    assert (code, complained) == (0, "")
    assert not _accepts(serving.port) and not _accepts(serving.listener)
    # What it left is whole: the next one opens it.
    seeded(Path(serving.spec.app_dir))


def test_a_price_file_that_is_not_there_is_one_line_and_two(tmp_path: Path) -> None:
    with alone(tmp_path, prices={"file": "missing.json"}) as made:
        code, printed, complained = made.child.end()
    assert (code, printed) == (2, "")
    (line,) = complained.splitlines()
    assert line.startswith("tollgate: ") and "missing.json" in line
