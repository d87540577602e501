"""Brings a request path to the one form that servers could understand it as, so that no spelling hides an endpoint."""

import re
from functools import lru_cache
from urllib.parse import unquote

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~:@!$&'()*+,=-][A-Za-z0-9._~:@!$&'()*+,=-]*)+/?\Z|/\Z")
_MAX_ROUNDS = 4
SHORT = 300
"""Longer paths are not remembered: they come from callers, and memory is bounded."""


def without_query(path: str) -> str:
    """The path up to `?` or `#`."""
    return re.split(r"[?#]", path, maxsplit=1)[0]


def is_plain(path: str) -> bool:
    """True when every server reads this path alike: no escapes, empty or dot segments, parameters, odd characters."""
    return _PLAIN.match(without_query(path)) is not None


def canonical(path: str) -> str:
    """The path as the most forgiving server would read it; letters keep their case, the slash at the end goes."""
    # Calls come to a handful of paths, and this is asked several times for each.
    return _remembered(path) if len(path) <= SHORT else _canonical(path)


def _canonical(path: str) -> str:
    text = without_query(path)
    for _ in range(_MAX_ROUNDS):
        decoded = unquote(text, errors="replace")
        if decoded == text:
            break
        text = decoded
    text = "".join(character for character in without_query(text) if character.isprintable() and character != " ")
    segments: list[str] = []
    for segment in text.replace("\\", "/").split("/"):
        segment = segment.split(";", 1)[0]
        if segment == "..":
            if segments:
                segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


_remembered = lru_cache(1024)(_canonical)
