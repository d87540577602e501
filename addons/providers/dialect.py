"""The vocabulary and the protocol that every dialect implements: request bytes → facts, answer bytes → a reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from store.usage import Reading


class BadRequestBody(Exception):
    """The caller's body cannot be metered (no JSON, wrong types, a governing field twice). The text goes to the caller."""


@dataclass(frozen=True, slots=True)
class Media:
    """One picture, document, sound or film inside a request, described just far enough to bound its tokens."""

    kind: str
    """`image`, `document`, `audio` or `video`."""
    byte_count: int = 0
    """Decoded bytes; 0 when the provider fetches it itself."""
    width: int = 0
    height: int = 0
    pages: int = 0
    """Of a document; 0 when not known."""
    duration_seconds: int = 0
    """Of sound, rounded up; 0 when not known."""
    detail: str = ""
    """The request's own word for resolution (`low`, `high`, `original`, a Gemini media resolution)."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a request says that matters for its price and its route. Units: tokens, bytes, pieces."""

    operation: str
    """`chat_completion`, `responses`, `embedding`, `messages`, `generate_content`: `request_type` of refusals and logs."""
    model: str | None
    other_models: tuple[str, ...] = ()
    """Models that the provider may answer with instead, as the request names them."""
    stream: bool = False
    text_bytes: int = 0
    """UTF-8 bytes of every decoded string the model may read (keys of tool schemas included), media left out."""
    overhead_tokens: int = 0
    """Tokens the protocol adds whatever the text: per message, per tool, fixed framing."""
    media: tuple[Media, ...] = ()
    unseen_input: bool = False
    """True when the provider adds input that is not in the body (previous_response_id, file ids, cached content, a fetched URL)."""
    unseen_key: str | None = None
    """An id under which earlier answers can be remembered (previous_response_id), when there is exactly one."""
    has_output: bool = True
    """False where nothing is generated (embeddings)."""
    output_limit: int | None = None
    """The request's own output limit in tokens, None when absent."""
    output_limit_path: tuple[str, ...] = ()
    """Where the limit stands, or where it would have to be written, in the body: keys from the top. Empty: it cannot be limited."""
    candidates: int = 1
    """Answers asked for; each may use the whole output limit."""
    minimum_output: int = 0
    """The limit may not be lowered below this (Anthropic's thinking budget + 1)."""
    writes_cache: bool = False
    """The request asks for prompt caching, so its input may be billed at the write price."""
    writes_cache_1h: bool = False
    service_tier: str | None = None
    speed: str | None = None
    region: str | None = None
    web_searches_max: int = 0
    """The most searches the answer may make and bill; a dialect puts its own ceiling where the request names none."""
    server_tools: bool = False
    """The provider may run tools of its own while answering (search, fetch, MCP, code); what they bring is input that
    nobody can see in the body, and each round reads the whole input again."""
    deferred: bool = False
    """The answer is made later and collected by other requests (`background`): its cost is never seen in this exchange."""
    wants_usage: bool = True
    """False: a streamed answer would not carry usage unless asked (OpenAI chat without include_usage)."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a JSON body: the value at `path` becomes `value` (bytes of JSON). Missing objects on the way are made."""

    path: tuple[str, ...]
    value: bytes


class Reader(Protocol):
    """Reads one answer as it flows. Feeds may be split anywhere; memory is bounded; never raises on hostile bytes.

    `feed` returns what the client is to receive for this chunk: the chunk itself, unless something that the gateway asked for
    is taken out again. Bytes withheld for that come with a later feed or with `finish`.
    """

    def feed(self, chunk: bytes) -> bytes: ...

    def finish(self) -> bytes:
        """The answer ended regularly: whatever was withheld."""
        ...

    def reading(self) -> Reading:
        """What is known so far; callable at any time, also after a broken stream."""
        ...

    def transcript(self, limit: int) -> str:
        """The text of the answer, at most `limit` characters: for the inspector and the logs."""
        ...

    def cut(self, event: bytes, body: bytes) -> bytes:
        """What ends this answer early, after what was fed: `event` is the dialect's error event, `body` the refusal's JSON."""
        ...


class Dialect(Protocol):
    """A wire protocol. Instances are stateless and shared."""

    name: str

    def read_request(self, operation: str, path: str, query: str, body: bytes) -> RequestFacts:
        """Facts of a request to `path` (as the provider knows it). Raises BadRequestBody."""
        ...

    def edits(self, facts: RequestFacts, *, ask_usage: bool) -> Sequence[Edit]:
        """What must be changed so that usage is reported (empty when nothing). `ask_usage`: this server understands the wish."""
        ...

    def reader(self, facts: RequestFacts, content_type: str, *, hide_usage: bool) -> Reader:
        """A reader for one answer of status 2xx. `hide_usage`: take out again what `edits` asked for."""
        ...

    def limit_edit(self, facts: RequestFacts, output_tokens: int) -> Edit:
        """The edit that lowers (or sets) the output limit per candidate to `output_tokens`."""
        ...

    def rename_model(self, facts: RequestFacts, path: str, model: str) -> tuple[str, Edit | None]:
        """Ask for `model` instead: the new path, and the edit of the body when the model stands there."""
        ...

    def error_event(self, error_type: str, message: str, body: bytes) -> bytes:
        """One event that ends a streamed answer with an error; `body` is the refusal's JSON in this dialect."""
        ...
