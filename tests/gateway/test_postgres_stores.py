"""A gateway whose stores are PostgreSQL databases: calls, a budget that trips, restarts, wrong addresses, and moving there."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.postgres import PASSWORD, Databases
from tests.support.processes import ROOT
from tests.support.provider import PretendProcess
from tests.support.refusals import check_refusal
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

TIGHT = "0.0003"
"""Room for a few calls of the pretend provider."""


def call(gateway: Gateway, key: str = VIRTUAL_KEY, **fields: Any) -> Answer:
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(**fields), {"x-bf-vk": key}))


def spent(gateway: Gateway) -> int:
    row = eventually(lambda: gateway.quota()["budgets"][0], lambda row: row["held"] == 0)
    return int(row["current_usage"] * 10**9)


def tollgate(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    environ = gateway.env() | {"TOLLGATE_APP_DIR": str(gateway.app_dir)}
    command = [sys.executable, str(ROOT / "run_gateway.py"), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


def on(place: dict[str, Any], made: Config) -> Config:
    """The configuration with config and logs store in this database."""
    store = {"type": "postgres", "config": place}
    return {**made, "config_store": store, "logs_store": store}


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    printed = (done.stdout + done.stderr).strip()
    assert (done.returncode, len(printed.splitlines())) == (2, 1), printed
    assert printed.startswith("tollgate: ") and "Traceback" not in printed
    return printed


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


@pytest.fixture
def place(postgres_databases: Databases) -> dict[str, Any]:
    """`config` of a store in a fresh, empty database."""
    return postgres_databases.settings(postgres_databases.fresh())


def test_both_stores_on_one_database_a_budget_trips_and_a_restart_forgets_nothing(
    provider: PretendProcess, place: dict[str, Any], tmp_path: Path
) -> None:
    made = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(TIGHT)])])
    with Gateway(tmp_path, on(place, made)) as gateway:
        statuses: list[int] = []
        while 402 not in statuses and len(statuses) < 40:
            statuses.append(call(gateway).status)
        assert statuses[0] == 200 and statuses[-1] == 402 and {*statuses} == {200, 402}
        before = spent(gateway)
        assert 0 < before <= 300_000
        with gateway.console() as console:
            eventually(lambda: console.get("/api/logs").json()["pagination"]["total_count"], lambda rows: rows >= len(statuses))
            made_key = console.post("/api/governance/virtual-keys", json={"name": "made-by-api"}).json()["virtual_key"]
        gateway.restart()
        assert spent(gateway) == before
        body = check_refusal(call(gateway), 402, "budget_exceeded")
        assert body["budget"]["name"] == "workshop-vk-budget"
        with gateway.console() as console:
            names = [key["name"] for key in console.get("/api/governance/virtual-keys").json()["virtual_keys"]]
        assert made_key["name"] in names
        assert not list(tmp_path.glob("*.db"))
        examined = tollgate(gateway, "doctor", "--json")
        texts = [finding["text"] for finding in json.loads(examined.stdout) if finding["area"] == "stores"]
        where = f"the PostgreSQL database {place['db_name']} on {place['host']}:{place['port']}"
        assert len(texts) == 2 and all(where in text and "fsync on" in text for text in texts), texts
        gateway.terminate()
        verified = tollgate(gateway, "verify")
        assert verified.returncode == 0 and "the books agree" in verified.stdout, verified.stdout + verified.stderr
        assert PASSWORD not in gateway.log() + examined.stdout + verified.stdout
        assert "Traceback" not in gateway.log()


COMMANDS = (("serve", "--port", "0", "--console-port", "0", "--no-inspect"), ("budgets", "list"), ("verify",))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_wrong_password_is_one_line_that_does_not_repeat_it(
    words: tuple[str, ...], place: dict[str, Any], tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, on({**place, "password": "guessed-wrongly"}, {}))
    line = one_error(tollgate(gateway, *words))
    assert f"the PostgreSQL database {place['db_name']} on 127.0.0.1:{place['port']}" in line
    assert "password authentication failed" in line and "guessed-wrongly" not in line


@pytest.mark.parametrize("words", COMMANDS[:2], ids=lambda words: words[0])
def test_a_server_that_is_not_there_is_one_line(words: tuple[str, ...], place: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as held:  # bound and not listening: nobody else gets the port
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        gateway = Gateway(tmp_path, on({**place, "port": port}, {}))
        line = one_error(tollgate(gateway, *words))
    assert f"127.0.0.1:{port}" in line and "cannot be reached" in line


def test_a_database_that_is_not_there_is_one_line(place: dict[str, Any], tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, on({**place, "db_name": "nobody_made_this"}, {}))
    assert "nobody_made_this" in one_error(tollgate(gateway, *COMMANDS[0]))


def test_a_failing_password_command_is_one_line_without_its_output(place: dict[str, Any], tmp_path: Path) -> None:
    command = {"command": sys.executable, "args": ["-c", "print('half-a-secret'); raise SystemExit(3)"]}
    without = {name: value for name, value in place.items() if name != "password"}
    gateway = Gateway(tmp_path, on({**without, "password_command": command}, {}))
    line = one_error(tollgate(gateway, *COMMANDS[0]))
    assert "config_store.config.password_command" in line and "exit code 3" in line and "half-a-secret" not in line


def test_an_empty_database_says_that_nothing_was_started_there(place: dict[str, Any], tmp_path: Path) -> None:
    assert "start the gateway once" in one_error(tollgate(Gateway(tmp_path, on(place, {})), "budgets", "list"))


def test_moving_to_postgres_with_all_spend(provider: PretendProcess, place: dict[str, Any], tmp_path: Path) -> None:
    made = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(5)])])
    with Gateway(tmp_path / "app", made) as gateway:
        for _ in range(4):
            assert call(gateway).status == 200
        before = spent(gateway)
        target = tmp_path / "new.json"
        command = {"command": sys.executable, "args": ["-c", f"print({PASSWORD!r})"], "cache_ttl": "5m"}
        there = {name: value for name, value in place.items() if name != "password"} | {"password_command": command}
        target.write_text(json.dumps(on(there, made)))
        running = one_error(tollgate(gateway, "store", "copy", "--to", str(target)))
        assert f"is already served by process {gateway.pid}" in running
        assert gateway.terminate() == 0
        copied = tollgate(gateway, "store", "copy", "--to", str(target), "--logs")
        assert copied.returncode == 0, copied.stderr
        assert "the books agree there: 4 postings of 4 calls, 0 still open" in copied.stdout
        again = one_error(tollgate(gateway, "store", "copy", "--to", str(target)))
        assert "is not empty" in again
        gateway.write_config(json.loads(target.read_text()))
        gateway.restart()
        assert spent(gateway) == before
        assert call(gateway).status == 200
        assert eventually(lambda: spent(gateway), lambda nanos: nanos > before) > before
        with gateway.console() as console:
            eventually(lambda: console.get("/api/logs").json()["pagination"]["total_count"], lambda rows: rows == 5)
