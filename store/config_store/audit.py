"""Reads of the audit log, whether its chain of digests holds, and its retention. Rows are added by `edits.py` alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from store.config_store.edits import AUDIT_COLUMNS, chain_place, move_chain_place, row_digest
from store.database import Connection, Database
from store.like import contains, pattern

COUNTED = 10_000
"""More rows than this are not counted one by one."""
SEARCHED = 4_000
"""How many rows that the other conditions let through are searched for a text, newest first."""
PAGE = 200
_COLUMNS = ", ".join(AUDIT_COLUMNS)
_NEWEST = "ORDER BY at_ms DESC, sequence DESC"
_SEARCHABLE = ("entity_name", "entity_id", "actor", "address", "reason")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row. `before`, `after` and `details` are JSON texts without secrets, or None."""

    sequence: int
    at_ms: int
    actor: str
    method: str
    address: str
    action: str
    kind: str
    entity_id: str
    entity_name: str
    before: str | None
    after: str | None
    details: str | None
    reason: str
    digest: str


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Conditions, all of which must hold; None: whatever it is. Times are half open: from start to before end."""

    actor: str | None = None
    kind: str | None = None
    entity_id: str | None = None
    action: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    search: str | None = None
    """A part of a name, an id, an actor, an address or a reason."""

    @property
    def is_all(self) -> bool:
        """True without any condition."""
        return self == AuditQuery()


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some rows, newest first. `total` counts all that meet the conditions, when `is_exact`; else there are more."""

    entries: tuple[AuditEntry, ...]
    total: int
    is_exact: bool


def audit_page(connection: Connection, query: AuditQuery, limit: int, offset: int) -> AuditPage:
    """The rows that meet the conditions, newest first."""
    if query.is_all:
        return _page_of_all(connection, limit, offset)
    chosen, params = _chosen(connection, query)
    found = connection.execute(f"SELECT sequence {chosen} {_NEWEST} LIMIT ? OFFSET ?", (*params, limit, offset))
    # In order, although nobody asks for it: PostgreSQL would walk through the whole table otherwise, expecting to be done soon.
    some = f"SELECT 1 {chosen} {_NEWEST} LIMIT ?"
    counted = connection.execute(f"SELECT count(*) FROM ({some}) AS found", (*params, COUNTED + 1))[0][0]
    entries = _entries(connection, [row[0] for row in found])
    return AuditPage(entries, min(counted, COUNTED), counted <= COUNTED and _searched_all(connection, query))


def _page_of_all(connection: Connection, limit: int, offset: int) -> AuditPage:
    """Sequences have no gaps: nothing has to be counted or passed over."""
    begin, end = chain_place(connection, "begin")[0], chain_place(connection, "end")[0]
    last = end - offset
    first = max(begin, last - limit) + 1
    return AuditPage(_entries(connection, list(range(last, first - 1, -1))), end - begin, True)


def audit_entry(connection: Connection, sequence: int) -> AuditEntry | None:
    """The row with this number, or None."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM audit WHERE sequence = ?", (sequence,))
    return AuditEntry(*rows[0]) if rows else None


def audit_rows(connection: Connection, query: AuditQuery, after: int) -> list[AuditEntry]:
    """The next rows beyond a sequence that meet the conditions, oldest first, at most `PAGE`: for reading all of them in pieces."""
    conditions, params = _conditions(connection, query)
    if query.search:
        conditions.append(_search(connection))
        params += [pattern(query.search)] * len(_SEARCHABLE)
    where = " AND ".join(["sequence > ?", *conditions])
    rows = connection.execute(f"SELECT {_COLUMNS} FROM audit WHERE {where} ORDER BY sequence LIMIT ?", (after, *params, PAGE))
    return [AuditEntry(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class ChainReport:
    """Whether the log is what was written. `fault` says where it is not, in words; `digest` is the newest row's."""

    rows: int
    digest: str
    fault: str | None = None

    @property
    def holds(self) -> bool:
        """True when every digest fits."""
        return self.fault is None


