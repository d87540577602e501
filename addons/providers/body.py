"""Reads a request body as a JSON object and checks the few fields that govern its price."""

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any

import orjson

from addons.providers import splice
from addons.providers.dialect import BadRequestBody

type JsonObject = dict[str, Any]

MAX_LIMIT = 1_000_000_000
"""Output limits and counts above this are read as this: no model writes more."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_object(body: bytes, governing: Iterable[str], nested: Iterable[tuple[str, ...]] = ()) -> JsonObject:
    """The body as an object.

    `governing` are top-level keys, and `nested` paths below the top, that must not occur twice in their object, since
    servers differ in which one they obey. Raises BadRequestBody with a sentence for the caller.
    """
    value = _parsed(body)
    if type(value) is not dict:
        raise BadRequestBody("the request body must be a JSON object")
    if splice.may_hide_keys(body) or _lost_any(body, value):
        _refuse_repeats(body, frozenset(governing), tuple(nested))
    return value


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    if _SURROGATE.search(body):
        # JavaScript clients cut texts in the middle of an emoji; many servers take the half pair, so we do as well.
        try:
            return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            pass
    raise BadRequestBody("the request body is not valid JSON")


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _lost_any(body: bytes, value: JsonObject) -> bool:
    """True when the text has more quotation marks than what was parsed from it: then a member was overwritten.

    Proves nothing where quotation marks are written as escapes; `may_hide_keys` finds those.
    """
    try:
        return body.count(b'"') != orjson.dumps(value).count(b'"')
    except TypeError:
        return True


def _refuse_repeats(body: bytes, keys: frozenset[str], paths: tuple[tuple[str, ...], ...]) -> None:
    try:
        _scan(body, len(body) - len(body.lstrip(b" \t\r\n")), keys, paths, "")
    except splice.Malformed:
        raise BadRequestBody("the request body is not valid JSON") from None


def _scan(body: bytes, at: int, keys: frozenset[str], paths: tuple[tuple[str, ...], ...], where: str) -> None:
    seen: set[str] = set()
    governing = keys | {path[0] for path in paths}
    for member in splice.members(body, at):
        if member.key not in governing:
            continue
        if member.key in seen:
            raise BadRequestBody(f"{where}{member.key} is given twice: send it once")
        seen.add(member.key)
        below = tuple(path[1:] for path in paths if path[0] == member.key and len(path) > 1)
        if below and body[member.value_start : member.value_start + 1] == b"{":
            _scan(body, member.value_start, frozenset(), below, f"{where}{member.key}.")


def optional_text(holder: JsonObject, key: str, where: str = "") -> str | None:
    """A text, or None when absent or null. Raises BadRequestBody for anything else."""
    value = holder.get(key)
    if value is None or type(value) is str:
        return value
    raise BadRequestBody(f"{where}{key} must be a string")


def optional_flag(holder: JsonObject, key: str, where: str = "") -> bool:
    """A flag; absent and null are False. Raises BadRequestBody for anything else."""
    value = holder.get(key)
    if value is None:
        return False
    if type(value) is bool:
        return value
    raise BadRequestBody(f"{where}{key} must be true or false")


def optional_list(holder: JsonObject, key: str, where: str = "") -> list[Any]:
    """A list; absent and null are empty. Raises BadRequestBody for anything else."""
    value = holder.get(key)
    if value is None:
        return []
    if type(value) is list:
        return value
    raise BadRequestBody(f"{where}{key} must be a list")


def optional_object(holder: JsonObject, key: str, where: str = "") -> JsonObject:
    """An object; absent and null are empty. Raises BadRequestBody for anything else."""
    value = holder.get(key)
    if value is None:
        return {}
    if type(value) is dict:
        return value
    raise BadRequestBody(f"{where}{key} must be an object")


def optional_whole(holder: JsonObject, key: str, where: str = "") -> int | None:
    """A whole number (also written as 5.0), or None when absent or null. Raises BadRequestBody for anything else."""
    value = holder.get(key)
    if value is None:
        return None
    if type(value) is float and isfinite(value) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise BadRequestBody(f"{where}{key} must be a whole number")
    return min(value, MAX_LIMIT)


def limit_of(holder: JsonObject, key: str, where: str = "") -> int | None:
    """An output limit; absent, null and negative (some servers' word for endless) are None."""
    value = optional_whole(holder, key, where)
    return value if value is not None and value >= 0 else None


def count_of(holder: JsonObject, key: str, where: str = "") -> int:
    """How many answers are asked for, at least 1."""
    return max(1, optional_whole(holder, key, where) or 1)


def objects(values: list[Any], where: str) -> list[JsonObject]:
    """The list, when each entry is an object. Raises BadRequestBody naming the first that is not."""
    for index, value in enumerate(values):
        if type(value) is not dict:
            raise BadRequestBody(f"{where}[{index}] must be an object")
    return values
