"""Model configs: made by the API, by a budget, in a key and in the file; what binds whom; and nothing spent is ever lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from addons.patterns import caps_on
from store.config_store import change, read
from store.config_store.bootstrap import BootstrapReport
from store.config_store.build import load_snapshot, one_virtual_key
from store.config_store.documents import document
from store.config_store.read_models import ModelConfigQuery, model_config_page
from store.config_store.specs import BudgetRowSpec, ProviderSpec, RateLimitSpec, VirtualKeyPatch, VirtualKeySpec
from store.config_store.specs_models import ModelConfigPatch, ModelConfigSpec, ProviderLimitsPatch
from store.config_store.store import ConfigStore
from store.database import governance_revision
from store.errors import Conflict, NotFound, SettingsError, UserError
from store.ledger.caps import cap_states, load_caps
from store.ledger.ledger import Ledger
from store.ledger.types import Granted, HoldRequest, Scope, Settlement

Seeded = Callable[..., tuple[ConfigStore, BootstrapReport]]
DAY = {"max_limit": 5, "reset_duration": "1d"}


def spec(model_name: str = "gpt-4o", **fields: Any) -> ModelConfigSpec:
    return ModelConfigSpec.model_validate({"model_name": model_name, "budgets": [DAY], **fields})


def patch(**fields: Any) -> ModelConfigPatch:
    return ModelConfigPatch.model_validate(fields)


def make_key(store: ConfigStore, name: str = "ci", **fields: Any) -> str:
    body = {"name": name, "provider_configs": [{"provider": "openai"}], **fields}
    return change.create_virtual_key(store, VirtualKeySpec.model_validate(body)).id


def change_key(store: ConfigStore, key_id: str, **fields: Any) -> None:
    change.update_virtual_key(store, key_id, VirtualKeyPatch.model_validate(fields))


def rows(store: ConfigStore) -> list[tuple[str, str, str | None, str | None]]:
    with store.database.read() as connection:
        return [(row.id, row.model_name, row.provider, row.scope_id) for row in read.model_configs(connection)]


def charged(store: ConfigStore, key_id: str, model: str = "gpt-4o", provider: str = "openai") -> list[tuple[str, str, int]]:
    """(scope, its name, limit in USD) of the model caps that such a call touches."""
    snapshot = load_snapshot(store, {})
    caps = caps_on(snapshot.virtual_keys[key_id].model_caps, model, provider) + caps_on(snapshot.model_caps, model, provider)
    return [(cap.scope.value, cap.scope_name, cap.limit // 10**9) for cap in caps]


async def spend(store: ConfigStore, tmp_path: Path, *cap_ids: str) -> None:
    """One real call of one dollar through the real ledger."""
    ledger = Ledger(store.database, clock=store.clock, ids=store.ids, lease_dir=tmp_path / "l", spool_dir=tmp_path / "s")
    await ledger.start()
    with store.database.read() as connection:
        revision = governance_revision(connection)
    try:
        request = HoldRequest("call", cap_ids, 10**9, 10**9, trim=False, revision=revision)
        assert isinstance(await ledger.hold(request), Granted)
        await ledger.settle(Settlement("call", 10**9, 10, True))
    finally:
        await ledger.drain(5)


def used(store: ConfigStore) -> dict[str, int]:
    """What was spent of each living cap, by whom it binds."""
    with store.database.read() as connection:
        return {state.cap.scope_name: state.used // 10**9 for state in cap_states(connection, store.clock.now_ms())}


def test_each_form_binds_its_calls(store: ConfigStore) -> None:
    ci, other = make_key(store), make_key(store, "other")
    for made in (
        spec(),
        spec(provider="openai", budgets=[{**DAY, "max_limit": 4}]),
        spec(scope="virtual_key", scope_id="ci", budgets=[{**DAY, "max_limit": 3}]),
        spec(scope="virtual_key", scope_id=ci, provider="openai", budgets=[{**DAY, "max_limit": 2}]),
        spec("*", scope="virtual_key", scope_id=ci, budgets=[{**DAY, "max_limit": 9}]),
        spec("gpt-*", budgets=[{**DAY, "max_limit": 8}]),
        spec("*", provider="openai", budgets=[{**DAY, "max_limit": 7}]),
    ):
        change.create_model_config(store, made)
    assert charged(store, ci) == [
        ("virtual_key_model", "ci on gpt-4o at openai", 2), ("virtual_key_model", "ci on gpt-4o", 3),
        ("virtual_key_model", "ci on all models", 9),
        ("model", "gpt-4o at openai", 4), ("model", "gpt-4o", 5), ("model", "gpt-*", 8), ("model", "all models at openai", 7),
    ]  # fmt: skip
    assert charged(store, other, "gpt-4o-2024-08-06", "azure") == [("model", "gpt-4o", 5), ("model", "gpt-*", 8)]
    assert [row[0] for row in rows(store)].count("gpt-4o") == 1, "the one for everybody goes by the model's name"
    with store.database.read() as connection:
        alone = one_virtual_key(connection, ci)
    assert alone == load_snapshot(store, {}).virtual_keys[ci], "a key on its own carries the same caps"


def test_one_config_for_the_same_calls(store: ConfigStore) -> None:
    key = make_key(store)
    for fields in ({}, {"provider": "openai"}, {"scope": "virtual_key", "scope_id": key}):
        first = change.create_model_config(store, spec(**fields))
        with pytest.raises(Conflict, match=f"already a model config for .*gpt-4o.*: change '{first.id}'"):
            change.create_model_config(store, spec(**fields))
    change.create_model_config(store, spec("gpt-4o-mini", id="mine"))
    with pytest.raises(Conflict, match="id: 'mine' is another model config's"):
        change.create_model_config(store, spec("o3", id="mine"))
    assert len(rows(store)) == 4


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"provider": "opnai"}, UserError, "provider: invalid provider name 'opnai'; did you mean 'openai'?"),
        ({"scope": "virtual_key", "scope_id": "nobody"}, UserError, "scope_id: there is no virtual key 'nobody'"),
        ({"scope": "virtual_key"}, ValidationError, "needs scope_id"),
        ({"scope_id": "x"}, ValidationError, 'scope_id is for scope "virtual_key"'),
        ({"scope": "user", "scope_id": "x"}, ValidationError, "'global' or 'virtual_key'"),
        ({"model_name": "  "}, ValidationError, "model_name is empty"),
        ({"budgets": [DAY, DAY]}, ValidationError, "two budgets reset every 1d"),
        ({"budgets": [{"max_limit": -1}]}, ValidationError, "must not be negative"),
        ({"model": "x"}, ValidationError, "model"),
    ],
)
def test_what_cannot_be(store: ConfigStore, fields: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        change.create_model_config(store, spec(**fields))
    assert words in str(caught.value)
    assert rows(store) == []


async def test_an_edit_keeps_what_was_spent_unless_told_otherwise(store: ConfigStore, tmp_path: Path) -> None:
    change.create_model_config(store, spec())
    (cap,) = load_snapshot(store, {}).model_caps.limits[0].caps
    await spend(store, tmp_path, cap.id)
    change.update_model_config(store, "gpt-4o", patch(budgets=[{**DAY, "max_limit": 50}], rate_limit={"concurrent_max_limit": 2}))
    assert len(load_snapshot(store, {}).model_caps.limits[0].caps) == 2
    with store.database.read() as connection:
        (after,) = cap_states(connection, store.clock.now_ms(), [cap.id])
    assert (after.used, after.limit) == (10**9, 50 * 10**9)
    change.update_model_config(store, "gpt-4o", patch(rate_limit=None, calendar_aligned=True, reset_budget_usage=True))
    (aligned,) = load_snapshot(store, {}).model_caps.limits[0].caps
    assert aligned.calendar_aligned and used(store) == {"gpt-4o": 0}


def test_whom_it_binds_cannot_change(store: ConfigStore) -> None:
    key = make_key(store)
    made = change.create_model_config(store, spec(scope="virtual_key", scope_id=key))
    change.update_model_config(store, made.id, patch(model_name="gpt-4o", scope="virtual_key", scope_id="ci", provider=None))
    for fields in ({"model_name": "o3"}, {"provider": "openai"}, {"scope": "global"}, {"scope_id": "else"}):
        with pytest.raises(UserError, match=f"{next(iter(fields))}: cannot be changed here"):
            change.update_model_config(store, made.id, patch(**fields))
    with pytest.raises(NotFound, match="no model config 'x'"):
        change.update_model_config(store, "x", patch())
    with pytest.raises(NotFound, match="no model config 'x'"):
        change.delete_model_config(store, "x")


def test_a_budget_on_a_model_makes_its_config(store: ConfigStore) -> None:
    """As before there were model configs: `scope: "model"` with the model's name."""
    key = make_key(store)
    budget = {"max_limit": 5, "reset_duration": "1d", "scope": "model", "scope_id": "gpt-4o"}
    change.create_budget(store, BudgetRowSpec.model_validate(budget))
    change.create_budget(store, BudgetRowSpec.model_validate({**budget, "reset_duration": "1h", "max_limit": 1}))
    assert rows(store) == [("gpt-4o", "gpt-4o", None, None)]
    assert charged(store, key) == [("model", "gpt-4o", 1), ("model", "gpt-4o", 5)]
    inside = change.create_model_config(store, spec("o3", scope="virtual_key", scope_id=key, budgets=[]))
    change.create_budget(store, BudgetRowSpec.model_validate({**budget, "scope": "virtual_key_model", "scope_id": inside.id}))
    assert charged(store, key, "o3") == [("virtual_key_model", "ci on o3", 5)]
    for scope, scope_id in (("virtual_key_model", "gpt-4o"), ("virtual_key_model", "x"), ("model", inside.id)):
        with pytest.raises(NotFound, match=f"scope_id: there is no model config '{scope_id}'"):
            change.create_budget(store, BudgetRowSpec.model_validate({**budget, "scope": scope, "scope_id": scope_id}))


