"""Which rule decides a call: scopes and priorities, what an expression sees, chains, weights, and what is passed over."""

import logging
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from addons.call import Call, Decision, Wanted, WayIn
from addons.fullness import Fullness
from addons.services import Services
from addons.steps.route import route
from addons.steps.rules import decide
from store.config_store.expressions import compile_expression
from store.config_store.records import RoutingTarget
from store.config_store.routing_rules import RoutingRule, RoutingRules
from store.ledger.levels import Level
from tests.support import calls
from tests.support.calls import cap

GLOBAL = ("global", "")


def rule(
    name: str, expression: str = "true", *targets: RoutingTarget, fallbacks: tuple[str, ...] = (), chain: bool = False
) -> RoutingRule:
    return RoutingRule(name, name, compile_expression(expression), targets or (RoutingTarget(name),), fallbacks, chain)


class Asked:
    """One call, asked about rules."""

    def __init__(self, *rules: RoutingRule, headers: dict[str, str] | None = None, query: str = "", **scopes: Any) -> None:
        by_scope = {GLOBAL: rules} if rules else {}
        by_scope |= {tuple(place.split("__")): found for place, found in scopes.pop("by_scope", {}).items()}
        key = calls.virtual_key(team_id="t", team_name="red", customer_id="c", customer_name="acme", caps=(cap(),))
        snapshot = replace(calls.snapshot({calls.KEY: key}), routing_rules=RoutingRules(by_scope))
        self.services: Services = calls.services(snapshot, **scopes)
        self.call: Call = calls.call("/openai/v1/chat/completions" + (f"?{query}" if query else ""), headers=headers)
        route(self.call, self.services, "origin", None)
        self.call.virtual_key, self.call.model = key, "gpt-4o"
        provider, family = self.call.provider, self.call.family
        assert provider is not None and family is not None
        self.call.wanted = Wanted(provider, family, self.call.dialect, self.call.provider_path, "gpt-4o")
        self.can_serve: tuple[str, ...] | None = None

    def full(self, percent: int) -> "Asked":
        levels: Any = SimpleNamespace(current={"cap-1": Level(percent, 100, None)})
        self.services.fullness = Fullness(levels)
        return self

    def decision(self) -> Decision | None:
        known = self.can_serve
        return decide(self.call, self.services, lambda: (cap(),), lambda name: known is None or name in known)

    @property
    def says(self) -> str | None:
        """The name of the rule that decides."""
        found = self.decision()
        return found.rule.name if found else None

    @property
    def places(self) -> list[str]:
        found = self.decision()
        return [f"{d.provider}/{d.model}" for d in found.destinations] if found else []


def test_the_first_rule_that_holds_decides() -> None:
    assert Asked().says is None
    assert Asked(rule("no", "false"), rule("yes"), rule("late")).says == "yes"


def test_narrower_scopes_go_before_wider_ones() -> None:
    scopes = {"virtual_key__vk-1": (rule("key", "model == 'x'"),), "team__t": (rule("team"),), "customer__c": (rule("customer"),),
              "team__other": (rule("other"),)}  # fmt: skip
    assert Asked(rule("global"), by_scope=scopes).says == "team"
    assert Asked(rule("global"), by_scope={k: v for k, v in scopes.items() if k != "team__t"}).says == "customer"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('model == "gpt-4o" && provider == "openai" && request_type == "chat_completion"', True),
        ('virtual_key_name == "workshop-vk-1" && team_name == "red" && customer_id == "c"', True),
        ('headers["x-tier"] == "basic" && params["beta"] == "2"', True),
        ('headers["x-twice"] == "a, b"', True),
        ('headers["authorization"] == "" && !("x-api-key" in headers) && !("x-bf-vk" in headers)', True),
        ('headers.all(name, name != "cookie" && name != "authorization")', True),
        ('"key" in params || params["access_token"] != ""', False),
        ('headers["x-missing"] != "free"', True),
    ],
)
def test_what_an_expression_sees(expression: str, expected: bool) -> None:
    sent = {"X-Tier": "basic", "authorization": "Bearer sk-secret", "x-api-key": "sk", "x-bf-vk": "sk-bf-1", "cookie": "a=b"}
    asked = Asked(rule("r", expression), headers=sent, query="beta=1&beta=2&key=secret&access_token=t")
    asked.call.flow.request.headers.fields += ((b"x-twice", b"a"), (b"X-Twice", b"b"))
    assert (asked.says == "r") is expected


