"""Writes many rows in one transaction: each call once, its bodies apart, the daily sums moved by exactly what changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from store.database import Connection
from store.logs.daily import DailyChanges
from store.logs.deletion import deleted_among
from store.logs.rows import COLUMNS, Stored, bounded, clipped, read_stored, to_columns
from store.logs.types import CallRow

_ALL = (*COLUMNS, "ledger", "ledger_sequence", "ledger_nanos")
_UPSERT = f"""INSERT INTO calls ({", ".join(_ALL)}) VALUES ({", ".join("?" * len(_ALL))})
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _ALL if name != "id")}"""
_BODY = """INSERT INTO bodies (call_id, at_ms, request, request_bytes, response, response_bytes) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (call_id) DO UPDATE SET at_ms = excluded.at_ms, request = excluded.request,
    request_bytes = excluded.request_bytes, response = excluded.response, response_bytes = excluded.response_bytes"""

_CUT_MARGIN = 4096


def write_rows(
    connection: Connection, rows: Sequence[CallRow], further: Mapping[str, int] | None = None, *, bodies: "Bodies | None" = None
) -> None:
    """Insert or replace rows by id, inside the caller's transaction.

    `further` counts identical refusals that belong to rows written earlier: id → how many more. `bodies` says what is kept of
    requests and answers; None keeps none. Where the ledger has already booked a call its cost stands, whatever the row says.
    """
    latest = {row.id: row for row in map(bounded, rows)}
    for gone in deleted_among(connection, latest):  # counted when it was first written
        del latest[gone]
    stored = read_stored(connection, {*latest, *(further or ())})
    changes = DailyChanges()
    writes = [_settled(row, stored.get(row.id)) for row in latest.values()]
    for call_id, more in (further or {}).items():
        before = stored.get(call_id)
        if before is not None and call_id not in latest:
            writes.append(replace(before, row=bounded(replace(before.row, count=before.row.count + more))))
    put(connection, writes, stored, changes)
    changes.write(connection)
    if bodies is not None and bodies.limit_bytes > 0:
        values = [kept for row in latest.values() if (kept := bodies.keep(row)) is not None]
        connection.executemany(_BODY, values)


def put(connection: Connection, writes: Sequence[Stored], before: Mapping[str, Stored], changes: DailyChanges) -> None:
    """Write `bounded` rows with their ledger ties and note in `changes` what that does to the daily sums."""
    connection.executemany(
        _UPSERT, [(*to_columns(item.row), item.ledger, item.ledger_sequence, item.ledger_nanos) for item in writes]
    )
    for item in writes:
        old = before.get(item.row.id)
        if old is not None:
            changes.add(old.row, -1)
        changes.add(item.row)


def _settled(row: CallRow, before: Stored | None) -> Stored:
    if before is None or before.ledger_sequence == 0:
        return Stored(row)
    return replace(before, row=replace(row, cost_nanos=before.ledger_nanos))


@dataclass(frozen=True, slots=True)
class Bodies:
    """What is kept of request and response texts: at most `limit_bytes` each, after `clean` has taken secrets out."""

    limit_bytes: int
    clean: Callable[[str], str] | None = None

    def keep(self, row: CallRow) -> tuple[str, int, str, int, str, int] | None:
        """The values of the bodies table, or None when there is nothing to keep."""
        if not row.request_body and not row.response_body:
            return None
        request, request_bytes = self._kept(row.request_body or "")
        response, response_bytes = self._kept(row.response_body or "")
        return row.id, row.at_ms, request, request_bytes, response, response_bytes

    def _kept(self, text: str) -> tuple[str, int]:
        # Cleaning sees a little more than is kept, so that no part of a secret is left standing at the cut.
        cut, whole_bytes = clipped(text, self.limit_bytes + _CUT_MARGIN)
        if self.clean is not None:
            cut = self.clean(cut)
        return clipped(cut, self.limit_bytes)[0], whole_bytes
