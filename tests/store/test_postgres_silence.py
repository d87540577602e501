"""Silence on either side: a server that never answers is given up after a while, a process that stands still loses its locks."""

import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from store import postgres
from store.errors import StoreUnavailable
from store.postgres import PostgresDatabase
from tests.support.forwarder import Forwarder
from tests.support.postgres import Databases, opened
from tests.support.waiting import eventually

ANSWER_SECONDS = 1.0


@pytest.fixture
def road(postgres_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PostgresDatabase, Forwarder]]:
    monkeypatch.setattr(postgres, "BATCH_ANSWER_SECONDS", ANSWER_SECONDS)
    monkeypatch.setattr(postgres, "OTHER_ANSWER_SECONDS", ANSWER_SECONDS)
    address = postgres_databases.fresh()
    with Forwarder(address.host, address.port) as forwarder:
        database = opened(replace(address, host="127.0.0.1", port=forwarder.port))
        try:
            yield database, forwarder
        finally:
            database.close()


# Not `write`: the server keeps its exclusive lock for a session it believes to be idle, until idle_in_transaction_session_timeout.
@pytest.mark.parametrize("kind", ["write_batch", "read"])
def test_a_silent_session_is_given_up_and_the_next_one_works(road: tuple[PostgresDatabase, Forwarder], kind: str) -> None:
    database, forwarder = road
    begun = getattr(database, kind)
    # What was begun cannot be committed either: the block ends with a fault, even if nobody looks at the first one.
    with pytest.raises(StoreUnavailable), begun() as connection:
        assert connection.execute("SELECT count(*) FROM caps") == [(0,)]
        forwarder.forget()
        asked_at = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            connection.execute("SELECT count(*) FROM caps")
        assert ANSWER_SECONDS <= time.monotonic() - asked_at < ANSWER_SECONDS + 5
    with begun() as connection:
        assert connection.execute("SELECT 1") == [(1,)]


def test_one_silent_session_tells_of_all_that_are_idle(road: tuple[PostgresDatabase, Forwarder]) -> None:
    """Several were opened before. Who meets the first gets a new one in its place, and nobody has to wait for the others."""
    database, forwarder = road
    with database.read() as first, database.read() as second, database.write() as third:
        for connection in (first, second, third):
            connection.execute("SELECT 1")
    forwarder.forget()
    asked_at = time.monotonic()
    with database.read() as first, database.read() as second, database.write() as third:
        for connection in (first, second, third):
            assert connection.execute("SELECT 1") == [(1,)]
    assert ANSWER_SECONDS <= time.monotonic() - asked_at < 3 * ANSWER_SECONDS


def test_a_batch_that_stands_still_loses_its_locks(postgres_databases: Databases) -> None:
    """The reads of a batch come in one message; the server's timer must run after it, or a suspended process keeps its caps."""
    database = opened(postgres_databases.fresh())
    try:
        with pytest.raises(StoreUnavailable, match="idle-in-transaction"), database.write_batch() as connection:
            assert connection.open_batch(("cap-1",), [("SELECT count(*) FROM caps", ())]) == [[(0,)]]
            eventually(lambda: idle_in_transaction(postgres_databases, database), lambda count: count == 0, 15)
            connection.execute("SELECT 1")
        with database.write_batch() as connection:
            assert connection.open_batch(("cap-1",), [("SELECT count(*) FROM caps", ())]) == [[(0,)]]
    finally:
        database.close()


def idle_in_transaction(databases: Databases, database: PostgresDatabase) -> int:
    with psycopg.connect(databases.dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state = 'idle in transaction'",
            (database.address.db_name,),
        ).fetchone()
    return row[0] if row else 0


def test_a_slow_answer_within_the_time_is_waited_for(road: tuple[PostgresDatabase, Forwarder]) -> None:
    database, _ = road
    with database.read() as connection:
        assert connection.execute(f"SELECT 1 FROM pg_sleep({ANSWER_SECONDS / 2})") == [(1,)]
