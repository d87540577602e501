"""Unmodified SDKs understand what leaves the gateway, and find the same usage in the recorded answers as the readers."""

import json
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from genai_prices.data_snapshot import get_snapshot
from google.genai import types as gemini_types

from addons.providers.dialect import RequestFacts
from addons.providers.registry import DIALECTS, FAMILIES, endpoint
from store.usage import Reading

WIRE = Path(__file__).resolve().parents[2] / "wire"
REFUSAL = b'{"type": "budget_exceeded", "error": {"message": "over", "type": "budget_exceeded", "code": "budget_exceeded"}}'


def case(name: str) -> tuple[dict[str, Any], bytes]:
    path = WIRE / f"{name}.json"
    return json.loads(path.read_text("utf-8")), path.with_suffix(".response.bin").read_bytes()


def cases(dialect: str, beginning: str) -> list[str]:
    return [f"{dialect}/{path.stem}" for path in sorted((WIRE / dialect).glob(f"{beginning}*.json"))]


def read(name: str, data: bytes | None = None) -> tuple[Reading, bytes, str]:
    meta, sent = case(name)
    facts = RequestFacts(operation=meta.get("operation", "chat_completion"), model=meta.get("model"), stream=meta["stream"])
    reader = DIALECTS[name.split("/")[0]].reader(facts, meta["content_type"], hide_usage=meta["hide_usage"])
    out = reader.feed(sent if data is None else data) + reader.finish()
    return reader.reading(), out, reader.transcript(10_000)


def transport(body: bytes, content_type: str = "text/event-stream") -> httpx2.Client:
    answer = lambda request: httpx2.Response(200, headers={"content-type": content_type}, content=body)  # noqa: E731
    return httpx2.Client(transport=httpx2.MockTransport(answer))


def openai_client(body: bytes) -> openai.OpenAI:
    return openai.OpenAI(api_key="x", base_url="http://test/v1", http_client=transport(body), max_retries=0)


@pytest.mark.parametrize("name", [n for n in cases("openai_chat", "stream") if not n.endswith("error_inside")])
def test_openai_chat_streams(name: str) -> None:
    reading, out, transcript = read(name)
    hidden = case(name)[0]["hide_usage"]

    sent = list(openai_client(case(name)[1]).chat.completions.create(model="m", messages=[], stream=True))
    received = list(openai_client(out).chat.completions.create(model="m", messages=[], stream=True))

    text = "".join(choice.delta.content or "" for chunk in received for choice in chunk.choices)
    assert transcript == text == "".join(choice.delta.content or "" for chunk in sent for choice in chunk.choices)
    reported = [chunk.usage for chunk in sent if chunk.usage is not None]
    if reported and reading.usage is not None:
        assert reported[-1].prompt_tokens == reading.usage.input_tokens
        assert reported[-1].completion_tokens == reading.usage.output_tokens
        details = reported[-1].completion_tokens_details
        assert ((details.reasoning_tokens if details else 0) or 0) == reading.usage.reasoning_tokens
    if hidden and "finish_chunk" not in name:
        assert not [chunk for chunk in received if chunk.usage is not None]
        assert not [chunk for chunk in received if "usage" in chunk.model_fields_set]
        assert len(received) == len(sent) - 1


@pytest.mark.parametrize("name", [n for n in cases("openai_responses", "stream") if not n.endswith(("error", "broken"))])
def test_openai_responses_streams(name: str) -> None:
    reading, out, transcript = read(name)

    events = list(openai_client(out).responses.create(model="m", input="x", stream=True))
    response = events[-1].response  # type: ignore[union-attr]

    assert reading.usage is not None and response.usage is not None
    assert response.usage.input_tokens == reading.usage.input_tokens
    assert response.usage.output_tokens == reading.usage.output_tokens
    assert response.usage.input_tokens_details.cached_tokens == reading.usage.cache_read_tokens
    assert response.usage.output_tokens_details.reasoning_tokens == reading.usage.reasoning_tokens
    assert response.model == reading.model
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == transcript


