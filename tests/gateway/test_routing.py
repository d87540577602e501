"""Two real providers behind one gateway: weights, caps of one provider, failures, rules; the providers' own bills decide."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.config import Config, budget, virtual_key
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.waiting import eventually

CALL_HEADERS = {"x-pretend-input-tokens": "40", "x-pretend-output-tokens": "10"}
CALL_NANOS = 40 * 150 + 10 * 600
"""Of gpt-4o-mini, at its list price in nano-dollars a token."""
DEAR_NANOS = 40 * 2_500 + 10 * 10_000
"""Of gpt-4o."""
BIG_HEADERS = {"x-pretend-input-tokens": "40", "x-pretend-output-tokens": "400"}


def key_value(name: str) -> str:
    return f"sk-bf-{name:0<32}"


def provider(url: str, key: str) -> Config:
    return {
        "keys": [{"name": f"{key}-main", "value": key, "models": ["*"], "weight": 1.0}],
        "network_config": {"base_url": url},
        "custom_provider_config": {"base_provider_type": "openai"},
    }


def both(**of_east: Any) -> list[Config]:
    return [{"provider": "east", **of_east}, {"provider": "west"}]


def rule(name: str, expression: str, *targets: Config, **fields: Any) -> Config:
    return {"name": name, "cel_expression": expression, "targets": list(targets), **fields}


def document(east: str, west: str) -> Config:
    keys = [
        virtual_key("weights", value=key_value("weights"), provider_configs=[
            {"provider": "east", "weight": 0.7}, {"provider": "west", "weight": 0.3}]),
        virtual_key("capped", value=key_value("capped"), provider_configs=both(budgets=[budget("0.0001", name="east only")])),
        virtual_key("empty", value=key_value("empty"), provider_configs=[
            {"provider": "east", "budgets": [budget("0.000001", name="first cap")]},
            {"provider": "west", "budgets": [budget("0.000001", name="second cap")]}]),
        virtual_key("failing", value=key_value("failing"), provider_configs=both()),
        virtual_key("ruled", value=key_value("ruled"), provider_configs=both()),
        virtual_key("switch", value=key_value("switch"), budgets=[budget("0.01", name="all")], provider_configs=both()),
        virtual_key("crowd", value=key_value("crowd"), budgets=[budget("0.004", name="all")], provider_configs=[
            {"provider": "east", "budgets": [budget("0.002", name="half")]}, {"provider": "west"}]),
    ]  # fmt: skip
    rules = [
        rule("go west", 'headers["x-region"] == "west"', {"provider": "west"}, scope="virtual_key", scope_id="ruled"),
        rule("cheap when nearly spent", 'budget_used > 80 && model == "gpt-4o"', {"model": "gpt-4o-mini"},
             scope="virtual_key", scope_id="switch"),
        rule("crowd west", "budget_used >= 40", {"provider": "west"}, {"provider": "east", "weight": 0},
             scope="virtual_key", scope_id="crowd"),
    ]  # fmt: skip
    return {
        "providers": {"east": provider(east, "sk-east"), "west": provider(west, "sk-west")},
        "governance": {"virtual_keys": keys, "routing_rules": rules},
    }


class Coast:
    """A gateway between two providers."""

    def __init__(self, gateway: Gateway, east: PretendProcess, west: PretendProcess) -> None:
        self.gateway, self.east, self.west = gateway, east, west

    def call(self, key: str, model: str = "gpt-4o-mini", path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        sent = CALL_HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        with self.gateway.client(key_value(key)) as client:
            return client.post(path, json=chat(model), headers=sent)

    def reset(self) -> None:
        for one in (self.east, self.west):
            one.reset()
            one.set_defaults()


def chat(model: str = "gpt-4o-mini", limit: int = 20) -> Config:
    return {"model": model, "max_tokens": limit, "messages": [{"role": "user", "content": "hello"}]}


def spent_at_east(coast: Coast, key: str) -> int:
    """What the first budget of the key's config for east has used, in nano-dollars."""
    configs = {config["provider"]: config for config in coast.gateway.quota(key_value(key))["provider_configs"]}
    return int(Decimal(configs["east"]["budgets"][0]["current_usage"]) * 10**9)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coast]:
    app_dir: Path = tmp_path_factory.mktemp("coast")
    with PretendProcess() as east, PretendProcess() as west, Gateway(app_dir, document(east.url, west.url)) as gateway:
        yield Coast(gateway, east, west)


