"""PostgreSQL databases that tests use one after the other: emptying one takes milliseconds, making one takes half a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from store.logs.schema import MIGRATIONS
from store.postgres import PostgresAddress
from tests.support.postgres import Databases, opened


@dataclass(frozen=True, slots=True)
class Table:
    """What a table holds in a database that was just brought up to date."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Recycled:
    """Lends databases with the newest schema of configuration, ledger and logs, each as if it had just been made."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._free: list[tuple[PostgresAddress, tuple[Table, ...]]] = []

    @contextmanager
    def lent(self) -> Iterator[PostgresAddress]:
        """One database. Whoever has it must have closed all connections at the end."""
        address, tables = self._free.pop() if self._free else self._made()
        yield replace(address)
        try:
            usable = _empty(self._databases, address, tables)
        except psycopg.Error:
            usable = False  # somebody still holds a lock in it
        if usable:
            self._free.append((address, tables))

    def _made(self) -> tuple[PostgresAddress, tuple[Table, ...]]:
        address = self._databases.fresh()
        opened(address).close()
        opened(address, purpose="logs", migrations=MIGRATIONS).close()
        with _connected(self._databases, address) as connection:
            return address, tuple(_tables(connection))


def _connected(databases: Databases, address: PostgresAddress) -> psycopg.Connection[Any]:
    return psycopg.connect(databases.dsn, dbname=address.db_name, options="-c lock_timeout=2s")


def _names(connection: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")]


def _tables(connection: psycopg.Connection[Any]) -> Iterator[Table]:
    for name in _names(connection):
        cursor = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name)))
        yield Table(name, tuple(column.name for column in cursor.description or ()), tuple(cursor.fetchall()))


def _empty(databases: Databases, address: PostgresAddress, tables: tuple[Table, ...]) -> bool:
    """False for a database whose tables are others now."""
    with _connected(databases, address) as connection, connection.pipeline():
        if _names(connection) != [table.name for table in tables]:
            return False
        for table in reversed(tables):  # the audit log may go once its chain is gone
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table.name)))
        for table in tables:
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table.name),
                sql.SQL(", ").join(map(sql.Identifier, table.columns)),
                sql.SQL(", ").join([sql.Placeholder()] * len(table.columns)),
            )
            for row in table.rows:
                connection.execute(statement, row)
        connection.execute("SELECT setval(quote_ident(sequencename)::regclass, 1, false) FROM pg_sequences")
    return True
