"""The audit log: one chained row for each change, which nothing changes or removes but the retention."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace

import peewee
import pytest

from store.clock import Ids
from store.config_store import audit, change
from store.config_store.audit import AuditQuery, audit_entry, audit_page, audit_rows, check_chain, prune_audit
from store.config_store.edits import Actor
from store.config_store.specs import BudgetRowSpec, TeamSpec, VirtualKeyPatch, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.copy import copy_ledger
from store.database import Database
from store.errors import Conflict
from store.memory import MemoryDatabase
from tests.store.config_store.conftest import START_MS, StillClock

ADA = Actor("ada", "session", "10.0.0.7")


def page(store: ConfigStore, limit: int = 100, offset: int = 0, **conditions: object) -> audit.AuditPage:
    with store.ledger.read() as connection:
        return audit_page(connection, AuditQuery(**conditions), limit, offset)  # type: ignore[arg-type]


def made_by_ada(store: ConfigStore) -> ConfigStore:
    return replace(store, actor=ADA)


def test_a_row_says_who_did_what_from_where_and_both_documents(store: ConfigStore, clock: StillClock) -> None:
    somebody = made_by_ada(store)
    key = change.create_virtual_key(somebody, VirtualKeySpec(name="robot"))
    clock.at_ms += 1
    change.update_virtual_key(somebody, key.id, VirtualKeyPatch(is_active=False))
    last, first = page(store).entries
    assert (first.actor, first.method, first.address) == ("ada", "session", "10.0.0.7")
    assert (first.action, first.kind, first.entity_id, first.entity_name) == ("create", "virtual_key", key.id, "robot")
    assert first.before is None and json.loads(first.after or "")["name"] == "robot"
    assert (last.action, last.at_ms - first.at_ms) == ("update", 1)
    assert "is_active" not in json.loads(last.before or "") and json.loads(last.after or "")["is_active"] is False
    assert key.value not in json.dumps([last.before, last.after, first.after])


def test_a_change_that_fails_or_is_rolled_back_leaves_no_row(store: ConfigStore) -> None:
    change.create_team(store, TeamSpec(name="blue"))
    with pytest.raises(Conflict):
        change.create_team(store, TeamSpec(name="blue"))
    with pytest.raises(RuntimeError, match="half way"), store.editing("update", "team", "blue") as edit:
        edit.connection.execute("UPDATE teams SET name = 'red'")
        raise RuntimeError("half way")
    assert [(entry.action, entry.entity_name) for entry in page(store).entries] == [("create", "blue")]
    assert check_chain(store.ledger).rows == 1


def test_digests_are_what_the_documentation_says(store: ConfigStore) -> None:
    """SHA-256 over a JSON list of the digest before and the row's columns, made here with the standard library alone."""
    for name in ("a", "b"):
        change.create_team(made_by_ada(store), TeamSpec(name=name))
    previous = ""
    with store.ledger.read() as connection:
        rows = audit_rows(connection, AuditQuery(), 0)
    for row in rows:
        columns = [getattr(row, name) for name in audit.AUDIT_COLUMNS[:-1]]
        text = json.dumps([previous, *columns], separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(text.encode()).hexdigest()
        assert row.digest == previous
    assert [row.sequence for row in rows] == [1, 2]


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit WHERE sequence = 1", "DELETE FROM audit"]
)
def test_the_database_refuses_to_change_or_delete_rows(store: ConfigStore, statement: str) -> None:
    change.create_team(store, TeamSpec(name="blue"))
    with pytest.raises(peewee.IntegrityError, match="append-only"), store.database.write() as connection:
        connection.execute(statement)
    assert page(store).total == 1 and check_chain(store.ledger).holds


def test_postgres_refuses_to_truncate(store: ConfigStore) -> None:
    if store.database.engine != "postgres":
        pytest.skip("SQLite has no TRUNCATE")
    change.create_team(store, TeamSpec(name="blue"))
    with pytest.raises(peewee.IntegrityError, match="append-only"), store.database.write() as connection:
        connection.execute("TRUNCATE audit")


