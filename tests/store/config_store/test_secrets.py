"""Keys and secrets: their form, what is kept of them, and that nothing in the file is readable once it is encrypted."""

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.clock import Ids
from store.config_store import change
from store.config_store.build import load_snapshot
from store.config_store.keys import check_key_value, hash_key_value, key_hint, new_key_value, new_run_value
from store.config_store.protect import open_vault
from store.config_store.secret_text import SecretText, parse_secret
from store.config_store.specs import ProviderSpec, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.config_store.vault import Vault
from store.database import Database
from store.errors import UserError
from store.sqlite import SqliteDatabase


@given(st.binary(min_size=16, max_size=16))
def test_values_are_uuid4s_behind_the_prefix(entropy: bytes) -> None:
    value = new_key_value(lambda size: entropy[:size])
    parsed = uuid.UUID(value.removeprefix("sk-bf-"))
    assert parsed.version == 4 and parsed.variant == uuid.RFC_4122
    assert str(parsed) == value.removeprefix("sk-bf-")
    assert check_key_value(value) == value
    run = new_run_value(lambda size: entropy[:size])
    assert run == f"sk-bf-run-{parsed}"


def test_hashes_and_hints() -> None:
    assert hash_key_value("sk-bf-abc") == hashlib.sha256(b"sk-bf-abc").hexdigest()
    assert key_hint("sk-bf-0123456789abcdef") == "sk-bf-…cdef"
    assert key_hint("sk-bf-run-0123456789abcdef") == "sk-bf-run-…cdef"


@pytest.mark.parametrize("value", ["sk-bf-", "sk-bf-abc", "abc", "SK-BF-12345", "sk-bf-ä1234", "sk-bf-a:b@c", "sk-bf-" + "x" * 600])
def test_values_that_cannot_travel_are_refused_without_showing_them(value: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_key_value(value)
    assert len(value) <= 6 or value not in str(caught.value)


@pytest.mark.parametrize(
    "written", [None, 5, True, [], {}, {"value": 5}, {"type": "vault", "ref": "x"}, {"value": "a", "vlaue": "b"}, "vault.x", "env."]
)
def test_secrets_of_the_wrong_form(written: object) -> None:
    with pytest.raises(ValueError):
        parse_secret(written)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert SecretText("env.X").resolve({"X": ""}) is None
    assert SecretText("plain").resolve({}) == "plain"


def test_a_vault_opens_only_with_its_own_key() -> None:
    vault = Vault(("correct horse",), b"0123456789abcdef")
    sealed = vault.seal("sk-real-key")
    assert "sk-real-key" not in sealed and vault.seal("sk-real-key") != sealed
    assert vault.open(sealed) == "sk-real-key"
    with pytest.raises(UserError, match="encryption_key is not the key"):
        Vault(("wrong",), b"0123456789abcdef").open(sealed)
    with pytest.raises(UserError, match="the store is encrypted"):
        Vault().open(sealed)
    assert Vault(("new", "correct horse"), b"0123456789abcdef").open(sealed) == "sk-real-key"
    assert "horse" not in repr(vault)


@pytest.fixture
def filled(store: ConfigStore) -> Callable[[ConfigStore], str]:
    def fill(target: ConfigStore) -> str:
        keys = [{"name": "a", "value": "sk-provider-secret-1"}, {"name": "b", "value": "env.B_KEY"}]
        change.create_provider(target, "openai", ProviderSpec.model_validate({"keys": keys}))
        value = change.create_virtual_key(target, VirtualKeySpec(name="vk")).value
        assert value is not None
        return value

    return fill


def _bytes_kept(database: Database) -> bytes:
    """All that is kept: the file with its log, or every row of every table."""
    if isinstance(database, SqliteDatabase):
        files = [Path(f"{database.path}{end}") for end in ("", "-wal")]
        return b"".join(file.read_bytes() for file in files if file.exists())
    with database.read() as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [row for (table,) in tables for row in connection.execute(f'SELECT t::text FROM "{table}" AS t')]
    return "\n".join(row[0] for row in rows).encode()


def test_with_a_key_nothing_readable_reaches_the_disk(
    database: Database, store: ConfigStore, filled: Callable[[ConfigStore], str]
) -> None:
    vault = open_vault(database, "correct horse")
    sealing = ConfigStore(database, store.clock, Ids(store.clock), vault)
    value = filled(sealing)
    raw = _bytes_kept(database)
    assert b"sk-provider-secret-1" not in raw and value.encode() not in raw
    assert value[-4:].encode() in raw, "the hint is there, so the check above looks at the right bytes"
    snapshot = load_snapshot(sealing, {"B_KEY": "from-env"})
    assert [key.value for key in snapshot.providers["openai"].keys] == ["sk-provider-secret-1", "from-env"]
    assert hash_key_value(value) in snapshot.by_hash


def test_a_key_given_later_seals_what_is_there(
    database: Database, store: ConfigStore, filled: Callable[[ConfigStore], str]
) -> None:
    value = filled(store)
    with database.read() as connection:
        assert connection.execute("SELECT value FROM virtual_keys") == [(value,)]
    vault = open_vault(database, "correct horse")
    with database.read() as connection:
        assert connection.execute("SELECT value FROM virtual_keys") == [(None,)]
        rows = connection.execute("SELECT name, secret, sealed FROM provider_keys ORDER BY name")
    assert rows[0][1] != "sk-provider-secret-1" and rows[0][2] == 1
    assert tuple(rows[1]) == ("b", "env.B_KEY", 0)
    reopened = ConfigStore(database, store.clock, store.ids, vault)
    assert load_snapshot(reopened, {}).providers["openai"].keys[0].value == "sk-provider-secret-1"


def test_the_wrong_key_or_none_is_refused_at_once(database: Database) -> None:
    open_vault(database, "correct horse")
    assert open_vault(database, "correct horse").is_sealing
    with pytest.raises(UserError, match="encryption_key is not the key that this store was encrypted with"):
        open_vault(database, "battery staple")
    with pytest.raises(UserError, match="the store is encrypted; set encryption_key"):
        open_vault(database, None)
