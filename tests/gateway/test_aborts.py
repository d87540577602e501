"""Exchanges that end before their time, on either side: what is charged, that the hold is gone, and that the next call works."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.support import books
from tests.support.config import budget, config_for, virtual_key
from tests.support.figures import figures
from tests.support.quick import Gateway, PretendProcess
from tests.support.traffic import MODELS, PRICES, Answer, Ask, Broken, Wire, one
from tests.support.waiting import eventually

KINDS = ("chat", "responses", "messages", "gemini")
TIMEOUTS = {"connect_timeout_seconds": 1, "first_byte_timeout_seconds": 1, "idle_stream_timeout_seconds": 1}
LIMIT = 400
PACED = {"output_tokens": 200, "chunk_tokens": 5, "chunk_delay_ms": 15}
FIN_AND_RST = [pytest.param(kind, number % 2 == 1, id=f"{kind}-{('fin', 'rst')[number % 2]}") for number, kind in enumerate(KINDS)]
"""Every dialect, half of them with a connection that ends properly and half with one that is reset."""


@dataclass(frozen=True)
class Ended:
    """What was left of one broken exchange."""

    answer: Answer | None
    lines: list[dict[str, Any]]
    """Of the provider's bill."""
    post: books.Post
    log: dict[str, Any]
    charged_nanos: int
    """By which the key's budget has grown."""

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


class World:
    """One gateway with short timeouts; the provider's side of each call is told how to misbehave."""

    def __init__(self, provider: PretendProcess, gateway: Gateway) -> None:
        self.provider = provider
        self.gateway = gateway

    def run(
        self, act: Callable[[Wire], Awaitable[Answer | None]], *, key: str | None = None, provider_calls: int | None = None
    ) -> Ended:
        """Let `act` use a connection, and see what became of its one call.

        `provider_calls`: await that many lines on the provider's bill.
        """
        self.provider.reset()
        known = {post.call_id for post in books.posts(self.gateway.app_dir)}
        before = self._spent(key)

        async def acted() -> Answer | None:
            async with Wire(self.gateway.url) as wire:
                return await act(wire)

        answer = asyncio.run(acted())
        (post,) = eventually(
            lambda: [post for post in books.posts(self.gateway.app_dir) if post.call_id not in known], lambda found: bool(found)
        )
        bill = eventually(
            self.provider.bill,
            lambda bill: bill["in_flight"] == 0 and (provider_calls is None or bill["calls"] == provider_calls),
        )
        (log,) = eventually(lambda: [row for row in self.gateway.log_rows() if row["id"] == post.call_id], lambda rows: bool(rows))
        charged = self._spent(key) - before
        assert books.open_holds(self.gateway.app_dir) == []
        assert books.held_nanos(self.gateway.app_dir) == 0
        assert charged == post.cost_nanos == log["cost_nanos"]
        assert post.cost_nanos <= post.held_nanos
        return Ended(answer, bill["lines"], post, log, charged)

    def _spent(self, key: str | None) -> int:
        return self.gateway.spent_nanos(key) if key else self.gateway.spent_nanos()

    def works(self) -> None:
        """The next call is served and charged exactly what the provider bills."""
        self.provider.reset()
        before = self._spent(None)
        answer = asyncio.run(one(self.gateway.url, Ask(pretend={"output_tokens": 7})))
        assert answer.status == 200
        billed = self.provider.bill()["cost_nanos"]
        assert eventually(lambda: self._spent(None) - before, lambda nanos: nanos > 0) == billed


