"""`doctor` on the governance: file entries without effect, caps and rules that can never bind, keys that ended. Reads only."""

import stat
from collections.abc import Iterator
from pathlib import Path

from addons.process.findings import Finding, Level
from addons.process.text import few
from store.config_store.client_config import ignored_fields, stored_client
from store.config_store.reach import secrets_in
from store.config_store.read import Governance
from store.config_store.records import PricingOverrideRecord, RoutingRuleRecord
from store.config_store.snapshot import ANY
from store.config_store.store import ConfigStore
from store.ledger.types import Scope
from store.settings import Settings

_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def config_mode(path: Path, settings: Settings) -> Iterator[Finding]:
    """A configuration file with secrets in it that others may read."""
    count = sum(1 for secret in secrets_in(settings) if not secret.is_reference and secret.written)
    if not count or not path.is_file() or not path.stat().st_mode & _OPEN_TO_OTHERS:
        return
    yield Finding(
        "configuration",
        Level.WARN,
        f"{path} holds {count} secret(s) in clear, and other users of this machine can read it",
        f"chmod 600 {path}, or write env.NAME or file:PATH in their place",
    )


def ignored_entries(store: ConfigStore, settings: Settings) -> Iterator[Finding]:
    """Entries of the file that the store, which has data, goes before."""
    owned = store.truth.kinds
    governance = settings.governance
    groups: tuple[tuple[str, str, list[str]], ...] = (
        ("provider", "provider", list(settings.providers)),
        ("virtual_key", "virtual key", [key.name for key in governance.virtual_keys]),
        ("team", "team", [team.name for team in governance.teams]),
        ("customer", "customer", [customer.name for customer in governance.customers]),
        ("budget", "budget", [budget.name or budget.id or "(unnamed)" for budget in governance.budgets]),
        ("budget", "rate limit", [limit.id for limit in governance.rate_limits]),
        ("model_config", "model config", [config.model_name for config in governance.model_configs]),
        ("provider_limits", "limits of provider", [provider.name for provider in governance.providers]),
        ("routing_rule", "routing rule", [rule.name for rule in governance.routing_rules]),
        ("pricing_override", "pricing override", [override.name for override in governance.pricing_overrides]),
    )
    entries = [f"{word} {name}" for kind, word, names in groups if kind not in owned for name in names]
    if entries and not owned:
        text = f"the store has data, so changes to these in config.json have no effect: {few(entries)}"
        advice = "change them with commands or the API, or apply the file with serve --reseed"
        yield Finding("configuration", Level.NOTE, text, advice)
    with store.database.read() as connection:
        fields = ignored_fields(stored_client(connection), settings.client.model_fields_set)
    if fields:
        text = f"changed while the gateway ran, so the file's values of client.{', client.'.join(fields)} have no effect"
        yield Finding("configuration", Level.NOTE, text, "change them with PUT /api/config, or take them out of the file")


def ended_keys(governance: Governance, now_ms: int) -> Iterator[Finding]:
    """Virtual keys that have expired, and keys that may call nothing."""
    active = [key for key in governance.virtual_keys if key.is_active]
    over = [key.name for key in active if key.expires_at_ms is not None and key.expires_at_ms <= now_ms]
    if over:
        advice = "tollgate keys update KEY --expires TIME, or delete them"
        yield Finding("virtual keys", Level.NOTE, f"expired, their calls are refused: {few(over)}", advice)
    shut = [key.name for key in active if not key.provider_configs]
    if shut:
        advice = f"tollgate keys update {shut[0]} --provider openai"
        yield Finding("virtual keys", Level.WARN, f"no provider is allowed, every call is refused: {few(shut)}", advice)
    no_models = [
        f"{key.name} at {config.provider}" for key in active for config in key.provider_configs if not config.allowed_models
    ]
    if no_models:
        advice = 'tollgate keys update KEY --model MODEL, or "*" for every model'
        yield Finding("virtual keys", Level.WARN, f"no model is allowed, every call is refused: {few(no_models)}", advice)


