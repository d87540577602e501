"""Puts the scattered rows of config.json together: budgets and rate limits go to whoever owns or names them. Pure."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from store.config_store.make_caps import can_align
from store.config_store.snapshot import ANY
from store.config_store.specs import (
    Budgets,
    BudgetSpec,
    CustomerSpec,
    ProviderConfigSpec,
    ProviderSpec,
    RateLimitSpec,
    TeamSpec,
    VirtualKeySpec,
    check_budgets,
)
from store.config_store.specs_models import FileModelConfig
from store.config_store.specs_prices import PricingOverrideSpec
from store.config_store.specs_routing import RoutingRuleSpec
from store.errors import SettingsError
from store.ledger.types import Scope
from store.settings import FileBudget, Governance, Settings


@dataclass(frozen=True, slots=True)
class WideCaps:
    """Deployment-wide caps of a provider."""

    scope: Scope
    scope_id: str
    budgets: tuple[BudgetSpec, ...]
    rate_limit: RateLimitSpec | None
    path: str
    calendar_aligned: bool = False
    """What the owner says of its windows; the budgets carry it already."""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The file's providers and governance with every cap at its owner."""

    providers: tuple[tuple[str, ProviderSpec], ...] = ()
    customers: tuple[CustomerSpec, ...] = ()
    teams: tuple[TeamSpec, ...] = ()
    virtual_keys: tuple[VirtualKeySpec, ...] = ()
    wide_caps: tuple[WideCaps, ...] = ()
    model_configs: tuple[FileModelConfig, ...] = ()
    routing_rules: tuple[RoutingRuleSpec, ...] = ()
    pricing_overrides: tuple[PricingOverrideSpec, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when the file configures nothing of this."""
        return not (
            self.providers or self.customers or self.teams or self.virtual_keys or self.wide_caps or self.routing_rules
            or self.model_configs or self.pricing_overrides
        )  # fmt: skip


@dataclass
class _Pool:
    """Rows of the file, found by whoever asks for them."""

    budgets: dict[str, FileBudget]
    limits: dict[str, RateLimitSpec]
    owned: dict[tuple[str, str], list[FileBudget]]
    used: set[str] = field(default_factory=set)

    def budgets_of(self, row: Any, inline: Budgets, owner: str, ids: tuple[str | None, ...]) -> Budgets:
        """An owner's budgets: written inside it, naming it by id or name, or named by its `budget_id`."""
        found = list(inline)
        for owner_id in dict.fromkeys(ids):
            if owner_id:
                found += self.owned.get((owner, owner_id), [])
        for budget_id in (getattr(row, "budget_id", None), *getattr(row, "budget_ids", ())):
            if budget_id and not any(budget.id == budget_id for budget in found):
                found.append(self.budgets[budget_id])
        self.used |= {budget.id for budget in found if budget.id}
        return tuple(_plain(budget) for budget in found)

    def limit_of(self, row: Any) -> RateLimitSpec | None:
        """An owner's rate limit: written inside it or named by its `rate_limit_id`."""
        limit_id = getattr(row, "rate_limit_id", None)
        inline: RateLimitSpec | None = row.rate_limit
        return inline or (self.limits[limit_id] if limit_id else None)


def read_plan(settings: Settings) -> FilePlan:
    """The file's providers and governance, joined. Raises SettingsError for a budget without an owner or a doubled window."""
    governance = settings.governance
    pool = _pool(governance)
    old_lists = settings.version == 1
    plan = FilePlan(
        providers=tuple(
            (name, _open_provider(spec) if old_lists else spec) for name, spec in settings.providers.items()
        ),
        customers=tuple(
            _with_caps(row, pool.budgets_of(row, row.budgets, "customer_id", (row.id, row.name)), pool.limit_of(row),
                       f"governance.customers[{index}]")
            for index, row in enumerate(governance.customers)
        ),
        teams=tuple(
            _with_caps(row, pool.budgets_of(row, row.budgets, "team_id", (row.id, row.name)), pool.limit_of(row),
                       f"governance.teams[{index}]")
            for index, row in enumerate(governance.teams)
        ),
        virtual_keys=tuple(
            _virtual_key(row, pool, f"governance.virtual_keys[{index}]", old_lists)
            for index, row in enumerate(governance.virtual_keys)
        ),
        wide_caps=_wide_caps(governance, pool),
        model_configs=_model_configs(governance, pool),
        routing_rules=governance.routing_rules,
        pricing_overrides=governance.pricing_overrides,
    )  # fmt: skip
    for index, budget in enumerate(governance.budgets):
        if not budget.owners() and (budget.id is None or budget.id not in pool.used):
            raise SettingsError(
                f"governance.budgets[{index}]: belongs to nobody and would cap nothing; give it virtual_key_id, "
                "provider_config_id, team_id, customer_id, model_config_id or provider_name"
            )
    return plan


def _model_configs(governance: Governance, pool: _Pool) -> tuple[FileModelConfig, ...]:
    """The rows with their caps. Raises SettingsError where two bind exactly the same calls: only one of them could be edited."""
    key_ids = {name: key.id or key.name for key in governance.virtual_keys for name in (key.name, key.id) if name}
    seen = {
        (key.id or key.name, budget.model_name, "" if config.provider == ANY else config.provider)
        for key in governance.virtual_keys
        for config in key.provider_configs
        for budget in config.model_budgets
    }
    made = []
    for index, row in enumerate(governance.model_configs):
        path = f"governance.model_configs[{index}]"
        target = (key_ids.get(row.scope_id or "", ""), row.model_name, row.provider or "")
        if target in seen:
            raise SettingsError(f"{path}: another entry binds the same calls to {row.model_name!r}; put all their caps into one")
        seen.add(target)
        budgets = pool.budgets_of(row, row.budgets, "model_config_id", (row.known_id,))
        made.append(_with_caps(row, budgets, pool.limit_of(row), path))
    return tuple(made)


def _pool(governance: Governance) -> _Pool:
    owned: defaultdict[tuple[str, str], list[FileBudget]] = defaultdict(list)
    for budget in governance.budgets:
        for owner, owner_id in budget.owners().items():
            owned[(owner, owner_id)].append(budget)
    return _Pool(
        budgets={budget.id: budget for budget in governance.budgets if budget.id},
        limits={limit.id: limit for limit in governance.rate_limits},
        owned=dict(owned),
    )


def _virtual_key(row: VirtualKeySpec, pool: _Pool, path: str, old_lists: bool) -> VirtualKeySpec:
    budgets = pool.budgets_of(row, row.budgets, "virtual_key_id", (row.id, row.name))
    configs = row.provider_configs
    if old_lists and not configs:
        configs = (ProviderConfigSpec(provider=ANY),)
    made = []
    for index, config in enumerate(configs):
        own = pool.budgets_of(config, config.budgets, "provider_config_id", (config.id,))
        joined = _with_caps(config, own, pool.limit_of(config), f"{path}.provider_configs[{index}]")
        made.append(_open_config(joined) if old_lists else joined)
    key = _with_caps(row, budgets, pool.limit_of(row), path)
    return key.model_copy(update={"provider_configs": tuple(made)})


def _wide_caps(governance: Governance, pool: _Pool) -> tuple[WideCaps, ...]:
    made: list[WideCaps] = []
    names = {row.name: (f"governance.providers[{index}]", row) for index, row in enumerate(governance.providers)}
    owned = {name for kind, name in pool.owned if kind == "provider_name"}
    for name in dict.fromkeys([*names, *sorted(owned)]):
        path, row = names.get(name, ("governance", None))
        inline = tuple(_aligned(budget, row.calendar_aligned) for budget in row.budgets) if row else ()
        budgets = pool.budgets_of(row, inline, "provider_name", (name,))
        _one_per_window(budgets, path)
        rate = pool.limit_of(row) if row else None
        made.append(WideCaps(Scope.PROVIDER, name, budgets, rate, path, row.calendar_aligned if row else False))
    return tuple(made)


def _with_caps[Row: (CustomerSpec, TeamSpec, VirtualKeySpec, ProviderConfigSpec, FileModelConfig)](
    row: Row, budgets: tuple[BudgetSpec, ...], limit: RateLimitSpec | None, path: str
) -> Row:
    _one_per_window(budgets, path)
    return row.model_copy(update={"budgets": budgets, "rate_limit": limit})


def _one_per_window(budgets: tuple[BudgetSpec, ...], path: str) -> None:
    try:
        check_budgets(budgets)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None


def _plain(budget: BudgetSpec) -> BudgetSpec:
    """A row of the file as a budget like any other."""
    if type(budget) is BudgetSpec:
        return budget
    given = {name: getattr(budget, name) for name in budget.model_fields_set & set(BudgetSpec.model_fields)}
    return BudgetSpec.model_construct(_fields_set=set(given), **given)


def _aligned(budget: BudgetSpec, calendar_aligned: bool) -> BudgetSpec:
    if budget.calendar_aligned is not None or not calendar_aligned or not can_align(budget.reset_duration):
        return budget
    return budget.model_copy(update={"calendar_aligned": True})


def _open_provider(spec: ProviderSpec) -> ProviderSpec:
    """Version 1 files: an empty allow list allows everything."""
    keys = tuple(key if key.models else key.model_copy(update={"models": (ANY,)}) for key in spec.keys)
    return spec.model_copy(update={"keys": keys})


def _open_config(spec: ProviderConfigSpec) -> ProviderConfigSpec:
    return spec.model_copy(update={"allowed_models": spec.allowed_models or (ANY,), "key_ids": spec.key_ids or (ANY,)})
