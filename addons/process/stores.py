"""Opening an app directory's stores for a command, without starting anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.clock import Clock
from store.database import Database
from store.errors import UserError
from store.settings import Settings, load_settings
from store.sqlite import SqliteDatabase


def settings_of(app_dir: Path, config: Path | None = None) -> Settings:
    """The settings that a gateway started on this directory would have. Raises SettingsError."""
    path = config or app_dir / "config.json"
    return load_settings(path if config is not None or path.is_file() else None, os.environ)


def config_store_path(app_dir: Path, settings: Settings) -> Path:
    """Where configuration and ledger live."""
    return app_dir / (settings.config_store.config.path or "config.db")


def logs_path(app_dir: Path, settings: Settings) -> Path:
    """Where the logs live."""
    return app_dir / (settings.logs_store.config.path or "logs.db")


@contextmanager
def opened_database(app_dir: Path, settings: Settings, clock: Clock, *, read_only: bool) -> Iterator[Database]:
    """The configuration and ledger database, brought up to date unless `read_only`.

    Works beside a running gateway. Raises UserError when there is none yet, or when it cannot be used.
    """
    path = config_store_path(app_dir, settings)
    if not path.is_file():
        raise UserError(f"there is no {path} yet: start the gateway once with tollgate serve, or name another --app-dir")
    database = SqliteDatabase.open(path, read_only=read_only, clock=clock)
    try:
        database.migrate()
        yield database
    finally:
        database.close()
