"""Changes of routing rules, each in one transaction; and the rules that go when whoever they were for is deleted."""

import json
from dataclasses import asdict, replace

from store.config_store import read
from store.config_store.json_text import dumps
from store.config_store.problems import nearest
from store.config_store.records import RoutingRuleRecord, RoutingTarget
from store.config_store.rows import names_text
from store.config_store.specs_routing import (
    RoutingRulePatch,
    RoutingRuleSpec,
    RoutingScope,
    RoutingTargetSpec,
    check_scope,
)
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import Conflict, NotFound, UserError


def create_routing_rule(store: ConfigStore, spec: RoutingRuleSpec) -> RoutingRuleRecord:
    """Make a rule. Raises UserError, Conflict."""
    with store.editing("create", "routing_rule") as edit:
        record = put_routing_rule(store, edit.connection, spec, before=None)
        edit.id = record.id
        return record


def update_routing_rule(store: ConfigStore, rule_id: str, patch: RoutingRulePatch) -> RoutingRuleRecord:
    """Change a rule. Raises NotFound, UserError, Conflict."""
    with store.editing("update", "routing_rule", rule_id) as edit:
        connection = edit.connection
        before = get_routing_rule(connection, rule_id)
        scope = patch.scope or before.scope
        # Of another scope the old id says nothing; absent it stays only with the scope it belongs to.
        kept_id = before.scope_id if scope == before.scope and not patch.given("scope_id") else patch.scope_id
        try:
            check_scope(scope, kept_id)
        except ValueError as error:
            raise UserError(str(error)) from None
        after = replace(
            before,
            name=patch.name or before.name,
            description=before.description if patch.description is None else patch.description,
            enabled=before.enabled if patch.enabled is None else patch.enabled,
            chain_rule=before.chain_rule if patch.chain_rule is None else patch.chain_rule,
            cel_expression=before.cel_expression if patch.cel_expression is None else patch.cel_expression,
            targets=before.targets if patch.targets is None else _targets(store, connection, patch.targets, ""),
            fallbacks=before.fallbacks if patch.fallbacks is None else _fallbacks(store, connection, patch.fallbacks, ""),
            scope=scope,
            scope_id=_scope_id(connection, scope, kept_id, ""),
            query=before.query if patch.query is None else dumps(patch.query).decode(),
            priority=before.priority if patch.priority is None else patch.priority,
            updated_ms=store.clock.now_ms(),
        )
        _refuse_double_name(connection, after, "")
        _write(connection, after)
        return after


def delete_routing_rule(store: ConfigStore, rule_id: str) -> None:
    """Forget a rule. Raises NotFound."""
    with store.editing("delete", "routing_rule", rule_id) as edit:
        record = get_routing_rule(edit.connection, rule_id)
        edit.connection.execute("DELETE FROM routing_rules WHERE id = ?", (record.id,))


def put_routing_rule(
    store: ConfigStore, connection: Connection, spec: RoutingRuleSpec, *, before: RoutingRuleRecord | None, path: str = ""
) -> RoutingRuleRecord:
    """Make a rule, or bring `before` to what the document says, inside a transaction. Raises UserError, Conflict."""
    now_ms = store.clock.now_ms()
    record = RoutingRuleRecord(
        id=before.id if before else spec.id or store.ids.new(),
        name=spec.name,
        cel_expression=spec.cel_expression,
        targets=_targets(store, connection, spec.targets, path),
        description=spec.description,
        enabled=spec.enabled,
        chain_rule=spec.chain_rule,
        fallbacks=_fallbacks(store, connection, spec.fallbacks, path),
        scope=spec.scope,
        scope_id=_scope_id(connection, spec.scope, spec.scope_id, path),
        query=dumps(spec.query or {}).decode(),
        priority=spec.priority,
        created_ms=before.created_ms if before else now_ms,
        updated_ms=now_ms,
    )
    if before is None and connection.execute("SELECT 1 FROM routing_rules WHERE id = ?", (record.id,)):
        raise Conflict(f"{_at(path, 'id')}: there is already a routing rule with the id {record.id!r}; choose another")
    _refuse_double_name(connection, record, path)
    _write(connection, record)
    return record


def known_rule(connection: Connection, spec: RoutingRuleSpec) -> RoutingRuleRecord | None:
    """The rule that an entry of a file stands for: by its id, else by its name in its scope."""
    rules = read.routing_rules(connection)
    if spec.id:
        return next((rule for rule in rules if rule.id == spec.id), None)
    scope_id = _resolve(connection, spec.scope, spec.scope_id)
    place = (spec.scope, scope_id, spec.name)
    return next((rule for rule in rules if (rule.scope, rule.scope_id, rule.name) == place), None)


