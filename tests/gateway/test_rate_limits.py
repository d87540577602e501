"""Limits in tokens, requests and parallel calls on every scope of a running gateway: that they bind, and what callers are told."""

import importlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import ANTHROPIC, CHAT, GEMINI, RESPONSES, SHAPES, Shape
from tests.support.quick import Gateway, PretendProcess
from tests.support.refusals import check_budget, check_refusal
from tests.support.sdk_calls import Call, Outcome, run
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

SCOPES = ("provider_config", "virtual_key_model", "virtual_key", "team", "customer", "provider", "model")
UNITS = ("tokens", "requests", "concurrent")
CALL_TOKENS = 50
"""The pretend provider reports 40 in and 10 out for each call here; the gateway's own estimate of them is between 34 and 50."""
LIMITS: dict[str, Config] = {
    "tokens": {"token_max_limit": 2 * CALL_TOKENS + 20, "token_reset_duration": "1d"},
    "requests": {"request_max_limit": 2, "request_reset_duration": "1d"},
    "concurrent": {"concurrent_max_limit": 1},
}
TYPES = {"tokens": "token_limited", "requests": "request_limited", "concurrent": "concurrency_limited"}
MODELS = {"tokens": "gpt-4o", "requests": "gpt-5-mini", "concurrent": "nobody-knows-its-price"}
"""A model of its own for each deployment-wide limit on a model."""
TINY = "0.000000001"
SLOW_MS = 450


@dataclass(frozen=True)
class Case:
    """One limit of one unit on one scope, and a key that is bound by it and by nothing else."""

    scope: str
    unit: str
    way: str
    """`file`: the limit stands in config.json. `api`: it was set over the management API."""

    @property
    def name(self) -> str:
        return f"{self.way}-{self.scope.replace('_', '-')}-{self.unit}"

    @property
    def key(self) -> str:
        return f"sk-bf-{self.name:x<40}"

    @property
    def provider(self) -> str:
        return self.name if self.scope == "provider" else "openai"

    @property
    def model(self) -> str:
        if self.scope != "model":
            return "gpt-4o-mini"
        return MODELS[self.unit] if self.way == "file" else f"{MODELS[self.unit]}-2"

    @property
    def model_config(self) -> Config:
        """Whom a limit on a model binds."""
        inside = {"scope": "virtual_key", "scope_id": self.name} if self.scope == "virtual_key_model" else {}
        return {"id": self.name, "model_name": self.model, **inside, **limits_in_file(self)}


CASES = [Case(scope, unit, way) for way in ("file", "api") for scope in SCOPES for unit in UNITS]


def limits_in_file(case: Case) -> Config:
    return {"rate_limit": LIMITS[case.unit]} if case.way == "file" else {}


def key_of(case: Case) -> Config:
    """The key of a case; teams belong to a customer, whose limit binds two steps up."""
    limits = limits_in_file(case)
    config: Config = {"id": f"{case.name}-config", "provider": case.provider}
    fields: Config = {}
    if case.scope == "provider_config":
        config |= limits | {"id": case.name}
    elif case.scope == "virtual_key":
        fields |= limits
    elif case.scope in ("team", "customer"):
        fields["team_id"] = f"team-of-{case.name}" if case.scope == "customer" else case.name
    return virtual_key(case.name, value=case.key, provider_configs=[config], **fields) | {"id": case.name}


def governance() -> Config:
    teams = [{"id": case.name, "name": case.name, **limits_in_file(case)} for case in CASES if case.scope == "team"]
    customers = []
    for case in CASES:
        if case.scope == "customer":
            customers.append({"id": case.name, "name": case.name, **limits_in_file(case)})
            teams.append({"id": f"team-of-{case.name}", "name": f"team-of-{case.name}", "customer_id": case.name})
    teams.append({"id": "poor", "name": "poor", "budgets": [budget(TINY, name="poor-budget", reset="1d")]})
    return {
        "teams": teams,
        "customers": customers,
        "providers": [{"name": case.name, **limits_in_file(case)} for case in CASES if case.scope == "provider"],
        "model_configs": [case.model_config for case in CASES if case.scope in ("virtual_key_model", "model")],
    }


