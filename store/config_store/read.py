"""Reads of the governance: single rows, pages of virtual keys, and everything at once for a snapshot. Short plain queries."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from store.config_store import rows
from store.config_store.client_config import stored_client
from store.config_store.records import (
    GroupRecord,
    ModelConfigRecord,
    PricingOverrideRecord,
    ProviderConfigRecord,
    ProviderKeyRecord,
    ProviderRecord,
    RoutingRuleRecord,
    RunRecord,
    VirtualKeyRecord,
)
from store.database import Connection
from store.ledger.caps import load_caps
from store.ledger.types import Cap, Enforcement, Scope, Unit
from store.like import contains, pattern
from store.windows import parse_duration

ScopeKey = tuple[Scope, str]
_ALL = 2**62
"""A LIMIT that limits nothing."""


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """Which virtual keys, and in what order. `limit` None: all of them."""

    limit: int | None = None
    offset: int = 0
    search: str = ""
    team_id: str | None = None
    customer_id: str | None = None
    sort_by: Literal["name", "created_at", "status", "budget_spent"] = "created_at"
    descending: bool = False
    unassigned: bool = False
    """Only keys of no team and no customer."""


@dataclass(frozen=True, slots=True)
class Governance:
    """Every row of the governance at one revision: what a snapshot is built from."""

    providers: tuple[ProviderRecord, ...]
    virtual_keys: tuple[VirtualKeyRecord, ...]
    teams: tuple[GroupRecord, ...]
    customers: tuple[GroupRecord, ...]
    runs: tuple[RunRecord, ...]
    caps: dict[ScopeKey, tuple[Cap, ...]]
    model_configs: tuple[ModelConfigRecord, ...] = ()
    routing_rules: tuple[RoutingRuleRecord, ...] = ()
    pricing_overrides: tuple[PricingOverrideRecord, ...] = ()
    client: Mapping[str, Any] = field(default_factory=dict)
    """The `client` settings that were changed while the gateway ran."""


def load_governance(connection: Connection, *, now_ms: int, ledger: Connection | None = None) -> Governance:
    """All rows, with run credentials that have not expired at `now_ms`. `ledger`: where caps and runs are, if elsewhere."""
    ledger = ledger or connection
    return Governance(
        virtual_keys=virtual_keys(connection),
        teams=teams(connection),
        customers=customers(connection),
        runs=runs(ledger, now_ms=now_ms),
        caps=caps_by_scope(ledger),
        model_configs=model_configs(connection),
        **everybodys(connection),
    )


def everybodys(connection: Connection) -> dict[str, Any]:
    """Fields of `Governance` that belong to no key, team or customer, by name."""
    return {
        "providers": providers(connection),
        "routing_rules": routing_rules(connection),
        "pricing_overrides": pricing_overrides(connection),
        "client": stored_client(connection),
    }


def providers(connection: Connection) -> tuple[ProviderRecord, ...]:
    """Every configured provider with its keys, by name."""
    keys: defaultdict[str, list[ProviderKeyRecord]] = defaultdict(list)
    for row in connection.execute(f"SELECT {rows.PROVIDER_KEY} FROM provider_keys ORDER BY id"):
        keys[row[1]].append(rows.provider_key_record(row))
    found = connection.execute(f"SELECT {rows.PROVIDER} FROM providers ORDER BY name")
    return tuple(rows.provider_record(row, tuple(keys[row[0]])) for row in found)


def provider(connection: Connection, name: str) -> ProviderRecord | None:
    """One configured provider with its keys."""
    found = connection.execute(f"SELECT {rows.PROVIDER} FROM providers WHERE name = ?", (name,))
    return rows.provider_record(found[0], provider_keys(connection, name)) if found else None


def provider_keys(connection: Connection, provider_name: str) -> tuple[ProviderKeyRecord, ...]:
    """The keys of one provider."""
    found = connection.execute(f"SELECT {rows.PROVIDER_KEY} FROM provider_keys WHERE provider = ? ORDER BY id", (provider_name,))
    return tuple(rows.provider_key_record(row) for row in found)


def virtual_keys(connection: Connection, ids: Sequence[str] | None = None) -> tuple[VirtualKeyRecord, ...]:
    """Virtual keys with their provider configs: those named, in that order, or all in the order of their making."""
    if ids is None:
        return _with_configs(
            connection.execute(f"SELECT {rows.VIRTUAL_KEY} FROM virtual_keys ORDER BY created_ms, id"),
            connection.execute(f"SELECT {rows.PROVIDER_CONFIG} FROM provider_configs ORDER BY virtual_key_id, position"),
        )
    wanted = json.dumps(list(ids))
    found = _with_configs(
        connection.execute(f"SELECT {rows.VIRTUAL_KEY} FROM virtual_keys WHERE id IN ({connection.listed})", (wanted,)),
        connection.execute(
            f"SELECT {rows.PROVIDER_CONFIG} FROM provider_configs "
            f"WHERE virtual_key_id IN ({connection.listed}) ORDER BY virtual_key_id, position",
            (wanted,),
        ),
    )
    by_id = {record.id: record for record in found}
    return tuple(by_id[key_id] for key_id in ids if key_id in by_id)


def virtual_key(connection: Connection, id_or_name: str) -> VirtualKeyRecord | None:
    """One virtual key; an id goes before an equal name."""
    found = list(
        connection.execute(
            "SELECT id FROM virtual_keys WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1",
            (id_or_name, id_or_name, id_or_name),
        )
    )
    return virtual_keys(connection, [found[0][0]])[0] if found else None


def is_value_taken(connection: Connection, value_hash: str) -> bool:
    """Whether a key has, or had before its last rotation, the value with this hash."""
    found = connection.execute("SELECT 1 FROM virtual_keys WHERE value_hash = ? OR previous_hash = ?", (value_hash, value_hash))
    return bool(found) or virtual_key_id_by_hash(connection, value_hash) is not None


def virtual_key_id_by_hash(
    connection: Connection, value_hash: str, ledger: Connection | None = None, *, now_ms: int | None = None
) -> str | None:
    """The id of the key with this value, given its hash; run credentials, which are in the ledger, lead to their key.

    `now_ms`: a value before the last rotation counts too while its overlap lasts.
    """
    for where, table, column in ((connection, "virtual_keys", "id"), (ledger or connection, "run_credentials", "virtual_key_id")):
        found = list(where.execute(f"SELECT {column} FROM {table} WHERE value_hash = ?", (value_hash,)))
        if found:
            return str(found[0][0])
    if now_ms is None:
        return None
    overlap = "SELECT id FROM virtual_keys WHERE previous_hash = ? AND previous_until_ms > ?"
    before = connection.execute(overlap, (value_hash, now_ms))
    return str(before[0][0]) if before else None


def key_page(connection: Connection, query: KeyQuery) -> tuple[tuple[VirtualKeyRecord, ...], int]:
    """One page of virtual keys, and how many there are in all. Not by `budget_spent`: see `read_spent`."""
    where, values = _key_conditions(connection, query)
    total = int(next(iter(connection.execute(f"SELECT count(*) FROM virtual_keys{where}", values)))[0])
    return virtual_keys(connection, key_ids(connection, query)), total


def key_ids(connection: Connection, query: KeyQuery) -> list[str]:
    """Ids of a page of virtual keys; by `budget_spent` those of all that the query finds, in the order of their making."""
    where, values = _key_conditions(connection, query)
    column = {"name": "name", "status": "is_active"}.get(query.sort_by, "created_ms")
    every = query.limit is None or query.sort_by == "budget_spent"
    direction = "DESC" if query.descending and query.sort_by != "budget_spent" else "ASC"
    found = connection.execute(
        f"SELECT id FROM virtual_keys{where} ORDER BY {column} {direction}, id {direction} LIMIT ? OFFSET ?",
        (*values, _ALL if every else query.limit, 0 if query.sort_by == "budget_spent" else query.offset),
    )
    return [row[0] for row in found]


def _key_conditions(connection: Connection, query: KeyQuery) -> tuple[str, tuple[Any, ...]]:
    conditions: list[str] = []
    values: list[Any] = []
    if query.search:
        conditions.append(contains(connection.engine, "name"))
        values.append(pattern(query.search))
    for column, wanted in (("team_id", query.team_id), ("customer_id", query.customer_id)):
        if wanted is not None:
            conditions.append(f"{column} = ?")
            values.append(wanted)
    if query.unassigned:
        conditions.append("team_id IS NULL AND customer_id IS NULL")
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), tuple(values)


def teams(connection: Connection) -> tuple[GroupRecord, ...]:
    """Every team, by name."""
    return tuple(rows.group_record(row) for row in connection.execute(f"SELECT {rows.TEAM} FROM teams ORDER BY name"))


def customers(connection: Connection) -> tuple[GroupRecord, ...]:
    """Every customer, by name."""
    found = connection.execute(f"SELECT {rows.CUSTOMER} FROM customers ORDER BY name")
    return tuple(rows.group_record(row) for row in found)


def team(connection: Connection, id_or_name: str) -> GroupRecord | None:
    """One team; an id goes before an equal name."""
    return _named(connection, "teams", rows.TEAM, id_or_name)


def customer(connection: Connection, id_or_name: str) -> GroupRecord | None:
    """One customer; an id goes before an equal name."""
    return _named(connection, "customers", rows.CUSTOMER, id_or_name)


def model_configs(connection: Connection) -> tuple[ModelConfigRecord, ...]:
    """Every model config, in the order of their making."""
    found = connection.execute(f"SELECT {rows.MODEL_CONFIG} FROM model_configs ORDER BY created_ms, id")
    return tuple(rows.model_config_record(row) for row in found)


def model_configs_of(connection: Connection, key_ids: Sequence[str]) -> tuple[ModelConfigRecord, ...]:
    """The model configs of these virtual keys."""
    found = connection.execute(
        f"SELECT {rows.MODEL_CONFIG} FROM model_configs WHERE scope = 'virtual_key' AND scope_id IN ({connection.listed}) "
        "ORDER BY created_ms, id",
        (json.dumps(list(key_ids)),),
    )
    return tuple(rows.model_config_record(row) for row in found)


def routing_rules(connection: Connection) -> tuple[RoutingRuleRecord, ...]:
    """Every routing rule, in the order in which they are asked."""
    found = connection.execute(f"SELECT {rows.ROUTING_RULE} FROM routing_rules ORDER BY priority, created_ms, id")
    return tuple(rows.routing_rule_record(row) for row in found)


def pricing_overrides(connection: Connection) -> tuple[PricingOverrideRecord, ...]:
    """Every price of one's own, in the order of their making."""
    found = connection.execute(f"SELECT {rows.PRICING_OVERRIDE} FROM pricing_overrides ORDER BY created_ms, id")
    return tuple(rows.pricing_override_record(row) for row in found)


