"""Opens logs.db, ready for use."""

from pathlib import Path

from store.clock import Clock, SystemClock
from store.database import Database
from store.logs.schema import MIGRATIONS
from store.opening import LOGS_FILE, open_database
from store.settings import Settings
from store.sqlite import SqliteDatabase


def open_logs(path: Path | str, *, clock: Clock | None = None, read_only: bool = False) -> Database:
    """The log database at `path`, made and brought up to date unless `read_only`.

    Commits are not synced one by one: what a power loss takes from the logs, `catch_up` brings back from the ledger.
    Raises UserError when the path cannot serve.
    """
    return _migrated(SqliteDatabase.open(path, read_only=read_only, clock=clock, migrations=MIGRATIONS, synchronous="NORMAL"))


def open_logs_store(app_dir: Path, settings: Settings, *, clock: Clock | None = None, read_only: bool = False) -> Database:
    """As `open_logs`, where `logs_store` says. Raises UserError."""
    return _migrated(logs_as_found(app_dir, settings, clock=clock, read_only=read_only))


def logs_as_found(app_dir: Path, settings: Settings, *, clock: Clock | None = None, read_only: bool = False) -> Database:
    """The log database where `logs_store` says, not brought up to date. Raises UserError."""
    return open_database(
        settings.logs_store,
        app_dir,
        LOGS_FILE,
        path="logs_store",
        environ=settings.environ,
        clock=clock or SystemClock(),
        migrations=MIGRATIONS,
        synchronous="NORMAL",
        read_only=read_only,
    )


def _migrated(database: Database) -> Database:
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
    return database
