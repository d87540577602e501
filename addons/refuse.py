"""Refusal → response, in the shape that makes each SDK and command-line tool print it and not retry."""

from collections.abc import Mapping
from dataclasses import replace
from shlex import quote
from typing import Any

import orjson

from addons.refusal import Refusal
from store.clock import iso_utc
from store.ledger.types import CapState, Exceeded, Scope, Unit
from store.money import format_usd, plain_usd

ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
GEMINI_STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
BEDROCK_TYPES: Mapping[int, str] = {
    400: "ValidationException",
    401: "AccessDeniedException",
    402: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
}
USED_UP = frozenset({"budget_exceeded", "token_limited", "request_limited", "rate_limited"})
"""Refusals that end with a window: Codex is told the date."""
UPSTREAM_FAULT = "upstream_unreachable"
"""The provider's side failed: whether to try again is the client's own rule, as it is without a gateway."""
SCOPE_WORDS: Mapping[str, str] = {
    "run": "run",
    "provider_config": "provider config",
    "virtual_key_model": "model of a virtual key",
    "virtual_key": "virtual key",
    "team": "team",
    "customer": "customer",
    "provider": "provider",
    "model": "model",
}


def _amount(unit: Unit, value: int) -> orjson.Fragment | int:
    """Money as a plain decimal number, exact and never in exponent form; everything else as it is."""
    return orjson.Fragment(plain_usd(value).encode()) if unit is Unit.USD else value


def cap_fields(state: CapState, needed: int | None = None) -> dict[str, Any]:
    """A cap with its sums as JSON-ready fields; money in USD, everything else a count."""
    cap = state.cap
    fields: dict[str, Any] = {
        "id": cap.id,
        "name": cap.name,
        "scope": cap.scope.value,
        "scope_id": cap.scope_id,
        "scope_name": cap.scope_name,
        "unit": cap.unit.value,
        "max_limit": _amount(cap.unit, state.limit),
        "current_usage": _amount(cap.unit, state.used),
        "held": _amount(cap.unit, state.held),
        "remaining": _amount(cap.unit, state.remaining),
        "reset_duration": cap.window,
        "calendar_aligned": cap.calendar_aligned,
        "last_reset": iso_utc(state.window_start_ms) if state.window_start_ms is not None else None,
        "resets_at": iso_utc(state.resets_at_ms) if state.resets_at_ms is not None else None,
    }
    if needed is not None:
        fields["needed"] = _amount(cap.unit, needed)
    return fields


def _reset_words(state: CapState) -> str:
    if state.resets_at_ms is None:
        if state.cap.unit is Unit.USD and state.cap.scope is not Scope.RUN:
            return f"it does not reset by itself: `tollgate budgets topup {quote(state.cap.name)} AMOUNT` adds to it"
        return "it does not reset by itself"
    every = "on the calendar" if state.cap.calendar_aligned else "every"
    return f"it resets at {iso_utc(state.resets_at_ms)} ({every} {state.cap.window})"


def budget_message(exceeded: Exceeded) -> str:
    """One sentence with the cap, its scope, the sums and the reset: all a person needs to act."""
    state = exceeded.state
    cap = state.cap
    whose = f"{SCOPE_WORDS[cap.scope]} '{cap.scope_name or cap.scope_id}'"
    left = max(0, state.limit - state.used - state.held)
    if cap.unit is Unit.USD:
        return (
            f"Budget '{cap.name}' of {whose} has {format_usd(left)} of {format_usd(state.limit)} left"
            f" and this call needs up to {format_usd(exceeded.needed)}; {_reset_words(state)}."
        )
    return f"Limit '{cap.name}' of {whose} {_count_words(exceeded, left)}."


def _count_words(exceeded: Exceeded, left: int) -> str:
    """What is left of a limit that counts, and when there is more."""
    state = exceeded.state
    if state.cap.unit is Unit.CONCURRENT:
        if state.limit <= 0:
            return "allows no calls"
        return f"has {left} of {state.limit} parallel calls left; a place comes back when one of them ends"
    if state.cap.unit is Unit.TOKENS:
        return f"has {left} of {state.limit} tokens left and this call needs about {exceeded.needed}; {_reset_words(state)}"
    return f"has {left} of {state.limit} requests left; {_reset_words(state)}"


