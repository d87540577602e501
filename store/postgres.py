"""PostgreSQL through psycopg 3: the same promises as SQLite for several machines, with row locks in place of a file lock.

Edits of configuration and caps have the database to themselves (an exclusive advisory lock); the ledger's batches share that
lock and keep apart by locking the caps they touch, in the order of their ids.
"""

import logging
import re
import select
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson
import peewee
import psycopg
from playhouse.postgres_ext import Psycopg3Database
from psycopg import errors, pq
from psycopg.adapt import Dumper, Loader
from psycopg.types.numeric import Int8Dumper

from store.clock import Clock
from store.database import WRITE_WAIT_SECONDS, Connection, Database, Row, Synchronous
from store.errors import StoreUnavailable, UserError
from store.migrations import Migration

log = logging.getLogger(__name__)

Purpose = Literal["config", "logs"]

OLDEST_SERVER = 130_000
CONNECT_SECONDS = 3
"""How long one try to reach the server may take."""
IDLE_IN_TRANSACTION_SECONDS = 2
"""A batch whose process was suspended gives its locks back after this time: the server ends its session."""
BATCH_LOCK_SECONDS = 5
LISTEN_PAUSE_SECONDS = 1.0

_LOCK_KEYS: dict[Purpose, int] = {"config": 0x746F6C6C_0001, "logs": 0x746F6C6C_0002}
_ORDER_KEY = 0x746F6C6C_0010
_LISTED = "SELECT value FROM json_array_elements_text(?::json) AS listed (value)"
_SERVER_TIME = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_LOCK_CAPS = f"SELECT 1 FROM caps WHERE id IN ({_LISTED}) ORDER BY id FOR NO KEY UPDATE"
_COMMON_OPTIONS = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "jit": "off",
    "default_transaction_isolation": "read\\ committed",
}
_BATCH_OPTIONS = {
    # The statements of a batch touch a few rows by their keys, whatever the statistics say of tables that were empty a while ago.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    "lock_timeout": f"{BATCH_LOCK_SECONDS}s",
}
_OTHER_OPTIONS = {"idle_in_transaction_session_timeout": "30s", "lock_timeout": f"{round(WRITE_WAIT_SECONDS)}s"}

_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.InFailedSqlTransaction,
    errors.InsufficientPrivilege,
)


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """Where a PostgreSQL database is and how it is reached. A host that begins with `/` is the directory of a Unix socket."""

    host: str
    port: int
    user: str
    db_name: str
    password: Callable[[], str | None] | None = None
    """Asked at each connect. Raises UserError when there is none to be had."""
    ssl_mode: str = "prefer"
    max_open: int = 50
    max_idle: int = 5
    application_name: str = "tollgate"

    @property
    def label(self) -> str:
        """What messages call it; no secrets."""
        return f"the PostgreSQL database {self.db_name} on {self.host}:{self.port}"


