"""A snapshot that follows the edits is the one that would be read anew, whatever was edited, one by one or many at once."""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from store.config_store import change, read
from store.config_store.build import load_snapshot
from store.config_store.change_prices import create_pricing_override, delete_pricing_override
from store.config_store.follow import MOST_KEYS, follow
from store.config_store.prompts import create_prompt
from store.config_store.records import GroupRecord, VirtualKeyRecord
from store.config_store.routing_rules import RoutingRules
from store.config_store.snapshot import NO_OVERRIDES, Snapshot
from store.config_store.specs import (
    BudgetPatch,
    BudgetRowSpec,
    CustomerSpec,
    GroupPatch,
    ProviderKeySpec,
    ProviderSpec,
    RateLimitRowSpec,
    TeamSpec,
    VirtualKeyPatch,
    VirtualKeySpec,
)
from store.config_store.specs_models import ModelConfigSpec
from store.config_store.specs_prices import PricingOverrideSpec
from store.config_store.specs_prompts import PromptSpec
from store.config_store.specs_routing import RoutingRuleSpec
from store.config_store.store import ConfigStore
from store.errors import UserError
from store.ledger.types import Cap, Unit

SEEDS = range(8)
STEPS = 40


class Editor:
    """Somebody who does one thing after another, led by chance. What the store refuses does not count."""

    def __init__(self, store: ConfigStore, seed: int) -> None:
        self.store, self.random, self.count = store, random.Random(seed), 0

    def edit(self) -> str:
        """One edit; its name."""
        what = self.random.choice(_EDITS)
        self.count += 1
        try:
            what(self)
        except UserError as refused:
            return f"{what.__name__} refused: {refused}"
        return what.__name__

    def _any[Thing](self, things: tuple[Thing, ...]) -> Thing:
        if not things:
            raise UserError("there is none yet")
        return self.random.choice(things)

    def keys(self) -> tuple[VirtualKeyRecord, ...]:
        with self.store.database.read() as connection:
            return read.virtual_keys(connection)

    def groups(self, kind: str) -> tuple[GroupRecord, ...]:
        with self.store.database.read() as connection:
            return read.teams(connection) if kind == "team" else read.customers(connection)

    def budget(self) -> Cap:
        with self.store.database.read() as connection:
            return self._any(tuple(c for caps in read.caps_by_scope(connection).values() for c in caps if c.unit is Unit.USD))

    def fields(self) -> dict[str, object]:
        """Some fields of a key."""
        chance = self.random.random
        made: dict[str, object] = {"description": str(self.count)}
        if chance() < 0.5:
            made["budgets"] = [{"max_limit": self.random.randint(1, 9), "reset_duration": self.random.choice(["1h", "1d", "7d"])}]
        if chance() < 0.4 and self.groups("team"):
            made["team_id"] = self._any(self.groups("team")).id
        elif chance() < 0.4 and self.groups("customer"):
            made["customer_id"] = self._any(self.groups("customer")).id
        if chance() < 0.5:
            config: dict[str, object] = {"provider": self.random.choice(["openai", "anthropic", "*"])}
            if chance() < 0.5:
                config["budgets"] = [{"max_limit": 2, "reset_duration": "1d"}]
            if chance() < 0.4:
                config["model_budgets"] = [{"model_name": "gpt-4o", "budgets": [{"max_limit": 1, "reset_duration": "1h"}]}]
            made["provider_configs"] = [config]
        if chance() < 0.3:
            made["rate_limit"] = {"request_max_limit": 5, "request_reset_duration": "1m"}
        return made

    def create_key(self) -> None:
        spec = {"name": f"key {self.count}", **self.fields()}
        change.create_virtual_key(self.store, VirtualKeySpec.model_validate(spec))

    def update_key(self) -> None:
        change.update_virtual_key(self.store, self._any(self.keys()).id, VirtualKeyPatch.model_validate(self.fields()))

    def rename_key(self) -> None:
        change.update_virtual_key(self.store, self._any(self.keys()).name, VirtualKeyPatch(name=f"renamed {self.count}"))

    def rotate_key(self) -> None:
        change.rotate_virtual_key(self.store, self._any(self.keys()).id)

    def rotate_key_with_overlap(self) -> None:
        change.rotate_virtual_key(self.store, self._any(self.keys()).id, overlap_ms=3_600_000)

    def delete_key(self) -> None:
        change.delete_virtual_key(self.store, self._any(self.keys()).id)

    def create_group(self) -> None:
        spec = {"name": f"group {self.count}", "budgets": [{"max_limit": 5, "reset_duration": "1d"}]}
        if self.random.random() < 0.5:
            change.create_customer(self.store, CustomerSpec.model_validate(spec))
        else:
            owner = self.random.choice([*(customer.id for customer in self.groups("customer")), None])
            change.create_team(self.store, TeamSpec.model_validate({**spec, "customer_id": owner}))

    def update_team(self) -> None:
        owner = self.random.choice([*(customer.id for customer in self.groups("customer")), ""])
        patch = {"name": f"team {self.count}", "customer_id": owner, "budgets": [{"max_limit": self.count, "reset_duration": "1d"}]}
        change.update_team(self.store, self._any(self.groups("team")).id, GroupPatch.model_validate(patch))

    def update_customer(self) -> None:
        patch = GroupPatch.model_validate({"name": f"customer {self.count}", "budgets": []})
        change.update_customer(self.store, self._any(self.groups("customer")).id, patch)

    def delete_group(self) -> None:
        if self.random.random() < 0.5:
            change.delete_team(self.store, self._any(self.groups("team")).id)
        else:
            change.delete_customer(self.store, self._any(self.groups("customer")).id)

    def create_budget(self) -> None:
        scope, scope_id = self.random.choice(
            [
                ("virtual_key", self._any(self.keys()).id),
                ("provider", "openai"),
                ("model", self.random.choice(["gpt-4o", "*", "claude*"])),
            ]
        )
        window = self.random.choice(["2h", "3d", None])
        spec = {"max_limit": 3, "reset_duration": window, "scope": scope, "scope_id": scope_id}
        change.create_budget(self.store, BudgetRowSpec.model_validate(spec))

    def update_budget(self) -> None:
        change.update_budget(self.store, self.budget().id, BudgetPatch.model_validate({"max_limit": self.count}))

    def spend_on_budget(self) -> None:
        budget = self.budget()
        self.random.choice(
            (
                lambda: change.top_up_budget(self.store, budget.id, 1_000_000_000, ""),
                lambda: change.reset_budget(self.store, budget.id, ""),
                lambda: change.raise_budget(
                    self.store, budget.id, by_nanos=5, to_nanos=None, until_ms=None, for_ms=60_000, reason=""
                ),
                lambda: change.delete_budget(self.store, budget.id),
            )
        )()

    def set_limit(self) -> None:
        spec = {"scope": "virtual_key", "scope_id": self._any(self.keys()).id, "concurrent_max_limit": self.count}
        change.set_rate_limit(self.store, RateLimitRowSpec.model_validate(spec))

    def edit_provider(self) -> None:
        name = self.random.choice(["openai", "anthropic", f"own-{self.count}"])
        spec: dict[str, object] = {"keys": [{"name": "main", "value": f"sk-provider-{self.count:06d}"}]}
        if name.startswith("own-"):
            spec["custom_provider_config"] = {"base_provider_type": "openai"}
            spec["network_config"] = {"base_url": "https://llm.example.com/v1"}
        if self.random.random() < 0.3:
            change.delete_provider(self.store, name)
        elif self.random.random() < 0.5:
            change.create_provider_key(
                self.store, name, ProviderKeySpec.model_validate({"name": f"k{self.count}", "value": "sk-xyz-1"})
            )
        else:
            change.create_provider(self.store, name, ProviderSpec.model_validate(spec))

    def edit_rule(self) -> None:
        with self.store.database.read() as connection:
            rules = read.routing_rules(connection)
        if rules and self.random.random() < 0.3:
            change.delete_routing_rule(self.store, self._any(rules).id)
            return
        scope, scope_id = self.random.choice([("global", None), ("virtual_key", self._any(self.keys()).id)])
        spec = {"name": f"rule {self.count}", "cel_expression": 'model == "gpt-4o"', "scope": scope, "scope_id": scope_id}
        spec["targets"] = [{"provider": "anthropic", "weight": 1}]
        change.create_routing_rule(self.store, RoutingRuleSpec.model_validate(spec))

    def edit_price(self) -> None:
        with self.store.database.read() as connection:
            prices = read.pricing_overrides(connection)
        if prices and self.random.random() < 0.3:
            delete_pricing_override(self.store, self._any(prices).id)
            return
        spec = {"name": f"price {self.count}", "match_type": "exact", "pattern": "gpt-4o", "request_types": ["chat_completion"]}
        spec["patch"] = {"input_cost_per_token": "0.000001", "output_cost_per_token": "0.000002"}
        owner = {"scope_kind": "global"}
        if self.random.random() < 0.5:
            owner = {"scope_kind": "virtual_key", "virtual_key_id": self._any(self.keys()).id}
        create_pricing_override(self.store, PricingOverrideSpec.model_validate({**spec, **owner}))

    def edit_model_config(self) -> None:
        with self.store.database.read() as connection:
            configs = read.model_configs(connection)
        if configs and self.random.random() < 0.3:
            change.delete_model_config(self.store, self._any(configs).id)
            return
        scope, scope_id = self.random.choice([("global", None), ("virtual_key", self._any(self.keys()).id)])
        spec = {"model_name": self.random.choice(["gpt-4o", "claude*"]), "scope": scope, "scope_id": scope_id}
        spec["provider"] = self.random.choice([None, "openai", "anthropic"])
        spec["budgets"] = [{"max_limit": 4, "reset_duration": "1d"}]
        change.create_model_config(self.store, ModelConfigSpec.model_validate(spec))

    def edit_prompt(self) -> None:
        create_prompt(self.store, PromptSpec.model_validate({"name": f"prompt {self.count}", "text": "Be brief."}))

    def start_run(self) -> None:
        change.create_run(self.store, self._any(self.keys()).id, 1_000_000_000, 3600)

    def end_run(self) -> None:
        with self.store.ledger.read() as connection:
            runs = read.runs(connection, now_ms=self.store.clock.now_ms())
        change.end_run(self.store, self._any(runs).id)


