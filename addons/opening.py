"""Opening the configuration store of an app directory, with the providers the registry knows. Loads no mitmproxy."""

from collections.abc import Mapping
from pathlib import Path

from addons.providers.registry import FAMILIES
from store.clock import Clock, Ids
from store.config_store.bootstrap import BootstrapReport, open_config_store, seed
from store.config_store.file_only import apply_file, open_file_only
from store.config_store.store import ConfigStore
from store.database import Database
from store.opening import open_config_database
from store.settings import Settings

BUILTIN: Mapping[str, str] = {name: name for name in FAMILIES}
"""Providers that are known without being configured: name → registry entry."""


def open_store(app_dir: Path, settings: Settings, clock: Clock, ids: Ids) -> ConfigStore:
    """The configuration, and the ledger, where the settings say, brought up to date. Raises UserError."""
    database = _up_to_date(app_dir, settings, clock)
    return store_on(database, settings, clock, ids)


def store_on(database: Database, settings: Settings, clock: Clock, ids: Ids) -> ConfigStore:
    """As `open_store`, on a database that is open and up to date. It is closed when it cannot serve. Raises UserError."""
    opener = open_file_only if settings.file_only else open_config_store
    try:
        return opener(database, settings, clock=clock, ids=ids, builtin=dict(BUILTIN))
    except BaseException:
        database.close()
        raise


def prepare_store(
    app_dir: Path, settings: Settings, clock: Clock, ids: Ids, *, reseed: bool = False, dry_run: bool = False
) -> tuple[ConfigStore, BootstrapReport]:
    """Before anybody serves: an empty store is seeded from the file; in file-only mode the file is applied to the ledger.

    `dry_run` (not in file-only mode): only say what would be done with the file. Raises UserError, with nothing changed.
    """
    database = _up_to_date(app_dir, settings, clock)
    try:
        if settings.file_only:
            store, made = apply_file(database, settings, clock=clock, ids=ids, builtin=dict(BUILTIN))
            return store, BootstrapReport(applied=str(made), warnings=settings.warnings)
        store = open_config_store(database, settings, clock=clock, ids=ids, builtin=dict(BUILTIN), seal=not dry_run)
        return store, seed(store, settings, reseed=reseed, dry_run=dry_run)
    except BaseException:
        database.close()
        raise


def _up_to_date(app_dir: Path, settings: Settings, clock: Clock) -> Database:
    database = open_config_database(app_dir, settings, clock)
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
    return database
