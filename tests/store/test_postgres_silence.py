"""A connection on which everything is acknowledged and nothing answered: given up after a while, and all like it."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from store import postgres
from store.errors import StoreUnavailable
from store.postgres import PostgresDatabase
from tests.support.forwarder import Forwarder
from tests.support.postgres import Databases, opened

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


def test_a_slow_answer_within_the_time_is_waited_for(road: tuple[PostgresDatabase, Forwarder]) -> None:
    database, _ = road
    with database.read() as connection:
        assert connection.execute(f"SELECT 1 FROM pg_sleep({ANSWER_SECONDS / 2})") == [(1,)]
