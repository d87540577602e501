"""`/api/governance/routing-rules`: list, make, change, delete."""

import json
from typing import Any, TypedDict

from pydantic import JsonValue

from addons.console.api.paging import Flag, PageQuery, list_envelope
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import iso_utc
from store.config_store import change, read
from store.config_store.change_routing import get_routing_rule
from store.config_store.fields import Name
from store.config_store.records import RoutingRuleRecord
from store.config_store.specs_routing import RoutingRulePatch, RoutingRuleSpec, RoutingScope
from store.config_store.store import ConfigStore

KIND = "routing_rule"


class RulesQuery(PageQuery):
    """Which rules. `from_memory` changes nothing here: there is one truth."""

    filters = frozenset({"scope", "scope_id", "search"})

    scope: RoutingScope | None = None
    scope_id: Name | None = None
    search: str = ""
    """A part of the name, in any case."""
    from_memory: Flag = False


class Target(TypedDict):
    """Where a rule sends calls; null: as the caller asked."""

    provider: str | None
    model: str | None
    key_id: str | None
    weight: float


class Rule(TypedDict):
    """A routing rule."""

    id: str
    name: str
    description: str
    enabled: bool
    chain_rule: bool
    cel_expression: str
    targets: list[Target]
    fallbacks: list[str]
    scope: RoutingScope
    scope_id: str | None
    query: dict[str, JsonValue]
    priority: int
    created_at: str
    updated_at: str


class RuleList(TypedDict):
    """A page of rules, in the order in which they are asked within a scope."""

    rules: list[Rule]
    count: int
    total_count: int
    limit: int
    offset: int


class RuleAnswer(TypedDict):
    """One rule."""

    rule: Rule


class RuleChanged(TypedDict):
    """What a write answers."""

    message: str
    rule: Rule


class RuleDeleted(TypedDict):
    """What a deletion answers."""

    message: str


def rule_json(record: RoutingRuleRecord) -> Rule:
    """A rule as the API shows it."""
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "enabled": record.enabled,
        "chain_rule": record.chain_rule,
        "cel_expression": record.cel_expression,
        "targets": [
            {"provider": target.provider, "model": target.model, "key_id": target.key_id, "weight": target.weight}
            for target in record.targets
        ],
        "fallbacks": list(record.fallbacks),
        "scope": record.scope,
        "scope_id": record.scope_id,
        "query": json.loads(record.query or "{}"),
        "priority": record.priority,
        "created_at": iso_utc(record.created_ms),
        "updated_at": iso_utc(record.updated_ms),
    }


def read_rules(store: ConfigStore, query: RulesQuery) -> dict[str, Any]:
    """The list that a query asks for."""
    with store.reading() as (connection, _):
        records = read.routing_rules(connection)
    wanted = query.search.casefold()
    found = [
        rule_json(record)
        for record in records
        if (query.scope is None or record.scope == query.scope)
        and (query.scope_id is None or record.scope_id == query.scope_id)
        and wanted in record.name.casefold()
    ]
    limit, offset = query.page()
    if limit is None:
        return list_envelope("rules", found)
    return list_envelope("rules", found[offset : offset + limit], total=len(found), limit=limit, offset=offset)


class RoutingRulesHandler(ConsoleHandler):
    """The list of rules, and making one."""

    @operation("Routing rules in the order in which they are asked", query=RulesQuery, answer=RuleList)
    async def get(self) -> None:
        self.send(await self.on_thread(read_rules, self.context.store, self.query_as(RulesQuery)))

    @operation("Make a routing rule", body=RoutingRuleSpec, answer=RuleChanged)
    async def post(self) -> None:
        record = await self.on_thread(change.create_routing_rule, self.store, self.body_as(RoutingRuleSpec))
        await self.on_thread(self.tag, KIND, record.id)
        self.send({"message": "Routing rule created successfully", "rule": rule_json(record)})


class RoutingRuleHandler(ConsoleHandler):
    """One rule, by its id."""

    @operation("One routing rule", answer=RuleAnswer)
    async def get(self, rule_id: str) -> None:
        record = await self.on_thread(_read_rule, self.context.store, rule_id)
        await self.on_thread(self.tag, KIND, record.id)
        self.send({"rule": rule_json(record)})

    @operation("Change a routing rule", body=RoutingRulePatch, answer=RuleChanged)
    async def put(self, rule_id: str) -> None:
        record = await self.on_thread(change.update_routing_rule, self.store, rule_id, self.body_as(RoutingRulePatch))
        await self.on_thread(self.tag, KIND, record.id)
        self.send({"message": "Routing rule updated successfully", "rule": rule_json(record)})

    @operation("Delete a routing rule", answer=RuleDeleted)
    async def delete(self, rule_id: str) -> None:
        await self.on_thread(change.delete_routing_rule, self.store, rule_id)
        self.send({"message": "Routing rule deleted successfully"})


def _read_rule(store: ConfigStore, rule_id: str) -> RoutingRuleRecord:
    with store.reading() as (connection, _):
        return get_routing_rule(connection, rule_id)


ROUTES = (
    Route("/api/governance/routing-rules", RoutingRulesHandler),
    Route("/api/governance/routing-rules/{rule_id}", RoutingRuleHandler),
)
