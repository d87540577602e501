"""SQLite through APSW: one writer at a time under a file lock, synced commits, a bounded write-ahead log."""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import peewee
from playhouse.apsw_ext import APSWDatabase

from store.clock import Clock, SystemClock
from store.database import WRITE_WAIT_SECONDS, Connection, Database, Row, Synchronous
from store.errors import StoreUnavailable, UserError
from store.filelock import FairLock, FileLock
from store.filesystem import network_type
from store.migrations import Migration

log = logging.getLogger(__name__)

FOREIGN_WAIT_SECONDS = 5.0
"""How long SQLite waits for a program that ignores the file lock, such as the sqlite3 shell."""
CHECKPOINT_PAGES = 1_000
"""A write-ahead log of this many pages is copied back at the next good moment."""
BUSY_CHECKPOINT_PAGES = 8 * CHECKPOINT_PAGES
"""A busy writer lets it grow to here before it makes callers wait for a checkpoint."""
WAL_PAGES_MAX = 16_000
"""From this size on (64 MB) it is copied back before the writer goes on, and complained about."""
READERS_KEPT = 8

_UNAVAILABLE = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.ReadOnlyError,
    apsw.IOError,
    apsw.FullError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ProtocolError,
    apsw.NoMemError,
    apsw.PermissionsError,
    apsw.AuthError,
    apsw.InterruptError,
    apsw.ConnectionClosedError,
)
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (apsw.FullError, "the disk is full"),
    (apsw.ReadOnlyError, "it is read-only"),
    (apsw.BusyError, "another program keeps it locked"),
    (apsw.LockedError, "another program keeps it locked"),
    (apsw.CorruptError, "the file is damaged"),
    (apsw.NotADBError, "the file is not a database"),
    (apsw.CantOpenError, "the file cannot be opened"),
)


class SqliteConnection(Connection):
    """One connection to one file."""

    engine = "sqlite"
    listed = "SELECT value FROM json_each(?)"

    def __init__(self, engine: APSWDatabase, path: Path, clock: Clock) -> None:
        self.peewee = engine
        self._raw: apsw.Connection = engine.connection()
        self._path = path
        self._clock = clock

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """All rows of one statement. Raises StoreUnavailable, or peewee.IntegrityError when a constraint says no."""
        try:
            return self._raw.execute(sql, params).fetchall()
        except apsw.Error as error:
            raise _translated(error, self._path) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for every row of parameters. Raises as `execute`."""
        try:
            self._raw.executemany(sql, rows)
        except apsw.Error as error:
            raise _translated(error, self._path) from error

    def rowset(self, *types: str) -> str:
        columns = ", ".join(f"value ->> {index} AS c{index}" for index in range(len(types)))
        return f"(SELECT {columns} FROM json_each(?))"

    def now_ms(self) -> int:
        """The time of the clock the database was opened with."""
        return self._clock.now_ms()

    def has_table(self, name: str) -> bool:
        return bool(self.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,)))

    @property
    def raw(self) -> apsw.Connection:
        """The driver's own connection, for this module and tests."""
        return self._raw


