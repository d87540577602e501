"""`client` settings changed while the gateway runs: kept in the store, before the file's, given back by null or `--reseed`."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from store.config_store.audit import AuditQuery, audit_page
from store.config_store.bootstrap import BootstrapReport
from store.config_store.build import load_snapshot
from store.config_store.change_client import ClientPatch, client_in_force, settings_in_force, update_client
from store.config_store.client_config import logged_from, stored_client
from store.config_store.documents import document, entity_tag
from store.config_store.file_only import apply_file
from store.config_store.store import ConfigStore
from store.database import Database
from store.errors import Conflict, PreconditionFailed, UserError
from store.settings import Settings, settings_from
from tests.store.config_store.conftest import StillClock


def settings(**sections: Any) -> Settings:
    return settings_from(sections, {}, source="config.json")


def kept(store: ConfigStore) -> dict[str, Any]:
    with store.database.read() as connection:
        return stored_client(connection)


def patch(**fields: Any) -> ClientPatch:
    return ClientPatch.model_validate(fields)


def test_what_is_changed_is_kept_and_goes_before_the_file(store: ConfigStore) -> None:
    file = settings(client={"log_retention_days": 30, "allow_direct_keys": True})
    update_client(store, file, patch(log_retention_days=7, enable_logging=False, allowed_origins=["https://a.example"]))
    assert kept(store) == {"log_retention_days": 7, "enable_logging": False, "allowed_origins": ["https://a.example"]}
    force = settings_in_force(file, kept(store)).client
    assert (force.log_retention_days, force.enable_logging, force.allow_direct_keys) == (7, False, True)
    assert force.allowed_origins == ("https://a.example",)
    assert dict(load_snapshot(store, os.environ).client) == kept(store)
    assert settings_in_force(file, kept(store)).file_only is False


def test_what_was_read_can_be_sent_back_without_being_kept(store: ConfigStore) -> None:
    """Otherwise a later change of the file would silently do nothing."""
    file = settings(client={"log_retention_days": 30})
    whole = client_in_force(file, {}).model_dump(mode="json")
    assert update_client(store, file, patch(**whole)) == {}
    assert update_client(store, file, patch(**{**whole, "log_retention_days": 31})) == {"log_retention_days": 31}
    assert update_client(store, file, patch(log_retention_days=30)) == {"log_retention_days": 30}, "said aloud, it is kept"


def test_null_gives_the_file_its_place_back(store: ConfigStore) -> None:
    file = settings(client={"log_retention_days": 30})
    update_client(store, file, patch(log_retention_days=7, allow_direct_keys=True))
    assert update_client(store, file, patch(log_retention_days=None)) == {"allow_direct_keys": True}
    assert client_in_force(file, kept(store)).log_retention_days == 30
    update_client(store, file, patch(allow_direct_keys=None))
    with store.database.read() as connection:
        assert connection.execute("SELECT 1 FROM config_meta WHERE key = 'client_config'") == []


def test_a_change_bumps_the_revision_and_leaves_one_row(store: ConfigStore) -> None:
    before = load_snapshot(store, {}).revision
    update_client(store, settings(), patch(log_retention_days=7))
    assert load_snapshot(store, {}).revision == before + 1
    with store.ledger.read() as connection:
        (row,) = audit_page(connection, AuditQuery(), 10, 0).entries
    assert (row.action, row.kind, row.before, row.after) == (
        "update",
        "client_config",
        '{"id":"client"}',
        '{"id":"client","log_retention_days":7}',
    )


def test_a_stale_change_is_refused(store: ConfigStore) -> None:
    with store.reading() as (connection, ledger):
        tag = entity_tag(document(connection, ledger, "client_config", "client") or {})
    guarded = replace(store, if_match=tag)
    update_client(guarded, settings(), patch(log_retention_days=7))
    with pytest.raises(PreconditionFailed):
        update_client(guarded, settings(), patch(log_retention_days=8))


@pytest.mark.parametrize(
    "fields",
    [
        {"log_retention_days": 0},
        {"log_retention_days": -1},
        {"log_retention_days": "7"},
        {"enable_logging": 1},
        {"allowed_origins": ["example.com"]},
        {"allowed_origins": "https://a.example"},
        {"enable_loging": True},
        {"drop_excess_requests": True},
        {"routing_chain_max_depth": 0},
    ],
)
def test_shapes_that_make_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClientPatch.model_validate(fields)


def test_what_the_file_makes_void_is_refused_by_name(store: ConfigStore) -> None:
    with pytest.raises(UserError, match="log_retention_days: has no effect while config.json says logs_store.retention_days"):
        update_client(store, settings(logs_store={"retention_days": 3}), patch(log_retention_days=7))
    with pytest.raises(UserError, match="enable_logging: has no effect while config.json says logs_store.enabled false"):
        off = settings(logs_store={"enabled": False}, client={"enable_logging": False})
        update_client(store, off, patch(enable_logging=True))
    assert kept(store) == {}


def test_values_of_another_version_do_not_stop_the_gateway() -> None:
    file = settings(client={"log_retention_days": 30})
    assert client_in_force(file, {"something_new": 1, "log_retention_days": 7}).log_retention_days == 7
    assert client_in_force(file, {"log_retention_days": "seven"}).log_retention_days == 30


Seeded = Callable[..., tuple[ConfigStore, BootstrapReport]]


def test_ignored_fields_of_the_file_are_named_and_reseed_applies_them(seeded: Seeded) -> None:
    file = {"client": {"log_retention_days": 30, "allow_direct_keys": True}, "providers": {"openai": {}}}
    store, report = seeded(file)
    assert report.ignored == ()
    update_client(store, settings(**file), patch(log_retention_days=7, enable_logging=False))
    _, report = seeded(file)
    assert report.ignored == ("providers: openai", "client: log_retention_days")
    _, report = seeded(file, reseed=True)
    assert report.ignored == () and kept(store) == {"enable_logging": False}, "the file says nothing of the other"
    with store.ledger.read() as connection:
        found = audit_page(connection, AuditQuery(kind="client_config"), 10, 0).entries
    assert [row.action for row in found] == ["reseed", "update"]


def test_file_only_mode_changes_nothing(database: Database, clock: StillClock) -> None:
    from store.clock import Ids

    file = settings(config_store={"enabled": False}, client={"log_retention_days": 30})
    store, _ = apply_file(database, file, clock=clock, ids=Ids(clock))
    with pytest.raises(Conflict, match="comes from config.json alone"):
        update_client(store, file, patch(log_retention_days=7))
    assert dict(load_snapshot(store, {}).client) == {}
    store.database.close()


def test_switching_logging_on_again_marks_from_where(store: ConfigStore) -> None:
    def mark() -> int:
        with store.database.read() as connection:
            return logged_from(connection)

    with store.database.write() as connection:
        columns = (
            "call_id, step, kind, at_ms, held_ms, cost_nanos, tokens, input_tokens, output_tokens, flags, model, price_source, note"
        )
        connection.execute(
            f"INSERT INTO posts (sequence, {columns}, parts) VALUES (41, 'c', 0, 'post', 1, 1, 1, 1, 1, 1, 0, 'm', '', '', '[]')"
        )
    update_client(store, settings(), patch(enable_logging=True, log_retention_days=3))
    update_client(store, settings(), patch(enable_logging=False))
    assert mark() == 0
    update_client(store, settings(), patch(enable_logging=None))
    assert mark() == 41
