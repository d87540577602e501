"""Two workers on one port: replaced under load, stopped, killed, wedged; what their clients notice, and what the console tells."""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import traffic
from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.crowd import Crowd
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.process_list import console, kill9, processes, resume, suspend, workers
from tests.support.process_tree import exists
from tests.support.processes import Child
from tests.support.provider import PretendProcess
from tests.support.traffic import Ask, one
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

TWO = ("--workers", "2")
ASK = post_json(CHAT.target, CHAT.body(), {"x-bf-vk": VIRTUAL_KEY})


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


def config(provider: PretendProcess, **gateway: Any) -> Config:
    return config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(1000)])], gateway=gateway)


@pytest.fixture(scope="module")
def shared(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("reload"), config(provider), inspect=True, arguments=TWO) as running:
        yield running


def call(gateway: Gateway, key: str | None = VIRTUAL_KEY, **fields: Any) -> Answer:
    headers = {"x-bf-vk": key} if key is not None else {}
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(**fields), headers))


def said_since(gateway: Gateway, before: str, wanted: str, timeout_seconds: float = 30) -> str:
    """The first line with `wanted` that was printed after `before`."""
    log = eventually(lambda: gateway.log()[len(before) :], lambda text: wanted in text, timeout_seconds)
    return next(line for line in log.splitlines() if wanted in line)


def hang_up(gateway: Gateway) -> str:
    """SIGHUP to the supervisor; what it had printed before."""
    before = gateway.log()
    os.kill(gateway.pid, signal.SIGHUP)
    return before


def components(gateway: Gateway) -> dict[str, str]:
    try:
        answer = httpx.get(f"{gateway.console_url}/health", trust_env=False, timeout=5)
    except httpx.TransportError:
        return {}
    found: dict[str, str] = answer.json().get("components", {})
    return found


def two_workers(gateway: Gateway) -> list[int]:
    return eventually(lambda: workers(gateway.pid), lambda found: len(found) == 2, 40)


def settled(gateway: Gateway) -> None:
    """Waits until both workers and one console serve, and nobody is on the way out."""
    eventually(lambda: len(processes(gateway.pid)), lambda count: count == 3, 60)
    eventually(
        lambda: components(gateway).get("workers", ""),
        lambda words: words.startswith("2 of 2 ready") and "leaving" not in words,
        60,
    )


# -- a reload


def test_a_reload_under_load_fails_no_call(shared: Gateway, provider: PretendProcess) -> None:
    assert call(shared, None).status == 401
    old, old_console = two_workers(shared), console(shared.pid)
    shared.write_config(config(provider, default_virtual_key="workshop-vk-1"))
    with Crowd(lambda: shared.url, clients=10) as crowd:
        crowd.wait_for_good(10)
        before = hang_up(shared)
        said_since(shared, before, "reloaded: 2 new workers")
        crowd.wait_for_good(10)
        # Once more, with the old ones hardly gone; and twice in a row, which is one.
        before = hang_up(shared)
        hang_up(shared)
        said_since(shared, before, "reloaded: 2 new workers")
        crowd.wait_for_good(20)
    assert [heard for heard in crowd.heard if not heard.good] == []
    eventually(lambda: [pid for pid in [*old, old_console] if exists(pid)], lambda alive: alive == [], 30)
    assert not set(two_workers(shared)) & set(old)
    assert call(shared, None).status == 200, "the new setting is not in force"
    with shared.console() as client:
        assert client.get("/api/config").json()["gateway_config"]["default_virtual_key"] == "workshop-vk-1"


