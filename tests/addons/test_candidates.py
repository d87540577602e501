"""Who may serve a call, in which order: pinned providers, bare model names, weights, what drops out."""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from addons.call import Call, Decision, Destination
from addons.candidates import candidates, want, want_again
from addons.providers.registry import FAMILIES
from addons.services import Services
from addons.steps.identify import identify
from addons.steps.read import read, read_facts
from addons.steps.route import route, route_by_model
from store.config_store.expressions import compile_expression
from store.config_store.routing_rules import RoutingRule
from store.config_store.snapshot import ANY, Provider, ProviderConfig, ProviderKey, VirtualKey
from store.prices.patch import compile_patch
from store.prices.scoped import ScopedPatch, ScopedPrices
from tests.support import calls
from tests.support.calls import KEY

CHAT = "chat_completion"
RULE = RoutingRule("r", "rule", compile_expression("true"), ())
LLAMA = "llama-3.3-70b-versatile"
"""Of groq; openai has no such model."""


def own(name: str, *keys: str, family: str = "openai") -> Provider:
    """A provider that the operator runs."""
    made = tuple(ProviderKey(key, key, f"secret-{key}") for key in keys or (f"{name}-1",))
    return Provider(name, family, base_url=f"http://{name}.test", keys=made)


OWN = {name: own(name) for name in ("east", "west")}


def key(*configs: tuple[str, dict[str, Any]]) -> VirtualKey:
    made = (
        ProviderConfig(f"pc-{place}", name, **({"allowed_models": (ANY,)} | fields))
        for place, (name, fields) in enumerate(configs, 1)
    )
    return calls.virtual_key(provider_configs=tuple(made))


def asked(
    virtual_key: VirtualKey,
    path: str = "/v1/chat/completions",
    *,
    providers: dict[str, Provider] | None = None,
    model: str = "gpt-4o-mini",
    body: bytes | None = None,
    seed: int = 7,
    **headers: str,
) -> tuple[Call, Services]:
    services = calls.services(calls.snapshot({KEY: virtual_key}, OWN | (providers or {})))
    services.random = Random(seed)
    sent = {"x-bf-vk": KEY} | {name.replace("_", "-"): value for name, value in headers.items()}
    made = calls.call(path, body=calls.chat(model=model) if body is None else body, headers=sent)
    route(made, services, "origin", None)
    identify(made, services)
    read(made, services)
    before = made.dialect
    route_by_model(made)
    if made.dialect is not before:
        read_facts(made)
    assert made.refusal is None, made.refusal
    want(made)
    return made, services


def found(virtual_key: VirtualKey, *arguments: Any, decision: Decision | None = None, **fields: Any) -> list[str]:
    """`provider:config:model` of each candidate."""
    made, services = asked(virtual_key, *arguments, **fields)
    return [
        f"{one.provider.name}:{one.config.id if one.config else ''}:{one.model}" for one in candidates(made, services, decision)
    ]


@pytest.mark.parametrize(
    ("configs", "path", "model", "expected"),
    [
        ([("openai", {}), ("east", {})], "/openai/v1/chat/completions", "m", ["openai:pc-1:m"]),
        ([("openai", {}), ("east", {})], "/v1/chat/completions", "east/m", ["east:pc-2:m"]),
        ([("openai", {}), ("openai", {})], "/openai/v1/chat/completions", "m", ["openai:pc-1:m", "openai:pc-2:m"]),
        ([(ANY, {}), ("openai", {})], "/openai/v1/chat/completions", "m", ["openai:pc-2:m"]),
        ([(ANY, {}), ("openai", {"allowed_models": ("gpt-5",)})], "/openai/v1/chat/completions", "m", ["openai:pc-1:m"]),
        ([("east", {})], "/openai/v1/chat/completions", "m", []),
        ([("openai", {"blacklisted_models": ("m",)})], "/openai/v1/chat/completions", "m", []),
    ],
)
def test_a_named_provider_is_the_only_one(configs: Any, path: str, model: str, expected: list[str]) -> None:
    assert found(key(*configs), path, model=model) == expected