async def test_a_key_takes_its_model_configs_along(store: ConfigStore, tmp_path: Path) -> None:
    key, other = make_key(store), make_key(store, "other")
    change.create_model_config(store, spec(scope="virtual_key", scope_id=key))
    change.create_model_config(store, spec(scope="virtual_key", scope_id=other))
    (cap,) = load_snapshot(store, {}).virtual_keys[key].model_caps.limits[0].caps
    await spend(store, tmp_path, cap.id)
    change_key(store, key, name="renamed")
    assert used(store) == {"renamed on gpt-4o": 1, "other on gpt-4o": 0}
    change_key(store, key, reset_budget_usage=True)
    assert used(store) == {"renamed on gpt-4o": 0, "other on gpt-4o": 0}
    change.delete_virtual_key(store, key)
    assert [row[3] for row in rows(store)] == [other] and used(store) == {"other on gpt-4o": 0}
    with store.database.read() as connection:
        assert cap.id not in {one.id for one in load_caps(connection)}
        assert connection.execute("SELECT deleted FROM caps WHERE id = ?", (cap.id,)) == [(1,)], "a tombstone"
        assert connection.execute("SELECT count(*) FROM posts WHERE call_id = 'call'")[0][0] == 1, "the spend stays in the books"


def test_model_budgets_of_a_key_are_the_whole_set_where_they_are_named(store: ConfigStore) -> None:
    key = make_key(
        store,
        provider_configs=[
            {
                "provider": "openai",
                "model_budgets": [{"model_name": "gpt-4o", "budgets": [DAY]}, {"model_name": "o3", "budgets": [DAY]}],
            },
            {"provider": "*", "model_budgets": [{"model_name": "claude-*", "budgets": [DAY]}]},
        ],
    )
    first = {row[1]: row[0] for row in rows(store)}
    assert [row[1:3] for row in rows(store)] == [("gpt-4o", "openai"), ("o3", "openai"), ("claude-*", None)]
    assert charged(store, key) == [("virtual_key_model", "ci on gpt-4o at openai", 5)]
    # Absent: they stay. Named: exactly those, matched by the model's name.
    change_key(store, key, provider_configs=[{"provider": "openai", "weight": 2}, {"provider": "*"}])
    assert {row[1]: row[0] for row in rows(store)} == first
    wanted = [
        {"model_name": "gpt-4o", "budgets": [{**DAY, "max_limit": 6}]},
        {"model_name": "o1", "rate_limit": {"concurrent_max_limit": 1}},
    ]
    change_key(store, key, provider_configs=[{"provider": "openai", "model_budgets": wanted}, {"provider": "*"}])
    after = {row[1]: row[0] for row in rows(store)}
    assert set(after) == {"gpt-4o", "claude-*", "o1"} and after["gpt-4o"] == first["gpt-4o"]
    assert charged(store, key) == [("virtual_key_model", "ci on gpt-4o at openai", 6)]
    # A model budget that names only one thing keeps the other.
    only = [{"model_name": "gpt-4o", "rate_limit": {"concurrent_max_limit": 1}}]
    change_key(store, key, provider_configs=[{"provider": "openai", "model_budgets": only}, {"provider": "*"}])
    assert len(load_snapshot(store, {}).virtual_keys[key].model_caps.by_name["gpt-4o"][0].caps) == 2
    # A provider that no config names any more goes with its model budgets.
    change_key(store, key, provider_configs=[{"provider": "*"}])
    assert [row[1] for row in rows(store)] == ["claude-*"]
    with pytest.raises(UserError, match=r"provider_configs\[1\].model_budgets\[0\]: the model 'o3' stands there twice"):
        twice = {"provider": "openai", "model_budgets": [{"model_name": "o3", "budgets": [DAY]}]}
        change_key(store, key, provider_configs=[twice, twice])


