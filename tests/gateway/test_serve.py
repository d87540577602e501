"""Life around the process: first start, refusing to start, seeding, live edits, deaths of each process, and an orderly end."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import PROVIDER_KEYS, VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.process_tree import children, exists
from tests.support.provider import PretendProcess
from tests.support.refusals import check_budget, check_refusal
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json, request

SLOW = {"x-pretend-first-token-ms": "1500"}
KEY_ID = "id-of-workshop-vk-1"


def call(gateway: Gateway, key: str = VIRTUAL_KEY, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(**fields), {"x-bf-vk": key, **(headers or {})}))


def spent(gateway: Gateway) -> int:
    row = eventually(lambda: gateway.quota()["budgets"][0], lambda row: row["held"] == 0)
    return int(row["current_usage"] * 10**9)


def start_in_vain(gateway: Gateway, *arguments: str) -> str:
    """Start a `serve` that must not come up: exit code 2 and one clear line, which is returned."""
    command = gateway.command("serve", "--port", "0", "--console-port", "0", "--no-inspect", *arguments)
    done = subprocess.run(command, env=gateway.env(), capture_output=True, text=True, timeout=60, check=False)
    printed = (done.stdout + done.stderr).strip()
    assert done.returncode == 2, printed
    assert len(printed.splitlines()) == 1, printed
    assert printed.startswith("tollgate: ")
    return printed


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


@pytest.fixture
def idle(tmp_path: Path) -> Gateway:
    """A directory without a running gateway."""
    return Gateway(tmp_path / "app", None)


@pytest.fixture(scope="module")
def shared(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the tests that leave it running."""
    with Gateway(
        tmp_path_factory.mktemp("serve"), config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(5)])])
    ) as running:
        yield running


# -- the first start


def test_the_first_start_prints_what_to_paste_and_the_second_does_not(idle: Gateway) -> None:
    with idle as gateway:
        printed = gateway.log()
        key = next(line.split()[1] for line in printed.splitlines() if line.strip().startswith("key "))
        assert key.startswith("sk-bf-")
        assert f'eval "$(uv run run_gateway.py env --app-dir {gateway.app_dir})"' in printed
        assert f"base_url={gateway.url}/openai/v1" in printed
        assert f"base_url={gateway.url}/anthropic" in printed
        assert f"base_url={gateway.url}/genai" in printed
        assert f"dashboard  {gateway.console_url}/?token={gateway.admin_token}" in printed
        assert printed.splitlines()[-1].startswith("ready gateway=")
        run = json.loads((gateway.app_dir / "run.json").read_text())
        assert (run["pid"], run["gateway"], run["console"]) == (gateway.pid, gateway.url, gateway.console_url)
        modes = {name: stat.S_IMODE((gateway.app_dir / name).stat().st_mode) for name in ("run.json", "admin.token", "config.db")}
        assert modes == dict.fromkeys(modes, 0o600)
        for path in (gateway.app_dir / "ca").iterdir():
            if b"PRIVATE KEY" in path.read_bytes():
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        quota = gateway.quota(key)
        assert quota["budgets"] == []
        token = gateway.admin_token
        assert gateway.terminate() == 0
        assert not (gateway.app_dir / "run.json").exists()
        before = len(gateway.log())
        gateway.restart()
        assert "sk-bf-" not in gateway.log()[before:]
        assert gateway.admin_token == token
        assert gateway.quota(key)["budgets"] == []


def test_a_second_one_on_the_same_directory_names_the_first(shared: Gateway) -> None:
    line = start_in_vain(shared)
    assert str(shared.pid) in line and "--app-dir" in line
    assert call(shared).status == 200


# -- refusing to start


