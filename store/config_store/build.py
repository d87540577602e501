"""Builds the immutable snapshot that workers decide by: joins rows in dictionaries, opens secrets, attaches caps."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from store.config_store import read
from store.config_store.file_ledger import still_known
from store.config_store.keys import fits_a_header
from store.config_store.model_owners import scope_of
from store.config_store.price_overrides import scoped_prices
from store.config_store.read import Governance, ScopeKey, load_governance, sort_caps
from store.config_store.read_models import model_configs_of
from store.config_store.records import (
    GroupRecord,
    ModelConfigRecord,
    ProviderConfigRecord,
    ProviderKeyRecord,
    ProviderRecord,
    VirtualKeyRecord,
)
from store.config_store.routing_rules import compile_rules
from store.config_store.secret_file import fingerprint
from store.config_store.secret_text import NoSecret, SecretText
from store.config_store.snapshot import (
    NO_MODEL_CAPS,
    ModelCaps,
    ModelLimit,
    Provider,
    ProviderConfig,
    ProviderKey,
    Snapshot,
    VirtualKey,
)
from store.config_store.store import ConfigStore
from store.config_store.vault import Vault
from store.database import Connection, governance_revision
from store.errors import UserError
from store.ledger.types import Cap, Scope

Caps = Mapping[ScopeKey, tuple[Cap, ...]]


def load_snapshot(store: ConfigStore, environ: Mapping[str, str]) -> Snapshot:
    """The governance as it is now, in one read transaction.

    A provider key whose secret cannot be had is left out: it cannot be used (`unusable_keys` names it).
    """
    with store.reading() as (connection, ledger):
        revision = governance_revision(ledger)
        governance = load_governance(connection, now_ms=store.clock.now_ms(), ledger=ledger)
        if store.file_only:
            governance = still_known(governance, ledger)
    return build_snapshot(governance, revision, store.vault, environ, store.builtin)


def build_snapshot(
    governance: Governance, revision: int, vault: Vault, environ: Mapping[str, str], builtin: Mapping[str, str]
) -> Snapshot:
    """Pure: rows to snapshot."""
    teams = {team.id: team for team in governance.teams}
    customers = {customer.id: customer for customer in governance.customers}
    models: defaultdict[str, list[ModelConfigRecord]] = defaultdict(list)
    for config in governance.model_configs:
        models[config.scope_id or ""].append(config)
    keys: dict[str, VirtualKey] = {}
    by_hash: dict[str, VirtualKey] = {}
    previous: dict[str, tuple[int, VirtualKey]] = {}
    for record in governance.virtual_keys:
        key = _virtual_key(record, teams, customers, governance.caps, models.get(record.id, ()))
        keys[key.id] = by_hash[record.value_hash] = key
        if record.previous_hash is not None and record.previous_until_ms is not None:
            previous[record.previous_hash] = record.previous_until_ms, key
    for run in governance.runs:
        if (owner := keys.get(run.virtual_key_id)) is not None:
            by_hash[run.value_hash] = _for_run(owner, run.id, run.hint, run.expires_at_ms, governance.caps)
    files = [(path, fingerprint(path)) for path in _secret_files(governance, environ)]  # before they are read
    return Snapshot(
        revision=revision,
        client=MappingProxyType(dict(governance.client)),
        routing_rules=compile_rules(governance.routing_rules),
        providers=MappingProxyType(_providers(governance, vault, environ, builtin)),
        virtual_keys=MappingProxyType(keys),
        by_hash=MappingProxyType(by_hash),
        prices=scoped_prices(governance.pricing_overrides),
        previous=MappingProxyType(previous),
        secret_files=tuple(files),
        unusable=_unusable(governance.providers, vault, environ),
        model_caps=_model_caps(models.get("", ()), governance.caps),
    )


def one_virtual_key(connection: Connection, key_id: str, ledger: Connection | None = None) -> VirtualKey | None:
    """A single virtual key as a snapshot would hold it, without reading all the others."""
    found = read.virtual_keys(connection, [key_id])
    if not found:
        return None
    record = found[0]
    teams = {team.id: team for team in read.teams(connection)}
    customers = {customer.id: customer for customer in read.customers(connection)}
    team = teams.get(record.team_id or "")
    customer_id = record.customer_id or (team.customer_id if team else None)
    owners = [(Scope.VIRTUAL_KEY, record.id), *((Scope.PROVIDER_CONFIG, config.id) for config in record.provider_configs)]
    owners += [(Scope.TEAM, record.team_id)] if record.team_id else []
    owners += [(Scope.CUSTOMER, customer_id)] if customer_id else []
    models = model_configs_of(connection, [record.id]).get(record.id, ())
    owners += [(Scope.VIRTUAL_KEY_MODEL, config.id) for config in models]
    caps = {owner: read.caps_of(ledger or connection, *owner) for owner in owners}
    return _virtual_key(record, teams, customers, caps, models)


def unusable_keys(store: ConfigStore, environ: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each provider key that cannot be used now, for start-up lines and `doctor`."""
    with store.database.read() as connection:
        providers = read.providers(connection)
    return _unusable(providers, store.vault, environ)


def _unusable(providers: Iterable[ProviderRecord], vault: Vault, environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"provider key {key.name!r} of {provider.name}: {fault}"
        for provider in providers
        for key in provider.keys
        if (fault := fault_of(key, vault, environ)) is not None
    )