@pytest.fixture
def untied(store: ConfigStore) -> ConfigStore:
    """A log of five rows whose database has lost its triggers, as somebody with every right on it could arrange."""
    for number in range(5):
        change.create_team(store, TeamSpec(name=f"team {number}"))
    with store.database.write() as connection:
        if connection.engine == "sqlite":
            connection.execute("DROP TRIGGER audit_never_deleted")
            connection.execute("DROP TRIGGER audit_never_changed")
        else:
            connection.execute("ALTER TABLE audit DISABLE TRIGGER USER")
    return store


@pytest.fixture(autouse=True)
def tied_again(store: ConfigStore) -> Iterator[None]:
    """PostgreSQL databases are used again by other tests."""
    yield
    if store.database.engine == "postgres":
        with store.database.write() as connection:
            connection.execute("ALTER TABLE audit ENABLE TRIGGER USER")


@pytest.mark.parametrize(
    ("tampering", "fault"),
    [
        ("UPDATE audit SET actor = 'mallory' WHERE sequence = 3", "row 3 is not what was written"),
        ("UPDATE audit SET after = replace(after, 'team 3', 'team x') WHERE sequence = 4", "row 4 is not what was written"),
        ("UPDATE audit SET at_ms = at_ms + 1 WHERE sequence = 1", "row 1 is not what was written"),
        ("DELETE FROM audit WHERE sequence = 2", "row 2 is missing"),
        ("DELETE FROM audit WHERE sequence = 1", "row 1 is missing"),
        ("DELETE FROM audit WHERE sequence = 5", "row 5 is missing"),
        ("DELETE FROM audit", "row 1 is missing"),
        ("UPDATE audit SET sequence = 9 WHERE sequence = 5", "row 5 is missing"),
        ("UPDATE audit_chain SET sequence = 4 WHERE place = 'end'", "row 5 is not the end that was noted, row 4"),
    ],
)
def test_tampering_is_noticed(untied: ConfigStore, tampering: str, fault: str) -> None:
    assert check_chain(untied.ledger).holds
    with untied.database.write() as connection:
        connection.execute(tampering)
    report = check_chain(untied.ledger)
    assert (report.holds, report.fault) == (False, fault)


def test_the_retention_takes_the_oldest_and_the_chain_goes_on(store: ConfigStore, clock: StillClock) -> None:
    for number in range(6):
        change.create_team(store, TeamSpec(name=f"team {number}"))
        clock.at_ms += 1000
    with store.ledger.write() as connection:
        assert prune_audit(connection, START_MS + 2500, limit=2) == 2
    assert check_chain(store.ledger).rows == 4
    with store.ledger.write() as connection:
        assert prune_audit(connection, START_MS + 2500, limit=2) == 1
        assert prune_audit(connection, START_MS + 2500, limit=2) == 0
    change.create_team(store, TeamSpec(name="after"))
    assert [entry.sequence for entry in page(store).entries] == [7, 6, 5, 4]
    assert page(store).total == 4 and check_chain(store.ledger).holds
    with pytest.raises(peewee.IntegrityError), store.database.write() as connection:
        connection.execute("DELETE FROM audit WHERE sequence = 4")
    with store.ledger.write() as connection:
        prune_audit(connection, START_MS + 10**9)
    change.create_team(store, TeamSpec(name="later"))
    assert [entry.sequence for entry in page(store).entries] == [8], "numbers are not used twice"
    assert check_chain(store.ledger).holds


def test_two_nodes_write_one_chain(store: ConfigStore, database: Database, clock: StillClock) -> None:
    if database.engine != "postgres":
        pytest.skip("one machine has one file")
    from concurrent.futures import ThreadPoolExecutor

    from store.postgres import PostgresDatabase

    other = PostgresDatabase.open(database.address, purpose="config", clock=clock)  # type: ignore[attr-defined]
    try:
        nodes = [store, ConfigStore(other, clock, Ids(clock))]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: change.create_team(nodes[n % 2], TeamSpec(name=f"team {n}")), range(40)))
    finally:
        other.close()
    report = check_chain(database)
    assert (report.rows, report.fault) == (40, None)


ODD = "a\0b \\u0000 \\\\u0000 ü \u2028 \U0001f600"
"""What one engine keeps otherwise than the other."""


