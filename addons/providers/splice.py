"""Changes single values inside JSON text and leaves every other byte as it came."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from addons.providers.dialect import Edit

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING_AT = re.compile(_STRING, re.DOTALL)
_SCALAR_AT = re.compile(rb"[^\s,\]}\[{\":]++")
_PLAIN = rb'[^"\[\]{}]++|' + _STRING


def _nested(depth: int) -> bytes:
    """A pattern for one whole object or array with at most `depth` levels inside; brackets are not told apart."""
    pattern = rb"[\[{](?:" + _PLAIN + rb")*+[\]}]"
    for _ in range(depth):
        pattern = rb"[\[{](?:" + _PLAIN + rb"|" + pattern + rb")*+[\]}]"
    return pattern


_CONTAINER_AT = re.compile(_nested(12), re.DOTALL)
"""Ordinary values in one match, in C; what is nested deeper goes the slow way."""
_NEXT_BRACKET = re.compile(rb"(?:" + _PLAIN + rb")*+([\[\]{}])", re.DOTALL)
_ESCAPED_SIGN = re.compile(rb"\\u00(?:22|3[0-9]|[4-7][0-9a-fA-F])")


class Malformed(ValueError):
    """The text is not JSON (as far as it had to be looked at)."""


class Member(NamedTuple):
    """One member of an object: its decoded key, and where key and value stand in the text."""

    key: str
    key_start: int
    value_start: int
    value_end: int


def members(text: bytes, at: int) -> Iterator[Member]:
    """The members of the object whose `{` stands at `at`, in order, repeated keys too. Raises Malformed."""
    if text[at : at + 1] != b"{":
        raise Malformed("not an object")
    at = _skip_space(text, at + 1)
    if text[at : at + 1] == b"}":
        return
    while True:
        key_start = at
        at = _end_of_string(text, at)
        key = _decoded(text[key_start:at])
        at = _skip_space(text, at)
        if text[at : at + 1] != b":":
            raise Malformed("a colon is missing")
        value_start = _skip_space(text, at + 1)
        value_end = end_of_value(text, value_start)
        yield Member(key, key_start, value_start, value_end)
        at = _skip_space(text, value_end)
        separator = text[at : at + 1]
        if separator == b"}":
            return
        if separator != b",":
            raise Malformed("a comma is missing")
        at = _skip_space(text, at + 1)


def end_of_value(text: bytes, at: int) -> int:
    """The position behind the value that begins at `at`. Raises Malformed."""
    first = text[at : at + 1]
    if first == b'"':
        return _end_of_string(text, at)
    if first in (b"{", b"["):
        match = _CONTAINER_AT.match(text, at)
        return match.end() if match else _end_of_deep_value(text, at)
    match = _SCALAR_AT.match(text, at)
    if match is None:
        raise Malformed("a value is missing")
    return match.end()


def apply(body: bytes, edits: Sequence[Edit]) -> bytes:
    """The body with every edit made, one after the other; all other bytes are unchanged.

    A key that stands several times is changed everywhere, a missing one is added at the start of its object,
    and a value on the way that is no object becomes one. Raises Malformed when the body is no JSON object.
    """
    for edit in edits:
        if not edit.path:
            raise ValueError("an edit needs a path")
        start = _skip_space(body, 0)
        pieces: list[bytes] = []
        if body[start : start + 1] == b"{" and surely_absent(body, edit.path[0]):
            body = body[: start + 1] + _added(body, start, edit.path, edit.value) + body[start + 1 :]
            continue
        behind = _splice(body, start, edit.path, edit.value, 0, pieces)
        pieces.append(body[behind:])
        body = b"".join(pieces)
    return body


def surely_absent(text: bytes, key: str) -> bool:
    """True when no object in the text can have this key, found without scanning; only of keys of plain letters and `_`."""
    return key.isascii() and key.isidentifier() and b'"' + key.encode() + b'"' not in text and not may_hide_keys(text)


def may_hide_keys(text: bytes) -> bool:
    """True when letters, digits, `_` or quotation marks are written as `\\u` escapes, so that a search proves nothing."""
    return b"\\u00" in text and _ESCAPED_SIGN.search(text) is not None


def cut_member(text: bytes, key: str) -> bytes:
    """The object in `text` without its member `key`, together with the one comma that went with it."""
    start = _skip_space(text, 0)
    before: int | None = None
    found = list(members(text, start))
    for index, member in enumerate(found):
        if member.key != key:
            before = member.value_end
            continue
        if before is not None:
            return text[:before] + text[member.value_end :]
        if index + 1 < len(found):
            return text[: member.key_start] + text[found[index + 1].key_start :]
        return text[: member.key_start] + text[member.value_end :]
    return text


def _splice(text: bytes, at: int, path: tuple[str, ...], value: bytes, done: int, pieces: list[bytes]) -> int:
    """Append `text[done:…]` to `pieces`, changed below the object at `at`; the position up to which it is copied."""
    key, rest = path[0], path[1:]
    found = False
    for member in members(text, at):
        if member.key != key:
            continue
        found = True
        if rest and text[member.value_start : member.value_start + 1] == b"{":
            done = _splice(text, member.value_start, rest, value, done, pieces)
            continue
        pieces += (text[done : member.value_start], _wrapped(rest, value))
        done = member.value_end
    if not found:
        pieces += (text[done : at + 1], _added(text, at, path, value))
        done = at + 1
    return done


def _added(text: bytes, at: int, path: tuple[str, ...], value: bytes) -> bytes:
    """The new member to be put right behind the `{` at `at`, with a comma when others follow."""
    inside = _skip_space(text, at + 1)
    comma = b"" if text[inside : inside + 1] == b"}" else b","
    return orjson.dumps(path[0]) + b":" + _wrapped(path[1:], value) + comma


def _wrapped(path: tuple[str, ...], value: bytes) -> bytes:
    for key in reversed(path):
        value = b"{" + orjson.dumps(key) + b":" + value + b"}"
    return value


def _skip_space(text: bytes, at: int) -> int:
    if text[at : at + 1] > b" ":
        return at
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end_of_string(text: bytes, at: int) -> int:
    match = _STRING_AT.match(text, at)
    if match is None:
        raise Malformed("a string is missing or does not end")
    return match.end()


def _end_of_deep_value(text: bytes, at: int) -> int:
    depth = 0
    while True:
        match = _NEXT_BRACKET.match(text, at)
        if match is None:
            raise Malformed("a value does not end")
        at = match.end()
        depth += 1 if match[1] in (b"{", b"[") else -1
        if depth == 0:
            return at


def _decoded(quoted: bytes) -> str:
    if b"\\" not in quoted:
        return quoted[1:-1].decode("utf-8", "replace")
    try:
        return str(orjson.loads(quoted))
    except orjson.JSONDecodeError:
        return quoted[1:-1].decode("utf-8", "replace")
