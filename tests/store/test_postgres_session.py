"""What a session makes of values, rows and pipelines: nobody should notice which engine it is."""

from collections.abc import Iterator
from contextlib import suppress

import peewee
import pytest

from store.errors import StoreUnavailable
from store.migrations import Migration
from store.postgres import PostgresDatabase
from tests.support.postgres import Databases, opened

TABLE = (
    Migration(
        1, "table", lambda connection: connection.define("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c INTEGER, d REAL)")
    ),
)


@pytest.fixture
def database(postgres_databases: Databases) -> Iterator[PostgresDatabase]:
    made = opened(postgres_databases.fresh(), migrations=TABLE)
    yield made
    made.close()


def test_values_come_back_as_sqlite_gives_them(database: PostgresDatabase) -> None:
    with database.write() as connection:
        connection.execute("INSERT INTO t (b, c, d) VALUES (?, ?, ?)", ("a 'b' ? \\ \"", 2**63 - 1, 0.5))
        connection.executemany("INSERT INTO t (b, c) VALUES (?, ?)", [("Z", True), (None, -5)])
    with database.read() as connection:
        rows = connection.execute("SELECT b, c, d FROM t ORDER BY a")
        assert rows == [("a 'b' ? \\ \"", 2**63 - 1, 0.5), ("Z", 1, None), (None, -5, None)]
        total = connection.execute("SELECT sum(c), count(*), '?' FROM t WHERE c < ?", (10,))[0]
        assert total == (-4, 2, "?")
        assert [type(value) for value in total] == [int, int, str]


def test_rows_are_inserted_whatever_is_in_them(database: PostgresDatabase) -> None:
    texts = ['"', "\\", '\\"', "{}", "NULL", "", "a,b", "line\nbreak", "\u2028", "\U0001f600", "%s $1 ?", "\\u0041", None, "'"]
    with database.write() as connection:
        connection.insert("t", "a, b, c", ("bigint", "text", "bigint"), [(n, text, None) for n, text in enumerate(texts)])
        connection.insert("t", "a, b, c", ("bigint", "text", "bigint"), [])
    with database.read() as connection:
        assert [row[0] for row in connection.execute("SELECT b FROM t ORDER BY a")] == texts


def test_a_nul_character_is_replaced(database: PostgresDatabase) -> None:
    with database.write() as connection:
        connection.insert("t", "b", ("text",), [("a\x00b",)])
        connection.execute("INSERT INTO t (b) VALUES (?)", ("c\x00d",))
        found = connection.execute(f"SELECT c0 FROM {connection.rowset('text')} AS k", ('[["e\\u0000f"], ["\\\\u0000"]]',))
    assert found == [("e\ufffdf",), ("\\u0000",)]
    with database.read() as connection:
        assert connection.execute("SELECT b FROM t ORDER BY a") == [("a\ufffdb",), ("c\ufffdd",)]


def test_text_is_ordered_by_its_bytes(database: PostgresDatabase) -> None:
    with database.write() as connection:
        connection.insert("t", "b", ("text",), [("b",), ("B",), ("a",), ("ä",), ("_",)])
    with database.read() as connection:
        assert [row[0] for row in connection.execute("SELECT b FROM t ORDER BY b")] == ["B", "_", "a", "b", "ä"]


def test_a_violated_constraint_says_so_and_rolls_back(database: PostgresDatabase) -> None:
    with pytest.raises(peewee.IntegrityError), database.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
        connection.execute("INSERT INTO t (a) VALUES (1)")
    with pytest.raises(peewee.IntegrityError), database.write_batch() as connection:
        connection.open_batch((), ())
        with connection.pipelined():
            connection.insert("t", "a", ("bigint",), [(1,), (1,)])
    with database.write() as connection:
        assert connection.execute("SELECT count(*) FROM t") == [(0,)]


def test_a_commit_that_the_server_made_a_rollback_is_no_success(database: PostgresDatabase) -> None:
    with pytest.raises(StoreUnavailable, match="nothing was kept"), database.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
        with suppress(peewee.IntegrityError):
            connection.execute("INSERT INTO t (a) VALUES (1)")
    with database.write() as connection:
        assert connection.execute("SELECT count(*) FROM t") == [(0,)]


def test_what_is_asked_after_a_pipeline_is_answered(database: PostgresDatabase) -> None:
    with database.write_batch() as connection:
        connection.open_batch((), ())
        with connection.pipelined():
            connection.execute("INSERT INTO t (a, b) VALUES (?, ?)", (1, "x"))
        assert connection.execute("SELECT b FROM t") == [("x",)]
        with connection.pipelined():
            connection.execute("INSERT INTO t (a, b) VALUES (?, ?)", (2, "y"))
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM t") == [(2,)]


def test_a_fault_in_a_pipeline_is_told_at_the_next_word(database: PostgresDatabase) -> None:
    with pytest.raises(peewee.IntegrityError), database.write() as connection:
        connection.execute("INSERT INTO t (a) VALUES (1)")
        with connection.pipelined():
            connection.execute("INSERT INTO t (a) VALUES (?)", (1,))
        connection.execute("SELECT 1")
    with database.write() as connection:
        assert connection.execute("SELECT count(*) FROM t") == [(0,)], "and the session is good for the next transaction"