@pytest.fixture
def coast(running: Coast) -> Coast:
    running.reset()
    return running


def test_weights_share_the_calls(coast: Coast) -> None:
    """Chance: one degree of freedom, chi-square 24 is passed once in a million runs."""
    with coast.gateway.client(key_value("weights")) as client:
        answers = [client.post("/v1/chat/completions", json=chat(), headers=CALL_HEADERS) for _ in range(150)]
    assert {answer.status_code for answer in answers} == {200}
    said = Counter(answer.headers["x-tollgate-provider"] for answer in answers)
    assert said == {"east": coast.east.bill()["calls"], "west": coast.west.bill()["calls"]}
    expected = {"east": 105.0, "west": 45.0}
    assert sum((said[name] - count) ** 2 / count for name, count in expected.items()) < 24


def test_an_exhausted_provider_config_gives_way_and_the_bills_prove_it(coast: Coast) -> None:
    answers = [coast.call("capped") for _ in range(15)]
    assert {answer.status_code for answer in answers} == {200}
    said = [answer.headers["x-tollgate-provider"] for answer in answers]
    fits = 100_000 // CALL_NANOS  # in $0.0001
    assert said[: fits - 2] == ["east"] * (fits - 2) and said[fits + 1 :] == ["west"] * (14 - fits)
    east, west = coast.east.bill(), coast.west.bill()
    assert east["calls"] + west["calls"] == 15
    assert east["cost_nanos"] <= 100_000
    eventually(lambda: spent_at_east(coast, "capped"), lambda nanos: nanos == east["cost_nanos"])
    keys_used = {name: value for request in coast.west.last(1) for name, value in request["headers"]}
    assert keys_used["authorization"] == "Bearer sk-west", "the key of the provider that was chosen"
    rows = eventually(
        lambda: [row for row in coast.gateway.log_rows() if row["virtual_key_name"] == "capped"], lambda r: len(r) == 15
    )
    assert Counter(row["provider"] for row in rows) == Counter(said)
    assert sum(row["cost_nanos"] for row in rows) == east["cost_nanos"] + west["cost_nanos"]


def test_when_all_are_exhausted_the_first_is_named_and_all_are_listed(coast: Coast) -> None:
    answer = coast.call("empty")
    body = answer.json()
    assert (answer.status_code, body["type"]) == (402, "budget_exceeded")
    assert body["budget"]["name"] == "first cap" and "'first cap'" in body["message"]
    assert [cap["name"] for cap in body["exceeded"]] == ["first cap", "second cap"]
    assert body["extra_fields"]["provider"] == "east"
    assert (coast.east.bill()["calls"], coast.west.bill()["calls"]) == (0, 0)


def test_a_failing_provider_is_left_alone_for_some_seconds(coast: Coast) -> None:
    coast.east.set_defaults(status=503)
    first = coast.call("failing")
    assert (first.status_code, first.headers["x-tollgate-provider"]) == (503, "east"), "nothing is replayed inside a call"
    began = time.monotonic()
    second = coast.call("failing")
    assert (second.status_code, second.headers["x-tollgate-provider"]) == (200, "west")
    coast.east.set_defaults()
    back = eventually(lambda: coast.call("failing").headers["x-tollgate-provider"], lambda name: name == "east", 12)
    assert back == "east" and 3 < time.monotonic() - began < 12


def test_a_pinned_provider_is_asked_even_while_it_fails(coast: Coast) -> None:
    coast.east.set_defaults(status=429, retry_after=2)
    assert coast.call("failing", "east/gpt-4o-mini").status_code == 429
    assert coast.call("failing", "east/gpt-4o-mini").status_code == 429
    assert coast.call("failing", path="/east/v1/chat/completions").status_code == 429
    assert coast.east.bill()["requests"] >= 3 and coast.west.bill()["calls"] == 0
    assert coast.call("failing").headers["x-tollgate-provider"] == "west"
    coast.east.set_defaults()
    eventually(lambda: coast.call("failing").headers["x-tollgate-provider"], lambda name: name == "east", 12)


