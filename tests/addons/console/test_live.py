"""Live events: who watches is told once of every move, at no cost to others, over real connections."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from addons.console.api.events import EventsHandler
from addons.console.live import Live, TooManyViewers, event
from store.clock import SystemClock, ms_from_iso
from store.errors import StoreUnavailable
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from store.markers import Markers, read_markers
from tests.addons.console.conftest import ADMIN_TOKEN
from tests.store.ledger.till import Till

G = "/api/governance"


@asynccontextmanager
async def watching(client: httpx.AsyncClient, **arguments: Any) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of the stream, once it is open."""
    async with client.stream("GET", "/api/events", timeout=10, **arguments) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        yield answer.aiter_lines()


async def told(lines: AsyncIterator[str], kind: str = "moved") -> Any:
    """The data of the next event, which must be of this kind."""
    async for line in lines:
        if line.startswith("event:"):
            assert line == f"event: {kind}"
            data = await anext(lines)
            assert data.startswith("data: ") and await anext(lines) == ""
            return json.loads(data.removeprefix("data: "))
    raise AssertionError("the stream ended")


async def test_a_page_is_told_at_once_and_then_of_every_move(console: Any) -> None:
    async with watching(console.client) as lines:
        first = await told(lines)
        assert set(first) == {"config", "ledger", "calls", "at"} and isinstance(first["config"], int)
        assert abs(ms_from_iso(first["at"]) - console.clock.now_ms()) < 10_000

        cap = (await console.client.post(f"{G}/budgets", json={"max_limit": 1, "scope": "provider", "scope_id": "openai"})).json()
        second = await told(lines)
        assert second["config"] > first["config"] and second["ledger"] != first["ledger"], "the audit log has moved too"
        assert second["calls"] == first["calls"]

        till = Till(console.store.database, console.clock)
        till.hold("call-1", cap["budget"]["id"], 1_000)
        held = await told(lines)
        assert held["config"] == second["config"] and held["ledger"] != second["ledger"]

        till.settle("call-1", 900)
        posted = await told(lines)
        assert posted["ledger"] != held["ledger"]

        await console.client.post(f"{G}/budgets/{cap['budget']['id']}/reset", json={})
        reset = await told(lines)
        assert reset["ledger"] != posted["ledger"] and reset["calls"] == first["calls"]

        writer = LogWriter(console.logs_database, clock=console.clock)
        writer.start()
        writer.add(CallRow("call-1", console.clock.now_ms(), "success", 200))
        writer.close()
        logged = await told(lines)
        assert logged["calls"] != reset["calls"] and logged["ledger"] == reset["ledger"]


async def test_looking_begins_with_the_first_page_and_ends_with_the_last(console: Any) -> None:
    live = console.live
    assert not live.is_looking
    async with watching(console.client) as one:
        await told(one)
        async with watching(console.client) as other:
            await told(other)
            assert (live.viewers, live.is_looking) == (2, True)
        await until(lambda: live.viewers == 1)
        assert live.is_looking
    await until(lambda: live.viewers == 0)
    assert not live.is_looking


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_only_who_is_signed_in_may_watch(console: Any) -> None:
    async with console.stranger() as stranger:
        assert (await stranger.get("/api/events")).status_code == 401
        assert (await stranger.post("/api/session/login", json={"token": ADMIN_TOKEN})).status_code == 200
        async with watching(stranger) as lines:
            await told(lines)


async def test_the_stream_ends_with_the_session(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventsHandler, "sign_in_seconds", 0.05)
    monkeypatch.setattr(EventsHandler, "still_here_seconds", 0.05)
    async with console.stranger() as stranger:
        login = await stranger.post("/api/session/login", json={"token": ADMIN_TOKEN})
        async with watching(stranger) as lines:
            await told(lines)
            assert [await anext(lines) for _ in range(2)] == [": still here", ""]
            csrf = {"X-CSRF-Token": login.json()["csrf_token"]}
            assert (await stranger.post("/api/session/logout", headers=csrf)).status_code == 200
            rest = [line async for line in lines]
            assert all(line in ("", ": still here") for line in rest)


async def test_more_than_may_watch_are_turned_away(console: Any) -> None:
    live = console.live
    viewers = [live.join() for _ in range(100)]
    answer = await console.client.get("/api/events")
    assert answer.status_code == 503 and "close some" in answer.json()["error"]["message"]
    with pytest.raises(TooManyViewers):
        live.join()
    live.leave(viewers.pop())
    async with watching(console.client) as lines:
        await told(lines)
    for viewer in viewers:
        live.leave(viewer)