def test_a_keys_document_can_be_sent_back(store: ConfigStore) -> None:
    """Two configs of one provider: the model budgets stand in the first, and the second does not take them away."""
    key = make_key(store, provider_configs=[{"provider": "openai"}, {"provider": "openai"}, {"provider": "anthropic"}])
    change.create_model_config(store, spec(scope="virtual_key", scope_id=key, provider="openai"))
    change.create_model_config(store, spec(scope="virtual_key", scope_id=key))
    with store.reading() as (connection, ledger):
        before = document(connection, ledger, "virtual_key", key)
    assert before is not None
    assert [len(config.get("model_budgets", ())) for config in before["provider_configs"]] == [1, 0, 0]
    assert before["provider_configs"][0]["model_budgets"][0]["budgets"] == [
        {"id": before["provider_configs"][0]["model_budgets"][0]["budgets"][0]["id"], "max_limit": 5, "reset_duration": "1d"}
    ]
    shown = [{**config, "model_budgets": config.get("model_budgets", [])} for config in before["provider_configs"]]
    change_key(store, key, provider_configs=shown)
    with store.reading() as (connection, ledger):
        assert document(connection, ledger, "virtual_key", key) == before
    assert len(rows(store)) == 2, "what no provider config can show stays"


def test_a_provider_that_goes_takes_its_model_configs_along(store: ConfigStore) -> None:
    key = make_key(store)
    own = {"network_config": {"base_url": "http://127.0.0.1:1"}, "custom_provider_config": {"base_provider_type": "openai"}}
    change.create_provider(store, "own", ProviderSpec.model_validate(own))
    change.create_provider(store, "openai", ProviderSpec.model_validate({}))
    for fields in ({"provider": "own"}, {"provider": "own", "scope": "virtual_key", "scope_id": key}, {"provider": "openai"}, {}):
        change.create_model_config(store, spec(**fields))
    change.delete_provider(store, "own")
    change.delete_provider(store, "openai")
    assert [row[2] for row in rows(store)] == ["openai", None], "a built-in one can still be called, and stays capped"
    assert set(used(store)) == {"gpt-4o at openai", "gpt-4o"}


