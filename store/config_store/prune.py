"""Deletes what the store has and a file that is the source of truth does not; what was spent stays in the books."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from store.config_store import read
from store.config_store.change_caps import drop_caps
from store.config_store.change_groups import delete_customer, delete_team
from store.config_store.change_keys import delete_virtual_key
from store.config_store.change_models import delete_model_config
from store.config_store.change_prices import delete_pricing_override, known_pricing_override
from store.config_store.change_providers import delete_provider
from store.config_store.change_routing import delete_routing_rule, known_rule
from store.config_store.edits import Edit
from store.config_store.file_plan import FilePlan
from store.config_store.file_truth import SECTIONS, is_empty, is_present
from store.config_store.read_models import model_config_at
from store.config_store.records import GroupRecord, PricingOverrideRecord, RoutingRuleRecord, VirtualKeyRecord
from store.config_store.snapshot import ANY
from store.config_store.store import ConfigStore
from store.database import Connection
from store.ledger.types import Scope
from store.settings import Settings

_ORDER = (
    "routing_rule", "pricing_override", "model_config", "virtual_key", "team", "customer", "provider_limits", "provider",
)  # fmt: skip
"""What refers to others first."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, and what was left although the file's section is empty: section → names."""

    deleted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Within(ConfigStore):
    """A store whose edits go into a transaction that is open already."""

    inside: Connection | None = None

    @contextmanager
    def editing(self, action: str, kind: str, id_or_name: str = "", *, reason: str = "", spending: bool = False) -> Iterator[Edit]:
        if self.inside is None:
            raise RuntimeError("there is no open transaction to edit in")
        with self.audited(self.inside, action, kind, id_or_name, reason=reason) as edit:
            yield edit


def prune(store: ConfigStore, connection: Connection, plan: FilePlan, settings: Settings, *, empty_too: bool) -> Pruned:
    """Inside the transaction that applied the plan: delete what its sections do not name.

    A section that is there and empty deletes only with `empty_too`: an empty list is sooner a mistake than a wish to lose all.
    """
    inside = _Within(store.database, store.clock, store.ids, store.vault, store.builtin, store.entropy, actor=store.actor,
                     inside=connection)  # fmt: skip
    deleted: dict[str, tuple[str, ...]] = {}
    left: dict[str, tuple[str, ...]] = {}
    for kind in _ORDER:
        if not is_present(settings, kind):
            continue
        surplus = _surplus(kind, connection, plan, settings)
        if not surplus:
            continue
        if is_empty(settings, kind) and not empty_too:
            left[SECTIONS[kind]] = tuple(surplus.values())
            continue
        for thing in surplus:
            _DELETE[kind](inside, thing)
        deleted[SECTIONS[kind]] = tuple(surplus.values())
    return Pruned(deleted, left)


def _surplus(kind: str, connection: Connection, plan: FilePlan, settings: Settings) -> dict[str, str]:
    """Id → name of everything of this kind that the file does not name."""
    named = _named(kind, connection, plan, settings)
    return {thing: name for thing, name in _present(kind, connection).items() if thing not in named}


def _present(kind: str, connection: Connection) -> dict[str, str]:
    if kind == "provider":
        return {record.name: record.name for record in read.providers(connection)}
    if kind == "provider_limits":
        return {scope_id: scope_id for scope, scope_id in read.caps_by_scope(connection) if scope is Scope.PROVIDER}
    if kind == "virtual_key":
        return {record.id: record.name for record in read.virtual_keys(connection)}
    if kind in ("team", "customer"):
        return {record.id: record.name for record in (read.teams if kind == "team" else read.customers)(connection)}
    if kind == "model_config":
        return {record.id: record.model_name for record in read.model_configs(connection)}
    if kind == "routing_rule":
        return {record.id: record.name for record in read.routing_rules(connection)}
    return {record.id: record.name for record in read.pricing_overrides(connection)}


def _named(kind: str, connection: Connection, plan: FilePlan, settings: Settings) -> set[str]:
    """Ids of everything of this kind that the file names; it has been applied, so all of it is there."""
    if kind == "provider":
        return {name for name, _ in plan.providers}
    if kind == "provider_limits":
        return {group.scope_id for group in plan.wide_caps if group.scope is Scope.PROVIDER}
    if kind == "virtual_key":
        words = [key.id or key.name for key in plan.virtual_keys] + list(_named_by_gateway(settings))
        return _ids(read.virtual_key(connection, word) for word in words)
    if kind == "team":
        return _ids(read.team(connection, row.id or row.name) for row in plan.teams)
    if kind == "customer":
        return _ids(read.customer(connection, row.id or row.name) for row in plan.customers)
    if kind == "model_config":
        return _named_models(connection, plan)
    if kind == "routing_rule":
        return _ids(known_rule(connection, rule) for rule in plan.routing_rules)
    return _ids(known_pricing_override(connection, row) for row in plan.pricing_overrides)


def _ids(records: Iterable[VirtualKeyRecord | GroupRecord | RoutingRuleRecord | PricingOverrideRecord | None]) -> set[str]:
    return {record.id for record in records if record is not None}


def _named_by_gateway(settings: Settings) -> Iterator[str]:
    """Keys that other sections of the file name: they are wanted too."""
    gateway = settings.gateway
    if gateway.default_virtual_key is not None:
        yield gateway.default_virtual_key
    yield from (listener.virtual_key for listener in gateway.listeners)


def _named_models(connection: Connection, plan: FilePlan) -> set[str]:
    """Rows of `model_configs`, and the `model_budgets` of virtual keys, which stand in the same table."""
    found = set()
    for config in plan.model_configs:
        key = read.virtual_key(connection, config.scope_id) if config.scope_id else None
        record = model_config_at(connection, config.scope, key.id if key else None, config.model_name, config.provider)
        found |= {record.id} if record else set()
    for row in plan.virtual_keys:
        key = read.virtual_key(connection, row.id or row.name)
        for provider_config in row.provider_configs if key else ():
            provider = None if provider_config.provider == ANY else provider_config.provider
            for budget in provider_config.model_budgets:
                record = model_config_at(connection, "virtual_key", key.id if key else None, budget.model_name, provider)
                found |= {record.id} if record else set()
    return found


def _drop_provider_limits(store: ConfigStore, name: str) -> None:
    with store.editing("delete", "provider_limits", name) as edit:
        drop_caps(edit.connection, Scope.PROVIDER, name)


_DELETE: Mapping[str, Callable[[ConfigStore, str], object]] = {
    "provider": delete_provider,
    "customer": delete_customer,
    "team": delete_team,
    "virtual_key": delete_virtual_key,
    "provider_limits": _drop_provider_limits,
    "model_config": delete_model_config,
    "routing_rule": delete_routing_rule,
    "pricing_override": delete_pricing_override,
}
