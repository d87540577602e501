"""Changes at run time: every one a transaction, every refusal a sentence, and no cap loses what was spent."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from store.clock import Ids
from store.config_store import change, read
from store.config_store.build import load_snapshot
from store.config_store.change_runs import run_calls_cap_id, run_cost_cap_id
from store.config_store.keys import hash_key_value
from store.config_store.specs import (
    BudgetPatch,
    BudgetRowSpec,
    BudgetSpec,
    CustomerSpec,
    GroupPatch,
    ProviderKeySpec,
    ProviderSpec,
    TeamSpec,
    VirtualKeyPatch,
    VirtualKeySpec,
)
from store.config_store.store import ConfigStore
from store.database import governance_revision
from store.errors import Conflict, NotFound, UserError
from store.ledger.caps import cap_states, load_caps
from store.ledger.ledger import Ledger
from store.ledger.types import Enforcement, Granted, HoldRequest, Scope, Settlement, Unit


def key_spec(name: str = "workshop-vk-1", **fields: Any) -> VirtualKeySpec:
    return VirtualKeySpec.model_validate({"name": name, "provider_configs": [{"provider": "openai"}], **fields})


def patch(**fields: Any) -> VirtualKeyPatch:
    return VirtualKeyPatch.model_validate(fields)


def revision(store: ConfigStore) -> int:
    with store.database.read() as connection:
        return governance_revision(connection)


async def spend(store: ConfigStore, tmp_path: Path, cap_ids: tuple[str, ...], nanos: int, call_id: str = "call-1") -> None:
    """One real call through the real ledger."""
    ledger = Ledger(store.database, clock=store.clock, ids=store.ids, lease_dir=tmp_path / "l", spool_dir=tmp_path / "s")
    await ledger.start()
    try:
        request = HoldRequest(
            call_id=call_id, cap_ids=cap_ids, bound_nanos=nanos, floor_nanos=nanos, trim=False, revision=revision(store)
        )
        assert isinstance(await ledger.hold(request), Granted)
        await ledger.settle(Settlement(call_id, nanos, 10, True))
    finally:
        await ledger.drain(5)
        await ledger.close()


def used(store: ConfigStore, cap_id: str) -> int:
    with store.database.read() as connection:
        return cap_states(connection, store.clock.now_ms(), [cap_id])[0].used


def test_a_made_key_opens_by_its_value_and_bumps_the_revision(store: ConfigStore) -> None:
    before = revision(store)
    record = change.create_virtual_key(store, key_spec(budgets=[{"max_limit": "0.5", "reset_duration": "1h"}]))
    assert revision(store) > before
    assert record.value is not None
    assert re.fullmatch(r"sk-bf-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", record.value)
    assert record.hint == f"sk-bf-…{record.value[-4:]}"
    key = load_snapshot(store, {}).by_hash[hash_key_value(record.value)]
    assert (key.name, [cap.limit for cap in key.caps]) == ("workshop-vk-1", [500_000_000])


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        (
            {"provider_configs": [{"provider": "opena"}]},
            UserError,
            r"provider_configs\[0\].provider: invalid provider name 'opena'",
        ),
        ({"name": "taken"}, Conflict, "already a virtual key named 'taken'"),
        ({"id": "taken-id"}, Conflict, "already a virtual key with the id 'taken-id'"),
        ({"value": "sk-bf-taken"}, Conflict, "another virtual key has this value"),
        ({"value": "env.SOMETHING"}, UserError, "work in config.json only"),
        ({"value": "sk-openai"}, UserError, "value: a virtual key begins with sk-bf-"),
        ({"value": "sk-bf-with space"}, UserError, "value: a virtual key has letters, digits"),
        ({"value": "sk-bf-run-1234567"}, UserError, "is kept for run credentials"),
        ({"team_id": "nobody"}, UserError, "team_id: there is no team 'nobody'"),
        ({"customer_id": "nobody"}, UserError, "customer_id: there is no customer 'nobody'"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, UserError, "expires_at: is in the past"),
        ({"budgets": [{"max_limit": 1, "reset_duration": "1h", "id": "b-taken"}]}, Conflict, "the budget id 'b-taken' is another"),
    ],
)
def test_refused_keys_leave_nothing_behind(store: ConfigStore, fields: dict[str, Any], kind: type[Exception], words: str) -> None:
    budgets = [{"id": "b-taken", "max_limit": 1, "reset_duration": "1h"}]
    change.create_virtual_key(store, key_spec("taken", id="taken-id", value="sk-bf-taken", budgets=budgets))
    before = load_snapshot(store, {})
    with pytest.raises(kind, match=words):
        change.create_virtual_key(store, key_spec(**fields))
    assert load_snapshot(store, {}) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"budgets": [{"max_limit": -0.01, "reset_duration": "1h"}]},
        {"budgets": [{"max_limit": True}]},
        {"budgets": [{"max_limit": 1, "reset_duration": "0h"}]},
        {"budgets": [{"max_limit": 1, "reset_duration": "1h"}, {"max_limit": 2, "reset_duration": "1h"}]},
        {"rate_limit": {"token_max_limit": 5}},
        {"rate_limit": {"request_max_limit": -1, "request_reset_duration": "1m"}},
        {"mcp_configs": [{"mcp_client_name": "x"}]},
        {"provider_configs": [{"provider": "openai", "model_budgets": [{"model": "x"}]}]},
        {"provider_configs": [{"provider": "openai", "weight": -1}]},
        {"is_active": "yes"},
        {"expires_at": "tomorrow"},
    ],
)
def test_shapes_that_make_no_sense_do_not_parse(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        key_spec(**fields)


def test_a_limit_that_differs_from_none_only_by_being_empty_is_accepted() -> None:
    assert key_spec(mcp_configs=[]).name == "workshop-vk-1"


async def test_editing_a_budget_keeps_what_was_spent(store: ConfigStore, tmp_path: Path) -> None:
    record = change.create_virtual_key(
        store, key_spec(budgets=[{"name": "pot", "max_limit": 1, "reset_duration": "1h", "enforcement": "soft"}])
    )
    cap = load_snapshot(store, {}).virtual_keys[record.id].caps[0]
    await spend(store, tmp_path, (cap.id,), 250_000_000)

    change.update_virtual_key(store, record.id, patch(budgets=[{"max_limit": 2, "reset_duration": "1h"}]))
    after = load_snapshot(store, {}).virtual_keys[record.id].caps[0]
    assert (after.id, after.limit, after.name, after.enforcement) == (cap.id, 2_000_000_000, "pot", Enforcement.SOFT)
    assert used(store, cap.id) == 250_000_000

    change.update_budget(store, cap.id, BudgetPatch.model_validate({"max_limit": "0.3", "name": "small"}))
    assert used(store, cap.id) == 250_000_000

    change.update_virtual_key(store, record.id, patch(name="renamed", is_active=False))
    key = load_snapshot(store, {}).virtual_keys[record.id]
    assert (key.caps[0].scope_name, key.caps[0].limit, key.is_active) == ("renamed", 300_000_000, False)
    assert used(store, cap.id) == 250_000_000

    change.reset_budget(store, cap.id, "because")
    assert used(store, cap.id) == 0


async def test_usage_is_reset_only_when_asked(store: ConfigStore, tmp_path: Path) -> None:
    budgets = [{"max_limit": 1, "reset_duration": "1h"}]
    record = change.create_virtual_key(
        store, key_spec(budgets=budgets, provider_configs=[{"provider": "openai", "budgets": budgets}])
    )
    key = load_snapshot(store, {}).virtual_keys[record.id]
    ids = (key.provider_configs[0].caps[0].id, key.caps[0].id)
    await spend(store, tmp_path, ids, 1000)
    change.update_virtual_key(store, record.id, patch(description="x"))
    assert [used(store, cap_id) for cap_id in ids] == [1000, 1000]
    change.update_virtual_key(store, record.id, patch(reset_budget_usage=True))
    assert [used(store, cap_id) for cap_id in ids] == [0, 0]


def test_lists_in_a_change_are_the_whole_desired_set(store: ConfigStore) -> None:
    record = change.create_virtual_key(
        store,
        key_spec(
            provider_configs=[
                {"provider": "openai", "allowed_models": ["gpt-4o"], "budgets": [{"max_limit": 1, "reset_duration": "1h"}]},
                {"provider": "anthropic"},
            ],
            budgets=[{"max_limit": 1, "reset_duration": "1h"}, {"max_limit": 2, "reset_duration": "1d"}],
            rate_limit={"token_max_limit": 5, "token_reset_duration": "1m", "concurrent_max_limit": 2},
        ),
    )
    first = load_snapshot(store, {}).virtual_keys[record.id]
    kept = first.provider_configs[0]
    change.update_virtual_key(
        store,
        record.id,
        patch(
            provider_configs=[{"id": kept.id, "provider": "openai", "weight": 3}],
            budgets=[{"max_limit": 2, "reset_duration": "1d"}],
        ),
    )
    key = load_snapshot(store, {}).virtual_keys[record.id]
    assert [(c.id, c.weight, c.allowed_models) for c in key.provider_configs] == [(kept.id, 3.0, ("gpt-4o",))]
    assert key.provider_configs[0].caps == kept.caps, "budgets that the change does not name stay"
    assert {(cap.unit, cap.window, cap.limit) for cap in key.caps} == {
        (Unit.USD, "1d", 2_000_000_000),
        (Unit.TOKENS, "1m", 5),
        (Unit.CONCURRENT, None, 2),
    }
    change.update_virtual_key(store, record.id, patch(rate_limit={"token_max_limit": None, "request_max_limit": None}))
    assert [cap.unit for cap in load_snapshot(store, {}).virtual_keys[record.id].caps] == [Unit.USD]
    with store.database.read() as connection:
        gone = [cap for cap in load_caps(connection, deleted=True) if cap.deleted]
    assert len(gone) == 3, "deleted caps stay as tombstones"


def test_moving_a_key_between_team_and_customer(store: ConfigStore) -> None:
    customer = change.create_customer(store, CustomerSpec.model_validate({"name": "Acme", "budgets": [{"max_limit": 9}]}))
    team = change.create_team(store, TeamSpec.model_validate({"name": "Blue", "customer_id": customer.id}))
    record = change.create_virtual_key(store, key_spec(team_id=team.id))
    assert [cap.limit for cap in load_snapshot(store, {}).virtual_keys[record.id].customer_caps] == [9_000_000_000]
    change.update_virtual_key(store, record.id, patch(customer_id=customer.id))
    moved = load_snapshot(store, {}).virtual_keys[record.id]
    assert (moved.team_id, moved.customer_id) == (None, customer.id)
    change.update_virtual_key(store, record.id, patch(customer_id=None))
    assert load_snapshot(store, {}).virtual_keys[record.id].customer_id is None
    change.update_virtual_key(store, record.id, patch(team_id=team.id))
    change.delete_team(store, "Blue")
    alone = load_snapshot(store, {}).virtual_keys[record.id]
    assert (alone.team_id, alone.team_caps, alone.customer_id) == (None, (), None)
    with pytest.raises(NotFound, match="there is no team"):
        change.delete_team(store, "Blue")


def test_teams_and_customers_have_names_of_their_own(store: ConfigStore) -> None:
    change.create_team(store, TeamSpec(name="Blue"))
    red = change.create_team(store, TeamSpec(name="Red"))
    with pytest.raises(Conflict, match="already a team named 'Blue'"):
        change.create_team(store, TeamSpec(name="Blue"))
    with pytest.raises(Conflict, match="already a team named 'Blue'"):
        change.update_team(store, red.id, GroupPatch(name="Blue"))
    with pytest.raises(UserError, match="a customer belongs to nobody"):
        change.update_customer(store, "x", GroupPatch(customer_id="y"))


def test_calendar_alignment_of_an_owner_reaches_its_caps(store: ConfigStore) -> None:
    budgets = [{"max_limit": 1, "reset_duration": "1h"}, {"max_limit": 2, "reset_duration": "1d"}]
    record = change.create_virtual_key(store, key_spec(budgets=budgets))
    change.update_virtual_key(store, record.id, patch(calendar_aligned=True))
    caps = load_snapshot(store, {}).virtual_keys[record.id].caps
    assert [(cap.window, cap.calendar_aligned) for cap in caps] == [("1h", False), ("1d", True)]


def test_rotation_shuts_out_the_old_value_at_once(store: ConfigStore) -> None:
    record = change.create_virtual_key(store, key_spec())
    rotated = change.rotate_virtual_key(store, "workshop-vk-1")
    assert rotated.id == record.id and rotated.value != record.value
    assert record.value is not None and rotated.value is not None
    by_hash = load_snapshot(store, {}).by_hash
    assert hash_key_value(record.value) not in by_hash and hash_key_value(rotated.value) in by_hash


def test_deleting_a_key_takes_everything_of_it(store: ConfigStore) -> None:
    budgets = [{"max_limit": 1, "reset_duration": "1h"}]
    record = change.create_virtual_key(
        store, key_spec(budgets=budgets, provider_configs=[{"provider": "openai", "budgets": budgets}])
    )
    run = change.create_run(store, record.id, 5, 60)
    change.delete_virtual_key(store, record.id)
    snapshot = load_snapshot(store, {})
    assert record.id not in snapshot.virtual_keys and hash_key_value(run.value) not in snapshot.by_hash
    with store.database.read() as connection:
        assert load_caps(connection) == []
        assert connection.execute("SELECT count(*) FROM provider_configs")[0][0] == 0
    with pytest.raises(NotFound):
        change.delete_virtual_key(store, record.id)


@pytest.mark.parametrize(
    ("scope", "scope_id"),
    [("virtual_key", "workshop-vk-1"), ("team", "Blue"), ("provider", "openai"), ("model", "gpt-4o"), ("model", "*")],
)
def test_a_budget_on_its_own_binds_whom_it_names(store: ConfigStore, scope: str, scope_id: str) -> None:
    change.create_team(store, TeamSpec(name="Blue", id="t1"))
    change.create_virtual_key(store, key_spec(id="v1", team_id="t1"))
    row = {"name": "pot", "max_limit": "0.50", "reset_duration": "1h", "scope": scope, "scope_id": scope_id}
    cap = change.create_budget(store, BudgetRowSpec.model_validate(row))
    snapshot = load_snapshot(store, {})
    key = snapshot.virtual_keys["v1"]
    found = {
        "virtual_key": key.caps,
        "team": key.team_caps,
        "provider": snapshot.providers["openai"].caps,
        "model": [cap for limit in snapshot.model_caps.limits if limit.model_name == scope_id for cap in limit.caps],
    }[scope]
    assert [(c.id, c.name, c.limit) for c in found] == [(cap.id, "pot", 500_000_000)]
    with pytest.raises(Conflict, match="already has the budget 'pot' every 1h"):
        change.create_budget(store, BudgetRowSpec.model_validate(row))
    change.delete_budget(store, cap.id)
    again = change.create_budget(store, BudgetRowSpec.model_validate(row))
    assert again.id != cap.id, "a new budget does not inherit a deleted one's rows"


def test_budgets_of_nobody_are_refused(store: ConfigStore) -> None:
    for scope in ("virtual_key", "team", "customer", "provider", "provider_config"):
        with pytest.raises(NotFound, match="scope_id: there is no"):
            change.create_budget(store, BudgetRowSpec.model_validate({"max_limit": 1, "scope": scope, "scope_id": "x"}))
    with pytest.raises(NotFound, match="there is no budget 'x'"):
        change.update_budget(store, "x", BudgetPatch())


def test_windows_of_a_budget_can_change_but_not_collide(store: ConfigStore) -> None:
    record = change.create_virtual_key(
        store, key_spec(budgets=[{"max_limit": 1, "reset_duration": "1h"}, {"max_limit": 2, "reset_duration": "1d"}])
    )
    hourly, daily = load_snapshot(store, {}).virtual_keys[record.id].caps
    with pytest.raises(Conflict, match="already resets every 1d"):
        change.update_budget(store, hourly.id, BudgetPatch(reset_duration="1d"))
    changed = change.update_budget(store, hourly.id, BudgetPatch(reset_duration="2h"))
    assert (changed.id, changed.window, changed.name) == (hourly.id, "2h", "workshop-vk-1 per 2h")
    with pytest.raises(UserError, match="too short to be calendar aligned"):
        change.update_budget(store, hourly.id, BudgetPatch(calendar_aligned=True))
    prepaid = change.update_budget(store, daily.id, BudgetPatch.model_validate({"reset_duration": None}))
    assert prepaid.window is None


def test_top_ups_add_to_a_prepaid_budget(store: ConfigStore) -> None:
    record = change.create_virtual_key(store, key_spec(budgets=[{"max_limit": 5}]))
    cap = load_snapshot(store, {}).virtual_keys[record.id].caps[0]
    change.top_up_budget(store, cap.id, 2_500_000_000, "paid in")
    assert load_snapshot(store, {}).virtual_keys[record.id].caps[0].limit == 7_500_000_000
    for amount in (0, -1):
        with pytest.raises(UserError, match="amount: must be more than nothing"):
            change.top_up_budget(store, cap.id, amount, "")
    with pytest.raises(UserError, match="more than the ledger can hold"):
        change.top_up_budget(store, cap.id, 2**63 - 1, "")


async def test_a_run_is_the_key_with_a_cap_on_top(store: ConfigStore, clock: Any, tmp_path: Path) -> None:
    record = change.create_virtual_key(store, key_spec(budgets=[{"max_limit": 1, "reset_duration": "1h"}]))
    run = change.create_run(store, None, 2_000_000_000, 3600)
    assert re.fullmatch(r"sk-bf-run-[0-9a-f-]{36}", run.value) and run.value not in repr(run)
    snapshot = load_snapshot(store, {})
    key = snapshot.by_hash[hash_key_value(run.value)]
    assert (key.id, key.run_id, key.caps) == (record.id, run.id, snapshot.virtual_keys[record.id].caps)
    hard = [cap for cap in key.run_caps if cap.enforcement is Enforcement.HARD]
    assert [(cap.limit, cap.window, cap.scope) for cap in hard] == [(2_000_000_000, None, Scope.RUN)]
    assert snapshot.virtual_keys[record.id].run_id is None

    await spend(store, tmp_path, tuple(cap.id for cap in (*key.run_caps, *key.caps)), 7_000)
    assert (used(store, run_cost_cap_id(run.id)), used(store, run_calls_cap_id(run.id))) == (7_000, 1)

    clock.at_ms += 3_600_000
    assert hash_key_value(run.value) not in load_snapshot(store, {}).by_hash


async def test_a_run_without_a_budget_is_counted_and_never_refused(store: ConfigStore, tmp_path: Path) -> None:
    change.create_virtual_key(store, key_spec())
    run = change.create_run(store, "workshop-vk-1", None, 60)
    key = load_snapshot(store, {}).by_hash[hash_key_value(run.value)]
    assert {cap.enforcement for cap in key.run_caps} == {Enforcement.OBSERVE}
    await spend(store, tmp_path, tuple(cap.id for cap in key.run_caps), 10**15)
    assert used(store, run_cost_cap_id(run.id)) == 10**15
    change.end_run(store, run.id)
    assert hash_key_value(run.value) not in load_snapshot(store, {}).by_hash
    assert used(store, run_cost_cap_id(run.id)) == 10**15


def test_runs_of_keys_that_cannot_be_used_are_refused(store: ConfigStore, clock: Any) -> None:
    with pytest.raises(UserError, match="there is no virtual key yet"):
        change.create_run(store, None, None, 60)
    change.create_virtual_key(store, key_spec("a", is_active=False))
    with pytest.raises(UserError, match="'a' is switched off"):
        change.create_run(store, None, None, 60)
    change.create_virtual_key(store, key_spec("b", expires_at="2026-12-01T00:00:00Z"))
    with pytest.raises(UserError, match="there are several virtual keys; say which one with -k"):
        change.create_run(store, None, None, 60)
    clock.at_ms = 1_796_083_200_000
    with pytest.raises(UserError, match="'b' has expired"):
        change.create_run(store, "b", None, 60)
    with pytest.raises(NotFound, match="there is no virtual key 'c'"):
        change.create_run(store, "c", None, 60)
    for ttl in (0, 10**9):
        with pytest.raises(UserError, match="ttl_seconds"):
            change.create_run(store, "a", None, ttl)


def test_old_runs_are_swept_away(store: ConfigStore, clock: Any) -> None:
    change.create_virtual_key(store, key_spec())
    old = change.create_run(store, None, 1, 60)
    clock.at_ms += 8 * 86_400_000
    change.create_run(store, None, 1, 60)
    with store.database.read() as connection:
        assert read.run(connection, old.id) is None
        assert {cap.scope_id for cap in load_caps(connection)} != {old.id}


def test_providers_and_their_keys(store: ConfigStore) -> None:
    spec = ProviderSpec.model_validate({"keys": [{"name": "a", "value": "sk-secret-000001"}]})
    record = change.create_provider(store, "openai", spec)
    assert "sk-secret" not in repr(record)
    with pytest.raises(Conflict, match="'openai' is already configured"):
        change.create_provider(store, "openai", spec)
    with pytest.raises(UserError, match="base_provider_type: 'mine' is no built-in provider"):
        change.create_provider(store, "mine", spec)
    family = {"custom_provider_config": {"base_provider_type": "openai"}}
    with pytest.raises(UserError, match="network_config.base_url: is required for 'mine'"):
        change.create_provider(store, "mine", ProviderSpec.model_validate(family))
    with pytest.raises(UserError, match="a provider's name has no slash"):
        change.create_provider(store, "a/b", spec)

    added = change.create_provider_key(store, "anthropic", ProviderKeySpec.model_validate({"name": "x", "value": "env.A_KEY"}))
    assert added.hint == "env.A_KEY"
    with pytest.raises(Conflict, match="already has a key named 'x'"):
        change.create_provider_key(store, "anthropic", ProviderKeySpec.model_validate({"name": "x", "value": "y"}))
    with pytest.raises(UserError, match="key.value: is required"):
        change.create_provider_key(store, "gemini", ProviderKeySpec(name="z"))
    with pytest.raises(UserError, match="travels in a header"):
        change.create_provider_key(store, "gemini", ProviderKeySpec.model_validate({"name": "z", "value": "a\r\nb: c"}))

    first = record.keys[0]
    change.update_provider_key(store, "openai", first.id, change.ProviderKeyPatch.model_validate({"value": "", "weight": 2}))
    assert load_snapshot(store, {}).providers["openai"].keys[0].value == "sk-secret-000001"
    change.update_provider_key(store, "openai", "a", change.ProviderKeyPatch.model_validate({"value": first.hint}))
    assert load_snapshot(store, {}).providers["openai"].keys[0].value == "sk-secret-000001", "a hint sent back changes nothing"
    change.update_provider_key(store, "openai", "a", change.ProviderKeyPatch.model_validate({"value": "sk-other-0000002"}))
    assert load_snapshot(store, {}).providers["openai"].keys[0].value == "sk-other-0000002"

    change.delete_provider(store, "openai")
    assert load_snapshot(store, {}).providers["openai"].keys == ()
    with pytest.raises(NotFound):
        change.delete_provider(store, "openai")


def test_ids_and_names_do_not_shadow_each_other(store: ConfigStore) -> None:
    change.create_virtual_key(store, key_spec("x", id="y"))
    change.create_virtual_key(store, key_spec("y", id="z"))
    with store.database.read() as connection:
        found = read.virtual_key(connection, "y")
    assert found is not None and found.id == "y", "an id goes before an equal name"


def test_a_budget_spec_from_python_takes_usd() -> None:
    assert BudgetSpec.model_validate({"max_limit": "0.50"}).limit_nanos == 500_000_000
    assert BudgetSpec.model_validate({"max_limit": 0.1}).limit_nanos == 100_000_000


def test_pages_of_keys(store: ConfigStore, clock: Any) -> None:
    for name in ("b", "a_1", "c", "ab1"):
        clock.at_ms += 1
        change.create_virtual_key(store, key_spec(name))
    with store.database.read() as connection:
        page, total = read.key_page(connection, read.KeyQuery(limit=2, offset=1, sort_by="name"))
        assert ([key.name for key in page], total) == (["ab1", "b"], 4)
        page, total = read.key_page(connection, read.KeyQuery(search="a_1"))
        assert ([key.name for key in page], total) == (["a_1"], 1)
        page, _ = read.key_page(connection, read.KeyQuery(descending=True))
        assert [key.name for key in page] == ["ab1", "c", "a_1", "b"]


def test_ten_thousand_keys_are_read_within_the_time(store: ConfigStore, clock: Any) -> None:
    import time

    template = change.create_virtual_key(store, key_spec(budgets=[{"max_limit": 1, "reset_duration": "1h"}]))
    with store.database.write() as connection:
        for table in ("virtual_keys", "provider_configs", "caps"):
            columns = [column.name for column in connection.peewee.get_columns(table)]
            listed = ", ".join(f'"{name}"' for name in columns)
            row = connection.execute(f"SELECT {listed} FROM {table}")[0]
            marks = ", ".join("?" * len(columns))
            unique = {"id", "name", "value", "value_hash"} if table == "virtual_keys" else {"id"}
            owner = {"provider_configs": "virtual_key_id", "caps": "scope_id"}.get(table, "")
            rows = []
            for number in range(10_000):
                values = dict(zip(columns, row, strict=True))
                values |= {name: f"{values[name]}-{number}" for name in unique}
                if owner:
                    values[owner] = f"{template.id}-{number}"
                rows.append(tuple(values.values()))
            connection.executemany(f"INSERT INTO {table} ({listed}) VALUES ({marks})", rows)
    started = time.perf_counter()
    snapshot = load_snapshot(store, {})
    seconds = time.perf_counter() - started
    assert len(snapshot.virtual_keys) == 10_001
    assert all(len(key.caps) == 1 and len(key.provider_configs) == 1 for key in snapshot.virtual_keys.values())
    assert seconds < 3, f"took {seconds:.2f} s"


def test_ids_stay_unique_in_one_store(store: ConfigStore) -> None:
    assert isinstance(store.ids, Ids)
    records = [change.create_virtual_key(store, key_spec(f"k{number}")) for number in range(5)]
    assert len({record.id for record in records}) == len({replace(record).value for record in records}) == 5
