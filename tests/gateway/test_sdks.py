"""Unmodified OpenAI, Anthropic and Google SDKs against a real gateway, by base URL and through the intercepting proxy."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import PROVIDER_KEYS, VIRTUAL_KEY, budget, config_for, virtual_key
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.sdk_calls import EVERY_CALL, MODELS, Call, Outcome, every_call, run_in_process
from tests.support.waiting import eventually

EMPTY_KEY = "sk-bf-1111111111111111111111111111nothingleft1"
EMPTY_BUDGET = "nothing-left-budget"
OWN_KEY = "sk-callers-own-key-0001"
WAYS = ("base_url", "proxy")
PROVIDER_OF = {
    "chat": "openai",
    "responses": "openai",
    "embeddings": "openai",
    "messages": "anthropic",
    "generate_content": "gemini",
}
REFUSAL_CLASSES = {"openai": "openai.APIStatusError", "anthropic": "anthropic.PaymentRequiredError", "gemini": "google.ClientError"}
NUMBERS = range(len(EVERY_CALL))
LABELS = [Call(api, stream, asynchronous).label for api, stream, asynchronous in EVERY_CALL]

SHOWING_HEADERS = [number for number, (api, stream, _) in enumerate(EVERY_CALL) if not stream and api != "generate_content"]
"""Streams carry no cost header, and Google's SDK shows no headers."""


@dataclass
class Made:
    """All calls of one way in, allowed and refused, with what the provider saw of them."""

    calls: list[Call]
    allowed: list[Outcome]
    refused: list[Outcome]
    lines: list[dict[str, Any]]
    upstream: list[dict[str, Any]]
    """Every request the provider got, of allowed and refused calls alike."""
    spent_nanos: int


class World:
    """One provider and one gateway for all tests here; the calls of a way are made when they are first asked for."""

    def __init__(self, provider: PretendProcess, gateway: Gateway) -> None:
        self.provider = provider
        self.gateway = gateway
        self._made: dict[str, Made] = {}

    def made(self, way: str) -> Made:
        if way not in self._made:
            self._made[way] = self._make(way)
        return self._made[way]

    def _make(self, way: str) -> Made:
        self.provider.reset()
        before = self.gateway.spent_nanos()
        calls, refused_calls = self._calls(way, VIRTUAL_KEY), self._calls(way, EMPTY_KEY)
        outcomes = run_in_process(calls + refused_calls, self.gateway.env())
        bill = self.provider.bill()
        spent = eventually(
            lambda: self.gateway.spent_nanos() - before, lambda spent: spent == bill["cost_nanos"] or spent > bill["cost_nanos"]
        )
        allowed, refused = outcomes[: len(calls)], outcomes[len(calls) :]
        return Made(calls, allowed, refused, bill["lines"], self.provider.last(500), spent)

    def _calls(self, way: str, key: str) -> list[Call]:
        if way == "base_url":
            calls = every_call(gateway_url=self.gateway.url, api_key=key, text="hi there [[pretend output-tokens=24]]")
        else:
            env = self.gateway.proxy_variables(key)
            calls = every_call(api_key=OWN_KEY, text="hi there [[pretend output-tokens=24]]", env=env)
        return [replace(call, include_usage=call.api == "chat" and call.stream and call.asynchronous) for call in calls]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = [
        virtual_key(budgets=[budget(5, name="roomy-budget")]),
        virtual_key("empty-vk", value=EMPTY_KEY, budgets=[budget("0.000000001", name=EMPTY_BUDGET)]),
    ]
    folder: Path = tmp_path_factory.mktemp("sdks")
    with PretendProcess() as provider, Gateway(folder, config_for(provider.url, virtual_keys=keys)) as gateway:
        yield World(provider, gateway)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", NUMBERS, ids=LABELS)
