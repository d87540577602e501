"""Reads behind the API: records with their caps' sums, all from one instant. Runs on a thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from store.config_store import read
from store.config_store.read_groups import GroupKind, GroupQuery, group_page, groups_by_id, members
from store.config_store.read_models import model_configs_of
from store.config_store.read_spent import key_ids_by_spent
from store.config_store.records import GroupRecord, ModelConfigRecord, ProviderKeyRecord, VirtualKeyRecord
from store.config_store.shapes import Json, States, budget_json, by_owner, group_json, virtual_key_json
from store.config_store.snapshot import ANY
from store.database import Connection
from store.errors import NotFound
from store.ledger.types import CapState, Scope, Unit


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What virtual keys are shown with."""

    states: States
    teams: Mapping[str, GroupRecord]
    customers: Mapping[str, GroupRecord]
    provider_keys: Mapping[str, Sequence[ProviderKeyRecord]]
    models: Mapping[str, Sequence[ModelConfigRecord]]
    now_ms: int


def surroundings(
    context: ConsoleContext, connection: Connection, ledger: Connection, keys: Sequence[VirtualKeyRecord]
) -> Surroundings:
    """Everything that these keys refer to."""
    models = model_configs_of(connection, [key.id for key in keys])
    return Surroundings(
        states=by_owner(states_of(context, ledger, read.key_cap_ids(ledger, keys, models))),
        models=models,
        teams=groups_by_id(connection, "team", (key.team_id for key in keys if key.team_id)),
        customers=groups_by_id(connection, "customer", (key.customer_id for key in keys if key.customer_id)),
        provider_keys={name: read.provider_keys(connection, name) for name in _providers_with_chosen_keys(keys)},
        now_ms=context.store.clock.now_ms(),
    )


def key_json(record: VirtualKeyRecord, around: Surroundings) -> Json:
    """One key with its surroundings."""
    models = around.models.get(record.id, ())
    return virtual_key_json(record, around.states, around.teams, around.customers, around.provider_keys, models, around.now_ms)


def read_key(context: ConsoleContext, key_id: str, value: str | None = None) -> Json:
    """One key by id or name; `value` shows a value that was made just now. Raises NotFound."""
    with context.store.reading() as (connection, ledger):
        record = read.virtual_key(connection, key_id)
        if record is None:
            raise NotFound(f"there is no virtual key {key_id!r}")
        made = key_json(record, surroundings(context, connection, ledger, (record,)))
    return {**made, "value": value} if value is not None else made


def tagged_key(handler: ConsoleHandler, key_id: str, value: str | None = None) -> Json:
    """As `read_key`, with its entity tag, read before it: with an older tag nobody overwrites what he has not seen."""
    handler.tag("virtual_key", key_id)
    return read_key(handler.context, key_id, value)


def read_keys(context: ConsoleContext, query: read.KeyQuery) -> tuple[list[Json], int]:
    """A page of keys and how many there are in all."""
    with context.store.reading() as (connection, ledger):
        if query.sort_by == "budget_spent":
            ids = key_ids_by_spent(connection, ledger, query, context.store.clock.now_ms())
            end = None if query.limit is None else query.offset + query.limit
            records, total = read.virtual_keys(connection, ids[query.offset : end]), len(ids)
        else:
            records, total = read.key_page(connection, query)
        around = surroundings(context, connection, ledger, records)
        return [key_json(record, around) for record in records], total


def read_groups(context: ConsoleContext, kind: GroupKind, query: GroupQuery) -> tuple[list[Json], int]:
    """A page of teams or customers, and how many there are in all."""
    with context.store.reading() as (connection, ledger):
        records, total = group_page(connection, kind, query)
        return _groups_json(context, connection, ledger, kind, records), total


def read_group(context: ConsoleContext, kind: GroupKind, group_id: str) -> Json:
    """One team or customer by id or name. Raises NotFound."""
    with context.store.reading() as (connection, ledger):
        record = read.team(connection, group_id) if kind == "team" else read.customer(connection, group_id)
        if record is None:
            raise NotFound(f"there is no {kind} {group_id!r}")
        return _groups_json(context, connection, ledger, kind, (record,))[0]


def _groups_json(
    context: ConsoleContext, connection: Connection, ledger: Connection, kind: GroupKind, records: Sequence[GroupRecord]
) -> list[Json]:
    ids = [record.id for record in records]
    scope = Scope(kind)
    states = by_owner(states_of(context, ledger, read.cap_ids_of(ledger, scope, ids)))
    keys = members(connection, "virtual_keys", kind, ids)
    teams = members(connection, "teams", kind, ids) if kind == "customer" else {}
    owners = (record.customer_id for record in records if record.customer_id)
    customers = groups_by_id(connection, "customer", owners) if kind == "team" else {}
    return [
        group_json(
            record,
            scope,
            states,
            keys.get(record.id, ()),
            teams=teams.get(record.id, ()),
            customer=customers.get(record.customer_id or ""),
        )
        for record in records
    ]


def _providers_with_chosen_keys(keys: Sequence[VirtualKeyRecord]) -> set[str]:
    """Of these providers some keys are named, and must be shown by name."""
    return {config.provider for key in keys for config in key.provider_configs if config.key_ids not in ((), (ANY,))}


def states_of(context: ConsoleContext, connection: Connection, cap_ids: Sequence[str] | None = None) -> list[CapState]:
    """These caps (None: all) with their sums, in the order in which refusals would name them within an owner."""
    found = context.states(connection, context.store.clock.now_ms(), cap_ids)
    states = {state.cap.id: state for state in found}
    return [states[cap.id] for cap in read.sort_caps([state.cap for state in states.values()])]


def budget_page(
    context: ConsoleContext, limit: int | None, offset: int, search: str = "", scope: str | None = None, scope_id: str | None = None
) -> tuple[list[CapState], int]:
    """Budgets in the order of their making (`limit` None: all of them), and how many there are."""
    now_ms = context.store.clock.now_ms()
    with context.store.ledger.read() as connection:
        ids, total = read.budget_ids(
            connection, now_ms=now_ms, limit=limit, offset=offset, search=search, scope=scope, scope_id=scope_id
        )
        return list(context.states(connection, now_ms, ids)), total


def tagged_budget(handler: ConsoleHandler, budget_id: str) -> Json:
    """As `one_budget`, with its entity tag."""
    handler.tag("budget", budget_id)
    return one_budget(handler.context, budget_id)


def one_budget(context: ConsoleContext, budget_id: str) -> Json:
    """One budget with its sums. Raises NotFound."""
    with context.store.ledger.read() as connection:
        cap = read.cap(connection, budget_id)
        if cap is None or cap.unit is not Unit.USD:
            raise NotFound(f"there is no budget {budget_id!r}")
        return budget_json(context.states(connection, context.store.clock.now_ms(), (budget_id,))[0])
