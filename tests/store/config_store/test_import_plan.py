"""Imports: the plan says what happens, then exactly that happens, in one transaction, and nothing that was spent is lost."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from store.clock import Ids
from store.config_store import change, read
from store.config_store.export import export_document, export_text, json_text, plain, toml_text
from store.config_store.file_truth import FileTruth
from store.config_store.import_plan import ImportPlan, Wish, apply_import, plan_import
from store.config_store.specs import VirtualKeyPatch
from store.config_store.store import ConfigStore
from store.config_store.vault import Vault
from store.database import Database, governance_revision
from store.errors import Conflict, PreconditionFailed, UserError
from store.ledger.caps import cap_states, top_up
from store.ledger.types import Scope
from store.memory import MemoryDatabase
from tests.store.config_store.test_export import SECRET, THINGS, fill


def wish(document: Any, **more: Any) -> Wish:
    return Wish(document if isinstance(document, dict) else tomllib.loads(document, parse_float=Decimal), {"SPARE": "x"}, **more)


def actions(plan: ImportPlan) -> list[tuple[str, str, str]]:
    return [(one.action, one.kind, one.name) for one in plan.changes]


def audit_rows(store: ConfigStore) -> list[tuple[Any, ...]]:
    with store.database.read() as connection:
        return connection.execute("SELECT action, kind, entity_id, before, after, reason FROM audit ORDER BY sequence")


@pytest.fixture
def empty(clock: Any) -> ConfigStore:
    memory = MemoryDatabase(clock=clock)
    memory.migrate()
    return ConfigStore(memory, clock, Ids(clock))


def test_an_export_into_its_own_store_changes_nothing(store: ConfigStore) -> None:
    fill(store)
    made = plan_import(store, wish(export_text(store, "toml"), prune=True))
    assert made.changes == () and made.warnings == () and made.left_alone == () and made.unchanged == THINGS
    rows = audit_rows(store)
    assert apply_import(store, wish(export_text(store, "toml", secrets=True), prune=True)).changes == ()
    assert audit_rows(store) == rows


def test_an_export_with_secrets_makes_the_same_store_elsewhere(store: ConfigStore, empty: ConfigStore) -> None:
    fill(store)
    text = export_text(store, "toml", secrets=True)
    plan = apply_import(empty, wish(text))
    assert [one.action for one in plan.changes] == ["create"] * THINGS
    assert export_text(empty, "toml", secrets=True) == text and plan.new_keys == ()
    assert plan_import(empty, wish(text)).changes == ()


def test_what_a_plan_says_is_what_happens_and_what_was_spent_stays(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    key = document["governance"]["virtual_keys"][0]
    cap_id = key["budgets"][0]["id"]
    with store.ledger.write() as connection:
        top_up(connection, cap_id, 3, "a trace in the books")
    key["budgets"][0]["max_limit"] = Decimal("0.25")
    key["description"] = "changed"
    key["provider_configs"][1]["allowed_models"] = ["claude-*"]
    del document["governance"]["virtual_keys"][1]
    document["governance"]["teams"].append({"name": "New", "budgets": [{"max_limit": 1, "reset_duration": "1d"}]})
    plan = plan_import(store, wish(document))
    assert actions(plan) == [("create", "team", "New"), ("update", "virtual_key", "workshop")]
    assert [one.name for one in plan.left_alone] == ["zebra"]
    fields = {one.path: (one.before, one.after) for one in plan.changes[1].fields}
    assert fields == {
        "description": ("two\nlines, \"quotes\", a \\ and … and a tab\t", "changed"),
        "budgets[1h].max_limit": (Decimal("0.000000001"), Decimal("0.25")),
        "provider_configs[anthropic].allowed_models": (None, ["claude-*"]),
    }  # fmt: skip
    assert "250000000 times as much" in plan.warnings[0]
    rows = len(audit_rows(store))
    done = apply_import(store, wish(document), tag=plan.tag, reason="the review")
    assert actions(done) == actions(plan)
    with store.database.read() as connection:
        (state,) = cap_states(connection, store.clock.now_ms(), [cap_id])
        assert (state.cap.limit, state.carried) == (250_000_000, 3)
        assert read.virtual_key(connection, "zebra") is not None
        assert read.team(connection, "New") is not None
    assert [(row[0], row[1], row[5]) for row in audit_rows(store)[rows:]] == [
        ("create", "team", "the review"), ("update", "virtual_key", "the review")
    ]  # fmt: skip


def test_pruning_deletes_what_the_named_sections_do_not_name(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    del document["providers"]
    document["governance"] = {"virtual_keys": document["governance"]["virtual_keys"][:1], "providers": []}
    del document["governance"]["virtual_keys"][0]["team_id"]
    plan = apply_import(store, wish(document, prune=True))
    assert sorted(actions(plan)) == [
        ("delete", "provider_limits", "anthropic"), ("delete", "provider_limits", "openai"),
        ("delete", "virtual_key", "zebra"), ("update", "virtual_key", "workshop"),
    ]  # fmt: skip
    with store.database.read() as connection:
        assert read.caps_of(connection, Scope.PROVIDER, "anthropic") == ()
        assert [team.name for team in read.teams(connection)] == ["Research"]


def test_a_file_that_refers_to_what_it_prunes_is_refused(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    document["governance"]["teams"] = []
    with pytest.raises(UserError, match=r"^f.toml: governance.virtual_keys\[0\].team_id: there is no team 'research'"):
        plan_import(store, wish(document, prune=True, source="f.toml"))


def test_names_may_be_traded(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    first, second = document["governance"]["virtual_keys"]
    before = {first["id"]: first["name"], second["id"]: second["name"]}
    first["name"], second["name"] = "moved", first["name"]
    apply_import(store, wish(document))
    after = {key["id"]: key["name"] for key in export_document(store)["governance"]["virtual_keys"]}
    assert after == {first["id"]: "moved", second["id"]: before[first["id"]]}


def test_what_a_file_leaves_out_has_its_default(store: ConfigStore) -> None:
    """An older export brings back what there was, although the store says more now."""
    fill(store)
    old = export_text(store, "toml")
    key = export_document(store)["governance"]["virtual_keys"][0]
    cap = key["budgets"][0]["id"]
    patch = {"name": "other", "timezone": "Europe/Berlin", "enforcement": "observe", "strict": True, "carry_over": True}
    change.update_budget(store, cap, change_spec(patch))
    configs = [{"id": key["provider_configs"][0]["id"], "provider": "openai", "blacklisted_models": ["x"], "key_ids": []}]
    change.update_virtual_key(
        store, "workshop", VirtualKeyPatch.model_validate({"provider_configs": configs, "calendar_aligned": True, "budgets": []})
    )
    assert export_text(store, "toml") != old
    apply_import(store, wish(old))
    assert _without_ids(export_document(store)) == _without_ids(tomllib.loads(old, parse_float=Decimal))


def change_spec(patch: dict[str, Any]) -> Any:
    from store.config_store.specs import BudgetPatch

    return BudgetPatch.model_validate(patch)


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_ids(item) for name, item in value.items() if name != "id"}
    if isinstance(value, list | tuple):
        return [_without_ids(item) for item in value]
    return Decimal(repr(value)) if isinstance(value, float) else value


def test_somebody_else_between_plan_and_import_is_noticed(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    document["governance"]["teams"][0]["name"] = "Lab"
    plan = plan_import(store, wish(document))
    change.update_virtual_key(store, "zebra", VirtualKeyPatch(description="somebody else"))
    with pytest.raises(PreconditionFailed, match="look at the new plan"):
        apply_import(store, wish(document), tag=plan.tag)
    with store.database.read() as connection:
        assert read.team(connection, "Lab") is None


def test_runs_and_resets_between_plan_and_import_do_no_harm(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    document["governance"]["teams"][0]["name"] = "Lab"
    plan = plan_import(store, wish(document))
    change.create_run(store, "workshop", 5, 60)
    assert len(apply_import(store, wish(document), tag=plan.tag).changes) == 1


def test_a_failure_in_the_middle_changes_nothing(store: ConfigStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    document = export_document(store)
    document["governance"]["teams"][0]["name"] = "Lab"
    document["governance"]["customers"][0]["name"] = "Other"
    text, rows = export_text(store, "toml"), audit_rows(store)
    with store.database.read() as connection:
        revision = governance_revision(connection)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("pulled the plug")

    monkeypatch.setattr("store.config_store.import_plan.write_audit_row", fails)
    with pytest.raises(RuntimeError):
        apply_import(store, wish(document))
    assert export_text(store, "toml") == text and audit_rows(store) == rows
    with store.database.read() as connection:
        assert governance_revision(connection) == revision


def _first_key(document: Any) -> Any:
    return document["governance"]["virtual_keys"][0]


def _provider_keys(document: Any) -> Any:
    return document["providers"]["openai"]["keys"]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda d: d["governance"]["teams"][0].update(bugdets=[]), "teams[0].bugdets: unknown key; did you mean 'budgets'?"),
        (lambda d: d.update(governence={}), "governence: unknown key; did you mean 'governance'?"),
        (lambda d: d["governance"]["teams"][0].update(customer_id="nobody"), "teams[0].customer_id: there is no customer 'nobody'"),
        (lambda d: _first_key(d)["budgets"][0].update(max_limit=-1), "max_limit: must not be negative"),
        (lambda d: d["governance"]["virtual_keys"][1].update(value="sk-wrong"), "virtual_keys[1].value: a virtual key begins with"),
        (lambda d: _provider_keys(d).append({"name": "n", "value": "…1234"}), "openai.keys[2].value: '…1234' is the hint"),
        (lambda d: d["providers"].update(other={"keys": []}), "providers.other.custom_provider_config.base_provider_type:"),
        (lambda d: d["governance"].update(teams=7), "governance.teams: must be a list"),
        (lambda d: d["governance"]["virtual_keys"].append({"name": "q", "value": "env.NOWHERE"}), "variable NOWHERE is not set"),
        (lambda d: d["governance"]["virtual_keys"].append({"name": "q", "value": "sk-bf-…1234"}), "add --new-values"),
        (lambda d: d["governance"]["routing_rules"][0].update(cel_expression="modle == 1"), "routing_rules[0]"),
        (lambda d: d["prompts"][0]["versions"][0].update(text="another"), "prompts[0]: version 1 of the prompt 'greeting' is"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_nothing_happens(
    store: ConfigStore, mistake: Callable[[Any], Any], words: str
) -> None:
    fill(store)
    document = plain(export_document(store))
    mistake(document)
    before = export_text(store, "toml")
    with pytest.raises(UserError) as caught:
        apply_import(store, wish(document, source="f.toml"))
    assert words in str(caught.value) and "f.toml: f.toml" not in str(caught.value)
    assert export_text(store, "toml") == before


def test_keys_of_another_gateway_are_known_by_name_and_made_anew_where_asked(store: ConfigStore, empty: ConfigStore) -> None:
    fill(store)
    text = export_text(store, "toml")
    with pytest.raises(UserError, match="is the hint of a secret that this store does not have"):
        plan_import(empty, wish(text))
    document = tomllib.loads(text, parse_float=Decimal)
    document["providers"]["openai"]["keys"][0]["value"] = SECRET
    document["providers"]["openai"]["network_config"]["extra_headers"]["x-org"] = "hush"
    plan = apply_import(empty, wish(document, new_values=True))
    assert [name for name, _ in plan.new_keys] == ["workshop", "zebra"]
    assert all(value.startswith("sk-bf-") for _, value in plan.new_keys)
    with empty.database.read() as connection:
        values = {key.name: key.value for key in read.virtual_keys(connection)}
    assert values == dict(plan.new_keys)
    assert all(value not in repr(plan) for _, value in plan.new_keys)
    # The same things under other ids: they are found by name, what refers to them follows, and nothing changes.
    other_text = (
        json_text(plain(document)).replace("research", "other-research").replace("acme", "other-acme").replace("vk-", "other-")
    )
    other = json.loads(other_text, parse_float=Decimal)
    again = plan_import(empty, wish(other))
    assert actions(again) == []
    assert {one.split(":")[0] for one in again.warnings} == {"governance.virtual_keys[0].value", "governance.virtual_keys[1].value"}


def test_an_encrypted_store_keeps_its_secrets_through_an_import(store: ConfigStore) -> None:
    sealed = ConfigStore(store.database, store.clock, store.ids, Vault(("a passphrase",), b"0" * 16))
    fill(sealed)
    text = export_text(sealed, "toml", secrets=True)
    assert plan_import(sealed, wish(text)).changes == ()
    plan = apply_import(sealed, wish(text.replace(SECRET, "sk-another-secret-000000000")))
    assert actions(plan) == [("update", "provider", "openai")] and plan.changes[0].secret_changed
    assert "sk-another-secret-000000000" in export_text(sealed, "toml", secrets=True)
    with store.database.read() as connection:
        assert "sk-another" not in repr(connection.execute("SELECT * FROM provider_keys"))
        assert "sk-another" not in repr(connection.execute("SELECT * FROM audit"))


def test_sections_of_config_json_that_are_no_governance_are_named_and_left_out(store: ConfigStore) -> None:
    plan = plan_import(store, wish({"gateway": {"forward": {}}, "mcp": {"x": 1}, "governance": {"teams": [{"name": "a"}]}}))
    assert actions(plan) == [("create", "team", "a")]
    assert plan.warnings == tuple(
        f"{name} is no part of the governance and is not imported: it belongs into config.json" for name in ("gateway", "mcp")
    )


def test_rows_that_belong_to_other_entries_are_joined_as_in_config_json(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    document["governance"]["budgets"] = [{"id": "b", "max_limit": 3, "reset_duration": "1h", "virtual_key_id": "zebra"}]
    plan = apply_import(store, wish(document))
    assert actions(plan) == [("update", "virtual_key", "zebra")]


def test_file_only_mode_takes_no_import(database: Database, clock: Any) -> None:
    memory = MemoryDatabase(clock=clock)
    memory.migrate()
    only = ConfigStore(memory, clock, Ids(clock), ledger_database=database)
    with pytest.raises(Conflict, match="change the file"):
        plan_import(only, wish({}))
    assert toml_text(export_document(only)).startswith("# The governance")


def test_a_cap_below_what_is_spent_and_a_key_without_providers_are_pointed_out(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    key = document["governance"]["virtual_keys"][0]
    with store.database.write() as connection:
        connection.execute("UPDATE balances SET used = 600000000 WHERE cap_id = ?", (key["budgets"][1]["id"],))
    key["budgets"][1]["max_limit"] = Decimal("0.5")
    key["provider_configs"] = []
    warnings = plan_import(store, wish(document)).warnings
    assert any("lowered to $0.50, and $0.60 is used already" in one for one in warnings)
    assert any("'workshop' loses all its provider configs" in one for one in warnings)


def test_what_config_json_owns_is_not_imported(store: ConfigStore) -> None:
    fill(store)
    document = export_document(store)
    document["governance"]["teams"][0]["name"] = "Lab"
    owned = replace(store, truth=FileTruth(frozenset({"team"})))
    with pytest.raises(Conflict, match="source_of_truth"):
        apply_import(owned, wish(document))
    assert len(apply_import(replace(store, truth=FileTruth(frozenset({"customer"}))), wish(document)).changes) == 1
