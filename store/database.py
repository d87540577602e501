"""The database behind configuration, ledger and logs: what a transaction offers, whichever engine keeps the rows.

`store/sqlite.py` and `store/postgres.py` are the two engines. Statements are written once, in the subset both understand, with `?`
for each parameter; what must differ is a word of the connection (`listed`, `rowset`, `define`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import peewee

from store.errors import UserError
from store.migrations import Migration, discover, in_order

Row = tuple[Any, ...]
Engine = Literal["sqlite", "postgres"]
Synchronous = Literal["FULL", "NORMAL"]

WRITE_WAIT_SECONDS = 15.0
"""How long a write waits for other writers before it gives up with StoreUnavailable."""


class Connection(ABC):
    """What a transaction is worked with: plain SQL in, rows out. `peewee` is the same connection for peewee's queries."""

    engine: ClassVar[Engine]
    listed: ClassVar[str]
    """A sub-select that yields the texts of one parameter, a JSON list: `id IN ({connection.listed})`."""
    clock_sql: str = "NULL"
    """An expression for the database's time in milliseconds, to be asked for with other things; NULL: ask `now_ms()`."""
    peewee: peewee.Database

    @abstractmethod
    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """All rows of one statement. Raises StoreUnavailable, or peewee.IntegrityError when a constraint says no."""

    @abstractmethod
    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for every row of parameters. Raises as `execute`."""

    def insert(self, table: str, columns: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows with these columns (a comma-separated list) of these types (`text`, `bigint`). Raises as `execute`."""
        marks = ", ".join("?" * len(types))
        self.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

    @abstractmethod
    def rowset(self, *types: str) -> str:
        """A derived table of one parameter, a JSON list of lists: columns `c0`, `c1`, … of these types (`text`, `bigint`)."""

    @abstractmethod
    def now_ms(self) -> int:
        """The database's time."""

    @abstractmethod
    def has_table(self, name: str) -> bool:
        """Whether there is a table of this name."""

    def define(self, statement: str) -> None:
        """One statement of a schema step, written in SQLite's words (INTEGER has 64 bits)."""
        self.execute(statement)

    def open_batch(self, cap_ids: Iterable[str], queries: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """The first thing in a `write_batch`: keeps every other batch away from these caps until the commit, then runs queries.

        Where there is one writer at a time, nothing has to be kept away.
        """
        return [self.execute(sql, params) for sql, params in queries]

    def keep_order(self) -> None:  # noqa: B027
        """From here to the commit one transaction at a time, so that later sequences are never seen before earlier ones."""

    def pipelined(self) -> AbstractContextManager[object]:
        """The last statements of a transaction: they need not be answered one by one, and errors may come with the commit."""
        return nullcontext()

    def notify(self, revision: int) -> None:  # noqa: B027
        """Tells other processes of a new governance revision, when the transaction is committed; a poll is the fallback."""


class Database(ABC):
    """Where rows are kept. `write()` and `read()` may be used from any thread; `close()` ends it."""

    engine: ClassVar[Engine]
    steps_table = "schema_steps"

    def __init__(self, name: str, *, read_only: bool, migrations: Sequence[Migration] | None) -> None:
        self.name = name
        """What messages call it: a path, or a PostgreSQL database with its host."""
        self.read_only = read_only
        self._migrations = discover() if migrations is None else in_order(migrations)

    @abstractmethod
    def write(self) -> AbstractContextManager[Connection]:
        """One write transaction that has the database to itself; committed and synced at the end, rolled back if the block raises.

        Raises StoreUnavailable.
        """

    @abstractmethod
    def write_batch(self) -> AbstractContextManager[Connection]:
        """A write transaction of the ledger's batches, begun by `Connection.open_batch`: several may run at once on different
        caps, none beside a `write()`. Raises StoreUnavailable."""

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """One short read transaction: everything read in it is of one instant. Raises StoreUnavailable."""

    @abstractmethod
    def close(self) -> None:
        """Closes every connection. May be called twice."""

    def watch(self, changed: Callable[[], None]) -> None:  # noqa: B027
        """Calls `changed` from a thread when another process may have edited the configuration; not every engine can."""

    def watchers(self) -> int:
        """How many sessions of this and other processes `watch`: gateways that serve from here; 0 where that cannot be told."""
        return 0

    def scrub(self) -> bool:
        """Rewrites what is kept, so that nothing overwritten or deleted can be read in it any more; no transaction may be open.

        False when somebody reads just now and it must be tried again later. Raises StoreUnavailable.
        """
        return True

    def tend(self, *, busy: bool) -> None:  # noqa: B027
        """What the ledger's writer does for the database between two batches. Raises StoreUnavailable."""

    def migrate(self) -> tuple[str, ...]:
        """Brings the schema up to date and returns the names of the steps taken. Raises UserError for a newer schema."""
        with self.read() as connection:
            if not self._pending(connection):
                return ()
        if self.read_only:
            raise UserError(f"{self.name} has an older schema; start the gateway once to bring it up to date")
        taken = []
        with self.write() as connection:
            connection.define(
                f"CREATE TABLE IF NOT EXISTS {self.steps_table} "
                "(number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, at_ms INTEGER NOT NULL)"
            )
            for step in self._pending(connection):
                step.up(connection)
                connection.execute(
                    f"INSERT INTO {self.steps_table} (number, name, at_ms) VALUES (?, ?, ?)",
                    (step.number, step.name, connection.now_ms()),
                )
                taken.append(step.name)
        return tuple(taken)

    def _pending(self, connection: Connection) -> tuple[Migration, ...]:
        known = {step.number for step in self._migrations}
        rows = connection.execute(f"SELECT number FROM {self.steps_table}") if connection.has_table(self.steps_table) else []
        applied = {row[0] for row in rows}
        newer = applied - known
        if newer:
            raise UserError(
                f"{self.name} has schema step {max(newer)}, this version knows steps up to {max(known, default=0)}: "
                "run the newer version of Tollgate that wrote it"
            )
        return tuple(step for step in self._migrations if step.number not in applied)


def governance_revision(connection: Connection) -> int:
    """The number of edits of configuration and caps so far; a snapshot made at an older one is stale."""
    rows = connection.execute("SELECT value FROM meta WHERE key = 'revision'")
    return int(rows[0][0]) if rows else 0


EVERYTHING = "all"
"""The kind of an edit that does not say what it changed."""
CHANGES_KEPT = 10_000
"""Revisions that the table `changes` remembers: whoever is further behind reads everything."""


def bump_revision(connection: Connection, kind: str = EVERYTHING, entity_id: str = "") -> int:
    """Counts one edit, in the transaction that makes it, and returns the new revision.

    `kind` and `entity_id` say what was changed, so that a process that has the governance in memory reads only that: a scope of the
    ledger with its id, or a kind of the configuration (`virtual_key`, `team`, `customer`, `provider`, …).
    """
    revision = governance_revision(connection) + 1
    connection.execute("INSERT INTO changes (revision, kind, entity_id) VALUES (?, ?, ?)", (revision, kind, entity_id))
    connection.execute("DELETE FROM changes WHERE revision <= ?", (revision - CHANGES_KEPT,))
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('revision', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (revision,)
    )
    connection.notify(revision)
    return revision
