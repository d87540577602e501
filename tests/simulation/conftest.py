"""Databases on PostgreSQL for simulated worlds, one after the other; and silence, because simulated faults are complained about."""

import logging
from collections.abc import Iterator

import pytest

from store.postgres import PostgresAddress
from tests.support.postgres import Databases
from tests.support.recycled import Recycled


@pytest.fixture(scope="session")
def recycled(postgres_dsn: str) -> Iterator[Recycled]:
    databases = Databases(postgres_dsn)
    yield Recycled(databases)
    databases.drop()


@pytest.fixture
def postgres_address(recycled: Recycled) -> Iterator[PostgresAddress]:
    """An empty database with the newest schema."""
    with recycled.lent() as address:
        yield address


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong here goes wrong on purpose, a thousand times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