@pytest.fixture(scope="module")
def busy_port() -> Iterator[int]:
    """A port whose queue of connections is full: whoever connects waits for an answer that never comes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        yield server.getsockname()[1]
        for client in waiting:
            client.close()


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port where nobody listens, kept from everybody else."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with PretendProcess() as provider:
        config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(5)])], gateway={"limits": TIMEOUTS})
        with Gateway(tmp_path_factory.mktemp("aborts"), config) as gateway:
            yield World(provider, gateway)


@pytest.fixture
def healthy(world: World) -> Iterator[World]:
    """After each test the gateway serves the next call, and nothing was written that looks like a fault of its own."""
    yield world
    world.works()
    assert "Traceback" not in world.gateway.log()


def told(what: str, ended: Ended) -> None:
    billed = [(line["usage"]["input_tokens"], line["usage"]["output_tokens"], line["outcome"]) for line in ended.lines]
    figures(
        what,
        provider=billed,
        billed_nanos=sum(line["cost_nanos"] for line in ended.lines),
        posted=(ended.post.input_tokens, ended.post.output_tokens, ended.post.note),
        posted_nanos=ended.post.cost_nanos,
        held_nanos=ended.post.held_nanos,
        log=(ended.log["status"], ended.log["http_status"]),
    )


# The client leaves


@pytest.mark.parametrize(("kind", "reset"), FIN_AND_RST)
def test_client_leaves_before_a_buffered_answer(healthy: World, kind: str, reset: bool) -> None:
    """The provider may well finish and bill it: the usual output is charged, never nothing, never more than was held."""

    async def act(wire: Wire) -> None:
        await wire.send(Ask(kind, limit=LIMIT, pretend={"output_tokens": 100, "first_token_ms": 700}))
        await asyncio.to_thread(eventually, healthy.provider.bill, lambda bill: bill["in_flight"] == 1)
        wire.leave(reset=reset)

    ended = healthy.run(act, provider_calls=1)
    told(f"{kind}, client left before a buffered answer", ended)
    assert (ended.post.note, ended.post.estimated) == ("client_left", True)
    assert ended.log["status"] == "cancelled"
    assert ended.post.cost_nanos >= ended.line["cost_nanos"]
    assert ended.post.output_tokens >= 1
    assert ended.line["outcome"] == "gone", "upstream was not told"


@pytest.mark.parametrize("kind", KINDS)
def test_client_leaves_before_a_stream_begins(healthy: World, kind: str) -> None:
    """A stream ends with its reader: the input is charged."""

    async def act(wire: Wire) -> None:
        await wire.send(Ask(kind, stream=True, limit=LIMIT, pretend=PACED | {"first_token_ms": 700}))
        await asyncio.to_thread(eventually, healthy.provider.bill, lambda bill: bill["in_flight"] == 1)
        wire.leave()

    ended = healthy.run(act, provider_calls=1)
    told(f"{kind}, client left before a stream began", ended)
    assert (ended.post.note, ended.post.estimated, ended.log["status"]) == ("client_left", True, "cancelled")
    assert ended.line["outcome"] == "gone"
    assert ended.line["usage"]["output_tokens"] == 0
    assert ended.line["cost_nanos"] <= ended.post.cost_nanos < ended.post.held_nanos // 4


@pytest.mark.parametrize(("kind", "reset"), FIN_AND_RST)
def test_client_leaves_in_the_middle_of_a_stream(healthy: World, kind: str, reset: bool) -> None:
    """What came is charged, dearer than it was: bytes stand in for tokens that nobody has reported."""

    async def act(wire: Wire) -> None:
        await wire.send(Ask(kind, stream=True, limit=LIMIT, pretend=PACED))
        await wire.head()
        for _ in range(12):
            await wire.piece()
        wire.leave(reset=reset)

    ended = healthy.run(act, provider_calls=1)
    told(f"{kind}, client left in the middle", ended)
    assert (ended.post.note, ended.post.estimated, ended.log["status"]) == ("client_left", True, "cancelled")
    assert ended.line["outcome"] == "gone", "upstream was not closed"
    assert 0 < ended.line["usage"]["output_tokens"] < 200
    # A chunk may have been on the wire when the client left.
    on_the_wire = 2 * PACED["chunk_tokens"] * PRICES[kind][1]
    assert ended.line["cost_nanos"] - on_the_wire <= ended.post.cost_nanos
    assert ended.post.cost_nanos <= 3 * ended.line["cost_nanos"] + on_the_wire


@pytest.mark.parametrize("kind", KINDS)
def test_client_leaves_after_the_last_chunk(healthy: World, kind: str) -> None:
    """It has everything but does not wait for the proper end: charged to the nano what the provider bills."""

    async def act(wire: Wire) -> None:
        await wire.send(Ask(kind, stream=True, limit=LIMIT, pretend={"output_tokens": 30, "chunk_tokens": 5, "chunk_delay_ms": 5}))
        await wire.head()
        last = {"chat": b"[DONE]", "responses": b"response.completed", "messages": b"message_stop", "gemini": b'"STOP"'}[kind]
        seen = b""
        while last not in seen:
            seen += await wire.piece() or b""
        wire.leave()

    ended = healthy.run(act, provider_calls=1)
    told(f"{kind}, client left after the last chunk", ended)
    assert ended.line["finished"]
    assert ended.post.cost_nanos == ended.line["cost_nanos"]
    assert not ended.post.estimated


def test_client_leaves_while_waiting_in_line(healthy: World) -> None:
    """It never held anything and never reached the provider: nothing is charged, and nobody behind it waits for it."""
    key = "sk-bf-line0000000000000000000000000"
    with healthy.gateway.console() as console:
        made = console.post(
            "/api/governance/virtual-keys",
            json={
                "name": "line",
                "value": key,
                "provider_configs": [{"provider": "openai", "allowed_models": ["*"], "key_ids": ["*"]}],
                "budgets": [{"max_limit": 0.0003, "reset_duration": "1h"}],
            },
        )
    assert made.status_code == 200, made.text
    key = made.json()["virtual_key"]["value"]
    ask = Ask(limit=LIMIT, key=key, pretend={"output_tokens": 5, "first_token_ms": 900})
    healthy.provider.reset()

    async def crowd() -> tuple[Answer, Answer]:
        async with Wire(healthy.gateway.url) as first, Wire(healthy.gateway.url) as leaving, Wire(healthy.gateway.url) as last:
            await first.send(ask)
            await asyncio.to_thread(eventually, healthy.provider.bill, lambda bill: bill["in_flight"] == 1)
            await leaving.send(ask)
            await last.send(replace(ask, pretend={"output_tokens": 5}))
            await asyncio.sleep(0.2)  # both are in the line by then; nothing outside tells
            leaving.leave()
            await first.head()
            one_answer = await first.rest()
            await last.head()
            return one_answer, await last.rest()

    first, last = asyncio.run(crowd())
    assert (first.status, last.status) == (200, 200)
    bill = healthy.provider.bill()
    assert bill["calls"] == 2
    assert eventually(lambda: healthy.gateway.spent_nanos(key), lambda nanos: nanos >= bill["cost_nanos"]) == bill["cost_nanos"]
    assert books.open_holds(healthy.gateway.app_dir) == []


# The provider's side breaks


async def fails(wire: Wire, ask: Ask) -> Answer:
    """The answer; a connection that ends without one is a broken answer of status 0."""
    try:
        return await wire.answer(ask)
    except Broken:
        return Answer(0, {}, [], False)


def error_shape(kind: str, answer: Answer) -> str:
    """The type of the error in the body, from where the caller's dialect has it."""
    error = answer.json["error"]
    if kind == "messages":
        assert answer.json["type"] == "error"
        return str(error["code"])
    if kind == "gemini":
        assert error["code"] == answer.status
        return str(error["details"][0]["reason"]).lower()
    return str(error["type"])


