"""Calls made with unmodified SDKs, described by data: run here, or by `python -m tests.support.sdk_calls` in a process of its own.

The process reads a JSON list of calls from its standard input and prints a JSON list of outcomes, so that SDKs can be tried
under environment variables (`HTTPS_PROXY`, `SSL_CERT_FILE`) exactly as a user would set them.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.support.processes import ROOT


@dataclass(frozen=True)
class Call:
    """One call. `api`: chat, responses, embeddings, messages or generate_content. `base_url` None means the SDK's own."""

    api: str
    stream: bool = False
    asynchronous: bool = False
    base_url: str | None = None
    api_key: str = "unset"
    text: str = "hi"
    model: str | None = None
    max_output_tokens: int = 200
    include_usage: bool = False
    """Chat streams only: ask for the usage chunk."""
    api_version: str | None = None
    """Gemini only."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of this call alone: SDKs read them when a client is made, and each call makes its own."""

    @property
    def label(self) -> str:
        return f"{self.api}-{'stream' if self.stream else 'buffered'}-{'async' if self.asynchronous else 'sync'}"


@dataclass
class Outcome:
    """What the SDK made of it."""

    ok: bool
    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Of the answer, where the SDK shows them (OpenAI and Anthropic, buffered)."""
    error_class: str = ""
    error_bases: list[str] = field(default_factory=list)
    error_message: str = ""
    error_status: int | None = None
    error_body: Any = None


MODELS = {
    "chat": "gpt-4o-mini",
    "responses": "gpt-4o-mini",
    "embeddings": "text-embedding-3-small",
    "messages": "claude-haiku-4-5",
    "generate_content": "gemini-2.5-flash",
}
PREFIXES = {
    "chat": "/openai/v1",
    "responses": "/openai/v1",
    "embeddings": "/openai/v1",
    "messages": "/anthropic",
    "generate_content": "/genai",
}
"""Where the gateway serves each SDK."""
EVERY_CALL: tuple[tuple[str, bool, bool], ...] = (
    *(
        (api, stream, asynchronous)
        for api in ("chat", "responses", "messages", "generate_content")
        for stream in (False, True)
        for asynchronous in (False, True)
    ),
    ("embeddings", False, False),
    ("embeddings", False, True),
)
"""(api, stream, asynchronous) of everything these SDKs are tried with."""


def every_call(**common: Any) -> list[Call]:
    """A call of each kind; `common` fields are the same in all. With `gateway_url` they go by base URL."""
    gateway_url = common.pop("gateway_url", None)
    calls = []
    for api, stream, asynchronous in EVERY_CALL:
        base = None if gateway_url is None else gateway_url + PREFIXES[api]
        calls.append(Call(api, stream, asynchronous, base_url=base, **common))
    return calls


def run_all(calls: list[Call]) -> list[Outcome]:
    """Make the calls in this process, one after the other."""
    return [run(call) for call in calls]


def run_in_process(calls: list[Call], env: Mapping[str, str], timeout_seconds: float = 90) -> list[Outcome]:
    """Make the calls in a process of their own with exactly this environment. Raises RuntimeError when it fails as a whole."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.sdk_calls"],
        input=json.dumps([asdict(call) for call in calls]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(env),
        timeout=timeout_seconds,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the SDK process ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return [Outcome(**outcome) for outcome in json.loads(done.stdout)]


def run(call: Call) -> Outcome:
    """Make one call with its SDK at default settings (retries included)."""
    before = dict(os.environ)
    os.environ.update(call.env)
    try:
        if call.api == "messages":
            return asyncio.run(_anthropic_async(call)) if call.asynchronous else _anthropic(call)
        if call.api == "generate_content":
            return asyncio.run(_google_async(call)) if call.asynchronous else _google(call)
        return asyncio.run(_openai_async(call)) if call.asynchronous else _openai(call)
    except Exception as error:
        return _failure(error)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _failure(error: Exception) -> Outcome:
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    body = getattr(error, "body", None)
    if body is None:
        body = getattr(error, "details", None)
    return Outcome(
        ok=False,
        error_class=type(error).__name__,
        error_bases=[f"{base.__module__.split('.')[0]}.{base.__name__}" for base in type(error).__mro__],
        error_message=str(error),
        error_status=status if isinstance(status, int) else None,
        error_body=body,
    )


# -- OpenAI


def _openai_arguments(call: Call) -> dict[str, Any]:
    model = call.model or MODELS[call.api]
    if call.api == "embeddings":
        return {"model": model, "input": call.text}
    if call.api == "responses":
        return {"model": model, "input": call.text, "max_output_tokens": call.max_output_tokens}
    messages = [{"role": "user", "content": call.text}]
    return {"model": model, "messages": messages, "max_tokens": call.max_output_tokens}


def _stream_arguments(call: Call) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if call.include_usage else {"stream": True}


def _resource(client: Any, call: Call) -> Any:
    return {"chat": client.chat.completions, "responses": client.responses, "embeddings": client.embeddings}[call.api]


class _OpenAIStream:
    """Gathers what a stream of chunks or events brought."""

    def __init__(self) -> None:
        self.outcome = Outcome(ok=True)

    def add(self, part: Any) -> None:
        outcome = self.outcome
        kind = getattr(part, "type", None)
        if kind == "response.output_text.delta":
            outcome.text += part.delta
        elif kind in ("response.completed", "response.incomplete"):
            outcome.input_tokens = part.response.usage.input_tokens
            outcome.output_tokens = part.response.usage.output_tokens
        elif kind is None:
            outcome.text += "".join(choice.delta.content or "" for choice in part.choices)
            if part.usage is not None:
                outcome.input_tokens, outcome.output_tokens = part.usage.prompt_tokens, part.usage.completion_tokens


def _openai_answer(call: Call, raw: Any) -> Outcome:
    answer = raw.parse()
    headers = dict(raw.headers)
    if call.api == "chat":
        usage = answer.usage
        return Outcome(True, answer.choices[0].message.content, usage.prompt_tokens, usage.completion_tokens, headers)
    if call.api == "responses":
        return Outcome(True, answer.output_text, answer.usage.input_tokens, answer.usage.output_tokens, headers)
    return Outcome(True, str(len(answer.data[0].embedding)), answer.usage.prompt_tokens, 0, headers)


def _openai(call: Call) -> Outcome:
    import openai

    with openai.OpenAI(api_key=call.api_key, base_url=call.base_url) as client:
        resource = _resource(client, call)
        arguments = _openai_arguments(call)
        if not call.stream:
            return _openai_answer(call, resource.with_raw_response.create(**arguments))
        gathered = _OpenAIStream()
        for part in resource.create(**arguments, **_stream_arguments(call)):
            gathered.add(part)
        return gathered.outcome


async def _openai_async(call: Call) -> Outcome:
    import openai

    async with openai.AsyncOpenAI(api_key=call.api_key, base_url=call.base_url) as client:
        resource = _resource(client, call)
        arguments = _openai_arguments(call)
        if not call.stream:
            return _openai_answer(call, await resource.with_raw_response.create(**arguments))
        gathered = _OpenAIStream()
        async for part in await resource.create(**arguments, **_stream_arguments(call)):
            gathered.add(part)
        return gathered.outcome


# -- Anthropic


def _anthropic_arguments(call: Call) -> dict[str, Any]:
    messages = [{"role": "user", "content": call.text}]
    return {"model": call.model or MODELS[call.api], "max_tokens": call.max_output_tokens, "messages": messages}


def _anthropic_message(message: Any, headers: Mapping[str, str]) -> Outcome:
    text = "".join(block.text for block in message.content if block.type == "text")
    return Outcome(True, text, message.usage.input_tokens, message.usage.output_tokens, dict(headers))


def _anthropic(call: Call) -> Outcome:
    import anthropic

    with anthropic.Anthropic(api_key=call.api_key, base_url=call.base_url) as client:
        arguments = _anthropic_arguments(call)
        if not call.stream:
            raw = client.messages.with_raw_response.create(**arguments)
            return _anthropic_message(raw.parse(), raw.headers)
        with client.messages.stream(**arguments) as stream:
            return _anthropic_message(stream.get_final_message(), {})


async def _anthropic_async(call: Call) -> Outcome:
    import anthropic

    async with anthropic.AsyncAnthropic(api_key=call.api_key, base_url=call.base_url) as client:
        arguments = _anthropic_arguments(call)
        if not call.stream:
            raw = await client.messages.with_raw_response.create(**arguments)
            return _anthropic_message(await raw.parse(), raw.headers)
        async with client.messages.stream(**arguments) as stream:
            return _anthropic_message(await stream.get_final_message(), {})


# -- Gemini


def _google_client(call: Call) -> Any:
    from google import genai

    options = genai.types.HttpOptions(base_url=call.base_url, api_version=call.api_version)
    return genai.Client(api_key=call.api_key, http_options=options)


def _google_arguments(call: Call) -> dict[str, Any]:
    config = {"max_output_tokens": call.max_output_tokens}
    return {"model": call.model or MODELS[call.api], "contents": call.text, "config": config}


def _google_outcome(parts: list[Any]) -> Outcome:
    usage = parts[-1].usage_metadata
    output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return Outcome(True, "".join(part.text or "" for part in parts), usage.prompt_token_count, output)


def _google(call: Call) -> Outcome:
    with _google_client(call) as client:
        arguments = _google_arguments(call)
        if not call.stream:
            return _google_outcome([client.models.generate_content(**arguments)])
        return _google_outcome(list(client.models.generate_content_stream(**arguments)))


async def _google_async(call: Call) -> Outcome:
    async with _google_client(call).aio as client:
        arguments = _google_arguments(call)
        if not call.stream:
            return _google_outcome([await client.models.generate_content(**arguments)])
        stream = await client.models.generate_content_stream(**arguments)
        return _google_outcome([part async for part in stream])


def main() -> None:
    """Calls from standard input, outcomes to standard output."""
    calls = [Call(**fields) for fields in json.load(sys.stdin)]
    json.dump([asdict(outcome) for outcome in run_all(calls)], sys.stdout, default=str)


if __name__ == "__main__":
    main()