class PostgresConnection(Connection):
    """One session."""

    engine = "postgres"
    listed = _LISTED

    def __init__(self, engine: Psycopg3Database, label: str, clock: Clock | None, channel: str, lock_key: int) -> None:
        self.peewee = engine
        self.raw: psycopg.Connection[Row] = engine.connection()
        self._label = label
        self._clock = clock
        self._channel = channel
        self._shared_lock = f"SELECT pg_advisory_xact_lock_shared({lock_key})"
        self._pipeline: AbstractContextManager[object] | None = None
        if clock is None:
            self.clock_sql = _SERVER_TIME

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        try:
            cursor = psycopg.RawCursor(self.raw)
            cursor.execute(_translated(sql), _bound(params) if params else None, prepare=bool(params))
            return [] if self._pipeline is not None or cursor.description is None else cursor.fetchall()
        except psycopg.Error as error:
            raise _raised(error, self._label) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        try:
            psycopg.RawCursor(self.raw).executemany(_translated(sql), [_bound(row) for row in rows])
        except psycopg.Error as error:
            raise _raised(error, self._label) from error

    def insert(self, table: str, columns: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        arrays = ", ".join(f"?::{kind}[]" for kind in types)
        literals = [
            _text_array(column) if kind == "text" else _number_array(column)
            for kind, column in zip(types, zip(*rows, strict=True), strict=True)
        ]
        self.execute(f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays})", literals)

    def rowset(self, *types: str) -> str:
        columns = ", ".join(
            f"(e ->> {index}){'' if kind == 'text' else '::' + kind} AS c{index}" for index, kind in enumerate(types)
        )
        return f"(SELECT {columns} FROM json_array_elements(?::json) AS elements (e))"

    def now_ms(self) -> int:
        """The server's time, unless the database was opened with a clock."""
        if self._clock is not None:
            return self._clock.now_ms()
        return int(self.execute(f"SELECT {_SERVER_TIME}")[0][0])

    def has_table(self, name: str) -> bool:
        return bool(self.execute("SELECT 1 WHERE to_regclass(?) IS NOT NULL", (name,)))

    def define(self, statement: str) -> None:
        self.execute(_defined(statement))

    def open_batch(self, cap_ids: Iterable[str], queries: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        # One message to the server. Each statement sees what was committed before it began: the queries see what the locks waited for.
        cursors = []
        try:
            with self.raw.pipeline():
                self.raw.execute("BEGIN")
                self.raw.execute(self._shared_lock, prepare=True)
                wanted = sorted(set(cap_ids))
                if wanted:
                    lock = psycopg.RawCursor(self.raw)
                    lock.execute(_translated(_LOCK_CAPS), [orjson.dumps(wanted).decode()], prepare=True)
                for sql, params in queries:
                    cursor = psycopg.RawCursor(self.raw)
                    cursor.execute(_translated(sql), _bound(params), prepare=True)
                    cursors.append(cursor)
            return [cursor.fetchall() for cursor in cursors]
        except psycopg.Error as error:
            raise _raised(error, self._label) from error

    def keep_order(self) -> None:
        # Sequences are handed out under this lock and it is given back after the commit: who reads up to a sequence misses nothing.
        self.execute(f"SELECT pg_advisory_xact_lock({_ORDER_KEY})")

    @contextmanager
    def pipelined(self) -> Iterator[None]:
        # Left open: the commit goes with it.
        if self._pipeline is None:
            pipeline = self.raw.pipeline()
            pipeline.__enter__()
            self._pipeline = pipeline
        yield

    def commit(self) -> None:
        """Commits, with what was pipelined before. Raises as `execute`."""
        try:
            self.raw.execute("COMMIT")
            self.end_pipeline()
        except psycopg.Error as error:
            raise _raised(error, self._label) from error

    def end_pipeline(self) -> None:
        """Waits for the answers to what was pipelined. Raises psycopg.Error."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.__exit__(None, None, None)

    @property
    def looks_alive(self) -> bool:
        """False when the server has closed the session: an idle session has nothing to read but that."""
        return not self.raw.closed and not select.select([self.raw.pgconn.socket], [], [], 0)[0]

    def notify(self, revision: int) -> None:
        self.execute("SELECT pg_notify(?, ?)", (self._channel, str(revision)))


class PostgresDatabase(Database):
    """One database on a server, with a bounded pool of sessions."""

    engine = "postgres"

    def __init__(
        self,
        address: PostgresAddress,
        *,
        purpose: Purpose,
        clock: Clock | None,
        migrations: Sequence[Migration] | None,
        synchronous: Synchronous,
        read_only: bool,
    ) -> None:
        super().__init__(address.label, read_only=read_only, migrations=migrations)
        self.address = address
        self.steps_table = f"{purpose}_schema_steps"
        self.server_version = 0
        self._lock_key = _LOCK_KEYS[purpose]
        self._channel = f"tollgate_{purpose}"
        self._clock = clock
        self._synchronous = synchronous
        self._slots = threading.BoundedSemaphore(address.max_open)
        self._mutex = threading.Lock()
        self._idle: dict[bool, list[PostgresConnection]] = {False: [], True: []}
        self._writing = threading.local()
        self._closed = threading.Event()

    @classmethod
    def open(
        cls,
        address: PostgresAddress,
        *,
        purpose: Purpose,
        clock: Clock | None = None,
        migrations: Sequence[Migration] | None = None,
        synchronous: Synchronous = "FULL",
        read_only: bool = False,
        allow_unsynced: bool = False,
    ) -> "PostgresDatabase":
        """Connects once and checks that the server can keep what is promised; call `migrate()` before use.

        Time is the server's unless a `clock` is given (tests). `allow_unsynced` accepts a server with `fsync = off` (tests).
        Raises UserError, one sentence, when it cannot be reached or cannot serve.
        """
        database = cls(address, purpose=purpose, clock=clock, migrations=migrations, synchronous=synchronous, read_only=read_only)
        try:
            with database.read() as connection:
                version, encoding, fsync = connection.execute(
                    "SELECT current_setting('server_version_num')::bigint, current_setting('server_encoding'), "
                    "current_setting('fsync')"
                )[0]
        except StoreUnavailable as error:
            database.close()
            raise UserError(str(error)) from None
        database.server_version = version
        problem = None
        if version < OLDEST_SERVER:
            problem = f"has version {version // 10_000}; use PostgreSQL {OLDEST_SERVER // 10_000} or newer"
        elif encoding != "UTF8":
            problem = f"has the encoding {encoding}; make one with ENCODING 'UTF8'"
        elif fsync != "on" and not allow_unsynced:
            problem = "runs with fsync = off and forgets spending at a power failure; set fsync = on"
        if problem is not None:
            database.close()
            raise UserError(f"{address.label} {problem}")
        return database

    @contextmanager
    def write(self, *, wait_seconds: float | None = WRITE_WAIT_SECONDS, checkpoint: bool = True) -> Iterator[Connection]:
        if self.read_only:
            raise StoreUnavailable(f"{self.name} was opened for reading only")
        if getattr(self._writing, "busy", False):
            raise RuntimeError("a write transaction was asked for inside another one of the same thread")
        self._writing.busy = True
        try:
            with self._session("BEGIN", batch=False) as connection:
                connection.execute(f"SELECT pg_advisory_xact_lock({self._lock_key})")
                yield connection
        finally:
            self._writing.busy = False

    @contextmanager
    def write_batch(self) -> Iterator[Connection]:
        if self.read_only:
            raise StoreUnavailable(f"{self.name} was opened for reading only")
        with self._session("", batch=True) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._session("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", batch=False) as connection:
            yield connection

    def close(self) -> None:
        self._closed.set()
        with self._mutex:
            idle = [*self._idle[False], *self._idle[True]]
            self._idle = {False: [], True: []}
        for connection in idle:
            connection.peewee.close()

    def watch(self, changed: Callable[[], None]) -> None:
        """Calls `changed` from a thread whenever another process says that the governance has changed, until `close`."""
        threading.Thread(target=self._listen, args=(changed,), name="revision-watch", daemon=True).start()

    # ---- inside

    def _listen(self, changed: Callable[[], None]) -> None:
        while not self._closed.is_set():
            try:
                connection = self._connect(batch=False)
            except (StoreUnavailable, UserError):
                self._closed.wait(LISTEN_PAUSE_SECONDS)
                continue
            try:
                connection.execute(f"LISTEN {self._channel}")
                changed()
                while not self._closed.is_set():
                    for _ in connection.raw.notifies(timeout=1.0, stop_after=1):
                        changed()
            except (StoreUnavailable, psycopg.Error):
                self._closed.wait(LISTEN_PAUSE_SECONDS)
            finally:
                with suppress(Exception):
                    connection.peewee.close()

    @contextmanager
    def _session(self, begin: str, *, batch: bool) -> Iterator[PostgresConnection]:
        connection = self._begun(begin, batch=batch)
        try:
            try:
                yield connection
                connection.commit()
            except BaseException as error:
                with suppress(psycopg.Error, StoreUnavailable):
                    connection.end_pipeline()
                with suppress(psycopg.Error, StoreUnavailable):
                    if connection.raw.info.transaction_status != pq.TransactionStatus.IDLE:
                        connection.execute("ROLLBACK")
                cause = error.__cause__
                if isinstance(error, psycopg.Error | peewee.DatabaseError) and isinstance(cause or error, _UNAVAILABLE):
                    raise _raised(cause or error, self.name) from error
                raise
        finally:
            self._give_back(connection, batch=batch)

    def _begun(self, begin: str, *, batch: bool) -> PostgresConnection:
        """A session with its transaction begun; a session that a restarted server has forgotten is replaced once."""
        if self._closed.is_set():
            raise StoreUnavailable(f"{self.name} is closed")
        if not self._slots.acquire(timeout=WRITE_WAIT_SECONDS):
            raise StoreUnavailable(f"{self.name}: all {self.address.max_open} connections are in use (max_open_conns)")
        try:
            while True:
                with self._mutex:
                    connection = self._idle[batch].pop() if self._idle[batch] else None
                fresh = connection is None
                if connection is None:
                    connection = self._connect(batch=batch)
                try:
                    if not fresh and not connection.looks_alive:
                        connection.peewee.close()
                        continue
                    if begin:
                        connection.execute(begin)
                    return connection
                except StoreUnavailable:
                    lost = connection.raw.closed
                    with suppress(Exception):
                        connection.peewee.close()
                    if fresh or not lost:
                        raise
        except BaseException:
            self._slots.release()
            raise

    def _give_back(self, connection: PostgresConnection, *, batch: bool) -> None:
        try:
            usable = not connection.raw.closed and connection.raw.info.transaction_status == pq.TransactionStatus.IDLE
            with self._mutex:
                if usable and not self._closed.is_set() and len(self._idle[batch]) < max(1, self.address.max_idle):
                    self._idle[batch].append(connection)
                    return
            with suppress(Exception):
                connection.peewee.close()
        finally:
            self._slots.release()

    def _connect(self, *, batch: bool) -> PostgresConnection:
        address = self.address
        options = {
            **_COMMON_OPTIONS,
            **(_BATCH_OPTIONS if batch else _OTHER_OPTIONS),
            "synchronous_commit": "on" if self._synchronous == "FULL" else "off",
        }
        if self.read_only:
            options["default_transaction_read_only"] = "on"
        password = address.password() if address.password is not None else None
        engine = Psycopg3Database(
            address.db_name,
            host=address.host,
            port=address.port,
            user=address.user,
            sslmode=address.ssl_mode,
            connect_timeout=CONNECT_SECONDS,
            thread_safe=False,
            application_name=address.application_name,
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=5_000,
            options=" ".join(f"-c {name}={value}" for name, value in options.items()),
            **({} if password is None else {"password": password}),
        )
        try:
            engine.connect()
        except (peewee.PeeweeException, psycopg.Error) as error:
            raise StoreUnavailable(f"{address.label} cannot be reached: {_reason(error)}") from None
        connection = PostgresConnection(engine, address.label, self._clock, self._channel, self._lock_key)
        connection.raw.adapters.register_dumper(int, Int8Dumper)
        connection.raw.adapters.register_dumper(bool, _BoolDumper)
        connection.raw.adapters.register_loader("numeric", _NumericLoader)
        return connection


class _BoolDumper(Dumper):
    """Truth values are kept as integers, as in SQLite."""

    oid = psycopg.adapters.types["int8"].oid

    def dump(self, obj: bool) -> bytes:
        return b"1" if obj else b"0"


class _NumericLoader(Loader):
    """Sums of integers are integers."""

    def load(self, data: Any) -> int | float:
        text = bytes(data)
        return float(text) if b"." in text or b"N" in text else int(text)


_MARK = re.compile(r"'(?:[^']|'')*'|\?")
_NUL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_WORDS = (
    (re.compile(r"\bINTEGER PRIMARY KEY\b"), "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
    (re.compile(r"\bINTEGER\b"), "BIGINT"),
    (re.compile(r"\bREAL\b"), "DOUBLE PRECISION"),
    (re.compile(r"\bTEXT\b"), 'TEXT COLLATE "C"'),
    (re.compile(r"\bvalue NOT NULL"), "value BIGINT NOT NULL"),
    (re.compile(r"(?<!\")\bwindow TEXT"), '"window" TEXT'),
    (re.compile(r"\)\s*WITHOUT ROWID"), ")"),
)


@lru_cache(maxsize=2_000)
def _translated(sql: str) -> str:
    """`?` → `$1`, `$2`, …; SQLite's way to fix the order of a join → an ordinary one."""
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] != "?":
            return match[0]
        count += 1
        return f"${count}"

    return _MARK.sub(number, sql).replace("CROSS JOIN", "JOIN") if " ON " in sql else _MARK.sub(number, sql)