async def test_head_and_parameters(console: Any) -> None:
    answer = await console.client.head("/api/events")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await console.client.get("/api/events", params={"since": "1"})).status_code == 400


async def test_a_page_that_does_not_read_is_let_go(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not buffered for: the wait for the first message that does not get through is the last."""
    monkeypatch.setattr(EventsHandler, "slow_seconds", 0.1)
    monkeypatch.setattr(EventsHandler, "still_here_seconds", 0.05)
    stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    real = EventsHandler.flush
    sent = 0

    def flush(self: EventsHandler, *arguments: Any, **named: Any) -> Any:
        nonlocal sent
        sent += 1
        return real(self, *arguments, **named) if sent == 1 else stuck

    async with console.client.stream("GET", "/api/events", timeout=10) as answer:
        monkeypatch.setattr(EventsHandler, "flush", flush)
        with pytest.raises(httpx.RemoteProtocolError):
            [_ async for _ in answer.aiter_lines()]
    await until(lambda: console.live.viewers == 0)


async def test_the_console_stops_at_once_with_pages_open(console: Any) -> None:
    async with watching(console.client) as lines:
        await told(lines)
        began = time.monotonic()
        console.live.close()
        assert [line async for line in lines] == []
        assert time.monotonic() - began < 1
    await until(lambda: console.live.viewers == 0)


# -- without a network


class Books:
    """Stores whose marks a test sets."""

    def __init__(self) -> None:
        self.marks: Markers | Exception = Markers(1, "1.0.0", "7.1")
        self.looks = 0

    def look(self) -> Markers:
        self.looks += 1
        if isinstance(self.marks, Exception):
            raise self.marks
        return self.marks


@pytest.fixture
async def books() -> AsyncIterator[tuple[Books, Live]]:
    made = Books()
    with ThreadPoolExecutor(1) as executor:
        live = Live(made.look, executor, SystemClock(), interval_seconds=0.01)
        yield made, live
        live.close()


async def test_trouble_is_told_once_and_so_is_its_end(books: tuple[Books, Live]) -> None:
    made, live = books
    viewer = live.join()
    assert (await viewer.next(5) or b"").startswith(b"event: moved\n")
    made.marks = StoreUnavailable("the disk is full")
    assert await viewer.next(5) == event("trouble", {"message": "the disk is full"})
    assert await viewer.next(0.1) is None, "the same trouble is no news"
    late = live.join()
    assert await late.next(5) == event("trouble", {"message": "the disk is full"})
    made.marks = Markers(1, "1.0.0", "7.1")
    assert (await viewer.next(5) or b"").startswith(b"event: moved\n")
    made.marks = RuntimeError("secret")
    assert b"secret" not in (await viewer.next(5) or b"secret")


async def test_what_was_not_sent_gives_way_to_what_is_newer(books: tuple[Books, Live]) -> None:
    made, live = books
    viewer = live.join()
    for revision in range(2, 12):
        made.marks = Markers(revision, "1", "1")
        looks = made.looks
        await until(lambda looks=looks: made.looks >= looks + 2)
    data = json.loads((await viewer.next(5) or b"").split(b"data: ")[1])
    assert data["config"] == 11
    assert await viewer.next(0.05) is None


async def test_twenty_pages_cost_one_look_a_second(books: tuple[Books, Live]) -> None:
    """20 pages at 100 looks a second, a hundred times what the console does, take a small part of a processor."""
    made, live = books
    viewers = [live.join() for _ in range(20)]
    waiting = [asyncio.ensure_future(viewer.next(60)) for viewer in viewers]
    began, before, looks = time.monotonic(), os.times(), made.looks
    await asyncio.sleep(0.5)
    spent = sum(os.times()[:2]) - sum(before[:2])
    assert made.looks - looks <= 0.5 / 0.01 + 2
    assert spent < 0.5 * (time.monotonic() - began)
    await asyncio.gather(*waiting)


async def test_marks_are_those_of_the_books(console: Any) -> None:
    ledger, logs = console.store.ledger, console.logs_database
    before = read_markers(ledger, logs)
    assert read_markers(ledger, logs) == before
    assert read_markers(ledger, None).calls == ""
    await console.client.post(f"{G}/teams", json={"name": "t"})
    assert read_markers(ledger, logs).config == before.config + 1


def test_an_event_is_one_line_of_data() -> None:
    assert event("trouble", {"message": "a\nb"}) == b'event: trouble\ndata: {"message": "a\\nb"}\n\n'
