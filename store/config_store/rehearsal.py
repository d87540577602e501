"""Changes of many things tried on a copy in memory first: the real store is locked only to write the rows that came out different.

What the rehearsal shows is what is written, row by row, provided that nobody has edited the real store meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from store import models_governance as tables
from store.config_store.store import ConfigStore
from store.database import Connection, Row
from store.ledger.caps import delete_cap, load_caps, put_cap
from store.ledger.rows import CAP_COLUMNS
from store.ledger.types import Cap
from store.memory import MemoryDatabase


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows are compared. `unique` are columns in which two rows may trade places."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    unique: tuple[str, ...] = ()


def _table(model: Any, *unique: str) -> Table:
    meta = model._meta
    key = meta.primary_key
    names = tuple(meta.fields[name].column_name for name in getattr(key, "field_names", ())) or (key.column_name,)
    return Table(meta.table_name, tuple(column.column_name for column in meta.sorted_fields), names, unique)


TABLES = (
    _table(tables.ProviderRow),
    _table(tables.ProviderKeyRow, "name"),
    _table(tables.CustomerRow, "name"),
    _table(tables.TeamRow, "name"),
    _table(tables.VirtualKeyRow, "name", "value_hash"),
    _table(tables.ProviderConfigRow),
    _table(tables.RunCredentialRow),
    _table(tables.ModelConfigRow, "model_name"),
    _table(tables.RoutingRuleRow, "name"),
    _table(tables.PricingOverrideRow),
    _table(tables.PromptRow, "name"),
    _table(tables.PromptVersionRow),
)
"""In the order in which rows can be made."""
_READ_ONLY = (_table(tables.ConfigMetaRow),)
_NEVER_COMPARED = frozenset({"updated_ms"})

Rows = dict[tuple[object, ...], Row]
Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What has become of one table: rows to write, rows that are gone (by key)."""

    table: Table
    written: tuple[Row, ...]
    replaced: tuple[Row | None, ...]
    """For each row that is written the one before it; None for a new one."""
    gone: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that came out different."""

    tables: tuple[Difference, ...]
    caps: tuple[Cap, ...]
    """To be made or changed."""
    buried: tuple[str, ...]
    """Ids of caps to be deleted."""
    caps_before: Mapping[str, Cap]
    caps_after: Mapping[str, Cap]

    @property
    def is_empty(self) -> bool:
        """True when nothing is to be written."""
        return not (self.caps or self.buried or any(one.written or one.gone for one in self.tables))

    def rows(self, table: str) -> tuple[Row, ...]:
        """The rows of a table that are written."""
        return next(one.written for one in self.tables if one.table.name == table)


class Stage:
    """A store in memory with everything in it; change it as any other, then ask for the outcome."""

    def __init__(self, store: ConfigStore, connection: Connection) -> None:
        """Copies what the connection sees. Close it when done."""
        self._memory = MemoryDatabase(clock=store.clock)
        self._memory.migrate()
        self._before = {table.name: _rows(connection, table) for table in TABLES}
        self._caps_before = {cap.id: cap for cap in load_caps(connection)}
        caps = connection.execute(f"SELECT {CAP_COLUMNS} FROM caps")
        with self._memory.write() as inside:
            for table in (*_READ_ONLY, *TABLES):
                rows = self._before.get(table.name) or _rows(connection, table)
                inside.executemany(_insert(table.name, table.columns, " ON CONFLICT DO NOTHING"), list(rows.values()))
            inside.executemany(_insert("caps", CAP_COLUMNS.split(", ")), caps)
        self.store = replace(
            ConfigStore(self._memory, store.clock, store.ids, store.vault, store.builtin, store.entropy),
            actor=store.actor,
            reach=store.reach,
        )
        """For changes of all kinds, by whoever acts: what that person may not name is refused here."""

    def outcome(self) -> Outcome:
        """What is different now."""
        with self._memory.read() as connection:
            after = {table.name: _rows(connection, table) for table in TABLES}
            caps = {cap.id: cap for cap in load_caps(connection)}
        before = self._caps_before
        return Outcome(
            tables=tuple(_difference(table, self._before[table.name], after[table.name]) for table in TABLES),
            caps=tuple(cap for cap in caps.values() if before.get(cap.id) != cap),
            buried=tuple(cap_id for cap_id in before if cap_id not in caps),
            caps_before=before,
            caps_after=caps,
        )

    def close(self) -> None:
        """Forgets the copy."""
        self._memory.close()


@contextmanager
def staged(store: ConfigStore, connection: Connection) -> Iterator[Stage]:
    """A stage for the length of a block."""
    stage = Stage(store, connection)
    try:
        yield stage
    finally:
        stage.close()


def perform(connection: Connection, outcome: Outcome, *, reason: str) -> None:
    """Writes what the rehearsal found, inside a transaction of the real store. What was spent stays where it is."""
    for difference in outcome.tables:
        _clear_the_way(connection, difference)
    for difference in outcome.tables:
        _write(connection, difference)
    for cap_id in outcome.buried:
        delete_cap(connection, cap_id, reason=reason)
    for difference in reversed(outcome.tables):
        table = difference.table
        where = " AND ".join(f"{column} = ?" for column in table.key)
        connection.executemany(f"DELETE FROM {table.name} WHERE {where}", list(difference.gone))
    for cap in outcome.caps:
        # The age of a cap that is new to the living is the ledger's to say.
        put_cap(connection, cap if cap.id in outcome.caps_before else replace(cap, created_ms=0), reason=reason)


def _clear_the_way(connection: Connection, difference: Difference) -> None:
    """Names that two rows trade, or that a deleted row leaves to another, are free while the rows are written."""
    table = difference.table
    if not table.unique:
        return
    keys = [*difference.gone, *(_key(table, row) for row in difference.written)]
    where = " AND ".join(f"{column} = ?" for column in table.key)
    places = ", ".join(f"{column} = ?" for column in table.unique)
    away = [(*(f"making way: {'/'.join(map(str, key))}" for _ in table.unique), *key) for key in keys]
    connection.executemany(f"UPDATE {table.name} SET {places} WHERE {where}", away)


def _write(connection: Connection, difference: Difference) -> None:
    table = difference.table
    changes = ", ".join(f"{column} = excluded.{column}" for column in table.columns if column not in table.key)
    then = f" ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {changes}"
    connection.executemany(_insert(table.name, table.columns, then), list(difference.written))


def _insert(table: str, columns: Sequence[str], then: str = "") -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}){then}"


def _rows(connection: Connection, table: Table) -> Rows:
    found = connection.execute(f"SELECT {', '.join(table.columns)} FROM {table.name}")
    places = [table.columns.index(column) for column in table.key]
    return {tuple(row[place] for place in places): row for row in found}


def _key(table: Table, row: Row) -> Key:
    return tuple(row[table.columns.index(column)] for column in table.key)


def _difference(table: Table, before: Rows, after: Rows) -> Difference:
    told = [place for place, column in enumerate(table.columns) if column not in _NEVER_COMPARED]
    written = [
        (row, before.get(key)) for key, row in after.items()
        if (old := before.get(key)) is None or any(old[place] != row[place] for place in told)
    ]  # fmt: skip
    return Difference(
        table,
        tuple(row for row, _ in written),
        tuple(old for _, old in written),
        tuple(key for key in before if key not in after),
    )
