"""Copies a database to an empty one of either engine: every row with its ids and sequences, compared before it is committed."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from store.clock import Clock
from store.database import Connection, Database, Row
from store.errors import StoreUnavailable, UserError
from store.filelock import FileLock
from store.ledger.epochs import STALE_SECONDS, running_epochs
from store.ledger.verify import VerifyReport, verify, verify_in
from store.memory import MemoryDatabase
from store.migrations import Migration

PAGE_ROWS = 1_000
WIDE_PAGE_ROWS = 100
"""Of tables that keep whole texts of calls."""
INSERT_BYTES = 4 * 1024 * 1024

_FRACTION = "double precision"
_TYPES = {"TEXT": "text", "INTEGER": "bigint", "BIGINT": "bigint", "": "bigint", "REAL": _FRACTION}
_NUL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the schema steps make it. `key` are its primary key's columns, in order."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...]
    first_rows: int
    """How many rows the schema steps themselves put there."""
    identity: str | None = None
    """The column that numbers itself."""

    @property
    def column_list(self) -> str:
        return ", ".join(f'"{column}"' for column in self.columns)

    @property
    def page_rows(self) -> int:
        return WIDE_PAGE_ROWS if "response" in self.columns else PAGE_ROWS


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied: (table, rows) of tables that had any, and for a ledger what its replay at the destination found."""

    tables: tuple[tuple[str, int], ...]
    verified: VerifyReport | None = None

    @property
    def rows(self) -> int:
        """All rows together."""
        return sum(count for _, count in self.tables)


@dataclass(slots=True)
class _Sum:
    """Count and checksum of a table's rows in the order of their keys."""

    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, rows: Sequence[Row]) -> None:
        self.rows += len(rows)
        for row in rows:
            self.digest.update(orjson.dumps(row))
            self.digest.update(b"\n")

    def same(self, other: "_Sum") -> bool:
        return self.rows == other.rows and bool(self.digest.digest() == other.digest.digest())


def copy_ledger(source: Database, target: Database, clock: Clock) -> CopyReport:
    """Copy configuration and ledger. Open holds are copied; the first gateway that starts there books them as unconfirmed.

    Raises UserError when somebody still spends on the source, when its books do not agree, or when the target is not empty;
    StoreUnavailable. The target is then as empty as before, and the source is never changed.
    """
    _refuse_living(source)
    before = verify(source, clock)
    if not before.clean:
        raise UserError(
            f"the books of {source.name} differ in {len(before.differences)} place(s): tollgate verify shows them, and "
            "tollgate verify --mend makes the balances anew; then copy"
        )
    tables = tables_of(None)
    with _into(target, tables) as connection:
        sums = _copy_all(source, connection, tables)
        _bury_owners(connection)
        after = verify_in(connection, clock)
        if not after.clean or (after.posts, after.holds, after.cost_nanos) != (before.posts, before.holds, before.cost_nanos):
            raise StoreUnavailable(f"the copy in {target.name} does not agree with {source.name}; nothing was kept of it")
    return CopyReport(_counts(sums), after)


def copy_rows(source: Database, target: Database, migrations: Sequence[Migration]) -> CopyReport:
    """Copy a database of other schema steps, such as the logs. Raises as `copy_ledger`."""
    tables = tables_of(migrations)
    with _into(target, tables) as connection:
        sums = _copy_all(source, connection, tables)
    return CopyReport(_counts(sums))


def tables_of(migrations: Sequence[Migration] | None) -> tuple[Table, ...]:
    """The tables that schema steps make, those that others refer to first."""
    model = MemoryDatabase(migrations=migrations)
    try:
        model.migrate()
        with model.read() as connection:
            names = [
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
                if row[0] != model.steps_table and not row[0].startswith("sqlite_")
            ]
            parents = {name: {row[2] for row in connection.execute(f"PRAGMA foreign_key_list({name})")} - {name} for name in names}
            return tuple(_table(connection, name) for name in _parents_first(parents))
    finally:
        model.close()


def empty_again(database: Database, migrations: Sequence[Migration] | None) -> None:
    """Takes everything out of a migrated database but what its schema steps put there. Raises StoreUnavailable."""
    model = MemoryDatabase(migrations=migrations)
    try:
        model.migrate()
        with database.write() as connection, model.read() as first:
            tables = tables_of(migrations)
            for table in reversed(tables):
                connection.execute(f"DELETE FROM {table.name}")
            for table in tables:
                for rows in _pages(first, table):
                    _insert(connection, table, rows)
    finally:
        model.close()


def refuse_unless_empty(database: Database, migrations: Sequence[Migration] | None) -> None:
    """Raises UserError when a migrated database has any row that its schema steps did not make."""
    with database.read() as connection:
        _refuse_rows(connection, database.name, tables_of(migrations))


def _table(connection: Connection, name: str) -> Table:
    columns = connection.execute(f"PRAGMA table_info({name})")
    key = tuple(row[1] for row in sorted(columns, key=lambda row: int(row[5])) if row[5])
    alone = len(key) == 1 and next(row[2] for row in columns if row[5]) == "INTEGER"
    ddl = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,))[0][0]
    return Table(
        name=name,
        columns=tuple(row[1] for row in columns),
        types=tuple(_TYPES[row[2]] for row in columns),
        key=key,
        first_rows=int(connection.execute(f"SELECT count(*) FROM {name}")[0][0]),
        identity=key[0] if alone and f"{key[0]} INTEGER PRIMARY KEY" in ddl else None,
    )


