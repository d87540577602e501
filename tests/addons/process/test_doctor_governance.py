"""`doctor` on the governance: what can never have an effect is named, with what to do; what is sound is not."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from addons.opening import BUILTIN
from addons.process.doctor_governance import (
    config_mode,
    ended_keys,
    has_own_price,
    idle_caps,
    idle_rules,
    ignored_entries,
    named_models,
)
from addons.process.findings import Finding, Level
from store.clock import Ids, SystemClock
from store.config_store.bootstrap import open_config_store, seed
from store.config_store.read import Governance, load_governance
from store.config_store.records import PricingOverrideRecord
from store.config_store.store import ConfigStore
from store.memory import MemoryDatabase
from store.settings import Settings, settings_from

KNOWN = frozenset(BUILTIN)
NOW_MS = SystemClock().now_ms()


def opened(document: dict[str, Any]) -> tuple[ConfigStore, Settings]:
    clock = SystemClock()
    memory = MemoryDatabase(clock=clock)
    memory.migrate()
    settings = settings_from(document, {}, source="config.json")
    store = open_config_store(memory, settings, clock=clock, ids=Ids(clock), builtin=dict(BUILTIN))
    seed(store, settings)
    return store, settings


def governance(**sections: Any) -> Governance:
    store, _ = opened({"governance": sections})
    with store.database.read() as connection:
        return load_governance(connection, now_ms=NOW_MS)


def told(findings: Iterable[Finding]) -> list[tuple[Level, str]]:
    found = list(findings)
    assert all(one.advice for one in found)
    return [(one.level, one.text) for one in found]


BUDGET = [{"max_limit": 1, "reset_duration": "1d"}]
SOUND = {"name": "sound", "provider_configs": [{"provider": "openai", "allowed_models": ["gpt-4o"]}]}


def test_keys_that_can_do_nothing() -> None:
    found = governance(
        virtual_keys=[
            SOUND,
            {"name": "over", "expires_at": "2020-01-01T00:00:00Z", "provider_configs": [{"provider": "openai"}]},
            {"name": "shut"},
            {"name": "off", "is_active": False},
            {"name": "dumb", "provider_configs": [{"provider": "openai", "allowed_models": []}]},
        ]
    )
    assert told(ended_keys(found, NOW_MS)) == [
        (Level.NOTE, "expired, their calls are refused: over"),
        (Level.WARN, "no provider is allowed, every call is refused: shut"),
        (Level.WARN, "no model is allowed, every call is refused: dumb at openai"),
    ]
    assert told(ended_keys(governance(virtual_keys=[SOUND]), NOW_MS)) == []


def test_caps_that_bind_nobody() -> None:
    found = governance(
        customers=[{"id": "c", "name": "Acme", "budgets": BUDGET}, {"name": "Empty", "budgets": BUDGET}],
        teams=[
            {"id": "t", "name": "Used", "customer_id": "c", "budgets": BUDGET},
            {"name": "Idle", "budgets": BUDGET},
            {"name": "bare"},
        ],
        virtual_keys=[{**SOUND, "team_id": "t"}],
    )
    assert told(idle_caps(found, KNOWN)) == [
        (Level.NOTE, "caps of groups without a virtual key bind nobody: team Idle, customer Empty")
    ]
    assert told(idle_caps(found, frozenset({"anthropic"})))[1] == (
        Level.WARN, "no such provider is configured, so these never apply: sound at openai"
    )  # fmt: skip


def test_rules_that_lead_nowhere() -> None:
    target = {"provider": "openai", "model": "gpt-4o", "weight": 1}
    found = governance(
        virtual_keys=[SOUND],
        routing_rules=[
            {"name": "a rule", "cel_expression": 'model == "x"', "targets": [target], "fallbacks": ["gemini/gemini-2.5-pro"]}
        ],
    )
    assert told(idle_rules(found, KNOWN)) == []
    assert told(idle_rules(found, frozenset())) == [
        (Level.WARN, "the routing rule 'a rule' has no effect: no provider openai is configured")
    ]
    assert set(named_models(found)) == {("openai", "gpt-4o"), ("gemini", "gemini-2.5-pro")}


@pytest.mark.parametrize(("kind", "pattern", "model", "is_priced"), [
    ("exact", "gpt-9", "gpt-9", True), ("exact", "gpt-9", "gpt-9-mini", False), ("wildcard", "gpt-9*", "gpt-9-mini", True),
])  # fmt: skip
def test_an_override_is_a_price(kind: Any, pattern: str, model: str, is_priced: bool) -> None:
    row = PricingOverrideRecord("i", "n", "global", kind, pattern, ("chat_completion",), ())
    assert has_own_price((row,), model) is is_priced


def test_every_kind_of_ignored_entry_is_named() -> None:
    document = {
        "providers": {"openai": {}},
        "client": {"log_retention_days": 9},
        "governance": {
            "virtual_keys": [SOUND],
            "model_configs": [{"model_name": "o3", "budgets": BUDGET}],
            "providers": [{"name": "gemini"}],
        },
    }
    store, settings = opened(document)
    ((level, text),) = told(ignored_entries(store, settings))
    assert level is Level.NOTE
    assert text.endswith("have no effect: provider openai, virtual key sound, model config o3, limits of provider gemini")
    assert told(ignored_entries(store, settings_from({}, {}, source="x"))) == []


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_readable_file_with_secrets(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(0o644)
    secret = settings_from(
        {"encryption_key": "hush", "providers": {"openai": {"keys": [{"name": "k", "value": "env.X"}]}}}, {}, source="x"
    )
    ((level, text),) = told(config_mode(path, secret))
    assert level is Level.WARN and "holds 1 secret(s) in clear" in text and "hush" not in text
    path.chmod(0o600)
    assert told(config_mode(path, secret)) == []
    path.chmod(0o644)
    assert told(config_mode(path, settings_from({"encryption_key": "env.X"}, {}, source="x"))) == []
