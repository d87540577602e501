"""Exports: the same store gives the same bytes, TOML and JSON say the same, and both can be read back to the last digit."""

import json
import tomllib
from decimal import Decimal
from typing import Any

import pytest

from store.config_store import change
from store.config_store.change_models import create_model_config
from store.config_store.change_prices import create_pricing_override
from store.config_store.change_routing import create_routing_rule
from store.config_store.export import export_document, export_text, json_text, plain, toml_text
from store.config_store.prompts import create_prompt, update_prompt
from store.config_store.specs import (
    BudgetRowSpec,
    CustomerSpec,
    ProviderSpec,
    RateLimitRowSpec,
    TeamSpec,
    VirtualKeyPatch,
    VirtualKeySpec,
)
from store.config_store.specs_models import ModelConfigSpec
from store.config_store.specs_prices import PricingOverrideSpec
from store.config_store.specs_prompts import PromptPatch, PromptSpec
from store.config_store.specs_routing import RoutingRuleSpec
from store.config_store.store import ConfigStore
from store.config_store.vault import Vault

DAILY = [{"max_limit": 1, "reset_duration": "1d"}]
SECRET = "sk-upstream-secret-0123456789"


def fill(store: ConfigStore) -> None:
    """Something of every kind that carries caps."""
    change.create_provider(
        store,
        "openai",
        ProviderSpec.model_validate(
            {
                "keys": [
                    {"name": "main", "value": SECRET, "weight": 0.1},
                    {"name": "spare", "value": "env.SPARE", "models": ["gpt-4o*"]},
                ],
                "network_config": {"extra_headers": {"x-org": "hush"}},
            }
        ),
    )
    change.create_customer(store, CustomerSpec.model_validate({"id": "acme", "name": "Acme", "calendar_aligned": True}))
    change.create_team(
        store,
        TeamSpec.model_validate(
            {"id": "research", "name": "Research", "customer_id": "acme", "budgets": [{"max_limit": 100, "reset_duration": "1M"}]}
        ),
    )
    change.create_virtual_key(
        store,
        VirtualKeySpec.model_validate(
            {
                "id": "vk-2",
                "name": "workshop",
                "description": "two\nlines, \"quotes\", a \\ and … and a tab\t",
                "team_id": "research",
                "budgets": [
                    {"max_limit": Decimal("0.000000001"), "reset_duration": "1h"},
                    {"name": "month", "max_limit": Decimal("9223372036.854775807"), "reset_duration": "1M", "carry_over": True},
                ],
                "rate_limit": {"token_max_limit": 5, "token_reset_duration": "1d", "concurrent_max_limit": 2},
                "provider_configs": [
                    {"provider": "openai", "weight": 0.3, "allowed_models": [], "budgets": DAILY},
                    {"provider": "anthropic"},
                ],
            }
        ),
    )  # fmt: skip
    change.create_virtual_key(store, VirtualKeySpec.model_validate({"id": "vk-1", "name": "zebra", "is_active": False}))
    change.create_budget(
        store, BudgetRowSpec.model_validate({"max_limit": 7, "reset_duration": "1d", "scope": "provider", "scope_id": "anthropic"})
    )
    change.set_rate_limit(
        store,
        RateLimitRowSpec.model_validate(
            {"request_max_limit": 7, "request_reset_duration": "1m", "scope": "provider", "scope_id": "openai"}
        ),
    )
    create_model_config(
        store, ModelConfigSpec.model_validate({"model_name": "gpt-4o", "budgets": [{"max_limit": 9, "reset_duration": "1d"}]})
    )
    create_model_config(
        store,
        ModelConfigSpec.model_validate(
            {"model_name": "o3*", "provider": "openai", "scope": "virtual_key", "scope_id": "vk-2", "budgets": [{"max_limit": 2}]}
        ),
    )
    for name, priority in (("z first", 1), ("a second", 2)):
        create_routing_rule(
            store,
            RoutingRuleSpec.model_validate(
                {
                    "name": name,
                    "cel_expression": 'model == "gpt-4o"',
                    "targets": [{"provider": "openai", "model": "gpt-4o-mini", "weight": 1}],
                    "priority": priority,
                    "scope": "team",
                    "scope_id": "research",
                }
            ),
        )
    create_pricing_override(
        store,
        PricingOverrideSpec.model_validate(
            {
                "name": "house price",
                "scope_kind": "virtual_key",
                "virtual_key_id": "vk-2",
                "match_type": "exact",
                "pattern": "gpt-4o",
                "request_types": ["chat_completion"],
                "patch": {"input_cost_per_token": "0.0000025"},
            }
        ),
    )
    create_prompt(store, PromptSpec.model_validate({"name": "greeting", "text": "Hello.\nBe brief.\n", "note": "first"}))
    update_prompt(store, "greeting", PromptPatch.model_validate({"text": "Hello!"}))


