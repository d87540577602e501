"""Refusals on the wire: every field of the contract, in each dialect, and headers that stop clients from retrying."""

import json
from typing import Any

import pytest

from addons import refuse
from addons.refusal import Refusal
from store.clock import ms_from_iso
from store.ledger.types import Cap, CapState, Exceeded, Scope, Unit

RESET = "2026-11-23T11:00:00Z"
CAP = Cap("b-1", "workshop-vk-budget", Scope.VIRTUAL_KEY, "vk-1", "workshop-vk-1", Unit.USD, 500_000_000, "1h")
STATE = CapState(
    CAP, used=499_600_000, held=0, window_start_ms=ms_from_iso("2026-11-23T10:00:00Z"), resets_at_ms=ms_from_iso(RESET)
)
EXCEEDED = Exceeded(STATE, 2_100_000)
MESSAGE = (
    "Budget 'workshop-vk-budget' of virtual key 'workshop-vk-1' has $0.0004 of $0.50 left and this call needs up to $0.0021;"
    " it resets at 2026-11-23T11:00:00Z (every 1h)."
)
REFUSAL = Refusal(402, "budget_exceeded", MESSAGE, (EXCEEDED,))
BUDGET = {
    "id": "b-1", "name": "workshop-vk-budget", "scope": "virtual_key", "scope_id": "vk-1", "scope_name": "workshop-vk-1",
    "unit": "usd", "max_limit": 0.5, "current_usage": 0.4996, "held": 0, "remaining": 0.0004, "needed": 0.0021,
    "reset_duration": "1h", "calendar_aligned": False, "last_reset": "2026-11-23T10:00:00Z", "resets_at": RESET,
}  # fmt: skip


def test_the_message_is_the_contracts_sentence() -> None:
    assert refuse.budget_message(EXCEEDED) == MESSAGE


def test_openai_body_has_every_field() -> None:
    extra = {"provider": "openai", "original_model_requested": "gpt-4o-mini", "request_type": "chat_completion"}
    body = json.loads(refuse.body(REFUSAL, "openai", "call-1", extra))
    assert body == {
        "type": "budget_exceeded",
        "is_bifrost_error": False,
        "status_code": 402,
        "message": MESSAGE,
        "error": {"message": MESSAGE, "type": "budget_exceeded", "code": "budget_exceeded", "param": None},
        "budget": BUDGET,
        "exceeded": [BUDGET],
        "request_id": "call-1",
        "extra_fields": extra,
    }


def test_anthropic_and_gemini_bodies() -> None:
    anthropic = json.loads(refuse.body(REFUSAL, "anthropic", "call-1", {}))
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "billing_error"
    assert (anthropic["error"]["message"], anthropic["message"], anthropic["request_id"]) == (MESSAGE, MESSAGE, "call-1")
    gemini = json.loads(refuse.body(REFUSAL, "gemini", "call-1", {}))
    assert (gemini["error"]["code"], gemini["error"]["status"]) == (402, "RESOURCE_EXHAUSTED")
    assert gemini["error"]["message"] == gemini["message"] == MESSAGE
    assert gemini["budget"] == anthropic["budget"] == BUDGET


@pytest.mark.parametrize(
    ("status", "name"),
    [(429, "rate_limit_error"), (401, "authentication_error"), (403, "permission_error"), (402, "billing_error")],
)
def test_anthropic_error_types(status: int, name: str) -> None:
    body = json.loads(refuse.body(Refusal(status, "x", "m"), "anthropic", "i", {}))
    assert body["error"]["type"] == name


def test_final_refusals_forbid_retries_and_never_carry_retry_after() -> None:
    headers = dict(refuse.headers(REFUSAL, "openai", "call-1"))
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers
    assert headers[b"x-request-id"] == headers[b"request-id"] == headers[b"x-tollgate-request-id"] == b"call-1"


def test_transient_refusals_say_when_to_come_back() -> None:
    headers = dict(refuse.headers(Refusal(429, "budget_held", "m", (EXCEEDED,), 2), "openai", "call-1"))
    assert headers[b"retry-after"] == b"2"
    assert b"x-should-retry" not in headers


def test_tiny_and_huge_amounts_are_plain_decimals() -> None:
    cap = Cap("b", "n", Scope.TEAM, "t", "t", Unit.USD, 9_000_000_000_000_000_001, None)
    body = refuse.body(Refusal(402, "budget_exceeded", "m", (Exceeded(CapState(cap, 1, 0), 1),)), "openai", "i", {})
    assert b'"max_limit":9000000000.000000001' in body
    assert b'"needed":0.000000001' in body
    assert b"e-" not in body.lower().replace(b"-e", b"").replace(b"request_type", b"")


