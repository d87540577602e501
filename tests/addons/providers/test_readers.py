"""Readers stay bounded, cheap and silent whatever comes, and say so when they could not read."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.providers import openai_embeddings, readers
from addons.providers.dialect import Reader, RequestFacts
from addons.providers.openai_chat import ChatFindings, UsageHidingReader, is_usage_chunk
from addons.providers.readers import BodyReader, EventReader
from addons.providers.registry import DIALECTS

CHAT = RequestFacts(operation="chat_completion", model="m", stream=True)
CHUNK = (
    b'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,'
    b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,'
    b'"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"abcdef"}\n\n'
)


def every_reader(stream: bool, content_type: str) -> list[tuple[str, Reader]]:
    facts = RequestFacts(operation="chat_completion", model="gemini-2.5-flash", stream=stream)
    return [(name, dialect.reader(facts, content_type, hide_usage=False)) for name, dialect in DIALECTS.items()]


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "usage", "message", "type", "content", "response", "candidates", "parts", "usageMetadata",
             "output", "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "iterations",
             "cost", "error",
             "promptTokenCount", "totalTokenCount", "thoughtsTokenCount", "prompt_tokens_details", "cached_tokens", "tool_usage",
             "cache_creation", "ephemeral_1h_input_tokens", "model", "content_block", "item", "groundingMetadata", "x_groq",
             "webSearchQueries", "tool_calls", "function", "finish_reason", "web_search", "image_gen", "tools", "status"]
        ),
        inner | st.sampled_from(["message_start", "message_delta", "content_block_delta", "response.completed", "compaction"]),
        max_size=6,
    ),
    max_leaves=30,
)  # fmt: skip


def framing_is_no_object(data: bytes) -> bool:
    """JSON that Python writes and orjson does not read: numbers beyond its range, unpaired surrogates."""
    return b"\\ud" in data


@settings(max_examples=120, deadline=None)
@given(st.lists(SHAPES, max_size=4))
def test_any_json_is_passed_on_and_gives_a_sound_reading(messages: list[Any]) -> None:
    texts = [json.dumps(message).encode() for message in messages]
    framings: list[tuple[bool, str, bytes]] = [
        (True, "text/event-stream", b"".join(b"data: " + text + b"\n\n" for text in texts)),
        (True, "application/json", b"[" + b",".join(texts) + b"]"),
        (False, "application/json", texts[0] if texts else b""),
    ]
    for stream, content_type, data in framings:
        for name, reader in every_reader(stream, content_type):
            assert reader.feed(data) + reader.finish() == data, name

            reading = reader.reading()
            parts = [usage for _, usage in reading.further] + ([reading.usage] if reading.usage else [])
            for usage in parts:
                for field in usage.__slots__:
                    value = getattr(usage, field)
                    assert type(value) is int and 0 <= value, (name, field)
            assert not reading.unread or framing_is_no_object(data), (name, "a fault of the reader was swallowed")
            assert reading.output_bytes >= 0
            assert reading.stop_reason is None or type(reading.stop_reason) is str
            assert reading.error is None or type(reading.error) is str
            assert reading.model is None or type(reading.model) is str
            assert len(reader.transcript(5)) <= 5


@settings(max_examples=100, deadline=None)
@given(st.lists(SHAPES, max_size=4), st.integers(1, 40))
def test_hiding_usage_loses_nothing_but_usage(messages: list[Any], step: int) -> None:
    """Every event of the stream arrives as it was, without usage, or was a usage chunk."""
    events = [b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages]
    reader = UsageHidingReader(ChatFindings(CHAT))
    data = b"".join(events)
    out = b"".join(reader.feed(data[at : at + step]) for at in range(0, len(data), step)) + reader.finish()

    expected = []
    for message in messages:
        if type(message) is dict and "usage" in message:
            if message["usage"] is None:
                message = {key: value for key, value in message.items() if key != "usage"}
            elif is_usage_chunk(message):
                continue
        expected.append(message)
    received = [json.loads(part[6:]) for part in out.split(b"\n\n") if part]
    assert expected == received


@pytest.mark.parametrize(
    ("chunk", "dropped"),
    [
        ({"choices": [], "usage": {"total_tokens": 1}}, True),
        ({"choices": [{"index": 0, "delta": {}}], "usage": {"total_tokens": 1}}, True),
        ({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}], "usage": {"total_tokens": 1}}, True),
        ({"choices": [{"index": 0, "text": "", "finish_reason": None}], "usage": {"total_tokens": 1}}, True),
        ({"choices": [], "usage": {"total_tokens": 1}, "prompt_filter_results": []}, False),
        ({"choices": [], "usage": {"total_tokens": 1}, "error": {"message": "x"}}, False),
        ({"choices": [], "usage": None}, False),
        ({"choices": []}, False),
        ({"usage": {"total_tokens": 1}}, False),
        ({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "usage": {"total_tokens": 1}}, False),
        ({"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": {"total_tokens": 1}}, False),
        ({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"total_tokens": 1}}, False),
        ({"choices": [{"index": 0, "text": "x"}], "usage": {"total_tokens": 1}}, False),
    ],
)
def test_which_chunk_exists_only_for_usage(chunk: dict[str, Any], dropped: bool) -> None:
    assert is_usage_chunk(chunk) is dropped


@pytest.mark.parametrize("make", [EventReader, UsageHidingReader])
def test_an_endless_event_is_passed_on_unread(make: Callable[..., EventReader]) -> None:
    reader = make(ChatFindings(CHAT), max_event_bytes=10_000)
    pieces = [CHUNK, *[b"data: " + b"x" * 999] * 30, b"\n\n", CHUNK]
    out = b"".join(reader.feed(piece) for piece in pieces) + reader.finish()

    reading = reader.reading()
    start = CHUNK.replace(b',"usage":null', b"") if make is UsageHidingReader else CHUNK
    assert out == start + b"".join(pieces[1:])
    assert reading.unread
    assert reading.usage is None
    assert reading.output_bytes >= 29_000


def test_a_body_beyond_the_bound_is_passed_on_unread() -> None:
    reader = BodyReader(ChatFindings(CHAT), max_body_bytes=1000)
    pieces = [b'{"choices":[{"message":{"content":"', *[b"y" * 100] * 20, b'"}}],"usage":{"prompt_tokens":1}}']
    out = b"".join(reader.feed(piece) for piece in pieces) + reader.finish()

    reading = reader.reading()
    assert out == b"".join(pieces)
    assert (True, None, len(out)) == (reading.unread, reading.usage, reading.output_bytes)


def test_a_body_that_breaks_off_counts_what_came() -> None:
    reader = DIALECTS["openai_chat"].reader(
        RequestFacts(operation="chat_completion", model="m"), "application/json", hide_usage=False
    )
    reader.feed(b'{"id":"x","choices":[{"message":{"content":"Hel')

    reading = reader.reading()
    assert (None, 47, False) == (reading.usage, reading.output_bytes, reading.usage_is_final)


def test_a_body_that_is_complete_needs_no_end() -> None:
    reader = DIALECTS["anthropic"].reader(RequestFacts(operation="messages", model="m"), "application/json", hide_usage=False)
    reader.feed(b'{"type":"message","content":[],"usage":{"input_tokens":3,"output_tokens":4}}\n')

    usage = reader.reading().usage
    assert usage is not None
    assert (3, 4) == (usage.input_tokens, usage.output_tokens)


@pytest.mark.parametrize("name", ["openai_chat", "anthropic", "openai_responses"])
def test_a_json_body_under_a_wrong_type_is_read_all_the_same(name: str) -> None:
    reader = DIALECTS[name].reader(CHAT, "text/plain", hide_usage=False)
    body = b'{\n "model": "m",\n "usage": {"input_tokens": 3, "output_tokens": 4}\n}\n'
    for at in range(0, len(body), 7):
        assert reader.feed(body[at : at + 7]) == body[at : at + 7]
    reader.finish()

    usage = reader.reading().usage
    assert usage is not None
    assert (3, 4) == (usage.input_tokens, usage.output_tokens)


@pytest.mark.parametrize("step", [1000, 70_000, 10**7])
@pytest.mark.parametrize("space", ["", "\n  "])
def test_large_embeddings_are_read_at_their_end(step: int, space: str) -> None:
    vectors = ",".join(f'{{"object":"embedding","index":{i},"embedding":[{",".join(["0.0123456789"] * 200)}]}}' for i in range(200))
    usage = f'{{{space}"prompt_tokens":{space}8,"total_tokens":8,"details":{{"a":1}}{space}}}'
    body = f'{{"object":"list","data":[{vectors}],"model":"text-embedding-3-small",{space}"usage":{space}{usage}{space}}}'.encode()
    reader = DIALECTS["openai_embeddings"].reader(
        RequestFacts(operation="embedding", model="m"), "application/json", hide_usage=False
    )
    assert len(body) > 3 * openai_embeddings.KEPT_BYTES
    out = b"".join(reader.feed(body[at : at + step]) for at in range(0, len(body), step)) + reader.finish()

    reading = reader.reading()
    assert out == body
    assert reading.usage is not None
    assert (8, "text-embedding-3-small", True) == (reading.usage.input_tokens, reading.model, reading.usage_is_final)


def test_transcripts_are_bounded() -> None:
    reader = DIALECTS["openai_chat"].reader(CHAT, "text/event-stream", hide_usage=False)
    event = b'data: {"choices":[{"delta":{"content":"' + b"z" * 10_000 + b'"}}]}\n\n'
    for _ in range(50):
        reader.feed(event)

    assert len(reader.transcript(10**9)) == readers.MAX_TRANSCRIPT_CHARACTERS
    assert reader.reading().output_bytes == 500_000
    assert reader.reading().output_events == 50
    assert reader.transcript(0) == ""


def test_cutting_closes_a_half_event_first() -> None:
    event = DIALECTS["openai_chat"].error_event("budget_exceeded", "m", b'{"error":{"message":"m"}}')
    plain = EventReader(ChatFindings(CHAT))
    plain.feed(CHUNK)
    whole = plain.cut(event, b"")
    plain.feed(CHUNK[:50])
    hiding = UsageHidingReader(ChatFindings(CHAT))
    hiding.feed(CHUNK[:50])

    assert whole == event == b'data: {"error":{"message":"m"}}\n\n'
    assert plain.cut(event, b"") == b"\n\n" + event
    assert hiding.cut(event, b"") == event


@pytest.mark.parametrize(
    ("sent", "received"), [([b"["], None), ([b'[{"a":1}'], 2), ([b'[{"a":1}\n,', b'{"b":2}'], 3), ([b'[{"a":1'], 0)]
)
def test_cutting_an_array_leaves_an_array(sent: list[bytes], received: int | None) -> None:
    reader: Any = DIALECTS["gemini"].reader(CHAT, "application/json", hide_usage=False)
    out = b"".join(reader.feed(piece) for piece in sent) + reader.cut(b"", b'{"error":{"code":402}}')

    if received == 0:
        assert out == b"".join(sent)
    else:
        assert json.loads(out)[-1] == {"error": {"code": 402}}
        assert len(json.loads(out)) == (received or 1)


def test_a_chunk_costs_microseconds() -> None:
    """The hot path of a stream: a typical event in well under 20 µs even on a busy machine (best of several runs)."""
    for hide in (False, True):
        reader = DIALECTS["openai_chat"].reader(CHAT, "text/event-stream", hide_usage=hide)
        best = 1.0
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(200):
                reader.feed(CHUNK)
            best = min(best, (time.perf_counter() - start) / 200)

        assert best < 20e-6