def fault_of(record: ProviderKeyRecord, vault: Vault, environ: Mapping[str, str]) -> str | None:
    """Why a provider key cannot be used now, as a part of a sentence; None when it can."""
    try:
        value = SecretText(record.secret).look_up(environ) if not record.sealed else vault.open(record.secret)
    except (NoSecret, UserError) as error:
        return str(error)
    return None if fits_a_header(value) else "holds characters that cannot travel in a header; write printable ASCII alone"


def _secret_files(governance: Governance, environ: Mapping[str, str]) -> Iterator[Path]:
    for provider in governance.providers:
        for key in provider.keys:
            if not key.sealed and (path := SecretText(key.secret).path(environ)) is not None:
                yield path


def _model_caps(configs: Iterable[ModelConfigRecord], caps: Caps) -> ModelCaps:
    found = [
        ModelLimit(config.id, config.model_name, config.provider, own)
        for config in configs
        if (own := caps.get((scope_of(config), config.id)))
    ]
    return ModelCaps.of(found) if found else NO_MODEL_CAPS


def _virtual_key(
    record: VirtualKeyRecord,
    teams: Mapping[str, GroupRecord],
    customers: Mapping[str, GroupRecord],
    caps: Caps,
    models: Iterable[ModelConfigRecord],
) -> VirtualKey:
    team = teams.get(record.team_id) if record.team_id else None
    customer_id = record.customer_id or (team.customer_id if team else None)
    customer = customers.get(customer_id) if customer_id else None
    return VirtualKey(
        id=record.id,
        name=record.name,
        is_active=record.is_active,
        expires_at_ms=record.expires_at_ms,
        provider_configs=tuple(_provider_config(config, caps) for config in record.provider_configs),
        team_id=team.id if team else None,
        team_name=team.name if team else None,
        customer_id=customer.id if customer else None,
        customer_name=customer.name if customer else None,
        caps=caps.get((Scope.VIRTUAL_KEY, record.id), ()),
        team_caps=caps.get((Scope.TEAM, team.id), ()) if team else (),
        customer_caps=caps.get((Scope.CUSTOMER, customer.id), ()) if customer else (),
        model_caps=_model_caps(models, caps),
        hint=record.hint,
    )


def _for_run(key: VirtualKey, run_id: str, hint: str, expires_at_ms: int, caps: Caps) -> VirtualKey:
    ends = expires_at_ms if key.expires_at_ms is None else min(expires_at_ms, key.expires_at_ms)
    return VirtualKey(
        id=key.id,
        name=key.name,
        is_active=key.is_active,
        expires_at_ms=ends,
        provider_configs=key.provider_configs,
        team_id=key.team_id,
        team_name=key.team_name,
        customer_id=key.customer_id,
        customer_name=key.customer_name,
        caps=key.caps,
        team_caps=key.team_caps,
        customer_caps=key.customer_caps,
        model_caps=key.model_caps,
        run_id=run_id,
        run_caps=sort_caps(caps.get((Scope.RUN, run_id), ())),
        hint=hint,
    )


def _provider_config(record: ProviderConfigRecord, caps: Caps) -> ProviderConfig:
    return ProviderConfig(
        id=record.id,
        provider=record.provider,
        weight=record.weight,
        allowed_models=record.allowed_models,
        blacklisted_models=record.blacklisted_models,
        key_ids=record.key_ids,
        caps=caps.get((Scope.PROVIDER_CONFIG, record.id), ()),
    )


def _providers(governance: Governance, vault: Vault, environ: Mapping[str, str], builtin: Mapping[str, str]) -> dict[str, Provider]:
    made = {
        name: Provider(name=name, dialect_family=family, caps=governance.caps.get((Scope.PROVIDER, name), ()))
        for name, family in builtin.items()
    }
    for record in governance.providers:
        made[record.name] = _provider(record, vault, environ, builtin, governance.caps)
    return made


def _provider(record: ProviderRecord, vault: Vault, environ: Mapping[str, str], builtin: Mapping[str, str], caps: Caps) -> Provider:
    base = record.base_provider or record.name
    return Provider(
        name=record.name,
        dialect_family=builtin.get(base, base),
        base_url=record.base_url,
        hosts=record.hosts,
        keys=tuple(key for row in record.keys if (key := _provider_key(row, vault, environ)) is not None),
        extra_headers=tuple((name, vault.open_marked(value)) for name, value in record.extra_headers),
        caps=caps.get((Scope.PROVIDER, record.name), ()),
    )


def _provider_key(record: ProviderKeyRecord, vault: Vault, environ: Mapping[str, str]) -> ProviderKey | None:
    value = secret_of(record, vault, environ)
    if not value:
        return None
    return ProviderKey(
        id=record.id,
        name=record.name,
        value=value,
        models=record.models,
        blacklisted_models=record.blacklisted_models,
        weight=record.weight,
    )


def secret_of(record: ProviderKeyRecord, vault: Vault, environ: Mapping[str, str]) -> str | None:
    """The credential in clear; None when it cannot be had or used. Raises UserError for a wrong vault."""
    if record.sealed:
        try:
            return vault.open(record.secret)
        except UserError as error:
            raise UserError(f"provider key {record.name!r}: {error}") from None
    value = SecretText(record.secret).resolve(environ)
    return value if value and fits_a_header(value) else None
