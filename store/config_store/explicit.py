"""Entries of a file with every field said: in an import, what a file leaves out has its default and is not kept as it was. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from store.config_store.file_plan import FilePlan
from store.config_store.make_caps import Owner, can_align, default_name
from store.config_store.model_owners import owner_of
from store.config_store.records import ModelConfigRecord
from store.config_store.snapshot import ANY
from store.config_store.specs import (
    BudgetSpec,
    Limited,
    ModelBudgetSpec,
    ProviderConfigSpec,
    RateLimitSpec,
    ResetConfig,
    VirtualKeySpec,
)
from store.config_store.specs_models import FileModelConfig
from store.ledger.types import Scope, Unit


def explicit(plan: FilePlan) -> FilePlan:
    """The same plan, nothing in it left to what the store has."""
    names = {word: key.name for key in plan.virtual_keys for word in (key.name, key.id) if word}
    return replace(
        plan,
        customers=tuple(_limited(row, Owner(Scope.CUSTOMER, "", row.name, row.calendar_aligned)) for row in plan.customers),
        teams=tuple(_limited(row, Owner(Scope.TEAM, "", row.name, row.calendar_aligned)) for row in plan.teams),
        virtual_keys=tuple(_virtual_key(row) for row in plan.virtual_keys),
        wide_caps=tuple(
            replace(
                group,
                budgets=budgets(group.budgets, Owner(group.scope, group.scope_id, group.scope_id, group.calendar_aligned)),
                rate_limit=rate_limit(group.rate_limit, group.calendar_aligned),
            )
            for group in plan.wide_caps
        ),
        model_configs=tuple(_limited(row, _model_owner(names, row)) for row in plan.model_configs),
    )


def budgets(specs: Sequence[BudgetSpec], owner: Owner) -> tuple[BudgetSpec, ...]:
    """Budgets with all they say by saying nothing."""
    return tuple(
        spec.model_copy(
            update={
                "name": spec.name or default_name(owner, Unit.USD, spec.reset_duration),
                "reset_config": spec.reset_config or ResetConfig(),
                "calendar_aligned": _aligned(spec.calendar_aligned, owner.calendar_aligned, spec.reset_duration),
                "timezone": spec.timezone,
                "enforcement": spec.enforcement,
                "strict": spec.strict,
                "carry_over": spec.carry_over,
            }
        )
        for spec in specs
    )


def rate_limit(spec: RateLimitSpec | None, calendar_aligned: bool) -> RateLimitSpec | None:
    """A rate limit likewise. Of two windows one may follow the calendar and the other not: then it says nothing of that."""
    if spec is None:
        return None
    update: dict[str, Any] = {"timezone": spec.timezone, "enforcement": spec.enforcement}
    cuts = {_aligned(spec.calendar_aligned, calendar_aligned, window) for _, limit, window in spec.windows() if limit is not None}
    if len(cuts) == 1:
        update["calendar_aligned"] = cuts.pop()
    return spec.model_copy(update=update)


def _model_owner(names: Mapping[str, str], row: FileModelConfig) -> Owner:
    record = ModelConfigRecord("", row.model_name, row.provider, row.scope, row.scope_id, row.calendar_aligned)
    return owner_of(record, names.get(row.scope_id or "", ""))


def _aligned(said: bool | None, owner: bool, window: str | None) -> bool:
    return said if said is not None else owner and can_align(window)


def _limited[Row: Limited](row: Row, owner: Owner, **more: Any) -> Row:
    return row.model_copy(
        update={
            "budgets": budgets(row.budgets, owner),
            "rate_limit": rate_limit(row.rate_limit, owner.calendar_aligned),
            "calendar_aligned": owner.calendar_aligned,
            **more,
        }
    )


def _virtual_key(row: VirtualKeySpec) -> VirtualKeySpec:
    configs = tuple(_config(row, config) for config in row.provider_configs)
    return _limited(row, Owner(Scope.VIRTUAL_KEY, "", row.name, row.calendar_aligned), provider_configs=configs)


def _config(key: VirtualKeySpec, config: ProviderConfigSpec) -> ProviderConfigSpec:
    aligned = config.calendar_aligned if config.given("calendar_aligned") else key.calendar_aligned
    owner = Owner(Scope.PROVIDER_CONFIG, "", f"{key.name} at {config.provider}", aligned)
    fields = {name: getattr(config, name) for name in ("weight", "allowed_models", "blacklisted_models", "key_ids")}
    return _limited(config, owner, **fields, model_budgets=tuple(_model(key, config, row) for row in config.model_budgets))


def _model(key: VirtualKeySpec, config: ProviderConfigSpec, row: ModelBudgetSpec) -> ModelBudgetSpec:
    aligned = row.calendar_aligned if row.given("calendar_aligned") else key.calendar_aligned
    provider = None if config.provider == ANY else config.provider
    return _limited(row, owner_of(ModelConfigRecord("", row.model_name, provider, "virtual_key", "", aligned), key.name))
