"""How a caller steers the pretend provider: `x-pretend-KEY` headers, `[[pretend KEY=VALUE]]` in the text, defaults."""

from dataclasses import dataclass, fields, replace
from typing import Any

_MARK = b"[[pretend "


class UnknownInstruction(Exception):
    """A steering key or value that means nothing; said aloud so that no test passes by accident."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Every key is a field with `-` for `_`; a flag is on for any value but `0`, `false`, `no` and `off`."""

    input_tokens: int = -1
    """Total input reported, caches included; −1 means estimated from the text (four bytes a token)."""
    output_tokens: int = 16
    """Output wanted, reasoning included, for each candidate; the request's limit lowers it unless `ignore_limit`."""
    ignore_limit: bool = False
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    tool_tokens: int = 0
    web_searches: int = 0
    first_token_ms: float = 0.0
    """Waited after the request was read and before the headers are sent; the input is owed from the start of it."""
    chunk_delay_ms: float = 0.0
    chunk_tokens: int = 4
    usage_deltas: int = 1
    """Anthropic: how many `message_delta` events report usage, all cumulative."""
    service_tier: str = "default"
    omit_usage: bool = False
    status: int = 200
    retry_after: int = -1
    html: bool = False
    hang: str = ""
    """`before-headers` or `mid-stream`."""
    cut: str = ""
    """`before-headers` or `mid-stream`; nothing is owed for the former."""
    cut_with_reset: bool = False
    """Cut by a TCP reset, losing what was not sent yet, instead of a plain close."""
    stream_error: bool = False
    after_chunks: int = -1
    """After how many chunks of text `hang`, `cut` and `stream_error` strike; −1 means half-way."""
    gzip: str = ""
    """`force`, or `auto` to do it when the request accepts it."""
    early_hints: bool = False
    framing: str = ""
    """`chunked`, `length` or `close`; by default streams are chunked and everything else has a length."""
    reject_stream_options: bool = False
    """Answer 400 when the request carries `stream_options`, as some compatible servers do."""
    require_key: str = ""
    """When set, any other credential is answered with 401."""


_FIELDS: dict[str, Any] = {field.name.replace("_", "-"): field for field in fields(Behaviour)}
_CHOICES = {
    "hang": ("", "before-headers", "mid-stream"),
    "cut": ("", "before-headers", "mid-stream"),
    "gzip": ("", "force", "auto"),
    "framing": ("", "chunked", "length", "close"),
}


def steer(base: Behaviour, instructions: dict[str, str]) -> Behaviour:
    """`base` changed by instructions. Raises UnknownInstruction."""
    changes: dict[str, Any] = {}
    for key, text in instructions.items():
        field = _FIELDS.get(key)
        if field is None:
            raise UnknownInstruction(f"{key!r} is no pretend instruction; known are {', '.join(sorted(_FIELDS))}")
        changes[field.name] = _value(key, field.type, text)
    return replace(base, **changes)


def instructions_of(headers: dict[str, str], body: bytes) -> dict[str, str]:
    """What this request asks for; a header wins over the text. Raises UnknownInstruction for a mark without an end."""
    found: dict[str, str] = {}
    start = body.rfind(_MARK)
    if start >= 0:
        end = body.find(b"]]", start)
        if end < 0:
            raise UnknownInstruction("'[[pretend ' in the text has no ']]' after it")
        for part in body[start + len(_MARK) : end].decode("utf-8", "replace").split():
            key, separator, value = part.partition("=")
            found[key] = value if separator else "1"
    for name, value in headers.items():
        if name.startswith("x-pretend-"):
            found[name.removeprefix("x-pretend-")] = value
    return found


def _value(key: str, kind: Any, text: str) -> Any:
    if kind is bool:
        return text.lower() not in ("0", "false", "no", "off")
    if kind is str:
        if key in _CHOICES and text not in _CHOICES[key]:
            raise UnknownInstruction(f"{key} is one of {', '.join(filter(None, _CHOICES[key]))}, not {text!r}")
        return text
    try:
        return kind(text)
    except ValueError:
        raise UnknownInstruction(f"{key} takes a number, not {text!r}") from None
