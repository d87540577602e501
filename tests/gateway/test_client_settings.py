"""Client settings changed through the API of a running gateway: every worker follows within a second, and calls go on meanwhile."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import budget, config_for, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.waiting import eventually
from tests.support.wire import Wire, post_json

WITHIN_SECONDS = 1.0
SIGN_OF_BOTH = 16
"""New connections in a row that got the same answer: one of two workers alone does not give them all."""


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(1000)])])
    with Gateway(tmp_path_factory.mktemp("client"), config, arguments=("--workers", "2")) as running:
        yield running


def status(gateway: Gateway, key: str | None) -> int:
    headers = {"x-bf-vk": key} if key is not None else {}
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(), headers)).status


def put(gateway: Gateway, **client: Any) -> float:
    """When it was done."""
    with gateway.console() as console:
        answer = console.put("/api/config", json={"client_config": client})
    assert answer.status_code == 200, answer.text
    return time.monotonic()


def all_answer(gateway: Gateway, key: str | None, wanted: int, since: float) -> float:
    """How long it took until every worker gave this answer, in seconds."""
    in_a_row, first = 0, since
    while in_a_row < SIGN_OF_BOTH:
        began = time.monotonic()
        if status(gateway, key) == wanted:
            first = began if in_a_row == 0 else first
            in_a_row += 1
        else:
            in_a_row = 0
        assert time.monotonic() - since < 20, "the workers do not follow"
    return first - since


def test_every_worker_follows_within_a_second(gateway: Gateway) -> None:
    assert status(gateway, None) == 401
    assert all_answer(gateway, None, 200, put(gateway, enforce_auth_on_inference=False)) <= WITHIN_SECONDS
    assert all_answer(gateway, None, 401, put(gateway, enforce_auth_on_inference=None)) <= WITHIN_SECONDS


def test_calls_are_logged_while_it_is_said_so(gateway: Gateway) -> None:
    def logged() -> set[str]:
        return {row["model"] for row in gateway.log_rows()}

    with gateway.client() as client:
        for logging, model in ((True, "gpt-4o"), (False, "gpt-4.1-mini"), (True, "gpt-4.1")):
            put(gateway, enable_logging=logging)
            time.sleep(WITHIN_SECONDS)  # the promise: not later than this
            assert client.post(CHAT.target, json=CHAT.body(model=model)).status_code == 200
    eventually(logged, lambda models: {"gpt-4o", "gpt-4.1"} <= models)
    assert "gpt-4.1-mini" not in logged()


def test_what_was_changed_survives_a_restart_and_goes_before_the_file(provider: PretendProcess, tmp_path: Path) -> None:
    config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(1000)])])
    config["client"] = {"enforce_auth_on_inference": True}
    with Gateway(tmp_path, config) as running:
        put(running, enforce_auth_on_inference=False)
        running.terminate()
        running.restart()
        assert status(running, None) == 200
        assert "client: enforce_auth_on_inference" in running.log(), "the start names what of the file is ignored"
        with running.console() as console:
            rows = console.get("/api/audit", params={"kind": "client_config"}).json()["entries"]
    assert [row["after"]["enforce_auth_on_inference"] for row in rows] == [False]


def test_a_file_applied_by_sighup_is_in_the_audit_log(provider: PretendProcess, tmp_path: Path) -> None:
    """File-only mode: the start and the reload each leave a row that says what the file changed; changes by hand are refused."""
    config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(1000)])])
    config["config_store"] = {"enabled": False}
    with Gateway(tmp_path, config) as running:
        config["governance"]["teams"] = [{"id": "team-blue", "name": "blue"}]
        running.write_config(config)
        os.kill(running.pid, signal.SIGHUP)

        def applied() -> list[Any]:
            with running.console() as console:
                return list(console.get("/api/audit", params={"kind": "configuration"}).json()["entries"])

        second, first = eventually(applied, lambda rows: len(rows) == 2, 30)
        with running.console() as console:
            refused = console.put("/api/config", json={"client_config": {"enable_logging": False}})
        assert refused.status_code == 409 and "config.json alone" in refused.json()["error"]["message"]
        assert len(applied()) == 2
    assert (first["action"], second["action"], second["details"]) == ("apply", "apply", {"added": {"team": ["blue"]}})
    assert second["actor"] == "gateway"
