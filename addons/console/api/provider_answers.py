"""What the API answers about providers and their keys, as types."""

from typing import Literal, TypedDict

from addons.console.api.answers import Instant


class NetworkAnswer(TypedDict):
    """Where a provider is; values of headers are not shown."""

    base_url: str | None
    extra_headers: dict[str, str]


class CustomProviderAnswer(TypedDict):
    """Which dialect a provider speaks."""

    base_provider_type: str


class ProviderKeyAnswer(TypedDict):
    """A provider's key; `value` is a hint."""

    id: str
    name: str
    provider: str
    value: str
    models: list[str]
    blacklisted_models: list[str]
    weight: float
    status: Literal["active", "unusable"]
    status_reason: str | None
    created_at: Instant
    updated_at: Instant


class ProviderAnswer(TypedDict):
    """A provider, configured or built in."""

    name: str
    network_config: NetworkAnswer
    custom_provider_config: CustomProviderAnswer | None
    hosts: list[str]
    keys: list[ProviderKeyAnswer]
    configured: bool
    built_in: bool
    provider_status: str


class ProviderList(TypedDict):
    """Every provider that can be called."""

    providers: list[ProviderAnswer]
    total: int


class ProviderKeyList(TypedDict):
    """A provider's keys."""

    keys: list[ProviderKeyAnswer]
    total: int