def idle_caps(governance: Governance, known_providers: frozenset[str]) -> Iterator[Finding]:
    """Caps that no call can touch."""
    has_keys = {key.team_id for key in governance.virtual_keys} | {key.customer_id for key in governance.virtual_keys}
    has_keys |= {team.customer_id for team in governance.teams if team.id in has_keys}
    groups = {(Scope.TEAM, row.id): row.name for row in governance.teams}
    groups |= {(Scope.CUSTOMER, row.id): row.name for row in governance.customers}
    empty = [
        f"{scope.value} {name}" for (scope, group_id), name in groups.items()
        if governance.caps.get((scope, group_id)) and group_id not in has_keys
    ]  # fmt: skip
    if empty:
        text = f"caps of groups without a virtual key bind nobody: {few(empty)}"
        yield Finding("budgets", Level.NOTE, text, "tollgate keys update KEY --team TEAM, or delete them")
    strange = [
        f"{key.name} at {config.provider}" for key in governance.virtual_keys for config in key.provider_configs
        if config.provider not in known_providers and config.provider != ANY
    ]  # fmt: skip
    strange += [
        f"provider {scope_id}" for scope, scope_id in governance.caps if scope is Scope.PROVIDER and scope_id not in known_providers
    ]
    strange += [
        f"{row.model_name} at {row.provider}"
        for row in governance.model_configs
        if row.provider and row.provider not in known_providers
    ]
    if strange:
        text = f"no such provider is configured, so these never apply: {few(strange)}"
        yield Finding("providers", Level.WARN, text, "configure the provider, or delete what names it")


def idle_rules(governance: Governance, known_providers: frozenset[str]) -> Iterator[Finding]:
    """Routing rules of which no target can be reached, or whose scope is gone."""
    scopes = {row.id for rows in (governance.teams, governance.customers, governance.virtual_keys) for row in rows}
    keys = {word for provider in governance.providers for key in provider.keys for word in (key.id, key.name)}
    for rule in governance.routing_rules:
        if not rule.enabled:
            continue
        reasons = list(_why_idle(rule, scopes, keys, known_providers))
        if reasons:
            text = f"the routing rule {rule.name!r} has no effect: {'; '.join(reasons)}"
            yield Finding("routing", Level.WARN, text, "change the rule, or delete it")


def _why_idle(rule: RoutingRuleRecord, scopes: set[str], keys: set[str], providers: frozenset[str]) -> Iterator[str]:
    if rule.scope_id is not None and rule.scope_id not in scopes:
        yield f"there is no {rule.scope.replace('_', ' ')} {rule.scope_id!r}"
    lost = [target.provider for target in rule.targets if target.provider and target.provider not in providers]
    if lost and len(lost) == len(rule.targets):
        yield f"no provider {few(sorted(set(lost)))} is configured"
    gone = [target.key_id for target in rule.targets if target.key_id and target.key_id not in keys]
    if gone and len(gone) == len(rule.targets):
        yield f"there is no provider key {few(sorted(set(gone)))}"


def named_models(governance: Governance) -> Iterator[tuple[str, str]]:
    """(provider, model) of every plain model name that somebody wrote: allow lists, model configs, targets of routing rules."""
    for key in governance.virtual_keys:
        for config in key.provider_configs:
            yield from ((config.provider, model) for model in config.allowed_models if config.provider != ANY)
    yield from ((row.provider, row.model_name) for row in governance.model_configs if row.provider)
    for rule in governance.routing_rules:
        yield from ((target.provider, target.model) for target in rule.targets if target.provider and target.model)
        yield from ((provider, model) for provider, _, model in (name.partition("/") for name in rule.fallbacks) if model)


def has_own_price(overrides: tuple[PricingOverrideRecord, ...], model: str) -> bool:
    """Whether some pricing override is for this name, whoever it is for."""
    return any(
        model.startswith(row.pattern.rstrip("*")) if row.match_type == "wildcard" else model == row.pattern for row in overrides
    )
