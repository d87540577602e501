"""Gemini generateContent, streamGenerateContent (events or a JSON array) and embedContent."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from addons.providers import body
from addons.providers.counters import text_of
from addons.providers.dialect import BadRequestBody, Edit, Reader, RequestFacts
from addons.providers.gemini_media import find_media
from addons.providers.gemini_usage import usage_of
from addons.providers.json_array_reader import JsonArrayReader
from addons.providers.paths import canonical
from addons.providers.readers import BodyReader, EventReader, Findings, error_text, is_event_stream
from addons.providers.text import TOKENS_PER_MESSAGE, TOKENS_PER_TOOL, Gathered
from store.usage import Reading, Usage

GENERATE = "generate_content"
EMBEDDING = "embedding"

_GOVERNING = (
    "contents", "content", "requests", "generationConfig", "generation_config", "systemInstruction",
    "system_instruction", "tools", "cachedContent", "cached_content", "serviceTier", "service_tier", "request", "model",
)  # fmt: skip
_CONFIGS = ("generationConfig", "generation_config")
_NESTED = tuple(
    (config, key) for config in _CONFIGS for key in ("maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count")
)
_HANDLED = frozenset(
    ("contents", "systemInstruction", "system_instruction", "generationConfig", "generation_config", "model", "labels",
     "cachedContent", "cached_content", "safetySettings", "safety_settings", "serviceTier", "service_tier")
)  # fmt: skip
_FIXED_TOKENS = 16
_EMBED_METHODS = (":embedcontent", ":batchembedcontents")
SEARCHES_MAX = 10
_SERVER_TOOLS = frozenset(
    ("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval", "urlContext", "url_context",
     "codeExecution", "code_execution", "fileSearch", "file_search", "googleMaps", "google_maps",
     "enterpriseWebSearch", "enterprise_web_search", "mcpServers", "mcp_servers", "retrieval", "computerUse",
     "computer_use")
)  # fmt: skip
_SEARCH_TOOLS = ("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval",
                 "enterpriseWebSearch", "enterprise_web_search", "googleMaps", "google_maps")  # fmt: skip
_MODEL_IN_PATH = re.compile(r"/(?:models|tunedModels)/[^/:]+:")
_VERSION = re.compile(r"gemini-(\d+)")


class Gemini:
    """The dialect."""

    name = "gemini"

    def read_request(self, operation: str, path: str, query: str, body_bytes: bytes) -> RequestFacts:
        request = body.read_object(body_bytes, _GOVERNING, _NESTED)
        model = model_of_path(path)
        method = canonical(path).lower()
        if operation == EMBEDDING or method.endswith(_EMBED_METHODS):
            return _embedding_facts(request, operation, model)
        prefix: tuple[str, ...] = ()
        if model is None and type(request.get("request")) is dict:  # Gemini CLI on a Google login wraps the request
            model, request, prefix = body.optional_text(request, "model"), request["request"], ("request",)
        gathered = Gathered()
        gathered.tokens = _FIXED_TOKENS
        config_key, config = _either(request, "generationConfig", "generation_config")
        config = body.optional_object({config_key: config}, config_key)
        _, resolution = _either(config, "mediaResolution", "media_resolution")
        _read_contents(request, gathered, resolution if type(resolution) is str else "")
        tools = body.objects(body.optional_list(request, "tools"), "tools")
        _read_fields(request, config, tools, gathered)
        limit_key, _ = _either(config, "maxOutputTokens", "max_output_tokens")
        where = f"{config_key}."
        return RequestFacts(
            operation=operation,
            model=model,
            stream=":streamgeneratecontent" in method,
            text_bytes=gathered.text_bytes(),
            overhead_tokens=gathered.tokens,
            media=tuple(gathered.media),
            unseen_input=gathered.unseen,
            output_limit=body.limit_of(config, limit_key, where),
            output_limit_path=(*prefix, config_key, limit_key),
            candidates=body.count_of(config, _either(config, "candidateCount", "candidate_count")[0], where),
            minimum_output=_thinking_budget(config, where),
            service_tier=body.optional_text(request, _either(request, "serviceTier", "service_tier")[0]),
            web_searches_max=_searches_max(tools, model),
            server_tools=any(not _SERVER_TOOLS.isdisjoint(tool) for tool in tools),
        )

    def edits(self, facts: RequestFacts, *, ask_usage: bool) -> Sequence[Edit]:
        return ()

    def reader(self, facts: RequestFacts, content_type: str, *, hide_usage: bool) -> Reader:
        findings = GenerateFindings(facts.model)
        if "event-stream" in content_type.lower():
            return EventReader(findings)
        if facts.stream:
            if is_event_stream(content_type, True):
                return EventReader(findings)
            return JsonArrayReader(findings)
        return BodyReader(findings)

    def limit_edit(self, facts: RequestFacts, output_tokens: int) -> Edit:
        return Edit(facts.output_limit_path, str(output_tokens).encode())

    def rename_model(self, facts: RequestFacts, path: str, model: str) -> tuple[str, Edit | None]:
        if model_of_path(path) is None:
            return path, Edit(("model",), orjson.dumps(model))
        kind = "" if model.startswith("tunedModels/") else "models/"
        name = kind + quote(model, safe="-._~@/" if not kind else "-._~@")
        return _MODEL_IN_PATH.sub(lambda _match: f"/{name}:", canonical(path), count=1), None

    def error_event(self, error_type: str, message: str, body: bytes) -> bytes:
        return b"data: " + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\r\n\r\n"


def model_of_path(path: str) -> str | None:
    """The model that a path such as `/v1beta/models/gemini-2.5-flash:generateContent` names; None without one."""
    match = re.search(r"/(models|tunedModels)/([^/:]+):[A-Za-z]+$", canonical(path))
    if match is None:
        return None
    return match[2] if match[1] == "models" else f"tunedModels/{match[2]}"


def _either(holder: body.JsonObject, camel: str, snake: str) -> tuple[str, Any]:
    """(key, value) of a field that servers accept in two spellings; the first one's key when absent."""
    if camel in holder and snake in holder:
        raise BadRequestBody(f"{camel} is given twice, as {camel} and as {snake}: send it once")
    key = snake if snake in holder else camel
    return key, holder.get(key)


