"""Another encryption key, or the first one: everything or nothing, on both engines, and no bytes of before are left on the disk."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from store.config_store import change, protect
from store.config_store.build import load_snapshot
from store.config_store.edits import Actor
from store.config_store.keys import hash_key_value
from store.config_store.protect import finish_scrub, open_vault, readable
from store.config_store.reencrypt import check_new_key, reencrypt
from store.config_store.specs import ProviderKeySpec, ProviderSpec, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.database import Connection, Database
from store.errors import Conflict, StoreUnavailable, UserError
from store.sqlite import SqliteDatabase
from tests.store.config_store.conftest import StillClock

OLD, NEW = "correct horse battery", "staple of another kind"
SECRET, HEADER = "sk-provider-secret-of-the-canary", "header-secret-of-the-canary"
ACTOR = Actor("root", "command line")


def fill(store: ConfigStore) -> str:
    keys = [{"name": "a", "value": SECRET}, {"name": "b", "value": "env.B_KEY"}, {"name": "c", "value": "file:c"}]
    document = {"keys": keys, "network_config": {"extra_headers": {"x-account": HEADER}}}
    change.create_provider(store, "openai", ProviderSpec.model_validate(document))
    value = change.create_virtual_key(store, VirtualKeySpec(name="vk")).value
    if value is None:
        raise RuntimeError("a new key comes with its value")
    return value


def secrets_in(store: ConfigStore) -> tuple[list[str], dict[str, str]]:
    provider = load_snapshot(store, {"B_KEY": "from-env"}).providers["openai"]
    return [key.value for key in provider.keys], dict(provider.extra_headers)


def on_disk(database: SqliteDatabase) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(database.path.parent.glob(f"{database.path.name}*")))


def rotated(database: Database, store: ConfigStore, old: str | None, new: str) -> ConfigStore:
    reencrypt(database, old, new, clock=store.clock, actor=ACTOR)
    return replace(store, vault=open_vault(database, new))


def test_a_first_key_leaves_no_byte_of_before_in_the_files(store: ConfigStore, database: Database) -> None:
    """Also of values that were replaced or deleted long before."""
    first = fill(store)
    change.update_provider_key(store, "openai", "a", change.ProviderKeyPatch.model_validate({"value": "sk-replaced-canary-2"}))
    change.create_provider_key(store, "openai", change_spec("gone", "sk-deleted-canary-3"))
    change.delete_provider_key(store, "openai", "gone")
    second = change.rotate_virtual_key(store, "vk").value or ""
    canaries = [SECRET, "sk-replaced-canary-2", "sk-deleted-canary-3", first, second, HEADER]
    if isinstance(database, SqliteDatabase):
        before = on_disk(database)
        assert all(canary.encode() in before for canary in canaries), "else this test proves nothing"
    vault = open_vault(database, OLD)
    if isinstance(database, SqliteDatabase):
        after = on_disk(database)
        assert [canary for canary in canaries if canary.encode() in after] == []
        assert b"x-account" in after
    with database.read() as connection:
        found = readable(connection)
    assert (found.is_encrypted, found.clear, found.sealed, found.references, found.scrub_due) == (True, 0, 2, 2, False)
    assert secrets_in(replace(store, vault=vault)) == (["sk-replaced-canary-2", "from-env"], {"x-account": HEADER})


def change_spec(name: str, value: str) -> ProviderKeySpec:
    return ProviderKeySpec.model_validate({"name": name, "value": value})


def test_the_store_has_the_new_key_and_nothing_else_is_different(store: ConfigStore, database: Database) -> None:
    sealing = replace(store, vault=open_vault(database, OLD))
    value = fill(sealing)
    before = secrets_in(sealing)
    after = rotated(database, store, OLD, NEW)
    assert secrets_in(after) == before == ([SECRET, "from-env"], {"x-account": HEADER})
    assert load_snapshot(after, {}).find(hash_key_value(value), 0) is not None, "virtual keys go on"
    with pytest.raises(UserError, match="encryption_key is not the key that this store was encrypted with"):
        open_vault(database, OLD)
    with pytest.raises(UserError, match="is not the key"):
        load_snapshot(sealing, {})  # a process that still has the old vault keeps its last snapshot


def test_the_wrong_old_key_changes_nothing(store: ConfigStore, database: Database) -> None:
    sealing = replace(store, vault=open_vault(database, OLD))
    fill(sealing)
    before = rows(database)
    for old, said in (("not the right one", "is not the key"), (None, "the store is encrypted; set encryption_key")):
        with pytest.raises(UserError, match=said):
            reencrypt(database, old, NEW, clock=store.clock, actor=ACTOR)
    with pytest.raises(UserError, match="is the one that the store has already"):
        reencrypt(database, OLD, OLD, clock=store.clock, actor=ACTOR)
    assert rows(database) == before


def rows(database: Database) -> list[tuple[object, ...]]:
    with database.read() as connection:
        found = connection.execute("SELECT id, secret, sealed FROM provider_keys ORDER BY id")
        return found + connection.execute("SELECT key, value FROM config_meta ORDER BY key")


@pytest.mark.parametrize("after_statement", range(1, 7))
def test_a_crash_in_the_middle_leaves_the_old_key(
    store: ConfigStore, database: Database, monkeypatch: pytest.MonkeyPatch, after_statement: int
) -> None:
    sealing = replace(store, vault=open_vault(database, OLD))
    fill(sealing)
    before, written = rows(database), 0
    kind = type(next(iter(_connections(database))))
    real: Callable[..., list[tuple[object, ...]]] = kind.execute

    def failing(self: Connection, sql: str, params: object = ()) -> list[tuple[object, ...]]:
        nonlocal written
        if sql.startswith(("UPDATE provider", "UPDATE virtual_keys", "INSERT INTO config_meta")):
            written += 1
            if written == after_statement:
                raise KeyboardInterrupt
        return real(self, sql, params)

    monkeypatch.setattr(kind, "execute", failing)
    with pytest.raises(KeyboardInterrupt):
        reencrypt(database, OLD, NEW, clock=store.clock, actor=ACTOR)
    monkeypatch.undo()
    assert written == after_statement and rows(database) == before
    assert secrets_in(sealing)[0] == [SECRET, "from-env"]


def _connections(database: Database) -> list[Connection]:
    with database.read() as connection:
        return [connection]


def test_what_could_not_be_scrubbed_is_scrubbed_at_the_next_start(
    store: ConfigStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)

    def busy() -> bool:
        raise StoreUnavailable("somebody keeps it locked")

    monkeypatch.setattr(database, "scrub", busy)
    open_vault(database, OLD)
    with database.read() as connection:
        assert readable(connection).scrub_due
    monkeypatch.undo()
    open_vault(database, OLD)
    with database.read() as connection:
        assert not readable(connection).scrub_due
    if isinstance(database, SqliteDatabase):
        assert SECRET.encode() not in on_disk(database)


def test_a_reader_makes_sqlite_wait_with_the_scrub(tmp_path: Path, clock: StillClock) -> None:
    database = SqliteDatabase.open(tmp_path / "config.db", clock=clock, foreign_wait_seconds=0.1)
    database.migrate()
    other = SqliteDatabase.open(tmp_path / "config.db", clock=clock)
    with other.read() as connection:
        connection.execute("SELECT count(*) FROM providers")
        assert database.scrub() is False
    assert finish_scrub(database) is True
    other.close()
    database.close()


def test_two_at_once_do_not_mix(store: ConfigStore, database: Database) -> None:
    sealing = replace(store, vault=open_vault(database, OLD))
    fill(sealing)
    check = protect.check_token_of(database)
    vault = open_vault(database, OLD)
    rotated(database, store, OLD, "the third one, quicker")
    assert protect.change_key(database, vault, NEW, expected_check=check) is None
    assert secrets_in(replace(store, vault=open_vault(database, "the third one, quicker")))[0] == [SECRET, "from-env"]


def test_a_serving_gateway_is_in_the_way(store: ConfigStore, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "watchers", lambda: 3)
    with pytest.raises(Conflict, match="a gateway serves from .* stop it first"):
        reencrypt(database, None, NEW, clock=store.clock, actor=ACTOR)


def test_postgres_knows_who_watches(store: ConfigStore, database: Database) -> None:
    if database.engine != "postgres":
        assert database.watchers() == 0
        return
    import threading

    told = threading.Event()
    assert database.watchers() == 0
    database.watch(told.set)
    assert told.wait(10)
    assert database.watchers() == 1


def test_the_audit_log_tells_of_it_without_keys(store: ConfigStore, database: Database) -> None:
    fill(store)
    rotated(database, store, None, OLD)
    rotated(database, store, OLD, NEW)
    with database.read() as connection:
        found = connection.execute("SELECT action, kind, actor, before, after, details FROM audit WHERE kind = 'encryption'")
        every = json.dumps(connection.execute("SELECT * FROM audit"))
    assert [tuple(row[:3]) for row in found] == [("encrypt", "encryption", "root"), ("rotate", "encryption", "root")]
    assert [secret for secret in (OLD, NEW, SECRET, HEADER) if secret in every] == []


def test_a_hidden_header_that_comes_back_stays_what_it_is(store: ConfigStore, database: Database) -> None:
    sealing = replace(store, vault=open_vault(database, OLD))
    fill(sealing)
    patch = {"network_config": {"extra_headers": {"x-account": "…", "x-new": "n"}}}
    change.update_provider(sealing, "openai", change.ProviderPatch.model_validate(patch))
    assert secrets_in(sealing)[1] == {"x-account": HEADER, "x-new": "n"}


def test_offline_commands_do_not_encrypt_under_a_running_gateway(store: ConfigStore, database: Database) -> None:
    fill(store)
    assert not open_vault(database, OLD, seal=False).is_sealing
    with database.read() as connection:
        assert not readable(connection).is_encrypted


@pytest.mark.parametrize("key", ["", "short", "eleven long", " surrounded by space", "ends with space "])
def test_poor_new_keys_are_refused(key: str) -> None:
    with pytest.raises(UserError, match="must have 12 characters or more") as caught:
        check_new_key(key)
    assert len(key) < 3 or key not in str(caught.value)


def test_the_same_secret_once_more_is_no_change(store: ConfigStore, database: Database) -> None:
    sealing = replace(store, vault=open_vault(database, OLD))
    fill(sealing)
    before = rows(database), headers(database)
    change.update_provider_key(sealing, "openai", "a", change.ProviderKeyPatch.model_validate({"value": SECRET}))
    patch = {"network_config": {"extra_headers": {"x-account": HEADER}}}
    change.update_provider(sealing, "openai", change.ProviderPatch.model_validate(patch))
    assert (rows(database), headers(database)) == before


def headers(database: Database) -> list[tuple[object, ...]]:
    with database.read() as connection:
        return connection.execute("SELECT extra_headers FROM providers")
