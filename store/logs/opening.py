"""Opens logs.db, ready for use."""

from pathlib import Path

from store.clock import Clock
from store.database import Database
from store.logs.schema import MIGRATIONS
from store.sqlite import SqliteDatabase


def open_logs(path: Path | str, *, clock: Clock | None = None, read_only: bool = False) -> Database:
    """The log database at `path`, made and brought up to date unless `read_only`.

    Commits are not synced one by one: what a power loss takes from the logs, `catch_up` brings back from the ledger.
    Raises UserError when the path cannot serve.
    """
    database = SqliteDatabase.open(path, read_only=read_only, clock=clock, migrations=MIGRATIONS, synchronous="NORMAL")
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
    return database