def write_odd_rows(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec(name="k", description="\\u0000 ü \u2028"))
    with store.ledger.write() as connection:
        odd = replace(store, actor=Actor(ODD, "session", "10.0.0.7"))
        odd.note(connection, "x", "thing", ODD, name=ODD, details={"text": ODD}, reason=ODD)


def test_a_copy_keeps_the_chain(store: ConfigStore, clock: StillClock) -> None:
    write_odd_rows(store)
    target = MemoryDatabase(clock=clock)
    target.migrate()
    copy_ledger(store.database, target, clock)
    assert check_chain(target) == check_chain(store.database)
    assert check_chain(target).rows == 2 and check_chain(target).holds
    copied = ConfigStore(target, clock, Ids(clock))
    change.create_team(copied, TeamSpec(name="there"))
    assert check_chain(target).rows == 3 and check_chain(target).holds
    target.close()


def test_a_chain_written_on_sqlite_holds_on_the_other_engine(store: ConfigStore, database: Database, clock: StillClock) -> None:
    source = MemoryDatabase(clock=clock)
    source.migrate()
    write_odd_rows(ConfigStore(source, clock, Ids(clock)))
    copy_ledger(source, database, clock)
    assert check_chain(database) == check_chain(source)
    assert check_chain(database).holds
    source.close()


def test_filters(store: ConfigStore, clock: StillClock) -> None:
    for number, who in enumerate(("ada", "bob", "ada", "eve")):
        clock.at_ms = START_MS + number * 1000
        change.create_team(replace(store, actor=Actor(who, "session", f"10.0.0.{number}")), TeamSpec(name=f"team_{number}"))
    budget = change.create_budget(
        store, BudgetRowSpec.model_validate({"max_limit": 1, "scope": "team", "scope_id": "team_0", "name": "50% off"})
    )
    change.reset_budget(store, budget.id, "because of Thursday")

    def names(**conditions: object) -> list[str]:
        return [entry.entity_name for entry in page(store, **conditions).entries]

    assert names(actor="ada") == ["team_2", "team_0"]
    assert names(kind="budget") == ["50% off", "50% off"]
    assert names(kind="budget", action="reset") == ["50% off"]
    assert names(entity_id=budget.id, action="create") == ["50% off"]
    assert names(start_ms=START_MS + 1000, end_ms=START_MS + 3000) == ["team_2", "team_1"]
    assert names(search="TEAM_1") == ["team_1"]
    assert names(search="eam_") == ["team_3", "team_2", "team_1", "team_0"]
    assert names(search="10.0.0.3") == ["team_3"] and names(search="thursday") == ["50% off"]
    assert names(search="0%") == ["50% off", "50% off"] and names(search="nothing") == []
    assert names(actor="ada", search="team_2") == ["team_2"] and names(actor="bob", search="team_2") == []
    assert (page(store, limit=2, offset=1).entries[0].entity_name, page(store).total) == ("50% off", 6)
    assert (page(store, limit=1, actor="ada").total, page(store, actor="ada").is_exact) == (2, True)


def test_counts_and_searches_are_bounded(store: ConfigStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        change.create_team(store, TeamSpec(name=f"team {number}"))
    monkeypatch.setattr(audit, "COUNTED", 4)
    found = page(store, kind="team")
    assert (len(found.entries), found.total, found.is_exact) == (6, 4, False)
    monkeypatch.setattr(audit, "COUNTED", 100)
    monkeypatch.setattr(audit, "SEARCHED", 3)
    found = page(store, search="team")
    assert ([entry.entity_name for entry in found.entries], found.is_exact) == (["team 5", "team 4", "team 3"], False)
    assert page(store, search="team", action="none").is_exact


def test_rows_are_read_in_pieces_oldest_first(store: ConfigStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        change.create_team(store, TeamSpec(name=f"team {number}"))
    monkeypatch.setattr(audit, "PAGE", 2)
    found: list[int] = []
    while True:
        with store.ledger.read() as connection:
            rows = audit_rows(connection, AuditQuery(search="team"), found[-1] if found else 0)
        if not rows:
            break
        assert len(rows) <= 2
        found += [row.sequence for row in rows]
    assert found == [1, 2, 3, 4, 5]
    with store.ledger.read() as connection:
        assert audit_entry(connection, 6) is None and audit_entry(connection, 3) is not None
