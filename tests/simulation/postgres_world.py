"""Simulated worlds on a real PostgreSQL: one database, emptied between runs."""

import psycopg
from psycopg import sql

from store.clock import Clock
from store.database import Database
from store.postgres import PostgresAddress, PostgresDatabase
from tests.simulation.faults import OpenDatabase, SimulatedClock


def prepare(address: PostgresAddress) -> None:
    """Makes the tables."""
    database = _opened(address, SimulatedClock(0))
    database.migrate()
    database.close()


def empty(address: PostgresAddress, dsn: str) -> None:
    """Throws away every row but those of the schema."""
    with psycopg.connect(dsn, dbname=address.db_name, autocommit=True) as connection:
        names = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        tables = [sql.Identifier(name) for name in names if name != "meta" and not name.endswith("schema_steps")]
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.SQL(", ").join(tables)))
        connection.execute("UPDATE meta SET value = 0")


def postgres_at(address: PostgresAddress) -> OpenDatabase:
    """Connections to this database, by the simulation's clock."""

    def open_database(clock: Clock) -> Database:
        return _opened(address, clock)

    return open_database


def _opened(address: PostgresAddress, clock: Clock) -> Database:
    # What is synced makes no difference inside one machine's run.
    return PostgresDatabase.open(address, purpose="config", clock=clock, synchronous="NORMAL", allow_unsynced=True)
