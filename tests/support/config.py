"""Builds config.json for tests: providers that live at a mock's address, and virtual keys with budgets."""

from typing import Any

Config = dict[str, Any]

VIRTUAL_KEY = "sk-bf-0000000000000000000000000000workshop01"
"""The value of the key that `config_for` makes unless told otherwise."""
PROVIDER_KEYS = {
    "openai": "sk-provider-openai-0001",
    "anthropic": "sk-ant-provider-anthropic-0001",
    "gemini": "provider-gemini-0001",
}
"""What the gateway sends upstream on behalf of a caller who brought a virtual key only."""


def budget(limit_usd: float | str, *, name: str = "workshop-vk-budget", reset: str | None = "1h", **fields: Any) -> Config:
    """One budget as it stands inline in config.json; further fields (`enforcement`, `calendar_aligned`, …) go in as they are."""
    made: Config = {"name": name, "max_limit": limit_usd, **fields}
    if reset is not None:
        made["reset_duration"] = reset
    return made


def virtual_key(
    name: str = "workshop-vk-1",
    *,
    value: str = VIRTUAL_KEY,
    budgets: list[Config] | None = None,
    provider_configs: list[Config] | None = None,
    **fields: Any,
) -> Config:
    """One virtual key, allowed every provider unless told otherwise."""
    return {
        "id": f"id-of-{name}",
        "name": name,
        "value": value,
        "budgets": budgets or [],
        "provider_configs": provider_configs if provider_configs is not None else [{"provider": name} for name in PROVIDER_KEYS],
        **fields,
    }


def providers_at(url: str, *, keys: dict[str, str] | None = None) -> Config:
    """OpenAI, Anthropic and Gemini, all to be found at `url`, each with one key (none for a provider left out of `keys`)."""
    values = PROVIDER_KEYS if keys is None else keys
    made: Config = {}
    for name in PROVIDER_KEYS:
        entry: Config = {"keys": [], "network_config": {"base_url": url}}
        if name in values:
            entry["keys"] = [{"name": f"{name}-main", "value": values[name], "models": ["*"], "weight": 1.0}]
        made[name] = entry
    return made


def config_for(
    provider_url: str,
    *,
    virtual_keys: list[Config] | None = None,
    governance: Config | None = None,
    gateway: Config | None = None,
    client: Config | None = None,
    keys: dict[str, str] | None = None,
) -> Config:
    """A whole config.json. Without `virtual_keys`: one key, `VIRTUAL_KEY`, with $0.50 an hour.

    `governance`, `gateway` and `client` are merged in (teams, customers, settings); `keys` replaces the provider keys.
    """
    made: Config = {
        "providers": providers_at(provider_url, keys=keys),
        "governance": {
            "virtual_keys": [virtual_key(budgets=[budget(0.5)])] if virtual_keys is None else virtual_keys,
            **(governance or {}),
        },
    }
    if gateway is not None:
        made["gateway"] = gateway
    if client is not None:
        made["client"] = client
    return made
