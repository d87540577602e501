"""PostgreSQL through psycopg 3: the same promises as SQLite for several machines, with row locks in place of a file lock.

Edits of configuration and caps have the database to themselves (an exclusive advisory lock); the ledger's batches share that
lock and keep apart by locking the caps they touch, in the order of their ids.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import peewee
import psycopg
from playhouse.postgres_ext import Psycopg3Database
from psycopg import pq

from store.clock import Clock
from store.database import WRITE_WAIT_SECONDS, Connection, Database, Synchronous
from store.errors import StoreUnavailable, UserError
from store.migrations import Migration
from store.postgres_session import UNAVAILABLE, PostgresConnection, raised, reason

log = logging.getLogger(__name__)

Purpose = Literal["config", "logs"]

OLDEST_SERVER = 130_000
CONNECT_SECONDS = 3
"""How long one try to reach the server may take."""
IDLE_IN_TRANSACTION_SECONDS = 2
"""A batch whose process was suspended gives its locks back after this time: the server ends its session."""
BATCH_LOCK_SECONDS = 5
BATCH_ANSWER_SECONDS = BATCH_LOCK_SECONDS + 2
"""A statement of a batch that has no answer by then has none to expect: the session is given up for another."""
OTHER_ANSWER_SECONDS = 30
LISTEN_PAUSE_SECONDS = 1.0

_SECRET_TABLES = ("providers", "provider_keys", "virtual_keys")
_LOCK_KEYS: dict[Purpose, int] = {"config": 0x746F6C6C_0001, "logs": 0x746F6C6C_0002}
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
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_OTHER_OPTIONS = {"idle_in_transaction_session_timeout": "30s", "lock_timeout": f"{round(WRITE_WAIT_SECONDS)}s"}


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
    def write(self) -> Iterator[Connection]:
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
        with self._session(_READ, batch=False) as connection:
            yield connection

    def watchers(self) -> int:
        with self.read() as connection:
            listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = ?"
            return int(connection.execute(listening, (f"LISTEN {self._channel}",))[0][0])

    def scrub(self) -> bool:
        """Of the tables that hold secrets. The server's own log of changes and its backups keep what they have."""
        with self._session("", batch=False) as connection:
            for table in _SECRET_TABLES:
                connection.execute(f"VACUUM (FULL) {table}")
        return True

    def close(self) -> None:
        self._closed.set()
        self._drop_idle()

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
                if begin == _READ:
                    connection.execute("COMMIT")  # nothing was to be kept
                else:
                    connection.commit()
            except BaseException as error:
                with suppress(psycopg.Error, StoreUnavailable):
                    connection.end_pipeline()
                with suppress(psycopg.Error, StoreUnavailable):
                    if connection.raw.info.transaction_status != pq.TransactionStatus.IDLE:
                        connection.execute("ROLLBACK")
                cause = error.__cause__
                if isinstance(error, psycopg.Error | peewee.DatabaseError) and isinstance(cause or error, UNAVAILABLE):
                    raise raised(cause or error, self.name) from error
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
                    if connection.silent:
                        self._drop_idle()
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
            if connection.silent:
                self._drop_idle()
        finally:
            self._slots.release()

    def _drop_idle(self) -> None:
        """Closes the sessions that nobody uses: what has silenced one has most likely silenced them all."""
        with self._mutex:
            idle = [*self._idle[False], *self._idle[True]]
            self._idle = {False: [], True: []}
        for connection in idle:
            with suppress(Exception):
                connection.peewee.close()

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
            raise StoreUnavailable(f"{address.label} cannot be reached: {reason(error)}") from None
        answer_seconds = BATCH_ANSWER_SECONDS if batch else OTHER_ANSWER_SECONDS
        return PostgresConnection(engine, address.label, self._clock, self._channel, self._lock_key, answer_seconds)
