"""What both engines promise a transaction, with the same statements."""

import json
from collections.abc import Callable

import peewee
import pytest

from store.database import Connection, Database, bump_revision, governance_revision
from store.models import LEDGER_MODELS
from tests.store.ledger.desk import HandClock

OpenDatabase = Callable[..., Database]
CLEAN = "SELECT key, value FROM meta ORDER BY key"


def test_the_words_of_lists_and_rows(any_database: Database) -> None:
    with any_database.write() as connection:
        connection.insert("meta", "key, value", ("text", "bigint"), [("b", 2), ("a", 1), ("c", 2**62)])
        wanted = json.dumps(["a", "c", "nothing"])
        found = connection.execute(f"SELECT key, value FROM meta WHERE key IN ({connection.listed}) ORDER BY key", (wanted,))
        assert found == [("a", 1), ("c", 2**62)]
        rows = json.dumps([["a", 1], ["b", 3], ["c", 2**62]])
        found = connection.execute(
            f"""SELECT m.key FROM {connection.rowset("text", "bigint")} AS k
            CROSS JOIN meta AS m ON m.key = k.c0 AND m.value = k.c1 ORDER BY m.key""",
            (rows,),
        )
        assert found == [("a",), ("c",)]


def test_a_failed_block_leaves_nothing(any_database: Database) -> None:
    with any_database.read() as connection:
        before = connection.execute(CLEAN)
    for write in (any_database.write, any_database.write_batch):
        with pytest.raises(KeyError), write() as connection:
            connection.open_batch((), ())
            connection.execute("INSERT INTO meta (key, value) VALUES ('x', 1)")
            raise KeyError
        with pytest.raises(peewee.IntegrityError), write() as connection:
            connection.open_batch((), ())
            connection.execute("INSERT INTO meta (key, value) VALUES ('x', 1)")
            connection.execute("INSERT INTO meta (key, value) VALUES ('x', 2)")
    with any_database.read() as connection:
        assert connection.execute(CLEAN) == before


def test_a_batch_reads_behind_its_locks_and_writes_with_its_commit(any_database: Database) -> None:
    with any_database.write_batch() as connection:
        (first, second) = connection.open_batch(
            ("cap-1", "cap-2"), [("SELECT value FROM meta WHERE key = ?", ("revision",)), ("SELECT ?", ("x",))]
        )
        assert (first[0][0], second) == (0, [("x",)])
        with connection.pipelined():
            connection.keep_order()
            connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", ("late", 7))
    with any_database.read() as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'late'") == [(7,)]


def test_the_revision_counts_edits_that_happened(any_database: Database) -> None:
    with any_database.write() as connection:
        assert (bump_revision(connection), bump_revision(connection)) == (1, 2)
    with pytest.raises(KeyError), any_database.write() as connection:
        bump_revision(connection)
        raise KeyError
    with any_database.read() as connection:
        assert governance_revision(connection) == 2


def test_time_is_the_clock_given(open_any: OpenDatabase) -> None:
    clock = HandClock(1_000)
    database = open_any(clock)
    with database.write() as connection:
        assert connection.now_ms() == 1_000
        assert connection.open_batch((), [(f"SELECT {connection.clock_sql}", ())])[0][0][0] in (None, 1_000)


def test_a_second_opening_finds_everything_in_place(open_any: OpenDatabase) -> None:
    first = open_any()
    with first.write() as connection:
        connection.execute("INSERT INTO meta (key, value) VALUES ('x', 1)")
    second = open_any()
    assert second.migrate() == ()
    with second.read() as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'x'") == [(1,)]


def _columns(connection: Connection, table: str) -> list[str]:
    if connection.engine == "sqlite":
        return sorted(row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)))
    return sorted(
        row[0]
        for row in connection.execute("SELECT column_name::text FROM information_schema.columns WHERE table_name = ?", (table,))
    )


def test_the_models_are_the_schema(any_database: Database) -> None:
    with any_database.read() as connection:
        for model in LEDGER_MODELS:
            table = model._meta.table_name
            assert _columns(connection, table) == sorted(model._meta.columns), table


def test_every_ledger_has_a_name_of_its_own(open_any: OpenDatabase) -> None:
    with open_any().read() as connection:
        first = connection.execute("SELECT id FROM ledger_identity")
    assert len(first) == 1 and len(first[0][0]) == 32
