"""Copying between engines: rows, ids and sequences arrive; what is full, in use or broken is refused; a failure leaves nothing."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from store import copy as copy_module
from store.clock import Ids, SystemClock
from store.config_store import change, read
from store.config_store.audit import check_chain
from store.config_store.bootstrap import open_config_store
from store.config_store.specs import BudgetSpec, ProviderSpec, VirtualKeySpec
from store.copy import copy_ledger, copy_rows, empty_again, refuse_unless_empty, tables_of
from store.database import Database, governance_revision
from store.errors import StoreUnavailable, UserError
from store.filelock import FileLock
from store.ledger.batch import Batch
from store.ledger.books import Books
from store.ledger.caps import cap_states, load_caps
from store.ledger.recovery import recover_dead
from store.ledger.types import Granted, HoldRequest, Settlement
from store.ledger.verify import verify
from store.logs.schema import MIGRATIONS
from store.settings import settings_from
from store.sqlite import SqliteDatabase
from tests.support.postgres import Databases, opened

CLOCK = SystemClock()
Open = Callable[[str], Database]
CALLS = 23


ALL = ["sqlite-postgres", "postgres-sqlite", "sqlite-sqlite", "postgres-postgres"]


@pytest.fixture(params=ALL[:2])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """(source, empty target), opened and migrated."""
    made: list[Database] = []

    def fresh(engine: str, name: str) -> Database:
        if engine == "postgres":
            databases: Databases = request.getfixturevalue("postgres_databases")
            made.append(opened(databases.fresh()))
        else:
            made.append(SqliteDatabase.open(tmp_path / f"{name}.db"))
            made[-1].migrate()
        return made[-1]

    first, second = request.param.split("-")
    yield fresh(first, "one"), fresh(second, "two")
    for database in made:
        database.close()


def filled(database: Database) -> tuple[str, int]:
    """A configuration with spend, one call still open, one cap deleted; (id of the budget, nano-dollars spent)."""
    settings = settings_from({}, {}, source="config.json")
    store = open_config_store(database, settings, clock=CLOCK, ids=Ids(CLOCK))
    provider = ProviderSpec.model_validate({"keys": [{"name": "main", "value": "sk-secret", "weight": 0.25}]})
    change.create_provider(store, "openai", provider)
    budget = BudgetSpec(name="büdget \U0001f4b0", max_limit=Decimal(9_000_000_000), reset_duration="1d")
    key = change.create_virtual_key(store, VirtualKeySpec(name="indexer", budgets=(budget,)))
    gone = change.create_virtual_key(store, VirtualKeySpec(name="gone", budgets=(budget,)))
    change.delete_virtual_key(store, gone.id)
    with database.read() as connection:
        (cap,) = load_caps(connection, scope_id=key.id)
    spent = 0
    for number in range(CALLS):
        nanos = 10**15 + number
        _call(database, cap.id, f"call-{number:03}", nanos, settle=number != CALLS - 1)
        spent += nanos if number != CALLS - 1 else 0
    with database.write() as connection:
        connection.execute(
            "INSERT INTO epochs (id, started_ms, ended_ms, process_id, lease, heartbeat_ms) VALUES ('epoch', 1, NULL, 1, '', 0)"
        )
    change.reset_budget(store, cap.id, "a reset that is explained by a row")
    return cap.id, spent


def _call(database: Database, cap_id: str, call_id: str, nanos: int, *, settle: bool) -> None:
    with database.write() as connection:
        revision = governance_revision(connection)
        batch = Batch(connection, Books(connection, connection.now_ms()), epoch="epoch", revision=revision)
        request = HoldRequest(call_id, (cap_id,), nanos, nanos, revision=revision)
        batch.prepare([request], [])
        assert isinstance(batch.hold(request), Granted)
        if settle:
            batch.settle(Settlement(call_id, nanos, 3, sent=True, model="gpt-4o", note="a note \x00 of a client"))
        batch.flush()


def rows(database: Database, table: str, columns: str, order: str) -> list[tuple[Any, ...]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(f"SELECT {columns} FROM {table} ORDER BY {order}")]


@pytest.mark.parametrize("places", ALL, indirect=True)
def test_everything_arrives_with_its_ids_and_goes_on_from_there(places: tuple[Database, Database], tmp_path: Path) -> None:
    source, target = places
    cap_id, spent = filled(source)
    before = {table.name: rows(source, table.name, table.column_list, ", ".join(table.key)) for table in tables_of(None)}
    report = copy_ledger(source, target, CLOCK)
    assert report.verified is not None
    assert (report.verified.clean, report.verified.cost_nanos, report.verified.open_holds) == (True, spent, 1)
    assert dict(report.tables)["posts"] == CALLS - 1
    assert report.rows == sum(len(found) for found in before.values())
    for table in tables_of(None):
        if table.name == "epochs":
            continue
        expected = before[table.name]
        if target.engine == "postgres":  # which keeps no NUL character
            expected = [tuple(v.replace("\x00", "\ufffd") if isinstance(v, str) else v for v in row) for row in expected]
        assert rows(target, table.name, table.column_list, ", ".join(table.key)) == expected, table.name
    # The copy lives: sequences go on, the open hold is recovered by whoever starts there, and the source is as it was.
    last = rows(target, "posts", "max(sequence)", "1")[0][0]
    assert recover_dead(target, "another", tmp_path / "leases") == 1
    _call(target, cap_id, "call-new", 5, settle=True)
    assert rows(target, "posts", "sequence, kind", "sequence")[-2:] == [(last + 1, "unconfirmed"), (last + 2, "post")]
    assert verify(target, CLOCK).clean
    with target.read() as connection:
        (state,) = cap_states(connection, connection.now_ms(), [cap_id])
    assert (state.used, state.held) == (10**15 + CALLS - 1 + 5, 0)
    after = {table.name: rows(source, table.name, table.column_list, ", ".join(table.key)) for table in tables_of(None)}
    assert after == before


def test_a_copied_configuration_opens_every_door_it_did(places: tuple[Database, Database]) -> None:
    source, target = places
    filled(source)
    copy_ledger(source, target, CLOCK)
    with source.read() as one, target.read() as two:
        assert read.virtual_keys(one) == read.virtual_keys(two)
        assert read.providers(one) == read.providers(two)
        assert governance_revision(one) == governance_revision(two)


def test_a_target_with_anything_in_it_is_refused(places: tuple[Database, Database]) -> None:
    source, target = places
    filled(source)
    filled(target)
    before = rows(target, "posts", "*", "sequence")
    with pytest.raises(UserError, match=r"is not empty \(its table .* has rows\)"):
        copy_ledger(source, target, CLOCK)
    assert rows(target, "posts", "*", "sequence") == before


def test_a_failure_at_the_very_end_leaves_the_target_empty(
    places: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places
    filled(source)

    def fail(connection: object) -> None:
        raise StoreUnavailable("the plug was pulled")

    monkeypatch.setattr(copy_module, "_bury_owners", fail)
    with pytest.raises(StoreUnavailable, match="plug"):
        copy_ledger(source, target, CLOCK)
    refuse_unless_empty(target, None)
    monkeypatch.undo()
    assert copy_ledger(source, target, CLOCK).verified is not None


def test_a_row_that_arrives_otherwise_is_noticed(places: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = places
    filled(source)
    pages = copy_module._pages

    def tampered(connection: Any, table: Any) -> Iterator[Any]:
        for page in pages(connection, table):
            if table.name == "posts" and connection.engine == target.engine and _is_writing(connection):
                page = [(*page[0][:5], page[0][5] + 1, *page[0][6:]), *page[1:]]
            yield page

    def _is_writing(connection: Any) -> bool:
        return bool(connection.execute("SELECT count(*) FROM holds")[0][0]) and connection is seen["into"]

    seen: dict[str, Any] = {}
    copy_all = copy_module._copy_all

    def remembering(source: Any, into: Any, tables: Any) -> Any:
        seen["into"] = into
        return copy_all(source, into, tables)

    monkeypatch.setattr(copy_module, "_copy_all", remembering)
    monkeypatch.setattr(copy_module, "_pages", tampered)
    with pytest.raises(StoreUnavailable, match="the table posts did not arrive as it was"):
        copy_ledger(source, target, CLOCK)
    refuse_unless_empty(target, None)


def test_books_that_differ_are_mended_first(places: tuple[Database, Database]) -> None:
    source, target = places
    cap_id, _ = filled(source)
    with source.write() as connection:
        connection.execute("UPDATE balances SET used = used + 1 WHERE cap_id = ?", (cap_id,))
    with pytest.raises(UserError, match="verify --mend"):
        copy_ledger(source, target, CLOCK)
    refuse_unless_empty(target, None)


def test_a_source_that_somebody_spends_on_is_refused(places: tuple[Database, Database], tmp_path: Path) -> None:
    source, target = places
    filled(source)
    lease = tmp_path / "epoch.lease"
    with source.write() as connection:
        if source.engine == "postgres":
            connection.execute("UPDATE epochs SET heartbeat_ms = ?", (connection.now_ms(),))
        else:
            connection.execute("UPDATE epochs SET lease = ?", (str(lease),))
    lock = FileLock(lease)
    assert lock.try_acquire()
    try:
        with pytest.raises(UserError, match="still spends on"):
            copy_ledger(source, target, CLOCK)
    finally:
        lock.close()
    if source.engine == "sqlite":  # the process died: its lease is free
        copy_ledger(source, target, CLOCK)


@pytest.mark.parametrize("places", ALL, indirect=True)
def test_logs_with_long_texts_are_copied_in_pieces(
    places: tuple[Database, Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_module, "INSERT_BYTES", 100_000)
    source, target = _logs_beside(places, tmp_path)
    body = "\x01" + "ä" * 7_000
    with source.write() as connection:
        for number in range(130):
            connection.execute(
                "INSERT INTO bodies (call_id, at_ms, request, request_bytes, response_bytes) VALUES (?, ?, ?, ?, 0)",
                (f"c{number:04}", number, f"{number}{body}", 70_000),
            )
    report = copy_rows(source, target, MIGRATIONS)
    assert dict(report.tables)["bodies"] == 130
    assert rows(target, "bodies", "*", "call_id") == rows(source, "bodies", "*", "call_id")
    with pytest.raises(UserError, match="is not empty"):
        copy_rows(source, target, MIGRATIONS)
    empty_again(target, MIGRATIONS)
    refuse_unless_empty(target, MIGRATIONS)
    assert copy_rows(source, target, MIGRATIONS).rows == report.rows
    source.close()
    target.close()


@pytest.mark.parametrize("places", ALL, indirect=True)
def test_a_copied_audit_log_can_be_taken_back(places: tuple[Database, Database]) -> None:
    """A place whose copy did not come about must be as empty as before, although nobody may delete from the log."""
    source, target = places
    clock = SystemClock()
    store = open_config_store(source, settings_from({}, {}, source="test"), clock=clock, ids=Ids(clock))
    change.create_virtual_key(store, VirtualKeySpec(name="robot"))
    copy_ledger(source, target, clock)
    assert check_chain(target) == check_chain(source) and check_chain(target).rows == 1
    empty_again(target, None)
    refuse_unless_empty(target, None)
    copy_ledger(source, target, clock)
    assert check_chain(target).rows == 1


def _logs_beside(places: tuple[Database, Database], tmp_path: Path) -> tuple[Database, Database]:
    """The same places, opened as logs."""
    made: list[Database] = []
    for number, database in enumerate(places):
        if database.engine == "postgres":
            made.append(opened(database.address, purpose="logs", migrations=MIGRATIONS))  # type: ignore[attr-defined]
        else:
            made.append(SqliteDatabase.open(tmp_path / f"logs{number}.db", migrations=MIGRATIONS))
            made[-1].migrate()
    return made[0], made[1]


def test_the_tables_are_those_of_the_schema_parents_first(tmp_path: Path) -> None:
    database = SqliteDatabase.open(tmp_path / "config.db")
    database.migrate()
    database.close()
    with sqlite3.connect(tmp_path / "config.db") as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    order = [table.name for table in tables_of(None)]
    assert {*order} == names - {"schema_steps"}
    assert order.index("virtual_keys") < order.index("provider_configs") < len(order)
    assert order.index("teams") < order.index("virtual_keys")
    assert {table.name for table in tables_of(None) if table.identity} == {"audit", "posts", "entries", "raises"}
    assert json.dumps(order) == json.dumps(list(dict.fromkeys(order)))
