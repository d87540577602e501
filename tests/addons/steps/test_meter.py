"""The tee: what it passes on, when it cuts, and that it never raises."""

import gzip
import json
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.call import Call, State
from addons.policy import AssumedPrice
from addons.services import Services
from addons.steps import meter
from addons.steps.estimate import estimate
from addons.steps.read import read
from addons.steps.route import route
from addons.steps.trim import trim
from store.ledger.types import Granted
from store.usage import Reading
from tests.support import calls

STREAM = "text/event-stream"
CHAT, MESSAGES = "/openai/v1/chat/completions", "/anthropic/v1/messages"
USAGE = b'data: {"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":14}}\n\n'
DONE = b"data: [DONE]\n\n"


def delta(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def answering(
    body: bytes = b"",
    path: str = CHAT,
    *,
    status: int = 200,
    content_type: str = STREAM,
    services: Services | None = None,
    **headers: Any,
) -> Call:
    """A call held in full whose answer has just begun."""
    services = services or calls.services()
    made = calls.call(path, body=body or calls.chat(stream=True, max_tokens=2))
    route(made, services, "origin", None)
    read(made, services)
    estimate(made, services, ())
    made.hold = Granted("call-1", made.bound.bound_nanos(made.output_tokens_bound) if made.bound else 0, False, ())
    trim(made)
    made.sent = True
    calls.answered(made, status, content_type=content_type, **headers)
    meter.begin(made, services)
    return made


def tee_of(made: Call) -> Callable[[bytes], bytes | list[bytes]]:
    response = made.flow.response
    if response is None or not callable(response.stream):
        raise TypeError("this answer is not streamed")
    return cast(Callable[[bytes], bytes | list[bytes]], response.stream)


def joined(given: bytes | list[bytes]) -> bytes:
    return given if isinstance(given, bytes) else b"".join(given)


def test_a_streamed_answer_gets_a_tee() -> None:
    made = answering()
    assert (made.streaming, made.state, made.reader is not None) == (True, State.METERED, True)
    assert made.response_started == 1000.0
    tee_of(made)


@pytest.mark.parametrize("content_type", ["application/json", "", "APPLICATION/JSON; charset=utf-8"])
def test_a_whole_answer_is_buffered(content_type: str) -> None:
    made = answering(calls.chat(), content_type=content_type)
    assert made.flow.response is not None
    assert (made.streaming, made.flow.response.stream, made.reader is not None) == (False, False, True)


def test_what_was_asked_for_as_a_stream_is_one_whatever_it_is_called() -> None:
    assert answering(content_type="application/json").streaming


@pytest.mark.parametrize(
    ("length", "expected"), [(str(4 * 1024 * 1024), False), (str(4 * 1024 * 1024 + 1), True), ("-1", False), ("much", False)]
)
def test_huge_answers_are_streamed_through(length: str, expected: bool) -> None:
    assert answering(calls.chat(), content_type="application/json", content_length=length).streaming is expected


def test_without_a_dialect_everything_passes_unread() -> None:
    services = calls.services()
    made = calls.call("/openai/v1/images/generations")
    route(made, services, "origin", None)
    response = calls.answered(made)
    meter.begin(made, services)
    assert (response.stream, made.reader) == (True, None)


def test_without_an_answer_there_is_nothing_to_do() -> None:
    made = calls.call()
    meter.begin(made, calls.services())
    assert made.response_started is None


@pytest.mark.parametrize("status", [400, 429, 500])
def test_errors_are_not_read_as_answers(status: int) -> None:
    made = answering(status=status)
    assert made.reader is None
    assert joined(tee_of(made)(b"data: oh no\n\n")) == b"data: oh no\n\n"


def test_chunks_pass_and_the_first_is_timed() -> None:
    services = calls.services()
    made = answering(calls.chat(stream=True), services=services)
    services.clock.seconds = 1002.5  # type: ignore[attr-defined]
    tee = tee_of(made)
    assert joined(tee(delta("hi"))) == delta("hi")
    services.clock.seconds = 1009.0  # type: ignore[attr-defined]
    tee(delta("ho"))
    assert made.first_token == 1002.5


def test_the_usage_nobody_asked_for_is_taken_out_with_an_empty_list() -> None:
    """Returning `b""` for a chunk would end an HTTP/1 body."""
    made = answering()
    assert made.asked_usage
    tee = tee_of(made)
    assert tee(USAGE) == []
    assert joined(tee(DONE)) == DONE
    assert joined(tee(b"")) == b""
    assert made.reader is not None
    usage = made.reader.reading().usage
    assert usage is not None and (usage.input_tokens, usage.output_tokens) == (12, 2)


def test_the_usage_the_client_asked_for_stays() -> None:
    tee = tee_of(answering(calls.chat(stream=True, stream_options={"include_usage": True})))
    assert joined(tee(USAGE)) == USAGE


def test_compressed_answers_are_read_on_the_side() -> None:
    """A server that ignores `identity`: the client gets the very bytes, the reader the text."""
    packed = gzip.compress(delta("hi") + USAGE + DONE)
    made = answering(calls.chat(stream=True), content_encoding="gzip")
    tee = tee_of(made)
    assert b"".join(joined(tee(packed[i : i + 7])) for i in range(0, len(packed), 7)) + joined(tee(b"")) == packed
    assert made.reader is not None
    reading = made.reader.reading()
    assert reading.usage is not None and reading.usage.output_tokens == 2


@pytest.mark.parametrize(
    ("chunks", "cut"),
    [
        ([delta("a"), delta("a")], False),
        ([delta("a"), delta("a"), delta("a")], True),  # three pieces are at least three tokens; two were held
        ([delta("a" * 47)], False),
        ([delta("a" * 48)], True),  # 48 bytes are three tokens at the least
        ([USAGE], False),
        ([USAGE.replace(b'"completion_tokens":2,"total_tokens":14', b'"completion_tokens":3,"total_tokens":15')], True),
        ([delta("")] * 50, False),
        ([b": keep-alive\n\n"] * 50, False),
    ],
)
def test_cut_only_when_it_is_certainly_beyond_the_hold(chunks: list[bytes], cut: bool) -> None:
    made = answering()
    tee = tee_of(made)
    for chunk in chunks:
        tee(chunk)
    assert made.cut is cut


def test_a_cut_ends_with_one_error_event_and_silence() -> None:
    made = answering()
    endings: list[list[bytes]] = []

    def cut_stream(last: list[bytes]) -> list[bytes]:
        endings.append(last)
        return [*last, b""]

    made.cut_stream = cut_stream
    tee = tee_of(made)
    tee(delta("a"))
    out = tee(delta("a" * 100))
    assert out == [delta("a" * 100), endings[0][1], b""]
    event = endings[0][1]
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
    error = json.loads(event[6:])
    assert (error["type"], error["request_id"]) == ("budget_exceeded", "call-1")
    assert " 2 output tokens" in error["message"]
    assert [tee(delta("more")), tee(b""), tee(DONE)] == [[], [], []]
    assert len(endings) == 1


def test_an_anthropic_cut_speaks_anthropic() -> None:
    made = answering(calls.message(stream=True, max_tokens=2), MESSAGES)
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a" * 100}}
    out = tee_of(made)(b"event: content_block_delta\ndata: " + json.dumps(event).encode() + b"\n\n")
    assert isinstance(out, list) and out[-1].startswith(b"event: error\ndata: ")
    error = json.loads(out[-1].partition(b"data: ")[2])
    assert (error["type"], error["error"]["type"]) == ("error", "billing_error")


def test_free_models_are_never_cut() -> None:
    made = answering(calls.chat(model="own", stream=True, max_tokens=2), services=calls.services(unpriced=AssumedPrice(0, 0)))
    tee_of(made)(delta("a" * 10_000))
    assert not made.cut


def test_calls_without_a_hold_or_a_price_are_never_cut() -> None:
    unpriced = answering(calls.chat(model="no-such-model", stream=True, max_tokens=2))
    tee_of(unpriced)(delta("a" * 10_000))
    unheld = answering()
    unheld.hold = None
    tee_of(unheld)(delta("a" * 10_000))
    assert (unpriced.cut, unheld.cut) == (False, False)


class Failing:
    """A reader with a fault in it."""

    def feed(self, chunk: bytes) -> bytes:
        raise RuntimeError("fault")

    def finish(self) -> bytes:
        raise RuntimeError("fault")

    def reading(self) -> Reading:
        return Reading()

    def transcript(self, limit: int) -> str:
        return ""

    def cut(self, event: bytes, body: bytes) -> bytes:
        return event


def test_a_reader_that_raises_costs_the_reading_and_not_the_bytes(caplog: pytest.LogCaptureFixture) -> None:
    made = answering()
    made.reader = Failing()
    tee = tee_of(made)
    with caplog.at_level(logging.ERROR):
        assert [tee(b"one"), tee(b"two"), tee(b"")] == [b"one", b"two", b""]
    assert made.reader_failed
    assert len(caplog.records) == 1 and "call-1" in caplog.text


def test_a_reader_that_raises_at_the_end() -> None:
    made = answering()
    made.reader = Failing()
    assert tee_of(made)(b"") == b""
    assert made.reader_failed


def test_a_cut_that_raises_is_still_a_cut() -> None:
    made = answering()

    def broken(last: list[bytes]) -> list[bytes]:
        raise RuntimeError("fault")

    made.cut_stream = broken
    tee = tee_of(made)
    assert joined(tee(delta("a" * 100))) == delta("a" * 100)
    assert tee(delta("more")) == []


def test_a_whole_answer_that_cannot_be_read_is_no_fault_of_the_hook() -> None:
    made = answering(calls.chat(), content_type="application/json")
    made.reader = Failing()
    assert made.flow.response is not None
    made.flow.response.raw_content = b"{}"
    meter.read_whole(made)
    assert made.reader_failed
    assert getattr(made, "reader", made) is None


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@given(
    chunks=st.lists(st.one_of(st.binary(max_size=80), st.sampled_from([USAGE, DONE, delta("hi"), b"data: {", b"\r\n", b"\n\n"])))
)
@settings(max_examples=60, deadline=None)
def test_whatever_a_server_sends_arrives(path: str, chunks: list[bytes]) -> None:
    """Nothing raises and every byte is passed on; no chunk becomes the empty bytes that would end the body."""
    body: dict[str, Any] = {"stream": True, "max_tokens": 16_000, "stream_options": {"include_usage": True}}
    made = answering(calls.chat(**body) if path == CHAT else calls.message(stream=True, max_tokens=16_000), path)
    tee = tee_of(made)
    out = b""
    for chunk in filter(None, chunks):
        given = tee(chunk)
        assert given != b""
        out += joined(given)
    assert out + joined(tee(b"")) == b"".join(chunks)
    assert not made.reader_failed