THINGS = 12
"""How many there are then."""


def read_back(text: str, form: str) -> Any:
    if form == "toml":
        return tomllib.loads(text, parse_float=Decimal)
    return json.loads(text, parse_float=Decimal)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_an_export_is_the_same_every_time_and_can_be_read_back_exactly(store: ConfigStore, form: Any) -> None:
    fill(store)
    text = export_text(store, form)
    assert export_text(store, form) == text
    assert read_back(text, form) == plain(export_document(store))


def test_money_is_written_digit_by_digit(store: ConfigStore) -> None:
    fill(store)
    text = export_text(store, "toml")
    assert "max_limit = 0.000000001" in text and "max_limit = 9223372036.854775807" in text and "max_limit = 100," in text


def test_everything_stands_in_order_of_names_and_what_belongs_to_config_json_is_not_there(store: ConfigStore) -> None:
    fill(store)
    made = export_document(store)
    assert [key["name"] for key in made["governance"]["virtual_keys"]] == ["workshop", "zebra"]
    assert [key["name"] for key in made["providers"]["openai"]["keys"]] == ["main", "spare"]
    assert set(made) <= {"providers", "governance", "prompts"}
    assert [row["name"] for row in made["governance"]["providers"]] == ["anthropic", "openai"]


def test_what_is_spent_does_not_change_an_export(store: ConfigStore) -> None:
    fill(store)
    before = export_text(store, "toml")
    cap = export_document(store)["governance"]["virtual_keys"][0]["budgets"][0]["id"]
    change.reset_budget(store, cap, "a test")
    change.raise_budget(store, cap, by_nanos=5, for_ms=1000)
    assert export_text(store, "toml") == before
    change.update_virtual_key(store, "zebra", VirtualKeyPatch(description="new"))
    assert export_text(store, "toml") != before


@pytest.mark.parametrize("passphrase", [(), ("a passphrase",)], ids=["readable", "encrypted"])
def test_secrets_are_hints_unless_asked_for(store: ConfigStore, passphrase: tuple[str, ...]) -> None:
    store = ConfigStore(store.database, store.clock, store.ids, Vault(passphrase, b"0" * 16))
    fill(store)
    value = change.rotate_virtual_key(store, "zebra").value
    assert value is not None
    hidden, shown = export_text(store, "toml"), export_text(store, "toml", secrets=True)
    for secret in (SECRET, "hush", value):
        assert secret not in hidden
    assert "env.SPARE" in hidden and "…6789" in hidden
    assert SECRET in shown and 'x-org = "hush"' in shown and "THIS FILE HOLDS SECRETS" in shown
    assert (value in shown) == (not passphrase)  # of an encrypted store nobody can read virtual keys any more


@pytest.mark.parametrize(
    "text", ["a\r\nb", "\x00\x1f\x7f\x85\u2028", '"""', "'''", "\\", "# no comment", "tab\t", "🙂", "", " ", "=\n[[x]]"]
)
def test_any_text_survives_both_formats(text: str) -> None:
    document = {"prompts": [{"name": "p", "text": text, "of": [text, {"a": text}]}]}
    assert read_back(toml_text(document), "toml") == document
    assert read_back(json_text(document), "json") == document