def test_an_allowed_call_gets_the_whole_answer(world: World, way: str, number: int) -> None:
    made = world.made(way)
    call, outcome, line = made.calls[number], made.allowed[number], made.lines[number]
    assert outcome.ok, f"{outcome.error_class}: {outcome.error_message}"
    if call.api == "embeddings":
        assert outcome.text == "1536"
        return
    assert outcome.text.split()[:4] == ["the", "quick", "brown", "fox"]
    assert len(outcome.text.split()) == 24
    if call.api == "chat" and call.stream and not call.include_usage:
        assert outcome.input_tokens is None, "a usage chunk reached a client that had not asked for one"
    else:
        assert outcome.input_tokens == line["usage"]["input_tokens"]
        assert outcome.output_tokens == line["usage"]["output_tokens"] == 24


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", SHOWING_HEADERS, ids=[LABELS[number] for number in SHOWING_HEADERS])
def test_the_cost_header_is_what_the_provider_bills(world: World, way: str, number: int) -> None:
    made = world.made(way)
    outcome, line = made.allowed[number], made.lines[number]
    assert Decimal(outcome.headers["x-tollgate-cost-usd"]) * 10**9 == line["cost_nanos"]
    assert line["cost_nanos"] > 0
    assert outcome.headers["x-tollgate-request-id"]


@pytest.mark.parametrize("way", WAYS)
def test_the_ledger_and_the_provider_agree(world: World, way: str) -> None:
    made = world.made(way)
    assert len(made.lines) == len(made.calls)
    assert all(line["finished"] for line in made.lines)
    assert made.spent_nanos == sum(line["cost_nanos"] for line in made.lines)


@pytest.mark.parametrize("way", WAYS)
def test_no_virtual_key_goes_upstream_and_the_right_credential_does(world: World, way: str) -> None:
    made = world.made(way)
    assert len(made.upstream) == len(made.calls)
    for call, request in zip(made.calls, made.upstream, strict=True):
        shown = f"{request['target']} {request['headers']} {request['body_text']}"
        assert "sk-bf-" not in shown
        assert not [name for name, _ in request["headers"] if name.lower().startswith(("proxy-", "x-bf-", "x-tollgate-"))]
        wanted = OWN_KEY if way == "proxy" else PROVIDER_KEYS[PROVIDER_OF[call.api]]
        sent = {name.lower(): value for name, value in request["headers"]}
        carried = [sent.get("x-api-key"), sent.get("x-goog-api-key"), sent.get("authorization", "").removeprefix("Bearer ")]
        assert [value for value in carried if value] == [wanted]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", NUMBERS, ids=LABELS)
def test_a_refused_call_raises_what_the_sdk_raises_for_402(world: World, way: str, number: int) -> None:
    made = world.made(way)
    call, outcome = made.calls[number], made.refused[number]
    assert not outcome.ok
    assert outcome.error_status == 402
    assert REFUSAL_CLASSES[PROVIDER_OF[call.api]] in outcome.error_bases
    assert EMPTY_BUDGET in outcome.error_message
    assert "empty-vk" in outcome.error_message


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", NUMBERS, ids=LABELS)
def test_a_refusal_carries_the_budget_as_data(world: World, way: str, number: int) -> None:
    made = world.made(way)
    call, body = made.calls[number], made.refused[number].error_body
    if PROVIDER_OF[call.api] == "openai":
        # openai-python hands out the `error` member alone
        assert (body["type"], body["code"]) == ("budget_exceeded", "budget_exceeded")
        return
    kind = body["error"]["type"] if PROVIDER_OF[call.api] == "anthropic" else body["error"]["status"]
    assert kind == ("billing_error" if PROVIDER_OF[call.api] == "anthropic" else "RESOURCE_EXHAUSTED")
    assert body["budget"]["name"] == EMPTY_BUDGET
    assert body["budget"]["scope"] == "virtual_key"
    assert body["budget"]["unit"] == "usd"
    assert body["exceeded"][0]["name"] == EMPTY_BUDGET


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_is_one_request_and_never_reaches_the_provider(world: World, way: str) -> None:
    made = world.made(way)
    assert len(made.upstream) == len(made.calls)
    way_in = "reverse" if way == "base_url" else "forward"

    def refusals() -> Counter[str]:
        counted: Counter[str] = Counter()
        for row in world.gateway.log_rows():
            if row["refusal_type"] == "budget_exceeded" and row["way_in"] == way_in:
                counted[row["model"]] += row["count"]
        return counted

    # Each call is at least one request, so equal sums mean that nothing was tried twice.
    wanted = Counter(MODELS[call.api] for call in made.calls)
    assert eventually(refusals, lambda seen: seen.total() >= wanted.total()) == wanted
