"""OpenAI embeddings: nothing is generated, and the answer is large numbers with a small usage at its end."""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from addons.providers import body, openai_request, other_models
from addons.providers.counters import nanos_of_usd, text_of
from addons.providers.dialect import BadRequestBody, Edit, Reader, RequestFacts
from addons.providers.openai_usage import usage_of
from addons.providers.readers import BodyReader, Findings, error_text
from addons.providers.text import Gathered
from store.usage import Reading

_GOVERNING = ("model", "input", *other_models.GOVERNING)
_HANDLED = frozenset(("input", "encoding_format", "dimensions"))
_WRONG_INPUT = "input must be a string, a list of strings, or lists of token ids"

KEPT_BYTES = 64 * 1024
"""Of a large answer only so much of its beginning and of its end is kept: usage stands at the end."""


class OpenAIEmbeddings:
    """The dialect."""

    name = "openai_embeddings"

    def read_request(self, operation: str, path: str, query: str, body_bytes: bytes) -> RequestFacts:
        request = body.read_object(body_bytes, _GOVERNING, other_models.NESTED)
        gathered = Gathered()
        _read_input(request.get("input"), gathered)
        openai_request.count_fields(request, gathered, _HANDLED)
        model = body.optional_text(request, "model")
        return RequestFacts(
            operation=operation,
            model=model,
            other_models=other_models.other_models(request, body_bytes, model),
            text_bytes=gathered.text_bytes(),
            overhead_tokens=gathered.tokens,
            media=tuple(gathered.media),
            unseen_input=gathered.unseen,
            has_output=False,
        )

    def edits(self, facts: RequestFacts, *, ask_usage: bool) -> Sequence[Edit]:
        return ()

    def reader(self, facts: RequestFacts, content_type: str, *, hide_usage: bool) -> Reader:
        return EmbeddingsReader(EmbeddingsFindings())

    def limit_edit(self, facts: RequestFacts, output_tokens: int) -> Edit:
        raise ValueError("an embedding has no output limit")

    def rename_model(self, facts: RequestFacts, path: str, model: str) -> tuple[str, Edit | None]:
        return path, Edit(("model",), orjson.dumps(model))

    def error_event(self, error_type: str, message: str, body: bytes) -> bytes:
        return b"data: " + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"


def _read_input(value: object, gathered: Gathered) -> None:
    if type(value) is str:
        gathered.add_text(value)
        return
    if type(value) is not list:
        raise BadRequestBody(_WRONG_INPUT)
    gathered.tokens += 2 * len(value)
    if all(type(entry) is int for entry in value):
        return
    for entry in value:
        if type(entry) is str:
            gathered.add_text(entry)
        elif type(entry) is list and all(type(token) is int for token in entry):
            gathered.tokens += len(entry) + 2
        elif type(entry) is dict:
            gathered.walk(entry, openai_request.find_media)
        else:
            raise BadRequestBody(_WRONG_INPUT)


class EmbeddingsFindings(Findings):
    """What an embeddings answer tells; only `model`, `usage` and `error` matter."""

    def __init__(self) -> None:
        super().__init__()
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._error: str | None = None

    def take(self, message: dict[str, Any]) -> None:
        self._model = text_of(message.get("model")) or self._model
        usage = message.get("usage")
        if type(usage) is dict:
            self._usage = usage
        self._error = error_text(message.get("error"))

    def reading(self, unread_bytes: int = 0, unread: bool = False) -> Reading:
        usage = usage_of(self._usage)
        return Reading(
            usage=usage,
            model=self._model,
            provider_cost_nanos=nanos_of_usd(self._usage.get("cost")),
            usage_is_final=usage is not None,
            error=self._error,
            output_bytes=self.output.byte_count + unread_bytes,
            output_events=self.output.events,
            unread=unread,
        )


_MODEL_MEMBER = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_USAGE_MEMBER = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


class EmbeddingsReader:
    """Reads small answers whole, and of large ones only both ends, so that memory stays small whatever the size.

    A quoted word followed by a colon cannot be part of a text in JSON (its quotes would be escaped), so looking for
    `"usage":` in the ends finds the real member.
    """

    def __init__(self, findings: EmbeddingsFindings) -> None:
        self._findings = findings
        self._whole = BodyReader(findings, KEPT_BYTES)
        self._head = b""
        self._tail = b""
        self._length = 0

    def feed(self, chunk: bytes) -> bytes:
        if len(self._head) < KEPT_BYTES:
            self._head += chunk[: KEPT_BYTES - len(self._head)]
        self._tail = (self._tail + chunk[-KEPT_BYTES:])[-KEPT_BYTES:]
        self._length += len(chunk)
        return self._whole.feed(chunk)

    def finish(self) -> bytes:
        self._whole.finish()
        return b""

    def reading(self) -> Reading:
        if self._length <= KEPT_BYTES:
            return self._whole.reading()
        members = {}
        if model := list(_MODEL_MEMBER.finditer(self._tail)) or list(_MODEL_MEMBER.finditer(self._head)):
            members["model"] = model[-1][1]
        if usage := list(_USAGE_MEMBER.finditer(self._tail)) or list(_USAGE_MEMBER.finditer(self._head)):
            members["usage"] = usage[-1][1]
        for key, text in members.items():
            try:
                self._findings.take({key: orjson.loads(text)})
            except orjson.JSONDecodeError:
                continue
        return self._findings.reading()

    def transcript(self, limit: int) -> str:
        return ""

    def cut(self, event: bytes, body: bytes) -> bytes:
        """Nothing can be put behind half a JSON body."""
        return b""

    @property
    def output_bytes(self) -> int:
        """Nothing is generated."""
        return 0