def test_pages_of_model_configs(store: ConfigStore) -> None:
    key = make_key(store)
    for name in ("gpt-4o", "GPT-4.1", "o3", "100%"):
        change.create_model_config(store, spec(name))
    change.create_model_config(store, spec("o3", scope="virtual_key", scope_id=key, provider="openai"))

    def names(**fields: Any) -> tuple[list[str], int]:
        with store.database.read() as connection:
            found, total = model_config_page(connection, ModelConfigQuery(**fields))
        return sorted(row.model_name for row in found), total

    assert names() == (["100%", "GPT-4.1", "gpt-4o", "o3", "o3"], 5)
    assert names(search="gpt") == (["GPT-4.1", "gpt-4o"], 2)
    assert names(search="%") == (["100%"], 1)
    assert names(scope="virtual_key", scope_id=key, provider="openai") == (["o3"], 1)
    assert names(provider="azure") == ([], 0)
    first, second = names(limit=3), names(limit=3, offset=3)
    assert (len(first[0]), len(second[0]), first[1]) == (3, 2, 5)


FILE: dict[str, Any] = {
    "governance": {
        "virtual_keys": [
            {
                "id": "vk-1", "name": "ci",
                "provider_configs": [{"provider": "openai", "model_budgets": [{"model_name": "gpt-4o", "budgets": [DAY]}]}],
            }
        ],
        "budgets": [
            {"id": "by-owner", "max_limit": 4, "reset_duration": "1h", "model_config_id": "inside"},
            {"id": "by-name", "max_limit": 3, "reset_duration": "1w"},
            {"id": "by-model", "max_limit": 2, "reset_duration": "1w", "model_config_id": "gpt-4o"},
        ],
        "rate_limits": [{"id": "rl", "request_max_limit": 5, "request_reset_duration": "1m"}],
        "model_configs": [
            {"id": "inside", "model_name": "gpt-4o", "scope": "virtual_key", "scope_id": "ci", "budget_ids": ["by-name"]},
            {"id": "wide", "model_name": "gpt-4o", "provider": "openai", "calendar_aligned": True, "budgets": [DAY]},
            {"model_name": "gpt-4o", "rate_limit_id": "rl"},
        ],
    },
}  # fmt: skip