def _read_contents(request: body.JsonObject, gathered: Gathered, resolution: str) -> None:
    contents = request.get("contents")
    if type(contents) is dict:
        contents = [contents]
    if type(contents) is not list:
        raise BadRequestBody("contents must be a list")
    body.objects(contents, "contents")
    gathered.tokens += TOKENS_PER_MESSAGE * len(contents)
    gathered.detail = resolution
    gathered.walk(contents, find_media)
    _, system = _either(request, "systemInstruction", "system_instruction")
    if system is not None:
        gathered.walk(system, find_media)
    _, cached = _either(request, "cachedContent", "cached_content")
    if cached:
        gathered.unseen = True


def _read_fields(request: body.JsonObject, config: body.JsonObject, tools: list[body.JsonObject], gathered: Gathered) -> None:
    for key, value in request.items():
        if key not in _HANDLED and type(value) in (str, list, dict) and value:
            gathered.add_json(value)
    for value in config.values():
        if type(value) in (list, dict) and value:
            gathered.add_json(value)
    for tool in tools:
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        gathered.tokens += TOKENS_PER_TOOL * (len(declared) if type(declared) is list else 1)


def _thinking_budget(config: body.JsonObject, where: str) -> int:
    key, thinking = _either(config, "thinkingConfig", "thinking_config")
    thinking = body.optional_object({key: thinking}, key, where)
    budget = body.limit_of(thinking, _either(thinking, "thinkingBudget", "thinking_budget")[0], f"{where}{key}.")
    return budget + 1 if budget else 0


def _searches_max(tools: list[body.JsonObject], model: str | None) -> int:
    if not any(key in tool for tool in tools for key in _SEARCH_TOOLS):
        return 0
    return 1 if _bills_searches_per_prompt(model) else SEARCHES_MAX


def _bills_searches_per_prompt(model: str | None) -> bool:
    """Models before version 3 bill a grounded prompt once, later ones each query."""
    match = _VERSION.search(model or "")
    return match is not None and int(match[1]) < 3