def _parents_first(parents: dict[str, set[str]]) -> Iterator[str]:
    left = dict(parents)
    while left:
        ready = [name for name, wanted in left.items() if not wanted & left.keys()]
        if not ready:
            raise ValueError(f"tables refer to one another in a circle: {', '.join(left)}")
        for name in ready:
            del left[name]
            yield name


@contextmanager
def _into(target: Database, tables: Sequence[Table]) -> Iterator[Connection]:
    """A write transaction on an empty, migrated target."""
    with target.write() as connection:
        _refuse_rows(connection, target.name, tables)
        yield connection


def _refuse_rows(connection: Connection, name: str, tables: Sequence[Table]) -> None:
    for table in tables:
        count = f"SELECT count(*) FROM (SELECT 1 FROM {table.name} LIMIT ?) AS found"
        if connection.execute(count, (table.first_rows + 1,))[0][0] > table.first_rows:
            raise UserError(f"{name} is not empty (its table {table.name} has rows); name a new, empty place")


def _copy_all(source: Database, into: Connection, tables: Sequence[Table]) -> dict[str, _Sum]:
    sums: dict[str, _Sum] = {}
    with source.read() as connection:
        for table in tables:
            sums[table.name] = _copy_table(connection, into, table)
    for table in tables:
        found = _Sum()
        for rows in _pages(into, table):
            found.add(rows)
        if not found.same(sums[table.name]):
            raise StoreUnavailable(
                f"the table {table.name} did not arrive as it was ({found.rows} rows of {sums[table.name].rows}); nothing was kept"
            )
    return sums


def _copy_table(source: Connection, into: Connection, table: Table) -> _Sum:
    into.execute(f"DELETE FROM {table.name}")
    copied = _Sum()
    for rows in _pages(source, table):
        kept = [_storable(row) for row in rows] if into.engine == "postgres" else rows
        copied.add(kept)
        for part in _portions(kept):
            _insert(into, table, part)
    if table.identity is not None and into.engine == "postgres" and copied.rows:
        into.execute(
            f"SELECT setval(pg_get_serial_sequence(?, ?), (SELECT max({table.identity}) FROM {table.name}))",
            (table.name, table.identity),
        )
    return copied


def _insert(into: Connection, table: Table, rows: Sequence[Row]) -> None:
    if _FRACTION not in table.types:
        into.insert(table.name, table.column_list, table.types, rows)
        return
    # The quick way of adding rows is for texts and whole numbers.
    names = ", ".join(f"c{index}" for index in range(len(table.types)))
    into.execute(
        f"INSERT INTO {table.name} ({table.column_list}) SELECT {names} FROM {into.rowset(*table.types)} AS k",
        (orjson.dumps(rows).decode(),),
    )


def _pages(connection: Connection, table: Table) -> Iterator[list[Row]]:
    """All rows in the order of the primary key, a page at a time."""
    key = ", ".join(f'"{column}"' for column in table.key)
    places = [table.columns.index(column) for column in table.key]
    select = f"SELECT {table.column_list} FROM {table.name}"
    marks = ", ".join("?" * len(places))
    last: tuple[Any, ...] = ()
    while True:
        where = f" WHERE ({key}) > ({marks})" if last else ""
        rows = connection.execute(f"{select}{where} ORDER BY {key} LIMIT ?", (*last, table.page_rows))
        if rows:
            yield rows
        if len(rows) < table.page_rows:
            return
        last = tuple(rows[-1][place] for place in places)


def _portions(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in pieces of a bounded size."""
    piece: list[Row] = []
    size = 0
    for row in rows:
        length = sum(len(value) for value in row if isinstance(value, str))
        if piece and size + length > INSERT_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(row)
        size += length
    if piece:
        yield piece


def _storable(row: Row) -> Row:
    """PostgreSQL keeps no NUL characters in text: U+FFFD stands in their place, as when it is written there at first."""
    if not any(isinstance(value, str) and ("\x00" in value or "\\u0000" in value) for value in row):
        return row
    return tuple(_NUL_ESCAPE.sub(r"\1\\ufffd", v.replace("\x00", "\ufffd")) if isinstance(v, str) else v for v in row)


def _refuse_living(source: Database) -> None:
    """Raises UserError when a process may still hold and post on the source."""
    with source.read() as connection:
        now_ms = connection.now_ms()
        for epoch in running_epochs(connection):
            if epoch.ended:
                continue
            if not epoch.lease and now_ms - epoch.heartbeat_ms <= STALE_SECONDS * 1000:
                raise UserError(
                    f"a gateway still spends on {source.name}, on this machine or another: stop it, and try again after "
                    f"{STALE_SECONDS:.0f} seconds"
                )
            if epoch.lease and _is_locked(epoch.lease):
                raise UserError(f"a process still spends on {source.name} (its lease is {epoch.lease}): stop it first")


def _is_locked(lease: str) -> bool:
    path = Path(lease)
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        return not lock.try_acquire()
    finally:
        lock.close()


def _bury_owners(connection: Connection) -> None:
    """The processes that held on the source are gone: whoever starts first at the destination may book what they left."""
    connection.execute("UPDATE epochs SET lease = '', ended_ms = ? WHERE ended_ms IS NULL", (connection.now_ms(),))
    connection.execute("UPDATE epochs SET lease = ''")


def _counts(sums: dict[str, _Sum]) -> tuple[tuple[str, int], ...]:
    return tuple((name, found.rows) for name, found in sums.items() if found.rows)
