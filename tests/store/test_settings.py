"""config.json: what is read, what is refused with which words, and that example and schema are current."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from store.config_store.problems import options
from store.errors import SettingsError
from store.settings import SCHEMA_PATH, Settings, load_settings, schema_text

ROOT = Path(__file__).resolve().parents[2]


def read(tmp_path: Path, document: Any, environ: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return load_settings(path, environ or {})


def refusal(tmp_path: Path, document: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, document)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(tmp_path / "config.json"))
    return text.removeprefix(f"{tmp_path / 'config.json'}: ")


def test_without_a_file_the_contract_s_defaults_hold() -> None:
    settings = load_settings(None, {})
    gateway = settings.gateway
    assert (gateway.unpriced, gateway.unmetered, gateway.trim_output, gateway.min_output_tokens) == ("block", "block", True, 256)
    assert (gateway.hold_wait_seconds, gateway.inspect.history, gateway.inspect.flows) == (10, "24h", 2000)
    assert gateway.limits.model_dump() == {
        "max_body_mb": 32,
        "max_header_kb": 64,
        "max_connections": 10000,
        "header_timeout_seconds": 10,
        "connect_timeout_seconds": 10,
        "first_byte_timeout_seconds": 600,
        "idle_stream_timeout_seconds": 300,
    }
    assert settings.client.enforce_auth_on_inference is True
    assert settings.warnings == ()


def test_forward_rules_follow_the_address_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    forward = load_settings(None, {}).gateway.forward
    assert forward.resolved(on_loopback=True) == ("tunnel", False)
    assert forward.resolved(on_loopback=False) == ("deny", True)
    said = read(tmp_path, {"gateway": {"forward": {"unmatched": "tunnel", "require_auth": False}}}).gateway.forward
    assert said.resolved(on_loopback=False) == ("tunnel", False)


def test_money_is_exact_from_the_text(tmp_path: Path) -> None:
    text = '{"governance": {"virtual_keys": [{"name": "a", "budgets": [{"max_limit": 0.10000000001e1, "reset_duration": "1h"}]}]}}'
    assert "more than nine decimals" in refusal(tmp_path, text)
    exact = read(tmp_path, text.replace("0.10000000001e1", "123456789.123456789"))
    assert exact.governance.virtual_keys[0].budgets[0].max_limit == Decimal("123456789.123456789")
    assert exact.governance.virtual_keys[0].budgets[0].limit_nanos == 123_456_789_123_456_789


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"client": {},}', "line 1, column 14: not valid JSON"),
        ('{\n  "client": {\n    "x" 1\n', "line 3, column 9: not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"client": {}, "client": {}}', "the key 'client' stands twice in one object"),
        ('{"gateway": {"min_output_tokens": NaN}}', "NaN is not a number in JSON"),
        ("[" * 100_000, "nested too deeply"),
        ({"governence": {}}, "governence: unknown key; did you mean 'governance'?"),
        ({"gateway": {"limits": {"max_body": 3}}}, "gateway.limits.max_body: unknown key; did you mean 'max_body_mb'?"),
        ({"gateway": {"trim_output": "yes"}}, "gateway.trim_output: must be true or false"),
        ({"gateway": {"min_output_tokens": 2.5}}, "gateway.min_output_tokens: must be a whole number"),
        ({"gateway": {"unpriced": "free"}}, "gateway.unpriced: must be 'block' or 'allow', or must be an object"),
        ({"gateway": {"upstream_proxy": "proxy:3128"}}, "gateway: upstream_proxy: is not an address"),
        ({"gateway": {"inspect": {"history": "soon"}}}, "gateway.inspect.history: 'soon' is not a duration"),
        (
            {"gateway": {"listeners": [{"port": 8090, "virtual_key": "a"}, {"port": 8090, "virtual_key": "b"}]}},
            "gateway: listeners: two of them have the same port",
        ),
        ({"gateway": {"listeners": [{"port": 70000, "virtual_key": "a"}]}}, "gateway.listeners[0].port: must be less than"),
        ({"config_store": {"enabled": "no"}}, "config_store.enabled: must be true or false"),
        (
            {"config_store": {"enabled": False}, "governance": {"virtual_keys": [{"name": "a"}]}},
            "governance.virtual_keys[0].value: is required while config_store.enabled is false",
        ),
        ({"auth_config": {"admin_username": "me"}}, "auth_config: admin_username and admin_password go together"),
        ({"providers": {"openai": {"keys": [{"value": "x"}]}}}, "providers.openai.keys[0].name: is required"),
        ({"providers": {"openai": {"keys": [{"name": "a", "value": 5}]}}}, "providers.openai.keys[0].value: must be text"),
        (
            {"providers": {"openai": {"network_config": {"base_url": "api.openai.com"}}}},
            "providers.openai.network_config.base_url: 'api.openai.com' is not an address",
        ),
        (
            {"governance": {"virtual_keys": [{"name": "a", "value": "secret-4711"}]}},
            "governance.virtual_keys[0].value: a virtual key begins with sk-bf-",
        ),
        (
            {"governance": {"virtual_keys": [{"name": "a", "budget": {"max_limit": 1}}]}},
            "governance.virtual_keys[0].budget: unknown key; did you mean 'budgets'?",
        ),
        (
            {"governance": {"virtual_keys": [{"name": "a", "budgets": [{"max_limit": -1, "reset_duration": "1h"}]}]}},
            "governance.virtual_keys[0].budgets[0].max_limit: must not be negative",
        ),
        (
            {"governance": {"virtual_keys": [{"name": "a", "budgets": [{"max_limit": 1, "reset_duration": "1h"}] * 2}]}},
            "governance.virtual_keys[0]: two budgets reset every 1h; keep one of them",
        ),
        (
            {"governance": {"virtual_keys": [{"name": "a", "team_id": "t", "customer_id": "c"}]}},
            "governance.virtual_keys[0]: a virtual key belongs to a team or to a customer, not to both",
        ),
        (
            {
                "governance": {
                    "virtual_keys": [{"name": "a", "provider_configs": [{"provider": "x", "allowed_models": ["*", "y"]}]}]
                }
            },
            "governance.virtual_keys[0].provider_configs[0]: allowed_models holds '*' beside names",
        ),
        (
            {"governance": {"virtual_keys": [{"name": "a"}], "budgets": [{"id": "b", "max_limit": 1, "virtual_key_id": "aa"}]}},
            "governance.budgets[0].virtual_key_id: there is no virtual key 'aa'; did you mean 'a'?",
        ),
        (
            {"governance": {"virtual_keys": [{"name": "a"}, {"name": "a"}]}},
            "governance.virtual_keys: the name 'a' stands there twice",
        ),
        (
            {"governance": {"model_configs": [{"model_name": "gpt-4o", "scope": "virtual_key"}]}},
            "governance.model_configs[0]: scope virtual_key needs scope_id, the id of the virtual key",
        ),
        ({"gateway": {"default_virtual_key": "sk-bf-1234"}}, "gateway.default_virtual_key: is a key's value; write the key's name"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, document: Any, message: str) -> None:
    assert message in refusal(tmp_path, document)


def test_a_bad_value_of_a_secret_is_never_repeated(tmp_path: Path) -> None:
    assert "4711" not in refusal(tmp_path, {"governance": {"virtual_keys": [{"name": "a", "value": "secret-4711"}]}})


@pytest.mark.parametrize("amount", ["1e99999999", "1E-99999999", "99999999999999", "1e400"])
def test_monstrous_amounts_are_refused_at_once(tmp_path: Path, amount: str) -> None:
    text = f'{{"governance": {{"budgets": [{{"max_limit": {amount}, "team_id": "t"}}]}}}}'
    assert "governance.budgets[0].max_limit: is more than the ledger can hold" in refusal(tmp_path, text)


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file; name another one with --config"):
        load_settings(tmp_path / "none.json", {})
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_settings(tmp_path / "binary.json", {})
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path, {})


def test_sections_we_do_not_implement_are_warnings_with_their_path(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        {
            "plugins": [{"name": "otel", "enabled": True}],
            "mcp": {},
            "framework": {"pricing": {"pricing_url": "file:///x"}},
            "client": {"initial_pool_size": 300, "compat": {}},
            "providers": {"openai": {"keys": [{"name": "a", "value": "k", "aliases": {"x": "y"}}], "proxy_config": None}},
            "governance": {"roles": [{"id": "r"}]},
        },
    )
    assert settings.warnings == (
        "plugins is not implemented and has no effect",
        "framework is not implemented and has no effect",
        "client.initial_pool_size is not implemented and has no effect",
        "providers.openai.keys[0].aliases is not implemented and has no effect",
        "governance.roles is not implemented and has no effect",
    )


@pytest.mark.parametrize(
    "written",
    ["env.MY_KEY", {"value": "env.MY_KEY"}, {"ref": "MY_KEY", "type": "env"}, {"env_var": "MY_KEY", "from_env": True}],
)
def test_secrets_come_from_the_environment(tmp_path: Path, written: Any) -> None:
    document = {"encryption_key": written}
    settings = read(tmp_path, document, {"MY_KEY": "hunter2"})
    assert settings.secret(settings.encryption_key, "encryption_key") == "hunter2"
    assert "hunter2" not in repr(settings)
    missing = read(tmp_path, document, {})
    with pytest.raises(SettingsError, match="encryption_key: the environment variable MY_KEY is not set"):
        missing.secret(missing.encryption_key, "encryption_key")


def test_plain_secrets_are_kept_out_of_reprs(tmp_path: Path) -> None:
    settings = read(
        tmp_path, {"providers": {"openai": {"keys": [{"name": "a", "value": {"value": "sk-real", "type": "plain_text"}}]}}}
    )
    secret = settings.providers["openai"].keys[0].value
    assert secret is not None and secret.resolve({}) == "sk-real"
    assert "sk-real" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


def test_bifrost_s_own_file_is_read(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        {
            "$schema": "https://www.getbifrost.ai/schema",
            "client": {"drop_excess_requests": False, "enforce_auth_on_inference": True, "log_retention_days": 30},
            "providers": {
                "openai": {"keys": [{"name": "k", "value": "env.OPENAI_API_KEY", "weight": 0.5, "models": ["*"]}]},
                "own": {
                    "keys": [],
                    "network_config": {"base_url": "http://127.0.0.1:9000/", "extra_headers": {"x-a": "b"}},
                    "custom_provider_config": {"base_provider_type": "openai"},
                },
            },
            "config_store": {"enabled": True, "type": "sqlite", "config": {"path": "./config.db"}},
            "logs_store": {"enabled": True, "type": "sqlite", "config": {"path": "./logs.db"}},
            "governance": {
                "virtual_keys": [
                    {
                        "id": "vk",
                        "name": "team-key",
                        "value": "sk-bf-0001",
                        "provider_configs": [{"id": 1, "provider": "openai", "weight": 1, "allowed_models": ["gpt-4o"]}],
                        "rate_limit_id": "rl",
                    }
                ],
                "budgets": [
                    {"id": "b1", "max_limit": 50, "reset_duration": "1d", "virtual_key_id": "vk", "current_usage": 0},
                    {"id": "b2", "max_limit": 200.5, "reset_duration": "1h", "provider_config_id": 1},
                ],
                "rate_limits": [{"id": "rl", "token_max_limit": 1000, "token_reset_duration": "1m"}],
            },
        },
    )
    assert settings.client.log_retention_days == 30
    assert settings.providers["own"].network_config.base_url == "http://127.0.0.1:9000"
    assert settings.providers["openai"].keys[0].weight == 0.5
    assert settings.governance.budgets[1].owners() == {"provider_config_id": "1"}
    assert settings.warnings == ()


def test_the_shipped_schema_is_current() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), "run `python -m store.settings`"


def test_the_schema_knows_the_keys_and_refuses_others() -> None:
    schema = json.loads(schema_text())
    gateway = schema["$defs"]["Gateway"]
    assert gateway["additionalProperties"] is False
    assert gateway["properties"]["hold_wait_seconds"]["default"] == 10
    assert "plugins" in schema["properties"], "keys of other gateways' files must not be marked as faults"


def test_the_example_has_every_key_with_its_default() -> None:
    text = (ROOT / "config.json.example").read_text(encoding="utf-8")
    settings = load_settings(ROOT / "config.json.example", {})
    assert settings.warnings == ()
    defaults = load_settings(None, {}).model_dump(mode="json", by_alias=True)
    document = json.loads(text)
    assert {**document, "$schema": None} == defaults
    for path in _keys(Settings):
        place: Any = document
        for step in path:
            assert step in place, f"config.json.example lacks {'.'.join(path)}"
            place = place[step]


def _keys(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """Paths of all keys that are not inside lists, tables of names, or sections that are null by default."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        found.append((key,))
        if field.default is None or get_origin(field.annotation) is dict:
            continue
        for option in options(field.annotation):
            if isinstance(option, type) and issubclass(option, BaseModel) and not get_args(option):
                if isinstance(field.get_default(call_default_factory=True), option):
                    found += [(key, *rest) for rest in _keys(option)]
    return found
