"""Compressed answers are read without being touched; compressed request bodies are decoded within a bound."""

import gzip
import random
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.providers.dialect import RequestFacts
from addons.providers.encodings import DecodingReader, UndecodableBody, decode_body, decoded
from addons.providers.registry import DIALECTS

STREAM = (
    b"".join(b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"word %d "}}]}\n\n' % i for i in range(200))
    + b'data: {"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":200,"total_tokens":203}}\n\ndata: [DONE]\n\n'
)


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    " zstd ,identity": lambda data: zstandard.ZstdCompressor().compress(data[:50]) + zstandard.ZstdCompressor().compress(data[50:]),
}
FACTS = RequestFacts(operation="chat_completion", model="m", stream=True)


def stream_reader(coding: str) -> DecodingReader:
    return decoded(DIALECTS["openai_chat"].reader(FACTS, "text/event-stream", hide_usage=False), coding)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("seed", range(5))
def test_answers(coding: str, seed: int) -> None:
    data = CODINGS[coding](STREAM)
    reader = stream_reader(coding)
    step = random.Random(seed).choice([1, 3, 50, 100_000])
    out = b"".join(reader.feed(data[at : at + step]) for at in range(0, len(data), step)) + reader.finish()

    reading = reader.reading()
    assert out == data
    assert reading.usage is not None
    assert (3, 200, True, False) == (
        reading.usage.input_tokens, reading.usage.output_tokens, reading.usage_is_final, reading.unread
    )  # fmt: skip
    assert reader.transcript(13) == "word 0 word 1"


@pytest.mark.parametrize("coding", CODINGS)
def test_request_bodies(coding: str) -> None:
    body = b'{"model":"m","messages":[]}' * 10

    assert decode_body(CODINGS[coding](body), coding, 10_000) == body


@pytest.mark.parametrize("coding", CODINGS)
def test_request_bodies_over_the_bound(coding: str) -> None:
    bomb = CODINGS[coding](b"\0" * 30_000_000)

    with pytest.raises(UndecodableBody) as caught:
        decode_body(bomb, coding, 1_000_000)
    assert caught.value.too_large


@pytest.mark.parametrize("coding", CODINGS)
def test_request_bodies_cut_short(coding: str) -> None:
    body = CODINGS[coding](bytes(random.Random(1).choices(range(256), k=5000)))

    with pytest.raises(UndecodableBody) as caught:
        decode_body(body[: len(body) // 2], coding, 1_000_000)
    assert not caught.value.too_large


@pytest.mark.parametrize("coding", ["compress", "gzip, gzip, gzip, gzip", "aws-chunked"])
def test_unknown_codings(coding: str) -> None:
    with pytest.raises(UndecodableBody):
        decode_body(b"abc", coding, 1000)
    reader = stream_reader(coding)

    assert reader.feed(b"abc") == b"abc"
    assert (True, 3) == (reader.reading().unread, reader.reading().output_bytes)


@pytest.mark.parametrize("coding", CODINGS)
def test_damaged_answers_pass_and_say_so(coding: str) -> None:
    data = b"\xff\xfe" + CODINGS[coding](STREAM)[2:]
    reader = stream_reader(coding)

    assert reader.feed(data) + reader.finish() == data
    assert reader.reading().usage is None


def test_an_exploding_answer_is_given_up() -> None:
    """Two million bytes of ordinary events pass; beyond the bound they are not even looked at."""
    data = gzip.compress(STREAM * 200)
    readers = []
    for most in (10_000_000, 1_000_000):
        inner = DIALECTS["openai_chat"].reader(FACTS, "text/event-stream", hide_usage=False)
        readers.append(reader := DecodingReader(inner, "gzip", max_bytes=most))
        assert reader.feed(data) == data
    whole, stopped = (reader.reading() for reader in readers)

    assert (False, 40_000, True, True) == (whole.unread, whole.output_events, stopped.unread, stopped.output_events < 20_000)
    assert readers[1].feed(b"more") == b"more"
    assert readers[1].reading().output_bytes == stopped.output_bytes + 4


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(CODINGS)), st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes(coding: str, data: bytes, step: int) -> None:
    reader = stream_reader(coding)

    assert b"".join(reader.feed(data[at : at + step]) for at in range(0, len(data), step)) == data
    reader.finish()
    assert reader.reading().output_bytes >= 0
    try:
        decode_body(data, coding, 100_000)
    except UndecodableBody:
        pass