_EDITS: tuple[Callable[[Editor], None], ...] = (
    Editor.create_key, Editor.create_key, Editor.update_key, Editor.update_key, Editor.rename_key, Editor.rotate_key,
    Editor.rotate_key_with_overlap, Editor.delete_key, Editor.create_group, Editor.create_group, Editor.update_team,
    Editor.update_customer, Editor.delete_group, Editor.create_budget, Editor.update_budget, Editor.spend_on_budget,
    Editor.set_limit, Editor.edit_provider, Editor.edit_rule, Editor.edit_rule, Editor.edit_price, Editor.edit_price,
    Editor.edit_model_config, Editor.edit_model_config, Editor.edit_prompt, Editor.start_run, Editor.end_run,
)  # fmt: skip


def comparable(snapshot: Snapshot) -> tuple[object, ...]:
    """A snapshot with what was compiled shown as what it was made of."""
    prices = {place: (scope.exact, scope.prefixes) for place, scope in snapshot.prices._scopes.items()}
    rules = {
        place: [(rule.id, rule.condition.text, rule.targets) for rule in rules]
        for place, rules in snapshot.routing_rules.by_scope.items()
    }
    return replace(snapshot, prices=NO_OVERRIDES, routing_rules=RoutingRules()), prices, rules


@pytest.mark.parametrize("seed", SEEDS)
def test_what_follows_is_what_would_be_read_anew(store: ConfigStore, seed: int) -> None:
    editor = Editor(store, seed)
    snapshot = load_snapshot(store, {})
    for _ in range(STEPS):
        done = [editor.edit() for _ in range(editor.random.choice([1, 1, 2, 5]))]
        snapshot = follow(store, {}, snapshot)
        assert comparable(snapshot) == comparable(load_snapshot(store, {})), done


