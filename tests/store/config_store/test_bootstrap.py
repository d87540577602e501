"""The file seeds an empty store once; afterwards the store is the truth."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from store.config_store import change, read
from store.config_store.bootstrap import BootstrapReport
from store.config_store.build import load_snapshot, unusable_keys
from store.config_store.specs import BudgetRowSpec, VirtualKeyPatch
from store.config_store.store import ConfigStore
from store.errors import Conflict, UserError
from store.ledger.types import Enforcement, Scope, Unit

Seeded = Callable[..., tuple[ConfigStore, BootstrapReport]]

FILE: dict[str, Any] = {
    "providers": {
        "openai": {"keys": [{"id": "k1", "name": "main", "value": "env.OPENAI_API_KEY", "models": ["*"], "weight": 0.7}]},
        "own": {
            "keys": [{"name": "local", "value": "sk-local-00000001"}],
            "network_config": {"base_url": "http://127.0.0.1:9000/base/", "extra_headers": {"x-site": "1"}},
            "custom_provider_config": {"base_provider_type": "openai"},
            "hosts": ["llm.example.com"],
        },
    },
    "governance": {
        "customers": [{"id": "c1", "name": "Acme", "budget_id": "b-acme"}],
        "teams": [{"id": "t1", "name": "Blue", "customer_id": "Acme", "calendar_aligned": True, "rate_limit_id": "rl"}],
        "virtual_keys": [
            {
                "id": "vk1",
                "name": "workshop-vk-1",
                "value": "env.WORKSHOP_KEY",
                "team_id": "t1",
                "provider_configs": [
                    {"id": 7, "provider": "openai", "allowed_models": ["gpt-4o-mini"], "key_ids": ["main"], "weight": 2},
                    {"provider": "own", "allowed_models": []},
                ],
                "budgets": [{"id": "b-vk", "name": "workshop-vk-budget", "max_limit": 0.5, "reset_duration": "1h"}],
            },
            {"id": "vk2", "name": "lone", "customer_id": "c1", "is_active": False, "expires_at": "2027-01-01T00:00:00Z"},
        ],
        "budgets": [
            {"id": "b-month", "max_limit": 1000, "reset_duration": "1M", "virtual_key_id": "vk1", "enforcement": "soft"},
            {"id": "b-day", "max_limit": 50, "reset_duration": "1d", "virtual_key_id": "workshop-vk-1"},
            {"id": "b-pc", "max_limit": 200.25, "reset_duration": "1h", "provider_config_id": 7},
            {"id": "b-acme", "max_limit": 5000, "reset_duration": "1Y"},
            {"id": "b-team", "max_limit": 75, "reset_duration": "1w", "team_id": "t1"},
            {"id": "b-team-hour", "max_limit": 9, "reset_duration": "1h", "team_id": "t1"},
            {"id": "b-openai", "max_limit": 900, "reset_duration": "1d", "provider_name": "openai"},
        ],
        "rate_limits": [
            {
                "id": "rl",
                "token_max_limit": 1000,
                "token_reset_duration": "1m",
                "request_max_limit": 5,
                "request_reset_duration": "1d",
            }
        ],
        "model_configs": [
            {"id": "m1", "model_name": "gpt-4o", "budgets": [{"max_limit": 3, "reset_duration": "1d"}]},
            {"id": "m2", "model_name": "*", "provider": "anthropic", "budgets": [{"max_limit": 4, "reset_duration": "1d"}]},
            {"id": "m3", "model_name": "*", "scope": "virtual_key", "scope_id": "vk2", "budgets": [{"max_limit": 6}]},
        ],
        "providers": [{"name": "own", "budgets": [{"max_limit": 2, "reset_duration": "1d"}], "calendar_aligned": True}],
    },
}
ENVIRON = {"WORKSHOP_KEY": "sk-bf-workshop-0001", "OPENAI_API_KEY": "sk-real-openai"}


def test_a_whole_file_becomes_a_snapshot(seeded: Seeded) -> None:
    store, report = seeded(FILE, ENVIRON)
    assert report.seeded and report.ignored == () and report.default_key_value is None
    snapshot = load_snapshot(store, ENVIRON)

    key = snapshot.by_hash[hashlib.sha256(b"sk-bf-workshop-0001").hexdigest()]
    assert key is snapshot.virtual_keys["vk1"]
    assert (key.team_name, key.customer_id, key.customer_name) == ("Blue", "c1", "Acme")
    assert [(cap.id, cap.window, cap.limit) for cap in key.caps] == [
        ("b-vk", "1h", 500_000_000),
        ("b-day", "1d", 50_000_000_000),
        ("b-month", "1M", 1_000_000_000_000),
    ]
    assert key.caps[0].name == "workshop-vk-budget" and key.caps[1].name == "workshop-vk-1 per 1d"
    assert key.caps[2].enforcement is Enforcement.SOFT

    first, second = key.provider_configs
    assert (first.id, first.allowed_models, first.key_ids, first.weight) == ("7", ("gpt-4o-mini",), ("main",), 2.0)
    assert [(cap.id, cap.limit, cap.scope_name) for cap in first.caps] == [("b-pc", 200_250_000_000, "workshop-vk-1 at openai")]
    assert (second.provider, second.allowed_models, second.key_ids) == ("own", (), ("*",))

    team = {(cap.unit, cap.window): cap for cap in key.team_caps}
    assert set(team) == {(Unit.USD, "1w"), (Unit.USD, "1h"), (Unit.TOKENS, "1m"), (Unit.REQUESTS, "1d")}
    assert [cap.window for cap in key.team_caps] == ["1m", "1h", "1d", "1w"]
    assert team[Unit.USD, "1w"].calendar_aligned and team[Unit.REQUESTS, "1d"].calendar_aligned
    assert not team[Unit.USD, "1h"].calendar_aligned, "windows below a day keep rolling"
    assert [(cap.id, cap.scope) for cap in key.customer_caps] == [("b-acme", Scope.CUSTOMER)]

    lone = snapshot.virtual_keys["vk2"]
    assert (lone.is_active, lone.expires_at_ms, lone.customer_id) == (False, 1_798_761_600_000, "c1")
    (inside,) = lone.model_caps.limits
    assert (inside.id, [(cap.limit, cap.window, cap.scope_name) for cap in inside.caps]) == (
        "m3", [(6_000_000_000, None, "lone on all models")],
    )  # fmt: skip

    assert {limit.id: [(cap.limit, cap.scope_name) for cap in limit.caps] for limit in snapshot.model_caps.limits} == {
        "m1": [(3_000_000_000, "gpt-4o")],
        "m2": [(4_000_000_000, "all models at anthropic")],
    }
    assert [cap.id for cap in snapshot.providers["openai"].caps] == ["b-openai"]
    own = snapshot.providers["own"]
    assert (own.dialect_family, own.base_url, own.hosts) == ("openai", "http://127.0.0.1:9000/base", ("llm.example.com",))
    assert own.extra_headers == (("x-site", "1"),)
    assert own.caps[0].calendar_aligned
    assert [(k.id, k.name, k.value, k.weight) for k in snapshot.providers["openai"].keys] == [("k1", "main", "sk-real-openai", 0.7)]
    assert "sk-real-openai" not in repr(snapshot) and "sk-bf-workshop-0001" not in repr(snapshot)


def test_afterwards_the_store_is_the_truth(seeded: Seeded) -> None:
    store, _ = seeded(FILE, ENVIRON)
    change.update_virtual_key(store, "vk1", VirtualKeyPatch(description="changed here"))
    store, report = seeded({**FILE, "governance": {"virtual_keys": [{"name": "new"}]}}, ENVIRON)
    assert not report.seeded
    assert report.ignored == ("providers: openai, own", "virtual keys: new")
    with store.database.read() as connection:
        record = read.virtual_key(connection, "vk1")
        assert record is not None and record.description == "changed here"
        assert read.virtual_key(connection, "new") is None


def test_a_second_start_changes_nothing_at_all(seeded: Seeded) -> None:
    store, _ = seeded(FILE, ENVIRON)
    before = load_snapshot(store, ENVIRON)
    store, _ = seeded(FILE, ENVIRON)
    assert load_snapshot(store, ENVIRON) == before


def test_reseed_applies_the_file_and_keeps_ids_and_values(seeded: Seeded) -> None:
    store, _ = seeded(FILE, ENVIRON)
    before = load_snapshot(store, ENVIRON).virtual_keys["vk1"]
    changed = {
        "governance": {
            "virtual_keys": [
                {
                    "name": "workshop-vk-1",
                    "provider_configs": [{"provider": "openai", "allowed_models": ["*"]}],
                    "budgets": [{"max_limit": 0.75, "reset_duration": "1h"}],
                }
            ]
        }
    }
    store, report = seeded(changed, ENVIRON, reseed=True)
    assert report.seeded
    after = load_snapshot(store, ENVIRON)
    key = after.virtual_keys["vk1"]
    assert [(cap.id, cap.limit, cap.name, cap.created_ms) for cap in key.caps] == [
        ("b-vk", 750_000_000, "workshop-vk-budget", before.caps[0].created_ms)
    ]
    assert [(config.id, config.allowed_models) for config in key.provider_configs] == [("7", ("*",))]
    assert key.team_id is None, "the file no longer names a team"
    assert hashlib.sha256(b"sk-bf-workshop-0001").hexdigest() in after.by_hash, "without a value in the file the old one stays"
    assert set(after.virtual_keys) == {"vk1", "vk2"}, "entries that the file does not name are kept"


def test_nothing_configured_makes_one_key_once(seeded: Seeded) -> None:
    store, report = seeded({})
    value = report.default_key_value
    assert value is not None and value.startswith("sk-bf-") and value not in repr(report)
    snapshot = load_snapshot(store, {})
    key = snapshot.by_hash[hashlib.sha256(value.encode()).hexdigest()]
    assert (key.name, key.caps) == ("default", ())
    assert [(c.provider, c.allowed_models, c.key_ids) for c in key.provider_configs] == [("*", ("*",), ())]
    _, again = seeded({})
    assert again == BootstrapReport()


def test_a_deleted_default_key_does_not_come_back(seeded: Seeded) -> None:
    store, _ = seeded({})
    change.delete_virtual_key(store, "default")
    _, again = seeded({})
    assert again.default_key_value is None


def test_a_lone_untouched_default_gives_way_to_a_file(seeded: Seeded) -> None:
    seeded({})
    store, report = seeded(FILE, ENVIRON)
    assert report.seeded and report.removed_default
    assert set(load_snapshot(store, ENVIRON).virtual_keys) == {"vk1", "vk2"}


def test_a_default_that_the_file_names_stays(seeded: Seeded) -> None:
    seeded({})
    store, report = seeded({**FILE, "gateway": {"default_virtual_key": "default"}}, ENVIRON)
    assert report.seeded and not report.removed_default
    assert "default" in {key.name for key in load_snapshot(store, ENVIRON).virtual_keys.values()}


@pytest.mark.parametrize("touch", ["patch", "rotate", "budget"])
def test_a_touched_default_is_data(seeded: Seeded, clock: Any, touch: str) -> None:
    store, _ = seeded({})
    clock.at_ms += 1000
    if touch == "patch":
        change.update_virtual_key(store, "default", VirtualKeyPatch(is_active=False))
    elif touch == "rotate":
        change.rotate_virtual_key(store, "default")
    else:
        change.create_budget(store, BudgetRowSpec.model_validate({"max_limit": 1, "scope": "virtual_key", "scope_id": "default"}))
    _, report = seeded(FILE, ENVIRON)
    assert not report.seeded and report.ignored


def test_a_fault_in_the_file_leaves_the_store_empty(seeded: Seeded) -> None:
    bad = {"governance": {"virtual_keys": [{"name": "a"}, {"name": "b", "provider_configs": [{"provider": "opena1"}]}]}}
    with pytest.raises(
        UserError, match=r"governance.virtual_keys\[1\].provider_configs\[0\].provider: invalid provider name 'opena1'"
    ):
        seeded(bad)
    store, report = seeded({})
    assert report.default_key_value is not None
    assert len(load_snapshot(store, {}).virtual_keys) == 1


@pytest.mark.parametrize(
    ("governance", "words"),
    [
        ({"budgets": [{"id": "b", "max_limit": 1}]}, r"governance.budgets\[0\]: belongs to nobody and would cap nothing"),
        (
            {
                "virtual_keys": [{"id": "v", "name": "v", "budgets": [{"max_limit": 1, "reset_duration": "1h"}]}],
                "budgets": [{"max_limit": 2, "reset_duration": "1h", "virtual_key_id": "v"}],
            },
            r"governance.virtual_keys\[0\]: two budgets reset every 1h",
        ),
        (
            {"virtual_keys": [{"name": "v", "budgets": [{"max_limit": 1, "reset_duration": "1h", "calendar_aligned": True}]}]},
            r"governance.virtual_keys\[0\].budgets\[0\]: a window of 1h is too short to be calendar aligned",
        ),
        (
            {"virtual_keys": [{"name": "v", "budgets": [{"max_limit": 1, "reset_duration": "1d", "timezone": "Mars/Base",
                                                        "calendar_aligned": True}]}]},
            "'Mars/Base' is not a time zone",
        ),
        (
            {"virtual_keys": [{"name": "v", "provider_configs": [{"provider": "openai", "key_ids": ["mian"]}]}]},
            r"governance.virtual_keys\[0\].provider_configs\[0\].key_ids\[0\]: openai has no key 'mian'; did you mean 'main'",
        ),
        ({"providers": [{"name": "opnai", "budgets": [{"max_limit": 1}]}]}, "there is no provider 'opnai'; did you mean 'openai'"),
    ],
)  # fmt: skip
def test_faults_across_rows_name_their_place(seeded: Seeded, governance: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        seeded({"providers": FILE["providers"], "governance": governance}, ENVIRON)


def test_a_key_from_the_environment_must_be_there_when_it_is_needed(seeded: Seeded) -> None:
    with pytest.raises(UserError, match="the environment variable WORKSHOP_KEY is not set"):
        seeded(FILE, {"OPENAI_API_KEY": "x"})
    seeded(FILE, ENVIRON)
    _, later = seeded(FILE, {})
    assert later.ignored, "once the store has it, the file's value is not needed any more"


def test_a_provider_key_without_its_variable_is_left_out_and_named(seeded: Seeded) -> None:
    store, _ = seeded(FILE, ENVIRON)
    assert load_snapshot(store, {}).providers["openai"].keys == ()
    assert unusable_keys(store, {}) == ("provider key 'main' of openai: the environment variable OPENAI_API_KEY is not set",)
    assert unusable_keys(store, ENVIRON) == ()


def test_two_keys_with_one_value_are_refused(seeded: Seeded) -> None:
    keys = [{"name": "a", "value": "sk-bf-same"}, {"name": "b", "value": "sk-bf-same"}]
    with pytest.raises(Conflict, match="another virtual key has this value"):
        seeded({"governance": {"virtual_keys": keys}})


def test_version_1_files_mean_everything_by_an_empty_list(seeded: Seeded) -> None:
    document: dict[str, Any] = {
        "version": 1,
        "providers": {"openai": {"keys": [{"name": "main", "value": "sk-x-0000000000", "models": []}]}},
        "governance": {
            "virtual_keys": [
                {"id": "a", "name": "a"},
                {"id": "b", "name": "b", "provider_configs": [{"provider": "openai", "allowed_models": [], "key_ids": []}]},
            ]
        },
    }
    store, _ = seeded(document)
    snapshot = load_snapshot(store, {})
    assert snapshot.providers["openai"].keys[0].models == ("*",)
    assert [c.provider for c in snapshot.virtual_keys["a"].provider_configs] == ["*"]
    config = snapshot.virtual_keys["b"].provider_configs[0]
    assert (config.allowed_models, config.key_ids) == (("*",), ("*",))


def test_a_file_without_keys_makes_the_default_key_too(seeded: Seeded) -> None:
    """Providers alone do not say who may spend: without any key, `exec` and `env` would have nobody to be."""
    store, report = seeded({"providers": {"openai": {"keys": [], "network_config": {"base_url": "http://127.0.0.1:9"}}}})
    assert report.seeded and report.default_key_value is not None
    (key,) = load_snapshot(store, {}).virtual_keys.values()
    assert (key.name, key.provider_configs[0].provider, key.provider_configs[0].key_ids) == ("default", "*", ())
    _, again = seeded({"providers": {"openai": {"keys": []}}})
    assert again.default_key_value is None and again.ignored
