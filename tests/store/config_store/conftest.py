"""A real database of either engine, a clock that stands still, and entropy that counts: one store for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from store.clock import Ids
from store.config_store.bootstrap import BootstrapReport, open_config_store, seed
from store.config_store.store import ConfigStore
from store.database import Database
from store.postgres import PostgresDatabase
from store.settings import settings_from
from store.sqlite import SqliteDatabase
from tests.support.recycled import Recycled

START_MS = 1_795_000_000_000


@dataclass
class StillClock:
    at_ms: int = START_MS

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path, clock: StillClock) -> Iterator[Database]:
    with ExitStack() as stack:
        made: Database
        if request.param == "sqlite":
            made = SqliteDatabase.open(tmp_path / "config.db", clock=clock)
        else:
            recycled: Recycled = request.getfixturevalue("recycled")
            made = PostgresDatabase.open(stack.enter_context(recycled.lent()), purpose="config", clock=clock)
        stack.callback(made.close)
        made.migrate()
        yield made


@pytest.fixture
def store(database: Database, clock: StillClock) -> ConfigStore:
    return ConfigStore(database, clock, Ids(clock))


@pytest.fixture
def seeded(database: Database, clock: StillClock) -> Callable[..., tuple[ConfigStore, BootstrapReport]]:
    def run(
        document: dict[str, Any], environ: dict[str, str] | None = None, *, reseed: bool = False
    ) -> tuple[ConfigStore, BootstrapReport]:
        settings = settings_from(document, environ or {}, source="config.json")
        made = open_config_store(database, settings, clock=clock, ids=Ids(clock), seal=True)
        return made, seed(made, settings, reseed=reseed)

    return run
