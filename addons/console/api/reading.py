"""Reads behind the API: records with their caps' sums, all from one instant. Runs on a thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from addons.console.context import ConsoleContext
from store.config_store import read
from store.config_store.records import GroupRecord, ProviderKeyRecord, VirtualKeyRecord
from store.config_store.shapes import Json, States, budget_json, by_owner, group_json, virtual_key_json
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


def surroundings(
    context: ConsoleContext, connection: Connection, ledger: Connection, keys: Sequence[VirtualKeyRecord]
) -> Surroundings:
    """Everything that these keys refer to."""
    return Surroundings(
        states=by_owner(states_of(context, ledger, read.key_cap_ids(ledger, keys))),
        teams={team.id: team for team in read.teams(connection)},
        customers={customer.id: customer for customer in read.customers(connection)},
        provider_keys={provider.name: provider.keys for provider in read.providers(connection)},
    )


def key_json(record: VirtualKeyRecord, around: Surroundings) -> Json:
    """One key with its surroundings."""
    return virtual_key_json(record, around.states, around.teams, around.customers, around.provider_keys)


def read_key(context: ConsoleContext, key_id: str, value: str | None = None) -> Json:
    """One key by id or name; `value` shows a value that was made just now. Raises NotFound."""
    with context.store.reading() as (connection, ledger):
        record = read.virtual_key(connection, key_id)
        if record is None:
            raise NotFound(f"there is no virtual key {key_id!r}")
        made = key_json(record, surroundings(context, connection, ledger, (record,)))
    return {**made, "value": value} if value is not None else made


def read_keys(context: ConsoleContext, query: read.KeyQuery) -> tuple[list[Json], int]:
    """A page of keys and how many there are in all."""
    with context.store.reading() as (connection, ledger):
        records, total = read.key_page(connection, query)
        around = surroundings(context, connection, ledger, records)
        return [key_json(record, around) for record in records], total


def read_groups(context: ConsoleContext, scope: Scope) -> list[Json]:
    """Every team or customer."""
    with context.store.reading() as (connection, ledger):
        records = read.teams(connection) if scope is Scope.TEAM else read.customers(connection)
        counts = read.keys_per_group(connection, "team_id" if scope is Scope.TEAM else "customer_id")
        states = by_owner(states_of(context, ledger))
        return [group_json(record, scope, states, counts.get(record.id, 0)) for record in records]


def read_group(context: ConsoleContext, scope: Scope, group_id: str) -> Json:
    """One team or customer by id or name. Raises NotFound."""
    found = read_groups(context, scope)
    by_id = next((made for made in found if made["id"] == group_id), None)
    made = by_id or next((made for made in found if made["name"] == group_id), None)
    if made is None:
        raise NotFound(f"there is no {scope.value} {group_id!r}")
    return made


def states_of(context: ConsoleContext, connection: Connection, cap_ids: Sequence[str] | None = None) -> list[CapState]:
    """These caps (None: all) with their sums, in the order in which refusals would name them within an owner."""
    found = context.states(connection, context.store.clock.now_ms(), cap_ids)
    states = {state.cap.id: state for state in found}
    return [states[cap.id] for cap in read.sort_caps([state.cap for state in states.values()])]


def budget_page(context: ConsoleContext, limit: int | None, offset: int, search: str) -> tuple[list[CapState], int]:
    """Budgets in the order of their making (None: all of them), and how many there are."""
    now_ms = context.store.clock.now_ms()
    with context.store.ledger.read() as connection:
        ids, total = read.budget_ids(connection, now_ms=now_ms, limit=limit, offset=offset, search=search)
        return list(context.states(connection, now_ms, ids)), total


def one_budget(context: ConsoleContext, budget_id: str) -> Json:
    """One budget with its sums. Raises NotFound."""
    with context.store.ledger.read() as connection:
        cap = read.cap(connection, budget_id)
        if cap is None or cap.unit is not Unit.USD:
            raise NotFound(f"there is no budget {budget_id!r}")
        return budget_json(context.states(connection, context.store.clock.now_ms(), (budget_id,))[0])