@pytest.mark.parametrize(("kind", "reset"), FIN_AND_RST)
def test_upstream_cuts_off_before_it_answers(healthy: World, kind: str, reset: bool) -> None:
    ask = Ask(kind, stream=reset, limit=LIMIT, pretend={"cut": "before-headers", "cut_with_reset": int(reset)})
    ended = healthy.run(lambda wire: fails(wire, ask), provider_calls=0)
    told(f"{kind}, upstream cut off before its answer", ended)
    assert ended.answer is not None
    assert (ended.answer.status, error_shape(kind, ended.answer)) == (502, "upstream_unreachable")
    assert ended.answer.headers["x-tollgate-request-id"] == ended.post.call_id
    assert (ended.charged_nanos, ended.post.note) == (0, "upstream_failed")
    assert (ended.log["status"], ended.log["http_status"]) == ("error", 502)


@pytest.mark.parametrize(("kind", "reset"), FIN_AND_RST)
def test_upstream_cuts_off_a_stream(healthy: World, kind: str, reset: bool) -> None:
    """The client sees that the answer is broken, and the part that came is charged."""
    ask = Ask(kind, stream=True, limit=LIMIT, pretend=PACED | {"cut": "mid-stream", "cut_with_reset": int(reset)})
    ended = healthy.run(lambda wire: fails(wire, ask), provider_calls=1)
    told(f"{kind}, upstream cut off a stream", ended)
    assert ended.answer is not None
    assert (ended.answer.status, ended.answer.whole) == (200, False)
    assert ended.line["outcome"] == "cut"
    assert (ended.post.note, ended.post.estimated, ended.log["status"]) == ("upstream_failed", True, "error")
    assert ended.line["cost_nanos"] <= ended.post.cost_nanos <= 3 * ended.line["cost_nanos"]


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_cuts_off_a_buffered_answer(healthy: World, kind: str) -> None:
    """The provider has made it all and bills it, the client gets none of it: the usual output is charged."""
    ask = Ask(kind, limit=LIMIT, pretend={"output_tokens": 60, "cut": "mid-stream"})
    ended = healthy.run(lambda wire: fails(wire, ask), provider_calls=1)
    told(f"{kind}, upstream cut off a buffered answer", ended)
    assert ended.answer is not None
    assert (ended.answer.status, error_shape(kind, ended.answer)) == (502, "upstream_unreachable")
    assert ended.answer.headers["x-tollgate-request-id"] == ended.post.call_id
    assert (ended.post.note, ended.post.estimated) == ("upstream_failed", True)
    assert (ended.log["status"], ended.log["http_status"]) == ("error", 502)
    assert 0 < ended.post.cost_nanos <= ended.post.held_nanos


