"""Crowds of calls over two workers against limits that fit a part of them: the provider's own count against the limit."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import Config, budget, config_for, virtual_key
from tests.support.figures import figures
from tests.support.postgres import Databases
from tests.support.process_list import workers
from tests.support.quick import Gateway, PretendProcess
from tests.support.traffic import Answer, Ask, Broken, Wire, one
from tests.support.waiting import eventually

REQUESTS, REQUEST_CALLS = 50, 200
PARALLEL, STREAMS = 5, 60
TOKENS, TOKEN_CALLS, CALL_TOKENS = 2_000, 120, 50
SHORT_WAIT_SECONDS = 2.0
SCOPES = ("provider_config", "virtual_key", "team", "customer", "provider", "model")
ROOMY: Config = {
    "request_max_limit": 10_000, "request_reset_duration": "1d", "token_max_limit": 10_000_000, "token_reset_duration": "1d",
    "concurrent_max_limit": 500,
}  # fmt: skip
"""On every scope round the tight ones: it refuses nobody, and must add up in the end."""
CALL = Ask(limit=16, pretend={"input_tokens": 40, "output_tokens": 10, "first_token_ms": 30})
STREAM = Ask(limit=40, stream=True, pretend={"output_tokens": 40, "chunk_tokens": 4, "chunk_delay_ms": 25})
SLOW_STREAM = Ask(limit=400, stream=True, pretend={"output_tokens": 400, "chunk_tokens": 1, "chunk_delay_ms": 40})


def key_value(name: str) -> str:
    return f"sk-bf-{name:0<32}"


def limits() -> dict[str, Config]:
    """The tight limit of each key."""
    requests: Config = {"request_max_limit": REQUESTS, "request_reset_duration": "1h"}
    return {
        "fifty": requests,
        "five": {"concurrent_max_limit": PARALLEL},
        "tokens": {"token_max_limit": TOKENS, "token_reset_duration": "1h"},
        "tokens-in-turn": {"token_max_limit": 5 * CALL_TOKENS + 10, "token_reset_duration": "1h"},
        "short": {"request_max_limit": 10, "request_reset_duration": "2s"},
        "fifty-on-nodes": requests,
        "five-on-nodes": {"concurrent_max_limit": PARALLEL},
        "one": {"concurrent_max_limit": 1, "request_max_limit": 1_000, "request_reset_duration": "1d"},
    }


def document(provider_url: str, stores: Config) -> Config:
    """Keys with tight limits; those of `fifty` have roomy ones above, below and beside them."""
    keys = []
    for name, limit in limits().items():
        config: Config = {"provider": "openai", "id": f"config-of-{name}"}
        fields: Config = {"rate_limit": limit}
        if name == "fifty":
            config["rate_limit"] = ROOMY
            fields["team_id"] = "team"
        if name == "one":
            fields["budgets"] = [budget(1)]
        keys.append(virtual_key(name, value=key_value(name), provider_configs=[config], **fields))
    governance = {
        "customers": [{"id": "customer", "name": "customer", "rate_limit": ROOMY}],
        "teams": [{"id": "team", "name": "team", "customer_id": "customer", "rate_limit": ROOMY}],
        "providers": [{"name": "openai", "rate_limit": ROOMY}],
        "model_configs": [{"id": "model", "model_name": "gpt-4o-mini", "rate_limit": ROOMY}],
    }
    return config_for(provider_url, virtual_keys=keys, governance=governance) | stores


@dataclass
class Timed:
    """An answer, and how long its client waited for the whole of it."""

    answer: Answer
    seconds: float


class World:
    """Two workers on one store, and the provider that counts for itself."""

    def __init__(self, provider: PretendProcess, gateway: Gateway, config: Config) -> None:
        self.provider = provider
        self.gateway = gateway
        self.config = config

    def crowd(self, asks: list[Ask], *others: Gateway) -> list[Timed]:
        """All at once, each on a connection of its own, by turns to this gateway and to `others`."""
        nodes = [self.gateway, *others]

        async def timed(wire: Wire, ask: Ask) -> Timed:
            started = time.monotonic()
            answer = await wire.answer(ask)
            return Timed(answer, time.monotonic() - started)

        async def everybody() -> list[Timed]:
            wires = [Wire(nodes[number % len(nodes)].url) for number in range(len(asks))]
            try:
                for some in range(0, len(wires), 50):
                    await asyncio.gather(*(wire.open() for wire in wires[some : some + 50]))
                return list(await asyncio.gather(*(timed(wire, ask) for wire, ask in zip(wires, asks, strict=True))))
            finally:
                for wire in wires:
                    wire.leave()

        self.provider.reset()
        return asyncio.run(everybody())

    def one(self, ask: Ask) -> Answer:
        return asyncio.run(one(self.gateway.url, ask))

    def settled_bill(self) -> dict[str, Any]:
        return eventually(self.provider.bill, lambda bill: bill["in_flight"] == 0)

    def limits(self) -> dict[str, dict[str, Any]]:
        """What the management API shows of every owner's limits, by scope; of keys, by `virtual_key NAME`."""
        with self.gateway.console() as console:
            rows = console.get("/api/governance/rate-limits").raise_for_status().json()["rate_limits"]
        return {f"{row['scope']} {row['scope_name']}" if row["scope"] == "virtual_key" else row["scope"]: row for row in rows}

    def key_limit(self, name: str) -> dict[str, Any]:
        return dict(self.gateway.quota(key_value(name))["rate_limit"])


