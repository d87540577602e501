"""A database that lives in memory and dies with the process: the governance of file-only mode, built anew at every start."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from playhouse.apsw_ext import APSWDatabase

from store.clock import Clock, SystemClock
from store.database import Connection, Database
from store.errors import StoreUnavailable
from store.migrations import Migration
from store.sqlite import SqliteConnection


class MemoryDatabase(Database):
    """SQLite in memory, behind one connection that its users take in turn. Reads may stand inside one another."""

    engine = "sqlite"

    def __init__(self, *, clock: Clock | None = None, migrations: Sequence[Migration] | None = None) -> None:
        super().__init__("the database in memory", read_only=False, migrations=migrations)
        engine = APSWDatabase(":memory:", pragmas=[("foreign_keys", 1)], thread_safe=False, autoconnect=False)
        engine.connect()
        self._connection: SqliteConnection | None = SqliteConnection(engine, Path(":memory:"), clock or SystemClock())
        self._turn = threading.RLock()
        self._depth = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, rolled back when the block raises. Raises RuntimeError inside another one of the same thread."""
        with self._turn:
            if self._depth:
                raise RuntimeError("a write transaction was asked for inside another transaction of the same thread")
            with self._transaction() as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Everything read inside is of one instant."""
        with self._turn, self._transaction() as connection:
            yield connection

    def write_batch(self) -> AbstractContextManager[Connection]:
        return self.write()

    def close(self) -> None:
        """Forgets everything. May be called twice."""
        with self._turn:
            if self._connection is not None:
                self._connection.peewee.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        connection = self._connection
        if connection is None:
            raise StoreUnavailable(f"{self.name} is closed")
        if self._depth == 0:
            connection.execute("BEGIN")
        self._depth += 1
        try:
            yield connection
        except BaseException:
            if self._depth == 1:
                connection.execute("ROLLBACK")
            raise
        else:
            if self._depth == 1:
                connection.execute("COMMIT")
        finally:
            self._depth -= 1
