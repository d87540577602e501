"""The row for logs.db: one for every call that could spend, whatever became of it."""

from typing import Any

import pytest

from addons import outcomes
from addons.call import Call
from addons.refusal import Refusal
from addons.services import Services
from addons.steps import meter
from addons.steps.record import record, response_text, status_of
from addons.steps.settle import settle
from store.config_store.snapshot import VirtualKey
from store.ledger.types import Exceeded, Refused
from store.logs.exceeded import unpack
from store.logs.types import CallRow
from store.usage import Reading, Usage
from tests.support import calls
from tests.support.calls import NOW_MS, FixedClock, RecordingLedger, RecordingLogs, cap, cap_state

ANSWER = (
    b'{"model":"gpt-4o-mini-2024-07-18","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":48,"total_tokens":60,'
    b'"prompt_tokens_details":{"cached_tokens":10},"completion_tokens_details":{"reasoning_tokens":40}}}'
)


def row_of(services: Services) -> CallRow:
    """The one row."""
    logs = services.logs
    if not isinstance(logs, RecordingLogs):
        raise TypeError("these services have logs of their own")
    (row,) = logs.rows
    return row


def governed(key: VirtualKey | None = None, **policy: Any) -> Services:
    key = key or calls.virtual_key(caps=(cap(),), team_id="team-1", customer_id="customer-1", run_id="run-1")
    return calls.services(calls.snapshot({calls.KEY: key}), **policy)


async def on_its_way(services: Services, body: bytes = b"", agent: str = "") -> Call:
    return await calls.on_its_way(calls.call(body=body or calls.chat(max_tokens=100), headers={"user-agent": agent}), services)


def ended(made: Call, services: Services, outcome: str) -> CallRow:
    settle(made, services, outcome)
    record(made, services)
    return row_of(services)


def whole(made: Call, services: Services, content: bytes = ANSWER, status: int = 200) -> None:
    """A buffered answer came."""
    calls.answered(made, status, content)
    meter.begin(made, services)
    meter.read_whole(made)


async def test_a_good_call_in_full() -> None:
    services = governed()
    made = await on_its_way(services, agent="tests/1.0")
    clock = services.clock
    assert isinstance(clock, FixedClock)
    clock.seconds += 1.25
    whole(made, services)
    assert ended(made, services, outcomes.COMPLETE) == CallRow(
        id="call-1", at_ms=NOW_MS, status="success", http_status=200, provider="openai", model="gpt-4o-mini",
        answered_model="gpt-4o-mini-2024-07-18", operation="chat_completion", stream=False, way_in="reverse",
        virtual_key_id="vk-1", virtual_key_name="workshop-vk-1", team_id="team-1", customer_id="customer-1", run_id="run-1",
        provider_key_id="openai-1", input_tokens=12, output_tokens=48, cache_read_tokens=10, reasoning_tokens=40,
        cost_nanos=2 * 150 + 10 * 75 + 48 * 600, priced=True, estimated=False, held_nanos=65_250,
        price_source="genai-prices 0.2.3", caps_charged=("cap-1",), latency_ms=1_250, stop_reason="stop", method="POST",
        path="/openai/v1/chat/completions", client="tests/1.0", text_bytes=5,
    )  # fmt: skip


async def test_a_row_is_written_once() -> None:
    services = governed()
    made = await on_its_way(services)
    whole(made, services)
    ended(made, services, outcomes.COMPLETE)
    record(made, services)
    row_of(services)


