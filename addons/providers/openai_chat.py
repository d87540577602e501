"""OpenAI chat completions, and legacy completions, as OpenAI and everybody compatible with it speaks them."""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from addons.providers import body, openai_request, other_models, splice
from addons.providers.counters import nanos_of_usd, text_of
from addons.providers.dialect import BadRequestBody, Edit, Reader, RequestFacts
from addons.providers.openai_usage import usage_of
from addons.providers.readers import BodyReader, EventReader, Findings, error_text, is_event_stream
from addons.providers.sse import Event
from addons.providers.text import TOKENS_PER_MESSAGE, Gathered
from store.usage import Reading

CHAT = "chat_completion"
COMPLETION = "text_completion"

_GOVERNING = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "stream", "stream_options", "n", "best_of",
    "service_tier", "tools", "functions", "web_search_options", *other_models.GOVERNING,
)  # fmt: skip
_NESTED = (("stream_options", "include_usage"), *other_models.NESTED)
_HANDLED = frozenset(("messages", "prompt"))
_LIMITS = ("max_completion_tokens", "max_tokens")
_FIXED_TOKENS = 16
_NO_OUTPUT = frozenset(("role", "id", "tool_call_id", "name", "reasoning"))
"""Texts in a delta that are no output of their own; `reasoning` is handled apart, some servers repeat it."""
_SEARCH_MODEL = re.compile(r"-search-(?:preview|api)")


class OpenAIChat:
    """The dialect. `limit_field` is the output limit this server understands; `completion_default` is the limit that
    it applies to legacy completions when none is given (None: its own maximum)."""

    name = "openai_chat"

    def __init__(self, limit_field: str = "max_completion_tokens", completion_default: int | None = None) -> None:
        self._limit_field = limit_field
        self._completion_default = completion_default

    def read_request(self, operation: str, path: str, query: str, body_bytes: bytes) -> RequestFacts:
        request = body.read_object(body_bytes, _GOVERNING, _NESTED)
        gathered = Gathered()
        gathered.tokens = _FIXED_TOKENS
        if operation == COMPLETION:
            answers = _read_prompt(request, gathered)
            limit, limit_path = self._completion_limit(request)
        else:
            answers = body.count_of(request, "n")
            _read_messages(request, gathered)
            limit, limit_path = self._chat_limit(request)
        openai_request.count_tools(request, gathered)
        openai_request.count_fields(request, gathered, _HANDLED)
        stream = body.optional_flag(request, "stream")
        options = body.optional_object(request, "stream_options")
        model = body.optional_text(request, "model")
        return RequestFacts(
            operation=operation,
            model=model,
            other_models=other_models.other_models(request, body_bytes, model),
            stream=stream,
            text_bytes=gathered.text_bytes(),
            overhead_tokens=gathered.tokens,
            media=tuple(gathered.media),
            unseen_input=gathered.unseen,
            output_limit=limit,
            output_limit_path=limit_path,
            candidates=answers,
            service_tier=body.optional_text(request, "service_tier"),
            web_searches_max=_searches_max(request, model),
            server_tools=openai_request.has_provider_tools(request),
            wants_usage=not stream or options.get("include_usage") is True,
        )

    def _chat_limit(self, request: body.JsonObject) -> tuple[int | None, tuple[str, ...]]:
        limits = {key: body.limit_of(request, key) for key in _LIMITS if key in request}
        given = {key: limit for key, limit in limits.items() if limit is not None}
        if len(given) > 1:
            # Which one counts differs from server to server, so the higher one bounds and none can be lowered alone.
            return max(given.values()), ()
        key = next(iter(given or limits), self._limit_field)
        return given.get(key), (key,)

    def _completion_limit(self, request: body.JsonObject) -> tuple[int | None, tuple[str, ...]]:
        limit = body.limit_of(request, "max_tokens")
        return (self._completion_default if limit is None else limit), ("max_tokens",)

    def edits(self, facts: RequestFacts, *, ask_usage: bool) -> Sequence[Edit]:
        if ask_usage and facts.stream and not facts.wants_usage:
            return (Edit(("stream_options", "include_usage"), b"true"),)
        return ()

    def reader(self, facts: RequestFacts, content_type: str, *, hide_usage: bool) -> Reader:
        findings = ChatFindings(facts)
        if not is_event_stream(content_type, facts.stream):
            return BodyReader(findings)
        return UsageHidingReader(findings) if hide_usage else EventReader(findings)

    def limit_edit(self, facts: RequestFacts, output_tokens: int) -> Edit:
        return Edit(facts.output_limit_path, str(output_tokens).encode())

    def rename_model(self, facts: RequestFacts, path: str, model: str) -> tuple[str, Edit | None]:
        return path, Edit(("model",), orjson.dumps(model))

    def error_event(self, error_type: str, message: str, body: bytes) -> bytes:
        return b"data: " + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"


