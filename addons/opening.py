"""Opening the configuration store of an app directory, with the providers the registry knows. Loads no mitmproxy."""

from collections.abc import Mapping
from pathlib import Path

from addons.providers.registry import FAMILIES
from store.clock import Clock, Ids
from store.config_store.bootstrap import open_config_store
from store.config_store.store import ConfigStore
from store.settings import Settings
from store.sqlite import SqliteDatabase

BUILTIN: Mapping[str, str] = {name: name for name in FAMILIES}
"""Providers that are known without being configured: name → registry entry."""


def store_path(app_dir: Path, configured: str | None, name: str) -> Path:
    """A store's file: as configured, relative to the app directory, else its usual name there."""
    return app_dir / (configured or name)


def open_store(app_dir: Path, settings: Settings, clock: Clock, ids: Ids) -> ConfigStore:
    """config.db opened and brought up to date. Raises UserError."""
    database = SqliteDatabase.open(store_path(app_dir, settings.config_store.config.path, "config.db"), clock=clock)
    database.migrate()
    return open_config_store(database, settings, clock=clock, ids=ids, builtin=dict(BUILTIN))
