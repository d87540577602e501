"""Gemini's wire shapes: generateContent, streamGenerateContent (SSE and JSON array), countTokens, models."""

from collections.abc import Iterator
from urllib.parse import parse_qs

import orjson

from addons.pretend.bill import PRICES
from addons.pretend.plan import (
    Json,
    Piece,
    Plan,
    Refused,
    estimate_tokens,
    make_plan,
    text_of,
    text_pieces,
    whole_number,
)
from addons.pretend.steering import Behaviour

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class GenerateContent:
    """`POST /{version}/models/{model}:generateContent` and `:streamGenerateContent`."""

    def read(self, plan_id: str, created: int, model: str, stream: bool, sse: bool, body: Json, behaviour: Behaviour) -> Plan:
        if not isinstance(body.get("contents"), list) or not body["contents"]:
            raise Refused(400, "* GenerateContentRequest.contents: contents is not specified")
        config = body.get("generationConfig") or body.get("generation_config") or {}
        if not isinstance(config, dict):
            raise Refused(400, "Invalid value at 'generation_config'")
        plan = make_plan(
            plan_id=plan_id,
            created=created,
            model=model,
            limit=whole_number(config, "maxOutputTokens") or whole_number(config, "max_output_tokens"),
            candidates=whole_number(config, "candidateCount") or 1,
            stream=stream,
            counted=count_input(body),
            behaviour=behaviour,
            body=body,
            reports=frozenset(("cached_tokens", "reasoning_tokens", "tool_tokens")),
        )
        plan.sse = sse
        return plan

    def buffered(self, plan: Plan) -> bytes:
        text = text_of(plan.tokens_each - plan.reasoning_each)
        candidates = [_candidate(index, text, _finish_reason(plan)) for index in range(plan.candidates)]
        body = _answer(plan, candidates, plan.counts.output)
        return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"

    def stream(self, plan: Plan) -> Iterator[Piece]:
        pieces = list(text_pieces(plan)) or [(0, "", plan.counts.output)]
        last = len(pieces) - 1
        for number, (index, text, produced) in enumerate(pieces):
            reason = _finish_reason(plan) if number > last - plan.candidates else None
            body = _answer(plan, [_candidate(index, text, reason)], produced)
            yield Piece(_frame(plan, body, first=number == 0), produced, True)
        if not plan.sse:
            yield Piece(b"\n]\n", plan.counts.output, False)

    def stream_error(self, plan: Plan) -> bytes:
        body = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
        return _frame(plan, body, first=False)

    def error(self, status: int, message: str, param: str | None, request_id: str) -> bytes:
        error: Json = {"code": status, "message": message, "status": _STATUSES.get(status, "UNKNOWN")}
        if status == 429:
            kind = "type.googleapis.com/google.rpc.RetryInfo"
            error["details"] = [{"@type": kind, "retryDelay": "30s"}]
        return orjson.dumps({"error": error}, option=orjson.OPT_INDENT_2) + b"\n"

    def content_type(self, plan: Plan) -> bytes:
        return b"text/event-stream" if plan.stream and plan.sse else b"application/json; charset=UTF-8"

    def headers(self, request_id: str) -> tuple[bytes, ...]:
        return (b"vary: Origin", b"vary: X-Origin", b"x-xss-protection: 0")

    def credential(self, headers: dict[str, str], query: str) -> str | None:
        key = headers.get("x-goog-api-key")
        if key:
            return key
        in_query = parse_qs(query).get("key")
        if in_query:
            return in_query[0]
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token else None


def count_input(body: Json) -> int:
    """Input tokens of a generateContent request, as estimated from its text."""
    system = body.get("systemInstruction") or body.get("system_instruction")
    return estimate_tokens(body.get("contents"), system, body.get("tools"))


def token_count(body: Json, behaviour: Behaviour) -> bytes:
    """`POST /{version}/models/{model}:countTokens`."""
    inner = body.get("generateContentRequest")
    tokens = behaviour.input_tokens if behaviour.input_tokens >= 0 else count_input(inner or body)
    answer = {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}
    return orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n"


def model_list() -> bytes:
    """`GET /{version}/models`."""
    models = [
        {
            "name": f"models/{name}",
            "displayName": name,
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        }
        for name in PRICES
        if name.startswith("gemini")
    ]
    return orjson.dumps({"models": models}, option=orjson.OPT_INDENT_2) + b"\n"


def _candidate(index: int, text: str, reason: str | None) -> Json:
    candidate: Json = {"content": {"parts": [{"text": text}], "role": "model"}}
    if reason is not None:
        candidate["finishReason"] = reason
    candidate["index"] = index
    return candidate


def _finish_reason(plan: Plan) -> str:
    return "MAX_TOKENS" if plan.limited else "STOP"


def _answer(plan: Plan, candidates: list[Json], produced: int) -> Json:
    body: Json = {"candidates": candidates}
    if not plan.behaviour.omit_usage:
        body["usageMetadata"] = _usage(plan, produced)
    body["modelVersion"] = plan.model
    body["responseId"] = plan.id
    return body


def _usage(plan: Plan, produced: int) -> Json:
    """Cumulative counts; thoughts and tool-use prompt tokens stand beside candidates and prompt, not inside them."""
    counts = plan.counts
    usage: Json = {
        "promptTokenCount": counts.input,
        "candidatesTokenCount": produced - counts.reasoning,
        "totalTokenCount": counts.input + counts.tool + produced,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": counts.input}],
    }
    if counts.cache_read:
        usage["cachedContentTokenCount"] = counts.cache_read
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": counts.cache_read}]
    if counts.tool:
        usage["toolUsePromptTokenCount"] = counts.tool
        usage["toolUsePromptTokensDetails"] = [{"modality": "TEXT", "tokenCount": counts.tool}]
    if counts.reasoning:
        usage["thoughtsTokenCount"] = counts.reasoning
    return usage


def _frame(plan: Plan, body: Json, first: bool) -> bytes:
    if plan.sse:
        return b"data: " + orjson.dumps(body) + b"\r\n\r\n"
    return (b"[" if first else b",\r\n") + orjson.dumps(body, option=orjson.OPT_INDENT_2)