def _defined(statement: str) -> str:
    for pattern, word in _WORDS:
        statement = pattern.sub(word, statement)
    return statement


def _bound(params: Sequence[Any]) -> list[Any]:
    """Parameters without NUL characters, which PostgreSQL cannot keep in text: U+FFFD stands in their place."""
    return [_without_nul(value) if type(value) is str and ("\x00" in value or "\\u0000" in value) else value for value in params]


def _without_nul(text: str) -> str:
    return _NUL_ESCAPE.sub(r"\1\\ufffd", text.replace("\x00", "\ufffd"))


def _number_array(values: Sequence[int | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else str(int(value)) for value in values]) + "}"


def _text_array(values: Sequence[str | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _raised(error: BaseException, label: str) -> Exception:
    if isinstance(error, psycopg.IntegrityError):
        return peewee.IntegrityError(str(error))
    if isinstance(error, _UNAVAILABLE):
        return StoreUnavailable(f"{label} cannot be used: {_reason(error)}")
    if isinstance(error, Exception):
        return error
    raise error


def _reason(error: BaseException) -> str:
    """The heart of what libpq says, on one line."""
    text = " ".join(line.strip() for line in str(error).splitlines()[:1]) or type(error).__name__
    text = re.sub(r"^(?:connection failed: )?connection to server (?:on|at) .*? failed: ", "", text)
    return re.sub(r"^(?:FATAL|ERROR|PANIC):\s+", "", text)