def test_a_stream_goes_on_through_a_reload_and_kept_connections_are_let_go(shared: Gateway) -> None:
    settled(shared)
    old = two_workers(shared)
    results: list[traffic.Answer] = []
    long = Ask("chat", stream=True, limit=80, pretend={"output_tokens": 80, "chunk_tokens": 8, "chunk_delay_ms": 1500})
    thread = threading.Thread(target=lambda: results.append(asyncio.run(one(shared.url, long))))
    with Wire.to("127.0.0.1", shared.port) as kept, Wire.to("127.0.0.1", shared.port) as quiet:
        assert quiet.ask(ASK).status == 200
        thread.start()
        hang_up(shared)
        # Its worker lets go of the port, yet this connection is served on, until an answer says that it is the last.
        answer = kept.ask(ASK)
        while "connection" not in answer.headers:
            assert answer.status == 200
            time.sleep(0.2)
            answer = kept.ask(ASK)
        assert (answer.status, answer.headers["connection"], kept.rest()) == (200, "close", b"")
        assert quiet.rest() == b"", "an idle connection got bytes"
        assert thread.is_alive(), "the stream was too short to show anything"
        thread.join(40)
    (stream,) = results
    assert stream.status == 200 and stream.whole
    assert stream.events()[-1] == ("", "[DONE]")
    eventually(lambda: [pid for pid in old if exists(pid)], lambda alive: alive == [], 30)


def test_a_broken_file_changes_nothing_not_even_for_a_worker_that_dies(shared: Gateway, provider: PretendProcess) -> None:
    settled(shared)
    pids = two_workers(shared)
    (shared.app_dir / "config.json").write_text('{"gateway": {\n  "unpriced": oops\n}}')
    line = said_since(shared, hang_up(shared), "not reloaded")
    assert line.startswith("tollgate: ") and "config.json: line 2, column 15: " in line and "goes on as before" in line
    assert workers(shared.pid) == pids
    kill9(pids[0])
    eventually(lambda: workers(shared.pid), lambda found: len(found) == 2 and pids[0] not in found)
    settled(shared)
    assert [call(shared, None).status for _ in range(6)] == [200] * 6, "somebody runs with other settings"
    # A file that is not there any more is no reason to forget everything either.
    (shared.app_dir / "config.json").unlink()
    assert "there is no such file" in said_since(shared, hang_up(shared), "not reloaded")
    shared.write_config(config(provider, default_virtual_key="workshop-vk-1"))
    assert call(shared, None).status == 200


def test_workers_killed_during_a_reload(shared: Gateway) -> None:
    settled(shared)
    old = two_workers(shared)
    with Crowd(lambda: shared.url, clients=6) as crowd:
        crowd.wait_for_good(6)
        before = hang_up(shared)
        new = [pid for pid in eventually(lambda: workers(shared.pid), lambda found: len(found) >= 4) if pid not in old]
        kill9(new[0])
        kill9(old[0])
        said_since(shared, before, "reloaded: 2 new workers", 60)
        crowd.wait_for_good(20)
    # Calls of the killed ones broke, one a client at most, and nothing else.
    assert [heard for heard in crowd.heard if not heard.good and heard not in crowd.broken] == []
    assert len(crowd.broken) <= 6
    eventually(lambda: workers(shared.pid), lambda found: len(found) == 2 and not set(found) & {*old, new[0]}, 40)


# -- wedged


def test_a_stopped_worker_and_a_stopped_console_are_replaced_while_the_other_worker_serves(shared: Gateway) -> None:
    settled(shared)
    stopped, alive = two_workers(shared)
    viewer = console(shared.pid)
    before = shared.log()
    suspend(stopped)
    suspend(viewer)
    try:
        began = time.monotonic()
        while time.monotonic() - began < 6:
            assert call(shared).status == 200
        said_since(shared, before, "has not answered for 10 seconds", 20)
        assert time.monotonic() - began > 8
        eventually(lambda: [pid for pid in (stopped, viewer) if exists(pid)], lambda there: there == [], 10)
    finally:
        resume(stopped)
        resume(viewer)
    eventually(lambda: workers(shared.pid), lambda found: len(found) == 2 and alive in found)
    said = eventually(
        lambda: shared.log()[len(before) :],
        lambda text: text.count("has not answered for 10 seconds and is killed and replaced") == 2,
    )
    assert len(re.findall(r"the worker \d process", said)) == 1 and said.count("the console process") == 1
    settled(shared)
    assert call(shared).status == 200


