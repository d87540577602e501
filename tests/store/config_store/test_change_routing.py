"""Routing rules in the store: what is checked on saving, what a file says, what goes with a deleted owner, what is compiled."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from store.config_store import change, read
from store.config_store.build import load_snapshot
from store.config_store.change_routing import known_rule
from store.config_store.documents import document, entity_tag
from store.config_store.problems import join_problems, problems
from store.config_store.records import RoutingRuleRecord, RoutingTarget
from store.config_store.routing_rules import compile_rules
from store.config_store.specs import CustomerSpec, ProviderSpec, TeamSpec, VirtualKeySpec
from store.config_store.specs_routing import RoutingRulePatch, RoutingRuleSpec
from store.config_store.store import ConfigStore
from store.errors import Conflict, NotFound, PreconditionFailed, UserError

MINI = {"provider": "openai", "model": "gpt-4o-mini"}


def spec(**fields: Any) -> RoutingRuleSpec:
    return RoutingRuleSpec.model_validate({"name": "cheap", "cel_expression": "budget_used > 80", "targets": [MINI]} | fields)


def fault(**fields: Any) -> str:
    with pytest.raises(ValidationError) as found:
        spec(**fields)
    return join_problems(problems(RoutingRuleSpec, found.value))


def rules(store: ConfigStore) -> list[str]:
    with store.database.read() as connection:
        return [rule.name for rule in read.routing_rules(connection)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"targets": []}, "targets"),
        ({"targets": [MINI | {"weight": 0.5}]}, "their sum is 0.5"),
        ({"targets": [MINI | {"weight": 0.5}, MINI | {"weight": 0.5}]}, "stands there twice"),
        ({"targets": [{"key_id": "k"}]}, "key_id needs provider"),
        ({"targets": [{"modle": "x"}]}, "targets[0].modle: unknown key; did you mean 'model'?"),
        ({"targets": [MINI | {"weight": -1}]}, "targets[0].weight"),
        ({"cel_expression": "budget > 80"}, "cel_expression: uses 'budget'"),
        ({"cel_expression": "model =="}, "cel_expression: cannot be read: 1:9: Syntax error"),
        ({"scope": "team"}, "name the team"),
        ({"scope_id": "x"}, "a global rule binds every caller"),
        ({"scope": "user"}, "scope"),
        ({"priorty": 1}, "priorty: unknown key; did you mean 'priority'?"),
        ({"priority": 1.5}, "priority"),
    ],
)
def test_what_is_no_rule_is_told_with_its_path(fields: dict[str, Any], words: str) -> None:
    assert words in fault(**fields)


def test_thirds_are_shares_of_one() -> None:
    thirds = [{"model": name, "weight": 0.333} for name in "abc"]
    assert len(spec(targets=thirds).targets) == 3
    assert "0.996" in fault(targets=[{"model": name, "weight": 0.332} for name in "abc"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"targets": [{"provider": "opnai"}]}, "targets[0].provider: there is no provider 'opnai'; did you mean 'openai'?"),
        ({"fallbacks": ["gemini", "antropic/x"]}, "fallbacks[1]: there is no provider 'antropic'; did you mean 'anthropic'?"),
        ({"targets": [{"provider": "openai", "key_id": "first"}]}, "targets[0].key_id: openai has no key 'first'"),
        ({"scope": "virtual_key", "scope_id": "nobody"}, "scope_id: there is no virtual key 'nobody'"),
    ],
)
def test_references_must_resolve(store: ConfigStore, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as found:
        change.create_routing_rule(store, spec(**fields))
    assert words in str(found.value)
    assert rules(store) == []


def test_a_rule_is_made_changed_and_forgotten_each_with_its_audit_row(store: ConfigStore) -> None:
    key = change.create_virtual_key(store, VirtualKeySpec(name="ci"))
    change.create_provider(store, "openai", ProviderSpec.model_validate({"keys": [{"name": "main", "value": "sk-1"}]}))
    made = change.create_routing_rule(
        store, spec(scope="virtual_key", scope_id="ci", targets=[MINI | {"key_id": "main"}], query={"rules": [1, {"a": None}]})
    )
    with store.database.read() as connection:
        keys = read.provider(connection, "openai")
    assert keys is not None
    assert made.scope_id == key.id and made.targets == (RoutingTarget("openai", "gpt-4o-mini", keys.keys[0].id, 1.0),)
    assert made.query == '{"rules":[1,{"a":null}]}'
    with pytest.raises(Conflict, match="in this scope"):
        change.create_routing_rule(store, spec(scope="virtual_key", scope_id=key.id))
    other = change.create_routing_rule(store, spec(priority=-1))  # the same name in another scope
    with pytest.raises(Conflict):
        change.update_routing_rule(store, made.id, RoutingRulePatch(scope="global"))
    with pytest.raises(UserError, match="name the team"):
        change.update_routing_rule(store, made.id, RoutingRulePatch(scope="team"))
    after = change.update_routing_rule(store, made.id, RoutingRulePatch(name="dear", enabled=False, priority=7))
    assert after == replace(made, name="dear", enabled=False, priority=7, updated_ms=after.updated_ms)
    assert rules(store) == ["cheap", "dear"], "in the order in which they are asked"
    change.delete_routing_rule(store, other.id)
    with pytest.raises(NotFound):
        change.delete_routing_rule(store, other.id)
    assert rules(store) == ["dear"]
    with store.database.read() as connection:
        told = connection.execute("SELECT action, entity_id FROM audit WHERE kind = 'routing_rule' ORDER BY sequence")
    assert [tuple(row) for row in told] == [
        ("create", made.id), ("create", other.id), ("update", made.id), ("delete", other.id)
    ]  # fmt: skip


def test_a_stale_edit_changes_nothing(store: ConfigStore) -> None:
    made = change.create_routing_rule(store, spec())
    with store.reading() as (connection, ledger):
        seen = document(connection, ledger, "routing_rule", made.id)
    assert seen is not None
    change.update_routing_rule(store, made.id, RoutingRulePatch(priority=3))
    with pytest.raises(PreconditionFailed):
        change.update_routing_rule(replace(store, if_match=entity_tag(seen)), made.id, RoutingRulePatch(priority=4))


def test_rules_go_with_whom_they_were_for(store: ConfigStore) -> None:
    customer = change.create_customer(store, CustomerSpec(name="acme"))
    team = change.create_team(store, TeamSpec(name="red", customer_id=customer.id))
    key = change.create_virtual_key(store, VirtualKeySpec(name="ci", team_id=team.id))
    for scope, owner in (("customer", customer.id), ("team", team.id), ("virtual_key", key.id), ("global", None)):
        change.create_routing_rule(store, spec(name=scope, scope=scope, scope_id=owner))
    change.delete_virtual_key(store, key.id)
    assert sorted(rules(store)) == ["customer", "global", "team"]
    change.delete_team(store, team.id)
    assert sorted(rules(store)) == ["customer", "global"]
    change.delete_customer(store, customer.id)
    assert rules(store) == ["global"]


def test_a_file_seeds_rules_and_reseeding_changes_them_in_place(seeded: Callable[..., Any]) -> None:
    entry = {"name": "cheap", "cel_expression": "true", "targets": [MINI], "scope": "virtual_key", "scope_id": "ci"}
    governance: dict[str, Any] = {"virtual_keys": [{"name": "ci", "provider_configs": [{"provider": "openai"}]}]}
    store, _ = seeded({"governance": governance | {"routing_rules": [entry]}})
    with store.database.read() as connection:
        first = read.routing_rules(connection)[0]
        key = read.virtual_key(connection, "ci")
        assert known_rule(connection, RoutingRuleSpec.model_validate(entry)) == first
    assert key is not None and first.scope_id == key.id
    _, report = seeded({"governance": governance | {"routing_rules": [entry | {"priority": 5}]}})
    assert "routing rules: cheap" in report.ignored
    seeded({"governance": governance | {"routing_rules": [entry | {"priority": 5}]}}, reseed=True)
    with store.database.read() as connection:
        assert [(rule.id, rule.priority) for rule in read.routing_rules(connection)] == [(first.id, 5)]


def test_a_wrong_rule_in_a_file_is_told_with_its_place(seeded: Callable[..., Any]) -> None:
    entry = {"name": "cheap", "targets": [{"provider": "opnai"}]}
    with pytest.raises(UserError, match=r"governance\.routing_rules\[0\]\.targets\[0\]\.provider: there is no provider 'opnai'"):
        seeded({"governance": {"routing_rules": [entry]}})


def test_the_snapshot_has_the_enabled_rules_narrowest_scope_first(store: ConfigStore) -> None:
    team = change.create_team(store, TeamSpec(name="red"))
    key = change.create_virtual_key(store, VirtualKeySpec(name="ci", team_id=team.id))
    made: dict[str, dict[str, Any]] = {
        "late": {"priority": 9}, "early": {}, "off": {"enabled": False},
        "of team": {"scope": "team", "scope_id": "red", "priority": 50}, "of key": {"scope": "virtual_key", "scope_id": "ci"},
        "of nobody": {"scope": "customer", "scope_id": change.create_customer(store, CustomerSpec(name="acme")).id},
    }  # fmt: skip
    for name, fields in made.items():
        change.create_routing_rule(store, spec(name=name, cel_expression="true", **fields))
    found = load_snapshot(store, {}).routing_rules
    assert [rule.name for rule in found.of(key.id, team.id, "")] == ["of key", "of team", "early", "late"]
    assert [rule.name for rule in found.of("", "", "")] == ["early", "late"]
    assert not found.reads_fullness
    change.create_routing_rule(store, spec(name="full"))
    assert load_snapshot(store, {}).routing_rules.reads_fullness


def test_a_rule_that_no_longer_compiles_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    bad = RoutingRuleRecord("1", "old", "gone_variable > 1", (RoutingTarget(),))
    good = RoutingRuleRecord("2", "good", "true", (RoutingTarget(),))
    with caplog.at_level(logging.WARNING):
        found = compile_rules([bad, good])
    assert [rule.name for rule in found.of("", "", "")] == ["good"]
    assert "'old' is left out" in caplog.text
    assert not compile_rules([]), "no rules, nothing to ask"
