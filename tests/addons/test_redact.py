"""Credentials never survive, innocent values do."""

import base64

import pytest

from addons.redact import (
    is_secret_header,
    redact_bytes,
    redact_headers,
    redact_path,
    redact_text,
    secret_bytes,
)

OPENAI_KEY = b"sk-proj-Ab3dEf6hIj9kLm2nOp5q"
VIRTUAL_KEY = b"sk-bf-7b0c2f3e-5d0a-4f64-9a51-3a5a2f3b9c11"
GOOGLE_KEY = b"AIzaSyA1234567890abcdefghijklmnopqrstuv"
ANTHROPIC_KEY = b"sk-ant-api03-abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization", b"proxy-authorization", b"Cookie", b"Set-Cookie", b"X-Api-Key", b"x-goog-api-key", b"api-key", b"x-bf-vk",
        b"X-Amz-Security-Token", b"cf-access-client-secret", b"x-auth-token", b"Helicone-Auth", b"x-portkey-api-key", 
        b"x-session-id", b"X-Custom-Password",
    ],
)  # fmt: skip
def test_credential_headers_are_known_whatever_their_case(name: bytes) -> None:
    assert is_secret_header(name)


@pytest.mark.parametrize(
    "name",
    [
        b"content-type", b"x-ratelimit-remaining-tokens", b"anthropic-ratelimit-tokens-limit", b"openai-organization",
        b"x-tollgate-cost-usd", b"user-agent", b"x-request-id", b"author", b"www-authenticate", b"anthropic-version",
    ],
)  # fmt: skip
def test_other_headers_are_left_alone(name: bytes) -> None:
    assert not is_secret_header(name)
    assert redact_headers([(name, b"a value of 12 tokens")]) == ((name, b"a value of 12 tokens"),)


def test_the_scheme_is_kept_and_nothing_else() -> None:
    basic = base64.b64encode(b"someone:" + VIRTUAL_KEY)
    headers = [
        (b"Authorization", b"Bearer " + OPENAI_KEY),
        (b"Proxy-Authorization", b"Basic " + basic),
        (b"authorization", b"hunter2hunter2 trailing words"),
        (b"Cookie", b"a=1; session=abc"),
        (b"Set-Cookie", b"session=abc; HttpOnly"),
    ]
    assert redact_headers(headers) == (
        (b"Authorization", b"Bearer [redacted]"),
        (b"Proxy-Authorization", b"Basic [redacted]"),
        (b"authorization", b"[redacted]"),
        (b"Cookie", b"[redacted]"),
        (b"Set-Cookie", b"[redacted]"),
    )


def test_a_key_in_a_header_with_an_innocent_name_is_found_by_its_form_or_because_it_is_known() -> None:
    clean = redact_headers([(b"x-note", b"use " + ANTHROPIC_KEY), (b"x-other", b"hunter22")], (b"hunter22",))
    assert clean == ((b"x-note", b"use [redacted]"), (b"x-other", b"[redacted]"))


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        (b"/v1beta/models/g:generateContent?key=" + GOOGLE_KEY, b"/v1beta/models/g:generateContent?key=[redacted]"),
        (b"/v1/x?alt=sse&api_key=short&n=1", b"/v1/x?alt=sse&api_key=[redacted]&n=1"),
        (b"/x?X-Amz-Signature=abc&X-Amz-Credential=def/2026&y=2", b"/x?X-Amz-Signature=[redacted]&X-Amz-Credential=[redacted]&y=2"),
        (b"/v1/chat/completions", b"/v1/chat/completions"),
        (b"/v1/models?limit=10&monkey=business", b"/v1/models?limit=10&monkey=[redacted]"),
        (b"/v1/messages?beta=true", b"/v1/messages?beta=true"),
    ],
)
def test_query_parameters(path: bytes, clean: bytes) -> None:
    assert redact_path(path) == clean


def test_keys_inside_json_are_found_behind_escapes_and_json_stays_json() -> None:
    import json

    for key in (OPENAI_KEY, VIRTUAL_KEY, ANTHROPIC_KEY, GOOGLE_KEY):
        for text in ("my key:\n" + key.decode(), "tab\t" + key.decode(), "“" + key.decode(), key.decode() + " end"):
            for ascii_only in (True, False):
                clean = redact_bytes(json.dumps({"content": text}, ensure_ascii=ascii_only).encode())
                assert key not in clean
                assert "[redacted]" in json.loads(clean)["content"]


def test_words_that_merely_contain_the_letters_stay() -> None:
    text = "the task-force-is-a-very-long-name, risk-assessment-of-everything, desk-1234567890123"
    assert redact_text(text) == text


def test_known_secrets_go_also_as_json_writes_them() -> None:
    secret = 'pass"word\\with'
    known = secret_bytes([secret, "abc", ""])
    assert redact_bytes(b'{"echo": "pass\\"word\\\\with"}', known) == b'{"echo": "[redacted]"}'
    assert redact_bytes(b'raw pass"word\\with abc', known) == b"raw [redacted] abc", "three letters are no secret"


def test_text_that_cannot_be_encoded_does_not_raise() -> None:
    assert redact_text("\ud800 " + OPENAI_KEY.decode()) == "? [redacted]"