SPECIAL_NAMES = (
    "no-tokens", "no-requests", "no-parallel", "nothing", "later", "both-soon", "limit-then-budget", "budget-then-limit",
    "same-window", "wide-money", "narrow-money", "sdk-later", "sdk-one", "dead", "free", "observe", "short",
    "sdk-soon-openai-sync", "sdk-soon-openai-async-stream", "sdk-soon-anthropic-sync", "sdk-soon-anthropic-async-stream",
)  # fmt: skip
SPECIAL = {name: f"sk-bf-{name:y<40}" for name in SPECIAL_NAMES}


def special_keys() -> list[Config]:
    def key(name: str, **fields: Any) -> Config:
        return virtual_key(name, value=SPECIAL[name], **fields)

    def requests(limit: int, window: str, **more: Any) -> Config:
        return {"rate_limit": {"request_max_limit": limit, "request_reset_duration": window, **more}}

    none_each = [{"provider": name, "budgets": [budget(TINY, name="at-one", reset="1d")]} for name in ("openai", "anthropic")]
    return [
        virtual_key(budgets=[budget(5)]),
        key("no-tokens", rate_limit={"token_max_limit": 0, "token_reset_duration": "1m"}),
        key("no-requests", **requests(0, "1m")),
        key("no-parallel", rate_limit={"concurrent_max_limit": 0}),
        key("nothing", **requests(0, "1m", token_max_limit=0, token_reset_duration="30s")),
        key("later", **requests(0, "2h")),
        key("both-soon", **requests(0, "1m", token_max_limit=0, token_reset_duration="1d")),
        key("limit-then-budget", budgets=[budget(TINY, name="day", reset="1d")], **requests(0, "1h")),
        key("budget-then-limit", budgets=[budget(TINY, name="hour", reset="1h")], **requests(0, "1d")),
        key("same-window", budgets=[budget(TINY, name="hour", reset="1h")], **requests(0, "1h")),
        key("wide-money", team_id="poor", **requests(0, "1m")),
        key("narrow-money", provider_configs=none_each, **requests(0, "1m")),
        *(key(name, **requests(1, "2s")) for name in SPECIAL_NAMES if name.startswith("sdk-soon")),
        key("sdk-later", **requests(0, "1d")),
        key("sdk-one", rate_limit={"concurrent_max_limit": 1}),
        key("dead", provider_configs=[{"provider": "dead"}], **requests(5, "1d", concurrent_max_limit=1)),
        key("free", provider_configs=[{"provider": "openai"}],
            **requests(3, "1d", token_max_limit=1000, token_reset_duration="1d")),
        key("observe", rate_limit={"request_max_limit": 0, "request_reset_duration": "1d", "concurrent_max_limit": 0,
                                   "enforcement": "observe"}),
        key("short", **requests(2, "2s")),
    ]  # fmt: skip


