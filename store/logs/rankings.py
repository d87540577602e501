"""Who spent most: sums by one column, beside those of the time before."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from store.database import Database
from store.logs.collect import Column, collect, whole_span
from store.logs.filters import LogFilter, app_of
from store.logs.sums import LogSums

type Dimension = Literal["model", "provider", "virtual_key", "team", "customer", "app", "user_agent"]

_COLUMNS: dict[str, Column] = {
    "model": "model",
    "provider": "provider",
    "virtual_key": "virtual_key_id",
    "team": "team_id",
    "customer": "customer_id",
    "app": "client",
    "user_agent": "client",
}


@dataclass(frozen=True, slots=True)
class Ranked:
    """One place. `before` are the sums of the time of equal length before; None when nothing is known of that time."""

    value: str
    sums: LogSums
    before: LogSums | None


def rankings(database: Database, given: LogFilter, now_ms: int, dimension: Dimension) -> list[Ranked]:
    """Every value that had a call in the time, dearest first, then most tokens, most calls, and by value. Raises StoreUnavailable.

    Without a start the time is everything there is, and there is no time before.
    """
    column = _COLUMNS[dimension]
    span = whole_span(database, given, now_ms)
    sums = _by_value(collect(database, given, span, column), dimension)
    known = given.start_ms is not None and span.before.start_ms >= 0
    return ranked(sums, _by_value(collect(database, given, span.before, column), dimension) if known else None)


def ranked(now: Mapping[str, LogSums], before: Mapping[str, LogSums] | None) -> list[Ranked]:
    """Places of sums by value; `before` is None when nothing is known of the time before."""
    found = [Ranked(value, made, None if before is None else before.get(value, LogSums())) for value, made in now.items()]
    return sorted(found, key=_place)


def _place(one: Ranked) -> tuple[int, int, int, str]:
    sums = one.sums
    return -sums.cost_nanos, -(sums.input_tokens + sums.output_tokens), -sums.calls, one.value


def _by_value(found: dict[tuple[int, str], LogSums], dimension: Dimension) -> dict[str, LogSums]:
    made: dict[str, LogSums] = {}
    for (_, value), sums in found.items():
        name = app_of(value) if dimension == "app" else value
        if name in made:
            made[name].add(sums)
        else:
            made[name] = sums
    return made
