"""What somebody who has only a login to the API may name as the place of a provider's key."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from store.config_store.bootstrap import open_config_store
from store.config_store.change_providers import ProviderKeyPatch, create_provider, create_provider_key, update_provider_key
from store.config_store.edits import Actor
from store.config_store.import_plan import Wish, apply_import, plan_import
from store.config_store.reach import Reach, reach_of
from store.config_store.secret_text import SecretText, environ_of
from store.config_store.specs import ProviderKeySpec, ProviderSpec
from store.config_store.store import ConfigStore
from store.errors import UserError
from store.settings import settings_from

REACH = Reach("/srv/tollgate", frozenset({"env.MASTER_KEY", "file:/run/secrets/master"}))


@pytest.mark.parametrize(
    "written",
    [
        "sk-plain", "env.OPENAI_API_KEY", "env.ANTHROPIC_KEY_2", "env.GROQ_TOKEN", "env.apikey", "file:secrets/openai",
        "file:/srv/tollgate/secrets/a/b", "file:/run/secrets/openai", "file:/var/run/secrets/openai", "file:secrets/../secrets/x",
    ],
)  # fmt: skip
def test_what_may_be_named(written: str) -> None:
    REACH.check(SecretText(written))


@pytest.mark.parametrize(
    "written",
    [
        "env.HOME", "env.DATABASE_URL", "env.MONKEY", "env.KEYBOARD", "env.TOLLGATE_KEY", "env.MASTER_KEY", "file:/etc/passwd",
        "file:/run/secrets/master", "file:/run/secrets/../secrets/master", "file:/run/secrets/../../etc/shadow",
        "file:/run/secrets", "file:secrets/../admin.token", "file:admin.token", "file:secrets", "file:secretsx/y",
        "file:../secrets/x", "file:/run/secretsx/y",
        "file:/proc/self/environ", "file:/srv/tollgate/config.db", "file:secrets\\..\\admin.token",
    ],
)  # fmt: skip
def test_what_may_not(written: str) -> None:
    with pytest.raises(UserError, match=r"^value: .*config\.json"):
        REACH.check(SecretText(written))


def test_without_a_known_directory_only_mounts_are_left() -> None:
    Reach().check(SecretText("file:/run/secrets/openai"))
    Reach().check(SecretText("file:secrets/openai"))
    with pytest.raises(UserError):
        Reach().check(SecretText("file:/secrets/openai"))


def test_what_config_json_keeps_for_itself(tmp_path: Path) -> None:
    document = {
        "encryption_key": "env.MASTER_KEY",
        "auth_config": {"admin_username": "root", "admin_password": "file:/run/secrets/console", "is_enabled": True},
        "providers": {"openai": {"keys": [{"name": "main", "value": "env.OPENAI_API_KEY", "models": ["*"], "weight": 1}]}},
    }
    environ = environ_of(tmp_path, {"MASTER_KEY": "m" * 40})
    assert reach_of(settings_from(document, environ, source="test"), environ) == Reach(
        str(tmp_path), frozenset({"env.MASTER_KEY", "file:/run/secrets/console"})
    )


@pytest.mark.parametrize("method", ["session", "bearer", "basic", "open"])
def test_the_api_makes_no_reference_out_of_reach(store: ConfigStore, method: str) -> None:
    api = replace(store, actor=Actor("someone", method), reach=REACH)
    for written in ("file:/etc/passwd", "env.HOME"):
        key = ProviderKeySpec.model_validate({"name": "k", "value": written, "models": ["*"], "weight": 1})
        with pytest.raises(UserError, match="over the API"):
            create_provider(api, "openai", ProviderSpec(keys=(key,)))
        with pytest.raises(UserError, match="over the API"):
            create_provider_key(api, "openai", key)


def test_what_the_machines_own_people_named_stays(store: ConfigStore) -> None:
    key = ProviderKeySpec.model_validate({"name": "k", "value": "file:/etc/keys/openai", "models": ["*"], "weight": 1})
    made = create_provider(store, "openai", ProviderSpec(keys=(key,))).keys[0]
    api = replace(store, actor=Actor("someone", "bearer"), reach=REACH)
    same = update_provider_key(
        api, "openai", made.id, ProviderKeyPatch.model_validate({"value": "file:/etc/keys/openai", "weight": 2})
    )
    assert (same.secret, same.weight) == ("file:/etc/keys/openai", 2)
    with pytest.raises(UserError):
        update_provider_key(api, "openai", made.id, ProviderKeyPatch.model_validate({"value": "file:/etc/keys/other"}))


def test_an_opened_store_knows_its_reach(store: ConfigStore, tmp_path: Path) -> None:
    environ = environ_of(tmp_path, {})
    settings = settings_from({}, environ, source="test")
    opened = open_config_store(store.database, settings, clock=store.clock, ids=store.ids)
    assert opened.reach.app_dir == str(tmp_path)


@pytest.mark.parametrize("written", ["file:/etc/passwd", "file:/etc/hostname", "env.HOME"])
@pytest.mark.parametrize(
    ("document", "place"),
    [
        (
            {"providers": {"openai": {"keys": [{"name": "k", "value": "?", "models": ["*"], "weight": 1}]}}},
            "the file: providers.openai.keys[0].value: ",
        ),
        ({"governance": {"virtual_keys": [{"name": "k", "value": "?"}]}}, "the file: governance.virtual_keys[0].value: "),
    ],
)
def test_an_import_over_the_api_is_no_way_round(store: ConfigStore, document: dict[str, Any], place: str, written: str) -> None:
    api = replace(store, actor=Actor("someone", "bearer"), reach=REACH)
    wish = Wish(json.loads(json.dumps(document).replace("?", written)), {"HOME": "sk-bf-0123456789012345"}, "the file")
    for act in (plan_import, apply_import):
        with pytest.raises(UserError, match="over the API") as fault:
            act(api, wish)
        assert str(fault.value).startswith(place)