@pytest.mark.parametrize("option,what", [("--port", "gateway"), ("--console-port", "console")])
def test_a_port_in_use(idle: Gateway, option: str, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = start_in_vain(idle, option, str(port))
    assert f"127.0.0.1:{port}" in line and what in line and option in line


BROKEN: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "syntax": (b'{"providers": {\n  "openai": {\n   oops\n}}}', ("config.json", "line 3", "column 4")),
    "not text": (b"\xff\xfe{}", ("config.json", "UTF-8")),
    "a list": (b"[]", ("config.json", "object")),
    "unknown key": (b'{"client": {"enforce_auth": true}}', ("client.enforce_auth", "enforce_auth_on_inference")),
    "wrong type": (b'{"gateway": {"limits": {"max_body_mb": "many"}}}', ("gateway.limits.max_body_mb",)),
    "bad duration": (
        b'{"governance": {"virtual_keys": [{"name": "a", "budgets": [{"max_limit": 1, "reset_duration": "1 fortnight"}]}]}}',
        ("governance.virtual_keys[0].budgets[0].reset_duration",),
    ),
    "missing variable": (
        b'{"governance": {"virtual_keys": [{"name": "a", "value": "env.NOT_SET"}]}}',
        ("NOT_SET", "virtual_keys[0].value"),
    ),
    "key twice": (b'{"client": {}, "client": {}}', ("client",)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration(idle: Gateway, name: str) -> None:
    content, wanted = BROKEN[name]
    (idle.app_dir / "config.json").write_bytes(content)
    line = start_in_vain(idle)
    assert [word for word in wanted if word not in line] == []


def test_a_configuration_that_is_no_file(idle: Gateway) -> None:
    (idle.app_dir / "config.json").mkdir()
    assert "config.json" in start_in_vain(idle)
    assert "/no/such/config.json" in start_in_vain(idle, "--config", "/no/such/config.json")


@pytest.mark.parametrize("name", ["config.db", "logs.db"])
def test_a_store_that_is_no_database(idle: Gateway, name: str) -> None:
    (idle.app_dir / name).write_bytes(b"this is a text, not a database. " * 200)
    line = start_in_vain(idle)
    assert str(idle.app_dir / name) in line
    assert (idle.app_dir / name).read_bytes().startswith(b"this is a text"), "it was overwritten"


def test_an_app_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    gateway = Gateway(tmp_path / "app", None)
    gateway.app_dir = tmp_path / "file" / "below"
    assert "below" in start_in_vain(gateway)


def test_a_file_of_ours_that_cannot_be_opened(idle: Gateway) -> None:
    (idle.app_dir / "serve.lock").mkdir()
    line = start_in_vain(idle)
    assert str(idle.app_dir / "serve.lock") in line and "writable" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_app_directory(idle: Gateway) -> None:
    idle.app_dir.chmod(0o500)
    try:
        assert str(idle.app_dir) in start_in_vain(idle)
    finally:
        idle.app_dir.chmod(0o700)


# -- seeding


def test_seeding_once_ignoring_afterwards_and_reseeding(provider: PretendProcess, tmp_path: Path) -> None:
    config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(5)])])
    with Gateway(tmp_path, config) as gateway:
        assert "seeded" in gateway.log()
        assert call(gateway).status == 200
        cost = spent(gateway)
        assert cost > 0
        gateway.terminate()
        renamed = virtual_key(budgets=[budget(7)])
        further = virtual_key("second-vk", value="sk-bf-88888888888888888888888888888888second", budgets=[budget(1, name="second")])
        gateway.write_config(config_for(provider.url, virtual_keys=[renamed, further]))
        before = len(gateway.log())
        gateway.restart()
        ignored = next(line for line in gateway.log()[before:].splitlines() if "ignored" in line)
        assert "second-vk" in ignored and "openai" in ignored and "--reseed" in ignored
        assert gateway.quota()["budgets"][0]["max_limit"] == 5
        assert call(gateway, further["value"]).status == 401
        gateway.terminate()
        with Gateway(tmp_path, None, arguments=("--reseed",)) as again:
            assert again.quota()["budgets"][0]["max_limit"] == 7
            assert spent(again) == cost, "reseeding forgot what was spent"
            assert call(again, further["value"]).status == 200


def test_secrets_from_the_environment_stay_out_of_the_files(provider: PretendProcess, tmp_path: Path) -> None:
    config = config_for(provider.url, keys={name: f"env.KEY_OF_{name.upper()}" for name in PROVIDER_KEYS})
    config["governance"]["virtual_keys"][0]["value"] = "env.WORKSHOP_KEY"
    config["encryption_key"] = "env.TOLLGATE_TEST_ENCRYPTION"
    secret = "sk-from-the-environment-7f3a9c"
    env = {f"KEY_OF_{name.upper()}": secret for name in PROVIDER_KEYS}
    env |= {"WORKSHOP_KEY": VIRTUAL_KEY, "TOLLGATE_TEST_ENCRYPTION": "a passphrase of some length"}
    with Gateway(tmp_path, config, env=env) as gateway:
        assert call(gateway).status == 200
        sent = {name.lower(): value for name, value in provider.last(1)[0]["headers"]}
        assert sent["authorization"] == f"Bearer {secret}"
        spent(gateway)
        gateway.terminate()
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert secret.encode() not in kept and VIRTUAL_KEY.encode() not in kept
        assert secret not in gateway.log() and VIRTUAL_KEY not in gateway.log()
        wrong = Gateway(tmp_path, None, env=env | {"TOLLGATE_TEST_ENCRYPTION": "another passphrase altogether"})
        assert "encryption_key" in start_in_vain(wrong)


# -- edits while it runs


def test_a_lower_limit_holds_for_the_very_next_call(shared: Gateway) -> None:
    with shared.console() as console:
        assert call(shared).status == 200
        budget_id = shared.quota()["budgets"][0]["id"]
        for _ in range(3):
            console.put(f"/api/governance/budgets/{budget_id}", json={"max_limit": 0.000000001}).raise_for_status()
            body = check_refusal(call(shared), 402, "budget_exceeded")
            check_budget(body, max_limit=1e-9)
            console.put(f"/api/governance/budgets/{budget_id}", json={"max_limit": 5}).raise_for_status()
            assert call(shared).status == 200


