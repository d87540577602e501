"""Documents say what somebody would have to write to get the thing as it is: they change with the configuration only."""

from dataclasses import replace
from typing import Any

import pytest

from store.config_store import change, read
from store.config_store.documents import HIDDEN, document, entity_tag
from store.config_store.edits import Actor
from store.config_store.specs import (
    BudgetPatch,
    BudgetRowSpec,
    CustomerSpec,
    ProviderSpec,
    TeamSpec,
    VirtualKeyPatch,
    VirtualKeySpec,
)
from store.config_store.store import ConfigStore
from store.errors import PreconditionFailed
from store.ledger.types import Scope, Unit

FULL_KEY = {
    "name": "workshop",
    "description": "for Thursday",
    "expires_at": "2036-01-01T00:00:00Z",
    "budgets": [
        {"max_limit": 0.5, "reset_duration": "1h"},
        {"name": "month", "max_limit": 20, "reset_duration": "1M", "timezone": "Europe/Berlin", "calendar_aligned": True},
        {"max_limit": 3, "enforcement": "observe", "strict": True},
    ],
    "rate_limit": {"request_max_limit": 5, "request_reset_duration": "1m", "concurrent_max_limit": 2},
    "provider_configs": [
        {"provider": "openai", "weight": 0.5, "allowed_models": ["gpt-4o*"], "budgets": [{"max_limit": 1, "reset_duration": "1d"}]},
        {"provider": "anthropic", "allowed_models": [], "key_ids": []},
    ],
}


def written(store: ConfigStore, kind: str, name: str) -> dict[str, Any]:
    with store.reading() as (connection, ledger):
        found = document(connection, ledger, kind, name)
    assert found is not None
    return found


def test_a_document_made_into_a_thing_gives_the_same_document(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec.model_validate(FULL_KEY))
    first = written(store, "virtual_key", "workshop")
    change.delete_virtual_key(store, "workshop")
    change.create_virtual_key(store, VirtualKeySpec.model_validate(_bare(first)))
    second = written(store, "virtual_key", "workshop")
    assert _bare(first) == _bare(second)
    assert first["budgets"][1]["name"] == "month" and "name" not in first["budgets"][0]
    assert second["provider_configs"][1]["allowed_models"] == [] and second["provider_configs"][1]["key_ids"] == []


def _bare(made: Any) -> Any:
    """Without ids and values, at every depth."""
    if isinstance(made, dict):
        return {key: _bare(value) for key, value in made.items() if key not in ("id", "value")}
    return [_bare(value) for value in made] if isinstance(made, list | tuple) else made


@pytest.mark.parametrize("kind", ["team", "customer"])
def test_groups_have_documents(store: ConfigStore, kind: str) -> None:
    change.create_customer(store, CustomerSpec(name="acme"))
    if kind == "team":
        change.create_team(store, TeamSpec.model_validate({"name": "acme", "customer_id": "acme", "budgets": [{"max_limit": 1}]}))
    found = written(store, kind, "acme")
    assert found["name"] == "acme"
    assert ("customer_id" in found, "budgets" in found) == (kind == "team", kind == "team")


def test_a_tag_changes_with_the_configuration_and_not_with_what_is_spent(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec.model_validate(FULL_KEY))
    before = entity_tag(written(store, "virtual_key", "workshop"))
    with store.database.read() as connection:
        key = read.virtual_key(connection, "workshop")
        assert key is not None
        cap = next(cap for cap in read.caps_of(connection, Scope.VIRTUAL_KEY, key.id) if cap.unit is Unit.USD)
    change.reset_budget(store, cap.id, "a test")
    assert entity_tag(written(store, "virtual_key", "workshop")) == before
    change.update_budget(store, cap.id, BudgetPatch.model_validate({"max_limit": 0.75}))
    assert entity_tag(written(store, "virtual_key", "workshop")) != before


def test_an_edit_of_what_was_changed_meanwhile_is_refused_and_changes_nothing(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec(name="workshop"))
    seen = entity_tag(written(store, "virtual_key", "workshop"))
    change.update_virtual_key(store, "workshop", VirtualKeyPatch(description="by somebody else"))
    with pytest.raises(PreconditionFailed, match="workshop"):
        change.update_virtual_key(replace(store, if_match=seen), "workshop", VirtualKeyPatch(description="mine"))
    assert written(store, "virtual_key", "workshop")["description"] == "by somebody else"


def test_every_change_leaves_a_row_without_secrets(store: ConfigStore) -> None:
    somebody = replace(store, actor=Actor("ada", "session", "10.0.0.7"))
    change.create_provider(
        somebody,
        "openai",
        ProviderSpec.model_validate(
            {
                "keys": [{"name": "main", "value": "sk-very-secret-text"}],
                "network_config": {"base_url": "https://api.openai.com/v1", "extra_headers": {"x-org": "hush"}},
            }
        ),
    )
    made = change.create_virtual_key(somebody, VirtualKeySpec(name="workshop"))
    change.create_budget(somebody, BudgetRowSpec.model_validate({"max_limit": 1, "scope": "virtual_key", "scope_id": "workshop"}))
    change.delete_virtual_key(somebody, "workshop")
    with store.database.read() as connection:
        rows = connection.execute(
            "SELECT actor, method, address, action, kind, entity_name, before, after FROM audit ORDER BY sequence"
        )
    assert [(row[3], row[4], row[5]) for row in rows[-4:]] == [
        ("create", "provider", "openai"),
        ("create", "virtual_key", "workshop"),
        ("create", "budget", "workshop prepaid"),
        ("delete", "virtual_key", "workshop"),
    ]
    assert {row[:3] for row in rows[-4:]} == {("ada", "session", "10.0.0.7")}
    assert rows[-1][7] is None and rows[-2][6] is None
    text = repr(rows)
    assert made.value is not None and made.value not in text
    assert "very-secret" not in text and "hush" not in text and HIDDEN in text
