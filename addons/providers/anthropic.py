"""Anthropic messages, as Anthropic and those who offer its protocol speak them."""

from collections.abc import Sequence
from typing import Any

import orjson

from addons.providers import body, other_models, splice
from addons.providers.anthropic_usage import Further, merged, usage_and_further
from addons.providers.counters import text_of
from addons.providers.dialect import BadRequestBody, Edit, Media, Reader, RequestFacts
from addons.providers.media import media_from_base64
from addons.providers.readers import BodyReader, EventReader, Findings, error_text, is_event_stream
from addons.providers.text import TOKENS_PER_MESSAGE, TOKENS_PER_TOOL, Gathered
from store.usage import Reading, Usage

MESSAGES = "messages"

_GOVERNING = (
    "model", "messages", "system", "max_tokens", "stream", "tools", "thinking", "service_tier", "speed",
    "inference_geo", "mcp_servers", *other_models.GOVERNING,
)  # fmt: skip
_NESTED = (("thinking", "budget_tokens"), *other_models.NESTED)
_HANDLED = frozenset(("messages", "system"))
_NOT_READ = frozenset(("model", "metadata", "stop_sequences", "stream", "thinking", "service_tier", "betas"))
_LIMIT_PATH = ("max_tokens",)
_FIXED_TOKENS = 32
_TOOL_TOKENS = 700
"""The text that tells the model about tools, whatever they are."""
SEARCHES_MAX = 10
"""Rounds of its own tools that the provider runs before it stops by itself."""
_TOOL_CALLS = frozenset(("tool_use", "server_tool_use", "mcp_tool_use"))
_SERVER_TOOLS = ("web_search", "web_fetch", "code_execution", "advisor", "tool_search", "mcp_toolset")


class Anthropic:
    """The dialect."""

    name = "anthropic"

    def read_request(self, operation: str, path: str, query: str, body_bytes: bytes) -> RequestFacts:
        request = body.read_object(body_bytes, _GOVERNING, _NESTED)
        gathered = Gathered()
        gathered.tokens = _FIXED_TOKENS
        _read_messages(request, gathered)
        _read_fields(request, gathered)
        tools = body.objects(body.optional_list(request, "tools"), "tools")
        if tools:
            gathered.tokens += _TOOL_TOKENS + TOKENS_PER_TOOL * len(tools)
        caches, caches_long = _caching(request, body_bytes)
        thinking = body.optional_object(request, "thinking")
        budget = body.limit_of(thinking, "budget_tokens", "thinking.") or 0
        model = body.optional_text(request, "model")
        return RequestFacts(
            operation=operation,
            model=model,
            other_models=other_models.other_models(request, body_bytes, model),
            stream=body.optional_flag(request, "stream"),
            text_bytes=gathered.text_bytes(),
            overhead_tokens=gathered.tokens,
            media=tuple(gathered.media),
            unseen_input=gathered.unseen,
            output_limit=body.limit_of(request, "max_tokens"),
            output_limit_path=_LIMIT_PATH,
            minimum_output=budget + 1 if budget else 0,
            writes_cache=caches,
            writes_cache_1h=caches_long,
            service_tier=body.optional_text(request, "service_tier"),
            speed=body.optional_text(request, "speed"),
            region=body.optional_text(request, "inference_geo"),
            web_searches_max=_searches_max(tools),
            server_tools=_has_server_tools(request, tools),
        )

    def edits(self, facts: RequestFacts, *, ask_usage: bool) -> Sequence[Edit]:
        return ()

    def reader(self, facts: RequestFacts, content_type: str, *, hide_usage: bool) -> Reader:
        findings = MessageFindings()
        return EventReader(findings) if is_event_stream(content_type, facts.stream) else BodyReader(findings)

    def limit_edit(self, facts: RequestFacts, output_tokens: int) -> Edit:
        return Edit(_LIMIT_PATH, str(output_tokens).encode())

    def rename_model(self, facts: RequestFacts, path: str, model: str) -> tuple[str, Edit | None]:
        return path, Edit(("model",), orjson.dumps(model))

    def error_event(self, error_type: str, message: str, body: bytes) -> bytes:
        return b"event: error\ndata: " + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"


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
        elif content is not None and type(content) not in (str, list):
            raise BadRequestBody("messages[].content must be a string or a list")
        else:
            gathered.walk(message, find_media)
    system = request.get("system")
    if system is not None:
        if type(system) not in (str, list):
            raise BadRequestBody("system must be a string or a list")
        gathered.walk(system, find_media)


def _read_fields(request: body.JsonObject, gathered: Gathered) -> None:
    for key, value in request.items():
        if key not in _HANDLED and key not in _NOT_READ and type(value) in (str, list, dict) and value:
            gathered.add_json(value)
    if request.get("container"):
        gathered.unseen = True


