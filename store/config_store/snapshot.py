"""The immutable picture of the governance that a worker decides by: built beside the road, then swapped in one step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

from store.config_store.routing_rules import RoutingRules
from store.ledger.types import Cap
from store.prices.scoped import NO_OVERRIDES, ScopedPrices

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
class ModelLimit:
    """A model config: which calls its caps bind, by the model's name (or `*` pattern) and perhaps the provider."""

    id: str
    model_name: str
    provider: str | None = None
    caps: tuple[Cap, ...] = ()
    parts: tuple[str, ...] = ()
    """The pattern cut at its stars; empty for a plain name."""

    @staticmethod
    def normal(name: str) -> str:
        """A listed name as names are compared: in lower case, without Google's resource path."""
        return name.strip().lower().removeprefix("models/")


@dataclass(frozen=True, slots=True)
class ModelCaps:
    """The model configs of everybody, or of one virtual key, so laid out that a thousand plain names cost no more than one."""

    by_name: Mapping[str, tuple[ModelLimit, ...]] = field(default_factory=dict)
    """Plain names, as they are compared."""
    patterns: tuple[ModelLimit, ...] = ()
    found: dict[tuple[str, str], tuple[Cap, ...]] = field(default_factory=dict, compare=False, repr=False)
    """What was answered before, by (name, provider): `addons.patterns` fills and bounds it where there are many patterns."""

    @classmethod
    def of(cls, limits: Iterable[ModelLimit]) -> Self:
        """These configs; those without caps are left out."""
        by_name: dict[str, tuple[ModelLimit, ...]] = {}
        patterns: list[ModelLimit] = []
        for limit in limits:
            name = ModelLimit.normal(limit.model_name)
            if not limit.caps:
                continue
            if ANY in name:
                patterns.append(replace(limit, parts=tuple(name.split(ANY))))
            else:
                by_name[name] = (*by_name.get(name, ()), limit)
        return cls(by_name, tuple(patterns))

    @property
    def of_every_call(self) -> tuple[Cap, ...]:
        """Caps that no choice of model or provider gets past."""
        return tuple(cap for limit in self.patterns if limit.model_name == ANY and limit.provider is None for cap in limit.caps)

    @property
    def limits(self) -> tuple[ModelLimit, ...]:
        """All of them, plain names first."""
        return (*(limit for group in self.by_name.values() for limit in group), *self.patterns)


NO_MODEL_CAPS = ModelCaps()


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
    model_caps: ModelCaps = NO_MODEL_CAPS
    """Caps on models inside this key."""
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
    model_caps: ModelCaps = NO_MODEL_CAPS
    """Deployment-wide caps on models."""
    routing_rules: RoutingRules = field(default_factory=RoutingRules)
    """The enabled rules that choose provider and model."""
    prices: ScopedPrices = NO_OVERRIDES
    """Prices of the operator's own, by whom they are for."""
    previous: MappingProxyType[str, tuple[int, VirtualKey]] = field(default_factory=lambda: MappingProxyType({}))
    """By the digest of a value that was rotated away: until when it still opens the door (epoch milliseconds), and for whom."""
    secret_files: tuple[tuple[Path, tuple[int, ...] | None], ...] = field(default=(), repr=False)
    """Files that secrets were read from, each with what `secret_file.fingerprint` said of it just before."""

    unusable: tuple[str, ...] = ()
    """One sentence for each provider key that is left out, because its secret cannot be had."""
    client: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """The `client` settings that were changed while the gateway ran; they go before those of config.json."""

    def find(self, value_hash: str, now_ms: int) -> VirtualKey | None:
        """The virtual key whose value has this digest: the present one, or the one before while its overlap lasts."""
        key = self.by_hash.get(value_hash)
        if key is not None or not self.previous:
            return key
        until_ms, before = self.previous.get(value_hash, (0, None))
        return before if now_ms < until_ms else None