@pytest.mark.parametrize(
    ("configs", "model", "expected"),
    [
        ([("east", {}), ("openai", {})], "gpt-4o-mini", ["openai:pc-2:gpt-4o-mini", "east:pc-1:gpt-4o-mini"]),
        ([("groq", {}), ("openai", {})], "gpt-4o-mini", ["openai:pc-2:gpt-4o-mini"]),
        ([("groq", {}), ("openai", {})], LLAMA, [f"groq:pc-1:{LLAMA}"]),
        ([("groq", {"allowed_models": ("gpt-4o*",)}), ("openai", {})], "gpt-4o-mini",
         ["openai:pc-2:gpt-4o-mini", "groq:pc-1:gpt-4o-mini"]),
        ([("openai", {}), ("groq", {})], "nobody-knows-it", ["openai:pc-1:nobody-knows-it"]),
        ([("groq", {})], "nobody-knows-it", []),
        ([("anthropic", {}), ("openai", {})], "gpt-4o-mini", ["openai:pc-2:gpt-4o-mini"]),
        ([(ANY, {})], "gpt-4o-mini", ["openai:pc-1:gpt-4o-mini"]),
        ([(ANY, {})], LLAMA, [f"groq:pc-1:{LLAMA}"]),
        ([(ANY, {}), ("groq", {"allowed_models": ("other",)}), ("openai", {})], LLAMA, [f"openai:pc-3:{LLAMA}"]),
    ],
)  # fmt: skip
def test_a_bare_model_name_is_for_those_that_have_the_model(configs: Any, model: str, expected: list[str]) -> None:
    silent = {name: Provider(name, name) for name in FAMILIES if name not in ("openai", "anthropic", "groq")}
    assert found(key(*configs), model=model, providers=silent) == expected


PRICED = [("input_cost_per_token", "0.000001"), ("output_cost_per_token", "0.000002")]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"provider": "groq"}, "groq"),
        ({"provider_key_id": "groq-1"}, "groq"),
        ({"provider": "groq", "virtual_key_id": "vk-1"}, "groq"),
        ({"provider": "groq", "pattern": "house-", "wildcard": True}, "groq"),
        ({"provider": "groq", "virtual_key_id": "vk-2"}, "openai"),
        ({"provider": "groq", "operations": frozenset({"embedding"})}, "openai"),
        ({"provider": "groq", "pattern": "", "wildcard": True}, "openai"),
        ({"provider": "groq", "patch": compile_patch("half", PRICED[:1])}, "openai"),
        ({"virtual_key_id": "vk-1"}, "openai"),
        ({}, "openai"),
    ],
)
def test_a_price_of_ones_own_says_who_has_a_model(override: dict[str, Any], expected: str) -> None:
    """Of a model that nobody else knows. A price for no provider in particular leaves it with the one the path stands for."""
    whole: dict[str, Any] = {"patch": compile_patch("own", PRICED), "pattern": "house-model", "operations": frozenset({CHAT})}
    own_prices = ScopedPrices([ScopedPatch(**(whole | override))])
    made, services = asked(key((ANY, {})), model="house-model")
    assert made.snapshot is not None
    made.snapshot = replace(made.snapshot, prices=own_prices)
    assert [one.provider.name for one in candidates(made, services, None)] == [expected]


def test_messages_have_a_bare_path_too() -> None:
    names = found(key(("anthropic", {}), ("openai", {})), "/v1/messages", body=calls.message())
    assert names == ["anthropic:pc-1:claude-haiku-4-5"]