def test_bytes_that_are_no_text_are_no_fault() -> None:
    asked = Asked(rule("r", 'headers["x-odd"].startsWith("a") && params.p == ""'), query="p=%ff" * 0 + "&" * 500)
    asked.call.flow.request.headers.fields += ((b"x-odd", b"a\xff\xfe"),)
    assert asked.says == "r"


@pytest.mark.parametrize(("percent", "expected"), [(79, None), (80, None), (81, "full"), (100, "full")])
def test_how_full_the_caps_are(percent: int, expected: str | None) -> None:
    assert Asked(rule("full", "budget_used > 80")).full(percent).says == expected


def test_what_is_not_known_does_not_match_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(rule("full", "budget_used > 80"), rule("odd", "1 / size(team_id) == 0 || model > 3"), rule("last"))
    with caplog.at_level(logging.WARNING):
        assert [asked.says for _ in range(5)] == ["last"] * 5
    assert asked.services.rule_faults.counts[("full", "its expression has no answer, budget_used is not known")] == 5
    assert len(caplog.records) == 2 and "'full'" in caplog.text and "'odd'" in caplog.text


def test_the_other_targets_come_after_the_one_that_is_drawn_and_fallbacks_last() -> None:
    asked = Asked(rule("r", "true", RoutingTarget("a", "m", weight=1.0), RoutingTarget("b", weight=0.0), fallbacks=("c/x/y", "d")))
    assert asked.places == ["a/m", "b/None", "c/x/y", "d/None"]


def test_targets_are_drawn_by_weight() -> None:
    """3 to 1 of 1,200 seeded draws; chi-square with one degree of freedom passes 24 once in a million."""
    asked = Asked(rule("r", "true", RoutingTarget("a", weight=0.75), RoutingTarget("b", weight=0.25)))
    drawn = Counter(asked.places[0] for _ in range(1_200))
    assert (drawn["a/None"] - 900) ** 2 / 900 + (drawn["b/None"] - 300) ** 2 / 300 < 24


def test_providers_of_another_dialect_are_skipped_and_a_rule_of_such_alone_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(
        rule("r", "true", RoutingTarget("anthropic"), fallbacks=("groq",)), rule("none", "true", RoutingTarget("gemini")), rule("z")
    )
    asked.can_serve = ("groq", "z")
    with caplog.at_level(logging.WARNING):
        assert asked.places == ["groq/None"]
        asked.call.governance()
    assert "provider 'anthropic' cannot serve requests of this dialect" in caplog.text
    asked.can_serve = ("z",)
    assert asked.says == "z"


def test_a_chained_rule_goes_on_with_what_it_decided() -> None:
    first = rule("first", 'model == "gpt-4o"', RoutingTarget(None, "gpt-4o-mini"), chain=True)
    second = rule("second", 'model == "gpt-4o-mini" && provider == "openai"', RoutingTarget("groq"), chain=True)
    third = rule("third", 'provider == "groq"', RoutingTarget("mistral", "small"))
    assert Asked(first, second, third).places == ["mistral/small"]
    assert Asked(first, second).places == ["groq/gpt-4o-mini"], "what the next rule leaves open stays as decided"
    assert Asked(first, third).places == ["None/gpt-4o-mini"]
    assert Asked(first, second, third, routing_chain_max_depth=2).says == "second"
    assert Asked(replace(first, chain_rule=False), second, third).says == "first"


def test_a_chain_that_goes_in_a_circle_ends() -> None:
    there = rule("there", 'provider == "openai"', RoutingTarget("groq"), chain=True)
    back = rule("back", 'provider == "groq"', RoutingTarget("openai", "gpt-4o"), chain=True)
    assert Asked(there, back).says == "back"
    assert Asked(rule("same", "true", RoutingTarget(None, "gpt-4o"), chain=True), rule("next")).says == "same"


@pytest.mark.parametrize("fields", [{"signed": True}, {"way_in": WayIn.FORWARD}, {"wanted": None}])
def test_where_rules_do_not_apply(fields: dict[str, Any]) -> None:
    asked = Asked(rule("r"))
    assert asked.says == "r"
    for name, value in fields.items():
        setattr(asked.call, name, value)
    assert asked.says is None


def test_without_a_key_only_global_rules_apply() -> None:
    asked = Asked(rule("global", "virtual_key_id == '' && team_name == ''"), by_scope={"team__t": (rule("team"),)})
    asked.call.virtual_key = None
    assert asked.says == "global"
