"""Rows of logs.db between database and program."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson

from store.database import Connection
from store.logs.types import CallRow
from store.money import MAX_NANOS

COLUMNS = tuple(field.name for field in fields(CallRow) if field.name not in ("request_body", "response_body"))
COLUMN_LIST = ", ".join(COLUMNS)
_FLAGS = tuple(COLUMNS.index(name) for name in ("stream", "priced", "estimated"))
_CAPS = COLUMNS.index("caps_charged")
_TEXTS = tuple(index for index, field in enumerate(fields(CallRow)) if field.name in COLUMNS and field.type in (str, "str"))
MAX_TEXT = 4096
"""No single text of a row is longer; bodies have their own table."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it stands in the database, with its ties to the ledger."""

    row: CallRow
    ledger_sequence: int
    ledger_nanos: int


def to_columns(row: CallRow) -> list[Any]:
    """The values of `COLUMNS`, ready to be bound: texts bounded and encodable, numbers within 64 bits."""
    values: list[Any] = [getattr(row, name) for name in COLUMNS]
    values[_CAPS] = orjson.dumps(row.caps_charged).decode()
    for index in _TEXTS:
        text = values[index]
        if not text.isascii() or len(text) > MAX_TEXT:
            values[index] = encodable(text[:MAX_TEXT])
    return [max(-MAX_NANOS, min(MAX_NANOS, value)) if type(value) is int else value for value in values]


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
        f"SELECT {COLUMN_LIST}, ledger_sequence, ledger_nanos FROM calls WHERE id IN (SELECT value FROM json_each(?))",
        (orjson.dumps(list(call_ids)).decode(),),
    )
    return {row[0]: Stored(from_columns(row[:-2]), row[-2], row[-1]) for row in rows}


def encodable(text: str) -> str:
    """The text with what UTF-8 cannot hold (lone surrogates) replaced."""
    return text.encode("utf-8", "replace").decode()


def clipped(text: str, limit_bytes: int) -> tuple[str, int]:
    """At most `limit_bytes` of UTF-8, cut between characters, and the length of the whole in bytes."""
    data = text.encode("utf-8", "replace")
    return data[:limit_bytes].decode("utf-8", "ignore"), len(data)
