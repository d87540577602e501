"""Finds the row that a refusal went into: identical refusals within a second share the row of the first."""

from store.database import Database
from store.logs.refusals import MERGE_MS
from store.logs.rows import COLUMN_LIST, from_columns
from store.logs.types import CallRow

_SLACK_MS = 100
"""Between the making of a call's id and its time."""
_MOST = 20


def id_ms(call_id: str) -> int | None:
    """When an id (UUID version 7, RFC 9562 section 5.7) was made; None when it is no such id."""
    digits = call_id.replace("-", "")
    if len(call_id) != 36 or len(digits) != 32 or digits[12] != "7":
        return None
    try:
        return int(digits, 16) >> 80
    except ValueError:
        return None


def rows_that_may_hold(database: Database, call_id: str) -> list[CallRow]:
    """Rows of several refusals that a refusal with this id may be among, newest first. Raises StoreUnavailable."""
    at_ms = id_ms(call_id)
    if at_ms is None:
        return []
    with database.read() as connection:
        rows = connection.execute(
            f"SELECT {COLUMN_LIST} FROM calls WHERE status = 'refused' AND status <> 'success' AND count > 1 "
            "AND at_ms > ? AND at_ms <= ? ORDER BY at_ms DESC, number DESC LIMIT ?",
            (at_ms - MERGE_MS - _SLACK_MS, at_ms + _SLACK_MS, _MOST),
        )
    return [from_columns(row) for row in rows]