def check_chain(database: Database) -> ChainReport:
    """Reads every row at one instant and makes its digest again. Raises StoreUnavailable.

    Whoever can write to the database can make the whole chain anew: compare `digest` with one that was kept elsewhere.
    """
    with database.read() as connection:
        return check_chain_in(connection)


def check_chain_in(connection: Connection) -> ChainReport:
    """As `check_chain`, inside a transaction."""
    last, digest = chain_place(connection, "begin")
    end, end_digest = chain_place(connection, "end")
    count = 0
    for row in _all_rows(connection, last):
        sequence = row[0]
        if sequence != last + 1:
            return ChainReport(count, end_digest, f"row {last + 1} is missing")
        digest = row_digest(digest, row[:-1])
        if row[-1] != digest:
            return ChainReport(count, end_digest, f"row {sequence} is not what was written")
        last = sequence
        count += 1
    if last < end:
        return ChainReport(count, end_digest, f"row {last + 1} is missing")
    if (last, digest) != (end, end_digest):
        return ChainReport(count, end_digest, f"row {last} is not the end that was noted, row {end}")
    return ChainReport(count, end_digest)


def prune_audit(connection: Connection, before_ms: int, limit: int = PAGE) -> int:
    """Takes away the oldest rows from before an instant, at most `limit`, in a write transaction; returns how many went.

    The chain then begins after the last of them.
    """
    begin, _ = chain_place(connection, "begin")
    rows = connection.execute(
        "SELECT sequence, digest, at_ms FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", (begin, limit)
    )
    gone = 0
    while gone < len(rows) and rows[gone][2] < before_ms:
        gone += 1
    if not gone:
        return 0
    sequence, digest, _ = rows[gone - 1]
    move_chain_place(connection, "begin", sequence, digest)
    connection.execute("DELETE FROM audit WHERE sequence <= ?", (sequence,))
    return gone


def _all_rows(connection: Connection, after: int) -> Iterator[Sequence[int | str | None]]:
    while True:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, PAGE))
        yield from rows
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def _entries(connection: Connection, sequences: Sequence[int]) -> tuple[AuditEntry, ...]:
    """The rows with these numbers, in this order."""
    if not sequences:
        return ()
    marks = ", ".join("?" * len(sequences))
    rows = connection.execute(f"SELECT {_COLUMNS} FROM audit WHERE sequence IN ({marks})", sequences)
    found = {row[0]: AuditEntry(*row) for row in rows}
    return tuple(found[sequence] for sequence in sequences if sequence in found)


def _conditions(connection: Connection, query: AuditQuery) -> tuple[list[str], list[int | str]]:
    asked: tuple[tuple[str, int | str | None], ...] = (
        ("actor = ?", query.actor),
        ("kind = ?", query.kind),
        ("entity_id = ?", query.entity_id),
        ("action = ?", query.action),
        ("at_ms >= ?", query.start_ms),
        ("at_ms < ?", query.end_ms),
    )
    given = [(condition, value) for condition, value in asked if value is not None]
    return [condition for condition, _ in given], [value for _, value in given]


def _chosen(connection: Connection, query: AuditQuery) -> tuple[str, list[int | str]]:
    """`FROM … WHERE …` of the rows that meet the conditions; of a search only among the newest."""
    conditions, params = _conditions(connection, query)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    if not query.search:
        return f"FROM audit{where}", params
    columns = ", ".join(("sequence", "at_ms", *_SEARCHABLE))
    newest = f"SELECT {columns} FROM audit{where} {_NEWEST} LIMIT {SEARCHED}"
    return (
        f"FROM ({newest}) AS newest WHERE {_search(connection)}",
        [*params, *[pattern(query.search)] * len(_SEARCHABLE)],
    )


def _search(connection: Connection) -> str:
    return "(" + " OR ".join(contains(connection.engine, column) for column in _SEARCHABLE) + ")"


def _searched_all(connection: Connection, query: AuditQuery) -> bool:
    if not query.search:
        return True
    conditions, params = _conditions(connection, query)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM audit{where} {_NEWEST} LIMIT {SEARCHED + 1}) AS found"
    return bool(connection.execute(sql, params)[0][0] <= SEARCHED)
