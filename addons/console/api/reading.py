"""Reads behind the API: records with their caps' sums, all from one instant. Runs on a thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from addons.console.context import ConsoleContext
from store.config_store import read
from store.config_store.records import GroupRecord, ProviderKeyRecord, VirtualKeyRecord
from store.config_store.shapes import Json, States, by_owner, group_json, virtual_key_json
from store.database import Connection
from store.errors import NotFound
from store.ledger.types import CapState, Enforcement, Scope, Unit


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What virtual keys are shown with."""

    states: States
    teams: Mapping[str, GroupRecord]
    customers: Mapping[str, GroupRecord]
    provider_keys: Mapping[str, Sequence[ProviderKeyRecord]]


def surroundings(context: ConsoleContext, connection: Connection) -> Surroundings:
    """Everything that keys refer to."""
    return Surroundings(
        states=by_owner(all_states(context, connection)),
        teams={team.id: team for team in read.teams(connection)},
        customers={customer.id: customer for customer in read.customers(connection)},
        provider_keys={provider.name: provider.keys for provider in read.providers(connection)},
    )


def key_json(record: VirtualKeyRecord, around: Surroundings) -> Json:
    """One key with its surroundings."""
    return virtual_key_json(record, around.states, around.teams, around.customers, around.provider_keys)


def read_key(context: ConsoleContext, key_id: str, value: str | None = None) -> Json:
    """One key by id or name; `value` shows a value that was made just now. Raises NotFound."""
    with context.store.database.read() as connection:
        record = read.virtual_key(connection, key_id)
        if record is None:
            raise NotFound(f"there is no virtual key {key_id!r}")
        made = key_json(record, surroundings(context, connection))
    return {**made, "value": value} if value is not None else made


def read_keys(context: ConsoleContext, query: read.KeyQuery) -> tuple[list[Json], int]:
    """A page of keys and how many there are in all."""
    with context.store.database.read() as connection:
        records, total = read.key_page(connection, query)
        around = surroundings(context, connection)
        return [key_json(record, around) for record in records], total


def read_groups(context: ConsoleContext, scope: Scope) -> list[Json]:
    """Every team or customer."""
    with context.store.database.read() as connection:
        records = read.teams(connection) if scope is Scope.TEAM else read.customers(connection)
        counts = read.keys_per_group(connection, "team_id" if scope is Scope.TEAM else "customer_id")
        states = by_owner(all_states(context, connection))
        return [group_json(record, scope, states, counts.get(record.id, 0)) for record in records]


def read_group(context: ConsoleContext, scope: Scope, group_id: str) -> Json:
    """One team or customer by id or name. Raises NotFound."""
    found = read_groups(context, scope)
    by_id = next((made for made in found if made["id"] == group_id), None)
    made = by_id or next((made for made in found if made["name"] == group_id), None)
    if made is None:
        raise NotFound(f"there is no {scope.value} {group_id!r}")
    return made


def all_states(context: ConsoleContext, connection: Connection) -> Sequence[CapState]:
    """Every cap with its sums, in the order in which refusals would name them within an owner."""
    states = {state.cap.id: state for state in context.states(connection, context.store.clock.now_ms())}
    ordered = read.sort_caps([state.cap for state in states.values()])
    return [states[cap.id] for cap in ordered]


def budget_states(context: ConsoleContext) -> list[CapState]:
    """Every budget that can refuse or watch: caps in money, without those that only count the cost of a run."""
    with context.store.database.read() as connection:
        states = all_states(context, connection)
        alive = {run.id for run in read.runs(connection, now_ms=context.store.clock.now_ms())}
    return [state for state in states if state.cap.unit is Unit.USD and _is_shown(state, alive)]


def _is_shown(state: CapState, living_runs: set[str]) -> bool:
    cap = state.cap
    return cap.scope is not Scope.RUN or (cap.enforcement is Enforcement.HARD and cap.scope_id in living_runs)