def runs(connection: Connection, *, now_ms: int) -> tuple[RunRecord, ...]:
    """Run credentials that still open the door at `now_ms`."""
    found = connection.execute(f"SELECT {rows.RUN} FROM run_credentials WHERE expires_at_ms > ? ORDER BY id", (now_ms,))
    return tuple(rows.run_record(row) for row in found)


def run(connection: Connection, run_id: str) -> RunRecord | None:
    """One run credential, expired or not."""
    found = list(connection.execute(f"SELECT {rows.RUN} FROM run_credentials WHERE id = ?", (run_id,)))
    return rows.run_record(found[0]) if found else None


def caps_by_scope(connection: Connection, scopes: Iterable[Scope] | None = None) -> dict[ScopeKey, tuple[Cap, ...]]:
    """Living caps (None: of every scope) by whom they bind, shortest window first."""
    gathered: defaultdict[ScopeKey, list[Cap]] = defaultdict(list)
    for cap in load_caps(connection) if scopes is None else [cap for scope in scopes for cap in load_caps(connection, scope=scope)]:
        gathered[(cap.scope, cap.scope_id)].append(cap)
    return {key: sort_caps(caps) for key, caps in gathered.items()}


def caps_of(connection: Connection, scope: Scope, scope_id: str) -> tuple[Cap, ...]:
    """Living caps of one owner, shortest window first."""
    return sort_caps(load_caps(connection, scope=scope, scope_id=scope_id))


