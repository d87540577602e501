"""The first candidate that can serve at once: what is asked of the ledger in which order, and what a refusal tells."""

from dataclasses import replace
from typing import Any

import pytest

from addons.call import Call
from addons.services import Services
from store.config_store.expressions import compile_expression
from store.config_store.records import RoutingTarget
from store.config_store.routing_rules import RoutingRule, RoutingRules
from store.config_store.snapshot import ANY, Provider, ProviderConfig, ProviderKey, Snapshot
from store.ledger.types import Cap, Exceeded, Granted, Refused, Scope, Stale, Unit
from tests.support import calls
from tests.support.calls import KEY, cap, cap_state

OWN = {
    name: Provider(name, "openai", base_url=f"http://{name}.test/v1", keys=(ProviderKey(f"{name}-1", name, f"secret-{name}"),))
    for name in ("east", "west")
}
EAST = cap("east-cap", scope=Scope.PROVIDER_CONFIG, scope_id="pc-1")
WEST = cap("west-cap", scope=Scope.PROVIDER_CONFIG, scope_id="pc-2")
SHARED = cap("key-cap")


def governed(*, rules: tuple[RoutingRule, ...] = (), revision: int = 1) -> Snapshot:
    configs = (
        ProviderConfig("pc-1", "east", allowed_models=(ANY,), caps=(EAST,)),
        ProviderConfig("pc-2", "west", allowed_models=(ANY,), caps=(WEST,)),
    )
    key = calls.virtual_key(provider_configs=configs, caps=(SHARED,))
    made = calls.snapshot({KEY: key}, OWN, revision=revision)
    return replace(made, routing_rules=RoutingRules({("global", ""): rules} if rules else {}))


def refused(of: Cap, needed: int, *, held_only: bool = False, used: int = 500_000_000) -> Refused:
    return Refused("call-1", (Exceeded(cap_state(of, used=used), needed),), held_only)


async def on_its_way(
    *answers: Granted | Refused | Stale, rules: tuple[RoutingRule, ...] = (), **body: Any
) -> tuple[Call, Services]:
    services = calls.services(governed(rules=rules))
    ledger: Any = services.ledger
    ledger.answers = list(answers)
    return await calls.on_its_way(calls.call("/v1/chat/completions", body=calls.chat(**body)), services), services


def asked(services: Services) -> list[tuple[str, bool]]:
    """(provider, whether it may wait) of each hold."""
    ledger: Any = services.ledger
    return [(request.facts.provider, request.may_wait) for request in ledger.holds]


async def test_the_next_one_is_held_and_nothing_of_the_first_stays() -> None:
    made, services = await on_its_way(refused(EAST, 1))
    assert asked(services) == [("east", False), ("west", False)]
    assert made.refusal is None and made.provider is not None and made.provider_config is not None
    assert (made.provider.name, made.provider_config.id, made.cap_ids) == ("west", "pc-2", ("west-cap", "key-cap"))
    assert made.flow.request.headers["authorization"] == "Bearer secret-west"
    assert made.flow.request.pretty_url == "http://west.test/v1/chat/completions"
    ledger: Any = services.ledger
    assert [request.cap_ids for request in ledger.holds] == [("east-cap", "key-cap"), ("west-cap", "key-cap")]
    assert len({request.call_id for request in ledger.holds}) == 1, "one call, one id: whatever happens it is charged once"


async def test_a_single_candidate_may_wait() -> None:
    _, services = await on_its_way(model="west/gpt-4o-mini")
    assert asked(services) == [("west", True)]


async def test_nobody_waits_while_another_can_serve() -> None:
    made, services = await on_its_way(refused(EAST, 1, held_only=True, used=0))
    assert made.refusal is None and asked(services) == [("east", False), ("west", False)]


async def test_when_nobody_can_serve_at_once_the_first_that_may_hope_waits() -> None:
    made, services = await on_its_way(refused(EAST, 1), refused(WEST, 1, held_only=True, used=0))
    assert made.refusal is None and asked(services) == [("east", False), ("west", False), ("west", True)]
    assert made.provider is not None and made.provider.name == "west"


async def test_the_first_refusal_is_told_and_all_that_stood_in_the_way_is_listed() -> None:
    made, _ = await on_its_way(refused(EAST, 1), refused(WEST, 2))
    assert made.refusal is not None and made.provider is not None
    assert (made.refusal.type, made.provider.name, made.provider_key) == ("budget_exceeded", "east", None)
    assert "'east-cap-name'" in made.refusal.message
    assert [each.state.cap.id for each in made.refusal.exceeded] == ["east-cap", "west-cap"]
    assert made.cap_ids == ("east-cap", "key-cap")


async def test_a_transient_refusal_is_told_before_a_final_one() -> None:
    held = refused(WEST, 2, held_only=True, used=0)
    made, _ = await on_its_way(refused(EAST, 1), held, held)
    assert made.refusal is not None
    assert (made.refusal.type, made.refusal.transient) == ("budget_held", True)
    assert [each.state.cap.id for each in made.refusal.exceeded] == ["west-cap", "east-cap"]


async def test_who_waits_in_vain_for_a_cap_of_its_own_gives_way_after_all() -> None:
    """The shared cap was only held, so the next one was not asked; while it waited, the first one's own cap was used up."""
    both = Refused("call-1", (Exceeded(cap_state(EAST), 1), Exceeded(cap_state(SHARED), 1)), True)
    made, services = await on_its_way(both, refused(EAST, 1))
    assert made.refusal is None and made.provider is not None and made.provider.name == "west"
    assert asked(services) == [("east", False), ("east", True), ("west", True)]
    made, services = await on_its_way(both, refused(EAST, 1), refused(SHARED, 1))
    assert made.refusal is not None and made.provider is not None and made.provider.name == "east"
    assert [each.state.cap.id for each in made.refusal.exceeded] == ["east-cap", "key-cap"]