def test_codex_gets_its_own_shape_unless_the_budget_never_resets() -> None:
    assert refuse.is_codex("codex_exec/0.169", "") and refuse.is_codex("", "codex_cli_rs") and not refuse.is_codex("curl", "")
    answer = refuse.for_codex(REFUSAL, "call-1")
    assert answer is not None
    status, body = answer
    error = json.loads(body)["error"]
    assert (status, error["type"], error["resets_at"]) == (429, "usage_limit_reached", ms_from_iso(RESET) // 1000)
    prepaid = CapState(CAP, 1, 0)
    assert refuse.for_codex(Refusal(402, "budget_exceeded", "m", (Exceeded(prepaid, 1),)), "i") is None


def test_counts_are_counts() -> None:
    cap = Cap("r", "per hour", Scope.VIRTUAL_KEY, "v", "v", Unit.REQUESTS, 3, "1h")
    row = json.loads(refuse.body(Refusal(429, "request_limited", "m", (Exceeded(CapState(cap, 3, 0), 1),)), "openai", "i", {}))
    assert (row["budget"]["max_limit"], row["budget"]["needed"], row["budget"]["remaining"]) == (3, 1, 0)


def limited(unit: Unit, limit: int, used: int = 0, held: int = 0, resets_at: str | None = RESET, **fields: Any) -> Exceeded:
    window = None if unit is Unit.CONCURRENT else "1h"
    cap = Cap("r-1", "the limit", Scope.TEAM, "t-1", "research", unit, limit, window, **fields)
    return Exceeded(CapState(cap, used, held, resets_at_ms=None if resets_at is None else ms_from_iso(resets_at)), 30)


@pytest.mark.parametrize(
    ("exceeded", "words"),
    [
        (limited(Unit.TOKENS, 100, 60, 20), "has 20 of 100 tokens left and this call needs about 30; it resets at"),
        (limited(Unit.TOKENS, 100, 160), "has 0 of 100 tokens left and this call needs about 30; it resets at"),
        (limited(Unit.REQUESTS, 9, 8, 1), f"has 0 of 9 requests left; it resets at {RESET} (every 1h)."),
        (limited(Unit.CONCURRENT, 5, 0, 5, None), "has 0 of 5 parallel calls left; a place comes back when one of them ends."),
        (limited(Unit.CONCURRENT, 0, 0, 0, None), "allows no calls."),
    ],
)
def test_limits_that_count_say_what_is_left(exceeded: Exceeded, words: str) -> None:
    message = refuse.budget_message(exceeded)
    assert message.startswith("Limit 'the limit' of team 'research' ")
    assert words in message


def test_gemini_is_told_the_wait_in_its_own_field() -> None:
    def details(refusal: Refusal) -> Any:
        return json.loads(refuse.body(refusal, "gemini", "i", {}))["error"]["details"]

    soon = Refusal(429, "request_limited", "m", (limited(Unit.REQUESTS, 1, 1),), 17)
    assert details(soon)[0]["reason"] == "REQUEST_LIMITED"
    assert details(soon)[1:] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]
    assert len(details(REFUSAL)) == 1


@pytest.mark.parametrize("retry_after", [None, 17])
def test_a_rate_limit_in_each_dialect(retry_after: int | None) -> None:
    """Field by field; the four shapes say the same thing."""
    hits = (limited(Unit.REQUESTS, 3, 3), limited(Unit.TOKENS, 100, 90))
    refusal = Refusal(429, "rate_limited", refuse.budget_message(hits[0]), hits, retry_after)
    common = {"message", "budget", "exceeded", "request_id"}
    shapes = {
        "openai": common | {"type", "is_bifrost_error", "status_code", "error", "extra_fields"},
        "anthropic": common | {"type", "error"},
        "gemini": common | {"error"},
        "bedrock": common | {"type"},
    }
    for dialect, fields in shapes.items():
        body = json.loads(refuse.body(refusal, dialect, "call-1", {}))
        assert set(body) == fields
        assert (body["message"], body["request_id"]) == (refusal.message, "call-1")
        assert [row["unit"] for row in body["exceeded"]] == ["requests", "tokens"]
        assert body["budget"] == body["exceeded"][0] == {
            "id": "r-1", "name": "the limit", "scope": "team", "scope_id": "t-1", "scope_name": "research", "unit": "requests",
            "max_limit": 3, "current_usage": 3, "held": 0, "remaining": 0, "needed": 30, "reset_duration": "1h",
            "calendar_aligned": False, "last_reset": None, "resets_at": RESET,
        }  # fmt: skip
        headers = dict(refuse.headers(refusal, dialect, "call-1"))
        assert headers.get(b"retry-after") == (None if retry_after is None else b"17")
        assert headers.get(b"x-should-retry") == (b"false" if retry_after is None else None)
    assert dict(refuse.headers(refusal, "bedrock", "i"))[b"x-amzn-errortype"] == b"ThrottlingException"
    assert json.loads(refuse.body(refusal, "openai", "i", {}))["error"] == {
        "message": refusal.message, "type": "rate_limited", "code": "rate_limited", "param": None,
    }  # fmt: skip
    assert json.loads(refuse.body(refusal, "anthropic", "i", {}))["error"] == {
        "type": "rate_limit_error", "message": refusal.message, "code": "rate_limited",
    }  # fmt: skip
    assert json.loads(refuse.body(refusal, "gemini", "i", {}))["error"]["status"] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("kind", "hit", "retry_after", "special"),
    [
        ("request_limited", limited(Unit.REQUESTS, 1, 1), None, True),
        ("token_limited", limited(Unit.TOKENS, 1, 1), None, True),
        ("rate_limited", limited(Unit.TOKENS, 1, 1), None, True),
        ("request_limited", limited(Unit.REQUESTS, 1, 1), 17, True),  # of a plain 429 it would show nothing
        ("concurrency_limited", limited(Unit.CONCURRENT, 0, resets_at=None), None, False),  # there is no date
        ("budget_held", EXCEEDED, 2, False),
    ],
)
def test_codex_is_told_the_date_of_rate_limits(kind: str, hit: Exceeded, retry_after: int | None, special: bool) -> None:
    answer = refuse.for_codex(Refusal(429, kind, "m", (hit,), retry_after), "i")
    assert (answer is not None) is special
    if answer is not None:
        error = json.loads(answer[1])["error"]
        assert (answer[0], error["type"], error["code"]) == (429, "usage_limit_reached", kind)
        assert error["resets_at"] == 1_795_431_600  # 2026-11-23T11:00:00Z
