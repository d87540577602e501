"""Opening the configuration store: where its file is, that it is brought up to date, and what it says when it cannot be."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from addons.opening import BUILTIN, open_store, prepare_store
from addons.providers.registry import FAMILIES
from store.clock import Ids, SystemClock
from store.config_store.build import load_snapshot
from store.config_store.store import ConfigStore
from store.errors import UserError
from store.settings import settings_from

KEY = {"encryption_key": "one passphrase of some length"}


def opened(app_dir: Path, document: dict[str, Any] | None = None) -> ConfigStore:
    clock = SystemClock()
    return open_store(app_dir, settings_from(document or {}, {}, source="config.json"), clock, Ids(clock))


def test_a_new_store_is_complete_and_knows_every_provider_of_the_registry(tmp_path: Path) -> None:
    store = opened(tmp_path)
    try:
        snapshot = load_snapshot(store, {})
    finally:
        store.database.close()
    assert (tmp_path / "config.db").is_file()
    assert set(snapshot.providers) == set(BUILTIN) == set(FAMILIES)
    assert dict(snapshot.virtual_keys) == {}
    with closing(sqlite3.connect(tmp_path / "config.db")) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"providers", "virtual_keys", "teams", "customers"} <= tables


def test_opening_again_finds_what_was_there(tmp_path: Path) -> None:
    first = opened(tmp_path)
    revision = load_snapshot(first, {}).revision
    first.database.close()
    again = opened(tmp_path)
    try:
        assert load_snapshot(again, {}).revision == revision
    finally:
        again.database.close()


def test_the_configured_path_is_used(tmp_path: Path) -> None:
    opened(tmp_path, {"config_store": {"config": {"path": "mine.db"}}}).database.close()
    assert (tmp_path / "mine.db").is_file() and not (tmp_path / "config.db").exists()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    content = b"a text, not a database. " * 100
    (tmp_path / "config.db").write_bytes(content)
    with pytest.raises(UserError, match="config.db"):
        opened(tmp_path)
    assert (tmp_path / "config.db").read_bytes() == content


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="config.db"):
        opened(tmp_path / "file")


def test_only_a_start_encrypts(tmp_path: Path) -> None:
    """A command beside a gateway that does not know of the key yet must not take the store away from it."""
    store = opened(tmp_path, KEY)
    assert not store.vault.is_sealing
    store.database.close()
    opened(tmp_path, {}).database.close()
    clock = SystemClock()
    settings = settings_from(KEY, {}, source="config.json")
    prepare_store(tmp_path, settings, clock, Ids(clock), dry_run=True)[0].close()
    opened(tmp_path, {}).database.close()
    store, _ = prepare_store(tmp_path, settings, clock, Ids(clock))
    assert store.vault.is_sealing
    store.close()
    with pytest.raises(UserError, match="the store is encrypted; set encryption_key"):
        opened(tmp_path, {})


def test_another_encryption_key_is_refused(tmp_path: Path) -> None:
    clock = SystemClock()
    prepare_store(tmp_path, settings_from(KEY, {}, source="config.json"), clock, Ids(clock))[0].close()
    with pytest.raises(UserError, match="encryption_key"):
        opened(tmp_path, {"encryption_key": "another passphrase altogether"})
    opened(tmp_path, KEY).database.close()