# -- one console for all of them


def test_inspector_health_metrics_and_status_know_of_every_worker(shared: Gateway) -> None:
    settled(shared)
    first, second = two_workers(shared)
    asked: dict[str, str] = {}
    for other, mark in ((first, "through-the-second"), (second, "through-the-first")):
        suspend(other)
        try:
            answer = call(shared, messages=[{"role": "user", "content": mark}])
            assert answer.status == 200
            asked[answer.headers["x-tollgate-request-id"]] = mark
        finally:
            resume(other)
    token = next(line.rpartition("token=")[2] for line in shared.log().splitlines() if line.startswith("inspector  "))
    assert shared.inspector_url is not None

    def bodies() -> set[str]:
        flows = httpx.get(f"{shared.inspector_url}/flows", params={"token": token}, trust_env=False, timeout=10).json()
        return {
            httpx.get(
                f"{shared.inspector_url}/flows/{flow['id']}/request/content.data", params={"token": token}, trust_env=False
            ).text
            for flow in flows[-20:]
        }

    eventually(bodies, lambda found: all(any(mark in body for body in found) for mark in asked.values()))
    assert re.fullmatch(r"2 of 2 ready, \d+ restarts?", components(shared)["workers"])
    with shared.console() as client:
        metrics = client.get("/metrics").text
    for name in ("console", "worker 1", "worker 2"):
        assert f'tollgate_process_ready{{process="{name}"}} 1.0' in metrics
    counted = {name: float(value) for name, value in re.findall(r'restarts_total\{process="(.+)"\} (.+)', metrics)}
    assert counted["console"] >= 1 and counted["worker 1"] + counted["worker 2"] >= 1
    assert float(re.findall(r'tollgate_reloads_total\{result="done"\} (.+)', metrics)[0]) >= 3
    said = Child(shared.command("status"), env=shared.env())
    assert said.wait() == 0
    assert "workers 2 of 2 ready" in said.log()


# -- the end


def test_sigterm_under_load_lets_every_call_finish(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, config(provider), arguments=(*TWO, "--grace", "20")) as gateway:
        with Crowd(lambda: gateway.url, clients=10, delay_ms=60) as crowd:
            crowd.wait_for_good(10)
            os.kill(gateway.pid, signal.SIGTERM)
            told = time.monotonic()
            eventually(gateway.running, lambda running: not running, 28)
        assert gateway.terminate() == 0
        cut = [heard for heard in crowd.heard if heard.status == 200 and not heard.whole]
        lost = [heard for heard in crowd.broken if heard.started < told]
        assert (cut, lost) == ([], [])
        assert {heard.refusal for heard in crowd.refused} <= {"gateway_unavailable"}
        assert "did not end in time" not in gateway.log() and "Traceback" not in gateway.log()


def test_a_second_signal_makes_it_hurry(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, config(provider), arguments=TWO) as gateway:
        long = Ask("chat", stream=True, limit=400, pretend={"output_tokens": 400, "chunk_tokens": 8, "chunk_delay_ms": 500})
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(asyncio.run(one(gateway.url, long))))
        thread.start()
        eventually(lambda: provider.bill()["in_flight"], lambda count: count >= 1)
        os.kill(gateway.pid, signal.SIGTERM)
        time.sleep(1.3)
        assert gateway.running()
        os.kill(gateway.pid, signal.SIGTERM)
        eventually(gateway.running, lambda running: not running, 8)
        assert gateway.terminate() == 0
        thread.join(20)
        assert len(results) == 1 and results[0].status == 200
        assert "was still running when its time was up" in gateway.log()
        gateway.restart()
        row = eventually(lambda: gateway.quota()["budgets"][0], lambda row: row["held"] == 0)
        assert row["current_usage"] > 0, "what was cut was not charged"
