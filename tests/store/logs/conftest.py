"""Fresh logs on either engine."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from store.database import Database
from tests.store.logs.stores import Stores
from tests.support.postgres import Databases
from tests.support.recycled import Recycled


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            made = Stores(tmp_path)
        else:
            recycled: Recycled = request.getfixturevalue("recycled")
            made = Stores(stack.enter_context(recycled.lent()), lambda: stack.enter_context(recycled.lent()))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def new_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Stores in which there is no table yet."""
    made = Stores(tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres_databases").fresh())
    yield made
    made.close()


@pytest.fixture
def database(stores: Stores) -> Database:
    return stores.logs()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def module_stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Stores that the tests of one module share."""
    if request.param == "sqlite":
        made = Stores(tmp_path_factory.mktemp("logs"))
        yield made
        made.close()
        return
    databases = Databases(request.getfixturevalue("postgres_dsn"))
    made = Stores(databases.fresh())
    yield made
    made.close()
    databases.drop()
