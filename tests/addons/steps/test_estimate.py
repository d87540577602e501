"""The bound against prices and counts worked out by hand.

gpt-4o-mini: $0.15 in, $0.60 out per million tokens = 150 and 600 nano-dollars a token; at most 16,384 out, context 128,000.
claude-haiku-4-5: $1 in, $5 out, $1.25 cache write, $2 for an hour. gemini-2.5-pro: $1.25/$10, above 200,000 tokens $2.50/$15.
"""

import base64
import json
import struct
from typing import Any

import pytest

from addons.call import Call
from addons.policy import AssumedPrice
from addons.services import Services
from addons.steps.estimate import estimate
from addons.steps.read import read
from addons.steps.route import route
from store.ledger.types import Cap
from store.prices.bound import Bound
from tests.support import calls

CHAT, MESSAGES = "/openai/v1/chat/completions", "/anthropic/v1/messages"
STRICT = (calls.cap(strict=True),)


def estimated(body: bytes, path: str = CHAT, services: Services | None = None, caps: tuple[Cap, ...] = ()) -> Call:
    """A base-URL call after estimate."""
    services = services or calls.services()
    made = calls.call(path, body=body)
    route(made, services, "origin", None)
    read(made, services)
    assert made.refusal is None
    made.virtual_key = calls.virtual_key()
    estimate(made, services, caps)
    return made


def bound_of(made: Call) -> Bound:
    assert made.bound is not None
    return made.bound


def test_a_short_call_to_the_nano_dollar() -> None:
    """5 bytes at half a token, up: 3; framing 16 + 16: 35 tokens in. 35 × 150 + 100 × 600 = 65,250 nano-dollars."""
    made = estimated(calls.chat(max_tokens=100))
    assert (made.input_tokens_bound, made.output_tokens_bound) == (35, 100)
    assert bound_of(made).bound_nanos(100) == 65_250
    assert made.input_tokens_estimate == 34  # 5 × 0.3, up, + 32


def test_claude_counts_more_tokens_a_byte() -> None:
    """5 × 0.65, up: 4; framing 32 + 16: 52 tokens at $1, 1,000 out at $5: 52,000 + 5,000,000 nano-dollars."""
    made = estimated(calls.message(), MESSAGES)
    assert (made.input_tokens_bound, bound_of(made).bound_nanos(made.output_tokens_bound)) == (52, 5_052_000)


@pytest.mark.parametrize(("control", "nanos"), [({"type": "ephemeral"}, 1_250), ({"type": "ephemeral", "ttl": "1h"}, 2_000)])
def test_asking_for_a_cache_is_bounded_at_its_write_price(control: dict[str, str], nanos: int) -> None:
    said = [{"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": control}]}]
    made = estimated(calls.message(messages=said), MESSAGES)
    assert bound_of(made).input_nanos == made.input_tokens_bound * nanos


def gemini(text: str) -> bytes:
    return json.dumps({"contents": [{"parts": [{"text": text}]}]}).encode()


def test_the_dearer_tier_counts_as_soon_as_it_can_be_reached() -> None:
    path = "/genai/v1beta/models/gemini-2.5-pro:generateContent"
    small, large = estimated(gemini("a" * 300_000), path), estimated(gemini("a" * 500_000), path)
    assert small.input_tokens_bound < 200_000 < large.input_tokens_bound
    assert bound_of(small).input_nanos == small.input_tokens_bound * 1_250
    assert bound_of(large).input_nanos == large.input_tokens_bound * 2_500
    assert (bound_of(small).output_picos_per_token, bound_of(large).output_picos_per_token) == (10_000_000, 15_000_000)


def test_searches_the_answer_may_make_are_in_the_bound() -> None:
    """A search-enabled chat searches once: one cent."""
    assert bound_of(estimated(calls.chat(web_search_options={}))).fixed_nanos == 10_000_000