def test_switching_a_key_off_holds_for_the_very_next_call(shared: Gateway) -> None:
    with shared.console() as console:
        for _ in range(3):
            console.put(f"/api/governance/virtual-keys/{KEY_ID}", json={"is_active": False}).raise_for_status()
            check_refusal(call(shared), 403, "virtual_key_blocked")
            console.put(f"/api/governance/virtual-keys/{KEY_ID}", json={"is_active": True}).raise_for_status()
            # Being let in again may take the worker a moment, but no longer than a second.
            eventually(lambda: call(shared).status, lambda status: status == 200, 1)


def test_a_new_key_and_its_end_are_known_within_a_second(shared: Gateway) -> None:
    with shared.console() as console:
        made: Config = {"name": "made-now", "provider_configs": [{"provider": "openai"}]}
        answer = console.post("/api/governance/virtual-keys", json=made)
        answer.raise_for_status()
        key = answer.json()["virtual_key"]
        eventually(lambda: call(shared, key["value"]).status, lambda status: status == 200, 1)
        console.delete(f"/api/governance/virtual-keys/{key['id']}").raise_for_status()
        check_refusal(call(shared, key["value"]), 401, "virtual_key_not_found")


# -- deaths


def test_a_killed_worker_is_started_again_and_its_call_is_not_forgotten(shared: Gateway, provider: PretendProcess) -> None:
    before = spent(shared)
    worker = children(shared.pid)["worker"]
    thread = threading.Thread(target=lambda: _ignore_break(shared), daemon=True)
    thread.start()
    eventually(lambda: provider.bill()["in_flight"], lambda count: count == 1)
    os.kill(worker, signal.SIGKILL)
    # The listening socket outlives the worker: a new connection waits for the next one.
    assert call(shared).status == 200
    assert children(shared.pid)["worker"] != worker
    thread.join(20)
    # Whatever left is charged, confirmed or not: two calls, the broken one at its hold.
    assert eventually(lambda: spent(shared), lambda now: now > before + 10_800, 15)
    assert "started again" in shared.log()


def _ignore_break(gateway: Gateway) -> None:
    try:
        call(gateway, headers=SLOW)
    except Exception:
        return


def test_a_killed_console_is_started_again_and_calls_go_on_meanwhile(shared: Gateway) -> None:
    console = children(shared.pid)["console"]
    os.kill(console, signal.SIGKILL)
    assert call(shared).status == 200
    eventually(lambda: children(shared.pid).get("console", console), lambda pid: pid != console)
    with shared.console() as client:
        assert client.get("/api/governance/budgets").status_code == 200


def test_children_end_when_the_supervisor_is_killed_and_nothing_is_lost(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(5)])])) as gateway:
        assert call(gateway).status == 200
        cost = spent(gateway)
        running = children(gateway.pid)
        assert set(running) == {"worker", "console"}
        os.kill(gateway.pid, signal.SIGKILL)
        eventually(lambda: [pid for pid in running.values() if exists(pid)], lambda alive: alive == [], 15)
        gateway.restart()
        assert spent(gateway) == cost
        assert call(gateway).status == 200


def test_an_orderly_end_lets_calls_finish(provider: PretendProcess, tmp_path: Path) -> None:
    answers: list[Answer] = []
    with Gateway(tmp_path, config_for(provider.url)) as gateway, Wire.to("127.0.0.1", gateway.port) as kept:
        assert kept.ask(request("GET", "/health")).status == 200
        thread = threading.Thread(target=lambda: answers.append(call(gateway, headers=SLOW)))
        thread.start()
        eventually(lambda: provider.bill()["in_flight"], lambda count: count == 1)
        worker = children(gateway.pid)["worker"]
        os.kill(gateway.pid, signal.SIGTERM)
        # Closed to newcomers, while the call in flight goes on.
        eventually(lambda: _accepts(gateway.port), lambda accepts: not accepts)
        assert exists(worker)
        check_refusal(
            kept.ask(post_json(CHAT.target, CHAT.body(), {"x-bf-vk": VIRTUAL_KEY})), 503, "gateway_unavailable", transient=True
        )
        eventually(gateway.running, lambda running: not running, 40)  # a second signal would make it hurry
        assert gateway.terminate() == 0
        thread.join(20)
        assert [answer.status for answer in answers] == [200]
        assert answers[0].json()["usage"]["completion_tokens"] == 16
        assert not exists(worker)
        gateway.restart()
        assert spent(gateway) == provider.bill()["lines"][-1]["cost_nanos"]
        row = gateway.log_rows()[-1]
        assert (row["status"], row["cost_nanos"]) in (("success", spent(gateway)), ("refused", 0))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_nothing_secret_and_no_fault_was_printed(shared: Gateway) -> None:
    log = shared.log()
    assert "Traceback" not in log
    for secret in (*PROVIDER_KEYS.values(), VIRTUAL_KEY):
        assert secret not in log
