"""OpenAI's wire shapes: chat completions, responses, embeddings, models."""

import base64
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

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
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    422: ("invalid_request_error", None),
    429: ("requests", "rate_limit_exceeded"),
}
_DEFAULT_DIMENSIONS = 1536


class _Common:
    """What all of OpenAI's endpoints share."""

    def error(self, status: int, message: str, param: str | None, request_id: str) -> bytes:
        kind, code = _ERROR_TYPES.get(status, ("server_error", None))
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"

    def content_type(self, plan: Plan) -> bytes:
        return b"text/event-stream; charset=utf-8" if plan.stream else b"application/json"

    def headers(self, request_id: str) -> tuple[bytes, ...]:
        return (
            b"openai-version: 2020-10-01",
            b"x-request-id: " + request_id.encode(),
            b"x-ratelimit-remaining-requests: 9999",
        )

    def credential(self, headers: dict[str, str], query: str) -> str | None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" and key else None


class ChatCompletions(_Common):
    """`POST /v1/chat/completions`."""

    def read(self, plan_id: str, created: int, body: Json, behaviour: Behaviour) -> Plan:
        model = text_member(body, "model")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "Invalid 'messages': expected an array with at least one message.", "messages")
        stream = bool(body.get("stream"))
        if body.get("stream_options") is not None:
            if behaviour.reject_stream_options:
                raise Refused(400, "Unrecognized request argument supplied: stream_options", "stream_options")
            if not stream:
                message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
                raise Refused(400, message, "stream_options")
        limit = whole_number(body, "max_completion_tokens") or whole_number(body, "max_tokens")
        return make_plan(
            plan_id=f"chatcmpl-{plan_id}",
            created=created,
            model=model,
            limit=limit,
            candidates=whole_number(body, "n") or 1,
            stream=stream,
            counted=estimate_tokens(messages, body.get("tools"), body.get("response_format")),
            behaviour=behaviour,
            body=body,
            reports=frozenset(("cached_tokens", "reasoning_tokens")),
        )

    def buffered(self, plan: Plan) -> bytes:
        reason = "length" if plan.limited else "stop"
        content = text_of(plan.tokens_each - plan.reasoning_each)
        body: Json = {
            "id": plan.id,
            "object": "chat.completion",
            "created": plan.created,
            "model": plan.answered_model,
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": reason,
                }
                for index in range(plan.candidates)
            ],
            "usage": _chat_usage(plan),
            "service_tier": plan.behaviour.service_tier,
            "system_fingerprint": "fp_pretend0001",
        }
        if plan.behaviour.omit_usage:
            del body["usage"]
        return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"

    def stream(self, plan: Plan) -> Iterator[Piece]:
        options = plan.body.get("stream_options") or {}
        asked = bool(options.get("include_usage"))
        obfuscate = options.get("include_obfuscation", True) is not False
        serial = 0

        def chunk(choices: list[Json], usage: Json | None = None) -> bytes:
            nonlocal serial
            body: Json = {
                "id": plan.id,
                "object": "chat.completion.chunk",
                "created": plan.created,
                "model": plan.answered_model,
                "service_tier": plan.behaviour.service_tier,
                "system_fingerprint": "fp_pretend0001",
                "choices": choices,
            }
            if asked:
                body["usage"] = usage
            if obfuscate:
                serial += 1
                body["obfuscation"] = "kQ7xVb2mZs9"[: 1 + serial % 11]
            return b"data: " + orjson.dumps(body) + b"\n\n"

        for index in range(plan.candidates):
            delta: Json = {"role": "assistant", "content": "", "refusal": None}
            yield Piece(chunk([_choice(index, delta, None)]), 0, False)
        for index, text, produced in text_pieces(plan):
            yield Piece(chunk([_choice(index, {"content": text}, None)]), produced, True)
        for index in range(plan.candidates):
            reason = "length" if plan.limited else "stop"
            yield Piece(chunk([_choice(index, {}, reason)]), plan.counts.output, False)
        if asked and not plan.behaviour.omit_usage:
            yield Piece(chunk([], _chat_usage(plan)), plan.counts.output, False)
        yield Piece(b"data: [DONE]\n\n", plan.counts.output, False)

    def stream_error(self, plan: Plan) -> bytes:
        message = "The server had an error while processing your request. Sorry about that!"
        body = {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
        return b"data: " + orjson.dumps(body) + b"\n\n"


def _choice(index: int, delta: Json, reason: str | None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _chat_usage(plan: Plan) -> Json:
    counts = plan.counts
    return {
        "prompt_tokens": counts.input,
        "completion_tokens": counts.output,
        "total_tokens": counts.input + counts.output,
        "prompt_tokens_details": {"cached_tokens": counts.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


class Responses(_Common):
    """`POST /v1/responses`."""

    def read(self, plan_id: str, created: int, body: Json, behaviour: Behaviour) -> Plan:
        model = text_member(body, "model")
        if not isinstance(body.get("input"), str | list):
            raise Refused(400, "Missing required parameter: 'input'.", "input")
        return make_plan(
            plan_id=f"resp_{plan_id.replace('-', '')}",
            created=created,
            model=model,
            limit=whole_number(body, "max_output_tokens"),
            candidates=1,
            stream=bool(body.get("stream")),
            counted=count_responses_input(body),
            behaviour=behaviour,
            body=body,
            reports=frozenset(("cached_tokens", "reasoning_tokens", "web_searches")),
        )

    def buffered(self, plan: Plan) -> bytes:
        return orjson.dumps(_response(plan, _final_status(plan)), option=orjson.OPT_INDENT_2)

    def stream(self, plan: Plan) -> Iterator[Piece]:
        serial = 0

        def event(kind: str, **members: Any) -> bytes:
            nonlocal serial
            body = {"type": kind, "sequence_number": serial, **members}
            serial += 1
            return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"

        where: Json = {"item_id": _message_id(plan), "output_index": len(_reasoning_items(plan)), "content_index": 0}
        part: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        message = {
            "id": _message_id(plan),
            "type": "message",
            "status": "in_progress",
            "content": [],
            "role": "assistant",
        }
        total = plan.counts.output
        text = ""
        yield Piece(event("response.created", response=_response(plan, "in_progress")), 0, False)
        yield Piece(event("response.in_progress", response=_response(plan, "in_progress")), 0, False)
        for index, item in enumerate(_reasoning_items(plan)):
            yield Piece(event("response.output_item.added", output_index=index, item=item), plan.reasoning_each, False)
            yield Piece(event("response.output_item.done", output_index=index, item=item), plan.reasoning_each, False)
        added = event("response.output_item.added", output_index=where["output_index"], item=message)
        yield Piece(added, plan.reasoning_each, False)
        yield Piece(event("response.content_part.added", **where, part=part), plan.reasoning_each, False)
        for _, delta, produced in text_pieces(plan):
            text += delta
            yield Piece(event("response.output_text.delta", **where, delta=delta, logprobs=[]), produced, True)
        yield Piece(event("response.output_text.done", **where, text=text, logprobs=[]), total, False)
        yield Piece(event("response.content_part.done", **where, part=part | {"text": text}), total, False)
        status = _final_status(plan)
        item = _message_item(plan, text, status)
        yield Piece(event("response.output_item.done", output_index=where["output_index"], item=item), total, False)
        yield Piece(event(f"response.{status}", response=_response(plan, status)), total, False)

    def stream_error(self, plan: Plan) -> bytes:
        body = {
            "type": "error",
            "sequence_number": 99,
            "code": "server_error",
            "message": "The server had an error while processing your request. Sorry about that!",
            "param": None,
        }
        return b"event: error\ndata: " + orjson.dumps(body) + b"\n\n"


def count_responses_input(body: Json) -> int:
    """Input tokens of a responses request, as estimated from its text."""
    return estimate_tokens(body.get("input"), body.get("instructions"), body.get("tools"))


def _final_status(plan: Plan) -> str:
    return "incomplete" if plan.limited else "completed"


def _message_id(plan: Plan) -> str:
    return "msg_" + plan.id.removeprefix("resp_")


def _message_item(plan: Plan, text: str, status: str) -> Json:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"id": _message_id(plan), "type": "message", "status": status, "content": [part], "role": "assistant"}


def _reasoning_items(plan: Plan) -> list[Json]:
    if not plan.reasoning_each:
        return []
    return [{"id": "rs_" + plan.id.removeprefix("resp_"), "type": "reasoning", "summary": []}]


def _response(plan: Plan, status: str) -> Json:
    body = plan.body
    done = status != "in_progress"
    text = text_of(plan.tokens_each - plan.reasoning_each)
    answer: Json = {
        "id": plan.id,
        "object": "response",
        "created_at": plan.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": plan.answered_model,
        "output": [*_reasoning_items(plan), _message_item(plan, text, status)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": plan.behaviour.service_tier if done else "auto",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _responses_usage(plan) if done and not plan.behaviour.omit_usage else None,
        "user": None,
        "metadata": body.get("metadata") or {},
    }
    if done and plan.counts.web_searches:
        answer["tool_usage"] = {"web_search": {"num_requests": plan.counts.web_searches}}
    return answer


def _responses_usage(plan: Plan) -> Json:
    counts = plan.counts
    return {
        "input_tokens": counts.input,
        "input_tokens_details": {"cached_tokens": counts.cache_read},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.input + counts.output,
    }


class Embeddings(_Common):
    """`POST /v1/embeddings`."""

    def read(self, plan_id: str, created: int, body: Json, behaviour: Behaviour) -> Plan:
        model = text_member(body, "model")
        texts = body.get("input")
        if not texts or not isinstance(texts, str | list):
            raise Refused(400, "Missing required parameter: 'input'.", "input")
        plan = make_plan(
            plan_id=f"embd-{plan_id}",
            created=created,
            model=model,
            limit=None,
            candidates=1,
            stream=False,
            counted=_embedding_tokens(texts),
            behaviour=behaviour,
            body=body,
            reports=frozenset(),
        )
        plan.counts.output = plan.counts.reasoning = 0
        return plan

    def buffered(self, plan: Plan) -> bytes:
        texts = plan.body["input"]
        single = isinstance(texts, str) or isinstance(texts[0], int)
        dimensions = whole_number(plan.body, "dimensions") or _DEFAULT_DIMENSIONS
        encoded = plan.body.get("encoding_format") == "base64"
        vector = _vector_base64(dimensions) if encoded else _vector(dimensions)
        data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(1 if single else len(texts))]
        body: Json = {"object": "list", "data": data, "model": plan.model}
        if not plan.behaviour.omit_usage:
            body["usage"] = {"prompt_tokens": plan.counts.input, "total_tokens": plan.counts.input}
        return orjson.dumps(body)

    def stream(self, plan: Plan) -> Iterator[Piece]:
        yield Piece(self.buffered(plan), 0, False)

    def stream_error(self, plan: Plan) -> bytes:
        return b""


def _embedding_tokens(texts: Any) -> int:
    if isinstance(texts, list) and texts and isinstance(texts[0], int):
        return len(texts)
    if isinstance(texts, list) and texts and isinstance(texts[0], list):
        return sum(len(part) for part in texts)
    parts = texts if isinstance(texts, list) else [texts]
    return sum(-(-len(str(part).encode()) // 4) for part in parts)


@lru_cache(maxsize=8)
def _vector(dimensions: int) -> list[float]:
    return [round(((index * 37) % 101 - 50) / 1000, 4) for index in range(dimensions)]


@lru_cache(maxsize=8)
def _vector_base64(dimensions: int) -> str:
    return base64.b64encode(struct.pack(f"<{dimensions}f", *_vector(dimensions))).decode()


def model_list() -> bytes:
    """`GET /v1/models`."""
    names = [name for name in PRICES if name.startswith(("gpt", "text-embedding"))]
    data = [{"id": name, "object": "model", "created": 1_715_367_049, "owned_by": "system"} for name in names]
    return orjson.dumps({"object": "list", "data": data})
