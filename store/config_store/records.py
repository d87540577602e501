"""Rows of the governance tables as frozen values: what `read` returns and the API shows."""

from dataclasses import dataclass, field
from typing import Literal

from store.config_store.snapshot import ANY


@dataclass(frozen=True, slots=True)
class ProviderKeyRecord:
    """A provider's credential. `secret` is `env.NAME`, the text, or cipher text when `sealed`; `hint` may be shown."""

    id: str
    provider: str
    name: str
    secret: str = field(repr=False)
    sealed: bool
    hint: str
    models: tuple[str, ...] = (ANY,)
    blacklisted_models: tuple[str, ...] = ()
    weight: float = 1.0
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """A configured provider with its keys."""

    name: str
    base_provider: str | None
    base_url: str | None = None
    hosts: tuple[str, ...] = ()
    extra_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    created_ms: int = 0
    updated_ms: int = 0
    keys: tuple[ProviderKeyRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderConfigRecord:
    """What a virtual key may do at one provider."""

    id: str
    virtual_key_id: str
    provider: str
    weight: float | None = None
    allowed_models: tuple[str, ...] = ()
    blacklisted_models: tuple[str, ...] = ()
    key_ids: tuple[str, ...] = (ANY,)
    calendar_aligned: bool = False


@dataclass(frozen=True, slots=True)
class VirtualKeyRecord:
    """A virtual key; `value` is None when only its hash is kept."""

    id: str
    name: str
    value: str | None = field(repr=False)
    value_hash: str = field(repr=False)
    hint: str
    description: str = ""
    is_active: bool = True
    expires_at_ms: int | None = None
    team_id: str | None = None
    customer_id: str | None = None
    calendar_aligned: bool = False
    created_ms: int = 0
    updated_ms: int = 0
    previous_hash: str | None = field(default=None, repr=False)
    """Of the value before the last rotation, while it still opens the door."""
    previous_until_ms: int | None = None
    provider_configs: tuple[ProviderConfigRecord, ...] = ()

    def has_previous(self, now_ms: int) -> bool:
        """Whether the value before the last rotation still opens the door."""
        return self.previous_hash is not None and now_ms < (self.previous_until_ms or 0)


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A team or a customer; only teams have a `customer_id`."""

    id: str
    name: str
    customer_id: str | None = None
    calendar_aligned: bool = False
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfigRecord:
    """Whom caps on a model bind. `model_name` may hold `*`; `provider` None: at any; `scope_id` None: every caller."""

    id: str
    model_name: str
    provider: str | None = None
    scope: Literal["global", "virtual_key"] = "global"
    scope_id: str | None = None
    """The virtual key's id, with scope `virtual_key`."""
    calendar_aligned: bool = False
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class RoutingTarget:
    """Where a routing rule sends a call; None: as the caller asked. `weight` is this target's share of 1."""

    provider: str | None = None
    model: str | None = None
    key_id: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RoutingRuleRecord:
    """A rule that chooses provider and model of the calls its expression holds for; lower `priority` is asked first."""

    id: str
    name: str
    cel_expression: str
    targets: tuple[RoutingTarget, ...]
    description: str = ""
    enabled: bool = True
    chain_rule: bool = False
    fallbacks: tuple[str, ...] = ()
    """`provider/model` or `provider`, tried in this order after the targets."""
    scope: Literal["global", "team", "customer", "virtual_key"] = "global"
    scope_id: str | None = None
    query: str = "{}"
    """The builder's own picture of the expression (JSON), kept for dashboards and never read here."""
    priority: int = 0
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class PricingOverrideRecord:
    """Prices of one's own for models, narrowed to a virtual key, a provider or one of its keys. `patch`: field → USD as text."""

    id: str
    name: str
    scope_kind: str
    match_type: Literal["exact", "wildcard"]
    pattern: str
    request_types: tuple[str, ...]
    patch: tuple[tuple[str, str], ...]
    virtual_key_id: str | None = None
    provider_id: str | None = None
    provider_key_id: str | None = None
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A short-lived credential of `exec`: a virtual key with a cap of its own on top."""

    id: str
    virtual_key_id: str
    value_hash: str = field(repr=False)
    hint: str = ""
    budget_nanos: int | None = None
    created_ms: int = 0
    expires_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class NewSecret:
    """Something just made, with the only sight of its value that the store will give when it keeps hashes."""

    id: str
    value: str = field(repr=False)
