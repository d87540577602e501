"""What the live tests need of each provider: a handful of the cheapest calls with its SDK, and its usage API."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

Json = dict[str, Any]
LONG_TEXT = "The quick brown fox jumps over the lazy dog while the river runs quietly past the old town. " * 300
"""About 6,000 tokens: more than the least that any of the providers caches."""
OUTPUT_TOKENS = 60
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@dataclass(frozen=True, slots=True)
class Used:
    """What an SDK said that one call used: all input, caches included, and all output."""

    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Live:
    """One provider of the live tests."""

    name: str
    key_variable: str
    model: str
    calls: Callable[[str, str, str], Iterator[Used]]
    """(gateway URL, virtual key, model) → what each call used."""
    usage_pages: Callable[[str, int, int], list[Json]] | None = None
    """(admin key, from, to; in Unix seconds) → pages of the usage API in minutes."""
    admin_variable: str = ""

    def setting(self, name: str) -> str | None:
        """A variable such as TOLLGATE_LIVE_OPENAI_URL."""
        return os.environ.get(f"TOLLGATE_LIVE_{self.name.upper()}_{name}") or None

    @property
    def chosen_model(self) -> str:
        return self.setting("MODEL") or self.model


# ---- OpenAI


def openai_calls(url: str, key: str, model: str) -> Iterator[Used]:
    import openai

    client: Any = openai.OpenAI(base_url=f"{url}/openai/v1", api_key=key, max_retries=1)
    ask: Json = {"model": model, "max_completion_tokens": OUTPUT_TOKENS}
    hello = [{"role": "user", "content": "Say hello."}]
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    cached = [{"role": "system", "content": LONG_TEXT}, *hello]
    asked: tuple[tuple[Any, Json], ...] = ((hello, {}), (hello, {"tools": [tool]}), (cached, {}), (cached, {}))
    for messages, more in asked:
        usage = client.chat.completions.create(messages=messages, **ask, **more).usage
        yield Used(usage.prompt_tokens, usage.completion_tokens)
    stream = client.chat.completions.create(messages=hello, stream=True, stream_options={"include_usage": True}, **ask)
    for chunk in stream:
        if chunk.usage is not None:
            yield Used(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
    answer = client.responses.create(model=model, input="Say hello.", max_output_tokens=OUTPUT_TOKENS)
    yield Used(answer.usage.input_tokens, answer.usage.output_tokens)


def openai_usage(admin_key: str, start: int, end: int) -> list[Json]:
    """`/v1/organization/usage/completions`, grouped by model."""
    base = os.environ.get("TOLLGATE_LIVE_OPENAI_ADMIN_URL") or "https://api.openai.com"
    params: list[tuple[str, str]] = [
        ("start_time", str(start)), ("end_time", str(end)), ("bucket_width", "1m"), ("group_by", "model"), ("limit", "1440"),
    ]  # fmt: skip
    if key_id := os.environ.get("TOLLGATE_LIVE_OPENAI_KEY_ID"):
        params.append(("api_key_ids", key_id))
    return _pages(f"{base}/v1/organization/usage/completions", params, {"authorization": f"Bearer {admin_key}"})


# ---- Anthropic


def anthropic_calls(url: str, key: str, model: str) -> Iterator[Used]:
    import anthropic

    client: Any = anthropic.Anthropic(base_url=f"{url}/anthropic", api_key=key, max_retries=1)
    ask: Json = {"model": model, "max_tokens": OUTPUT_TOKENS, "messages": [{"role": "user", "content": "Say hello."}]}
    tool = {"name": "get_weather", "description": "The weather of a city.", "input_schema": WEATHER}
    system = [{"type": "text", "text": LONG_TEXT, "cache_control": {"type": "ephemeral"}}]
    asked: tuple[Json, ...] = ({}, {"tools": [tool]}, {"system": system}, {"system": system})
    for more in asked:
        yield _anthropic_used(client.messages.create(**ask, **more).usage)
    with client.messages.stream(**ask) as stream:
        yield _anthropic_used(stream.get_final_message().usage)


def _anthropic_used(usage: Any) -> Used:
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return Used(usage.input_tokens + cached, usage.output_tokens)


def anthropic_usage(admin_key: str, start: int, end: int) -> list[Json]:
    """`/v1/organizations/usage_report/messages`, grouped by model."""
    base = os.environ.get("TOLLGATE_LIVE_ANTHROPIC_ADMIN_URL") or "https://api.anthropic.com"
    params: list[tuple[str, str]] = [
        ("starting_at", _rfc3339(start)), ("ending_at", _rfc3339(end)),
        ("bucket_width", "1m"), ("group_by[]", "model"), ("limit", "1440"),
    ]  # fmt: skip
    if key_id := os.environ.get("TOLLGATE_LIVE_ANTHROPIC_KEY_ID"):
        params.append(("api_key_ids[]", key_id))
    headers = {"x-api-key": admin_key, "anthropic-version": "2023-06-01"}
    return _pages(f"{base}/v1/organizations/usage_report/messages", params, headers)


# ---- Gemini


def gemini_calls(url: str, key: str, model: str) -> Iterator[Used]:
    from google import genai
    from google.genai import types

    client: Any = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=f"{url}/genai"))
    config: Json = {"max_output_tokens": OUTPUT_TOKENS}
    declared = types.FunctionDeclaration(name="get_weather", description="The weather of a city.", parameters_json_schema=WEATHER)
    tool = types.Tool(function_declarations=[declared])
    asked: tuple[tuple[str, Json], ...] = (("Say hello.", {}), ("Say hello.", {"tools": [tool]}), (LONG_TEXT, {}), (LONG_TEXT, {}))
    for contents, more in asked:
        answer = client.models.generate_content(
            model=model, contents=contents, config=types.GenerateContentConfig(**config, **more)
        )
        yield _gemini_used(answer.usage_metadata)
    last = None
    for chunk in client.models.generate_content_stream(
        model=model, contents="Say hello.", config=types.GenerateContentConfig(**config)
    ):
        last = chunk.usage_metadata or last
    yield _gemini_used(last)


def _gemini_used(usage: Any) -> Used:
    made = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return Used((usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0), made)


PROVIDERS = (
    Live("openai", "OPENAI_API_KEY", "gpt-4o-mini", openai_calls, openai_usage, "OPENAI_ADMIN_KEY"),
    Live("anthropic", "ANTHROPIC_API_KEY", "claude-haiku-4-5", anthropic_calls, anthropic_usage, "ANTHROPIC_ADMIN_KEY"),
    Live("gemini", "GEMINI_API_KEY", "gemini-2.5-flash", gemini_calls),
)


def _pages(url: str, params: list[tuple[str, str]], headers: Mapping[str, str]) -> list[Json]:
    pages: list[Json] = []
    page: list[tuple[str, str]] = []
    while True:
        answer = httpx.get(url, params=[*params, *page], headers=dict(headers), timeout=60)
        answer.raise_for_status()
        pages.append(answer.json())
        if not pages[-1]["has_more"]:
            return pages
        page = [("page", pages[-1]["next_page"])]


def _rfc3339(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
