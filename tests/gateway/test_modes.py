"""The operating modes as a new user tries them: an empty directory, a file that seeds it, a file that owns it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, providers_at, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.processes import ROOT
from tests.support.provider import PretendProcess
from tests.support.refusals import check_refusal
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

RULE = {"name": "cheap", "cel_expression": "false", "targets": [{"provider": "openai", "weight": 1}]}
OVERRIDE = {"name": "ours", "scope_kind": "global", "match_type": "exact", "pattern": "m", "request_types": ["chat_completion"],
            "patch": {"input_cost_per_token": 0.000001}}  # fmt: skip


def call(gateway: Gateway, key: str = VIRTUAL_KEY) -> Answer:
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(), {"x-bf-vk": key}))


def spent(gateway: Gateway, key: str = VIRTUAL_KEY) -> int:
    row = eventually(lambda: gateway.quota(key)["budgets"][0], lambda row: row["held"] == 0)
    return int(row["current_usage"] * 10**9)


def dry_run(gateway: Gateway, *words: str) -> str:
    command = [sys.executable, str(ROOT / "run_gateway.py"), "serve", "--app-dir", str(gateway.app_dir), "--dry-run", *words]
    done = subprocess.run(command, env=gateway.env(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


def test_pure_ui_everything_through_the_api(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, None) as gateway, gateway.console() as console:
        assert "first start: made the virtual key 'default'" in gateway.log()
        assert "no encryption_key is set" in gateway.log()
        body: dict[str, Any] = {"provider": "openai", **providers_at(provider.url)["openai"]}
        assert console.post("/api/providers", json=body).status_code == 200
        key = {"name": "workshop-vk-1", "provider_configs": [{"provider": "openai"}], "budgets": [budget("0.0003")]}
        made = console.post("/api/governance/virtual-keys", json=key).json()["virtual_key"]
        statuses: list[int] = []
        while 402 not in statuses and len(statuses) < 40:
            statuses.append(call(gateway, made["value"]).status)
        assert statuses[0] == 200 and statuses[-1] == 402
        before = spent(gateway, made["value"])
        gateway.restart()
        assert spent(gateway, made["value"]) == before
        check_refusal(call(gateway, made["value"]), 402, "budget_exceeded")
        assert "first start" not in gateway.log().partition("ready ")[2]


def seeded_config(url: str, limit: str = "5") -> Config:
    made = config_for(
        url,
        virtual_keys=[virtual_key(budgets=[budget(limit)])],
        governance={
            "teams": [{"name": "blue"}],
            "customers": [{"name": "acme"}],
            "model_configs": [{"model_name": "gpt-4o", "budgets": [{"max_limit": 9}]}],
            "providers": [{"name": "openai", "budgets": [{"max_limit": 90}]}],
            "routing_rules": [RULE],
            "pricing_overrides": [OVERRIDE],
        },
    )
    return made


def test_bootstrap_then_the_store_then_a_reseed_with_its_plan(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, seeded_config(provider.url)) as gateway:
        assert "seeded the configuration store from config.json" in gateway.log()
        assert call(gateway).status == 200
        before = spent(gateway)
        with gateway.console() as console:
            console.put("/api/governance/virtual-keys/workshop-vk-1", json={"description": "edited here"}).raise_for_status()
            console.post("/api/governance/teams", json={"name": "made here"}).raise_for_status()
        gateway.write_config(seeded_config(provider.url, limit=f"{before / 10**9:.9f}"))
        planned = dry_run(gateway, "--reseed")
        gateway.restart()
        (ignored,) = [line for line in gateway.log().splitlines() if "ignored in config.json" in line]
        for words in (
            "providers: openai, anthropic, gemini", "virtual keys: workshop-vk-1", "teams: blue", "customers: acme",
            "model configs: gpt-4o", "provider limits: openai", "routing rules: cheap", "pricing overrides: ours",
        ):  # fmt: skip
            assert words in ignored
        assert "--reseed" in ignored and call(gateway).status == 200
        gateway.terminate()
        with Gateway(tmp_path, None, arguments=("--reseed",)) as reseeded:
            printed = reseeded.log()
            assert "seeded the configuration store" not in printed, "it had data"
            plan = [line for line in printed.splitlines() if line.startswith(("config.json is", "  ~", "  +", "  -", "      "))]
            assert plan[0] == "config.json is applied to the store: 1 changed, 10 unchanged", plan
            assert plan[1] == "  ~ virtual key workshop-vk-1"
            assert "      description: edited here -> (none)" in plan
            assert any(line.startswith("      budgets[workshop-vk-budget].max_limit: 5 -> 0.0") for line in plan), plan
            assert len(plan) == 4
            assert planned.splitlines()[0] == plan[0].replace("is applied", "would be applied")
            assert planned.splitlines()[1:] == plan[1:]
            check_refusal(call(reseeded), 402, "budget_exceeded")
            with reseeded.console() as console:
                teams = [team["name"] for team in console.get("/api/governance/teams").json()["teams"]]
            assert teams == ["blue", "made here"]


def test_the_file_as_the_source_of_truth(provider: PretendProcess, tmp_path: Path) -> None:
    made = {"source_of_truth": "config.json", **seeded_config(provider.url)}
    with Gateway(tmp_path, made) as gateway, gateway.console() as console:
        assert call(gateway).status == 200
        before = spent(gateway)
        for answer in (
            console.put("/api/governance/virtual-keys/workshop-vk-1", json={"description": "x"}),
            console.post("/api/governance/virtual-keys", json={"name": "new"}),
            console.post("/api/governance/virtual-keys/workshop-vk-1/rotate", json={}),
            console.delete("/api/providers/openai"),
            console.post("/api/governance/teams", json={"name": "new"}),
            console.post("/api/governance/budgets", json={"scope": "team", "scope_id": "blue", "max_limit": 1}),
            console.put("/api/governance/providers/openai", json={"budgets": []}),
            console.delete("/api/governance/customers/acme"),
        ):
            assert answer.status_code == 409, (answer.request.url, answer.text)
            message = answer.json()["error"]["message"]
            assert 'source_of_truth is "config.json"' in message and "change the file" in message
        rows = console.get("/api/governance/budgets").json()["budgets"]
        (mine,) = [row["id"] for row in rows if row["name"] == "workshop-vk-budget"]
        assert console.post(f"/api/governance/budgets/{mine}/reset", json={"reason": "by hand"}).status_code == 200
        assert call(gateway).status == 200
        before = spent(gateway)
        made["governance"]["teams"] = [{"name": "green"}]
        made["governance"]["customers"] = []
        del made["governance"]["routing_rules"]
        gateway.write_config(made)
        os.kill(gateway.pid, signal.SIGHUP)
        eventually(lambda: "reloaded: " in gateway.log(), lambda done: done, 40)
        printed = gateway.log()
        assert "  - team blue" in printed and "  + team green" in printed
        assert "warning: governance.customers is empty in config.json, and the store has acme: left there" in printed
        with gateway.console() as anew:
            teams = [team["name"] for team in anew.get("/api/governance/teams").json()["teams"]]
            rules = [rule["name"] for rule in anew.get("/api/governance/routing-rules").json()["rules"]]
            assert (teams, rules) == (["green"], ["cheap"])
            changed = anew.post("/api/governance/routing-rules", json={**RULE, "name": "another"})
            assert changed.status_code == 200, "a section that is not there belongs to the store"
        assert spent(gateway) == before
        gateway.terminate()
    made["governance"]["virtual_keys"] = [virtual_key("only", value="sk-bf-only-this-one")]
    with Gateway(tmp_path, made) as gateway:
        assert "  - virtual key workshop-vk-1" in gateway.log()
        assert call(gateway).status == 401 and call(gateway, "sk-bf-only-this-one").status == 200
        gateway.terminate()
        command = gateway.command("verify", "--json")
        verified = subprocess.run(command, env=gateway.env(), capture_output=True, text=True, timeout=60, check=False)
        assert json.loads(verified.stdout)["clean"] is True, verified.stdout


def test_a_dry_run_before_the_first_start(provider: PretendProcess, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, seeded_config(provider.url))
    assert "  + virtual key workshop-vk-1" in dry_run(gateway)
    with gateway:
        assert "seeded the configuration store" in gateway.log(), "nothing had been done"
    assert "ignored in config.json, because the store has data" in dry_run(gateway)
