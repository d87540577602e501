"""Opening an app directory's stores for a command, without starting anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.clock import Clock
from store.database import Database
from store.errors import UserError
from store.opening import config_place, open_config_database, place_of, sqlite_path
from store.settings import Settings, load_settings


def settings_of(app_dir: Path, config: Path | None = None) -> Settings:
    """The settings that a gateway started on this directory would have. Raises SettingsError."""
    path = config or app_dir / "config.json"
    return load_settings(path if config is not None or path.is_file() else None, os.environ)


def config_place_of(app_dir: Path, settings: Settings) -> str:
    """What to call the store that holds the ledger (and, but for file-only mode, the configuration)."""
    section, _, name = config_place(settings)
    return place_of(section, app_dir, name)


def config_is_missing(app_dir: Path, settings: Settings) -> bool:
    """True when that store is a file that nobody has made yet."""
    section, _, name = config_place(settings)
    path = sqlite_path(section, app_dir, name)
    return path is not None and not path.is_file()


@contextmanager
def opened_database(app_dir: Path, settings: Settings, clock: Clock, *, read_only: bool) -> Iterator[Database]:
    """The configuration and ledger database (in file-only mode the ledger's), brought up to date unless `read_only`.

    Works beside a running gateway. Raises UserError when there is none yet, or when it cannot be used.
    """
    place = config_place_of(app_dir, settings)
    if config_is_missing(app_dir, settings):
        raise UserError(f"there is no {place} yet: start the gateway once with tollgate serve, or name another --app-dir")
    database = open_config_database(app_dir, settings, clock, read_only=read_only)
    try:
        with database.read() as connection:
            if not connection.has_table(database.steps_table):
                raise UserError(f"{place} is empty: start the gateway once with tollgate serve")
        database.migrate()
        yield database
    finally:
        database.close()
