"""Logs, and a ledger beside them, on either engine: two files, or one PostgreSQL database for both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from store.clock import Clock
from store.database import Database
from store.logs.opening import open_logs
from store.logs.schema import MIGRATIONS
from store.postgres import PostgresAddress
from store.sqlite import SqliteDatabase
from tests.support.postgres import opened


class Stores:
    """Opens the same stores again and again, each time as another process would. Everything is closed at the end."""

    def __init__(self, place: Path | PostgresAddress, elsewhere: Callable[[], PostgresAddress] | None = None) -> None:
        self.place = place
        self._elsewhere = elsewhere
        self._opened: list[Database] = []

    @property
    def engine(self) -> str:
        return "sqlite" if isinstance(self.place, Path) else "postgres"

    def logs(self, clock: Clock | None = None, *, read_only: bool = False, **options: Any) -> Database:
        if isinstance(self.place, Path) and not options:
            return self._kept(open_logs(self.place / "logs.db", clock=clock, read_only=read_only))
        given: dict[str, Any] = {"migrations": MIGRATIONS, "synchronous": "NORMAL", "read_only": read_only} | options
        if isinstance(self.place, Path):
            return self._migrated(SqliteDatabase.open(self.place / "logs.db", clock=clock, **given))
        return self._kept(opened(self.place, purpose="logs", clock=clock, **given))

    def ledger(self, clock: Clock | None = None) -> Database:
        if isinstance(self.place, Path):
            return self._migrated(SqliteDatabase.open(self.place / "config.db", clock=clock))
        return self._kept(opened(self.place, clock=clock))

    def other_ledger(self) -> Database:
        """An empty ledger that has nothing to do with the first."""
        if isinstance(self.place, Path):
            return self._migrated(SqliteDatabase.open(self.place / "other.db"))
        if self._elsewhere is None:
            raise RuntimeError("these stores were made without a second place")
        return self._kept(opened(self._elsewhere()))

    def close(self) -> None:
        for database in self._opened:
            database.close()

    def _migrated(self, database: Database) -> Database:
        self._kept(database).migrate()
        return database

    def _kept(self, database: Database) -> Database:
        self._opened.append(database)
        return database
