"""A provider that ignores the output limit: streams are cut cleanly, buffered answers are booked in full, both are flagged."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.support import books
from tests.support.config import budget, config_for, virtual_key
from tests.support.figures import figures
from tests.support.quick import Gateway, PretendProcess
from tests.support.traffic import MODELS, PRICES, Answer, Ask, Wire, one
from tests.support.waiting import eventually

LIMIT = 100
WANTED = 5_000
CHUNK_DELAY_MS = 4
RUNAWAY = {"ignore_limit": 1, "output_tokens": WANTED, "chunk_delay_ms": CHUNK_DELAY_MS}
KINDS = ("chat", "responses", "messages", "gemini")


@dataclass(frozen=True)
class Cut:
    """A runaway stream, and the call that came after it on the same connection."""

    answer: Answer
    seconds: float
    next_answer: Answer
    line: dict[str, Any]
    """The runaway's line on the provider's bill."""
    post: books.Post
    log: dict[str, Any]


class World:
    def __init__(self, provider: PretendProcess, gateway: Gateway) -> None:
        self.provider = provider
        self.gateway = gateway

    def run(self, ask: Ask, *, settled: int = 2) -> Cut:
        """The runaway, then an obedient call on the same connection."""
        self.provider.reset()
        posted = len(books.posts(self.gateway.app_dir))

        async def both() -> tuple[Answer, float, Answer]:
            async with Wire(self.gateway.url) as wire:
                started = time.monotonic()
                answer = await wire.answer(ask)
                seconds = time.monotonic() - started
                following = replace(ask, stream=False, pretend={"output_tokens": 5})
                if wire.announced_close:
                    return answer, seconds, await one(self.gateway.url, following)
                return answer, seconds, await wire.answer(following)

        answer, seconds, following = asyncio.run(both())
        bill = eventually(self.provider.bill, lambda bill: bill["in_flight"] == 0 and bill["calls"] == settled, 2)
        posts = eventually(lambda: books.posts(self.gateway.app_dir)[posted:], lambda found: len(found) == settled)
        call_id = answer.headers["x-tollgate-request-id"]
        post = next(post for post in posts if post.call_id == call_id)
        logs = eventually(lambda: [row for row in self.gateway.log_rows() if row["id"] == call_id], lambda rows: bool(rows))
        return Cut(answer, seconds, following, bill["lines"][0], post, logs[0])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = [virtual_key(budgets=[budget(5)])]
    with (
        PretendProcess() as provider,
        Gateway(tmp_path_factory.mktemp("overrun"), config_for(provider.url, virtual_keys=keys)) as gateway,
    ):
        yield World(provider, gateway)


def text_of(kind: str, data: Any) -> str:
    """The text that one event, or one element of Gemini's array, brings."""
    if not isinstance(data, dict) or "error" in data:
        return ""
    if kind == "chat":
        return "".join(choice["delta"].get("content") or "" for choice in data.get("choices", ()))
    if kind == "responses":
        return str(data["delta"]) if data.get("type") == "response.output_text.delta" else ""
    if kind == "messages":
        return str(data["delta"].get("text", "")) if data.get("type") == "content_block_delta" else ""
    return "".join(part.get("text", "") for one in data.get("candidates", ()) for part in one["content"].get("parts", ()))


def tokens_seen(kind: str, pieces: list[Any]) -> int:
    """Tokens that reached the client: the pretend provider counts a word as one."""
    return sum(len(text_of(kind, piece).split()) for piece in pieces)


def check_cut(kind: str, cut: Cut, seen: int, *, chunk_tokens: int) -> None:
    """What holds for every runaway stream; `seen` are the tokens the client got."""
    input_price, output_price = PRICES[kind]
    billed = cut.line["usage"]["output_tokens"]
    seen_nanos = seen * output_price
    figures(
        f"{kind}, {chunk_tokens} tokens a chunk",
        limit=LIMIT,
        wanted=WANTED,
        seen=seen,
        billed=billed,
        posted=cut.post.output_tokens,
        held_nanos=cut.post.held_nanos,
        billed_nanos=cut.line["cost_nanos"],
        posted_nanos=cut.post.cost_nanos,
        excess_nanos=cut.line["cost_nanos"] - cut.post.held_nanos,
        seconds=round(cut.seconds, 2),
    )
    assert cut.answer.status == 200
    assert cut.answer.whole, "the answer did not end properly"
    assert LIMIT < seen < WANTED // 5

    # Upstream was closed at once: the provider notices with its next chunk, or the one after.
    assert cut.line["outcome"] == "gone"
    assert seen <= billed <= seen + 25 * chunk_tokens
    assert cut.seconds < WANTED / chunk_tokens * CHUNK_DELAY_MS / 1000 / 2

    # The excess over the hold is no more than what was on the wire, and all that came is booked, and a little more.
    assert cut.line["cost_nanos"] - cut.post.held_nanos <= (billed - LIMIT) * output_price
    assert cut.post.cost_nanos >= seen_nanos
    assert cut.post.cost_nanos <= 2 * (seen_nanos + 100 * input_price)
    assert (cut.post.note, cut.post.over_hold, cut.post.estimated) == ("cut", True, True)
    assert (cut.log["status"], bool(cut.log["estimated"]), cut.log["cost_nanos"]) == ("cut", True, cut.post.cost_nanos)

    assert (cut.next_answer.status, cut.next_answer.whole) == (200, True)
    assert "x-tollgate-cost-usd" in cut.next_answer.headers


