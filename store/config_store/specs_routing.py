"""What people may ask for of routing: a rule and changes to one, the same in config.json and in the API."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, Strict, model_validator

from store.config_store.expressions import LONGEST, compile_expression
from store.config_store.fields import Bool, Id, Name, Weight, check_text
from store.config_store.specs import Spec

RoutingScope = Literal["global", "team", "customer", "virtual_key"]
WEIGHTS_MAY_MISS = 0.001
"""How far the sum of a rule's weights may be from 1."""


def check_expression(value: Any) -> Any:
    """A condition that compiles. Raises ValueError."""
    value = check_text(value)
    if isinstance(value, str):
        compile_expression(value)
    return value


Expression = Annotated[
    str, BeforeValidator(check_expression), Field(max_length=LONGEST, description='CEL, such as `headers["x-tier"] == "basic"`.')
]
Priority = Annotated[int, Strict(), Field(ge=-1_000_000, le=1_000_000)]


class RoutingTargetSpec(Spec):
    """Where a rule sends a call; what is absent stays as the caller asked. `weight` is this target's share of 1."""

    provider: Name | None = None
    model: Name | None = None
    key_id: Id | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _key_has_provider(self) -> Self:
        if self.key_id and not self.provider:
            raise ValueError("key_id needs provider: a key belongs to one")
        return self


Targets = Annotated[tuple[RoutingTargetSpec, ...], Field(min_length=1, max_length=50)]


def check_targets(targets: tuple[RoutingTargetSpec, ...]) -> None:
    """Shares of 1, and no target twice. Raises ValueError."""
    total = sum(target.weight for target in targets)
    if abs(total - 1) > WEIGHTS_MAY_MISS:
        raise ValueError(f"targets: the weights are shares of 1, but their sum is {total:g}")
    places = [(target.provider, target.model, target.key_id) for target in targets]
    if len(set(places)) != len(places):
        raise ValueError("targets: the same target stands there twice; keep one and give it both weights")


class RoutingRuleSpec(Spec):
    """A rule to be made."""

    read_only = frozenset({"config_hash", "created_at", "updated_at", "scope_name"})

    id: Id | None = None
    name: Name
    description: str = ""
    enabled: Bool = True
    chain_rule: Bool = False
    cel_expression: Expression = ""
    targets: Targets
    fallbacks: tuple[Name, ...] = ()
    scope: RoutingScope = "global"
    scope_id: Id | Literal[""] | None = None
    query: dict[str, JsonValue] | None = None
    priority: Priority = 0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        check_targets(self.targets)
        check_scope(self.scope, self.scope_id)
        return self


class RoutingRulePatch(Spec):
    """Changes to a rule: absent fields stay; a list that is present is the whole desired one."""

    read_only = RoutingRuleSpec.read_only | {"id"}

    name: Name | None = None
    description: str | None = None
    enabled: Bool | None = None
    chain_rule: Bool | None = None
    cel_expression: Expression | None = None
    targets: Targets | None = None
    fallbacks: tuple[Name, ...] | None = None
    scope: RoutingScope | None = None
    scope_id: Id | Literal[""] | None = None
    query: dict[str, JsonValue] | None = None
    priority: Priority | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.targets is not None:
            check_targets(self.targets)
        return self


def check_scope(scope: str, scope_id: str | None) -> None:
    """A narrower scope than `global` names whom. Raises ValueError."""
    if scope == "global" and scope_id:
        raise ValueError("scope_id: a global rule binds every caller; leave scope_id out, or set scope")
    if scope != "global" and not scope_id:
        raise ValueError(f"scope_id: name the {scope.replace('_', ' ')} that the rule is for")
