"""Adds up what a model would read in a request: decoded text on one side, media on the other."""

import json
from collections.abc import Callable
from typing import Any

import orjson

from addons.providers.counters import utf8_length
from addons.providers.dialect import Media

type FindMedia = Callable[[dict[str, Any], "Gathered"], str | None]
"""Looks at one object for media and references; the key of the member that is media and no text, or None."""

FRAMING_KEYS = frozenset(("role", "content", "type", "text", "parts"))
"""Keys that messages and parts consist of: their cost is the overhead per message, not text."""
TOKENS_PER_MESSAGE = 16
TOKENS_PER_TOOL = 16


class Gathered:
    """What was found so far in one request."""

    __slots__ = ("_texts", "_bytes", "media", "unseen", "tokens", "detail")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._bytes = 0
        self.media: list[Media] = []
        self.unseen = False
        """Something is referred to that only the provider can see."""
        self.tokens = 0
        """Tokens counted outright: framing, and inputs that are token ids already."""
        self.detail = ""
        """The request's own word for the resolution of all its media."""

    def add_text(self, text: str) -> None:
        self._texts.append(text)

    def add_json(self, value: object) -> None:
        """Count a value that the provider shows to the model as JSON or something like it (tools, schemas)."""
        self._bytes += json_length(value)

    def walk(self, root: object, find_media: FindMedia) -> None:
        """Count all texts, keys and numbers below `root`, except what `find_media` takes for itself."""
        texts = self._texts
        stack = [root]
        while stack:
            node = stack.pop()
            kind = type(node)
            if kind is str:
                texts.append(node)  # type: ignore[arg-type]
            elif kind is dict:
                taken = find_media(node, self)  # type: ignore[arg-type]
                for key, value in node.items():  # type: ignore[attr-defined]
                    if key == taken:
                        continue
                    if key not in FRAMING_KEYS:
                        texts.append(key)
                    if type(value) is str:
                        texts.append(value)
                    elif value is not None:
                        stack.append(value)
            elif kind is list:
                stack += node  # type: ignore[arg-type]
            elif node is not None:
                texts.append(str(node))

    def text_bytes(self) -> int:
        """UTF-8 bytes of everything added."""
        return self._bytes + utf8_length("".join(self._texts))


def json_length(value: object) -> int:
    """UTF-8 bytes of the value as compact JSON."""
    try:
        return len(orjson.dumps(value))
    except (TypeError, ValueError):  # numbers beyond 64 bits, unpaired surrogates, nesting beyond orjson's bound
        pass
    try:
        return utf8_length(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except RecursionError:
        gathered = Gathered()
        gathered.walk(value, lambda _node, _found: None)
        return 2 * gathered.text_bytes()