def find_media(node: body.JsonObject, gathered: Gathered) -> str | None:
    """Take pictures and documents; files and addresses of documents are input that nobody can see here."""
    kind = node.get("type")
    if type(kind) is not str:
        return None
    if kind == "container_upload":
        gathered.unseen = True
        return None
    if kind in _TOOL_CALLS and type(node.get("input")) is dict:
        gathered.add_json(node["input"])  # whatever it looks like, the model reads it as JSON
        return "input"
    source = node.get("source")
    if kind not in ("image", "document") or type(source) is not dict:
        return None
    how, data = source.get("type"), source.get("data")
    if how == "base64" and type(data) is str:
        gathered.media.append(media_from_base64(kind, data))
        return "source"
    if how in ("url", "file"):
        if kind == "image":
            gathered.media.append(Media("image"))
        else:
            gathered.unseen = True
        return "source"
    return None


def _caching(request: body.JsonObject, text: bytes) -> tuple[bool, bool]:
    """Whether the request writes to the cache, and whether for an hour. Too often is dearer, too seldom is wrong."""
    if splice.may_hide_keys(text):
        text = orjson.dumps(request) if b"\\ud" not in text.lower() else text + b'"cache_control""1h"'
    caches = b'"cache_control"' in text or b'"caching"' in text
    return caches, caches and b'"1h"' in text


def _searches_max(tools: list[body.JsonObject]) -> int:
    searches = 0
    for tool in tools:
        if _kind(tool).startswith("web_search"):
            uses = body.limit_of(tool, "max_uses", "tools[].")
            searches += SEARCHES_MAX if uses is None else uses
    return searches


def _has_server_tools(request: body.JsonObject, tools: list[body.JsonObject]) -> bool:
    return bool(request.get("mcp_servers")) or any(_kind(tool).startswith(_SERVER_TOOLS) for tool in tools)


def _kind(tool: body.JsonObject) -> str:
    return text_of(tool.get("type")) or ""


class MessageFindings(Findings):
    """What the events of a message, or the whole message, tell."""

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}
        self._normal: tuple[Usage | None, Further] | None = None
        """The normal form of `_usage`, made when somebody asks: that is once a chunk at most."""
        self._model: str | None = None
        self._stop: str | None = None
        self._error: str | None = None
        self._final = False

    def take(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "content_block_delta":
            self._take_delta(message.get("delta"))
        elif kind == "message_start":
            start = message.get("message")
            if type(start) is dict:
                self._model = text_of(start.get("model")) or self._model
                self._take_usage(start.get("usage"))
        elif kind == "content_block_start":
            self._take_block(message.get("content_block"))
        elif kind == "message_delta":
            delta = message.get("delta")
            if type(delta) is dict:
                self._stop = text_of(delta.get("stop_reason")) or self._stop
            self._final = self._take_usage(message.get("usage")) or self._final
        elif kind == "message_stop":
            self.ended = True
        elif kind == "message":
            self.take_whole(message)
        elif kind == "error" or "error" in message:
            self._error = error_text(message.get("error")) or "the provider reported an error"

    def take_whole(self, message: dict[str, Any]) -> None:
        if message.get("type") == "error" or type(message.get("error")) is dict:
            self._error = error_text(message.get("error")) or "the provider reported an error"
        self._model = text_of(message.get("model")) or self._model
        self._stop = text_of(message.get("stop_reason")) or self._stop
        content = message.get("content")
        for block in content if type(content) is list else ():
            self._take_block(block)
        self._final = self._take_usage(message.get("usage"))

    def _take_usage(self, usage: object) -> bool:
        if type(usage) is not dict:
            return False
        self._usage = merged(self._usage, usage)
        self._normal = None
        return True

    def _take_delta(self, delta: object) -> None:
        if type(delta) is not dict:
            return
        text = delta.get("text")
        if text is not None:
            self.output.text(text)
            return
        for key in ("partial_json", "thinking"):
            self.output.hidden(delta.get(key))

    def _take_block(self, block: object) -> None:
        if type(block) is not dict:
            return
        self.output.text(block.get("text"))
        for key in ("thinking", "name", "input"):
            self.output.hidden(block.get(key))

    def reading(self, unread_bytes: int = 0, unread: bool = False) -> Reading:
        if self._normal is None:
            self._normal = usage_and_further(self._usage, self._model)
        usage, further = self._normal
        return Reading(
            usage=usage,
            model=self._model,
            service_tier=text_of(self._usage.get("service_tier")),
            speed=text_of(self._usage.get("speed")),
            region=text_of(self._usage.get("inference_geo")),
            further=further,
            stop_reason=self._stop,
            usage_is_final=usage is not None and self._final,
            error=self._error,
            output_bytes=self.output.byte_count + unread_bytes,
            output_events=self.output.events,
            unread=unread,
        )