async def test_a_refused_call_has_a_row_that_names_the_cap() -> None:
    services = governed()
    hit = Exceeded(cap_state(cap(), used=500_000_000), 65_250)
    assert isinstance(services.ledger, RecordingLedger)
    services.ledger.answers.append(Refused("call-1", (hit,), False))
    made = await on_its_way(services)
    row = ended(made, services, outcomes.NOT_SENT)
    assert (row.status, row.http_status, row.refusal_type, row.refusal_cap) == ("refused", 402, "budget_exceeded", "cap-1")
    assert (row.cost_nanos, row.held_nanos, row.caps_charged, row.priced) == (0, 0, (), True)
    (named,) = unpack(row.exceeded)
    assert (named.cap_id, named.name, named.unit) == ("cap-1", "cap-1-name", "usd") and named.needed > named.remaining
    assert "cap-1-name" in row.message and row.virtual_key_name == "workshop-vk-1" and row.model == "gpt-4o-mini"


async def test_a_refused_key_has_a_row_without_names() -> None:
    services = governed()
    made = calls.call(body=calls.chat(), headers={"x-bf-vk": "sk-bf-00000000-0000-4000-8000-000000000000"})
    await calls.on_its_way(made, services)
    row = ended(made, services, outcomes.NOT_SENT)
    assert (row.status, row.http_status, row.refusal_type, row.virtual_key_id) == ("refused", 401, "virtual_key_not_found", "")
    assert "sk-bf" not in repr(row)


async def test_an_estimated_call_says_so() -> None:
    services = governed()
    made = await on_its_way(services)
    row = ended(made, services, outcomes.CLIENT_LEFT)
    assert (row.status, row.estimated, row.cost_nanos, row.input_tokens, row.output_tokens) == ("cancelled", True, 65_100, 34, 100)


async def test_an_unknown_price_is_not_a_price_of_zero() -> None:
    services = governed(unpriced="allow")
    made = await on_its_way(services, calls.chat(model="no-such-model"))
    whole(made, services, ANSWER.replace(b"gpt-4o-mini-2024-07-18", b"no-such-model"))
    row = ended(made, services, outcomes.COMPLETE)
    assert (row.priced, row.cost_nanos, row.input_tokens) == (False, 0, 12)


async def test_a_price_that_came_with_the_answer_is_a_price() -> None:
    """The name asked for is unknown, the one that answered is not: what was charged is known."""
    services = governed(unpriced="allow")
    made = await on_its_way(services, calls.chat(model="no-such-alias"))
    whole(made, services)
    row = ended(made, services, outcomes.COMPLETE)
    assert (row.priced, row.cost_nanos, row.price_source) == (True, 2 * 150 + 10 * 75 + 48 * 600, "genai-prices 0.2.3")


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        (outcomes.COMPLETE, 200, "success"),
        (outcomes.COMPLETE, 204, "success"),
        (outcomes.COMPLETE, 429, "error"),
        (outcomes.COMPLETE, 302, "error"),
        (outcomes.CUT, 200, "cut"),
        (outcomes.CLIENT_LEFT, 200, "cancelled"),
        (outcomes.CLIENT_LEFT, None, "cancelled"),
        (outcomes.UPSTREAM_FAILED, 200, "error"),
        (outcomes.UPSTREAM_FAILED, None, "error"),
        (outcomes.TIMED_OUT, 200, "error"),
        (outcomes.STOPPED, None, "error"),
    ],
)
def test_words_for_endings(outcome: str, status: int | None, expected: str) -> None:
    made = calls.call()
    made.outcome = outcome
    if status is not None:
        calls.answered(made, status)
    assert status_of(made) == expected
    made.refuse(Refusal(402, "budget_exceeded", "no"))
    assert status_of(made) == "refused"


def test_an_error_inside_a_good_answer_is_an_error() -> None:
    made = calls.call()
    made.outcome = outcomes.COMPLETE
    calls.answered(made)
    made.reading = Reading(error="overloaded")
    assert status_of(made) == "error"