def test_a_residency_host_is_dearer() -> None:
    """gpt-5.4 at `eu.api.openai.com`: $15 out and a tenth on top, $16.50 per million tokens."""
    services = calls.services()
    made = calls.call("/v1/chat/completions", body=calls.chat(model="gpt-5.4"), headers={"host": "eu.api.openai.com"})
    route(made, services, "origin", ("eu.api.openai.com", 443))
    read(made, services)
    estimate(made, services, ())
    assert (made.region, bound_of(made).output_picos_per_token) == ("eu", 16_500_000)


@pytest.mark.parametrize(("tier", "picos"), [("priority", 1_000_000), ("flex", 600_000), ("default", 600_000)])
def test_a_dearer_service_tier_is_believed_and_a_cheaper_one_is_not(tier: str, picos: int) -> None:
    """gpt-4o-mini costs $1 out with `priority`; that `flex` was granted is known only from the answer."""
    assert bound_of(estimated(calls.chat(service_tier=tier))).output_picos_per_token == picos


@pytest.mark.parametrize("limit", [None, -1])
def test_no_limit_means_the_models_maximum(limit: int | None) -> None:
    """A negative limit is some servers' word for endless."""
    assert estimated(calls.chat(max_tokens=limit)).output_tokens_bound == 16_384


def test_the_requests_own_limit_is_what_is_bounded() -> None:
    """Whatever our table says of the model: the provider is asked for this number."""
    assert estimated(calls.chat(max_tokens=10**9)).output_tokens_bound == 10**9


def test_every_candidate_may_use_the_whole_limit() -> None:
    made = estimated(calls.chat(max_tokens=1_000, n=3))
    assert (made.output_tokens_bound, made.output_floor) == (3_000, 768)


def test_the_floor_never_passes_the_requests_own_limit() -> None:
    assert estimated(calls.chat(max_tokens=100)).output_floor == 100


def test_the_floor_stays_above_the_thinking_budget() -> None:
    made = estimated(calls.message(max_tokens=8_000, thinking={"type": "enabled", "budget_tokens": 2_000}), MESSAGES)
    assert made.output_floor == 2_001


def test_the_floor_is_twice_what_is_usual() -> None:
    services = calls.services()
    services.learned.observe("openai", "gpt-4o-mini", "vk-1", 0, 0, 400)
    services.learned.observe("openai", "gpt-4o-mini", "vk-2", 0, 0, 5_000)  # somebody else's habit
    made = estimated(calls.chat(), services=services)
    assert (made.output_floor, made.output_typical) == (800, 400)


def test_embeddings_have_no_output() -> None:
    """`hello` costs at most 3 + framing tokens at $0.02 a million: 20 nano-dollars each."""
    made = estimated(b'{"model": "text-embedding-3-small", "input": "hello"}', "/openai/v1/embeddings")
    assert (made.output_tokens_bound, made.output_floor, made.output_typical) == (0, 0, 0)
    assert bound_of(made).bound_nanos(0) == made.input_tokens_bound * 20


def test_what_was_learnt_replaces_the_default() -> None:
    """1,000 bytes were 200 tokens: 0.2 with a quarter on top is 0.25, and 4,000 bytes are bounded at 1,000 tokens."""
    services = calls.services()
    services.learned.observe("openai", "gpt-4o-mini", "vk-1", 1_000, 200, 10)
    made = estimated(calls.chat(messages=[{"role": "user", "content": "a" * 4_000}]), services=services)
    assert (made.input_tokens_bound, made.input_tokens_estimate) == (1_032, 832)


def test_never_more_than_one_token_a_byte() -> None:
    services = calls.services()
    services.learned.observe("openai", "gpt-4o-mini", "vk-1", 1_000, 999, 10)
    made = estimated(calls.chat(messages=[{"role": "user", "content": "a" * 4_000}]), services=services)
    assert made.input_tokens_bound == 4_032