def no_stores(request: pytest.FixtureRequest) -> Config:
    return {}


def postgres_stores(request: pytest.FixtureRequest) -> Config:
    databases = Databases(request.getfixturevalue("postgres_dsn"))
    request.addfinalizer(databases.drop)
    address = databases.fresh()
    return {"config_store": {"enabled": True, "type": "postgres", "config": databases.settings(address)}}


STORES: dict[str, Callable[[pytest.FixtureRequest], Config]] = {"sqlite": no_stores, "postgres": postgres_stores}


@pytest.fixture(scope="module", params=list(STORES))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    stores = STORES[request.param](request)
    folder: Path = tmp_path_factory.mktemp(f"races-{request.param}")
    with PretendProcess(keep=2_000) as provider:
        config = document(provider.url, stores)
        with Gateway(folder, config, arguments=("--workers", "2")) as gateway:
            yield World(provider, gateway, config)
            assert "Traceback" not in gateway.log()


def under(name: str, ask: Ask, count: int) -> list[Ask]:
    return [replace(ask, key=key_value(name)) for _ in range(count)]


def good_and_refused(answers: list[Timed], kind: str) -> tuple[list[Timed], list[Timed]]:
    """Those that were served and those that were refused; asserts that there is nothing else, and how refusals look."""
    good = [timed for timed in answers if timed.answer.status == 200]
    refused = [timed for timed in answers if timed.answer.status != 200]
    assert all(timed.answer.whole for timed in answers)
    assert {timed.answer.refusal for timed in refused} <= {f"429 {kind}"}
    for timed in refused:
        headers = timed.answer.headers
        assert ("retry-after" in headers) is (headers.get("x-should-retry") != "false")
    return good, refused


# ---- requests


def test_exactly_fifty_of_two_hundred_reach_the_provider(world: World) -> None:
    before = world.limits()
    good, refused = good_and_refused(world.crowd(under("fifty", CALL, REQUEST_CALLS)), "request_limited")
    bill = world.settled_bill()
    figures(
        "fifty", good=len(good), refused=len(refused), requests=bill["requests"], slowest=max(t.seconds for t in good + refused)
    )
    assert (len(good), len(refused), bill["requests"], bill["calls"]) == (REQUESTS, REQUEST_CALLS - REQUESTS, REQUESTS, REQUESTS)
    for timed in refused:
        cap = timed.answer.json["budget"]
        assert (cap["unit"], cap["max_limit"], cap["needed"], cap["remaining"]) == ("requests", REQUESTS, 1, 0)
        assert cap["current_usage"] + cap["held"] == REQUESTS
        assert timed.seconds < SHORT_WAIT_SECONDS + 2
    adds_up(world, before, bill)


def adds_up(world: World, before: dict[str, dict[str, Any]], bill: dict[str, Any]) -> None:
    """Every scope has counted the same calls, each once, and their tokens as the provider reported them."""
    tokens = sum(line["usage"]["input_tokens"] + line["usage"]["output_tokens"] for line in bill["lines"])
    shown = eventually(world.limits, lambda rows: all(rows[scope]["token_held"] == 0 for scope in SCOPES if scope in rows))
    for scope in (scope for scope in SCOPES if scope != "virtual_key"):
        row, old = shown[scope], before[scope]
        assert row["request_current_usage"] - old["request_current_usage"] == bill["calls"], scope
        assert row["token_current_usage"] - old["token_current_usage"] == tokens, scope
        assert (row["request_held"], row["concurrent_current"]) == (0, 0), scope
    assert shown["virtual_key fifty"]["request_current_usage"] == bill["calls"]