def drop_routing_rules(connection: Connection, scope: RoutingScope, scope_id: str) -> None:
    """Forget the rules of a key, team or customer that is deleted, inside a transaction."""
    connection.execute("DELETE FROM routing_rules WHERE scope = ? AND scope_id = ?", (scope, scope_id))


def get_routing_rule(connection: Connection, rule_id: str) -> RoutingRuleRecord:
    """One rule by its id. Raises NotFound."""
    found = next((rule for rule in read.routing_rules(connection) if rule.id == rule_id), None)
    if found is None:
        raise NotFound(f"there is no routing rule {rule_id!r}")
    return found


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _targets(
    store: ConfigStore, connection: Connection, specs: tuple[RoutingTargetSpec, ...], path: str
) -> tuple[RoutingTarget, ...]:
    made = []
    for index, spec in enumerate(specs):
        place = _at(path, f"targets[{index}]")
        key_id = None
        if spec.provider:
            _check_provider(store, connection, spec.provider, f"{place}.provider")
        if spec.key_id and spec.provider:
            key_id = _key_id(connection, spec.provider, spec.key_id, f"{place}.key_id")
        made.append(RoutingTarget(spec.provider, spec.model, key_id, spec.weight))
    return tuple(made)


def _fallbacks(store: ConfigStore, connection: Connection, fallbacks: tuple[str, ...], path: str) -> tuple[str, ...]:
    for index, fallback in enumerate(fallbacks):
        _check_provider(store, connection, fallback.partition("/")[0], _at(path, f"fallbacks[{index}]"))
    return fallbacks


def _check_provider(store: ConfigStore, connection: Connection, name: str, place: str) -> None:
    if name in store.builtin or connection.execute("SELECT 1 FROM providers WHERE name = ?", (name,)):
        return
    known = sorted({*store.builtin, *(row[0] for row in connection.execute("SELECT name FROM providers"))})
    raise UserError(f"{place}: there is no provider {name!r}; {nearest(name, known)}")


def _key_id(connection: Connection, provider: str, key_id: str, place: str) -> str:
    record = read.provider(connection, provider)
    keys = record.keys if record else ()
    found = next((key for key in keys if key.id == key_id), None) or next((key for key in keys if key.name == key_id), None)
    if found is None:
        raise UserError(f"{place}: {provider} has no key {key_id!r}; {nearest(key_id, [key.name for key in keys])}")
    return found.id


def _resolve(connection: Connection, scope: str, scope_id: str | None) -> str | None:
    if scope == "global" or not scope_id:
        return None
    look = {"virtual_key": read.virtual_key, "team": read.team, "customer": read.customer}[scope]
    found = look(connection, scope_id)
    return found.id if found is not None else None


def _scope_id(connection: Connection, scope: str, scope_id: str | None, path: str) -> str | None:
    found = _resolve(connection, scope, scope_id)
    if found is None and scope != "global":
        raise UserError(f"{_at(path, 'scope_id')}: there is no {scope.replace('_', ' ')} {scope_id!r}")
    return found


def _refuse_double_name(connection: Connection, record: RoutingRuleRecord, path: str) -> None:
    taken = connection.execute(
        "SELECT 1 FROM routing_rules WHERE scope = ? AND scope_id = ? AND name = ? AND id <> ?",
        (record.scope, record.scope_id or "", record.name, record.id),
    )
    if taken:
        raise Conflict(f"{_at(path, 'name')}: there is already a routing rule named {record.name!r} in this scope")


def _write(connection: Connection, record: RoutingRuleRecord) -> None:
    targets = [{name: value for name, value in asdict(target).items() if value is not None} for target in record.targets]
    values: dict[str, object] = {
        "id": record.id,
        "name": record.name,
        "cel_expression": record.cel_expression,
        "targets": json.dumps(targets, ensure_ascii=False),
        "description": record.description,
        "enabled": int(record.enabled),
        "chain_rule": int(record.chain_rule),
        "fallbacks": names_text(record.fallbacks),
        "scope": record.scope,
        "scope_id": record.scope_id or "",
        "query": record.query,
        "priority": record.priority,
        "created_ms": record.created_ms,
        "updated_ms": record.updated_ms,
    }
    changes = ", ".join(f"{column} = excluded.{column}" for column in values if column not in ("id", "created_ms"))
    connection.execute(
        f"INSERT INTO routing_rules ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) "
        f"ON CONFLICT (id) DO UPDATE SET {changes}",
        tuple(values.values()),
    )
