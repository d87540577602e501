"""The pretend provider against unmodified SDKs, raw sockets and hand-computed bills."""

import asyncio
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai

from addons.pretend.bill import PRICES, Counts, price_of, read_bill
from addons.pretend.provider import PretendProvider
from addons.pretend.steering import Behaviour, UnknownInstruction, steer
from tests.support.provider import PretendProcess


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PretendProcess]:
    with PretendProcess(bill_path=tmp_path_factory.mktemp("bill") / "bill.jsonl") as provider:
        yield provider


@pytest.fixture
def provider(process: PretendProcess) -> PretendProcess:
    process.reset()
    return process


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[tuple[PretendProvider, str]]:
    """The same provider inside this process, so that a test can wait on events instead of time."""
    pretend = PretendProvider(now_ms=lambda: 1_700_000_000_123, bill_path=tmp_path / "bill.jsonl")
    port = await pretend.start()
    yield pretend, f"http://127.0.0.1:{port}"
    await pretend.stop()


def chat(provider: PretendProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-real", max_retries=0)


def claude(provider: PretendProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=provider.url, api_key="sk-ant-real", max_retries=0)


def google(provider: PretendProcess, version: str) -> genai.Client:
    return genai.Client(api_key="real", http_options={"base_url": provider.url, "api_version": version})


HI: Any = [{"role": "user", "content": "hi"}]


def told(**instructions: object) -> dict[str, str]:
    return {f"x-pretend-{key.replace('_', '-')}": str(value) for key, value in instructions.items()}


# -- prices


def test_the_price_table_agrees_with_the_published_prices() -> None:
    """Against another library: 1,000 input and 1,000 output tokens of every model in the table."""
    from genai_prices import Usage, calc_price

    for model, price in PRICES.items():
        output = 0 if "embedding" in model else 1_000
        owner = "google" if model.startswith("gemini") else "anthropic" if model.startswith("claude") else "openai"
        reference = calc_price(Usage(input_tokens=1_000, output_tokens=output), model, provider_id=owner)
        assert Counts(input=1_000, output=output).cost_nanos(price) == reference.total_price * 10**9, model


def test_cached_prices_agree_with_the_published_prices() -> None:
    from genai_prices import Usage, calc_price

    for model in ("gpt-4o-mini", "gpt-4o", "claude-haiku-4-5", "claude-opus-5", "gemini-2.5-flash"):
        usage = Usage(input_tokens=1_000, cache_read_tokens=300, output_tokens=7)
        mine = Counts(input=1_000, cache_read=300, output=7).cost_nanos(price_of(model))
        assert mine == calc_price(usage, model).total_price * 10**9, model
    usage = Usage(input_tokens=1_000, cache_write_tokens=300, cache_write_1h_tokens=100, output_tokens=7)
    mine = Counts(input=1_000, cache_write=200, cache_write_1h=100, output=7).cost_nanos(price_of("claude-haiku-4-5"))
    assert mine == calc_price(usage, "claude-haiku-4-5").total_price * 10**9


def test_an_unknown_model_has_no_price() -> None:
    assert price_of("nobody-knows-this") is None
    assert Counts(input=5, output=5).cost_nanos(None) == 0


# -- OpenAI


def test_chat_reports_and_bills_the_same_figures(provider: PretendProcess) -> None:
    headers = told(input_tokens=1000, cached_tokens=400, output_tokens=30, reasoning_tokens=10)
    answer = chat(provider).chat.completions.create(model="gpt-4o-mini", messages=HI, extra_headers=headers)
    assert answer.model == "gpt-4o-mini-2024-07-18"
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (1000, 30, 1030)
    assert answer.usage.prompt_tokens_details.cached_tokens == 400
    bill = provider.bill()
    # 600 × 150 + 400 × 75 + 30 × 600
    assert bill["cost_nanos"] == 90_000 + 30_000 + 18_000
    assert bill["finished"] == {"calls": 1, "cost_nanos": 138_000}
    assert bill["lines"][0]["id"] == answer.id


def test_the_limit_is_respected_unless_told_otherwise(provider: PretendProcess) -> None:
    client = chat(provider)
    for limit in ({"max_tokens": 3}, {"max_completion_tokens": 3}):
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=HI, **limit)  # type: ignore[call-overload]
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"
        assert len(answer.choices[0].message.content.split()) == 3
    ignored = client.chat.completions.create(
        model="gpt-4o-mini", messages=HI, max_tokens=3, extra_headers=told(output_tokens=50, ignore_limit=1)
    )
    assert ignored.usage is not None and ignored.usage.completion_tokens == 50