def test_requests_flow_again_in_every_window(world: World) -> None:
    """Ten in two seconds, asked for by eight clients that never stop: no window has more, and none after the first has none."""
    end = time.monotonic() + 5

    async def client() -> list[Answer]:
        answers = []
        async with Wire(world.gateway.url) as wire:
            while time.monotonic() < end:
                answers.append(await wire.answer(replace(CALL, key=key_value("short"))))
                if answers[-1].status == 429:
                    # As a client would, but looking in between too: nothing may be granted early.
                    await asyncio.sleep(0.1)
        return answers

    async def clients() -> list[list[Answer]]:
        return await asyncio.gather(*(client() for _ in range(8)))

    world.provider.reset()
    answers = [answer for some in asyncio.run(clients()) for answer in some]
    bill = world.settled_bill()
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.refusal for answer in refused} == {"429 request_limited"}
    assert all(answer.headers["retry-after"] in ("1", "2") for answer in refused)
    windows = Counter(window_of(answer) for answer in refused)
    good = len(answers) - len(refused)
    figures("short", good=good, refused=len(refused), windows=len(windows))
    assert bill["calls"] == good
    assert 10 * (len(windows) - 1) <= good <= 10 * (len(windows) + 1)
    assert len(windows) >= 2


def window_of(refused: Answer) -> str:
    return str(refused.json["budget"]["last_reset"])


# ---- parallel calls


def test_never_more_than_five_at_once_and_nobody_starves(world: World) -> None:
    """Who waits two seconds in vain is told to come back in one, does, and is served before long."""
    waiting = under("five", STREAM, STREAMS)
    rounds, refused_in_all = 0, 0
    peak = 0
    while waiting:
        rounds += 1
        answers = world.crowd(waiting)
        good, refused = good_and_refused(answers, "concurrency_limited")
        bill = world.settled_bill()
        peak = max(peak, bill["peak_in_flight"])
        assert bill["calls"] == len(good)
        assert len(good) >= min(PARALLEL, len(waiting))
        for timed in refused:
            assert timed.answer.headers["retry-after"] == "1"
            assert SHORT_WAIT_SECONDS - 0.2 < timed.seconds < SHORT_WAIT_SECONDS + 2
            cap = timed.answer.json["budget"]
            assert (cap["unit"], cap["max_limit"], cap["held"], cap["resets_at"]) == ("concurrent", PARALLEL, PARALLEL, None)
        refused_in_all += len(refused)
        waiting = under("five", STREAM, len(refused))
        assert rounds < 6
        if refused:
            time.sleep(1)
    figures("five", rounds=rounds, refused=refused_in_all, peak=peak)
    assert peak == PARALLEL
    assert eventually(lambda: world.key_limit("five")["concurrent_current"], lambda held: held == 0) == 0


# ---- several nodes


