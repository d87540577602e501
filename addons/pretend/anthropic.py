"""Anthropic's wire shapes: messages, token counting, models."""

from collections.abc import Iterator

import orjson

from addons.pretend.bill import PRICES
from addons.pretend.plan import (
    Json,
    Piece,
    Plan,
    Refused,
    estimate_tokens,
    make_plan,
    text_member,
    text_of,
    text_pieces,
    whole_number,
)
from addons.pretend.steering import Behaviour

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_REPORTS = frozenset(("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens", "web_searches"))


class Messages:
    """`POST /v1/messages`."""

    def read(self, plan_id: str, created: int, body: Json, behaviour: Behaviour) -> Plan:
        model = text_member(body, "model")
        limit = whole_number(body, "max_tokens")
        if limit is None:
            raise Refused(400, "max_tokens: Field required")
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            raise Refused(400, "messages: at least one message is required")
        return make_plan(
            plan_id=f"msg_{plan_id.replace('-', '')}",
            created=created,
            model=model,
            limit=limit,
            candidates=1,
            stream=bool(body.get("stream")),
            counted=count_input(body),
            behaviour=behaviour,
            body=body,
            reports=_REPORTS,
        )

    def buffered(self, plan: Plan) -> bytes:
        usage = _start_usage(plan)
        usage["output_tokens"] = plan.counts.output
        message = _message(plan, usage)
        message["content"] = _content(plan)
        message["stop_reason"] = _stop_reason(plan)
        if plan.behaviour.omit_usage:
            del message["usage"]
        return orjson.dumps(message)

    def stream(self, plan: Plan) -> Iterator[Piece]:
        start: Json = {"type": "message_start", "message": _message(plan, _start_usage(plan))}
        if plan.behaviour.omit_usage:
            del start["message"]["usage"]
        yield Piece(_event(start), min(1, plan.counts.output), False)
        index = 0
        if plan.reasoning_each:
            block = {"type": "thinking", "thinking": "", "signature": ""}
            yield Piece(_block_start(index, block), 0, False)
            yield Piece(_event({"type": "ping"}), 0, False)
            thought = {"type": "thinking_delta", "thinking": text_of(min(plan.reasoning_each, 32))}
            yield Piece(_block_delta(index, thought), plan.reasoning_each, True)
            signature = {"type": "signature_delta", "signature": "cHJldGVuZA=="}
            yield Piece(_block_delta(index, signature), plan.reasoning_each, False)
            yield Piece(_event({"type": "content_block_stop", "index": index}), plan.reasoning_each, False)
            index = 1
        yield Piece(_block_start(index, {"type": "text", "text": ""}), plan.reasoning_each, False)
        if index == 0:
            yield Piece(_event({"type": "ping"}), 0, False)
        for _, text, produced in text_pieces(plan):
            yield Piece(_block_delta(index, {"type": "text_delta", "text": text}), produced, True)
        total = plan.counts.output
        yield Piece(_event({"type": "content_block_stop", "index": index}), total, False)
        for round_number in range(1, plan.behaviour.usage_deltas + 1):
            last = round_number == plan.behaviour.usage_deltas
            shown = total if last else total * round_number // plan.behaviour.usage_deltas
            yield Piece(_message_delta(plan, shown, last), total, False)
        yield Piece(_event({"type": "message_stop"}), total, False)

    def stream_error(self, plan: Plan) -> bytes:
        return _event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})

    def error(self, status: int, message: str, param: str | None, request_id: str) -> bytes:
        kind = _ERROR_TYPES.get(status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
        return orjson.dumps(body)

    def content_type(self, plan: Plan) -> bytes:
        return b"text/event-stream; charset=utf-8" if plan.stream else b"application/json"

    def headers(self, request_id: str) -> tuple[bytes, ...]:
        return (
            b"request-id: " + request_id.encode(),
            b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000",
            b"anthropic-ratelimit-requests-remaining: 3999",
        )

    def credential(self, headers: dict[str, str], query: str) -> str | None:
        key = headers.get("x-api-key")
        if key:
            return key
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token else None


def count_input(body: Json) -> int:
    """Input tokens of a messages request, as estimated from its text."""
    return estimate_tokens(body.get("messages"), body.get("system"), body.get("tools"))


def token_count(body: Json, behaviour: Behaviour) -> bytes:
    """`POST /v1/messages/count_tokens`."""
    text_member(body, "model")
    tokens = behaviour.input_tokens if behaviour.input_tokens >= 0 else count_input(body)
    return orjson.dumps({"input_tokens": tokens})


def model_list() -> bytes:
    """`GET /v1/models`."""
    names = [name for name in PRICES if name.startswith("claude")]
    data = [{"type": "model", "id": name, "display_name": name, "created_at": "2025-10-01T00:00:00Z"} for name in names]
    return orjson.dumps({"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]})


def _event(body: Json) -> bytes:
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"


def _block_start(index: int, block: Json) -> bytes:
    return _event({"type": "content_block_start", "index": index, "content_block": block})


def _block_delta(index: int, delta: Json) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _message(plan: Plan, usage: Json) -> Json:
    return {
        "id": plan.id,
        "type": "message",
        "role": "assistant",
        "model": plan.answered_model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _content(plan: Plan) -> list[Json]:
    text = {"type": "text", "text": text_of(plan.tokens_each - plan.reasoning_each)}
    if not plan.reasoning_each:
        return [text]
    thought = {"type": "thinking", "thinking": text_of(min(plan.reasoning_each, 32)), "signature": "cHJldGVuZA=="}
    return [thought, text]


def _stop_reason(plan: Plan) -> str:
    return "max_tokens" if plan.limited else "end_turn"


def _cache_usage(plan: Plan) -> Json:
    counts = plan.counts
    return {
        "input_tokens": counts.input - counts.cache_read - counts.cache_write - counts.cache_write_1h,
        "cache_creation_input_tokens": counts.cache_write + counts.cache_write_1h,
        "cache_read_input_tokens": counts.cache_read,
    }


def _start_usage(plan: Plan) -> Json:
    """Usage as `message_start` and buffered answers carry it; only here are cache writes split by time to live."""
    counts = plan.counts
    usage = _cache_usage(plan)
    usage["cache_creation"] = {
        "ephemeral_5m_input_tokens": counts.cache_write,
        "ephemeral_1h_input_tokens": counts.cache_write_1h,
    }
    usage["output_tokens"] = min(1, counts.output)
    tier = plan.behaviour.service_tier
    usage["service_tier"] = "standard" if tier == "default" else tier
    if counts.web_searches:
        usage["server_tool_use"] = {"web_search_requests": counts.web_searches, "web_fetch_requests": 0}
    if counts.reasoning and not plan.stream:
        usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
    return usage


def _message_delta(plan: Plan, output_tokens: int, last: bool) -> bytes:
    usage = _cache_usage(plan)
    usage["output_tokens"] = output_tokens
    if plan.counts.web_searches:
        usage["server_tool_use"] = {"web_search_requests": plan.counts.web_searches, "web_fetch_requests": 0}
    body: Json = {
        "type": "message_delta",
        "delta": {"stop_reason": _stop_reason(plan) if last else None, "stop_sequence": None},
        "usage": usage,
    }
    if plan.behaviour.omit_usage:
        del body["usage"]
    return _event(body)