def _read_messages(request: body.JsonObject, gathered: Gathered) -> None:
    messages = request.get("messages")
    if type(messages) is not list:
        raise BadRequestBody("messages must be a list")
    body.objects(messages, "messages")
    gathered.tokens += TOKENS_PER_MESSAGE * len(messages)
    for message in messages:
        content = message.get("content")
        if type(content) is str and len(message) == 2 and "role" in message:
            gathered.add_text(content)
            continue
        if content is not None and type(content) not in (str, list):
            raise BadRequestBody("messages[].content must be a string or a list")
        audio = message.get("audio")
        if type(audio) is dict and "id" in audio:
            gathered.unseen = True  # an earlier spoken answer, kept by the provider
        gathered.walk(message, openai_request.find_media)


def _read_prompt(request: body.JsonObject, gathered: Gathered) -> int:
    """Count the prompts; how many answers they ask for together."""
    prompt = request.get("prompt")
    prompts = 1
    if type(prompt) is list:
        if prompt and all(type(token) is int for token in prompt):
            gathered.tokens += len(prompt)
        else:
            prompts = max(1, len(prompt))
            for entry in prompt:
                if type(entry) is str:
                    gathered.add_text(entry)
                elif type(entry) is list and all(type(token) is int for token in entry):
                    gathered.tokens += len(entry)
                else:
                    raise BadRequestBody("prompt must be a string, a list of strings, or lists of token ids")
    elif type(prompt) is str:
        gathered.add_text(prompt)
    elif prompt is not None:
        raise BadRequestBody("prompt must be a string, a list of strings, or lists of token ids")
    return prompts * max(body.count_of(request, "n"), body.count_of(request, "best_of"))


def _searches_max(request: body.JsonObject, model: str | None) -> int:
    if type(request.get("web_search_options")) is dict or (model and _SEARCH_MODEL.search(model)):
        return 1  # these models search once for each request
    return openai_request.searches_max(request, openai_request.SEARCHES_MAX)


