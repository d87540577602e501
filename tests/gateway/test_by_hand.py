"""People's operations beside a running gateway and without one, with real processes on SQLite and on PostgreSQL."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from store.clock import iso_utc
from tests.support.config import budget, config_for, virtual_key
from tests.support.gateway import Gateway
from tests.support.postgres import Databases
from tests.support.processes import ROOT
from tests.support.provider import PretendProcess
from tests.support.waiting import eventually

PREPAID = "sk-bf-prepaid-0000000000000000000000000000"
TINY = "0.000000001"


class World:
    """A running gateway, and its command line."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def run(self, *words: str) -> tuple[int, str, str]:
        command = [sys.executable, str(ROOT / "run_gateway.py"), "--app-dir", str(self.gateway.app_dir), *words]
        done = subprocess.run(command, env=self.gateway.env(), capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def json(self, *words: str) -> Any:
        code, out, err = self.run(*words, "--json")
        assert code == 0, err
        return json.loads(out, parse_float=Decimal)

    def call(self, key: str | None = None, **pretend: object) -> httpx.Response:
        body = {"model": "gpt-4o-mini", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
        headers = {f"x-pretend-{name.replace('_', '-')}": str(value) for name, value in pretend.items()}
        with self.gateway.client(**({"key": key} if key else {})) as client:
            return client.post("/openai/v1/chat/completions", json=body, headers=headers)

    def held(self, key: str) -> Decimal:
        return Decimal(self.gateway.quota(key)["budgets"][0]["held"])

    def verified(self) -> bool:
        return bool(self.json("verify")["clean"])


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = [
        virtual_key(budgets=[budget(TINY, name="tiny", reset="1d")]),
        virtual_key("prepaid-vk", value=PREPAID, budgets=[budget(TINY, name="paid up", reset=None)]),
    ]
    with PretendProcess() as provider:
        config = config_for(provider.url, virtual_keys=keys, gateway={"hold_wait_seconds": 1})
        databases: Databases | None = None
        if request.param == "postgres":
            databases = Databases(request.getfixturevalue("postgres_dsn"))
            config["config_store"] = {"enabled": True, "type": "postgres", "config": databases.settings(databases.fresh())}
        gateway = Gateway(tmp_path_factory.mktemp(f"by-hand-{request.param}"), config)
        with gateway:
            yield World(gateway)
        if databases is not None:
            databases.drop()


def test_a_raise_lets_calls_through_and_ends_without_a_restart(world: World) -> None:
    assert world.call().status_code == 402
    raised = world.json("budgets", "raise", "tiny", "--to", "1usd", "--for", "4s", "--reason", "a demo")
    assert raised["effective_max_limit"] == 1
    eventually(lambda: world.call().status_code, lambda status: status == 200, 3)
    refused = eventually(lambda: world.call(), lambda answer: answer.status_code == 402, 15)
    told = refused.json()["budget"]
    assert (told["name"], Decimal(str(told["max_limit"]))) == ("tiny", Decimal(TINY))
    assert world.gateway.quota()["budgets"][0]["override"] is None
    assert world.run("budgets", "unraise", "tiny")[0] == 2
    assert world.verified()


def test_a_raise_until_a_time_is_taken_back(world: World) -> None:
    until = iso_utc(4_000_000_000_000)
    assert world.run("budgets", "raise", "tiny", "--by", "2usd", "--until", until)[0] == 0
    assert world.call().status_code == 200
    assert world.gateway.quota()["budgets"][0]["override"]["until"] == until
    assert world.run("budgets", "unraise", "tiny", "--reason", "enough")[0] == 0
    eventually(lambda: world.call().status_code, lambda status: status == 402, 3)


def test_a_prepaid_key_is_told_how_to_go_on_and_goes_on(world: World) -> None:
    refused = world.call(PREPAID)
    assert refused.status_code == 402
    assert "tollgate budgets topup 'paid up' AMOUNT" in refused.json()["message"]
    assert refused.json()["budget"]["resets_at"] is None
    topped = world.json("budgets", "topup", "paid up", "1usd", "--reason", "invoice 9")
    assert (topped["resets_at"], topped["max_limit"]) == (None, Decimal("1.000000001"))
    assert world.call(PREPAID).status_code == 200


def test_a_lost_call_is_confirmed_while_the_gateway_runs_and_the_rest_while_it_does_not(world: World) -> None:
    """Two calls are in flight when everything is killed; their holds are charged until a person says what they cost."""
    gateway = world.gateway
    spent = gateway.quota(PREPAID)["budgets"][0]["current_usage"]

    def hang() -> None:
        with contextlib.suppress(httpx.TransportError):
            world.call(PREPAID, hang="before-headers")

    callers = [threading.Thread(target=hang) for _ in range(2)]
    held = Decimal(0)
    for caller in callers:
        caller.start()
        before = held
        held = eventually(lambda: world.held(PREPAID), lambda now, before=before: now > before, 20)
    gateway.kill9()
    for caller in callers:
        caller.join(30)
    gateway.restart()
    lost = eventually(lambda: world.json("unconfirmed", "list"), lambda calls: len(calls) == 2, 60)
    assert all(call["virtual_key_name"] == "prepaid-vk" and call["model"] == "gpt-4o-mini" for call in lost)
    charged = sum(call["cost"] for call in lost)
    before = gateway.quota(PREPAID)["budgets"][0]["current_usage"]
    assert before == spent + charged
    made = world.json("unconfirmed", "confirm", lost[0]["call_id"], "--cost", "0", "--reason", "never billed")
    assert made["cost"] == 0
    assert gateway.quota(PREPAID)["budgets"][0]["current_usage"] == before - lost[0]["cost"]
    assert gateway.terminate() == 0
    made = world.json("unconfirmed", "confirm", lost[1]["call_id"], "--cost", "0.002usd", "--reason", "the invoice")
    assert made["cost"] == Decimal("0.002")
    assert world.json("unconfirmed", "list") == []
    budgets = {each["name"]: each for each in world.json("budgets", "list")}
    assert budgets["paid up"]["current_usage"] == spent + Decimal("0.002")
    assert world.verified()
