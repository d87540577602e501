"""The work of `store copy`: opens the stores at both ends, copies ledger and logs, and says what was copied."""

import os
from pathlib import Path

from addons.process.stores import config_is_missing, config_place_of, settings_of
from addons.process.supervisor import owned
from store.clock import Clock, SystemClock
from store.config_store.secret_text import environ_of
from store.copy import CopyReport, copy_ledger, copy_rows, empty_again, refuse_unless_empty
from store.database import Database
from store.errors import UserError
from store.logs.opening import open_logs_store
from store.logs.schema import MIGRATIONS
from store.money import format_usd
from store.opening import LOGS_FILE, config_place, open_config_database, place_of, sqlite_path
from store.settings import Settings, load_settings


def copy_stores(app_dir: Path, target: Path, config: Path | None, *, with_logs: bool) -> None:
    """Copy, and print what was copied. Raises UserError and StoreUnavailable, with nothing kept of what failed."""
    if not target.is_file():
        raise UserError(f"there is no file {target}: --to names a config.json whose stores are the new places")
    here, there = settings_of(app_dir, config), load_settings(target, environ_of(app_dir, os.environ))
    _refuse_unlike(app_dir, here, there)
    if config_is_missing(app_dir, here):
        raise UserError(f"there is nothing to copy: {config_place_of(app_dir, here)} is not there yet")
    clock = SystemClock()
    with owned(app_dir):
        logs = _open_logs(app_dir, here, there) if with_logs else None
        try:
            source = open_config_database(app_dir, here, clock, read_only=True)
            try:
                source.migrate()
                destination = open_config_database(app_dir, there, clock)
                try:
                    destination.migrate()
                    _copy(source, destination, logs, clock)
                finally:
                    destination.close()
            finally:
                source.close()
        finally:
            for database in logs or ():
                database.close()
    print(f"now start the gateway with {target}: tollgate serve --config {target}")


def _copy(source: Database, destination: Database, logs: tuple[Database, Database] | None, clock: Clock) -> None:
    """The logs first: they can be taken back when the ledger fails, while a ledger that was committed must stay."""
    copied = copy_rows(*logs, MIGRATIONS) if logs is not None else None
    try:
        ledger = copy_ledger(source, destination, clock)
    except BaseException:
        if logs is not None:
            empty_again(logs[1], MIGRATIONS)
        raise
    _say(ledger, source, destination)
    if copied is not None and logs is not None:
        _say(copied, *logs)


def _open_logs(app_dir: Path, here: Settings, there: Settings) -> tuple[Database, Database] | None:
    """The logs at both ends, looked at before anything is copied; None when there are none yet."""
    path = sqlite_path(here.logs_store, app_dir, LOGS_FILE)
    if path is not None and not path.is_file():
        return None
    source = open_logs_store(app_dir, here, read_only=True)
    try:
        destination = open_logs_store(app_dir, there)
        try:
            refuse_unless_empty(destination, MIGRATIONS)
        except BaseException:
            destination.close()
            raise
    except BaseException:
        source.close()
        raise
    return source, destination


def _refuse_unlike(app_dir: Path, here: Settings, there: Settings) -> None:
    if here.file_only != there.file_only:
        raise UserError(
            "config_store.enabled differs between the two files: a configuration store cannot be copied to a file-only ledger, "
            "nor back"
        )
    section, path, name = config_place(there)
    if config_place_of(app_dir, here) == place_of(section, app_dir, name):
        raise UserError(f"both files name the same {path}, {place_of(section, app_dir, name)}; name another place in the new one")
    if here.encryption_key is not None:
        key, other = (file.secret(file.encryption_key, "encryption_key") for file in (here, there))
        if key != other:
            raise UserError("encryption_key differs between the two files; a copy keeps the key that it was encrypted with")


def _say(report: CopyReport, source: Database, destination: Database) -> None:
    print(f"copied {report.rows} rows of {len(report.tables)} tables from {source.name} to {destination.name}; all compared")
    for table, rows in report.tables:
        print(f"  {table:<18} {rows:>10}")
    if report.verified is not None:
        books = report.verified
        print(
            f"the books agree there: {books.posts} postings of {books.holds} calls, {books.open_holds} still open; "
            f"all calls together cost {format_usd(books.cost_nanos)}"
        )
