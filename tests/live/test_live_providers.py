"""A real gateway in front of real providers, under a cap of 1 USD. Skipped unless TOLLGATE_LIVE=1; see README.md."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.live.providers import PROVIDERS, Live, Used
from tests.support.books import posts, replayed
from tests.support.config import VIRTUAL_KEY, Config, budget, virtual_key
from tests.support.gateway import Gateway
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(os.environ.get("TOLLGATE_LIVE") != "1", reason="TOLLGATE_LIVE=1 is not set: spends real money")

CAP_USD = 1
MINUTE = 60


@dataclass(frozen=True, slots=True)
class Done:
    """The calls of one provider, and the gateway they went through."""

    live: Live
    gateway: Gateway
    used: list[Used]
    started: int
    """Unix seconds; the minute before the first call."""
    ended: int

    def rows(self) -> list[dict[str, Any]]:
        return [row for row in self.gateway.log_rows() if row["provider"] == self.live.name]


def config_of(lives: list[Live]) -> Config:
    """One key with a prepaid dollar; provider keys stay in the environment."""
    providers: Config = {}
    for live in lives:
        entry: Config = {"keys": [{"name": "live", "value": f"env.{live.key_variable}", "models": ["*"], "weight": 1.0}]}
        if url := live.setting("URL"):
            entry["network_config"] = {"base_url": url}
        providers[live.name] = entry
    configs = [{"provider": live.name} for live in lives]
    key = virtual_key("live", budgets=[budget(CAP_USD, name="one-dollar", reset=None)], provider_configs=configs)
    return {"providers": providers, "governance": {"virtual_keys": [key]}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    lives = [live for live in PROVIDERS if os.environ.get(live.key_variable)]
    if not lives:
        pytest.skip("no provider key is given: set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY")
    secrets = {live.key_variable: os.environ[live.key_variable] for live in lives}
    proxies = {name: value for name, value in os.environ.items() if name.lower() in ("https_proxy", "no_proxy")}
    with Gateway(tmp_path_factory.mktemp("live") / "app", config_of(lives), env=secrets | proxies) as running:
        yield running


@pytest.fixture(scope="module", params=PROVIDERS, ids=lambda live: live.name)
def done(request: pytest.FixtureRequest, gateway: Gateway) -> Done:
    live: Live = request.param
    if not os.environ.get(live.key_variable):
        pytest.skip(f"{live.key_variable} is not set")
    started = int(time.time()) // MINUTE * MINUTE
    # The SDKs must find the gateway without the way out that the gateway itself may need.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    used = list(live.calls(gateway.url, VIRTUAL_KEY, live.chosen_model))
    ended = (int(time.time()) // MINUTE + 1) * MINUTE
    eventually(gateway.log_rows, lambda rows: sum(row["provider"] == live.name for row in rows) >= len(used))
    return Done(live, gateway, used, started, ended)


def test_the_ledger_has_what_the_sdk_was_told(done: Done) -> None:
    posted = [post for post in posts(done.gateway.app_dir) if post.provider == done.live.name and post.kind == "post"]
    assert sorted((post.input_tokens, post.output_tokens) for post in posted) == sorted(
        (one.input, one.output) for one in done.used
    )
    assert not any(post.estimated or post.unconfirmed for post in posted)
    assert all(post.cost_nanos > 0 for post in posted)


def test_no_call_cost_more_than_was_held(done: Done) -> None:
    assert [post for post in posts(done.gateway.app_dir) if post.over_hold] == []


def test_logs_budget_and_ledger_agree_and_the_cap_holds(done: Done) -> None:
    spent = sum(post.cost_nanos for post in posts(done.gateway.app_dir))
    assert sum(row["cost_nanos"] for row in done.gateway.log_rows()) == spent
    quota = done.gateway.quota()["budgets"][0]
    assert Decimal(quota["current_usage"]) * 10**9 == spent
    assert spent <= CAP_USD * 10**9
    assert replayed(done.gateway.app_dir).clean
    assert done.rows() and {row["http_status"] for row in done.rows()} == {200}


def test_the_provider_s_own_usage_agrees(done: Done, tmp_path: Path) -> None:
    live = done.live
    admin_key = os.environ.get(live.admin_variable) if live.admin_variable else None
    if live.usage_pages is None:
        pytest.skip(f"{live.name} has no usage API that reconcile reads")
    if not admin_key:
        pytest.skip(f"{live.admin_variable} is not set")
    patience = float(os.environ.get("TOLLGATE_LIVE_WAIT_SECONDS", "900"))
    deadline = time.monotonic() + patience
    report: dict[str, Any] = {}
    while time.monotonic() < deadline:
        export = tmp_path / "usage.json"
        export.write_text(json.dumps(live.usage_pages(admin_key, done.started, done.ended)))
        code, report = _reconcile(done.gateway, export, live.name)
        if code == 0:
            break
        time.sleep(min(30.0, patience / 10))
    assert report.get("agrees"), json.dumps(report, indent=2)


def _reconcile(gateway: Gateway, export: Path, provider: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report; while nothing has arrived there is nothing to read, which is an error of its own."""
    command = gateway.command("reconcile", "--json", "--provider", provider, str(export))
    finished = subprocess.run(command, env=gateway.env(), capture_output=True, text=True, timeout=60, check=False)
    report: dict[str, Any] = json.loads(finished.stdout) if finished.stdout.strip() else {"error": finished.stderr.strip()}
    return finished.returncode, report
