"""One session with PostgreSQL: the connection's words, and the differences to SQLite that nobody else should have to know."""

import re
import select
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import orjson
import peewee
import psycopg
from playhouse.postgres_ext import Psycopg3Database
from psycopg import errors
from psycopg.adapt import Dumper, Loader
from psycopg.types.numeric import Int8Dumper

from store.clock import Clock
from store.database import Connection, Row
from store.errors import StoreUnavailable

_ORDER_KEY = 0x746F6C6C_0010
_LISTED = "SELECT value FROM json_array_elements_text(?::json) AS listed (value)"
_SERVER_TIME = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_LOCK_CAPS = f"SELECT 1 FROM caps WHERE id IN ({_LISTED}) ORDER BY id FOR NO KEY UPDATE"
UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.InFailedSqlTransaction,
    errors.InsufficientPrivilege,
)
"""What says that the server, and not the statement, is at fault."""


class PostgresConnection(Connection):
    """One session."""

    engine = "postgres"
    listed = _LISTED

    def __init__(
        self, engine: Psycopg3Database, label: str, clock: Clock | None, channel: str, lock_key: int, answer_seconds: float
    ) -> None:
        self.peewee = engine
        self.raw: psycopg.Connection[Row] = engine.connection()
        self.raw.wait = self._wait
        self.silent = False
        """The server, or something on the way to it, has left a statement without an answer; the session is closed."""
        self._answer_seconds = answer_seconds
        self.raw.adapters.register_dumper(int, Int8Dumper)
        self.raw.adapters.register_dumper(bool, _BoolDumper)
        self.raw.adapters.register_loader("numeric", _NumericLoader)
        self._label = label
        self._clock = clock
        self._channel = channel
        self._shared_lock = f"SELECT pg_advisory_xact_lock_shared({lock_key})"
        self._pipeline: AbstractContextManager[object] | None = None
        self._queueing = False
        if clock is None:
            self.clock_sql = _SERVER_TIME

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        try:
            if not self._queueing:
                self.end_pipeline()
            cursor = psycopg.RawCursor(self.raw)
            cursor.execute(_translated(sql), _bound(params) if params else None, prepare=bool(params))
            return [] if self._queueing or cursor.description is None else cursor.fetchall()
        except psycopg.Error as error:
            raise raised(error, self._label) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        try:
            psycopg.RawCursor(self.raw).executemany(_translated(sql), [_bound(row) for row in rows])
        except psycopg.Error as error:
            raise raised(error, self._label) from error

    def insert(self, table: str, columns: str, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        if not {*types} <= {"text", "bigint"}:
            raise ValueError(f"rows of {', '.join(types)} cannot be inserted this way")
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
        # One message to the server. Each statement sees what was committed before it began, so also what the locks waited for.
        cursors = []
        try:
            with self._new_pipeline():
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
            raise raised(error, self._label) from error

    def keep_order(self) -> None:
        # Sequences are handed out under this lock and it is given back after the commit: who reads up to a sequence misses nothing.
        self.execute(f"SELECT pg_advisory_xact_lock({_ORDER_KEY})")

    @contextmanager
    def pipelined(self) -> Iterator[None]:
        # Left open: the commit goes with it, unless something else is asked first.
        if self._pipeline is None:
            pipeline = self._new_pipeline()
            pipeline.__enter__()
            self._pipeline = pipeline
        self._queueing = True
        try:
            yield
        finally:
            self._queueing = False

    def commit(self) -> None:
        """Commits, with what was pipelined before. Raises as `execute`."""
        try:
            done = self.raw.execute("COMMIT")
            self.end_pipeline()
        except psycopg.Error as error:
            raise raised(error, self._label) from error
        if done.statusmessage != "COMMIT":
            # The server answers a commit after a statement that failed with a rollback, and calls that a success.
            raise StoreUnavailable(f"{self._label} cannot be used: a statement failed, so nothing was kept")

    def end_pipeline(self) -> None:
        """Waits for the answers to what was pipelined. Raises psycopg.Error."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.__exit__(None, None, None)

    @contextmanager
    def _new_pipeline(self) -> Iterator[None]:
        """A pipeline that ends with Sync and nothing after it.

        psycopg's own end sends a Flush as well, and any message after the Sync switches the server's timer of
        idle_in_transaction_session_timeout off: a suspended process would keep its locks for ever.
        """
        with self.raw.pipeline() as pipeline:
            pipeline._exit_gen = lambda: _synced(pipeline)  # type: ignore[method-assign]
            yield

    def _wait(self, work: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg waits, but not without end: a box on the way may acknowledge everything and never pass anything on."""
        try:
            return psycopg.Connection.wait(self.raw, work, interval, self._answer_seconds if timeout is None else timeout)
        except errors._WaitTimeout:
            if timeout is None:
                # What might still come would be taken for the answer to something else.
                self.silent = True
                self.raw.pgconn.finish()
                raise psycopg.OperationalError("the server does not answer") from None
            raise

    @property
    def looks_alive(self) -> bool:
        """False when the server has closed the session: an idle session has nothing to read but that."""
        return not self.raw.closed and not select.select([self.raw.pgconn.socket], [], [], 0)[0]

    def notify(self, revision: int) -> None:
        self.execute("SELECT pg_notify(?, ?)", (self._channel, str(revision)))


def _synced(pipeline: psycopg.Pipeline) -> Generator[Any, Any, None]:
    """As psycopg ends a pipeline, without the Flush: the answers to everything before a Sync come anyway."""
    try:
        pipeline._enqueue_sync()
        yield from pipeline._communicate_gen()
    finally:
        yield from pipeline._fetch_gen(flush=False)
    if pipeline.result_queue:
        raise psycopg.OperationalError("the connection was lost before all answers came")


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


def raised(error: BaseException, label: str) -> Exception:
    """The error as the rest of the program knows it."""
    if isinstance(error, psycopg.IntegrityError):
        return peewee.IntegrityError(str(error))
    if isinstance(error, UNAVAILABLE):
        return StoreUnavailable(f"{label} cannot be used: {reason(error)}")
    if isinstance(error, Exception):
        return error
    raise error


def reason(error: BaseException) -> str:
    """The heart of what libpq says, on one line."""
    text = " ".join(line.strip() for line in str(error).splitlines()[:1]) or type(error).__name__
    text = re.sub(r"^(?:connection failed: )?connection to server (?:on|at) .*? failed: ", "", text)
    return re.sub(r"^(?:FATAL|ERROR|PANIC):\s+", "", text)
