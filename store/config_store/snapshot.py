"""The immutable picture of the governance that a worker decides by: built beside the road, then swapped in one step."""

from dataclasses import dataclass, field
from types import MappingProxyType

from store.ledger.types import Cap

ANY = "*"
"""In an allow list: everything. An empty list allows nothing."""


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A provider's own credential. `value` is the secret in clear and never leaves the process but to the provider."""

    id: str
    name: str
    value: str = field(repr=False)
    models: tuple[str, ...] = (ANY,)
    blacklisted_models: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Provider:
    """A configured or built-in provider: where it lives and how to speak to it."""

    name: str
    dialect_family: str
    """Which registry entry describes its paths: `openai`, `anthropic`, `gemini`, or a compatible one."""
    base_url: str | None = None
    """Overrides the registry's public address for every metered call; scheme, host, port and a path prefix."""
    hosts: tuple[str, ...] = ()
    """Further public hosts that count as this provider."""
    keys: tuple[ProviderKey, ...] = ()
    extra_headers: tuple[tuple[str, str], ...] = ()
    caps: tuple[Cap, ...] = ()
    """Deployment-wide caps of this provider."""


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What a virtual key may do at one provider (`*`: at any)."""

    id: str
    provider: str
    weight: float | None = None
    allowed_models: tuple[str, ...] = ()
    blacklisted_models: tuple[str, ...] = ()
    key_ids: tuple[str, ...] = (ANY,)
    """Ids or names of the provider keys this virtual key may use; empty: none."""
    caps: tuple[Cap, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """Who is calling. The key's value is not here: the snapshot finds it by its hash."""

    id: str
    name: str
    is_active: bool = True
    expires_at_ms: int | None = None
    provider_configs: tuple[ProviderConfig, ...] = ()
    team_id: str | None = None
    team_name: str | None = None
    customer_id: str | None = None
    """The key's own customer, or its team's."""
    customer_name: str | None = None
    caps: tuple[Cap, ...] = ()
    """The key's own caps, shortest window first."""
    team_caps: tuple[Cap, ...] = ()
    customer_caps: tuple[Cap, ...] = ()
    run_id: str | None = None
    """Set for a short-lived run credential (`exec`): the same key, with a cap of its own on top."""
    run_caps: tuple[Cap, ...] = ()
    hint: str = ""
    """Prefix and last four characters of the value, for people."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The governance at one revision."""

    revision: int
    providers: MappingProxyType[str, Provider]
    virtual_keys: MappingProxyType[str, VirtualKey]
    """By id."""
    by_hash: MappingProxyType[str, VirtualKey]
    """By the SHA-256 hex digest of the value; run credentials included."""
    model_caps: MappingProxyType[str, tuple[Cap, ...]]
    """Deployment-wide caps by model name; `*` binds every model."""