def test_weights_share_the_calls_as_they_say() -> None:
    """7 to 2 to 1 of 2,000 seeded draws; chi-square with two degrees of freedom passes 27 once in a million."""
    made, services = asked(key(("east", {"weight": 0.7}), ("west", {"weight": 0.2}), ("openai", {"weight": 0.1}), ("groq", {})))
    drawn = Counter(candidates(made, services, None)[0].provider.name for _ in range(2_000))
    expected = {"east": 1_400, "west": 400, "openai": 200}
    assert set(drawn) == set(expected), "without a weight nobody is drawn while others have one"
    assert sum((drawn[name] - count) ** 2 / count for name, count in expected.items()) < 27


def test_after_the_one_that_is_drawn_come_the_others() -> None:
    names = found(key(("east", {"weight": 1.0}), ("west", {"weight": 1.0}), ("openai", {"weight": 0.0})))
    assert sorted(names) == ["east:pc-1:gpt-4o-mini", "west:pc-2:gpt-4o-mini"]


def test_without_a_key_a_place_drops_out_while_there_is_another() -> None:
    bare = replace(OWN["east"], keys=())
    configs = key(("east", {}), ("west", {}))
    assert found(configs, providers={"east": bare}) == ["west:pc-2:gpt-4o-mini"]
    assert found(key(("east", {"key_ids": ()}), ("west", {}))) == ["west:pc-2:gpt-4o-mini"]
    assert found(configs, providers={"east": bare, "west": replace(OWN["west"], keys=())}) == ["east:pc-1:gpt-4o-mini"]


def test_what_failed_lately_goes_last() -> None:
    made, services = asked(key(("east", {}), ("west", {})), providers={"east": own("east", "e1", "e2")})

    def order() -> list[str]:
        return [one.provider.name for one in candidates(made, services, None)]

    services.health.failed("east", "e1", 5)
    assert order() == ["east", "west"], "another of its keys is well"
    services.health.failed("east", "e2", 5)
    assert order() == ["west", "east"]
    services.health.failed("west")
    assert order() == ["east", "west"], "nothing is refused because of it"


def test_the_callers_own_credential_stays_with_the_provider_it_was_sent_to() -> None:
    made, services = asked(key(("openai", {}), ("east", {})), authorization="Bearer eyJhbGciOi.person.token")
    assert made.caller_oauth
    assert [one.provider.name for one in candidates(made, services, None)] == ["openai"]


def test_a_rule_sends_to_its_destinations_as_far_as_the_key_allows() -> None:
    configs = key(("openai", {}), ("east", {"allowed_models": ("small",)}), ("west", {}))
    decision = Decision(RULE, (
        Destination("west", None, "west-1"), Destination("east", "small"), Destination("east", "big"), Destination(None, "gpt-4o"),
        Destination("west", None, "west-1"),
    ))  # fmt: skip
    assert found(configs, "/openai/v1/chat/completions", decision=decision) == [
        "west:pc-3:gpt-4o-mini", "east:pc-2:small", "openai:pc-1:gpt-4o"
    ]  # fmt: skip


def test_foreign_places_are_marked_and_have_paths_of_their_own() -> None:
    decision = Decision(
        RULE, (Destination("groq", LLAMA), Destination("gemini", "gemini-2.5-flash"), Destination("openai", "gpt-4o"))
    )
    made, services = asked(key((ANY, {})), "/openai/chat/completions")
    assert [(one.provider.name, one.path, one.foreign) for one in candidates(made, services, decision)] == [
        ("groq", "/v1/chat/completions", True),
        ("gemini", "/v1beta/openai/chat/completions", True),
        ("openai", "/v1/chat/completions", False),
    ]


def test_back_to_what_was_asked() -> None:
    made, _ = asked(key(("openai", {}), ("east", {})))
    provider = made.provider
    made.provider, made.model, made.foreign, made.rule = OWN["east"], "other", True, RULE
    want_again(made)
    assert made.provider is provider and made.rule is None
    assert (made.model, made.foreign) == ("gpt-4o-mini", False)