def cap(connection: Connection, cap_id: str) -> Cap | None:
    """One living cap."""
    found = connection.execute("SELECT scope, scope_id FROM caps WHERE id = ? AND deleted = 0", (cap_id,))
    if not found:
        return None
    return next((cap for cap in caps_of(connection, Scope(found[0][0]), found[0][1]) if cap.id == cap_id), None)


def key_cap_ids(
    connection: Connection, keys: Iterable[VirtualKeyRecord], models: Mapping[str, Sequence[ModelConfigRecord]]
) -> list[str]:
    """Ids of the caps of these virtual keys, of their provider configs and of their model configs (`models`: by key)."""
    owners: list[tuple[str, str]] = []
    for key in keys:
        owners.append((Scope.VIRTUAL_KEY.value, key.id))
        owners += ((Scope.PROVIDER_CONFIG.value, config.id) for config in key.provider_configs)
        owners += ((Scope.VIRTUAL_KEY_MODEL.value, config.id) for config in models.get(key.id, ()))
    return _cap_ids(connection, owners)


def cap_ids_of(connection: Connection, scope: Scope, scope_ids: Iterable[str]) -> list[str]:
    """Ids of the living caps of these owners."""
    return _cap_ids(connection, [(scope.value, scope_id) for scope_id in scope_ids])


