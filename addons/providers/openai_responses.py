"""OpenAI responses over HTTP, as OpenAI, Codex's backend and compatible servers speak them."""

from collections.abc import Sequence
from typing import Any

import orjson

from addons.providers import body, openai_request, other_models
from addons.providers.counters import nanos_of_usd, subset, text_of, whole
from addons.providers.dialect import BadRequestBody, Edit, Reader, RequestFacts
from addons.providers.openai_usage import usage_of
from addons.providers.readers import BodyReader, EventReader, Findings, error_text, is_event_stream
from addons.providers.text import TOKENS_PER_MESSAGE, Gathered
from store.usage import Reading, Usage

RESPONSES = "responses"

_GOVERNING = (
    "model", "input", "instructions", "max_output_tokens", "max_tool_calls", "stream", "service_tier", "tools",
    "previous_response_id", "conversation", "prompt", "background", *other_models.GOVERNING,
)  # fmt: skip
_HANDLED = frozenset(("input", "previous_response_id", "conversation"))
_LIMIT_PATH = ("max_output_tokens",)
_FIXED_TOKENS = 16
_DEFAULT_IMAGE_MODEL = "gpt-image-1"
_FINAL_STATES = frozenset(("completed", "incomplete", "failed", "cancelled"))


class OpenAIResponses:
    """The dialect."""

    name = "openai_responses"

    def read_request(self, operation: str, path: str, query: str, body_bytes: bytes) -> RequestFacts:
        request = body.read_object(body_bytes, _GOVERNING, other_models.NESTED)
        gathered = Gathered()
        gathered.tokens = _FIXED_TOKENS
        _read_input(request, gathered)
        openai_request.count_tools(request, gathered)
        openai_request.count_fields(request, gathered, _HANDLED)
        previous = body.optional_text(request, "previous_response_id")
        elsewhere = bool(request.get("conversation")) or bool(request.get("prompt")) or gathered.unseen
        compact = path.split("?")[0].rstrip("/").endswith("/compact")
        tool_calls = body.limit_of(request, "max_tool_calls")
        ceiling = openai_request.SEARCHES_MAX if tool_calls is None else tool_calls
        model = body.optional_text(request, "model")
        return RequestFacts(
            operation=operation,
            model=model,
            other_models=other_models.other_models(request, body_bytes, model),
            stream=body.optional_flag(request, "stream"),
            text_bytes=gathered.text_bytes(),
            overhead_tokens=gathered.tokens,
            media=tuple(gathered.media),
            unseen_input=elsewhere or bool(previous),
            unseen_key=previous if previous and not elsewhere else None,
            deferred=request.get("background") not in (None, False),
            output_limit=body.limit_of(request, "max_output_tokens"),
            output_limit_path=() if compact else _LIMIT_PATH,
            service_tier=body.optional_text(request, "service_tier"),
            web_searches_max=openai_request.searches_max(request, ceiling),
            server_tools=openai_request.has_provider_tools(request),
        )

    def edits(self, facts: RequestFacts, *, ask_usage: bool) -> Sequence[Edit]:
        return ()

    def reader(self, facts: RequestFacts, content_type: str, *, hide_usage: bool) -> Reader:
        findings = ResponsesFindings()
        return EventReader(findings) if is_event_stream(content_type, facts.stream) else BodyReader(findings)

    def limit_edit(self, facts: RequestFacts, output_tokens: int) -> Edit:
        return Edit(facts.output_limit_path, str(output_tokens).encode())

    def rename_model(self, facts: RequestFacts, path: str, model: str) -> tuple[str, Edit | None]:
        return path, Edit(("model",), orjson.dumps(model))

    def error_event(self, error_type: str, message: str, body: bytes) -> bytes:
        event = {"type": "error", "sequence_number": 0, "code": error_type, "message": message, "param": None}
        try:
            refusal = orjson.loads(body)
        except orjson.JSONDecodeError:
            refusal = None
        if type(refusal) is dict:
            event = {key: value for key, value in refusal.items() if key != "type"} | event
        event.setdefault("error", {"type": error_type, "code": error_type, "message": message, "param": None})
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def _read_input(request: body.JsonObject, gathered: Gathered) -> None:
    value = request.get("input")
    if type(value) is str:
        gathered.add_text(value)
        gathered.tokens += TOKENS_PER_MESSAGE
    elif type(value) is list:
        body.objects(value, "input")
        gathered.tokens += TOKENS_PER_MESSAGE * len(value)
        gathered.walk(value, openai_request.find_media)
    elif value is not None:
        raise BadRequestBody("input must be a string or a list")