@pytest.mark.parametrize(("kind", "stream"), [("chat", False), ("responses", True), ("messages", False), ("gemini", True)])
def test_upstream_never_answers(healthy: World, kind: str, stream: bool) -> None:
    """It may have read the request and be generating: the input is charged, of a buffered call the usual output as well."""
    ask = Ask(kind, stream=stream, limit=LIMIT, pretend={"hang": "before-headers"})
    ended = healthy.run(lambda wire: fails(wire, ask), provider_calls=0)
    told(f"{kind}, upstream never answered", ended)
    assert ended.answer is not None
    assert (ended.answer.status, error_shape(kind, ended.answer)) == (504, "upstream_timeout")
    assert (ended.post.note, ended.post.estimated) == ("timed_out", True)
    assert (ended.log["status"], ended.log["http_status"]) == ("error", 504)
    assert ended.post.input_tokens > 0
    assert (ended.post.output_tokens > 0) is not stream


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_stops_in_the_middle_of_a_stream(healthy: World, kind: str) -> None:
    ask = Ask(kind, stream=True, limit=LIMIT, pretend=PACED | {"hang": "mid-stream"})
    ended = healthy.run(lambda wire: fails(wire, ask), provider_calls=1)
    told(f"{kind}, upstream stopped in the middle", ended)
    assert ended.answer is not None
    assert (ended.answer.status, ended.answer.whole) == (200, False)
    assert (ended.post.note, ended.post.estimated, ended.log["status"]) == ("timed_out", True, "error")
    assert ended.line["outcome"] == "gone"
    assert ended.line["cost_nanos"] <= ended.post.cost_nanos <= 3 * ended.line["cost_nanos"]


def test_upstream_stops_in_the_middle_of_a_buffered_answer(healthy: World) -> None:
    ask = Ask("messages", limit=LIMIT, pretend={"output_tokens": 60, "hang": "mid-stream"})
    ended = healthy.run(lambda wire: fails(wire, ask), provider_calls=1)
    told("messages, upstream stopped in a buffered answer", ended)
    assert ended.answer is not None
    assert (ended.answer.status, error_shape("messages", ended.answer)) == (504, "upstream_timeout")
    assert (ended.log["http_status"], ended.post.note) == (504, "timed_out")
    assert ended.post.cost_nanos > 0