async def test_a_cap_they_share_is_not_asked_twice_for_as_much() -> None:
    made, services = await on_its_way(refused(SHARED, 1))
    assert made.refusal is not None and asked(services) == [("east", False)]
    requests = cap("key-requests", Unit.REQUESTS, 5)
    services = calls.services(governed())
    ledger: Any = services.ledger
    ledger.answers = [refused(replace(requests, id="key-cap"), 1)]
    made = await calls.on_its_way(calls.call("/v1/chat/completions", body=calls.chat()), services)
    assert made.refusal is not None and len(ledger.holds) == 1


async def test_a_cheaper_model_is_asked_for_although_the_cap_is_shared() -> None:
    """A rule whose fallback is the cheaper model: what the dear one needs is not there, what the cheap one needs may be."""
    rule = RoutingRule("r", "dear first", compile_expression("true"), (RoutingTarget("east", "gpt-4o"),), ("east/gpt-4o-mini",))
    made, services = await on_its_way(refused(SHARED, 5_000_000_000), rules=(rule,))
    assert made.refusal is None and made.model == "gpt-4o-mini" and asked(services) == [("east", False), ("east", False)]
    assert b'"model": "gpt-4o-mini"' in (made.flow.request.content or b"")


async def test_prices_and_bounds_are_those_of_the_one_that_holds() -> None:
    rule = RoutingRule("r", "two models", compile_expression("true"), (RoutingTarget("east", "gpt-4o"),), ("west/gpt-4o-mini",))
    made, services = await on_its_way(refused(EAST, 1), rules=(rule,), max_tokens=100)
    ledger: Any = services.ledger
    dear, cheap = (request.bound_nanos for request in ledger.holds)
    assert dear > 16 * cheap > 0, "2.50 and 10.00 against 0.15 and 0.60 dollars a million"
    assert made.hold is not None and made.hold.amount_nanos == cheap
    assert made.price is not None and made.price.model == "gpt-4o-mini"


async def test_an_unpriced_model_gives_way_too() -> None:
    rule = RoutingRule("r", "unknown first", compile_expression("true"), (RoutingTarget("east", "nobody-knows"),), ("west",))
    made, services = await on_its_way(rules=(rule,))
    assert made.refusal is None and asked(services) == [("west", False)]
    only = replace(rule, fallbacks=("west/nobody-knows-either",))
    made, services = await on_its_way(rules=(only,))
    assert made.refusal is not None and (made.refusal.type, asked(services)) == ("unpriced_model", [])
    assert (
        "'nobody-knows'" in made.refusal.message and "Routing rule 'unknown first' chose east/nobody-knows" in made.refusal.message
    )


async def test_a_stale_answer_starts_over_with_what_was_asked() -> None:
    services = calls.services(governed())
    ledger: Any = services.ledger
    snapshots: Any = services.snapshots
    snapshots.following = [governed(revision=2)]
    ledger.answers = [refused(EAST, 1), Stale(2)]
    made = await calls.on_its_way(calls.call("/v1/chat/completions", body=calls.chat()), services)
    assert made.refusal is None and asked(services) == [("east", False), ("west", False), ("east", False)]
    assert [request.revision for request in ledger.holds] == [1, 1, 2]
    assert made.provider is not None and made.provider.name == "east"


async def test_a_stale_answer_at_another_protocol_variant_leaves_nothing_of_it() -> None:
    """The output limit is written as the provider that serves the call reads it: DeepSeek knows `max_tokens` alone."""
    first_choice = (RoutingTarget("deepseek", "deepseek-chat"),)
    rule = RoutingRule("r", "two", compile_expression("true"), first_choice, ("openai/gpt-4o-mini",))
    made_key = calls.virtual_key(provider_configs=(ProviderConfig("pc-1", ANY, allowed_models=(ANY,)),), caps=(SHARED,))
    first = replace(calls.snapshot({KEY: made_key}), routing_rules=RoutingRules({("global", ""): (rule,)}))
    services = calls.services(first)
    ledger: Any = services.ledger
    snapshots: Any = services.snapshots
    snapshots.following = [replace(first, revision=2)]
    small = Granted("call-1", 3_000_000, True, (cap_state(SHARED),))
    ledger.answers = [refused(EAST, 1), Stale(2), small]
    asked_for = calls.call("/deepseek/v1/chat/completions", body=calls.chat(model="deepseek-chat"))
    made = await calls.on_its_way(asked_for, services)
    assert made.refusal is None and asked(services) == [("deepseek", False), ("openai", False), ("deepseek", False)]
    assert made.trimmed_to is not None
    assert f'"max_tokens":{made.trimmed_to}' in (made.flow.request.content or b"").decode()


@pytest.mark.parametrize(("model", "answers"), [("gpt-4o-mini", [refused(EAST, 1)]), ("west/gpt-4o-mini", [])])
async def test_nothing_but_the_model_changes_in_a_body(model: str, answers: list[Refused]) -> None:
    made, _ = await on_its_way(*answers, model=model, max_tokens=5)
    content = made.flow.request.content or b""
    assert content == calls.chat(model="gpt-4o-mini", max_tokens=5)
