"""Routing rules as the way of a call uses them: compiled, and found by whom they are for. Part of the snapshot."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from store.config_store.expressions import FULLNESS, Expression, compile_expression

if TYPE_CHECKING:
    from store.config_store.records import RoutingRuleRecord, RoutingTarget

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """One enabled rule."""

    id: str
    name: str
    condition: Expression
    targets: "tuple[RoutingTarget, ...]"
    fallbacks: tuple[str, ...] = ()
    chain_rule: bool = False


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """The enabled rules of every scope, by priority within each. Empty: nothing is ever asked."""

    by_scope: Mapping[tuple[str, str], tuple[RoutingRule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By (scope, id of whom); the id of `global` is empty."""
    reads_fullness: bool = False
    """Some rule asks how full caps are, so somebody must keep an eye on them."""

    def __bool__(self) -> bool:
        return bool(self.by_scope)

    def of(self, virtual_key_id: str, team_id: str, customer_id: str) -> tuple[RoutingRule, ...]:
        """The rules for a caller in the order in which they are asked: the narrowest scope first."""
        found: tuple[RoutingRule, ...] = ()
        by_scope = self.by_scope
        for place in (("virtual_key", virtual_key_id), ("team", team_id), ("customer", customer_id), ("global", "")):
            here = by_scope.get(place)
            if here:
                found += here
        return found


def compile_rules(records: "Iterable[RoutingRuleRecord]") -> RoutingRules:
    """The enabled rules, which come in the order in which they are asked. One that does not compile is left out, and named."""
    by_scope: defaultdict[tuple[str, str], list[RoutingRule]] = defaultdict(list)
    reads_fullness = False
    for record in records:
        if not record.enabled:
            continue
        try:
            condition = compile_expression(record.cel_expression)
        except ValueError as error:
            log.warning("routing rule %r is left out: its cel_expression %s", record.name, error)
            continue
        rule = RoutingRule(record.id, record.name, condition, record.targets, record.fallbacks, record.chain_rule)
        by_scope[(record.scope, record.scope_id or "")].append(rule)
        reads_fullness = reads_fullness or bool(condition.variables & FULLNESS)
    return RoutingRules(MappingProxyType({place: tuple(rules) for place, rules in by_scope.items()}), reads_fullness)
