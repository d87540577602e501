"""File-only mode from outside: a directory with nothing but config.json, calls, restarts, a changed file, edits refused, `exec`."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.processes import ROOT
from tests.support.provider import PretendProcess
from tests.support.refusals import check_refusal
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

OTHER = "sk-bf-another-file-only-key"
CALLING = """
import json, os, sys, urllib.request
request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", method="POST", data=sys.argv[1].encode(),
    headers={"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"})
print(json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request))["object"])
"""


def file_only(provider_url: str, *, limit: str = "5", keys: list[Config] | None = None) -> Config:
    """The file leaves out every id that it may leave out."""
    key = virtual_key(budgets=[budget(limit)])
    del key["id"]
    made = config_for(provider_url, virtual_keys=keys if keys is not None else [key])
    made["config_store"] = {"enabled": False}
    return made


def call(gateway: Gateway, key: str = VIRTUAL_KEY, **fields: Any) -> Answer:
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(**fields), {"x-bf-vk": key}))


def spent(gateway: Gateway, key: str = VIRTUAL_KEY) -> int:
    row = eventually(lambda: gateway.quota(key)["budgets"][0], lambda row: row["held"] == 0)
    return int(row["current_usage"] * 10**9)


def tollgate(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    environ = gateway.env() | {"TOLLGATE_APP_DIR": str(gateway.app_dir)}
    command = [sys.executable, str(ROOT / "run_gateway.py"), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("file-only"), file_only(provider.url)) as running:
        yield running
        assert "Traceback" not in running.log()


def test_it_starts_from_a_file_alone_and_says_where_spend_is_kept(gateway: Gateway) -> None:
    printed = gateway.log()
    assert f"the configuration is config.json alone; what is spent is kept in {gateway.app_dir / 'ledger.db'}" in printed
    assert "encryption_key" not in printed
    assert not (gateway.app_dir / "config.db").exists()
    assert call(gateway).status == 200
    assert spent(gateway) > 0
    with sqlite3.connect(gateway.app_dir / "ledger.db") as connection:
        dump = "\n".join(connection.iterdump())
    assert VIRTUAL_KEY not in dump and "sk-provider-openai-0001" not in dump


def test_spend_survives_kill_9_and_a_changed_limit_binds_it(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, file_only(provider.url)) as gateway:
        for _ in range(3):
            assert call(gateway).status == 200
        before = spent(gateway)
        assert before > 0
        gateway.kill9()
        gateway.write_config(file_only(provider.url, limit=f"{before / 10**9:.9f}"))
        gateway.restart()
        assert spent(gateway) == before
        refused = call(gateway)
        body = check_refusal(refused, 402, "budget_exceeded")
        assert body["budget"]["name"] == "workshop-vk-budget"
        gateway.terminate()
        verified = tollgate(gateway, "verify", "--json")
        assert verified.returncode == 0, verified.stdout
        assert json.loads(verified.stdout)["clean"] is True


def test_a_hang_up_applies_the_changed_file(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, file_only(provider.url)) as gateway:
        assert call(gateway).status == 200
        before = spent(gateway)
        keys = [virtual_key("second", value=OTHER, budgets=[budget(1, name="second-budget")])]
        key = virtual_key(budgets=[budget(f"{before / 10**9:.9f}")])
        del key["id"]
        gateway.write_config(file_only(provider.url, keys=[key, *keys]))
        os.kill(gateway.pid, signal.SIGHUP)
        eventually(lambda: call(gateway, OTHER).status, lambda status: status == 200, 30)
        assert call(gateway).status == 402
        assert spent(gateway) == before
        gateway.write_config(file_only(provider.url, keys=[key]))
        os.kill(gateway.pid, signal.SIGHUP)
        eventually(lambda: call(gateway, OTHER).status, lambda status: status == 401, 30)


def test_edits_are_refused_with_the_way_to_make_them(gateway: Gateway) -> None:
    with gateway.console() as console:
        keys = console.get("/api/governance/virtual-keys").json()["virtual_keys"]
        budgets = console.get("/api/governance/budgets").json()["budgets"]
        (key,), row = keys, budgets[0]
        attempts = [
            console.post("/api/governance/virtual-keys", json={"name": "new"}),
            console.put(f"/api/governance/virtual-keys/{key['id']}", json={"description": "new"}),
            console.post(f"/api/governance/virtual-keys/{key['id']}/rotate", json={}),
            console.delete(f"/api/governance/virtual-keys/{key['id']}"),
            console.post("/api/governance/teams", json={"name": "new"}),
            console.put(f"/api/governance/budgets/{row['id']}", json={"max_limit": 50}),
            console.delete(f"/api/governance/budgets/{row['id']}"),
            console.delete("/api/providers/openai"),
            console.post("/api/providers/openai/keys", json={"name": "more", "value": "sk-more"}),
        ]
        for answer in attempts:
            assert answer.status_code == 409, answer.text
            assert "change the file, then restart the gateway" in answer.json()["error"]["message"]
        assert console.get("/api/governance/virtual-keys").json()["virtual_keys"] == keys
        assert [provider["name"] for provider in console.get("/api/providers").json()["providers"][:3]] == [
            "anthropic", "gemini", "openai",
        ]  # fmt: skip
        assert console.get("/metrics").status_code == 200
        assert console.get("/api/config").json()["is_read_only"] is True
    done = tollgate(gateway, "budgets", "create", "more", "--limit", "1usd/1d", "--key", "workshop-vk-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tollgate: the configuration comes from config.json alone") and len(done.stderr.splitlines()) == 1


def test_what_was_spent_can_be_reset(gateway: Gateway) -> None:
    assert call(gateway).status == 200
    eventually(lambda: spent(gateway), lambda nanos: nanos > 0)
    done = tollgate(gateway, "budgets", "reset", "workshop-vk-budget", "--reason", "a test")
    assert done.returncode == 0, done.stderr
    assert spent(gateway) == 0


def test_a_run_of_exec_has_its_own_cap(gateway: Gateway) -> None:
    question = json.dumps(CHAT.body())
    done = tollgate(
        gateway, "exec", "-k", "workshop-vk-1", "--budget", "1usd", "--base-url", "--", sys.executable, "-c", CALLING, question
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "chat.completion\n"
    assert "in 1 call, run budget $1.00" in done.stderr
    with gateway.console() as console:
        rows = console.get("/api/governance/budgets").json()["budgets"]
    assert [row["name"] for row in rows] == ["workshop-vk-budget"]  # the run is over


def test_exec_starts_a_gateway_of_its_own_from_the_file(provider: PretendProcess, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "app", file_only(provider.url))
    done = tollgate(gateway, "exec", "--base-url", "--", sys.executable, "-c", CALLING, json.dumps(CHAT.body()))
    assert done.returncode == 0, done.stderr
    assert "in 1 call" in done.stderr
    listed = tollgate(gateway, "budgets", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout)[0]["current_usage"] > 0
