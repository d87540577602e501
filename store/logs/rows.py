"""Rows of logs.db between database and program."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson

from store.database import Connection
from store.logs.types import CallRow
from store.money import MAX_NANOS

COLUMNS = tuple(field.name for field in fields(CallRow) if field.name not in ("request_body", "response_body"))
COLUMN_LIST = ", ".join(COLUMNS)
_FLAGS = tuple(COLUMNS.index(name) for name in ("stream", "priced", "estimated"))
_CAPS = COLUMNS.index("caps_charged")

MAX_TEXT_BYTES = 4096
"""No single text of a row is longer; bodies have their own table."""
MAX_KEY_BYTES = 500
"""Texts that calls are found by, and daily sums kept by: PostgreSQL takes 2,704 bytes for a whole index entry."""
MAX_COUNT = 10**12
"""Tokens, milliseconds and the like: nine million rows that lie this much still add up within 64 bits."""

_KEYS = frozenset(
    {"id", "status", "provider", "model", "operation", "virtual_key_id", "team_id", "customer_id", "run_id", "provider_key_id",
     "routing_rule_id"}
)  # fmt: skip
_TEXT_BYTES = tuple(
    (field.name, MAX_KEY_BYTES if field.name in _KEYS else MAX_TEXT_BYTES)
    for field in fields(CallRow)
    if field.name in COLUMNS and field.type in (str, "str")
)
_LIMITS = tuple(
    (field.name, MAX_NANOS if field.name in ("at_ms", "cost_nanos", "held_nanos", "recalculated_nanos") else MAX_COUNT)
    for field in fields(CallRow)
    if field.type in (int, "int", int | None, "int | None")
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it stands in the database, with its tie to a ledger: the ledger's number in these logs, its last row for this
    call (0: none yet), and what it has booked up to it."""

    row: CallRow
    ledger: int = 0
    ledger_sequence: int = 0
    ledger_nanos: int = 0


def bounded(row: CallRow) -> CallRow:
    """The row as both engines can keep it: texts of bounded length without NUL or lone surrogates, numbers within their limits."""
    changes: dict[str, Any] = {}
    for name, limit_bytes in _TEXT_BYTES:
        text = getattr(row, name)
        if len(text) > limit_bytes or not text.isascii() or "\0" in text:
            changes[name] = clipped(text.replace("\0", "\ufffd"), limit_bytes)[0]
    for name, most in _LIMITS:
        number = getattr(row, name)
        if number is not None and not -most <= number <= most:
            changes[name] = most if number > 0 else -most
    return replace(row, **changes) if changes else row


def to_columns(row: CallRow) -> list[Any]:
    """The values of `COLUMNS`, ready to be bound, of a `bounded` row."""
    values: list[Any] = [getattr(row, name) for name in COLUMNS]
    values[_CAPS] = orjson.dumps(row.caps_charged).decode()
    return values


def from_columns(values: Sequence[Any], request_body: str | None = None, response_body: str | None = None) -> CallRow:
    """A row from the values of `COLUMNS`."""
    row = list(values)
    for index in _FLAGS:
        row[index] = bool(row[index])
    row[_CAPS] = tuple(orjson.loads(row[_CAPS]))
    row += [request_body, response_body]
    return CallRow(*row)


def read_stored(connection: Connection, call_ids: Iterable[str]) -> dict[str, Stored]:
    """The rows with these ids, bodies left out; unknown ids are missing."""
    rows = connection.execute(
        f"SELECT {COLUMN_LIST}, ledger, ledger_sequence, ledger_nanos FROM calls WHERE id IN ({connection.listed})",
        (orjson.dumps(list(call_ids)).decode(),),
    )
    return {row[0]: Stored(from_columns(row[:-3]), *row[-3:]) for row in rows}


def clipped(text: str, limit_bytes: int) -> tuple[str, int]:
    """At most `limit_bytes` of UTF-8, cut between characters, and the length of the whole in bytes. Lone surrogates become `?`."""
    data = text.encode("utf-8", "replace")
    return data[:limit_bytes].decode("utf-8", "ignore"), len(data)
