"""PostgreSQL as the database: what it refuses at the start, how sessions are lost and found, and what its transactions promise."""

import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from store.database import bump_revision
from store.errors import StoreUnavailable, UserError
from store.migrations import Migration
from store.postgres import PostgresAddress, PostgresDatabase
from tests.support.postgres import Databases, PostgresServer, opened

TABLE = (
    Migration(
        1, "table", lambda connection: connection.define("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c INTEGER, d REAL)")
    ),
)


@pytest.fixture
def address(postgres_databases: Databases) -> PostgresAddress:
    return postgres_databases.fresh()


@pytest.fixture
def database(address: PostgresAddress) -> Iterator[PostgresDatabase]:
    made = opened(address, migrations=TABLE)
    yield made
    made.close()


def refusal(address: PostgresAddress) -> str:
    with pytest.raises(UserError) as caught:
        PostgresDatabase.open(address, purpose="config").close()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_nobody_there_is_one_line(postgres_databases: Databases) -> None:
    text = refusal(postgres_databases.address("any", host="127.0.0.1", port=1))
    assert text == "the PostgreSQL database any on 127.0.0.1:1 cannot be reached: Connection refused"


def test_a_wrong_password_is_one_line_and_never_shown(postgres_databases: Databases, address: PostgresAddress) -> None:
    text = refusal(postgres_databases.address(address.db_name, password=lambda: "not the word"))
    assert "password authentication failed for user" in text
    assert "not the word" not in text


def test_an_unknown_database_is_one_line(postgres_databases: Databases) -> None:
    assert 'database "nowhere" does not exist' in refusal(postgres_databases.address("nowhere"))


def test_an_unknown_host_is_one_line(postgres_databases: Databases) -> None:
    text = refusal(postgres_databases.address("any", host="no-such-host.invalid"))
    assert text.startswith("the PostgreSQL database any on no-such-host.invalid:")


def test_a_server_that_forgets_is_refused(postgres_server: PostgresServer) -> None:
    postgres_server.stop()
    with (postgres_server.data / "postgresql.conf").open("a") as settings:
        settings.write("fsync = off\n")
    postgres_server.start()
    address = Databases(postgres_server.dsn).fresh()
    assert "fsync = off" in refusal(address)
    PostgresDatabase.open(address, purpose="config", allow_unsynced=True).close()


