"""`source_of_truth: "config.json"`: the file's sections are forced at every start, the rest of them goes, and nobody edits them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from store.config_store import change, read
from store.config_store.bootstrap import BootstrapReport, seed
from store.config_store.specs import (
    BudgetPatch,
    BudgetRowSpec,
    GroupPatch,
    RateLimitRowSpec,
    TeamSpec,
    VirtualKeyPatch,
    VirtualKeySpec,
)
from store.config_store.store import ConfigStore
from store.database import Database
from store.errors import Conflict
from store.ledger.types import Scope
from store.settings import settings_from

Seeded = Callable[..., tuple[ConfigStore, BootstrapReport]]

KEYS: list[dict[str, Any]] = [
    {"name": "a", "value": "sk-bf-key-a-0001", "budgets": [{"name": "a-day", "max_limit": 5, "reset_duration": "1d"}]},
    {"name": "b"},
]


def truth(**sections: Any) -> dict[str, Any]:
    governance = {name: value for name, value in sections.items() if name != "providers"}
    made: dict[str, Any] = {"source_of_truth": "config.json", "governance": governance}
    return made | ({"providers": sections["providers"]} if "providers" in sections else {})


def names(database: Database) -> dict[str, list[str]]:
    with database.read() as connection:
        return {
            "keys": sorted(key.name for key in read.virtual_keys(connection)),
            "teams": sorted(team.name for team in read.teams(connection)),
            "providers": [provider.name for provider in read.providers(connection)],
            "rules": [rule.name for rule in read.routing_rules(connection)],
            "models": sorted(config.model_name for config in read.model_configs(connection)),
        }


def free(store: ConfigStore) -> ConfigStore:
    """The same store with nobody in the way."""
    return replace(store, truth=type(store.truth)())


def test_present_sections_are_forced_and_pruned_missing_ones_untouched(seeded: Seeded, database: Database) -> None:
    store, first = seeded(truth(virtual_keys=KEYS))
    assert first.seeded and first.forced and names(database)["keys"] == ["a", "b"]
    loose = free(store)
    change.create_virtual_key(loose, VirtualKeySpec(name="from the dashboard"))
    change.create_team(loose, TeamSpec(name="blue"))
    change.update_virtual_key(loose, "a", VirtualKeyPatch.model_validate({"description": "edited", "budgets": []}))
    _, again = seeded(truth(virtual_keys=KEYS))
    assert names(database) == {"keys": ["a", "b"], "teams": ["blue"], "providers": [], "rules": [], "models": []}
    with database.read() as connection:
        key = read.virtual_key(connection, "a")
        assert key is not None and key.description == ""
        assert [cap.name for cap in read.caps_of(connection, Scope.VIRTUAL_KEY, key.id)] == ["a-day"]
    assert again.documents is not None
    before, after = again.documents
    assert {document["name"] for document in before["virtual_key"].values()} == {"a", "b", "from the dashboard"}
    assert {document["name"] for document in after["virtual_key"].values()} == {"a", "b"}


def test_values_and_spend_outlive_every_start(seeded: Seeded, database: Database) -> None:
    store, _ = seeded(truth(virtual_keys=KEYS))
    with database.write() as connection:
        key = read.virtual_key(connection, "a")
        assert key is not None
        (cap,) = read.caps_of(connection, Scope.VIRTUAL_KEY, key.id)
    with database.read() as connection:
        hashes = {row.name: row.value_hash for row in read.virtual_keys(connection)}
    for _ in range(2):
        seeded(truth(virtual_keys=KEYS))
    with database.read() as connection:
        assert {row.name: row.value_hash for row in read.virtual_keys(connection)} == hashes
        assert read.caps_of(connection, Scope.VIRTUAL_KEY, key.id) == (cap,)


def test_a_pruned_keys_caps_stay_in_the_books_as_tombstones(seeded: Seeded, database: Database) -> None:
    seeded(truth(virtual_keys=KEYS))
    with database.read() as connection:
        found = connection.execute("SELECT id FROM caps WHERE deleted = 0")
    seeded(truth(virtual_keys=KEYS[1:]))
    with database.read() as connection:
        assert connection.execute("SELECT id, deleted FROM caps") == [(found[0][0], 1)]
        actions = connection.execute("SELECT action FROM audit WHERE kind = 'virtual_key' AND entity_name = 'a'")
    assert actions == [("delete",)]


def test_an_empty_section_deletes_only_with_reseed(seeded: Seeded, database: Database) -> None:
    seeded(truth(virtual_keys=KEYS, teams=[{"name": "blue"}]))
    _, report = seeded(truth(virtual_keys=[], teams=[{"name": "blue"}]))
    assert report.left == {"governance.virtual_keys": ("a", "b")} and names(database)["keys"] == ["a", "b"]
    _, report = seeded(truth(virtual_keys=[]), reseed=True)
    assert not report.left and names(database)["keys"] == [] and names(database)["teams"] == ["blue"]
    assert report.default_key_value is None


def test_every_kind_is_pruned(seeded: Seeded, database: Database) -> None:
    rule = {"cel_expression": "true", "targets": [{"provider": "openai", "weight": 1}]}
    override: dict[str, Any] = {"scope_kind": "global", "match_type": "exact", "pattern": "m", "request_types": ["chat_completion"],
                "patch": {"input_cost_per_token": 0.000001}}  # fmt: skip
    key = {"name": "p", "value": "sk-p"}
    whole = truth(
        providers={"openai": {"keys": [key]}, "anthropic": {"keys": [key]}},
        virtual_keys=[{**KEYS[0], "team_id": "t1"}, KEYS[1]],
        customers=[{"id": "c1", "name": "c1"}, {"id": "c2", "name": "c2"}],
        teams=[{"id": "t1", "name": "t1", "customer_id": "c1"}, {"id": "t2", "name": "t2", "customer_id": "c2"}],
        model_configs=[
            {"model_name": "gpt-4o", "budgets": [{"max_limit": 1}]}, {"model_name": "gpt-4o-mini", "budgets": [{"max_limit": 1}]},
        ],
        routing_rules=[{"name": "r1", **rule}, {"name": "r2", **rule}],
        pricing_overrides=[{"name": "o1", **override}, {"name": "o2", **override, "pattern": "n"}],
    )  # fmt: skip
    capped = [{"name": name, "budgets": [{"max_limit": 9}]} for name in ("openai", "gemini")]
    whole["governance"]["providers"] = capped
    seeded(whole)
    less = {**whole, "providers": {"openai": whole["providers"]["openai"]}}
    less["governance"] = {name: rows[:1] for name, rows in whole["governance"].items()}
    seeded(less)
    found = names(database)
    assert found == {"keys": ["a"], "teams": ["t1"], "providers": ["openai"], "rules": ["r1"], "models": ["gpt-4o"]}
    with database.read() as connection:
        assert [row.name for row in read.customers(connection)] == ["c1"]
        assert [row.name for row in read.pricing_overrides(connection)] == ["o1"]
        assert [scope_id for scope, scope_id in read.caps_by_scope(connection) if scope is Scope.PROVIDER] == ["openai"]
    _, report = seeded(less)
    assert report.documents is not None and report.documents[0] == report.documents[1], "a second start changes nothing"


def test_model_budgets_of_keys_are_not_taken_for_leftovers(seeded: Seeded, database: Database) -> None:
    model_budget = {"model_name": "gpt-4o", "budgets": [{"max_limit": 1, "reset_duration": "1d"}]}
    config = {"provider": "openai", "model_budgets": [model_budget]}
    wide = {"model_name": "x", "budgets": [{"max_limit": 1}]}
    document = truth(virtual_keys=[{"name": "a", "provider_configs": [config]}], model_configs=[wide])
    seeded(document)
    seeded(document)
    assert names(database)["models"] == ["gpt-4o", "x"]


def test_a_key_that_the_gateway_section_names_stays(seeded: Seeded, database: Database) -> None:
    seeded({})
    document = truth(virtual_keys=KEYS) | {"gateway": {"default_virtual_key": "default"}}
    seeded(document)
    assert names(database)["keys"] == ["a", "b", "default"]


def test_a_dry_run_says_it_all_and_does_nothing(seeded: Seeded, database: Database) -> None:
    store, _ = seeded(truth(virtual_keys=KEYS))
    with database.read() as connection:
        before = connection.execute("SELECT value FROM meta WHERE key = 'revision'"), connection.execute("SELECT * FROM audit")
    settings = settings_from(truth(virtual_keys=[*KEYS[:1], {"name": "c"}]), {}, source="config.json")
    report = seed(store, settings, dry_run=True)
    assert report.dry_run and report.documents is not None
    assert {document["name"] for document in report.documents[1]["virtual_key"].values()} == {"a", "c"}
    with database.read() as connection:
        after = connection.execute("SELECT value FROM meta WHERE key = 'revision'"), connection.execute("SELECT * FROM audit")
    assert after == before and names(database)["keys"] == ["a", "b"]


def test_what_the_file_owns_is_refused_and_what_was_spent_is_not(seeded: Seeded, database: Database) -> None:
    store, _ = seeded(truth(virtual_keys=KEYS))
    with database.read() as connection:
        key = read.virtual_key(connection, "a")
        assert key is not None
        (cap,) = read.caps_of(connection, Scope.VIRTUAL_KEY, key.id)
        rows = len(connection.execute("SELECT * FROM audit"))
    budget = BudgetRowSpec.model_validate({"scope": "virtual_key", "scope_id": "b", "max_limit": 1})
    limit = RateLimitRowSpec.model_validate(
        {"scope": "virtual_key", "scope_id": "b", "request_max_limit": 1, "request_reset_duration": "1h"}
    )
    attempts: list[Callable[[], object]] = [
        lambda: change.create_virtual_key(store, VirtualKeySpec(name="new")),
        lambda: change.update_virtual_key(store, "a", VirtualKeyPatch(description="x")),
        lambda: change.delete_virtual_key(store, "a"),
        lambda: change.rotate_virtual_key(store, key.id),
        lambda: change.create_budget(store, budget),
        lambda: change.update_budget(store, cap.id, BudgetPatch(name="x")),
        lambda: change.delete_budget(store, cap.id),
        lambda: change.set_rate_limit(store, limit),
    ]
    for attempt in attempts:
        with pytest.raises(Conflict, match="governance.virtual_keys of config.json say what there is.*change the file"):
            attempt()
    with database.read() as connection:
        assert read.virtual_key(connection, "a") == key and len(connection.execute("SELECT * FROM audit")) == rows
    assert change.rotate_virtual_key(store, "b").value, "the file leaves its value to the store"
    change.reset_budget(store, cap.id, "by hand")
    change.top_up_budget(store, cap.id, 10**9, "more")
    team = change.create_team(store, TeamSpec(name="blue"))
    change.update_team(store, team.id, GroupPatch.model_validate({"budgets": [{"max_limit": 3, "reset_duration": "1d"}]}))


def test_without_it_the_store_goes_first(seeded: Seeded, database: Database) -> None:
    seeded({"governance": {"virtual_keys": KEYS}})
    store, report = seeded({"source_of_truth": "split", "governance": {"virtual_keys": KEYS[:1]}})
    assert report.ignored == ("virtual keys: a",) and names(database)["keys"] == ["a", "b"]
    change.delete_virtual_key(store, "a")