class ChatFindings(Findings):
    """What chat chunks and whole chat answers tell."""

    def __init__(self, facts: RequestFacts) -> None:
        super().__init__()
        self._fee_searches = 1 if facts.operation == CHAT and facts.web_searches_max == 1 else 0
        self._model: str | None = None
        self._tier: str | None = None
        self._stop: str | None = None
        self._error: str | None = None
        self._usage: dict[str, Any] | None = None
        self._final = False

    def take(self, message: dict[str, Any]) -> None:
        if model := text_of(message.get("model")):
            self._model = model
        if tier := text_of(message.get("service_tier")):
            self._tier = tier
        choices = message.get("choices")
        if type(choices) is list:
            for choice in choices:
                if type(choice) is dict:
                    self._take_choice(choice)
        usage = message.get("usage")
        if type(usage) is not dict:
            groq = message.get("x_groq")
            usage = groq.get("usage") if type(groq) is dict else None
        if type(usage) is dict and usage:
            self._usage = usage
            self._final = self._final or not choices or self._stop is not None
        if "error" in message:
            self._error = error_text(message["error"]) or self._error

    def take_whole(self, message: dict[str, Any]) -> None:
        self.take(message)
        self._final = self._usage is not None

    def _take_choice(self, choice: dict[str, Any]) -> None:
        if stop := text_of(choice.get("finish_reason")):
            self._stop = stop
        said = choice.get("delta")
        if type(said) is not dict:
            said = choice.get("message")
        if type(said) is not dict:
            self.output.text(choice.get("text"))
            return
        for key, value in said.items():
            if key in ("content", "refusal") and type(value) is str:
                self.output.text(value)
            elif key == "tool_calls":
                self._take_tool_calls(value)
            elif key == "function_call":
                self._take_function(value)
            elif key == "audio":
                self._take_audio(value)
            elif key == "reasoning" and "reasoning_content" not in said:
                self.output.hidden(value)
            elif key == "content" or (type(value) is str and key not in _NO_OUTPUT):
                self.output.hidden(value)

    def _take_tool_calls(self, calls: object) -> None:
        for call in calls if type(calls) is list else ():
            if type(call) is dict:
                self._take_function(call.get("function") or call.get("custom"))

    def _take_function(self, function: object) -> None:
        if type(function) is dict:
            for key in ("name", "arguments", "input"):
                self.output.hidden(function.get(key))

    def _take_audio(self, audio: object) -> None:
        if type(audio) is dict:
            self.output.text(audio.get("transcript"))

    def reading(self, unread_bytes: int = 0, unread: bool = False) -> Reading:
        usage = self._usage or {}
        normal = usage_of(usage, self._fee_searches)
        cost = usage.get("cost")
        return Reading(
            usage=normal,
            model=self._model,
            service_tier=self._tier,
            provider_cost_nanos=nanos_of_usd(cost.get("total_cost") if type(cost) is dict else cost),
            stop_reason=self._stop,
            usage_is_final=normal is not None and (self._final or self.ended),
            error=self._error,
            output_bytes=self.output.byte_count + unread_bytes,
            output_events=self.output.events,
            unread=unread,
        )


_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])|"usage"\s*:\s*null\s*,\s*')


class UsageHidingReader(EventReader):
    """Takes out again what asking for usage has added to a stream; all other bytes pass as they came."""

    def feed(self, chunk: bytes) -> bytes:
        if self._parser.overflow:
            self._unread_bytes += len(chunk)
            return chunk
        kept = [self._kept(event) for event in self._parser.feed(chunk)]
        if self._parser.overflow:
            kept.append(self._give_up())
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def finish(self) -> bytes:
        last = self._parser.last()
        if last is None:
            self._findings.ended = True
            return b""
        kept = self._kept(last)
        if not last.data and last.raw.lstrip()[:1] == b"{":
            self._take_body(last.raw)
        self._findings.ended = True
        return kept

    def cut(self, event: bytes, body: bytes) -> bytes:
        """The error event alone: a half event was withheld, and is dropped."""
        self._parser.rest()
        return event

    def _kept(self, event: Event) -> bytes:
        message = self._take(event)
        if type(message) is not dict or "usage" not in message:
            return event.raw
        if message["usage"] is None:
            return _without_null_usage(event)
        return b"" if is_usage_chunk(message) else event.raw


def is_usage_chunk(message: dict[str, Any]) -> bool:
    """True for the chunk that exists only to carry usage, in any server's form of it."""
    if type(message.get("usage")) is not dict or "prompt_filter_results" in message or "error" in message:
        return False
    choices = message.get("choices")
    return type(choices) is list and all(_is_empty_choice(choice) for choice in choices)


def _is_empty_choice(choice: object) -> bool:
    if type(choice) is not dict or choice.get("finish_reason") is not None or choice.get("text"):
        return False
    delta = choice.get("delta")
    return delta is None or (type(delta) is dict and not any(delta.values()))


def _without_null_usage(event: Event) -> bytes:
    """The event's bytes without the member `"usage": null`; unchanged where that cannot be cut out safely."""
    if event.raw.count(b'"usage"') == 1:
        cut, changes = _NULL_USAGE.subn(b"", event.raw, count=1)
        if changes:
            return cut
    if event.raw.count(event.data) != 1:
        return event.raw  # the data stands in several lines
    try:
        return event.raw.replace(event.data, splice.cut_member(event.data, "usage"))
    except splice.Malformed:
        return event.raw