def test_a_rule_by_header_sends_elsewhere_byte_for_byte(coast: Coast) -> None:
    plain, ruled = coast.call("ruled"), coast.call("ruled", x_region="west")
    by_base_url = coast.call("ruled", path="/east/v1/chat/completions", x_region="west")
    assert [answer.headers.get("x-tollgate-provider") for answer in (plain, ruled, by_base_url)] == ["east", "west", "west"]
    got = coast.west.last(2)
    assert [request["target"] for request in got] == ["/v1/chat/completions"] * 2
    assert {request["body_text"] for request in got} == {plain.request.content.decode()}, "a body nobody had to change"
    assert coast.east.bill()["calls"] == 1
    rules = coast.gateway.console().get("/api/governance/routing-rules").json()["rules"]
    wanted = next(rule["id"] for rule in rules if rule["name"] == "go west")
    rows = eventually(
        lambda: [row for row in coast.gateway.log_rows() if row["virtual_key_name"] == "ruled"], lambda r: len(r) == 3
    )
    assert Counter(row["routing_rule_id"] for row in rows) == {"": 1, wanted: 2}


def test_a_nearly_spent_budget_switches_the_model(coast: Coast) -> None:
    """$0.01 holds fifty calls at gpt-4o's price of $0.0002; after forty-one of them more than 80 % are spent."""
    spent = 0
    for count in range(41):
        answer = coast.call("switch", "gpt-4o")
        assert (answer.status_code, answer.headers["x-tollgate-model"]) == (200, "gpt-4o"), f"call {count} at ${spent / 1e9}"
        spent += DEAR_NANOS
    assert spent == 8_200_000
    eventually(lambda: coast.gateway.spent_nanos(key_value("switch")), lambda nanos: nanos == spent)
    answer = eventually(lambda: coast.call("switch", "gpt-4o"), lambda one: one.headers["x-tollgate-model"] == "gpt-4o-mini", 3)
    assert '"model":"gpt-4o-mini"' in coast.east.last(1)[0]["body_text"].replace(" ", "")
    assert coast.east.last(1)[0]["body_text"] == answer.request.content.decode().replace('"gpt-4o"', '"gpt-4o-mini"')


def test_no_overshoot_of_a_crowd_across_the_switch(coast: Coast) -> None:
    """100 at once: $0.002 at one provider, $0.004 in all. Everything that was billed fits, to the last nano-dollar."""

    async def crowd() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=100)
        headers = {"x-bf-vk": key_value("crowd")} | BIG_HEADERS
        async with httpx.AsyncClient(
            base_url=coast.gateway.url, trust_env=False, timeout=60, limits=limits, headers=headers
        ) as client:
            return await asyncio.gather(*(client.post("/v1/chat/completions", json=chat(limit=400)) for _ in range(100)))

    answers = asyncio.run(crowd())
    statuses = Counter(answer.status_code for answer in answers)
    east, west = coast.east.bill(), coast.west.bill()
    assert set(statuses) <= {200, 402, 429} and statuses[200] == east["calls"] + west["calls"]
    assert east["cost_nanos"] <= 2_000_000 and east["cost_nanos"] + west["cost_nanos"] <= 4_000_000
    assert west["calls"] > 0 and east["calls"] > 0 and statuses[402] > 0
    assert east["cost_nanos"] + west["cost_nanos"] > 3_000_000, "what is left is used"
    billed = east["cost_nanos"] + west["cost_nanos"]
    eventually(lambda: coast.gateway.spent_nanos(key_value("crowd")), lambda nanos: nanos == billed)
    told = [answer.json() for answer in answers if answer.status_code == 402]
    assert all({cap["name"] for cap in body["exceeded"]} >= {"all"} for body in told)
