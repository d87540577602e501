"""What the pretend provider has decided to answer, before it is put into one of the wire shapes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from addons.pretend.bill import SNAPSHOTS, Counts
from addons.pretend.steering import Behaviour, UnknownInstruction

Json = dict[str, Any]

_WORDS = (
    "the quick brown fox jumps over a lazy dog and then walks home along the quiet river "
    "while evening light falls on every stone of this old town"
).split()
_MEDIA_TOKENS = 258
_NOT_TEXT = frozenset(("role", "type", "cache_control", "id", "status"))
_SPECIAL_COUNTERS = frozenset(
    ("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens", "tool_tokens", "web_searches")
)


class Refused(Exception):
    """The request cannot be answered: an HTTP status and a sentence, put into the dialect's error body."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


class Piece(NamedTuple):
    """A part of a streamed answer."""

    data: bytes
    produced: int
    """Output tokens generated once this piece is out, over all candidates."""
    paced: bool
    """True for generated text (waits `chunk_delay_ms`), False for what surrounds it."""


@dataclass(slots=True)
class Plan:
    """One answer, decided."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    answered_model: str
    counts: Counts
    """The final figures."""
    candidates: int
    tokens_each: int
    """Output tokens of each candidate, reasoning included."""
    reasoning_each: int
    limited: bool
    """True when the output was shortened by the request's limit."""
    stream: bool
    behaviour: Behaviour
    body: Json
    sse: bool = True
    """Gemini only: False streams one JSON array."""


class Dialect(Protocol):
    """What each provider module offers."""

    def buffered(self, plan: Plan) -> bytes:
        """The whole body of an answer that is not streamed."""
        ...

    def stream(self, plan: Plan) -> Iterator[Piece]:
        """The pieces of a streamed answer, in order."""
        ...

    def stream_error(self, plan: Plan) -> bytes:
        """An error inside a stream that answered 200."""
        ...

    def error(self, status: int, message: str, param: str | None, request_id: str) -> bytes:
        """The body of an answer with this error status."""
        ...

    def content_type(self, plan: Plan) -> bytes:
        """Of the answer."""
        ...

    def headers(self, request_id: str) -> tuple[bytes, ...]:
        """Header lines that this provider adds to every answer."""
        ...

    def credential(self, headers: dict[str, str], query: str) -> str | None:
        """The key a request carries, or None."""
        ...


def make_plan(
    *,
    plan_id: str,
    created: int,
    model: str,
    limit: int | None,
    candidates: int,
    stream: bool,
    counted: int,
    behaviour: Behaviour,
    body: Json,
    reports: frozenset[str],
) -> Plan:
    """Settle the figures. `counted` is the estimate of the input tokens, `limit` the request's own output limit.

    `reports` names the special counters that this wire shape can carry; being told to use another raises
    UnknownInstruction, because it would be billed without ever being reported.
    """
    for name in _SPECIAL_COUNTERS - reports:
        if getattr(behaviour, name):
            raise UnknownInstruction(f"this endpoint has no counter for {name.replace('_', '-')}")
    wanted = behaviour.output_tokens
    each = wanted
    if limit is not None and not behaviour.ignore_limit:
        each = min(wanted, limit)
    reasoning = min(behaviour.reasoning_tokens, each)
    caches = behaviour.cached_tokens + behaviour.cache_write_tokens + behaviour.cache_write_1h_tokens
    total_input = max(counted if behaviour.input_tokens < 0 else behaviour.input_tokens, caches)
    counts = Counts(
        input=total_input,
        output=each * candidates,
        cache_read=behaviour.cached_tokens,
        cache_write=behaviour.cache_write_tokens,
        cache_write_1h=behaviour.cache_write_1h_tokens,
        reasoning=reasoning * candidates,
        tool=behaviour.tool_tokens,
        web_searches=behaviour.web_searches,
    )
    return Plan(
        id=plan_id,
        created=created,
        model=model,
        answered_model=SNAPSHOTS.get(model, model),
        counts=counts,
        candidates=candidates,
        tokens_each=each,
        reasoning_each=reasoning,
        limited=each < wanted,
        stream=stream,
        behaviour=behaviour,
        body=body,
    )


def text_of(tokens: int, start: int = 0) -> str:
    """So many words of filler, about a token each, the same on every run."""
    return "".join(f" {_WORDS[index % len(_WORDS)]}" for index in range(start, start + tokens))


def text_pieces(plan: Plan) -> Iterator[tuple[int, str, int]]:
    """(candidate, text, tokens generated so far over all candidates) of the visible output, in wire order."""
    visible = plan.tokens_each - plan.reasoning_each
    step = max(1, plan.behaviour.chunk_tokens)
    produced = plan.reasoning_each * plan.candidates
    for start in range(0, visible, step):
        size = min(step, visible - start)
        for candidate in range(plan.candidates):
            produced += size
            yield candidate, text_of(size, start), produced


def estimate_tokens(messages: Any, *others: Any) -> int:
    """A tokenizer's work guessed: four bytes of text a token, four tokens a message, a flat fee for media.

    Of messages only the words count; of the others (system text, tools, schemas) the names of members count as well.
    """
    size, media = _text_bytes(messages, names=False)
    tokens = 3
    if isinstance(messages, list):
        tokens += 4 * len(messages)
    for other in others:
        other_size, other_media = _text_bytes(other, names=True)
        size += other_size
        media += other_media
    return tokens + media * _MEDIA_TOKENS - (-size // 4)


def _text_bytes(value: Any, names: bool) -> tuple[int, int]:
    """(bytes of text, pieces of media) in a JSON value."""
    if isinstance(value, str):
        if len(value) > 2048 and (value.startswith("data:") or (" " not in value[:512] and value[:512].isascii())):
            return 0, 1
        return (len(value) if value.isascii() else len(value.encode("utf-8", "replace"))), 0
    size = media = 0
    if isinstance(value, dict):
        for name, item in value.items():
            if not names and name in _NOT_TEXT:
                continue
            item_size, item_media = _text_bytes(item, names)
            size += item_size + (len(name) if names else 0)
            media += item_media
    elif isinstance(value, list):
        for item in value:
            item_size, item_media = _text_bytes(item, names)
            size += item_size
            media += item_media
    elif value is not None:
        size = len(str(value))
    return size, media


def whole_number(body: Json, name: str) -> int | None:
    """A positive limit from the request. Raises Refused for anything else that is there."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused(400, f"Invalid value for '{name}': expected an integer of at least 1.", name)
    return value


def text_member(body: Json, name: str) -> str:
    """A string the request must have. Raises Refused."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"Missing required parameter: '{name}'.", name)
    return value
