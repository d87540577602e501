"""Fixtures for every suite: a PostgreSQL server for the session, fresh databases, and either engine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# What helpers of the tests assert counts under `python -O` too; it must be said before they are loaded.
pytest.register_assert_rewrite("tests.support", "tests.simulation", "tests.store", "tests.live", "tests.addons")

# ruff: noqa: E402
from store.clock import Clock
from store.database import Database
from store.sqlite import SqliteDatabase
from tests.support.postgres import Databases, PostgresServer, opened
from tests.support.recycled import Recycled

OpenDatabase = Callable[..., Database]


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A server that nobody stops: TOLLGATE_TEST_POSTGRES, or one of our own."""
    named = os.environ.get("TOLLGATE_TEST_POSTGRES")
    if named:
        yield named
        return
    server = PostgresServer()
    try:
        yield server.dsn
    finally:
        server.remove()


@pytest.fixture
def postgres_databases(postgres_dsn: str) -> Iterator[Databases]:
    databases = Databases(postgres_dsn)
    try:
        yield databases
    finally:
        databases.drop()


@pytest.fixture(scope="session")
def recycled(postgres_dsn: str) -> Iterator[Recycled]:
    """Databases that are up to date and as good as new, for tests that need nothing but one."""
    databases = Databases(postgres_dsn)
    try:
        yield Recycled(databases)
    finally:
        databases.drop()


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A server of the test's own, to be stopped and started."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def open_any(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenDatabase]:
    """Opens and migrates one database of either engine; called again it opens the same one again, as another process would."""
    made: list[Database] = []
    if request.param == "sqlite":

        def open_it(clock: Clock | None = None) -> Database:
            database = SqliteDatabase.open(tmp_path / "config.db", clock=clock)
            database.migrate()
            made.append(database)
            return database
    else:
        address = request.getfixturevalue("postgres_databases").fresh()

        def open_it(clock: Clock | None = None) -> Database:
            database = opened(address, clock=clock)
            made.append(database)
            return database

    yield open_it
    for database in made:
        database.close()


@pytest.fixture
def any_database(open_any: OpenDatabase) -> Database:
    """An opened, migrated database of either engine."""
    return open_any()
