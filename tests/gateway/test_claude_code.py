"""Claude Code from npm, unmodified, under `exec --budget`: one turn that fits and one that does not."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import budget, config_for, virtual_key
from tests.support.foreign import Aimock, claude_command
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.waiting import eventually

MODEL = "claude-haiku-4-5"
OWN_KEY = "sk-ant-api03-callers-own-key"


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess(defaults={"output-tokens": 12}) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = [virtual_key(budgets=[budget(5)])]
    with Gateway(tmp_path_factory.mktemp("claude"), config_for(provider.url, virtual_keys=keys)) as running:
        yield running


def run_claude(gateway: Gateway, home: Path, *exec_options: str) -> subprocess.CompletedProcess[str]:
    """One turn of `claude -p hi` under `exec` in an empty home directory."""
    home.mkdir(parents=True, exist_ok=True)
    env = gateway.env() | {
        "HOME": str(home),
        "ANTHROPIC_API_KEY": OWN_KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    turn = [str(claude_command()), "-p", "hi", "--output-format", "json", "--model", MODEL]
    return subprocess.run(
        gateway.command("exec", "-k", "workshop-vk-1", *exec_options, "--", *turn),
        env=env,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout.strip(), f"claude said nothing; exit code {done.returncode}, on the error stream:\n{done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def test_a_turn_that_fits(gateway: Gateway, provider: PretendProcess, tmp_path: Path) -> None:
    provider.reset()
    before = gateway.spent_nanos()
    done = run_claude(gateway, tmp_path / "home", "--budget", "2usd")
    result = result_of(done)
    assert done.returncode == 0, done.stderr
    assert (result["is_error"], result["subtype"]) == (False, "success")
    assert result["result"].split()[:3] == ["the", "quick", "brown"]
    bill = provider.bill()
    assert bill["finished"]["calls"] >= 1
    assert bill["unfinished"]["calls"] == 0
    # Three meters that share no code: the program's own, the provider's bill, the ledger.
    assert round(result["total_cost_usd"] * 10**9) == bill["cost_nanos"]
    assert eventually(lambda: gateway.spent_nanos() - before, lambda nanos: nanos >= bill["cost_nanos"]) == bill["cost_nanos"]
    seen = [request for request in provider.last(50) if request["method"] == "POST"]
    assert all("sk-bf-" not in str(request) for request in seen)
    assert all(["x-api-key", OWN_KEY] in [[name.lower(), value] for name, value in request["headers"]] for request in seen)
    assert "$" in done.stderr, "exec did not say what the run cost"


def test_a_turn_that_does_not_fit(gateway: Gateway, provider: PretendProcess, tmp_path: Path) -> None:
    provider.reset()
    done = run_claude(gateway, tmp_path / "home", "--budget", "0.000001usd")
    result = result_of(done)
    assert done.returncode != 0
    assert result["is_error"] is True
    assert result["api_error_status"] == 402
    assert "402" in result["result"]
    assert "left and this call needs" in result["result"]
    assert provider.bill()["calls"] == 0
    refused = eventually(
        lambda: [row for row in gateway.log_rows() if row["refusal_type"] == "budget_exceeded"], lambda rows: bool(rows)
    )
    assert sum(row["count"] for row in refused) == 1, "Claude Code retried a refusal"


def test_a_turn_against_a_mock_that_nobody_here_wrote(tmp_path: Path) -> None:
    keys = [virtual_key(budgets=[budget(5)])]
    with Aimock(tmp_path) as mock, Gateway(tmp_path / "app", config_for(mock.url, virtual_keys=keys)) as gateway:
        done = run_claude(gateway, tmp_path / "home", "--budget", "2usd")
        result = result_of(done)
        assert (done.returncode, result["is_error"]) == (0, False), done.stderr
        spent = eventually(gateway.spent_nanos, lambda nanos: nanos > 0)
        assert spent == round(result["total_cost_usd"] * 10**9)
