"""The limit written into the request: the provider can never be asked for more than the hold pays for."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.call import Call
from addons.policy import AssumedPrice
from addons.services import Services
from addons.steps.estimate import estimate
from addons.steps.read import read
from addons.steps.route import route, route_by_model
from addons.steps.trim import trim
from store.ledger.types import Cap, Granted
from tests.support import calls

CHAT, MESSAGES, RESPONSES = "/openai/v1/chat/completions", "/anthropic/v1/messages", "/openai/v1/responses"


def estimated(
    body: bytes,
    path: str = CHAT,
    caps: tuple[Cap, ...] = (),
    services: Services | None = None,
    headers: dict[str, str] | None = None,
) -> Call:
    """A base-URL call that only waits for its hold."""
    services = services or calls.services()
    made = calls.call(path, body=body, headers=headers)
    route(made, services, "origin", None)
    read(made, services)
    route_by_model(made)
    estimate(made, services, caps)
    made.hold_is_strict = any(cap.strict for cap in caps)
    return made


def trimmed(made: Call, amount_nanos: int) -> dict[str, Any]:
    """The body that goes upstream after a hold of so much."""
    made.hold = Granted("call-1", amount_nanos, False, ())
    trim(made)
    body: dict[str, Any] = json.loads(made.flow.request.raw_content or b"")
    return body


def test_a_hold_of_the_whole_bound_changes_nothing() -> None:
    body = b'{ "model":"gpt-4o-mini" , "messages":[{"role":"user","content":"hello"}],"max_tokens" : 100 }'
    made = estimated(body)
    trimmed(made, 65_250)
    assert (made.flow.request.raw_content, made.trimmed_to, made.output_tokens_held) == (body, None, 100)


def test_a_smaller_hold_lowers_the_limit_to_what_it_pays() -> None:
    """65,249 nano-dollars less 5,250 for the input are 59,999: 99 tokens of 600."""
    made = estimated(calls.chat(max_tokens=100))
    assert trimmed(made, 65_249)["max_tokens"] == 99
    assert (made.trimmed_to, made.output_tokens_held) == (99, 99)


def test_a_missing_limit_is_written_where_this_server_reads_it() -> None:
    body = trimmed(estimated(calls.chat()), 5_250 + 600 * 300)
    assert body["max_completion_tokens"] == 300
    assert "max_tokens" not in body


def test_candidates_share_the_hold() -> None:
    """1,000 tokens for three answers: 333 each."""
    made = estimated(calls.chat(max_tokens=2_000, n=3))
    assert trimmed(made, 5_250 + 600 * 1_000)["max_tokens"] == 333
    assert (made.trimmed_to, made.output_tokens_held) == (333, 1_000)


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        (MESSAGES, calls.message(), "max_tokens"),
        (RESPONSES, b'{"model": "gpt-4o-mini", "input": "hello"}', "max_output_tokens"),
    ],
)
def test_other_dialects_have_their_own_limits(path: str, body: bytes, key: str) -> None:
    made = estimated(body, path)
    assert made.bound is not None
    assert trimmed(made, made.bound.bound_nanos(700))[key] == 700


def test_gemini_limits_live_deeper() -> None:
    made = estimated(b'{"contents": [{"parts": [{"text": "hello"}]}]}', "/genai/v1beta/models/gemini-2.5-flash:generateContent")
    assert made.bound is not None
    assert trimmed(made, made.bound.bound_nanos(700))["generationConfig"] == {"maxOutputTokens": 700}


def test_only_the_limit_changes_and_all_of_its_length() -> None:
    """Spaces, order, escapes and numbers that JSON parsers would rewrite stay; the length header tells the truth."""
    body = (
        b'{"messages": [{"role":"user","content":"hell\\u006f"}], "temperature":1.0e0,\n "max_tokens":100, "model":"gpt-4o-mini"}'
    )
    made = estimated(body)
    trimmed(made, 65_249)
    assert made.flow.request.raw_content == body.replace(b"100", b"99")
    assert made.flow.request.headers["content-length"] == str(len(body) - 1)
    assert made.body == made.flow.request.raw_content


def test_a_changed_body_goes_on_uncompressed() -> None:
    made = estimated(
        gzip.compress(calls.chat(max_tokens=100)), headers={"content-encoding": "gzip", "transfer-encoding": "chunked"}
    )
    assert trimmed(made, 65_249)["max_tokens"] == 99
    assert "content-encoding" not in made.flow.request.headers and "transfer-encoding" not in made.flow.request.headers


def test_an_unchanged_body_goes_on_compressed() -> None:
    packed = gzip.compress(calls.chat(max_tokens=100))
    made = estimated(packed, headers={"content-encoding": "gzip"})
    made.hold = Granted("call-1", 65_250, False, ())
    trim(made)
    assert (made.flow.request.raw_content, made.flow.request.headers["content-encoding"]) == (packed, "gzip")


def test_signed_requests_are_never_altered_but_their_hold_counts() -> None:
    """Nothing is spliced; what the answer may bring is still known, or a broken answer would be charged nothing."""
    body = calls.chat(max_tokens=100, stream=True)
    made = estimated(body)
    made.signed = True
    trimmed(made, 65_250)
    assert (made.flow.request.raw_content, made.output_tokens_held, made.asked_usage) == (body, 100, False)


def test_free_models_are_not_trimmed() -> None:
    made = estimated(calls.chat(model="own", max_tokens=100), services=calls.services(unpriced=AssumedPrice(0, 0)))
    assert trimmed(made, 0)["max_tokens"] == 100
    assert made.trimmed_to is None


def test_without_a_price_nothing_is_trimmed() -> None:
    made = estimated(calls.chat(model="no-such-model", max_tokens=100), services=calls.services(unpriced="allow"))
    assert (trimmed(made, 0)["max_tokens"], made.trimmed_to, made.output_tokens_held) == (100, None, 100)


def test_usage_is_asked_for_where_it_is_not_given() -> None:
    made = estimated(calls.chat(stream=True, max_tokens=100))
    assert trimmed(made, 65_250)["stream_options"] == {"include_usage": True}
    assert made.asked_usage


@pytest.mark.parametrize("fields", [{}, {"stream": True, "stream_options": {"include_usage": True}}])
def test_usage_is_not_asked_for_twice(fields: dict[str, Any]) -> None:
    made = estimated(calls.chat(max_tokens=100, **fields))
    trimmed(made, 10**9)
    assert not made.asked_usage
    assert made.flow.request.raw_content == calls.chat(max_tokens=100, **fields)


def test_usage_is_not_asked_of_servers_that_do_not_understand() -> None:
    made = estimated(calls.chat(model="llama-3.3-70b-versatile", stream=True), "/groq/v1/chat/completions")
    assert "stream_options" not in trimmed(made, 10**12)
    assert not made.asked_usage


def test_the_model_goes_on_without_its_prefix() -> None:
    """`/v1` with `groq/…`, a lowered limit in the same splice."""
    made = estimated(calls.chat(model="groq/llama-3.3-70b-versatile"), "/v1/chat/completions")
    assert made.bound is not None
    body = trimmed(made, made.bound.bound_nanos(300))
    assert (body["model"], body["max_completion_tokens"]) == ("llama-3.3-70b-versatile", 300)


def test_strict_holds_are_trimmed_by_the_strict_bound() -> None:
    """1,032 tokens of input at 150 are 154,800; 600 nano-dollars more buy one token, not the 125 of the learnt bound."""
    body = calls.chat(messages=[{"role": "user", "content": "a" * 1_000}])
    made = estimated(body, caps=(calls.cap(strict=True),))
    assert trimmed(made, 154_800 + 600 * 256)["max_completion_tokens"] == 256


@given(
    limit=st.integers(1, 20_000), candidates=st.integers(1, 5), text=st.integers(0, 3_000), share=st.fractions(0, 1),
    strict=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_the_provider_is_never_asked_for_more_than_is_held(
    limit: int, candidates: int, text: int, share: Any, strict: bool
) -> None:
    """For any amount the ledger may grant, floor to bound: input at its dearest and every candidate's limit cost no more."""
    said = [{"role": "user", "content": "a" * text}]
    made = estimated(calls.chat(messages=said, max_tokens=limit, n=candidates), caps=(calls.cap(strict=strict),))
    bound = made.strict_bound if strict else made.bound
    assert bound is not None
    floor, most = bound.bound_nanos(made.output_floor), bound.bound_nanos(made.output_tokens_bound)
    amount = floor + int((most - floor) * share)
    body = trimmed(made, amount)
    input_tokens = min(128_000, 16 + 16 + (text if strict else -(-text // 2)))
    assert input_tokens * 150 + min(body["max_tokens"], 16_384) * candidates * 600 <= amount
    assert body["max_tokens"] * candidates >= made.output_floor - candidates
    assert body["max_tokens"] <= limit