def test_candidates_multiply_the_output(provider: PretendProcess) -> None:
    answer = chat(provider).chat.completions.create(model="gpt-4o-mini", messages=HI, n=3, max_tokens=5)
    assert len(answer.choices) == 3
    assert answer.usage is not None and answer.usage.completion_tokens == 15


def raw_chat_stream(provider: PretendProcess, **extra: Any) -> tuple[httpx.Response, list[dict[str, Any]]]:
    body = {"model": "gpt-4o-mini", "messages": HI, "stream": True} | extra
    answer = httpx.post(f"{provider.url}/v1/chat/completions", json=body, headers={"authorization": "Bearer k"})
    events = answer.text.split("\n\n")
    assert events[-1] == ""
    assert events[-2] == "data: [DONE]"
    return answer, [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def test_stream_usage_comes_only_when_asked_for(provider: PretendProcess) -> None:
    answer, chunks = raw_chat_stream(provider)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert all("usage" not in chunk for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks)
    _, asked = raw_chat_stream(provider, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in asked[:-1])
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["total_tokens"] == asked[-1]["usage"]["prompt_tokens"] + 16
    assert len(asked) == len(chunks) + 1


def test_stream_options_without_a_stream_are_refused(provider: PretendProcess) -> None:
    with pytest.raises(openai.BadRequestError, match="only allowed when"):
        chat(provider).chat.completions.create(model="gpt-4o", messages=HI, stream_options={"include_usage": True})
    assert provider.bill()["calls"] == 0


def test_a_server_that_knows_no_stream_options(provider: PretendProcess) -> None:
    with pytest.raises(openai.BadRequestError, match="stream_options"):
        chat(provider).chat.completions.create(
            model="gpt-4o",
            messages=HI,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers=told(reject_stream_options=1),
        )


def test_responses_buffered_and_streamed(provider: PretendProcess) -> None:
    client = chat(provider)
    limited = client.responses.create(model="gpt-4o", input="hello", max_output_tokens=4)
    assert limited.status == "incomplete"
    assert limited.incomplete_details is not None and limited.incomplete_details.reason == "max_output_tokens"
    assert limited.usage is not None and limited.usage.output_tokens == 4
    events = list(client.responses.create(model="gpt-4o", input="hello", stream=True, extra_headers=told(reasoning_tokens=5)))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens_details.reasoning_tokens == 5
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == last.response.output_text
    assert len(deltas.split()) == 11


def test_embeddings_as_numbers_and_as_base64_are_the_same(provider: PretendProcess) -> None:
    client = chat(provider)
    packed = client.embeddings.create(model="text-embedding-3-small", input=["first", "second text"], dimensions=8)
    plain = client.embeddings.create(
        model="text-embedding-3-small", input=["first", "second text"], dimensions=8, encoding_format="float"
    )
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert len(packed.data) == 2
    assert packed.usage.prompt_tokens == 2 + 3
    assert provider.bill()["cost_nanos"] == 2 * 5 * 20


def test_models_are_listed(provider: PretendProcess) -> None:
    assert "gpt-4o-mini" in [model.id for model in chat(provider).models.list()]
    assert "claude-haiku-4-5" in [model.id for model in claude(provider).models.list()]
    with google(provider, "v1beta") as client:
        assert "models/gemini-2.5-flash" in [model.name for model in client.models.list()]


# -- Anthropic


def test_messages_report_cache_classes_apart(provider: PretendProcess) -> None:
    headers = told(input_tokens=1000, cached_tokens=300, cache_write_tokens=200, cache_write_1h_tokens=100, output_tokens=20)
    answer = claude(provider).messages.create(model="claude-haiku-4-5", max_tokens=50, messages=HI, extra_headers=headers)
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (400, 300, 300)
    assert usage.cache_creation is not None
    assert usage.cache_creation.ephemeral_5m_input_tokens == 200
    assert usage.cache_creation.ephemeral_1h_input_tokens == 100
    # 400 × 1000 + 300 × 100 + 200 × 1250 + 100 × 2000 + 20 × 5000
    assert provider.bill()["cost_nanos"] == 400_000 + 30_000 + 250_000 + 200_000 + 100_000


def test_message_deltas_are_cumulative_and_the_split_is_in_the_start(provider: PretendProcess) -> None:
    headers = told(output_tokens=40, usage_deltas=3, cache_write_1h_tokens=9, input_tokens=20)
    with claude(provider).messages.stream(model="claude-haiku-4-5", max_tokens=100, messages=HI, extra_headers=headers) as stream:
        events = list(stream)
        final = stream.get_final_message()
    starts = [event for event in events if event.type == "message_start"]
    assert starts[0].message.usage.cache_creation is not None
    assert starts[0].message.usage.cache_creation.ephemeral_1h_input_tokens == 9
    deltas = [event.usage.output_tokens for event in events if event.type == "message_delta"]
    assert deltas == [13, 26, 40]
    assert final.usage.output_tokens == 40
    assert provider.bill()["lines"][0]["usage"]["output_tokens"] == 40


def test_max_tokens_is_required(provider: PretendProcess) -> None:
    body = {"model": "claude-haiku-4-5", "messages": HI}
    answer = httpx.post(f"{provider.url}/v1/messages", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == {"type": "invalid_request_error", "message": "max_tokens: Field required"}


def test_counting_tokens_is_free(provider: PretendProcess) -> None:
    assert claude(provider).messages.count_tokens(model="claude-haiku-4-5", messages=HI).input_tokens == 8
    with google(provider, "v1") as client:
        assert client.models.count_tokens(model="gemini-2.5-flash", contents="hi").total_tokens == 8
    assert provider.bill()["calls"] == 0


# -- Gemini


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_gemini_counts_thoughts_and_tools_beside_the_rest(provider: PretendProcess, version: str) -> None:
    said = "x [[pretend input-tokens=100 cached-tokens=40 tool-tokens=9 output-tokens=30 reasoning-tokens=12]]"
    with google(provider, version) as client:
        answer = client.models.generate_content(model="gemini-2.5-flash", contents=said)
    usage = answer.usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (100, 18, 12)
    assert (usage.tool_use_prompt_token_count, usage.cached_content_token_count) == (9, 40)
    assert usage.total_token_count == 100 + 9 + 18 + 12
    # 69 × 300 + 40 × 30 + 30 × 2500
    assert provider.bill()["cost_nanos"] == 20_700 + 1_200 + 75_000


def test_gemini_streams_as_events_and_as_one_array(provider: PretendProcess) -> None:
    body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 10}}
    url = f"{provider.url}/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    array = httpx.post(url, json=body)
    assert array.headers["content-type"].startswith("application/json")
    parts = array.json()
    assert [part["usageMetadata"]["candidatesTokenCount"] for part in parts] == [4, 8, 10]
    assert parts[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    events = httpx.post(f"{url}?alt=sse", json=body)
    assert events.headers["content-type"] == "text/event-stream"
    read = [json.loads(event.removeprefix("data: ")) for event in events.text.split("\r\n\r\n") if event]
    assert [part["usageMetadata"]["totalTokenCount"] for part in read] == [12, 16, 18]


# -- errors in each dialect


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_errors_raise_what_the_sdks_raise_for_the_real_ones(provider: PretendProcess, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as from_openai:
        chat(provider).chat.completions.create(model="gpt-4o", messages=HI, extra_headers=told(status=status))
    assert from_openai.value.status_code == status
    with pytest.raises(anthropic.APIStatusError) as from_anthropic:
        claude(provider).messages.create(model="claude-haiku-4-5", max_tokens=5, messages=HI, extra_headers=told(status=status))
    assert from_anthropic.value.status_code == status
    with pytest.raises(genai.errors.APIError) as from_google, google(provider, "v1") as client:
        client.models.generate_content(model="gemini-2.5-flash", contents=f"x [[pretend status={status}]]")
    assert from_google.value.code == status
    assert provider.bill()["calls"] == 0


def test_rate_limit_answers_name_their_kind(provider: PretendProcess) -> None:
    headers = told(status=429, retry_after=7)
    answer = httpx.post(f"{provider.url}/v1/chat/completions", json={}, headers=headers)
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


def test_a_virtual_key_is_never_a_credential(provider: PretendProcess) -> None:
    client = openai.OpenAI(base_url=f"{provider.url}/v1", api_key="sk-bf-0123", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="virtual key"):
        client.chat.completions.create(model="gpt-4o", messages=HI)


def test_a_required_key_is_required(provider: PretendProcess) -> None:
    provider.set_defaults(require_key="sk-real")
    chat(provider).chat.completions.create(model="gpt-4o", messages=HI)
    with pytest.raises(anthropic.AuthenticationError):
        claude(provider).messages.create(model="claude-haiku-4-5", max_tokens=5, messages=HI)


@pytest.mark.parametrize("instructions", [{"bogus": "1"}, {"hang": "sometimes"}, {"output-tokens": "many"}])
def test_instructions_that_mean_nothing_are_refused(provider: PretendProcess, instructions: dict[str, str]) -> None:
    with pytest.raises(UnknownInstruction):
        steer(Behaviour(), instructions)
    with pytest.raises(openai.BadRequestError):
        chat(provider).chat.completions.create(model="gpt-4o", messages=HI, extra_headers=told(**instructions))


def test_a_counter_the_shape_cannot_carry_is_refused(provider: PretendProcess) -> None:
    with pytest.raises(openai.BadRequestError, match="tool-tokens"):
        chat(provider).chat.completions.create(model="gpt-4o", messages=HI, extra_headers=told(tool_tokens=4))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b"[]", 400),
        ("/v1/chat/completions", b'{"model": 5, "messages": []}', 400),
        ("/v1/chat/completions", b'{"model": "gpt-4o", "messages": [{}], "max_tokens": "many"}', 400),
        ("/v1/messages", b'{"model": "claude-haiku-4-5", "max_tokens": 0, "messages": [{}]}', 400),
        ("/v1beta/models/gemini-2.5-flash:generateContent", b"{}", 400),
        ("/v1/nowhere", b"{}", 404),
    ],
)
def test_bad_requests_are_answered_in_shape(provider: PretendProcess, path: str, body: bytes, status: int) -> None:
    answer = httpx.post(f"{provider.url}{path}", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert provider.bill()["calls"] == 0


# -- transport


def test_compression_is_forced_or_negotiated(provider: PretendProcess) -> None:
    body = {"model": "gpt-4o", "messages": HI, "stream": True}
    url = f"{provider.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=told(gzip="force") | {"accept-encoding": "identity"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        raw = b"".join(answer.iter_raw())
    assert zlib.decompress(raw, wbits=31).endswith(b"data: [DONE]\n\n")
    plain = httpx.post(url, json=body, headers=told(gzip="auto") | {"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_compressed_requests_are_read(provider: PretendProcess) -> None:
    import zstandard

    body = json.dumps({"model": "gpt-4o", "messages": HI}).encode()
    for encoding, packed in (("gzip", gzip.compress(body)), ("zstd", zstandard.ZstdCompressor().compress(body))):
        headers = {"content-encoding": encoding}
        assert httpx.post(f"{provider.url}/v1/chat/completions", content=packed, headers=headers).status_code == 200
    broken = httpx.post(f"{provider.url}/v1/chat/completions", content=b"no", headers={"content-encoding": "gzip"})
    assert broken.status_code == 400


def test_requests_are_shown_as_they_came(provider: PretendProcess) -> None:
    httpx.post(f"{provider.url}/v1/chat/completions?x=1", content=b'{ "a": "\xc3\xa9" }', headers={"X-Thing": "One"})
    shown = provider.last(1)[0]
    assert shown["target"] == "/v1/chat/completions?x=1"
    assert ["X-Thing", "One"] in shown["headers"]
    assert shown["body_text"] == '{ "a": "é" }'


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_each_framing_carries_the_same_body(provider: PretendProcess, framing: str) -> None:
    body = {"model": "gpt-4o", "messages": HI}
    answer = httpx.post(f"{provider.url}/v1/chat/completions", json=body, headers=told(framing=framing))
    assert answer.json()["usage"]["completion_tokens"] == 16
    assert ("transfer-encoding" in answer.headers) == (framing == "chunked")
    assert ("content-length" in answer.headers) == (framing == "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_in_the_middle_is_unfinished_on_the_bill(provider: PretendProcess, stream: bool) -> None:
    body = {"model": "gpt-4o-mini", "messages": HI, "stream": stream}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{provider.url}/v1/chat/completions", json=body, headers=told(cut="mid-stream", input_tokens=10))
    bill = provider.bill()
    assert bill["finished"]["calls"] == 0
    # of 16 tokens a stream sent two chunks of four; a buffered answer was generated whole before it was cut
    assert bill["unfinished"]["cost_nanos"] == 10 * 150 + (8 if stream else 16) * 600
    assert bill["lines"][0]["outcome"] == "cut"


def test_a_cut_before_the_headers_costs_nothing(provider: PretendProcess) -> None:
    for extra in ({}, {"cut_with_reset": 1}):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            httpx.post(
                f"{provider.url}/v1/chat/completions",
                json={"model": "gpt-4o", "messages": HI},
                headers=told(cut="before-headers", **extra),
            )
    assert provider.bill()["calls"] == 0


def test_an_error_inside_a_stream(provider: PretendProcess) -> None:
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        with claude(provider).messages.stream(
            model="claude-haiku-4-5", max_tokens=50, messages=HI, extra_headers=told(stream_error=1, after_chunks=1)
        ) as stream:
            list(stream)
    assert provider.bill()["lines"][0]["outcome"] == "error"
    assert provider.bill()["lines"][0]["usage"]["output_tokens"] == 4


def test_html_instead_of_json(provider: PretendProcess) -> None:
    answer = httpx.post(f"{provider.url}/v1/chat/completions", json={}, headers=told(html=1))
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html; charset=UTF-8")


async def test_early_hints_come_first(inside: tuple[PretendProvider, str]) -> None:
    _, url = inside
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-pretend-early-hints: 1\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 103 ")
    assert b"HTTP/1.1 200 OK" in await reader.readuntil(b"content-type")
    writer.close()


async def test_requests_in_one_segment_are_answered_in_order(inside: tuple[PretendProvider, str]) -> None:
    """Pipelined, the first one slow: the second waits its turn. Chunked request bodies are read."""
    _, url = inside
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    slow = start + b"x-pretend-first-token-ms: 30\r\nx-pretend-output-tokens: 1\r\n\r\n" + chunks
    quick = start + b"connection: close\r\nx-pretend-output-tokens: 2\r\n\r\n" + chunks
    writer.write(slow + quick)
    everything = await reader.read()
    assert everything.count(b"HTTP/1.1 200 OK") == 2
    assert everything.index(b'"completion_tokens": 1') < everything.index(b'"completion_tokens": 2')


@pytest.mark.parametrize("junk", [b"hello\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"])
async def test_junk_is_answered_and_the_connection_ends(inside: tuple[PretendProvider, str], junk: bytes) -> None:
    _, url = inside
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(junk)
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


# -- the bill


async def test_a_caller_who_leaves_owes_what_was_generated(inside: tuple[PretendProvider, str], tmp_path: Path) -> None:
    pretend, url = inside
    headers = told(input_tokens=100, output_tokens=4000, chunk_delay_ms=5, chunk_tokens=1)
    body = {"model": "gpt-4o-mini", "messages": HI, "stream": True}
    async with httpx.AsyncClient() as client:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if '"content":" ' in line:
                    break
            running = read_bill(tmp_path / "bill.jsonl")
            assert [(entry["finished"], entry["cost_nanos"]) for entry in running] == [(False, 15_000)]
    await pretend.idle()
    owed = pretend.bill.lines[0]
    assert owed.outcome == "gone"
    assert 1 <= owed.counts.output < 4000
    on_disk = read_bill(tmp_path / "bill.jsonl")
    assert on_disk == [owed.as_dict()]
    assert on_disk[0]["cost_nanos"] == 15_000 + 600 * owed.counts.output


async def test_a_hang_is_owed_and_ends_with_the_caller(inside: tuple[PretendProvider, str]) -> None:
    pretend, url = inside
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": HI, "stream": True}
    headers = told(hang="mid-stream", after_chunks=1)
    async with httpx.AsyncClient() as client:
        async with client.stream("POST", f"{url}/v1/messages", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if "text_delta" in line:
                    break
            assert pretend.status()["in_flight"] == 1
    await pretend.idle()
    assert pretend.bill.lines[0].outcome == "gone"
    assert pretend.bill.lines[0].counts.output == 4


def test_the_bill_file_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "bill.jsonl"
    with PretendProcess(bill_path=path) as provider:
        for _ in range(5):
            chat(provider).chat.completions.create(model="gpt-4o", messages=HI, extra_headers=told(input_tokens=1))
        provider.kill9()
    lines = read_bill(path)
    assert len(lines) == 5
    assert sum(line["cost_nanos"] for line in lines) == 5 * (2_500 + 16 * 10_000)
    with path.open("ab") as file:
        file.write(b'{"id": "torn')
    assert read_bill(path) == lines


def test_it_ends_when_its_parent_does() -> None:
    command = [sys.executable, "-m", "addons.pretend", "--lifeline"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline().startswith("pretend provider on http://127.0.0.1:")
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.mark.parametrize("words", [["--default", "bogus=1"], ["--host", "203.0.113.1"]])
def test_a_mistake_on_the_command_line_is_one_clear_error(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "addons.pretend", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words[1].partition("=")[0] in done.stderr


def test_it_imports_nothing_of_the_gateway() -> None:
    """A closed circle proves nothing: only the standard library, a JSON parser and its own modules."""
    import ast

    allowed = {"addons.pretend", "orjson", "uvloop", "zstandard"}
    for path in Path(__file__).parents[3].joinpath("addons/pretend").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("addons", "store"):
                assert node.module.startswith("addons.pretend"), f"{path.name} imports {node.module}"
            if isinstance(node, ast.Import):
                for name in node.names:
                    assert name.name.split(".")[0] not in ("addons", "store") or name.name in allowed, path.name
