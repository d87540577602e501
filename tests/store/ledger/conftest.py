"""Fixtures of the ledger's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.database import Database
from store.sqlite import SqliteDatabase
from tests.store.ledger.desk import Desk
from tests.store.ledger.till import Till, TillClock


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    assert made.differences() == [], "the rows must explain every balance"
    made.close()


@pytest.fixture
def till(open_any: Callable[..., Database]) -> Iterator[Till]:
    """On either engine."""
    clock = TillClock()
    made = Till(open_any(clock), clock)
    yield made
    assert made.differences() == [], "the rows must explain every balance"


@pytest.fixture
def sqlite_till(tmp_path: Path) -> Iterator[Till]:
    """On SQLite alone, where the engine makes no difference."""
    clock = TillClock()
    database = SqliteDatabase.open(tmp_path / "config.db", clock=clock)
    database.migrate()
    made = Till(database, clock)
    yield made
    assert made.differences() == [], "the rows must explain every balance"
    database.close()