@pytest.mark.parametrize(
    ("kind", "status"),
    [("chat", 400), ("responses", 401), ("gemini", 404), ("chat", 429), ("responses", 500), ("gemini", 503), ("messages", 529)],
)
def test_errors_of_the_provider_cost_nothing_and_pass_as_they_are(healthy: World, kind: str, status: int) -> None:
    """…and the connection goes on."""
    ask = Ask(kind, stream=status in (429, 529), limit=LIMIT, pretend={"status": status})
    following: list[Answer] = []

    async def act(wire: Wire) -> Answer:
        answer = await wire.answer(ask)
        # A free call of the same connection, which leaves no post.
        wire_still_serves = replace(ask, key="sk-bf-nobody")
        following.append(await wire.answer(wire_still_serves))
        return answer

    ended = healthy.run(act, provider_calls=0)
    assert ended.answer is not None
    assert (ended.answer.status, ended.answer.whole) == (status, True)
    assert b"tollgate" not in ended.answer.body.lower()
    assert (ended.charged_nanos, ended.post.note, ended.post.estimated) == (0, "complete", False)
    assert (ended.log["status"], ended.log["http_status"]) == ("error", status)
    assert following[0].status == 401, "the connection did not go on serving"


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_html_in_place_of_an_answer_costs_nothing(healthy: World, stream: bool) -> None:
    ask = Ask(stream=stream, limit=LIMIT, pretend={"html": 1})
    ended = healthy.run(lambda wire: wire.answer(ask), provider_calls=0)
    assert ended.answer is not None
    assert (ended.answer.status, ended.charged_nanos) == (502, 0)
    assert b'"type":"upstream_unreachable"' in ended.answer.body
    assert b"<html>" not in ended.answer.body


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_inside_a_stream_is_charged_for_what_came_before_it(healthy: World, kind: str) -> None:
    ask = Ask(kind, stream=True, limit=LIMIT, pretend=PACED | {"stream_error": 1})
    ended = healthy.run(lambda wire: wire.answer(ask), provider_calls=1)
    told(f"{kind}, error inside a stream", ended)
    assert ended.answer is not None
    assert (ended.answer.status, ended.answer.whole) == (200, True)
    assert ended.line["outcome"] == "error"
    assert ended.log["status"] == "error"
    assert ended.line["cost_nanos"] <= ended.post.cost_nanos <= 3 * ended.line["cost_nanos"]


@pytest.mark.parametrize(
    ("kind", "stream"), [("chat", True), ("responses", True), ("messages", True), ("gemini", True), ("messages", False)]
)
def test_an_answer_without_usage_is_charged_by_its_bytes(healthy: World, kind: str, stream: bool) -> None:
    ask = Ask(kind, stream=stream, limit=LIMIT, pretend={"output_tokens": 120, "omit_usage": 1})
    ended = healthy.run(lambda wire: wire.answer(ask), provider_calls=1)
    told(f"{kind}, no usage reported, {stream=}", ended)
    assert ended.line["finished"]
    assert ended.post.estimated and ended.log["estimated"]
    assert ended.line["cost_nanos"] <= ended.post.cost_nanos <= 3 * ended.line["cost_nanos"]


# The provider cannot be reached


@pytest.mark.parametrize("where", ["closed_port", "busy_port"])
def test_a_provider_that_cannot_be_reached_costs_nothing(
    where: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Refused at once, or never accepted: the hold is voided and the request is not even counted."""
    port = request.getfixturevalue(where)
    config = config_for(f"http://127.0.0.1:{port}", virtual_keys=[virtual_key(budgets=[budget(5)])], gateway={"limits": TIMEOUTS})
    status, error = (502, "upstream_unreachable") if where == "closed_port" else (504, "upstream_timeout")
    with Gateway(tmp_path_factory.mktemp("unreachable"), config) as gateway:
        for kind in KINDS:
            answer = asyncio.run(one(gateway.url, Ask(kind, limit=LIMIT)))
            assert (answer.status, error_shape(kind, answer)) == (status, error)
            assert answer.headers.get("x-should-retry") in ("false", "true", None)
        posts = eventually(lambda: books.posts(gateway.app_dir), lambda found: len(found) == len(KINDS))
        figures(where, posts=[(post.kind, post.note, post.cost_nanos) for post in posts])
        assert {(post.kind, post.cost_nanos) for post in posts} == {("void", 0)}
        assert gateway.spent_nanos() == 0
        assert books.open_holds(gateway.app_dir) == []
        rows = eventually(gateway.log_rows, lambda rows: len(rows) == len(KINDS))
        assert {(row["status"], row["http_status"], row["model"]) for row in rows} == {
            ("error", status, MODELS[kind]) for kind in KINDS
        }
        assert "Traceback" not in gateway.log()


def test_the_books_agree_after_all_that(world: World) -> None:
    report = books.replayed(world.gateway.app_dir)
    assert (report.differences, report.open_holds) == ((), 0)
