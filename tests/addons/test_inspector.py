"""The feed: redacted pictures reach whoever knows the token, and nobody else; a dead console costs nothing."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from addons.console.feed import FeedServer
from addons.inspector import InspectorFeed, redact_flow

TOKEN = "feed-token"
KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5q"


def a_flow(call_id: str = "c-1", body: bytes = b"{}") -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    flow.request.headers["authorization"] = f"Bearer {KEY}"
    flow.request.content = body
    flow.metadata = {"tollgate": {"call": call_id}}
    return flow


class Seen:
    """A feed server that remembers what it was shown and wakes whoever waits."""

    def __init__(self, token: str = TOKEN) -> None:
        self.flows: list[tuple[http.HTTPFlow, bool]] = []
        self.gone: list[str] = []
        self.changed = asyncio.Event()
        self.server = FeedServer(token, self._show, self._left)

    def _show(self, flow: http.HTTPFlow, live: bool) -> None:
        self.flows.append((flow, live))
        self.changed.set()

    def _left(self, flow_ids: Sequence[str]) -> None:
        self.gone.extend(flow_ids)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await self.changed.wait()
                self.changed.clear()

    async def until_shown(self, count: int) -> None:
        await self.until(lambda: len(self.flows) >= count)


async def test_pictures_arrive_redacted_and_in_order() -> None:
    seen = Seen()
    await seen.server.start(())
    feed = InspectorFeed(seen.server.address, TOKEN)
    feed.start()
    for number in range(5):
        feed.offer(a_flow(f"c-{number}"), live=number == 0, secrets=[KEY])
    await seen.until_shown(5)
    assert [flow.id for flow, _ in seen.flows] == [f"c-{number}" for number in range(5)]
    assert [live for _, live in seen.flows] == [True, False, False, False, False]
    assert all(flow.request.headers["authorization"] == "Bearer [redacted]" for flow, _ in seen.flows)
    assert await feed.drained(2)
    assert feed.stats.sent == 5 and feed.stats.dropped == 0
    await feed.close()
    await seen.server.close()
    assert seen.gone == ["c-0"], "a call whose worker is gone is no longer under way"


async def test_a_newer_picture_replaces_the_queued_one() -> None:
    seen = Seen()
    feed = InspectorFeed(("127.0.0.1", 1), TOKEN)
    flow = a_flow()
    feed.offer(flow, live=True)
    flow.comment = "later"
    feed.offer(flow)
    assert feed.stats.replaced == 1
    await seen.server.start(())
    feed._address = seen.server.address
    feed.start()
    await seen.until_shown(1)
    assert await feed.drained(2)
    assert [(flow.comment, live) for flow, live in seen.flows] == [("later", False)]
    await feed.close()
    await seen.server.close()


async def test_without_a_console_the_queue_stays_bounded_and_offering_stays_quick() -> None:
    feed = InspectorFeed(("127.0.0.1", 9), TOKEN, queue_flows=50)
    feed.start()
    flow = a_flow(body=b"x" * 2000)
    started = time.process_time()
    for number in range(1000):
        flow.id = str(number)
        feed.offer(flow)
    spent = time.process_time() - started
    await asyncio.sleep(0)
    assert len(feed._queue) == 50
    assert list(feed._queue) == [str(number) for number in range(950, 1000)], "the oldest go first"
    assert feed.stats.dropped == 950
    assert feed._queued_bytes == sum(map(len, feed._queue.values()))
    assert spent < 1.0, f"{spent * 1000:.0f} µs a flow"
    await feed.close(timeout_seconds=0.05)


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    feed = InspectorFeed(("127.0.0.1", 9), TOKEN, queue_bytes=20_000, bodies="full")
    flow = a_flow(body=b"x" * 6000)
    for number in range(10):
        flow.id = str(number)
        feed.offer(flow)
    assert feed._queued_bytes <= 20_000
    flow.request.content = b"x" * 30_000
    flow.id = "giant"
    feed.offer(flow)
    assert "giant" not in feed._queue and feed._queued_bytes > 0
    await feed.close(timeout_seconds=0)


async def test_a_console_that_accepts_and_never_reads_blocks_nothing() -> None:
    held: list[asyncio.StreamWriter] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    feed = InspectorFeed(server.sockets[0].getsockname()[:2], TOKEN, queue_flows=10)
    feed.start()
    for number in range(100):
        flow = a_flow(body=b"x" * 50_000)
        flow.id = str(number)
        feed.offer(flow)
        await asyncio.sleep(0)
    assert len(feed._queue) <= 10
    started = asyncio.get_running_loop().time()
    await feed.close(timeout_seconds=0.1)
    assert asyncio.get_running_loop().time() - started < 1
    for writer in held:
        writer.close()
    server.close()


async def test_a_console_that_stops_reading_after_the_greeting_blocks_nothing() -> None:
    seen = Seen()
    stuck = asyncio.Event()

    async def never(reader: asyncio.StreamReader, unfinished: dict[str, None]) -> None:
        await stuck.wait()

    seen.server._receive = never  # type: ignore[method-assign]
    await seen.server.start(())
    feed = InspectorFeed(seen.server.address, TOKEN, queue_flows=20, bodies="full")
    feed.start()
    for number in range(400):
        flow = a_flow(body=b"x" * 100_000)
        flow.id = str(number)
        feed.offer(flow)
        await asyncio.sleep(0)
    assert feed.stats.connections == 1
    assert len(feed._queue) <= 20 and feed.stats.dropped > 100
    await feed.close(timeout_seconds=0.05)
    await seen.server.close()


async def test_it_connects_again_after_the_console_was_restarted() -> None:
    seen = Seen()
    await seen.server.start(())
    port = seen.server.address[1]
    feed = InspectorFeed(("127.0.0.1", port), TOKEN)
    feed.start()
    feed.offer(a_flow("first"))
    await seen.until_shown(1)
    await seen.server.close()
    again = Seen()
    await again.server.start((), port)
    feed.offer(a_flow("second"))
    await again.until_shown(1)
    assert feed.stats.connections == 2
    await feed.close()
    await again.server.close()


async def test_a_worker_with_the_wrong_token_shows_nothing() -> None:
    seen = Seen()
    await seen.server.start(())
    feed = InspectorFeed(seen.server.address, "wrong")
    feed.start()
    feed.offer(a_flow())
    await seen.until(lambda: seen.server.refused > 0)
    assert seen.flows == [] and seen.server.received == 0 and feed.stats.sent == 0
    await feed.close(timeout_seconds=0)
    await seen.server.close()


async def test_an_impostor_at_the_port_learns_neither_token_nor_flows() -> None:
    heard = bytearray()
    done = asyncio.Event()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"n" * 16)
        heard.extend(await reader.readexactly(48))
        writer.write(b"p" * 32)
        heard.extend(await reader.read())
        writer.close()
        done.set()

    server = await asyncio.start_server(impostor, "127.0.0.1", 0)
    feed = InspectorFeed(server.sockets[0].getsockname()[:2], TOKEN)
    feed.start()
    feed.offer(a_flow())
    await asyncio.wait_for(done.wait(), 5)
    assert len(heard) == 48 and TOKEN.encode() not in heard
    await feed.close(timeout_seconds=0)
    server.close()


async def test_garbage_and_giant_frames_end_the_connection_only() -> None:
    from addons.inspector import proof

    seen = Seen()
    await seen.server.start(())
    for frame in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x04abcd", b"\x00\x00\x00\x08\x00\x00\x00\x02[]xx"):
        reader, writer = await asyncio.open_connection(*seen.server.address)
        theirs = await reader.readexactly(16)
        writer.write(b"o" * 16 + proof(TOKEN.encode(), b"worker", theirs, b"o" * 16))
        assert await reader.readexactly(32) == proof(TOKEN.encode(), b"console", theirs, b"o" * 16)
        writer.write(frame)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    feed = InspectorFeed(seen.server.address, TOKEN)
    feed.start()
    feed.offer(a_flow())
    await seen.until_shown(1)
    await feed.close()
    await seen.server.close()


async def test_switched_off_it_does_nothing() -> None:
    feed = InspectorFeed(None, "")
    feed.start()
    feed.offer(a_flow())
    assert not feed.enabled and feed.stats.offered == 0
    await feed.close()
    with pytest.raises(ValueError, match="token"):
        InspectorFeed(("127.0.0.1", 1), "")


async def test_a_flow_that_cannot_be_pictured_is_counted_and_nothing_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    feed = InspectorFeed(("127.0.0.1", 9), TOKEN)
    broken = a_flow()
    broken.request = None  # type: ignore[assignment]
    feed.offer(broken)
    assert feed.stats.failed == 1 and "could not be shown" in caplog.text
    await feed.close(timeout_seconds=0)


def test_redact_flow_in_place() -> None:
    flow = a_flow()
    flow.request.path = "/v1/x?key=abcdef&alt=sse"
    flow.metadata["proxyauth"] = ("user", KEY)
    flow.comment = f"key {KEY}"
    assert flow.response is not None
    flow.response.headers["set-cookie"] = "session=1"
    redact_flow(flow)
    assert flow.request.headers["authorization"] == "Bearer [redacted]"
    assert flow.request.path == "/v1/x?key=[redacted]&alt=sse"
    assert flow.comment == "key [redacted]"
    assert "proxyauth" not in flow.metadata
    assert flow.response.headers["set-cookie"] == "session=1", "the client has not got its answer yet"
    redact_flow(flow, response=True)
    assert flow.response.headers["set-cookie"] == "[redacted]"