def _common(refusal: Refusal, request_id: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"message": refusal.message}
    if refusal.exceeded:
        rows = [cap_fields(e.state, e.needed) for e in refusal.exceeded]
        fields["budget"] = rows[0]
        fields["exceeded"] = rows
    fields["request_id"] = request_id
    return fields


def _encodable(text: str) -> str:
    """Texts quote what callers send, and half a surrogate pair or a byte beyond UTF-8 cannot be written as JSON."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def body(refusal: Refusal, dialect: str, request_id: str, extra_fields: Mapping[str, Any]) -> bytes:
    """The refusal as JSON of `dialect` (`openai` and everything unknown, `anthropic`, `gemini`, `bedrock`)."""
    refusal = replace(refusal, message=_encodable(refusal.message))
    common = _common(refusal, request_id)
    if dialect == "anthropic":
        kind = ANTHROPIC_TYPES.get(refusal.status, "api_error")
        error: dict[str, Any] = {"type": kind, "message": refusal.message, "code": refusal.type}
        return orjson.dumps({"type": "error", "error": error} | common)
    if dialect == "gemini":
        detail = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": refusal.type.upper(),
            "domain": "tollgate",
        }
        error = {
            "code": refusal.status,
            "status": GEMINI_STATUSES.get(refusal.status, "INTERNAL"),
            "message": refusal.message,
            "details": [detail],
        }
        if refusal.retry_after is not None:
            retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{refusal.retry_after}s"}
            error["details"].append(retry)
        return orjson.dumps({"error": error} | common)
    if dialect == "bedrock":
        return orjson.dumps(common | {"type": refusal.type})
    error = {"message": refusal.message, "type": refusal.type, "code": refusal.type, "param": None}
    extra = {name: _encodable(value) if isinstance(value, str) else value for name, value in extra_fields.items()}
    head = {"type": refusal.type, "is_bifrost_error": False, "status_code": refusal.status}
    return orjson.dumps(head | common | {"error": error, "extra_fields": extra})


def headers(refusal: Refusal, dialect: str, request_id: str) -> list[tuple[bytes, bytes]]:
    """Headers of a refusal: never a Retry-After on a final one, because some clients sleep on it."""
    rows = [
        (b"content-type", b"application/json"),
        (b"x-tollgate-request-id", request_id.encode()),
        (b"x-request-id", request_id.encode()),
        (b"request-id", request_id.encode()),
    ]
    if refusal.retry_after is not None:
        rows.append((b"retry-after", str(refusal.retry_after).encode()))
    elif refusal.type != UPSTREAM_FAULT:
        rows.append((b"x-should-retry", b"false"))
    if dialect == "bedrock":
        rows.append((b"x-amzn-errortype", BEDROCK_TYPES.get(refusal.status, "InternalServerException").encode()))
    return rows


def is_codex(user_agent: str, originator: str) -> bool:
    """The Codex command line retries a plain 402 six times; it is recognised by these two headers."""
    return originator.lower().startswith("codex") or user_agent.lower().startswith("codex")


def for_codex(refusal: Refusal, request_id: str) -> tuple[int, bytes] | None:
    """A used-up budget or rate limit in the one shape that Codex shows at once, with the date: None when it does not apply.

    Of any other 429 it shows nothing and tries nothing again, however soon that would help. What never resets stays as it is,
    because there is no date to show.
    """
    if refusal.type not in USED_UP or not refusal.exceeded:
        return None
    state = refusal.exceeded[0].state
    if state.resets_at_ms is None:
        return None
    error = {
        "type": "usage_limit_reached",
        "message": refusal.message,
        "resets_at": state.resets_at_ms // 1000,
        "code": refusal.type,
    }
    return 429, orjson.dumps({"error": error} | _common(refusal, request_id))
