"""Reads what `tollgate.load` is told: `key=workshop model=gpt-4o-mini since=yesterday limit=50`. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_LISTS: Mapping[str, str] = {
    "team": "team_ids",
    "customer": "customer_ids",
    "run": "run_ids",
    "model": "models",
    "provider": "providers",
    "status": "statuses",
    "operation": "operations",
    "refusal": "refusal_types",
}
_WORDS = ("id", "key", *_LISTS, "text", "since", "until", "limit")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_SPAN = re.compile(r"([0-9]+)(s|m|h|d|w)")
_SPAN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to load: these calls by id, or the newest `limit` under the conditions (names of `LogFilter`)."""

    ids: tuple[str, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    limit: int = 200


def parse_load(words: Sequence[str], *, now_ms: int, max_limit: int) -> LoadSpec:
    """The spec of the command's words. Raises ValueError with a sentence that says what is wrong."""
    conditions: dict[str, Any] = {}
    ids: tuple[str, ...] = ()
    limit = min(200, max_limit)
    for word in [part for text in words for part in text.split()]:
        name, equals, value = word.partition("=")
        if not equals or name not in _WORDS or not value:
            raise ValueError(
                f"{word!r} is not understood; write conditions such as key=NAME since=yesterday (known: {', '.join(_WORDS)})"
            )
        values = tuple(part for part in value.split(",") if part)
        if name == "id":
            ids = values
        elif name == "key":
            conditions["virtual_key_ids" if all(map(_ID.fullmatch, values)) else "virtual_key_names"] = values
        elif name in _LISTS:
            conditions[_LISTS[name]] = values
        elif name == "limit":
            limit = _limit(value, max_limit)
        elif name == "text":
            conditions["text"] = value
        else:
            conditions["start_ms" if name == "since" else "end_ms"] = instant(value, now_ms)
    return LoadSpec(ids, conditions, limit)


def instant(text: str, now_ms: int) -> int:
    """Milliseconds of `today`, `yesterday` (their UTC midnights), `2h` (ago), a date, or a time; without zone it is UTC.

    Raises ValueError.
    """
    midnight = now_ms - now_ms % _DAY_MS
    if text in ("today", "yesterday"):
        return midnight if text == "today" else midnight - _DAY_MS
    if span := _SPAN.fullmatch(text):
        return max(0, now_ms - int(span[1]) * _SPAN_MS[span[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write today, yesterday, 2h, 7d, 2026-11-23 or 2026-11-23T10:00:00Z") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _limit(text: str, max_limit: int) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"limit={text} is not a number of calls")
    return min(int(text), max_limit)