@pytest.mark.parametrize("name", [n for n in cases("anthropic", "stream") if not n.endswith("error")])
def test_anthropic_streams(name: str) -> None:
    reading, out, transcript = read(name)
    client = anthropic.Anthropic(api_key="x", base_url="http://test", http_client=transport(out), max_retries=0)

    with client.messages.stream(model="m", max_tokens=5, messages=[]) as stream:
        message = stream.get_final_message()

    usage = message.usage
    assert reading.usage is not None
    total = sum(u.output_tokens for _, u in reading.further) + reading.usage.output_tokens
    if not reading.further:
        assert usage.output_tokens == reading.usage.output_tokens
        cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
        assert usage.input_tokens + cached == reading.usage.input_tokens
    assert usage.output_tokens <= total
    assert message.stop_reason == reading.stop_reason
    assert "".join(block.text for block in message.content if block.type == "text") == transcript


@pytest.mark.parametrize("name", cases("gemini", "sse") + ["gemini/json_array", "gemini/buffered_audio"])
def test_gemini_answers(name: str) -> None:
    reading, out, transcript = read(name)
    if name.startswith("gemini/sse"):
        objects = [json.loads(line[6:]) for line in out.decode().splitlines() if line.startswith("data: ")]
    else:
        loaded = json.loads(out)
        objects = loaded if isinstance(loaded, list) else [loaded]
    answers = [gemini_types.GenerateContentResponse.model_validate(item.get("response", item)) for item in objects]
    usage = answers[-1].usage_metadata

    assert usage is not None and reading.usage is not None
    assert usage.total_token_count == reading.usage.input_tokens + reading.usage.output_tokens
    assert (usage.thoughts_token_count or 0) == reading.usage.reasoning_tokens
    parts = [part for a in answers for c in a.candidates or [] if c.content for part in c.content.parts or []]
    assert "".join(part.text or "" for part in parts if not part.thought) == transcript


EXTRACTABLE = [
    ("openai", "chat", "openai_chat/buffered_audio"),
    ("openai", "chat", "openai_chat/buffered_cache_write"),
    ("openai", "chat", "openai_chat/buffered_priority"),
    ("openai", "responses", "openai_responses/buffered_long_cache"),
    ("openai", "responses", "openai_responses/buffered_image_generation"),
    ("openai", "embeddings", "openai_embeddings/buffered"),
    ("anthropic", "default", "anthropic/buffered"),
    ("google", "default", "gemini/buffered_audio"),
]


@pytest.mark.parametrize(("provider_id", "flavor", "name"), EXTRACTABLE)
def test_same_counts_as_genai_prices(provider_id: str, flavor: str, name: str) -> None:
    reading = read(name)[0]
    provider = next(p for p in get_snapshot().providers if p.id == provider_id)

    model, theirs = provider.extract_usage(json.loads(case(name)[1]), api_flavor=flavor)

    ours = reading.usage
    assert ours is not None
    assert model == reading.model
    pairs = {
        "input_tokens": ours.input_tokens,
        "output_tokens": ours.output_tokens,
        "cache_read_tokens": ours.cache_read_tokens,
        "cache_write_tokens": ours.cache_write_tokens,
        "input_audio_tokens": ours.input_audio_tokens,
        "output_audio_tokens": ours.output_audio_tokens,
    }
    assert {key: getattr(theirs, key, None) or 0 for key in pairs} == pairs


def test_openai_sdk_raises_our_error_event() -> None:
    """A stream that is cut ends with an event that the SDK turns into an exception with our text."""
    for operation, path, call in (
        ("chat", "/v1/chat/completions", lambda c: c.chat.completions.create(model="m", messages=[], stream=True)),
        ("responses", "/v1/responses", lambda c: c.responses.create(model="m", input="x", stream=True)),
    ):
        dialect = endpoint(FAMILIES["openai"], "POST", path).dialect
        assert dialect is not None, operation
        with pytest.raises(openai.APIError, match="over"):
            list(call(openai_client(dialect.error_event("budget_exceeded", "over", REFUSAL))))


def test_anthropic_sdk_raises_our_error_event() -> None:
    body = b'{"type":"error","error":{"type":"billing_error","message":"over"},"message":"over"}'
    event = DIALECTS["anthropic"].error_event("budget_exceeded", "over", body)
    client = anthropic.Anthropic(api_key="x", base_url="http://test", http_client=transport(event), max_retries=0)

    with pytest.raises(anthropic.APIError, match="over"):
        list(client.messages.create(model="m", max_tokens=5, messages=[], stream=True))
