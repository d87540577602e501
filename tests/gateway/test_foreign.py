"""A mock provider that nobody here wrote (aimock, from npm) behind the gateway, unmodified SDKs before it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from tests.support.config import VIRTUAL_KEY, budget, config_for, virtual_key
from tests.support.foreign import ANSWER, INPUT_TOKENS, OUTPUT_TOKENS, Aimock
from tests.support.gateway import Gateway
from tests.support.sdk_calls import Call, Outcome, every_call, run_in_process
from tests.support.waiting import eventually

EMPTY_KEY = "sk-bf-2222222222222222222222222222nothingleft2"
# List prices per token in nano-dollars, (input, output), of the models the calls use.
PRICES = {"gpt-4o-mini": (150, 600), "claude-haiku-4-5": (1_000, 5_000), "gemini-2.5-flash": (300, 2_500)}
MODEL_OF = {
    "chat": "gpt-4o-mini",
    "responses": "gpt-4o-mini",
    "messages": "claude-haiku-4-5",
    "generate_content": "gemini-2.5-flash",
}
WAYS = ("base_url", "proxy")


def the_calls(**common: Any) -> list[Call]:
    """The synchronous kinds without embeddings, for which this mock reports no usage. It serves Gemini under v1beta only."""
    made = [call for call in every_call(**common) if call.api != "embeddings" and not call.asynchronous]
    return [replace(call, api_version="v1beta" if call.api == "generate_content" else None) for call in made]


LABELS = [call.label for call in the_calls()]
NUMBERS = range(len(LABELS))


def price_of(call: Call) -> int:
    input_price, output_price = PRICES[MODEL_OF[call.api]]
    return INPUT_TOKENS * input_price + OUTPUT_TOKENS * output_price


@dataclass
class Made:
    calls: list[Call]
    allowed: list[Outcome]
    refused: list[Outcome]
    upstream: list[str]
    """Every request the mock got, of allowed and refused calls alike."""
    spent_nanos: int


class World:
    def __init__(self, mock: Aimock, gateway: Gateway) -> None:
        self.mock = mock
        self.gateway = gateway
        self._made: dict[str, Made] = {}

    def made(self, way: str) -> Made:
        if way not in self._made:
            self._made[way] = self._make(way)
        return self._made[way]

    def _make(self, way: str) -> Made:
        spent_before, seen_before = self.gateway.spent_nanos(), len(self.mock.journal())
        calls, refused_calls = self._calls(way, VIRTUAL_KEY), self._calls(way, EMPTY_KEY)
        expected = sum(price_of(call) for call in calls)
        outcomes = run_in_process(calls + refused_calls, self.gateway.env())
        spent = eventually(lambda: self.gateway.spent_nanos() - spent_before, lambda nanos: nanos >= expected)
        upstream = [str(entry) for entry in self.mock.journal()[seen_before:]]
        return Made(calls, outcomes[: len(calls)], outcomes[len(calls) :], upstream, spent)

    def _calls(self, way: str, key: str) -> list[Call]:
        if way == "base_url":
            return the_calls(gateway_url=self.gateway.url, api_key=key)
        return the_calls(api_key="callers-own-key", env=self.gateway.proxy_variables(key))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = [
        virtual_key(budgets=[budget(5, name="roomy-budget")]),
        virtual_key("empty-vk", value=EMPTY_KEY, budgets=[budget("0.000000001", name="nothing-left-budget")]),
    ]
    folder = tmp_path_factory.mktemp("foreign")
    with Aimock(folder) as mock, Gateway(folder / "app", config_for(mock.url, virtual_keys=keys)) as gateway:
        yield World(mock, gateway)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", NUMBERS, ids=LABELS)
def test_answers_arrive_and_cost_what_the_mock_reported(world: World, way: str, number: int) -> None:
    made = world.made(way)
    call, outcome = made.calls[number], made.allowed[number]
    assert outcome.ok, f"{outcome.error_class}: {outcome.error_message}"
    assert outcome.text == ANSWER
    if call.api == "chat" and call.stream:
        assert outcome.input_tokens is None
    else:
        assert (outcome.input_tokens, outcome.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    if not call.stream and call.api != "generate_content":
        assert Decimal(outcome.headers["x-tollgate-cost-usd"]) * 10**9 == price_of(call)


@pytest.mark.parametrize("way", WAYS)
def test_the_ledger_holds_the_sum(world: World, way: str) -> None:
    made = world.made(way)
    assert made.spent_nanos == sum(price_of(call) for call in made.calls)


@pytest.mark.parametrize("way", WAYS)
def test_each_call_reached_the_mock_once_without_the_virtual_key(world: World, way: str) -> None:
    made = world.made(way)
    assert len(made.upstream) == len(made.calls)
    assert not [entry for entry in made.upstream if "sk-bf-" in entry]


@pytest.mark.parametrize("way", WAYS)
def test_refusals_never_reach_the_mock(world: World, way: str) -> None:
    made = world.made(way)
    assert len(made.upstream) == len(made.calls)
    for outcome in made.refused:
        assert (outcome.ok, outcome.error_status) == (False, 402)
        assert "nothing-left-budget" in outcome.error_message
