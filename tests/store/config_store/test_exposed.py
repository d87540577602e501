"""Secret files that every user may read are found wherever a secret may stand: in the settings and in the store."""

from pathlib import Path

import pytest

from store.config_store import change, exposed
from store.config_store.secret_text import environ_of
from store.config_store.specs import ProviderSpec
from store.config_store.store import ConfigStore
from store.settings import settings_from


def test_each_file_is_named_once(store: ConfigStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposed, "open_to_all", lambda path: path.name != "closed")
    for name in ("key", "password", "provider", "value", "closed"):
        (tmp_path / name).write_text("sk-bf-some-value" if name == "value" else "a secret")
    document = {
        "encryption_key": "file:key",
        "auth_config": {"admin_username": "admin", "admin_password": {"type": "file", "ref": "password"}},
        "providers": {"openai": {"keys": [{"name": "a", "value": "file:provider"}, {"name": "b", "value": "file:closed"}]}},
        "governance": {"virtual_keys": [{"name": "vk", "value": "file:value"}]},
    }
    environ = environ_of(tmp_path, {})
    settings = settings_from(document, environ, source="config.json")
    change.create_provider(store, "openai", ProviderSpec.model_validate(document["providers"]["openai"]))  # type: ignore[index]
    found = exposed.exposed_files(settings, store, environ)
    names = ["key", "password", "provider", "value"]
    paths = [tmp_path / name for name in names]
    assert found == tuple(f"the secret file {path} can be read by every user of this machine: chmod 600 {path}" for path in paths)
    monkeypatch.setattr(exposed, "open_to_all", lambda path: False)
    assert exposed.exposed_files(settings, store, environ) == ()
