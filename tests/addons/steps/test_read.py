"""Reading request bodies: decoded within a bound, refused when they cannot be metered, and left as they came."""

import gzip
import json
from typing import Any

import pytest

from addons.call import Call
from addons.steps.read import read
from addons.steps.route import route
from tests.support import calls


def was_read(body: bytes, path: str = "/openai/v1/chat/completions", encoding: str = "", **policy: Any) -> Call:
    """A base-URL call after route and read."""
    services = calls.services(**policy)
    made = calls.call(path, body=body, headers={"content-encoding": encoding} if encoding else None)
    route(made, services, "origin", None)
    read(made, services)
    return made


def refused(made: Call) -> tuple[int, str] | None:
    return None if made.refusal is None else (made.refusal.status, made.refusal.type)


def test_facts_and_model_come_from_the_body() -> None:
    made = was_read(calls.chat(max_tokens=100, stream=True))
    assert made.facts is not None
    assert (made.model, made.requested_model, made.facts.output_limit, made.facts.stream) == (
        "gpt-4o-mini",
        "gpt-4o-mini",
        100,
        True,
    )
    assert (made.facts.text_bytes, made.encoded, made.refusal) == (5, False, None)


def test_gemini_names_its_model_in_the_path() -> None:
    body = json.dumps({"contents": [{"parts": [{"text": "hello"}]}]}).encode()
    assert was_read(body, "/genai/v1beta/models/gemini-2.5-flash:generateContent").model == "gemini-2.5-flash"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " gzip "])
def test_a_compressed_body_is_decoded_on_the_side(encoding: str) -> None:
    packed = gzip.compress(calls.chat())
    made = was_read(packed, encoding=encoding)
    assert (made.body, made.encoded, made.refusal) == (calls.chat(), True, None)
    assert made.flow.request.raw_content == packed


@pytest.mark.parametrize("encoding", ["identity", ""])
def test_identity_is_no_encoding(encoding: str) -> None:
    assert was_read(calls.chat(), encoding=encoding).encoded is False


def test_a_bomb_is_too_large_however_small_it_came() -> None:
    bomb = gzip.compress(calls.chat() + b" " * 1_000_000)
    assert len(bomb) < 2_000
    assert refused(was_read(bomb, encoding="gzip", max_body_bytes=10_000)) == (413, "request_too_large")


@pytest.mark.parametrize(("body", "encoding"), [(b"no gzip", "gzip"), (gzip.compress(calls.chat())[:-12], "gzip"), (b"x", "rot13")])
def test_what_cannot_be_decoded_is_refused(body: bytes, encoding: str) -> None:
    assert refused(was_read(body, encoding=encoding)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"messages": []}',
        b'{"model": "", "messages": []}',
        b'{"model": 7, "messages": []}',
        b'{"model": "gpt-4o-mini"}',
        b'{"model": "gpt-4o-mini", "messages": {}}',
        b'{"model": "gpt-4o-mini", "messages": [], "max_tokens": "many"}',
        b'{"model": "gpt-4o-mini", "messages": [], "max_tokens": 5, "max_tokens": 100000}',
        b'{"model": "half \\ud800 pair", "messages": []}',
    ],
)
def test_bodies_that_cannot_be_metered_are_refused(body: bytes) -> None:
    assert refused(was_read(body)) == (400, "invalid_request")


def test_a_name_that_no_store_can_hold_is_kept_nowhere() -> None:
    made = was_read(b'{"model": "half \\ud800 pair", "messages": []}')
    assert (made.model, made.requested_model) == ("", "")


def test_names_beyond_ascii_are_names() -> None:
    assert was_read(calls.chat(model="modèle-\U0001f600")).model == "modèle-\U0001f600"


def test_without_a_dialect_nothing_is_read() -> None:
    made = was_read(b"\x00anything", "/openai/v1/images/generations")
    assert (made.body, made.facts, made.refusal) == (b"\x00anything", None, None)
