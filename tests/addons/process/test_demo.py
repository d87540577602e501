"""`demo` as a person sees it: real processes, a real refusal, nothing left behind."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import run_gateway
from addons.process.demo import KEY_NAME, Answer, Show, configuration
from store.settings import settings_from

ROOT = Path(run_gateway.__file__).parent


def answer(cost: str, **headers: str) -> Answer:
    return Answer(200, {"x-tollgate-cost-usd": cost, **headers}, b"{}")


def test_the_configuration_is_valid_and_has_the_workshops_budget() -> None:
    settings = settings_from(configuration("http://127.0.0.1:9", "sk-bf-demo-value"), {}, source="demo")
    (key,) = settings.governance.virtual_keys
    (budget,) = key.budgets
    assert (key.name, budget.name, budget.limit_nanos, budget.reset_duration) == (
        "workshop-vk-1", "workshop-vk-budget", 500_000_000, "1h",
    )  # fmt: skip
    assert settings.providers["openai"].network_config.base_url == "http://127.0.0.1:9"


def test_without_a_terminal_every_call_is_a_plain_line() -> None:
    out = io.StringIO()
    show = Show(out, 500_000_000)
    show.call(answer("0.1"))
    show.call(answer("0.15", **{"x-tollgate-trimmed": "512"}))
    show.end_of_calls()
    first, second = out.getvalue().splitlines()
    assert first == "call   1  200  $0.10       [######........................]  $0.10 of $0.50"
    assert second == "call   2  200  $0.15       [###############...............]  $0.25 of $0.50  (answer shortened to fit)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_terminal_one_line_is_drawn_over() -> None:
    out = Terminal()
    show = Show(out, 500_000_000)
    show.call(answer("0.1"))
    show.call(answer("0.1"))
    show.end_of_calls()
    assert out.getvalue().count("\r\x1b[K") == 2 and out.getvalue().count("\n") == 1


def environ(directory: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(directory), "HOME": str(directory)}


def test_the_budget_trips_offline_and_nothing_is_left(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_gateway.py"), "demo"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environ(tmp_path), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    assert took < 40, took  # twice what the contract's twenty seconds ask, for a loaded machine
    calls = [line for line in done.stdout.splitlines() if line.startswith("call ")]
    assert 15 <= len(calls) <= 60
    spent = [float(line.split("]  $")[1].split(" ")[0]) for line in calls]
    assert spent == sorted(spent) and 0.45 <= spent[-1] <= 0.50
    assert "HTTP 402 Payment Required" in done.stdout and "x-should-retry: false" in done.stdout
    body = json.loads(done.stdout[done.stdout.index("\n{\n") : done.stdout.index("\n}\n") + 2])
    assert body["type"] == body["error"]["type"] == "budget_exceeded"
    assert body["budget"]["name"] == "workshop-vk-budget" and body["budget"]["scope_name"] == KEY_NAME
    assert body["budget"]["current_usage"] == pytest.approx(spent[-1], abs=1e-9)
    assert "Dashboard: http://127.0.0.1:" in done.stdout
    assert list(tmp_path.iterdir()) == []  # the temporary directory is gone, and nothing else was made
    assert not processes_of(tmp_path)


def test_keep_stays_up_until_told_and_cleans_up(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run_gateway.py"), "demo", "--keep"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ(tmp_path), stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "until Ctrl-C" in line:
            break
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == [] and not processes_of(tmp_path)


def test_a_gateway_that_cannot_start_is_one_line_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from addons.process import demo, launch
    from store.errors import UserError

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    broken = tmp_path.parent / f"{tmp_path.name}-broken.py"
    broken.write_text("import sys; sys.exit('tollgate: port 1 is taken')")
    monkeypatch.setattr(launch, "PROGRAM", broken)
    monkeypatch.setattr(demo, "_pretend_provider", fake_provider)
    with pytest.raises(UserError, match="^the gateway could not start: port 1 is taken$"):
        demo.run_demo(keep=False, out=io.StringIO())
    assert list(tmp_path.iterdir()) == []


class fake_provider:  # noqa: N801 - stands in for a function
    def __init__(self, directory: Path) -> None:
        return

    def __enter__(self) -> str:
        return "http://127.0.0.1:9"

    def __exit__(self, *_fault: object) -> None:
        return


def processes_of(directory: Path) -> list[str]:
    """Living processes that were started with a directory among their arguments or in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + b" " + (path / "environ").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in text:
            found.append(text.replace(b"\0", b" ").decode("utf-8", "replace")[:200])
    return found
