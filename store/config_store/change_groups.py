"""Changes of teams and customers, each in one transaction."""

from dataclasses import replace
from typing import Literal

from store.config_store import read
from store.config_store.change_caps import drop_caps, reset_money, set_caps
from store.config_store.change_routing import drop_routing_rules
from store.config_store.make_caps import Owner
from store.config_store.records import GroupRecord
from store.config_store.specs import CustomerSpec, GroupPatch, TeamSpec
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import Conflict, NotFound, UserError
from store.ledger.types import Scope

GroupKind = Literal["team", "customer"]
_TABLE: dict[GroupKind, str] = {"team": "teams", "customer": "customers"}
_SCOPE: dict[GroupKind, Scope] = {"team": Scope.TEAM, "customer": Scope.CUSTOMER}


def create_team(store: ConfigStore, spec: TeamSpec) -> GroupRecord:
    """Make a team. Raises UserError, Conflict."""
    with store.editing("create", "team") as edit:
        record = put_team(store, edit.connection, spec, before=None, path="")
        edit.id = record.id
        return record


def create_customer(store: ConfigStore, spec: CustomerSpec) -> GroupRecord:
    """Make a customer. Raises UserError, Conflict."""
    with store.editing("create", "customer") as edit:
        record = put_customer(store, edit.connection, spec, before=None, path="")
        edit.id = record.id
        return record


def update_team(store: ConfigStore, team_id: str, patch: GroupPatch) -> GroupRecord:
    """Change a team; what was spent stays unless `reset_budget_usage`. Raises NotFound, UserError, Conflict."""
    return _update(store, "team", team_id, patch)


def update_customer(store: ConfigStore, customer_id: str, patch: GroupPatch) -> GroupRecord:
    """Change a customer. Raises NotFound, UserError, Conflict."""
    if patch.customer_id:
        raise UserError("customer_id: a customer belongs to nobody; leave it out")
    return _update(store, "customer", customer_id, patch)


def delete_team(store: ConfigStore, team_id: str) -> None:
    """Delete a team with its caps; its keys stay, without a team. Raises NotFound."""
    _delete(store, "team", team_id)


def delete_customer(store: ConfigStore, customer_id: str) -> None:
    """Delete a customer with its caps; its teams and keys stay, without a customer. Raises NotFound."""
    _delete(store, "customer", customer_id)


def put_team(store: ConfigStore, connection: Connection, spec: TeamSpec, *, before: GroupRecord | None, path: str) -> GroupRecord:
    """Make a team, or bring `before` to what the document says, inside a transaction."""
    record = replace(_fresh(store, spec, before), customer_id=_customer_id(connection, spec.customer_id))
    return _put(store, connection, "team", record, spec, before, path)


def put_customer(
    store: ConfigStore, connection: Connection, spec: CustomerSpec, *, before: GroupRecord | None, path: str
) -> GroupRecord:
    """Make a customer, or bring `before` to what the document says, inside a transaction."""
    return _put(store, connection, "customer", _fresh(store, spec, before), spec, before, path)


def _fresh(store: ConfigStore, spec: TeamSpec | CustomerSpec, before: GroupRecord | None) -> GroupRecord:
    now_ms = store.clock.now_ms()
    return GroupRecord(
        id=before.id if before else spec.id or store.ids.new(),
        name=spec.name,
        calendar_aligned=spec.calendar_aligned,
        created_ms=before.created_ms if before else now_ms,
        updated_ms=now_ms,
    )


def _put(
    store: ConfigStore,
    connection: Connection,
    kind: GroupKind,
    record: GroupRecord,
    spec: TeamSpec | CustomerSpec,
    before: GroupRecord | None,
    path: str,
) -> GroupRecord:
    _refuse_double_name(connection, kind, record)
    if before is None and _find(connection, kind, record.id) is not None:
        raise Conflict(f"there is already a {kind} with the id {record.id!r}; choose another, or leave it out")
    _write(connection, kind, record)
    owner = Owner(_SCOPE[kind], record.id, record.name, record.calendar_aligned)
    set_caps(store, connection, owner, budgets=spec.budgets, rate_limit=spec.rate_limit, rate_limit_given=True, path=path)
    return record


def _update(store: ConfigStore, kind: GroupKind, group_id: str, patch: GroupPatch) -> GroupRecord:
    with store.editing("update", kind, group_id) as edit:
        connection = edit.connection
        before = _get(connection, kind, group_id)
        after = replace(
            before,
            name=patch.name or before.name,
            customer_id=_customer_id(connection, patch.customer_id or None) if patch.given("customer_id") else before.customer_id,
            calendar_aligned=before.calendar_aligned if patch.calendar_aligned is None else patch.calendar_aligned,
            updated_ms=store.clock.now_ms(),
        )
        _refuse_double_name(connection, kind, after)
        _write(connection, kind, after)
        set_caps(
            store,
            connection,
            Owner(_SCOPE[kind], after.id, after.name, after.calendar_aligned),
            budgets=patch.budgets,
            rate_limit=patch.rate_limit,
            rate_limit_given=patch.given("rate_limit"),
            realign=after.calendar_aligned != before.calendar_aligned,
        )
        if patch.reset_budget_usage:
            reset_money(connection, _SCOPE[kind], after.id, "reset_budget_usage")
        return after


def _delete(store: ConfigStore, kind: GroupKind, group_id: str) -> None:
    with store.editing("delete", kind, group_id) as edit:
        connection = edit.connection
        record = _get(connection, kind, group_id)
        drop_caps(connection, _SCOPE[kind], record.id)
        drop_routing_rules(connection, kind, record.id)
        for table in ("virtual_keys",) if kind == "team" else ("virtual_keys", "teams"):
            connection.execute(f"UPDATE {table} SET {kind}_id = NULL WHERE {kind}_id = ?", (record.id,))
        connection.execute(f"DELETE FROM {_TABLE[kind]} WHERE id = ?", (record.id,))


def _find(connection: Connection, kind: GroupKind, group_id: str) -> GroupRecord | None:
    return read.team(connection, group_id) if kind == "team" else read.customer(connection, group_id)


def _get(connection: Connection, kind: GroupKind, group_id: str) -> GroupRecord:
    record = _find(connection, kind, group_id)
    if record is None:
        raise NotFound(f"there is no {kind} {group_id!r}")
    return record


def _customer_id(connection: Connection, customer_id: str | None) -> str | None:
    if not customer_id:
        return None
    if (customer := read.customer(connection, customer_id)) is None:
        raise UserError(f"customer_id: there is no customer {customer_id!r}")
    return customer.id


def _refuse_double_name(connection: Connection, kind: GroupKind, record: GroupRecord) -> None:
    if connection.execute(f"SELECT 1 FROM {_TABLE[kind]} WHERE name = ? AND id <> ?", (record.name, record.id)):
        raise Conflict(f"there is already a {kind} named {record.name!r}; choose another name")


def _write(connection: Connection, kind: GroupKind, record: GroupRecord) -> None:
    columns = ["id", "name", "calendar_aligned", "created_ms", "updated_ms"]
    values: list[object] = [record.id, record.name, int(record.calendar_aligned), record.created_ms, record.updated_ms]
    if kind == "team":
        columns.append("customer_id")
        values.append(record.customer_id)
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in ("id", "created_ms"))
    connection.execute(
        f"INSERT INTO {_TABLE[kind]} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT (id) DO UPDATE SET {changes}",
        tuple(values),
    )