def test_another_encoding_is_refused(postgres_databases: Databases) -> None:
    name = postgres_databases.fresh().db_name + "_latin"
    with psycopg.connect(postgres_databases.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")  # type: ignore[arg-type]
        try:
            assert "has the encoding LATIN1" in refusal(postgres_databases.address(name))
        finally:
            connection.execute(f"DROP DATABASE {name}")  # type: ignore[arg-type]


def test_a_write_inside_a_write_is_refused(database: PostgresDatabase) -> None:
    with database.write(), pytest.raises(RuntimeError, match="inside another one"), database.write():
        pass


def test_writes_have_the_database_to_themselves(database: PostgresDatabase, address: PostgresAddress) -> None:
    other = PostgresDatabase.open(address, purpose="config", migrations=TABLE, allow_unsynced=True)
    with database.write() as connection:
        connection.execute("INSERT INTO t (a, c) VALUES (1, 0)")

    def add(to: PostgresDatabase, batch: bool) -> None:
        for _ in range(25):
            with to.write_batch() if batch else to.write() as connection:
                if batch:
                    connection.open_batch((), ())
                    connection.execute("UPDATE t SET c = c + 1 WHERE a = 1")
                else:
                    value = connection.execute("SELECT c FROM t WHERE a = 1")[0][0]
                    connection.execute("UPDATE t SET c = ? WHERE a = 1", (value + 1,))

    threads = [threading.Thread(target=add, args=(to, batch)) for to in (database, other) for batch in (False, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute("SELECT c FROM t") == [(150,)]
    other.close()


def test_a_read_is_of_one_instant(database: PostgresDatabase) -> None:
    with database.read() as reader:
        assert reader.execute("SELECT count(*) FROM t") == [(0,)]
        with database.write() as connection:
            connection.execute("INSERT INTO t (a) VALUES (1)")
        assert reader.execute("SELECT count(*) FROM t") == [(0,)]
        with pytest.raises(StoreUnavailable, match="read-only"):
            reader.execute("INSERT INTO t (a) VALUES (2)")


def test_sessions_that_the_server_ended_are_replaced(database: PostgresDatabase, postgres_databases: Databases) -> None:
    with database.read(), database.write():
        pass
    with database.write_batch() as connection:
        connection.open_batch((), ())
    with psycopg.connect(postgres_databases.dsn, autocommit=True) as admin:
        ended = admin.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", (database.address.db_name,)
        ).fetchone()
        assert ended is not None and ended[0] >= 3
        deadline = time.monotonic() + 10
        while admin.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (database.address.db_name,)).fetchone():
            assert time.monotonic() < deadline
    for _ in range(3):
        with database.write() as connection:
            connection.execute("INSERT INTO t (b) VALUES ('x')")
        with database.write_batch() as connection:
            connection.open_batch((), ())
        with database.read() as connection:
            connection.execute("SELECT 1")


def test_a_session_ended_within_a_transaction_is_an_unavailable_store(database: PostgresDatabase, address: PostgresAddress) -> None:
    with pytest.raises(StoreUnavailable), database.write() as connection:
        connection.execute("INSERT INTO t (b) VALUES ('lost')")
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        connection.execute("SELECT 1")
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM t") == [(0,)]


def test_a_suspended_batch_gives_its_locks_back(database: PostgresDatabase) -> None:
    with pytest.raises(StoreUnavailable), database.write_batch() as connection:
        connection.open_batch((), ())
        connection.execute("INSERT INTO t (a) VALUES (1)")
        time.sleep(2.6)
        with database.write() as other:  # would wait for the batch otherwise
            other.execute("INSERT INTO t (a) VALUES (2)")
        connection.execute("SELECT 1")
    with database.read() as connection:
        assert connection.execute("SELECT a FROM t") == [(2,)]


def test_no_more_sessions_than_allowed(postgres_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.postgres.WRITE_WAIT_SECONDS", 0.05)
    address = postgres_databases.address(postgres_databases.fresh().db_name, max_open=2)
    database = opened(address, migrations=TABLE)
    with database.read(), database.read(), pytest.raises(StoreUnavailable, match="all 2 connections are in use"), database.read():
        pass
    with database.read(), database.read():
        pass
    database.close()


def test_edits_are_told_to_whoever_watches(address: PostgresAddress) -> None:
    database, other = opened(address), opened(address)
    told = threading.Semaphore(0)
    other.watch(told.release)
    assert told.acquire(timeout=10), "the first word says that somebody listens"
    started = time.monotonic()
    with database.write() as connection:
        bump_revision(connection)
    assert told.acquire(timeout=10)
    assert time.monotonic() - started < 1.0
    with pytest.raises(KeyError), database.write() as connection:
        bump_revision(connection)
        raise KeyError
    assert not told.acquire(timeout=0.3), "what was rolled back has not happened"
    database.close()
    other.close()


def test_whoever_watches_survives_a_restart(postgres_server: PostgresServer) -> None:
    address = Databases(postgres_server.dsn).fresh()
    database, other = opened(address), opened(address)
    told = threading.Semaphore(0)
    other.watch(told.release)
    assert told.acquire(timeout=10)
    postgres_server.stop(signal.SIGQUIT)
    with pytest.raises(StoreUnavailable), database.read():
        pass
    postgres_server.start()
    assert told.acquire(timeout=20), "listening again, and told to look: an edit may have been missed"
    with database.write() as connection:
        bump_revision(connection)
    assert told.acquire(timeout=10)
    database.close()
    other.close()


def test_configuration_and_logs_share_a_database(address: PostgresAddress) -> None:
    config = opened(address, migrations=TABLE)
    logs = opened(address, migrations=(Migration(1, "other", lambda c: c.define("CREATE TABLE u (a INTEGER)")),), purpose="logs")
    assert (config.steps_table, logs.steps_table) == ("config_schema_steps", "logs_schema_steps")
    with config.write() as first, logs.write() as second:  # neither waits for the other
        assert first.has_table("u") and second.has_table("t")
    config.close()
    logs.close()


def test_a_newer_schema_is_refused(address: PostgresAddress) -> None:
    newer = opened(address, migrations=(*TABLE, Migration(9, "later", lambda connection: None)))
    newer.close()
    older = PostgresDatabase.open(address, purpose="config", migrations=TABLE, allow_unsynced=True)
    with pytest.raises(UserError, match="schema step 9, this version knows steps up to 1"):
        older.migrate()
    older.close()


def test_two_that_migrate_at_once(address: PostgresAddress) -> None:
    taken: list[tuple[str, ...]] = []

    def migrate() -> None:
        database = PostgresDatabase.open(address, purpose="config", allow_unsynced=True)
        taken.append(database.migrate())
        database.close()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, taken))[:3] == [0, 0, 0]
    assert len(max(taken, key=len)) >= 3


def test_a_closed_database_says_so(database: PostgresDatabase) -> None:
    database.close()
    with pytest.raises(StoreUnavailable, match="is closed"), database.read():
        pass
    database.close()
