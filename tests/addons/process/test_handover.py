"""A worker lets go: calls on kept connections are served and told to come in anew, idle connections are closed, time is kept."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mitmproxy import http
from mitmproxy.test import tflow, tutils

from addons.call import Call
from addons.gateway import Gateway
from addons.process import handover
from addons.process.children import Told
from addons.process.handover import LastAnswers, hand_over
from addons.proxy import mitm
from addons.runtime import Address, open_runtime
from addons.sockets import open_sockets
from store.settings import settings_from

HEALTH = b"GET /health HTTP/1.1\r\nHost: gw\r\n\r\n"


@dataclass
class Running:
    gateway: Gateway
    master: mitm.SlimMaster
    port: int
    told: Told

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def hand_over(self, seconds: float) -> float:
        return await hand_over(self.gateway, self.master, seconds, self.told)


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(handover, "LOOK_SECONDS", 0.05)
    mitm.install()
    quiet = logging.getLogger("mitmproxy").level
    sockets = open_sockets("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    settings = settings_from({"client": {"enable_logging": False}}, {}, source="config.json")
    runtime = await open_runtime(tmp_path, settings, Address("127.0.0.1", port), version="test", environ={})
    gateway = Gateway(runtime)
    master = mitm.SlimMaster(mitm.make_options(confdir=tmp_path / "ca", listening_on_loopback=True))
    master.addons.add(gateway)  # type: ignore[no-untyped-call]
    task = asyncio.get_running_loop().create_task(master.run())
    async with asyncio.timeout(10):
        await gateway.started.wait()
    await mitm.serve_sockets(master, sockets)
    yield Running(gateway, master, port, Told())
    await mitm.stop_accepting(master)
    gateway.calls.clear()
    master.shutdown()  # type: ignore[no-untyped-call]
    await task
    await runtime.close()
    logging.getLogger("mitmproxy").setLevel(quiet)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, str]:
    """The headers of an answer that was read whole, its status among them as `status`."""
    writer.write(HEALTH)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    await reader.readexactly(int(headers["content-length"]))
    return {**headers, "status": head[0].split()[1]}


async def test_without_connections_it_is_done_at_once(running: Running) -> None:
    async with asyncio.timeout(2):
        assert await running.hand_over(60.0) > 58
    with pytest.raises(OSError):
        await running.connect()
    assert not running.gateway.runtime.draining


async def test_a_kept_connection_is_served_and_told_to_come_in_anew(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "QUIET_LOOKS", 10_000)
    reader, writer = await running.connect()
    assert "connection" not in await ask(reader, writer)
    letting_go = asyncio.create_task(running.hand_over(60.0))
    await asyncio.sleep(0.2)
    assert not letting_go.done()
    answer = await ask(reader, writer)
    assert (answer["status"], answer["connection"]) == ("200", "close")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    async with asyncio.timeout(5):
        assert await letting_go > 50


async def test_an_idle_connection_is_closed_and_one_with_a_call_is_not(running: Running) -> None:
    idle, busy = await running.connect(), await running.connect()
    for pair in (idle, busy):
        await ask(*pair)
    port = busy[1].get_extra_info("sockname")[1]
    flow = tflow.tflow()
    flow.client_conn = next(handler.client for handler in mitm_clients() if handler.client.peername[1] == port)
    call = Call("call-1", flow, 0, 0.0)
    running.gateway.calls[flow.id] = call
    letting_go = asyncio.create_task(running.hand_over(60.0))
    assert await asyncio.wait_for(idle[0].read(), 5) == b""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(busy[0].read(), 0.5)
        pytest.fail("the connection of a call was closed")
    assert not letting_go.done()
    del running.gateway.calls[flow.id]
    async with asyncio.timeout(5):
        await letting_go


def mitm_clients() -> list[object]:
    from addons.proxy.connections import live_clients

    return list(live_clients())


async def test_its_time_is_limited(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "QUIET_LOOKS", 10_000)
    kept = await running.connect()
    await ask(*kept)
    began = time.monotonic()
    assert await running.hand_over(0.3) == 0.0
    assert 0.3 <= time.monotonic() - began < 3


@pytest.mark.parametrize("word,left", [(b"end", 60.0), (b"hurry", None)])
async def test_being_told_to_end_or_to_hurry_ends_it(
    running: Running, monkeypatch: pytest.MonkeyPatch, word: bytes, left: float | None
) -> None:
    """Told to end, the drain has all of its time."""
    monkeypatch.setattr(handover, "QUIET_LOOKS", 10_000)
    monkeypatch.setattr(handover, "LOOK_SECONDS", 30.0)
    kept = await running.connect()
    await ask(*kept)
    letting_go = asyncio.create_task(running.hand_over(60.0))
    await asyncio.sleep(0.1)
    if word == b"end":
        running.told.end.set()
    else:
        running.told.hear(b"hurry\n")
    async with asyncio.timeout(5):
        rest = await letting_go
    assert rest == left if left is not None else 50 < rest < 60


# -- the header


@pytest.mark.parametrize("status,wanted", [(200, "close"), (404, "close"), (204, "close"), (101, "upgrade"), (103, None)])
def test_last_answers_say_so_unless_the_connection_is_no_longer_http(status: int, wanted: str | None) -> None:
    headers = http.Headers(connection="upgrade") if status == 101 else http.Headers()
    flow = tflow.tflow(resp=tutils.tresp(status_code=status, headers=headers))
    LastAnswers().responseheaders(flow)
    LastAnswers().response(flow)
    assert flow.response is not None and flow.response.headers.get("connection") == wanted


def test_an_answer_whose_head_has_gone_out_is_left_alone() -> None:
    """Closing after it would surprise a client that was not told."""
    flow = tflow.tflow(resp=tutils.tresp())
    assert flow.response is not None
    flow.response.stream = True
    LastAnswers().response(flow)
    assert "connection" not in flow.response.headers