@pytest.mark.parametrize(
    ("headed", "streamed", "fault_status", "expected"),
    [(False, False, 502, 502), (False, False, 504, 504), (False, False, 499, 499), (True, False, 502, 502), (True, True, 502, 200)],
)
async def test_the_status_is_what_the_client_was_told(headed: bool, streamed: bool, fault_status: int, expected: int) -> None:
    """A buffered answer that broke was replaced by an error page; a streamed one had shown its 200 already."""
    services = governed()
    made = await on_its_way(services, calls.chat(stream=streamed, max_tokens=100))
    made.fault_status = fault_status
    if headed:
        calls.answered(made)
        meter.begin(made, services)
    assert ended(made, services, outcomes.UPSTREAM_FAILED).http_status == expected


async def test_what_went_wrong_is_told_and_bounded() -> None:
    services = governed()
    made = await on_its_way(services, agent="u" * 500)
    made.note = "n" * 5_000
    row = ended(made, services, outcomes.UPSTREAM_FAILED)
    assert (row.message, row.client) == ("n" * 500, "u" * 120)


@pytest.mark.parametrize(
    ("path", "method", "rows"),
    [
        ("/health", "GET", 0),
        ("/openai/v1/models", "GET", 0),
        ("/openai/v1/images/generations", "POST", 1),  # unknown: allowed without a budget, but worth a row
        ("/nowhere/v1", "POST", 1),
    ],
)
async def test_free_and_local_requests_are_nobodys_spend(path: str, method: str, rows: int) -> None:
    services = calls.services()
    made = await calls.on_its_way(calls.call(path, method=method), services)
    record(made, services)
    assert isinstance(services.logs, RecordingLogs) and len(services.logs.rows) == rows


async def test_a_refused_free_request_has_a_row() -> None:
    services = governed(calls.virtual_key(is_active=False))
    made = await calls.on_its_way(calls.call("/openai/v1/models", method="GET"), services)
    assert ended(made, services, outcomes.NOT_SENT).refusal_type == "virtual_key_blocked"


async def test_a_plain_request_has_none() -> None:
    services = calls.services()
    made = calls.call()
    made.plain = True
    record(made, services)
    assert isinstance(services.logs, RecordingLogs) and services.logs.rows == []


async def test_the_query_stays_out_of_the_path() -> None:
    services = governed()
    made = calls.call("/genai/v1beta/models/gemini-2.5-flash:generateContent?key=AIza-own", body=b'{"contents": []}')
    await calls.on_its_way(made, services)
    assert ended(made, services, outcomes.CLIENT_LEFT).path == "/genai/v1beta/models/gemini-2.5-flash:generateContent"


@pytest.mark.parametrize(
    ("limit", "request_text", "answer_text"), [(0, None, None), (10, '{"model": ', '{"model":"'), (9_999, None, None)]
)
async def test_bodies_are_kept_only_as_far_as_wanted(limit: int, request_text: str | None, answer_text: str | None) -> None:
    services = governed(body_log_bytes=limit)
    made = await on_its_way(services)
    whole(made, services)
    row = ended(made, services, outcomes.COMPLETE)
    if limit == 9_999:
        request_text, answer_text = calls.chat(max_tokens=100).decode(), ANSWER.decode()
    assert (row.request_body, row.response_body) == (request_text, answer_text)


async def test_a_streamed_answer_is_kept_as_its_text() -> None:
    services = governed(body_log_bytes=4)
    made = await on_its_way(services, calls.chat(stream=True))
    calls.answered(made, content_type="text/event-stream")
    meter.begin(made, services)
    assert made.reader is not None
    made.reader.feed(b'data: {"choices":[{"delta":{"content":"hello there"}}]}\n\n')
    assert response_text(made, 4) == "hell"


async def test_the_first_token_is_timed_from_the_request() -> None:
    services = governed()
    made = await on_its_way(services, calls.chat(stream=True))
    calls.answered(made, content_type="text/event-stream")
    meter.begin(made, services)
    made.first_token = 1_000.25
    made.reading = Reading(usage=Usage(1, 1))
    assert ended(made, services, outcomes.COMPLETE).first_token_ms == 250
