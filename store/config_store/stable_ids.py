"""Ids for entries of the file that give none: the same at every start and on every machine that reads the same file. Pure."""

import json
from collections import Counter
from dataclasses import replace
from uuid import UUID, uuid5

from store.config_store.file_plan import FilePlan
from store.config_store.snapshot import ANY
from store.config_store.specs import ProviderConfigSpec, ProviderSpec, VirtualKeySpec
from store.config_store.specs_models import FileModelConfig
from store.config_store.specs_routing import RoutingRuleSpec

_NAMESPACE = UUID("7b8a4d0e-7c1f-5d55-9a43-6a1f0c2be9d1")


def stable_id(kind: str, *names: str) -> str:
    """The id of an entry by its kind and the names that lead to it (UUID version 5, RFC 9562)."""
    return str(uuid5(_NAMESPACE, json.dumps([kind, *names])))


def with_stable_ids(plan: FilePlan) -> FilePlan:
    """The same plan, every entry with an id. A renamed entry without an id of its own is another entry."""
    return replace(
        plan,
        providers=tuple((name, _provider(name, spec)) for name, spec in plan.providers),
        customers=tuple(_named(row, "customer") for row in plan.customers),
        teams=tuple(_named(row, "team") for row in plan.teams),
        virtual_keys=tuple(_virtual_key(row) for row in plan.virtual_keys),
        model_configs=tuple(_model_config(row, plan.virtual_keys) for row in plan.model_configs),
        routing_rules=tuple(_rule(row) for row in plan.routing_rules),
        pricing_overrides=tuple(_named(row, "pricing_override") for row in plan.pricing_overrides),
    )


def _named[Row](row: Row, kind: str) -> Row:
    if row.id:  # type: ignore[attr-defined]
        return row
    made: Row = row.model_copy(update={"id": stable_id(kind, row.name)})  # type: ignore[attr-defined]
    return made


def _model_config(row: FileModelConfig, keys: tuple[VirtualKeySpec, ...]) -> FileModelConfig:
    """One on a model for everybody has the model's name for its id."""
    if row.known_id:
        return row.model_copy(update={"id": row.known_id})
    key = next((key for key in keys if row.scope_id and row.scope_id in (key.id, key.name)), None)
    key_id = (_named(key, "virtual_key").id if key else None) or ""
    return row.model_copy(update={"id": _model_config_id(row.scope, key_id, row.model_name, row.provider)})


def _model_config_id(scope: str, key_id: str, model_name: str, provider: str | None) -> str:
    return stable_id("model_config", scope, key_id, model_name, provider or "")


def _rule(row: RoutingRuleSpec) -> RoutingRuleSpec:
    if row.id:
        return row
    return row.model_copy(update={"id": stable_id("routing_rule", row.scope, row.scope_id or "", row.name)})


def _provider(name: str, spec: ProviderSpec) -> ProviderSpec:
    keys = tuple(key if key.id else key.model_copy(update={"id": stable_id("provider_key", name, key.name)}) for key in spec.keys)
    return spec.model_copy(update={"keys": keys})


def _virtual_key(row: VirtualKeySpec) -> VirtualKeySpec:
    row = _named(row, "virtual_key")
    seen: Counter[str] = Counter()
    configs = tuple(_config(row.id or "", config, seen) for config in row.provider_configs)
    return row.model_copy(update={"provider_configs": configs})


def _config(key_id: str, config: ProviderConfigSpec, seen: Counter[str]) -> ProviderConfigSpec:
    """Several configs of one key may name the same provider: they are told apart by their order."""
    number = seen[config.provider]
    seen[config.provider] += 1
    at = None if config.provider == ANY else config.provider
    budgets = tuple(
        budget if budget.id else budget.model_copy(update={"id": _model_config_id("virtual_key", key_id, budget.model_name, at)})
        for budget in config.model_budgets
    )
    if budgets != config.model_budgets:
        config = config.model_copy(update={"model_budgets": budgets})
    if config.id:
        return config
    return config.model_copy(update={"id": stable_id("provider_config", key_id, config.provider, str(number))})