class SqliteDatabase(Database):
    """One database file. `write()` and `read()` may be used from any thread; `close()` ends it."""

    engine = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        clock: Clock,
        migrations: Sequence[Migration] | None,
        synchronous: Synchronous,
        foreign_wait_seconds: float,
    ) -> None:
        super().__init__(str(path), read_only=read_only, migrations=migrations)
        self.path = path
        self.wal_pages = 0
        self._clock = clock
        self._synchronous = synchronous
        self._foreign_wait_seconds = foreign_wait_seconds
        self._turn = FairLock()
        self._turn_owner: int | None = None
        self._file_lock: FileLock | None = None
        self._writer: SqliteConnection | None = None
        self._readers: list[SqliteConnection] = []
        self._readers_mutex = threading.Lock()
        self._closed = False
        self._complained_at = -60.0

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        read_only: bool = False,
        clock: Clock | None = None,
        migrations: Sequence[Migration] | None = None,
        synchronous: Synchronous = "FULL",
        foreign_wait_seconds: float = FOREIGN_WAIT_SECONDS,
    ) -> "SqliteDatabase":
        """Opens the file and makes it when it is missing; call `migrate()` before use.

        `migrations` replaces the steps of configuration and ledger for another kind of file. Raises UserError when the path
        cannot serve: a network file system, no permission, a directory, something that is no database.
        """
        path = Path(path)
        kind = network_type(path.parent)
        if kind is not None:
            raise UserError(
                f"{path.parent} is on a network file system ({kind}), where SQLite cannot keep budgets exact: "
                "move the directory to a local disk, or use PostgreSQL"
            )
        database = cls(
            path,
            read_only=read_only,
            clock=clock or SystemClock(),
            migrations=migrations,
            synchronous=synchronous,
            foreign_wait_seconds=foreign_wait_seconds,
        )
        database._open()
        return database

    @contextmanager
    def write(self, *, wait_seconds: float | None = WRITE_WAIT_SECONDS, checkpoint: bool = True) -> Iterator[Connection]:
        """One write transaction under the file lock; committed and synced at the end, rolled back when the block raises.

        `wait_seconds=None` waits for the lock without end and at the lowest latency. With `checkpoint=False` the caller
        promises to call `checkpoint()` itself now and then. Raises StoreUnavailable.
        """
        with self._locked(wait_seconds) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                with _peewee_errors(self.path):
                    yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After some failures (a full disk, an I/O error) SQLite has rolled back by itself.
                with suppress(StoreUnavailable, apsw.Error):
                    if not connection.raw.getautocommit():
                        connection.execute("ROLLBACK")
                raise
            if checkpoint and self.wal_pages >= CHECKPOINT_PAGES:
                self._checkpoint(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One short read transaction: everything read in it is of one instant. Raises StoreUnavailable."""
        connection = self._take_reader()
        try:
            connection.execute("BEGIN")
            try:
                with _peewee_errors(self.path):
                    yield connection
            finally:
                with suppress(StoreUnavailable, apsw.Error):
                    if not connection.raw.getautocommit():
                        connection.execute("COMMIT")
        finally:
            self._give_back(connection)

    def write_batch(self) -> AbstractContextManager[Connection]:
        return self.write(wait_seconds=None, checkpoint=False)

    def tend(self, *, busy: bool) -> None:
        self.checkpoint(BUSY_CHECKPOINT_PAGES if busy else CHECKPOINT_PAGES, wait_seconds=1.0)

    def checkpoint(self, min_pages: int = CHECKPOINT_PAGES, *, wait_seconds: float | None = WRITE_WAIT_SECONDS) -> bool:
        """Copies the write-ahead log back when it has at least `min_pages`; True when it did. Raises StoreUnavailable."""
        if self.wal_pages < min_pages:
            return False
        with self._locked(wait_seconds) as connection:
            self._checkpoint(connection)
        return True

    def scrub(self) -> bool:
        with self._locked(WRITE_WAIT_SECONDS) as connection:
            connection.execute("VACUUM")  # free pages and the unused parts of others are left behind
            try:
                connection.raw.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
            except apsw.Error as error:
                raise _translated(error, self.path) from error
            self.wal_pages = 0
        return True

    def close(self) -> None:
        """Closes every connection; the last one to leave copies the write-ahead log back. May be called twice."""
        if self._closed:
            return
        self._closed = True
        with self._readers_mutex:
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.peewee.close()
        got_turn = self._turn.acquire(FOREIGN_WAIT_SECONDS)
        got_file = got_turn and self._file_lock is not None and self._file_lock.acquire(FOREIGN_WAIT_SECONDS)
        if self._writer is not None:
            if not got_file:
                self._writer.raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._writer.peewee.close()
            self._writer = None
        if self._file_lock is not None:
            self._file_lock.close()
        if got_turn:
            self._turn.release()

    # ---- inside

    def _open(self) -> None:
        if self.read_only:
            if not self.path.is_file():
                raise UserError(f"there is no database at {self.path}")
            try:
                self._give_back(self._connect(reader=True))
            except (apsw.Error, peewee.PeeweeException, StoreUnavailable) as error:
                raise UserError(f"cannot open the database {self.path}: {_reason(error)}") from None
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._file_lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        except OSError as error:
            raise UserError(f"cannot open the database {self.path}: {error.strerror}") from None
        if not self._file_lock.acquire(WRITE_WAIT_SECONDS):
            self._file_lock.close()
            raise UserError(f"{self.path} stays locked by another process; stop it, or try again")
        try:
            self._writer = self._connect(reader=False)
        except (apsw.Error, peewee.PeeweeException, StoreUnavailable) as error:
            self._file_lock.close()
            raise UserError(f"cannot open the database {self.path}: {_reason(error)}") from None
        self._file_lock.release()

    def _connect(self, *, reader: bool) -> SqliteConnection:
        pragmas: list[tuple[str, object]] = [
            ("busy_timeout", int(self._foreign_wait_seconds * 1000)),
            ("mmap_size", 0),
            ("foreign_keys", 1),
        ]
        if reader:
            pragmas.append(("query_only", 1))
        else:
            pragmas += [
                ("journal_mode", "wal"),
                ("synchronous", self._synchronous),
                ("fullfsync", 1),
                ("checkpoint_fullfsync", 1),
                ("wal_autocheckpoint", 0),
                ("journal_size_limit", WAL_PAGES_MAX * 4096),
                ("cache_size", -16_384),
            ]
        options: dict[str, object] = {"pragmas": pragmas, "thread_safe": False, "autoconnect": False}
        if self.read_only:
            options["flags"] = apsw.SQLITE_OPEN_READONLY
        engine = APSWDatabase(str(self.path), **options)
        engine.connect()
        connection = SqliteConnection(engine, self.path, self._clock)
        if reader:
            # A reader that leaves last must not copy the log back: it does not hold the file lock.
            connection.raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        else:
            connection.raw.set_wal_hook(self._note_wal_pages)
        connection.execute("SELECT count(*) FROM sqlite_schema")  # a file that is no database says so here
        return connection

    def _note_wal_pages(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    @contextmanager
    def _locked(self, wait_seconds: float | None) -> Iterator[SqliteConnection]:
        writer = self._writer
        if self.read_only:
            raise StoreUnavailable(f"{self.path} was opened for reading only")
        if self._closed or writer is None or self._file_lock is None:
            raise StoreUnavailable(f"the database {self.path} is closed")
        me = threading.get_ident()
        if self._turn_owner == me:
            raise RuntimeError("a write transaction was asked for inside another one of the same thread")
        started = time.monotonic()
        if not self._turn.acquire(wait_seconds):
            raise StoreUnavailable(f"the database {self.path} stays locked by another part of this process")
        try:
            self._turn_owner = me
            if self._closed:
                raise StoreUnavailable(f"the database {self.path} is closed")
            left = None if wait_seconds is None else max(0.0, wait_seconds - (time.monotonic() - started))
            if not self._file_lock.acquire(left):
                raise StoreUnavailable(f"the database {self.path} stays locked by another process")
            try:
                yield writer
            finally:
                self._file_lock.release()
        finally:
            self._turn_owner = None
            self._turn.release()

    def _checkpoint(self, connection: SqliteConnection) -> None:
        try:
            log_pages, copied = connection.raw.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            log.warning("the write-ahead log of %s could not be copied back: %s", self.path.name, error)
            return
        self.wal_pages = 0 if copied >= log_pages else log_pages
        if self.wal_pages > WAL_PAGES_MAX and time.monotonic() - self._complained_at > 60:
            self._complained_at = time.monotonic()
            log.warning("the write-ahead log of %s has %d pages; a long read keeps it from shrinking", self.path.name, log_pages)

    def _take_reader(self) -> SqliteConnection:
        if self._closed:
            raise StoreUnavailable(f"the database {self.path} is closed")
        with self._readers_mutex:
            if self._readers:
                return self._readers.pop()
        try:
            return self._connect(reader=True)
        except (apsw.Error, peewee.PeeweeException) as error:
            raise StoreUnavailable(f"the database {self.path} cannot be read: {_reason(error)}") from error

    def _give_back(self, connection: SqliteConnection) -> None:
        with self._readers_mutex:
            if not self._closed and len(self._readers) < READERS_KEPT:
                self._readers.append(connection)
                return
        connection.peewee.close()


def _translated(error: apsw.Error, path: Path) -> Exception:
    if isinstance(error, apsw.ConstraintError):
        return peewee.IntegrityError(str(error))
    if isinstance(error, _UNAVAILABLE):
        return StoreUnavailable(f"the database {path} cannot be used: {_reason(error)}")
    return error


def _reason(error: BaseException) -> str:
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words
    cause = error.__cause__
    if isinstance(cause, apsw.Error):
        return _reason(cause)
    return str(error) or type(error).__name__


@contextmanager
def _peewee_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (peewee.OperationalError, peewee.DatabaseError) as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, _UNAVAILABLE):
            raise StoreUnavailable(f"the database {path} cannot be used: {_reason(cause)}") from error
        raise