def test_the_editor_does_everything(store: ConfigStore) -> None:
    editor = Editor(store, 1)
    done = {editor.edit() for _ in range(400)}
    assert {what.__name__ for what in _EDITS} <= done


def test_one_edit_among_many_keys_reads_one(store: ConfigStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        change.create_virtual_key(store, VirtualKeySpec(name=f"key {number}"))
    snapshot = load_snapshot(store, {})
    asked: list[object] = []
    real = read.virtual_keys
    monkeypatch.setattr(read, "virtual_keys", lambda connection, ids=None: asked.append(ids) or real(connection, ids))
    change.update_virtual_key(store, "key 3", VirtualKeyPatch(description="changed"))
    asked.clear()
    follow(store, {}, snapshot)
    assert [key.id for key in snapshot.virtual_keys.values() if key.name == "key 3"] == asked[0]
    assert len(asked) == 1


def test_many_keys_are_read_with_all(store: ConfigStore) -> None:
    change.create_team(store, TeamSpec(name="large"))
    snapshot = load_snapshot(store, {})
    now_ms = store.clock.now_ms()
    with store.changing() as connection:
        (team_id,) = connection.execute("SELECT id FROM teams")[0]
        connection.executemany(
            "INSERT INTO virtual_keys (id, name, description, value_hash, hint, is_active, team_id, calendar_aligned, created_ms, "
            "updated_ms) VALUES (?, ?, '', ?, '', 1, ?, 0, ?, ?)",
            [(f"id {n}", f"key {n}", f"hash {n}", team_id, now_ms, now_ms) for n in range(MOST_KEYS + 1)],
        )
    snapshot = follow(store, {}, snapshot)
    assert len(snapshot.virtual_keys) == MOST_KEYS + 1
    change.update_team(store, "large", GroupPatch(name="larger"))
    snapshot = follow(store, {}, snapshot)
    assert {key.team_name for key in snapshot.virtual_keys.values()} == {"larger"}


def test_whoever_is_far_behind_reads_everything(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec(name="one"))
    snapshot = load_snapshot(store, {})
    change.create_virtual_key(store, VirtualKeySpec(name="two"))
    with store.database.write() as connection:
        connection.execute("DELETE FROM changes")
    assert {key.name for key in follow(store, {}, snapshot).virtual_keys.values()} == {"one", "two"}


def test_edits_say_what_they_changed(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec.model_validate({"name": "one", "budgets": [{"max_limit": 1}]}))
    with store.database.read() as connection:
        rows = connection.execute("SELECT kind, entity_id FROM changes ORDER BY revision")
        key = read.virtual_key(connection, "one")
    assert key is not None
    assert {tuple(row) for row in rows} == {("virtual_key", key.id)}, json.dumps(rows)