def test_two_nodes_with_two_workers_each(world: World, tmp_path: Path) -> None:
    """On one PostgreSQL the limits are those of all nodes together."""
    if "config_store" not in world.config:
        pytest.skip("nodes share a PostgreSQL")
    with Gateway(tmp_path, world.config, arguments=("--workers", "2")) as second:
        good, refused = good_and_refused(world.crowd(under("fifty-on-nodes", CALL, REQUEST_CALLS), second), "request_limited")
        bill = world.settled_bill()
        assert (len(good), len(refused), bill["requests"]) == (REQUESTS, REQUEST_CALLS - REQUESTS, REQUESTS)
        asks = under("five-on-nodes", STREAM, STREAMS // 2)
        streamed, turned_away = good_and_refused(world.crowd(asks, second), "concurrency_limited")
        bill = world.settled_bill()
        figures("nodes", streamed=len(streamed), refused=len(turned_away), peak=bill["peak_in_flight"])
        assert (bill["peak_in_flight"], bill["calls"]) == (PARALLEL, len(streamed))
        assert len(streamed) > 2 * PARALLEL
        assert second.terminate() == 0


# ---- tokens


def test_a_token_limit_refuses_only_when_the_next_call_does_not_fit(world: World) -> None:
    """One after the other: each refusal comes only once what was used leaves less than the call is likely to need."""
    used = 0
    ask = replace(CALL, key=key_value("tokens-in-turn"))
    for _ in range(5):
        assert world.one(ask).status == 200
        used += CALL_TOKENS
        assert eventually(lambda: world.key_limit("tokens-in-turn")["token_current_usage"], lambda seen: seen > 0) <= used
    answer = world.one(ask)
    cap = answer.json["budget"]
    assert (answer.refusal, cap["current_usage"], cap["held"]) == ("429 token_limited", 5 * CALL_TOKENS, 0)
    # A worker that has seen no call of this model yet thinks of a few tokens more.
    assert cap["remaining"] == 10 < cap["needed"] <= CALL_TOKENS * 11 // 10


def test_a_crowd_under_a_token_limit(world: World) -> None:
    """Holds are estimates, so the real sum may pass the limit by as much as they were too low; what was used is what was billed."""
    good, refused = good_and_refused(world.crowd(under("tokens", CALL, TOKEN_CALLS)), "token_limited")
    bill = world.settled_bill()
    shown = eventually(lambda: world.key_limit("tokens"), lambda row: row["token_held"] == 0)
    figures("tokens", good=len(good), refused=len(refused), used=shown["token_current_usage"])
    assert bill["calls"] == len(good)
    assert shown["token_current_usage"] == len(good) * CALL_TOKENS
    assert refused
    for timed in refused:
        cap = timed.answer.json["budget"]
        assert cap["current_usage"] + cap["held"] + cap["needed"] > TOKENS
    assert TOKENS - 2 * CALL_TOKENS < shown["token_current_usage"] < TOKENS * 3 // 2


# ---- a place is given back, however a call ends


def leave_in_the_middle(world: World) -> None:
    async def act() -> None:
        async with Wire(world.gateway.url) as wire:
            await wire.send(replace(SLOW_STREAM, key=key_value("one")))
            await wire.head()
            await wire.piece()
            wire.leave(reset=True)

    asyncio.run(act())


def leave_before_the_answer(world: World) -> None:
    async def act() -> None:
        async with Wire(world.gateway.url) as wire:
            await wire.send(Ask(limit=16, key=key_value("one"), pretend={"first_token_ms": 20_000}))
            await asyncio.to_thread(eventually, world.provider.bill, lambda bill: bill["in_flight"] == 1)
            wire.leave()

    asyncio.run(act())


def cut_by_the_provider(world: World) -> None:
    answer = world.one(replace(SLOW_STREAM, key=key_value("one"), pretend={"output_tokens": 40, "cut": "mid-stream"}))
    assert answer.status == 200


def cut_by_the_gateway(world: World) -> None:
    """The provider ignores the output limit and goes on past what was held."""
    ignoring = {"output_tokens": 3_000, "chunk_tokens": 100, "ignore_limit": 1, "chunk_delay_ms": 2}
    answer = world.one(Ask(limit=20, stream=True, key=key_value("one"), pretend=ignoring))
    assert b"budget_exceeded" in answer.body


def an_error_of_the_provider(world: World) -> None:
    assert world.one(Ask(limit=20, key=key_value("one"), pretend={"status": 503})).status == 503


@pytest.mark.parametrize(
    "end",
    [leave_in_the_middle, leave_before_the_answer, cut_by_the_provider, cut_by_the_gateway, an_error_of_the_provider],
    ids=lambda end: end.__name__,
)
def test_a_place_comes_back(world: World, end: Callable[[World], None]) -> None:
    """One call at a time: the next one is served at once, and each of the two counts as a request."""
    world.provider.reset()
    before = world.key_limit("one")["request_current_usage"]
    end(world)
    started = time.monotonic()
    answer = world.one(replace(CALL, key=key_value("one")))
    assert (answer.status, time.monotonic() - started < SHORT_WAIT_SECONDS) == (200, True), answer.body
    shown = eventually(lambda: world.key_limit("one"), lambda row: row["concurrent_current"] == 0 and row["request_held"] == 0)
    assert shown["request_current_usage"] - before == 2


def test_a_place_comes_back_when_its_worker_is_killed(world: World) -> None:
    """The call that was open counts as sent, its place is free again, and the other worker has gone on all the time."""
    if "config_store" in world.config:
        pytest.skip("on PostgreSQL a process is given up after 15 seconds of silence; the crash suite waits for that")
    world.provider.reset()
    before = world.key_limit("one")["request_current_usage"]

    async def act() -> None:
        async with Wire(world.gateway.url) as wire:
            await wire.send(replace(SLOW_STREAM, key=key_value("one")))
            await wire.head()
            for process in await asyncio.to_thread(workers, world.gateway.pid):
                os.kill(process, signal.SIGKILL)
                try:
                    for _ in range(25):  # a second's worth: it was the other one
                        await wire.piece()
                except Broken:
                    return

    asyncio.run(act())

    def served() -> int:
        try:
            return world.one(replace(CALL, key=key_value("one"))).status
        except (OSError, Broken):
            return 0  # nobody listens for the moment when both were killed

    assert eventually(served, lambda status: status == 200, 30) == 200
    shown = eventually(lambda: world.key_limit("one"), lambda row: row["concurrent_current"] == 0 and row["request_held"] == 0)
    assert shown["request_current_usage"] - before == 2