class ResponsesFindings(Findings):
    """What the events of a response, or the whole response, tell."""

    def __init__(self) -> None:
        super().__init__()
        self._response: dict[str, Any] = {}
        """The members of the latest response object that matter; events about a response repeat all of it."""
        self._final = False
        self._error: str | None = None
        self._searches_seen = 0

    def take(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if type(kind) is not str:
            if "output" in message or "usage" in message:
                self.take_whole(message)
            elif "error" in message:
                self._error = error_text(message["error"])
            return
        if kind.endswith(".delta"):
            self._take_delta(kind, message)
            return
        response = message.get("response")
        if kind == "error" or kind == "response.error":
            self._error = text_of(message.get("message")) or error_text(message.get("error")) or "error"
        elif type(response) is dict:
            self._take_response(response)
        elif kind == "response.output_item.done":
            self._take_item(message.get("item"))

    def take_whole(self, message: dict[str, Any]) -> None:
        self._take_response(message)
        output = message.get("output")
        for item in output if type(output) is list else ():
            if type(item) is dict:
                self._take_output(item)

    def _take_delta(self, kind: str, message: dict[str, Any]) -> None:
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            self.output.text(message.get("delta"))
        elif "audio.delta" not in kind:
            self.output.hidden(message.get("delta"))

    def _take_output(self, item: dict[str, Any]) -> None:
        content = item.get("content")
        for part in content if type(content) is list else ():
            if type(part) is dict:
                self.output.text(part.get("text") or part.get("refusal"))
        for key in ("arguments", "input", "code", "summary"):
            self.output.hidden(item.get(key))

    def _take_item(self, item: object) -> None:
        if type(item) is dict:
            self._searches_seen += _is_search(item)
            if item.get("type") in ("function_call", "custom_tool_call"):
                self.output.hidden(item.get("name"))

    def _take_response(self, response: dict[str, Any]) -> None:
        self._response = {
            key: response[key]
            for key in ("usage", "model", "service_tier", "status", "tool_usage", "incomplete_details")
            if key in response
        }
        self._final = text_of(response.get("status")) in _FINAL_STATES or self._final
        tools = response.get("tools")
        self._response["image_model"] = _image_model(tools if type(tools) is list else [])
        output = response.get("output")
        if type(output) is list:
            self._searches_seen = max(self._searches_seen, sum(_is_search(item) for item in output))
        if error := error_text(response.get("error")):
            self._error = error

    def reading(self, unread_bytes: int = 0, unread: bool = False) -> Reading:
        response = self._response
        reported = response.get("usage")
        tool_usage = response.get("tool_usage")
        tool_usage = tool_usage if type(tool_usage) is dict else {}
        usage = usage_of(reported, self._searches(tool_usage)) if type(reported) is dict else None
        return Reading(
            usage=usage,
            model=text_of(response.get("model")),
            answer_id=text_of(response.get("id")),
            service_tier=text_of(response.get("service_tier")),
            further=_image_generation(tool_usage.get("image_gen"), response.get("image_model")),
            provider_cost_nanos=nanos_of_usd(reported.get("cost")) if type(reported) is dict else None,
            stop_reason=self._stop_reason(),
            usage_is_final=usage is not None and (self._final or "status" not in response),
            error=self._error,
            output_bytes=self.output.byte_count + unread_bytes,
            output_events=self.output.events,
            unread=unread,
        )

    def _searches(self, tool_usage: dict[str, Any]) -> int:
        """Searches the provider says it bills; older answers say nothing, so there each search call counts."""
        web_search = tool_usage.get("web_search")
        billed = whole(web_search.get("num_requests")) if type(web_search) is dict else None
        return self._searches_seen if billed is None else billed

    def _stop_reason(self) -> str | None:
        details = self._response.get("incomplete_details")
        reason = text_of(details.get("reason")) if type(details) is dict else None
        return reason or text_of(self._response.get("status"))


def _is_search(item: object) -> int:
    """1 for a web search that was made; opening and searching in a page is not billed."""
    if type(item) is not dict or item.get("type") != "web_search_call":
        return 0
    action = item.get("action")
    return int(type(action) is not dict or action.get("type", "search") == "search")


def _image_model(tools: list[Any]) -> str:
    for tool in tools:
        if type(tool) is dict and tool.get("type") == "image_generation":
            return text_of(tool.get("model")) or _DEFAULT_IMAGE_MODEL
    return _DEFAULT_IMAGE_MODEL


def _image_generation(image_gen: object, model: object) -> tuple[tuple[str | None, Usage], ...]:
    """The tokens of pictures that were made on the way, which another model made."""
    if type(image_gen) is not dict:
        return ()
    input_tokens, output_tokens = subset(image_gen, "input_tokens"), subset(image_gen, "output_tokens")
    if not input_tokens and not output_tokens:
        return ()
    details_in, details_out = image_gen.get("input_tokens_details"), image_gen.get("output_tokens_details")
    text_out = subset(details_out, "text_tokens")
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=subset(image_gen, "cached_tokens"),
        input_image_tokens=subset(details_in, "image_tokens"),
        output_image_tokens=subset(details_out, "image_tokens") or max(0, output_tokens - text_out),
    )
    return ((text_of(model), usage),)