def _cap_ids(connection: Connection, owners: Sequence[tuple[str, str]]) -> list[str]:
    # A join by the whole key: a server that has not yet counted a freshly filled table reads all caps of a scope for each `IN`.
    found = connection.execute(
        f"SELECT c.id FROM {connection.rowset('text', 'text')} AS k "
        "CROSS JOIN caps AS c WHERE c.scope = k.c0 AND c.scope_id = k.c1 AND c.deleted = 0",
        (json.dumps(owners),),
    )
    return [row[0] for row in found]


def budget_ids(
    connection: Connection,
    *,
    now_ms: int,
    limit: int | None,
    offset: int,
    search: str = "",
    scope: str | None = None,
    scope_id: str | None = None,
) -> tuple[list[str], int]:
    """A page (`limit` None: all) of the ids of budgets, oldest first, and how many there are: caps in money, those of runs
    while they live."""
    where = (
        "unit = ? AND deleted = 0 AND (scope <> ? OR (enforcement = ? AND scope_id IN "
        "(SELECT id FROM run_credentials WHERE expires_at_ms > ?))) "
        f"AND ({contains(connection.engine, 'name')} OR {contains(connection.engine, 'scope_name')})"
    )
    wanted = pattern(search)
    values: tuple[Any, ...] = (Unit.USD.value, Scope.RUN.value, Enforcement.HARD.value, now_ms, wanted, wanted)
    for column, owner in (("scope", scope), ("scope_id", scope_id)):
        if owner is not None:
            where += f" AND {column} = ?"
            values += (owner,)
    total = int(connection.execute(f"SELECT count(*) FROM caps WHERE {where}", values)[0][0])
    found = connection.execute(
        f"SELECT id FROM caps WHERE {where} ORDER BY created_ms, id LIMIT ? OFFSET ?",
        (*values, _ALL if limit is None else limit, offset),
    )
    return [row[0] for row in found], total


def sort_caps(caps: Iterable[Cap]) -> tuple[Cap, ...]:
    """Shortest window first, caps without one last: the order in which refusals name them."""
    return tuple(sorted(caps, key=_cap_order)) if caps else ()


def _cap_order(item: Cap) -> tuple[bool, int, str, str]:
    length_ms = parse_duration(item.window).ms if item.window else 0
    return item.window is None, length_ms, item.unit.value, item.id


def _with_configs(keys: Iterable[Sequence[Any]], configs: Iterable[Sequence[Any]]) -> tuple[VirtualKeyRecord, ...]:
    gathered: defaultdict[str, list[ProviderConfigRecord]] = defaultdict(list)
    for row in configs:
        gathered[row[1]].append(rows.provider_config_record(row))
    return tuple(rows.virtual_key_record(row, tuple(gathered.get(row[0], ()))) for row in keys)


def _named(connection: Connection, table: str, columns: str, id_or_name: str) -> GroupRecord | None:
    found = connection.execute(
        f"SELECT {columns} FROM {table} WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1", (id_or_name,) * 3
    )
    return rows.group_record(found[0]) if found else None