@dataclass
class World:
    gateway: Gateway
    provider: PretendProcess

    def post(self, key: str, shape: Shape = CHAT, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """A call with one of the special keys."""
        return self.send(SPECIAL[key], shape.target, shape.body(**fields), headers)

    def send(self, key: str, target: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        told = {"x-bf-vk": key, "x-pretend-input-tokens": "40", "x-pretend-output-tokens": "10", **(headers or {})}
        with Wire.to("127.0.0.1", self.gateway.port) as wire:
            return wire.ask(post_json(target, body, told))

    def ask(self, case: Case, headers: dict[str, str] | None = None) -> Answer:
        target = f"/{case.provider}/v1/chat/completions"
        return self.send(case.key, target, CHAT.body(model=case.model), headers)

    def in_flight(self, key: str, **fields: Any) -> threading.Thread:
        """A slow call on a thread, which the provider has seen."""
        headers = {"x-pretend-first-token-ms": str(SLOW_MS)}
        before = self.provider.bill()["in_flight"]
        target, body = fields.pop("target", CHAT.target), CHAT.body(**fields)
        thread = threading.Thread(target=lambda: self.send(key, target, body, headers), daemon=True)
        thread.start()
        eventually(lambda: self.provider.bill()["in_flight"], lambda count: count > before)
        return thread

    def limit_of(self, scope: str, scope_id: str) -> dict[str, Any]:
        """What the management API shows of an owner's limits."""
        with self.gateway.console() as console:
            found = console.get("/api/governance/rate-limits").raise_for_status().json()["rate_limits"]
        (row,) = [row for row in found if (row["scope"], row["scope_id"]) == (scope, scope_id)]
        return dict(row)

    def refusals(self, key: str) -> int:
        """Refusals of one of the special keys in logs.db."""
        return sum(
            row["count"] for row in self.gateway.log_rows() if row["virtual_key_id"] == f"id-of-{key}" and row["refusal_type"]
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    for package in ("anthropic", "openai"):
        importlib.import_module(package)  # takes seconds, which no test here has to spare
    with PretendProcess() as provider:
        own = {
            case.name: {
                "keys": [{"name": case.name, "value": "sk-provider-of-its-own"}],
                "custom_provider_config": {"base_provider_type": "openai"},
                "network_config": {"base_url": f"{provider.url}/v1"},
            }
            for case in CASES
            if case.scope == "provider"
        }
        keys = [*special_keys(), *(key_of(case) for case in CASES)]
        # No waiting in line: what is full says so at once, and every test here is quick.
        config = config_for(provider.url, virtual_keys=keys, governance=governance(), gateway={"hold_wait_seconds": 0})
        config["providers"] |= own
        config["providers"]["dead"] = {
            "keys": [{"name": "dead", "value": "sk-provider-dead"}],
            "custom_provider_config": {"base_provider_type": "openai"},
            "network_config": {"base_url": "http://127.0.0.1:9/v1"},
        }
        with Gateway(tmp_path_factory.mktemp("limits"), config) as gateway:
            set_by_api(gateway)
            yield World(gateway, provider)
            assert "Traceback" not in gateway.log()


def set_by_api(gateway: Gateway) -> None:
    with gateway.console() as console:
        for case in CASES:
            if case.way == "api":
                body = {"scope": case.scope, "scope_id": case.name, **LIMITS[case.unit]}
                console.put("/api/governance/rate-limits", json=body).raise_for_status()


# ---- every scope, every unit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_limit_binds_on_its_scope(world: World, case: Case) -> None:
    """Two calls fit, the third does not; where calls at a time are limited, one fits and then, when it is over, another."""
    if case.unit == "concurrent":
        thread = world.in_flight(case.key, target=f"/{case.provider}/v1/chat/completions", model=case.model)
        assert world.limit_of(case.scope, case.name)["concurrent_current"] == 1
    else:
        assert [world.ask(case).status for _ in range(2)] == [200, 200]
    answer = world.ask(case)
    body = check_refusal(answer, 429, TYPES[case.unit], transient=case.unit == "concurrent")
    cap = check_budget(body, scope=case.scope, scope_id=case.name, unit=case.unit)
    if case.unit == "concurrent":
        assert (cap["max_limit"], cap["held"], cap["current_usage"], cap["remaining"], cap["needed"]) == (1, 1, 0, 0, 1)
        assert (cap["reset_duration"], cap["resets_at"], cap["last_reset"]) == (None, None, None)
        assert answer.headers["retry-after"] == "1"
        thread.join(20)
        eventually(lambda: world.ask(case).status, lambda status: status == 200)
        assert world.limit_of(case.scope, case.name)["concurrent_max_limit"] == 1
        return
    used = 2 * CALL_TOKENS if case.unit == "tokens" else 2
    assert (cap["current_usage"], cap["held"], cap["max_limit"]) == (used, 0, list(LIMITS[case.unit].values())[0])
    assert cap["needed"] > cap["remaining"] == cap["max_limit"] - used
    prefix = case.unit.removesuffix("s")
    shown = world.limit_of(case.scope, case.name)
    assert (shown[f"{prefix}_current_usage"], shown[f"{prefix}_held"], shown[f"{prefix}_reset_duration"]) == (used, 0, "1d")
    assert (shown[f"{prefix}_last_reset"], shown[f"{prefix}_resets_at"]) == (cap["last_reset"], cap["resets_at"])
    if case.scope in ("virtual_key", "virtual_key_model", "provider_config"):
        quota = world.gateway.quota(case.key)
        inside = {"virtual_key": [quota], "virtual_key_model": quota["model_configs"], "provider_config": quota["provider_configs"]}
        mine = inside[case.scope][0]
        assert mine["rate_limit"][f"{prefix}_current_usage"] == used


@pytest.mark.parametrize("unit", UNITS)
def test_a_run_has_limits_of_its_own(world: World, unit: str) -> None:
    with world.gateway.console() as console:
        wanted = {"virtual_key": "workshop-vk-1", "rate_limit": LIMITS[unit]}
        run_made = console.post("/api/governance/runs", json=wanted).raise_for_status().json()["run"]
        if unit == "concurrent":
            thread = world.in_flight(run_made["value"])
        else:
            assert [world.send(run_made["value"], CHAT.target, CHAT.body()).status for _ in range(2)] == [200, 200]
        answer = world.send(run_made["value"], CHAT.target, CHAT.body())
        body = check_refusal(answer, 429, TYPES[unit], transient=unit == "concurrent")
        check_budget(body, scope="run", scope_id=run_made["id"], scope_name="workshop-vk-1", unit=unit)
        if unit == "concurrent":
            thread.join(20)
        shown = console.get(f"/api/governance/runs/{run_made['id']}").json()["run"]["rate_limit"]
        assert {name: shown[name] for name in LIMITS[unit]} == LIMITS[unit]
        assert world.send(VIRTUAL_KEY, CHAT.target, CHAT.body()).status == 200, "the key itself has no such limit"


def test_a_limit_binds_nobody_else(world: World) -> None:
    """A key that none of these limits touches goes on, on the provider and the models of the others."""
    for model in ("gpt-4o-mini", "gpt-4.1-mini"):
        assert world.send(VIRTUAL_KEY, CHAT.target, CHAT.body(model=model)).status == 200


# ---- what is counted


def test_what_was_never_sent_is_not_counted(world: World) -> None:
    """Nobody listens at this provider's address: the request is given back, and so is the place among parallel calls."""
    for _ in range(3):
        answer = world.send(SPECIAL["dead"], "/dead/v1/chat/completions", CHAT.body())
        assert (answer.status, answer.json()["type"]) == (502, "upstream_unreachable")
    shown = eventually(lambda: world.limit_of("virtual_key", "id-of-dead"), lambda row: row["concurrent_current"] == 0)
    assert (shown["request_current_usage"], shown["request_held"]) == (0, 0)


def test_models_without_a_price_count_all_the_same(world: World) -> None:
    """An unpriced model, twice, and an answer that is an error: three requests, and the tokens of the two answers."""
    for status in (200, 200, 500):
        told = {"x-pretend-status": str(status)}
        assert world.post("free", model="nobody-knows-this-1", headers=told).status == status
    body = check_refusal(world.post("free", model="nobody-knows-this-1"), 429, "request_limited")
    check_budget(body, unit="requests", current_usage=3, held=0, remaining=0, needed=1)
    shown = eventually(lambda: world.limit_of("virtual_key", "id-of-free"), lambda row: row["token_held"] == 0)
    assert (shown["token_current_usage"], shown["request_current_usage"]) == (2 * CALL_TOKENS, 3)


def test_observed_limits_refuse_nobody(world: World) -> None:
    assert [world.post("observe").status for _ in range(3)] == [200] * 3
    assert eventually(lambda: world.limit_of("virtual_key", "id-of-observe")["request_current_usage"], lambda used: used == 3)


def test_free_paths_are_not_counted(world: World) -> None:
    with world.gateway.client(SPECIAL["no-requests"]) as client:
        assert client.get("/openai/v1/models").status_code == 200


# ---- what callers are told


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize(
    ("key", "kind", "unit", "transient"),
    [
        ("no-tokens", "token_limited", "tokens", True),
        ("no-requests", "request_limited", "requests", True),
        ("nothing", "rate_limited", "tokens", True),  # the shorter window is named first
        ("both-soon", "rate_limited", "requests", False),  # one of them is open again only tomorrow
        ("later", "request_limited", "requests", False),
        ("no-parallel", "concurrency_limited", "concurrent", False),
    ],
)
def test_each_refusal_in_each_dialect(world: World, shape: Shape, key: str, kind: str, unit: str, transient: bool) -> None:
    before = world.provider.bill()["requests"]
    answer = world.post(key, shape, stream=shape is not GEMINI)
    body = check_refusal(answer, 429, kind, shape.dialect, transient=transient)
    cap = check_budget(body, scope="virtual_key", scope_id=f"id-of-{key}", scope_name=key, unit=unit, max_limit=0)
    assert world.provider.bill()["requests"] == before
    if transient:
        ends = max(datetime.fromisoformat(row["resets_at"]).timestamp() for row in body["exceeded"])
        assert 0 < ends - time.time() <= int(answer.headers["retry-after"]) <= 60
        assert int(answer.headers["retry-after"]) - (ends - time.time()) < 2, "rounded up to whole seconds, no more"
    if shape is GEMINI:
        kinds = [detail["@type"].rpartition(".")[2] for detail in body["error"]["details"]]
        assert kinds == (["ErrorInfo", "RetryInfo"] if transient else ["ErrorInfo"])
        if transient:
            assert body["error"]["details"][1]["retryDelay"] == answer.headers["retry-after"] + "s"
    if unit == "requests":
        assert f"has 0 of 0 requests left; it resets at {cap['resets_at']}" in body["message"]


@pytest.mark.parametrize(
    ("key", "status", "kind", "units"),
    [
        ("limit-then-budget", 429, "request_limited", ["requests", "usd"]),  # one scope: the shorter window first
        ("budget-then-limit", 402, "budget_exceeded", ["usd", "requests"]),
        ("same-window", 429, "request_limited", ["requests", "usd"]),  # equal windows: the limit that counts
        ("wide-money", 429, "request_limited", ["requests", "usd"]),  # the key's limit is narrower than the team's budget
        ("narrow-money", 402, "budget_exceeded", ["usd", "requests"]),  # a provider config is narrower than its key
    ],
)
@pytest.mark.parametrize("shape", [CHAT, ANTHROPIC], ids=lambda shape: shape.name)
def test_money_and_limits_at_once(world: World, shape: Shape, key: str, status: int, kind: str, units: list[str]) -> None:
    """The first cap that is hit is named, all of them are listed, and it is final as soon as one of them stays shut."""
    body = check_refusal(world.post(key, shape), status, kind, shape.dialect)
    assert [row["unit"] for row in body["exceeded"]] == units


@pytest.mark.parametrize("key", ["later", "no-requests"])
def test_codex_is_told_the_date(world: World, key: str) -> None:
    told = {"originator": "codex_cli_rs"}
    answer = world.post(key, RESPONSES, told)
    assert (answer.status, "retry-after" in answer.headers) == (429, key == "no-requests")
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("usage_limit_reached", "request_limited")
    assert error["resets_at"] == int(datetime.fromisoformat(answer.json()["budget"]["resets_at"]).timestamp())
    check_refusal(world.post("no-parallel", RESPONSES, told), 429, "concurrency_limited")


# ---- what unmodified SDKs make of it

SDKS = [
    pytest.param(CHAT, Call("chat"), id="openai-sync"),
    pytest.param(CHAT, Call("responses", asynchronous=True, stream=True), id="openai-async-stream"),
    pytest.param(ANTHROPIC, Call("messages"), id="anthropic-sync"),
    pytest.param(ANTHROPIC, Call("messages", asynchronous=True, stream=True), id="anthropic-async-stream"),
]


SDK_SOON = {name: f"sdk-soon-{name}" for name in ("openai-sync", "openai-async-stream", "anthropic-sync", "anthropic-async-stream")}
"""A key for each, so that nobody counts the refusals of another."""


def sdk(world: World, key: str, call: Call, shape: Shape) -> Outcome:
    base = world.gateway.url + ("/anthropic" if shape is ANTHROPIC else "/openai/v1")
    return run(Call(call.api, call.stream, call.asynchronous, base_url=base, api_key=SPECIAL[key]))


@pytest.mark.parametrize(("shape", "call"), SDKS)
def test_sdks_wait_out_a_window_that_ends_soon(world: World, shape: Shape, call: Call, request: pytest.FixtureRequest) -> None:
    """One request in two seconds: the SDK is told how long to wait, waits, and has its answer."""
    key = SDK_SOON[request.node.callspec.id]
    left = spend_the_window(world, key, shape)
    started = time.monotonic()
    outcome = sdk(world, key, call, shape)
    assert outcome.ok, outcome.error_message
    assert left - 0.2 < time.monotonic() - started < 6
    assert eventually(lambda: world.refusals(key), lambda count: count >= 1) <= 2


def spend_the_window(world: World, key: str, shape: Shape) -> float:
    """Use the one request of a window that has about a second left or more; the seconds that are left of it then."""
    while True:
        shown = world.limit_of("virtual_key", f"id-of-{key}")
        left = datetime.fromisoformat(shown["request_resets_at"]).timestamp() - time.time()
        if left > 0.9 and shown["request_current_usage"]:
            return left
        if left <= 0.9:
            time.sleep(max(0.02, left))
        elif not shown["request_held"]:
            assert world.post(key, shape).status == 200


@pytest.mark.parametrize(("shape", "call"), SDKS)
def test_sdks_do_not_try_a_final_one_again(world: World, shape: Shape, call: Call) -> None:
    refused, started = world.refusals("sdk-later"), time.monotonic()
    outcome = sdk(world, "sdk-later", call, shape)
    assert not outcome.ok and outcome.error_status == 429
    assert f"{'anthropic' if shape is ANTHROPIC else 'openai'}.RateLimitError" in outcome.error_bases
    assert "requests left" in outcome.error_message
    assert time.monotonic() - started < 2
    assert eventually(lambda: world.refusals("sdk-later") - refused, lambda count: count >= 1) == 1


@pytest.mark.parametrize(("shape", "call"), SDKS[::2])
def test_sdks_come_back_for_a_place_among_parallel_calls(world: World, shape: Shape, call: Call) -> None:
    thread = world.in_flight(SPECIAL["sdk-one"])
    refused = world.refusals("sdk-one")
    outcome = sdk(world, "sdk-one", call, shape)
    thread.join(20)
    assert outcome.ok, outcome.error_message
    assert eventually(lambda: world.refusals("sdk-one") - refused, lambda count: count >= 1) == 1


# ---- windows and changes at run time


def test_calls_flow_again_when_the_window_has_passed(world: World) -> None:
    """Two in two seconds: after exactly the wait that the refusal names, and no sooner than the window's end."""
    good = []
    for _ in range(3):
        answer = world.post("short")
        while answer.status == 200:
            good.append(time.time())
            answer = world.post("short")
        body = check_refusal(answer, 429, "request_limited", transient=True)
        assert int(answer.headers["retry-after"]) in (1, 2)
        time.sleep(max(0.0, datetime.fromisoformat(body["budget"]["resets_at"]).timestamp() - time.time()) + 0.02)
    assert world.post("short").status == 200
    lattice = datetime.fromisoformat(body["budget"]["last_reset"]).timestamp()
    windows = [int((moment - lattice) // 2) for moment in good]
    assert max(windows.count(window) for window in windows) <= 2


def test_limits_change_at_run_time_and_keep_what_was_used(world: World) -> None:
    made = virtual_key("changing", value=f"sk-bf-{'changing':z<40}", rate_limit=LIMITS["requests"])
    del made["value"]
    with world.gateway.console() as console:
        key = console.post("/api/governance/virtual-keys", json=made).raise_for_status().json()["virtual_key"]

        def set_limit(**fields: Any) -> httpx.Response:
            return console.put(f"/api/governance/virtual-keys/{key['id']}", json={"rate_limit": fields}).raise_for_status()

        def status() -> int:
            return world.send(key["value"], CHAT.target, CHAT.body()).status

        assert [status() for _ in range(3)] == [200, 200, 429]
        set_limit(request_max_limit=3, request_reset_duration="1d")
        assert [status() for _ in range(2)] == [200, 429], "two were used before"
        set_limit(request_max_limit=3, request_reset_duration="7d", token_max_limit=10_000, token_reset_duration="1m")
        assert status() == 429, "a longer window counts what was used since its start"
        set_limit(request_max_limit=None, token_max_limit=None)
        assert status() == 200
        assert world.gateway.quota(key["value"])["rate_limit"] is None