def test_never_more_than_the_models_context() -> None:
    made = estimated(calls.chat(messages=[{"role": "user", "content": "a" * 400_000}]), caps=STRICT)
    assert made.input_tokens_bound == 128_000
    assert made.strict_bound is not None and made.strict_bound.input_nanos == 128_000 * 150


def test_strict_counts_one_token_a_byte() -> None:
    """1,000 bytes + 32: 1,032 × 150 nano-dollars, where the learnt bound says 532."""
    made = estimated(calls.chat(messages=[{"role": "user", "content": "a" * 1_000}]), caps=STRICT)
    assert made.strict_bound is not None
    assert (made.input_tokens_bound, made.strict_bound.input_nanos) == (532, 154_800)


def test_strict_is_made_only_where_a_cap_asks() -> None:
    assert estimated(calls.chat(), caps=(calls.cap(),)).strict_bound is None


def picture(width: int, height: int) -> dict[str, Any]:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + b"\0\0\0\0"
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(head).decode()}}


def test_strict_counts_every_byte_beside_a_picture_too() -> None:
    """The picture is the same in both bounds: the two differ by the text alone."""
    parts = [{"type": "text", "text": "a" * 1_000}, picture(512, 512)]
    made = estimated(calls.chat(messages=[{"role": "user", "content": parts}]), caps=STRICT)
    facts = made.facts
    assert facts is not None and len(facts.media) == 1 and made.strict_bound is not None
    text = facts.text_bytes
    assert made.input_tokens_bound > text, "the picture is dear enough to hide the fault this test is for"
    learnt = -(-text // 2)
    assert made.strict_bound.input_nanos == (made.input_tokens_bound - learnt + text) * 150


def responses(**fields: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "input": "hello", "max_output_tokens": 100} | fields).encode()


def test_an_unknown_past_is_a_whole_context() -> None:
    assert estimated(responses(previous_response_id="resp_1"), "/openai/v1/responses").input_tokens_bound == 128_000


def test_a_known_past_is_what_it_was() -> None:
    services = calls.services()
    services.answers.remember("resp_1", 700)
    alone = estimated(responses(), "/openai/v1/responses", services)
    made = estimated(responses(previous_response_id="resp_1"), "/openai/v1/responses", services)
    # The id is text too: at most as many tokens as it has bytes.
    assert alone.input_tokens_bound + 700 <= made.input_tokens_bound <= alone.input_tokens_bound + 700 + len("resp_1")


def test_unknown_models_without_a_policy_price_have_no_bound() -> None:
    made = estimated(calls.chat(model="no-such-model"))
    assert (made.price, made.bound, made.free) == (None, None, False)
    assert made.output_tokens_bound == 128_000


def test_an_assumed_price_bounds_what_nobody_knows() -> None:
    """$10 in and $20 out per million: 35 × 10,000 + 100 × 20,000 nano-dollars."""
    services = calls.services(unpriced=AssumedPrice(10_000_000, 20_000_000))
    made = estimated(calls.chat(model="no-such-model", max_tokens=100), services=services)
    assert (made.assumed_price, bound_of(made).bound_nanos(100)) == (True, 2_350_000)


def test_an_assumed_price_is_for_unknown_models_only() -> None:
    made = estimated(calls.chat(max_tokens=100), services=calls.services(unpriced=AssumedPrice(1, 1)))
    assert (made.assumed_price, bound_of(made).bound_nanos(100)) == (False, 65_250)


def test_a_price_of_zero_is_free_and_not_unknown() -> None:
    made = estimated(calls.chat(model="own-model"), services=calls.services(unpriced=AssumedPrice(0, 0)))
    assert (made.free, bound_of(made).bound_nanos(made.output_tokens_bound)) == (True, 0)


def test_nothing_is_estimated_without_facts() -> None:
    services = calls.services()
    made = calls.call("/openai/v1/images/generations")
    route(made, services, "origin", None)
    estimate(made, services, ())
    assert (made.bound, made.price, made.input_tokens_bound) == (None, None, 0)