@pytest.mark.parametrize("chunk_tokens", [1, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_cut_with_an_error_event_last(world: World, kind: str, chunk_tokens: int) -> None:
    cut = world.run(Ask(kind, stream=True, limit=LIMIT, pretend=RUNAWAY | {"chunk_tokens": chunk_tokens}))
    events = cut.answer.events()
    check_cut(kind, cut, tokens_seen(kind, [data for _, data in events]), chunk_tokens=chunk_tokens)
    name, error = events[-1]
    assert cut.answer.headers["x-tollgate-request-id"] in json.dumps(error)
    assert [data for _, data in events[:-1] if not isinstance(data, dict) or data.get("error")] == []
    if kind == "chat":
        assert (name, error["error"]["type"], error["error"]["code"]) == ("", "budget_exceeded", "budget_exceeded")
        assert not [data for _, data in events if data.get("usage")], "usage that the client did not ask for"
    elif kind == "responses":
        assert (name, error["type"], error["code"]) == ("error", "error", "budget_exceeded")
    elif kind == "messages":
        assert (name, error["type"], error["error"]["type"]) == ("error", "error", "billing_error")
    else:
        assert (name, error["error"]["code"], error["error"]["status"]) == ("", 402, "RESOURCE_EXHAUSTED")


def test_an_array_is_cut_so_that_it_still_is_one(world: World) -> None:
    """Gemini without `alt=sse`: the error is the last element and the array is closed."""
    cut = world.run(Ask("gemini", stream=True, array=True, limit=LIMIT, pretend=RUNAWAY | {"chunk_tokens": 1}))
    elements = cut.answer.json
    check_cut("gemini", cut, tokens_seen("gemini", elements), chunk_tokens=1)
    assert (elements[-1]["error"]["code"], elements[-1]["error"]["status"]) == (402, "RESOURCE_EXHAUSTED")
    assert not [element for element in elements[:-1] if "error" in element]


@pytest.mark.parametrize("framing", ["length", "close"])
def test_a_stream_is_cut_whatever_its_framing(world: World, framing: str) -> None:
    """Upstream promised a length, or ends with its connection: the client still gets chunks and an end of them."""
    cut = world.run(Ask(stream=True, limit=LIMIT, pretend=RUNAWAY | {"chunk_tokens": 1, "framing": framing}))
    events = cut.answer.events()
    check_cut("chat", cut, tokens_seen("chat", [data for _, data in events]), chunk_tokens=1)
    assert events[-1][1]["error"]["code"] == "budget_exceeded"
    assert cut.answer.headers.get("connection") == ("close" if framing == "close" else None)


def test_a_whole_answer_in_one_go_costs_no_more_than_was_on_the_wire(world: World) -> None:
    """The provider writes all it has before anybody can stop it; it bills that, the client gets a part, and only that is posted."""
    pretend = {"ignore_limit": 1, "output_tokens": WANTED, "chunk_tokens": 20}
    cut = world.run(Ask(stream=True, limit=LIMIT, pretend=pretend))
    seen = tokens_seen("chat", [data for _, data in cut.answer.events()])
    figures("chat, all at once", seen=seen, billed=cut.line["usage"]["output_tokens"], posted=cut.post.output_tokens)
    assert (cut.answer.whole, cut.post.note, cut.post.over_hold) == (True, "cut", True)
    assert LIMIT < seen <= cut.post.output_tokens <= WANTED
    assert cut.answer.events()[-1][1]["error"]["code"] == "budget_exceeded"
    assert cut.next_answer.status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffered_answer_is_booked_in_full(world: World, kind: str) -> None:
    """It cannot be cut: the client gets it, the ledger gets what the provider bills, and says that it was more than held."""
    cut = world.run(Ask(kind, limit=LIMIT, pretend={"ignore_limit": 1, "output_tokens": WANTED}))
    figures(
        f"{kind}, buffered", held_nanos=cut.post.held_nanos, billed_nanos=cut.line["cost_nanos"], posted_nanos=cut.post.cost_nanos
    )
    assert (cut.answer.status, cut.answer.whole) == (200, True)
    assert cut.line["finished"] and cut.line["model"] == MODELS[kind]
    assert cut.line["usage"]["output_tokens"] == WANTED
    assert cut.post.cost_nanos == cut.line["cost_nanos"] > cut.post.held_nanos
    assert (cut.post.note, cut.post.over_hold, cut.post.estimated) == ("complete", True, False)
    assert cut.next_answer.status == 200


def test_a_reasoning_runaway_is_cut_by_what_is_reported(world: World) -> None:
    """Output that never shows on the wire is known only where the stream reports it: Gemini does with every event."""
    cut = world.run(Ask("gemini", stream=True, limit=LIMIT, pretend=RUNAWAY | {"reasoning_tokens": 600, "chunk_tokens": 1}))
    pieces = [data for _, data in cut.answer.events()]
    figures(
        "gemini, reasoning",
        seen=tokens_seen("gemini", pieces),
        posted=cut.post.output_tokens,
        billed=cut.line["usage"]["output_tokens"],
    )
    assert cut.line["outcome"] == "gone"
    assert tokens_seen("gemini", pieces) < 50
    assert cut.post.output_tokens >= 600
    assert (cut.post.note, cut.post.over_hold) == ("cut", True)


def test_a_stream_within_its_limit_is_never_cut(world: World) -> None:
    """The very last token that the limit allows still comes, in many small events."""
    for kind in KINDS:
        pretend = {"output_tokens": WANTED, "chunk_tokens": 1, "chunk_delay_ms": 1}
        cut = world.run(Ask(kind, stream=True, limit=LIMIT, pretend=pretend))
        assert tokens_seen(kind, [data for _, data in cut.answer.events()]) == LIMIT
        assert (cut.post.note, cut.post.over_hold, cut.post.estimated) == ("complete", False, False)
        assert cut.post.cost_nanos == cut.line["cost_nanos"]


class Splitting:
    """An upstream that ignores every limit and tears its events apart: each write ends in the middle of an event."""

    def __init__(self, events: bytes) -> None:
        self._events = events
        self.left = asyncio.Event()
        """The gateway has closed its connection."""

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        half = len(self._events) // 2
        before, after = self._events[:half], self._events[half:]
        writer.write(b"%x\r\n%b\r\n" % (len(before), before))
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while not reader.at_eof():
                torn = after + before
                writer.write(b"%x\r\n%b\r\n" % (len(torn), torn))
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(2**16), 0.005)
        self.left.set()
        writer.close()


@pytest.mark.parametrize("kind", ["chat", "messages"])
def test_a_cut_in_the_middle_of_an_event_leaves_readable_events(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A half event that was withheld is dropped; one that the client has already is closed, and the error stands for itself."""
    if kind == "chat":
        event = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" word"}}]}\n\n'
    else:
        event = (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}\n\n'
        )

    async def cut() -> tuple[Answer, int]:
        splitting = Splitting(event)
        async with splitting as url:
            gateway = Gateway(
                tmp_path_factory.mktemp("splitting"), config_for(url, virtual_keys=[virtual_key(budgets=[budget(5)])])
            )
            try:
                await asyncio.to_thread(gateway.start)
                answer = await one(gateway.url, Ask(kind, stream=True, limit=LIMIT))
                await asyncio.wait_for(splitting.left.wait(), 2)
                (post,) = await asyncio.to_thread(eventually, lambda: books.posts(gateway.app_dir), lambda posts: bool(posts))
                return answer, post.output_tokens
            finally:
                await asyncio.to_thread(gateway.kill9)

    answer, posted = asyncio.run(cut())
    blocks = answer.body.split(b"\n\n")
    assert answer.whole
    assert blocks.pop() == b""
    assert b"passed the 100 output tokens" in blocks[-1]
    # Nothing of a torn event stands before it.
    assert json.loads(blocks[-1].removeprefix(b"event: error\n").removeprefix(b"data: "))["error"]
    whole = [block for block in blocks[:-1] if block + b"\n\n" == event]
    assert len(whole) > LIMIT
    # At most one torn event, the one that was under way.
    assert len(blocks) - 1 - len(whole) <= (0 if kind == "chat" else 1)
    assert posted > LIMIT


def test_the_books_agree_after_all_that(world: World) -> None:
    app_dir = world.gateway.app_dir
    eventually(lambda: books.open_holds(app_dir), lambda found: not found)
    assert books.held_nanos(app_dir) == 0
    assert books.replayed(app_dir).clean
    assert world.gateway.spent_nanos() == sum(post.cost_nanos for post in books.posts(app_dir))
    assert "Traceback" not in world.gateway.log()