def _embedding_facts(request: body.JsonObject, operation: str, model: str | None) -> RequestFacts:
    gathered = Gathered()
    entries = [request]
    if "requests" in request:
        entries = body.objects(body.optional_list(request, "requests"), "requests")
    for entry in entries:
        if type(entry.get("content")) is not dict:
            raise BadRequestBody("content must be an object")
        gathered.walk(entry["content"], find_media)
        gathered.walk(entry.get("title"), find_media)
        gathered.tokens += 4
    return RequestFacts(
        operation=operation,
        model=model,
        text_bytes=gathered.text_bytes(),
        overhead_tokens=gathered.tokens,
        media=tuple(gathered.media),
        unseen_input=gathered.unseen,
        has_output=False,
    )


class GenerateFindings(Findings):
    """What the objects of a generated answer tell; each carries cumulative usage."""

    def __init__(self, model: str | None) -> None:
        super().__init__()
        self._asked_model = model
        self._normal: Usage | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._stop: str | None = None
        self._error: str | None = None
        self._queries: set[str] = set()
        self._grounded = False
        self._final = False

    def take(self, message: dict[str, Any]) -> None:
        wrapped = message.get("response")
        if type(wrapped) is dict:
            message = wrapped
        self._model = text_of(message.get("modelVersion")) or self._model
        candidates = message.get("candidates")
        for candidate in candidates if type(candidates) is list else ():
            if type(candidate) is dict:
                self._take_candidate(candidate)
        feedback = message.get("promptFeedback")
        if type(feedback) is dict:
            self._stop = text_of(feedback.get("blockReason")) or self._stop
        usage = message.get("usageMetadata")
        if type(usage) is dict:
            self._usage.update((key, value) for key, value in usage.items() if value is not None)
            self._final = self._stop is not None
            self._normal = None
        if "error" in message:
            self._error = error_text(message["error"]) or self._error

    def take_whole(self, message: dict[str, Any]) -> None:
        self.take(message)
        self._final = True

    def _take_candidate(self, candidate: dict[str, Any]) -> None:
        self._stop = text_of(candidate.get("finishReason")) or self._stop
        content = candidate.get("content")
        parts = content.get("parts") if type(content) is dict else None
        for part in parts if type(parts) is list else ():
            if type(part) is dict:
                self._take_part(part)
        grounding = candidate.get("groundingMetadata")
        if type(grounding) is dict:
            queries = grounding.get("webSearchQueries")
            if type(queries) is list and len(self._queries) < 1000:
                self._queries.update(query for query in queries if type(query) is str)
            self._normal = None
            self._grounded = self._grounded or bool(queries) or bool(grounding.get("groundingChunks"))

    def _take_part(self, part: dict[str, Any]) -> None:
        text = part.get("text")
        if part.get("thought") is True:
            self.output.hidden(text)
        else:
            self.output.text(text)
        call = part.get("functionCall")
        if type(call) is dict:
            self.output.hidden(call.get("name"))
            self.output.hidden(call.get("args"))
        code = part.get("executableCode")
        if type(code) is dict:
            self.output.hidden(code.get("code"))

    def _searches(self) -> int:
        if not self._grounded:
            return 0
        if _bills_searches_per_prompt(self._model or self._asked_model):
            return 1
        return max(1, len(self._queries))

    def reading(self, unread_bytes: int = 0, unread: bool = False) -> Reading:
        if self._normal is None:
            self._normal = usage_of(self._usage, self._searches())
        usage = self._normal
        return Reading(
            usage=usage,
            model=self._model,
            service_tier=_tier(self._usage),
            stop_reason=self._stop,
            usage_is_final=usage is not None and (self._final or self.ended),
            error=self._error,
            output_bytes=self.output.byte_count + unread_bytes,
            output_events=self.output.events,
            unread=unread,
        )


def _tier(usage: dict[str, Any]) -> str | None:
    """The tier as one lower-case word: `priority`, `flex`; None for the ordinary one or when nothing is said."""
    word = (text_of(usage.get("serviceTier")) or text_of(usage.get("trafficType")) or "").lower()
    word = word.removeprefix("service_tier_").removeprefix("on_demand").removeprefix("_")
    return None if word in ("", "standard", "unspecified", "traffic_type_unspecified") else word
