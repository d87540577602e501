"""Finds where in a JSON text a fault is that parsers report without a place: a key that stands twice, NaN, an infinity. Pure."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|-?Infinity|NaN|[^\s{}\[\]:,"]+', re.DOTALL)
_NO_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})


def fault_place(text: str) -> tuple[int, int] | None:
    """(line, column), both from 1, of the first such fault in a text that is JSON up to there; None when there is none."""
    keys: list[set[str] | None] = []
    for token, start, after in _tokens(text):
        if token == "{":
            keys.append(set())
        elif token == "[":
            keys.append(None)
        elif token in "}]" and keys:
            keys.pop()
        elif token in _NO_NUMBERS:
            return _place(text, start)
        elif after == ":" and keys and (seen := keys[-1]) is not None:
            if token in seen:
                return _place(text, start)
            seen.add(token)
    return None


def line_and_column(text: bytes, at: int) -> tuple[int, int]:
    """The place of a byte, both from 1; columns count bytes."""
    return text.count(b"\n", 0, at) + 1, at - text.rfind(b"\n", 0, at)


def _tokens(text: str) -> Iterator[tuple[str, int, str]]:
    """(token, where it begins, the token after it)."""
    before: re.Match[str] | None = None
    for match in _TOKEN.finditer(text):
        if before is not None:
            yield before[0], before.start(), match[0]
        before = match
    if before is not None:
        yield before[0], before.start(), ""


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