def test_the_file_says_it_in_every_form(seeded: Seeded) -> None:
    store, _ = seeded(FILE)
    snapshot = load_snapshot(store, {})
    caps = caps_on(snapshot.virtual_keys["vk-1"].model_caps, "gpt-4o", "openai")
    caps += caps_on(snapshot.model_caps, "gpt-4o", "openai")
    assert [(cap.scope_name, cap.unit.value, cap.limit, cap.window, cap.calendar_aligned) for cap in caps] == [
        ("ci on gpt-4o at openai", "usd", 5 * 10**9, "1d", False),
        ("ci on gpt-4o", "usd", 4 * 10**9, "1h", False),
        ("ci on gpt-4o", "usd", 3 * 10**9, "1w", False),
        ("gpt-4o at openai", "usd", 5 * 10**9, "1d", True),
        ("gpt-4o", "requests", 5, "1m", False),
        ("gpt-4o", "usd", 2 * 10**9, "1w", False),
    ]
    before = rows(store)
    again, report = seeded(FILE, reseed=True)
    assert report.seeded and rows(again) == before, "applied twice, there is one of each"


@pytest.mark.parametrize(
    "target",
    [{}, {"scope": "virtual_key", "scope_id": "vk-1"}, {"scope": "virtual_key", "scope_id": "ci", "provider": "openai"}],
)
def test_two_entries_of_the_file_for_the_same_calls(seeded: Seeded, target: dict[str, Any]) -> None:
    second = {"model_name": "gpt-4o", **target}
    governance = {**FILE["governance"], "model_configs": [*FILE["governance"]["model_configs"], second]}
    with pytest.raises(SettingsError, match=r"governance.model_configs\[3\]: another entry binds the same calls to 'gpt-4o'"):
        seeded({"governance": governance})


def test_an_error_in_the_file_names_the_place(seeded: Seeded) -> None:
    bad = {
        **FILE["governance"],
        "model_configs": [
            {"id": "inside", "model_name": "x", "provider": "opnai", "budget_id": "by-name"},
            {"model_name": "gpt-4o"},
        ],
    }
    with pytest.raises(UserError, match=r"governance.model_configs\[0\].provider: invalid provider name 'opnai'"):
        seeded({"governance": bad})


def test_a_run_of_a_key_is_charged_to_its_model_configs(store: ConfigStore) -> None:
    key = make_key(store)
    made = change.create_model_config(store, spec(scope="virtual_key", scope_id=key))
    change.create_run(store, "ci", None, 60, RateLimitSpec())
    snapshot = load_snapshot(store, {})
    (run,) = (found for found in snapshot.by_hash.values() if found.run_id)
    assert run.model_caps == snapshot.virtual_keys[key].model_caps
    with store.database.read() as connection:
        owners = {owner for owner in read.caps_by_scope(connection) if owner[0] is Scope.VIRTUAL_KEY_MODEL}
    assert owners == {(Scope.VIRTUAL_KEY_MODEL, made.id)}


def test_every_change_leaves_a_row_in_the_audit_log(store: ConfigStore) -> None:
    key = make_key(store)
    made = change.create_model_config(store, spec(scope="virtual_key", scope_id=key))
    change.update_model_config(store, made.id, patch(budgets=[{**DAY, "max_limit": 6}]))
    change.delete_model_config(store, made.id)
    budget = {"max_limit": 5, "reset_duration": "1d", "scope": "model", "scope_id": "o3"}
    change.create_budget(store, BudgetRowSpec.model_validate(budget))
    change.set_provider_limits(store, "openai", ProviderLimitsPatch.model_validate({"budgets": [DAY]}))
    change.drop_provider_limits(store, "openai")
    with store.database.read() as connection:
        rows = connection.execute("SELECT action, kind, entity_id, before, after FROM audit ORDER BY sequence")
    assert [tuple(row[:3]) for row in rows[1:]] == [
        ("create", "model_config", made.id), ("update", "model_config", made.id), ("delete", "model_config", made.id),
        ("create", "model_config", "o3"), ("create", "budget", rows[5][2]),
        ("update", "provider_limits", "openai"), ("delete", "provider_limits", "openai"),
    ]  # fmt: skip
    before, after = (json.loads(text) for text in rows[2][3:])
    assert before["budgets"][0] == {**after["budgets"][0], "max_limit": 5} and after["budgets"][0]["max_limit"] == 6
    assert (after["scope"], after["scope_id"], after["model_name"]) == ("virtual_key", key, "gpt-4o")
