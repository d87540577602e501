"""Configurations as people have them for the Bifrost gateway start unchanged: what is missing is named, caps are in force."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.postgres import Databases
from tests.support.processes import ROOT
from tests.support.refusals import check_refusal
from tests.support.wire import Answer, Wire, post_json

VALUE = "sk-bf-3f2c1a90-5d4e-4b6f-8a7b-0123456789ab"
TINY = 0.0000001
"""USD; less than any call needs, so that nothing is ever sent to a provider."""
OPENAI = {
    "keys": [{"name": "openai-main", "value": "env.OPENAI_API_KEY", "models": ["*"], "weight": 1.0, "use_for_batch_api": True}],
    "network_config": {"default_request_timeout_in_seconds": 30, "max_retries": 2, "retry_backoff_initial": 500},
    "concurrency_and_buffer_size": {"concurrency": 1000, "buffer_size": 5000},
}
CONFIGS = {"provider": "openai", "weight": 1.0, "allowed_models": ["*"], "key_ids": ["*"]}
KEY = {"id": "vk-1", "name": "engineering", "value": VALUE, "is_active": True, "provider_configs": [{"id": 1, **CONFIGS}]}

MINIMAL: dict[str, Any] = {
    "$schema": "https://www.getbifrost.ai/schema",
    "client": {"drop_excess_requests": False, "initial_pool_size": 300, "enable_logging": True},
    "providers": {"openai": OPENAI},
}
KEY_AND_BUDGETS: dict[str, Any] = {
    "client": {"enforce_auth_on_inference": True, "allow_direct_keys": False, "prometheus_labels": ["team"]},
    "providers": {"openai": OPENAI},
    "governance": {
        "budgets": [
            {"id": "budget-vk", "max_limit": TINY, "reset_duration": "1d", "virtual_key_id": "vk-1", "current_usage": 0},
            {"id": "budget-pc", "max_limit": 50, "reset_duration": "1h", "provider_config_id": 1},
        ],
        "rate_limits": [
            {"id": "rl-1", "token_max_limit": 100000, "token_reset_duration": "1h", "request_max_limit": 1000,
             "request_reset_duration": "1h"},
        ],
        "virtual_keys": [{**KEY, "rate_limit_id": "rl-1", "mcp_configs": [{"mcp_client_name": "files", "tools_to_execute": []}]}],
    },
}  # fmt: skip
TEAMS: dict[str, Any] = {
    "providers": {"openai": OPENAI},
    "governance": {
        "budgets": [
            {"id": "b-customer", "max_limit": 500, "reset_duration": "1M", "customer_id": "customer-1"},
            {"id": "b-team", "max_limit": TINY, "reset_duration": "1w", "reset_config": {}, "team_id": "team-1"},
        ],
        "customers": [{"id": "customer-1", "name": "Acme", "calendar_aligned": True}],
        "teams": [{"id": "team-1", "name": "Research", "customer_id": "customer-1", "business_unit_id": "bu", "claims": {"a": 1}}],
        "virtual_keys": [{**KEY, "team_id": "team-1"}],
    },
}
ENCRYPTED: dict[str, Any] = {
    "encryption_key": "env.BIFROST_ENCRYPTION_KEY",
    "auth_config": {"admin_username": "admin", "admin_password": {"value": "env.ADMIN_PASSWORD", "type": "env"}, "is_enabled": True,
                    "disable_auth_on_inference": True},
    **{name: KEY_AND_BUDGETS[name] for name in ("providers", "governance")},
}  # fmt: skip
MODEL_CONFIGS: dict[str, Any] = {
    "version": 2,
    "providers": {"openai": OPENAI, "anthropic": {"keys": [{"name": "a", "value": "env.ANTHROPIC_API_KEY", "weight": 1}]}},
    "governance": {
        "budgets": [{"id": "b-model", "max_limit": TINY, "reset_duration": "1d"}, {"id": "b-provider", "max_limit": 90,
                    "reset_duration": "1d"}],
        "rate_limits": [{"id": "rl", "request_max_limit": 500, "request_reset_duration": "1m"}],
        "model_configs": [{"id": "mc-1", "model_name": "*", "scope": "virtual_key", "scope_id": "vk-1", "budget_ids": ["b-model"]}],
        "providers": [{"name": "openai", "budget_id": "b-provider", "rate_limit_id": "rl"}],
        "virtual_keys": [KEY],
        "routing_rules": [{"name": "cheap", "cel_expression": "model == 'gpt-4'", "targets": [{"provider": "openai", "weight": 1}],
                           "scope": "global", "priority": 1, "enabled": True}],
    },
}  # fmt: skip
ENTERPRISE: dict[str, Any] = {
    **KEY_AND_BUDGETS,
    "mcp": {"client_configs": [{"name": "files", "connection_type": "stdio"}]},
    "plugins": [{"name": "telemetry", "enabled": True, "config": {}}],
    "framework": {"pricing": {"pricing_url": "https://getbifrost.ai/datasheet", "pricing_sync_interval": 86400}},
    "vector_store": {"enabled": True, "type": "redis"},
    "cluster_config": {"enabled": True}, "guardrails_config": {"rules": [1]}, "scim_config": {"enabled": True},
    "audit_logs": {"enabled": True}, "websocket": {"enabled": True}, "feature_flags": {"x": True},
    "logs_store": {"enabled": True, "type": "sqlite", "config": {"path": "./logs.db"}, "writer": {"max_batch_size": 1000}},
    "config_store": {"enabled": True, "type": "sqlite", "config": {"path": "./config.db"}},
}  # fmt: skip

UNIMPLEMENTED = {
    "minimal": (MINIMAL, ["providers.openai.concurrency_and_buffer_size", "providers.openai.keys[0].use_for_batch_api",
                          "client.initial_pool_size", "providers.openai.network_config.max_retries"]),
    "key and budgets": (KEY_AND_BUDGETS, ["client.prometheus_labels", "governance.virtual_keys[0].mcp_configs"]),
    "teams and customers": (TEAMS, ["governance.teams[0].business_unit_id", "governance.teams[0].claims"]),
    "encrypted": (ENCRYPTED, ["auth_config.disable_auth_on_inference"]),
    "model configs": (MODEL_CONFIGS, []),
    "enterprise": (ENTERPRISE, ["mcp", "plugins", "framework", "vector_store", "cluster_config", "guardrails_config", "scim_config",
                                "audit_logs", "websocket", "feature_flags", "logs_store.writer"]),
}  # fmt: skip
CAPS = {
    "key and budgets": "virtual_key",
    "teams and customers": "team",
    "encrypted": "virtual_key",
    "model configs": "virtual_key_model",
    "enterprise": "virtual_key",
}
ENVIRON = {"OPENAI_API_KEY": "sk-none-1", "ANTHROPIC_API_KEY": "sk-none-2", "ADMIN_PASSWORD": "a long password",
           "BIFROST_ENCRYPTION_KEY": "an encryption key of bifrost"}  # fmt: skip


def call(gateway: Gateway) -> Answer:
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(), {"x-bf-vk": VALUE}))


def check(gateway: Gateway, name: str) -> None:
    printed = gateway.log()
    for path in UNIMPLEMENTED[name][1]:
        assert f"warning: {path} is not implemented and has no effect" in printed, (path, printed)
    assert "Traceback" not in printed and "sk-none" not in printed
    if name in CAPS:
        body = check_refusal(call(gateway), 402, "budget_exceeded")
        assert body["budget"]["scope"] == CAPS[name], body["budget"]


@pytest.mark.parametrize("name", UNIMPLEMENTED)
def test_it_starts_unchanged(name: str, tmp_path: Path) -> None:
    with Gateway(tmp_path, UNIMPLEMENTED[name][0], env=ENVIRON) as gateway:
        check(gateway, name)
        if name == "enterprise":
            command = [sys.executable, str(ROOT / "run_gateway.py"), "doctor", "--app-dir", str(tmp_path), "--json"]
            done = subprocess.run(command, env=gateway.env(), capture_output=True, text=True, timeout=60, check=False)
            texts = " ".join(finding["text"] for finding in json.loads(done.stdout))
            assert "vector_store is not implemented" in texts


def test_on_postgres_it_starts_unchanged(postgres_databases: Databases, tmp_path: Path) -> None:
    place = postgres_databases.settings(postgres_databases.fresh())
    config = {**{name: str(value) for name, value in place.items()}, "max_idle_conns": 5, "max_open_conns": 50}
    stores = {name: {"enabled": True, "type": "postgres", "config": config} for name in ("config_store", "logs_store")}
    with Gateway(tmp_path, {**KEY_AND_BUDGETS, **stores}, env=ENVIRON) as gateway:
        check(gateway, "key and budgets")
    assert not list(tmp_path.glob("*.db"))
