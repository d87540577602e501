"""A reload with stand-in children: who is started and let go in which order, and what becomes of the ones that go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from addons.process.accepted import read_accepted
from addons.process.options import ServeOptions
from addons.process.rolling import STARTS, read_anew
from store.errors import UserError
from tests.addons.process.stage import TALK, Stage
from tests.support.process_tree import exists
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")

BUSY = """
talk()
print("ready", flush=True)
told.wait()
while not os.path.exists(os.path.join(orders["app_dir"], "enough")):
    time.sleep(0.02)
note("ended")
"""
"""Has calls to finish until the test says that it is enough."""
ONE_OF_TWO_CANNOT_START = """
def chosen():
    if earlier("started") <= 2:
        return False
    try:
        os.close(os.open(os.path.join(orders["app_dir"], "chosen"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
if chosen():
    while earlier("serving") < 3:
        time.sleep(0.02)
    time.sleep(0.3)
    os._exit(2)
talk()
print("ready", flush=True)
note("serving")
told.wait()
note("ended")
"""
"""Of the first two new workers beside two old ones: one serves, and only then the other one ends with a user's error."""


@pytest.fixture
def talking(stage: Stage) -> Stage:
    for role in ("worker", "console"):
        stage.play(role, TALK)
    return stage


def configure(stage: Stage, document: dict[str, Any] | str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    (stage.app_dir / "config.json").write_text(text)


def hang_up(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGHUP)


def started(stage: Stage, role: str, count: int) -> list[dict[str, Any]]:
    return eventually(lambda: stage.events(role, "started"), lambda found: len(found) >= count, 20)


def documents(stage: Stage) -> list[dict[str, Any]]:
    """What each worker was given as its settings, oldest first."""
    return [event["document"] for event in stage.events("worker", "settings")]


def test_workers_first_all_of_them_then_the_console(talking: Stage) -> None:
    configure(talking, {"gateway": {"min_output_tokens": 1}})
    process = talking.ready(workers=2)
    configure(talking, {"gateway": {"min_output_tokens": 2}})
    hang_up(process)
    eventually(talking.said, lambda text: "reloaded: 2 new workers and a new console serve" in text, 20)
    eventually(lambda: talking.events("console", "ended"), bool)
    order = [(event["role"], event["word"]) for event in talking.events() if event["word"] in ("started", "retire", "told")]
    first = sorted(order[:3])
    assert first == [("console", "started"), ("worker", "started"), ("worker", "started")]
    workers, console = [("worker", "started")] * 2, ("console", "started")
    assert order[3:5] == workers, "the old ones were let go before the new ones were there"
    assert sorted(order[5:]) == [("console", "started"), ("console", "told"), ("worker", "retire"), ("worker", "retire")]
    assert order.index(console, 5) < order.index(("console", "told"))
    assert [text["gateway"]["min_output_tokens"] for text in documents(talking)] == [1, 1, 2, 2]
    # Same addresses, same sockets, same tokens: links that were printed go on working.
    old, new = (talking.events("console", "started")[n]["orders"] for n in (0, 1))
    assert old == new
    assert talking.complained() == ""
    assert talking.end(process) == 0


def test_a_worker_that_dies_later_is_started_with_the_settings_of_the_last_good_reload(talking: Stage) -> None:
    configure(talking, {"gateway": {"min_output_tokens": 1}})
    process = talking.ready("pulse.RESTART_PAUSE_SECONDS=(0.01,)")
    configure(talking, {"gateway": {"min_output_tokens": 2}})
    hang_up(process)
    eventually(talking.said, lambda text: "reloaded: 1 new worker and" in text, 20)
    configure(talking, '{"gateway": {')
    hang_up(process)
    line = eventually(talking.complained, lambda text: "not reloaded" in text)
    assert "config.json: line 1, column 14" in line and line.count("\n") == 1
    os.kill(started(talking, "worker", 2)[-1]["pid"], signal.SIGKILL)
    started(talking, "worker", 3)
    texts = eventually(lambda: documents(talking), lambda found: len(found) == 3)
    assert texts[2] == {"gateway": {"min_output_tokens": 2}}
    assert talking.end(process) == 0


def test_what_only_a_restart_changes_is_named_and_left(talking: Stage) -> None:
    configure(talking, {"logs_store": {"config": {"path": "one.db"}}})
    process = talking.ready()
    configure(talking, {"logs_store": {"config": {"path": "two.db"}}, "gateway": {"listeners": [{"port": 9, "virtual_key": "a"}]}})
    hang_up(process)
    said = eventually(talking.said, lambda text: "reloaded:" in text, 20)
    assert "only a restart changes logs_store, gateway.listeners: left as at the start\n" in said
    assert not (talking.app_dir / "two.db").exists() and (talking.app_dir / "one.db").exists()
    assert talking.events("worker", "started")[1]["orders"]["listener_fds"] == []
    assert talking.end(process) == 0


def test_a_new_worker_that_cannot_start_leaves_everything_as_it_was(talking: Stage) -> None:
    talking.play("worker", ONE_OF_TWO_CANNOT_START)
    process = talking.ready(workers=2)
    old = [event["pid"] for event in talking.events(word="started")]
    hang_up(process)
    line = eventually(talking.complained, lambda text: "not reloaded" in text, 20)
    assert "the new worker " in line and "ended with code 2; the gateway goes on as before" in line
    # The other new one may have had calls: it is asked to retire, not killed.
    (retired,) = eventually(lambda: talking.events("worker", "retire"), bool)
    assert retired["pid"] not in old
    assert [pid for pid in old if not exists(pid)] == []
    assert len(talking.events("console", "started")) == 1
    # It is no end: the next reload may go well.
    hang_up(process)
    eventually(talking.said, lambda text: "reloaded: 2 new workers" in text, 20)
    assert talking.end(process) == 0


def test_a_new_worker_that_never_gets_ready_is_given_up(talking: Stage) -> None:
    talking.play("worker", "n = earlier('started')\nif n == 2:\n    talk()\n    told.wait(30)\n    os._exit(0)\n" + TALK)
    process = talking.ready("pulse.READY_SECONDS=4.0")
    hang_up(process)
    line = eventually(talking.complained, lambda text: "not reloaded" in text, 20)
    assert "the new worker process was not ready within 4 seconds; the gateway goes on as before" in line
    first, second = talking.events("worker", "started")
    assert exists(first["pid"]) and not exists(second["pid"])
    assert talking.end(process) == 0


def test_a_new_worker_that_is_killed_by_accident_is_started_again(talking: Stage) -> None:
    talking.play("worker", "n = earlier('started')\nif n == 2:\n    os.kill(os.getpid(), signal.SIGKILL)\n" + TALK)
    process = talking.ready()
    hang_up(process)
    eventually(talking.said, lambda text: "reloaded: 1 new worker" in text, 20)
    assert len(talking.events("worker", "started")) == 3 and "not reloaded" not in talking.complained()
    assert talking.end(process) == 0


def test_one_that_dies_again_and_again_is_given_up_and_not_for_ever_tried(talking: Stage) -> None:
    talking.play("worker", "n = earlier('started')\nif n >= 2:\n    os._exit(7)\n" + TALK)
    process = talking.ready()
    hang_up(process)
    line = eventually(talking.complained, lambda text: "not reloaded" in text, 20)
    assert "the new worker process ended with code 7" in line
    assert len(talking.events("worker", "started")) == 1 + 1 + STARTS
    assert talking.end(process) == 0


def test_a_new_console_that_cannot_start_leaves_the_old_one(talking: Stage) -> None:
    talking.play("console", "n = earlier('started')\nif n == 2:\n    os._exit(2)\n" + TALK)
    process = talking.ready()
    hang_up(process)
    line = eventually(talking.complained, lambda text: "not reloaded" in text, 20)
    assert "the new console process ended with code 2; the new workers serve beside the old console" in line
    assert exists(talking.events("console", "started")[0]["pid"])
    assert eventually(lambda: talking.events("worker", "retire"), bool)
    assert talking.end(process) == 0


def test_hang_ups_during_a_reload_are_one_more_reload(talking: Stage) -> None:
    talking.play("worker", "time.sleep(0.5 if earlier('started') == 2 else 0)\n" + TALK)
    process = talking.ready()
    for _ in range(5):
        hang_up(process)
        started(talking, "worker", 2)
    eventually(talking.said, lambda text: text.count("reloaded: ") == 2, 20)
    assert len(talking.events("worker", "started")) == 3
    assert talking.end(process) == 0
    assert len(talking.events("worker", "started")) == 3


def test_an_end_during_a_reload_ends_old_and_new(talking: Stage) -> None:
    talking.play("worker", "n = earlier('started')\nif n == 3:\n    time.sleep(60)\n" + TALK)
    process = talking.ready(workers=1)
    hang_up(process)
    started(talking, "worker", 2)
    assert talking.end(process) == 0
    pids = [event["pid"] for event in talking.events(word="started")]
    assert len(pids) >= 3 and [pid for pid in pids if exists(pid)] == []
    assert "reloaded" not in talking.said() and talking.order()[-1] == ("console", "ended")


def test_an_end_while_retired_workers_are_busy_gives_them_the_grace(talking: Stage) -> None:
    talking.play("worker", BUSY)
    process = talking.ready(grace=20.0)
    hang_up(process)
    eventually(talking.said, lambda text: "reloaded" in text, 20)
    process.send_signal(signal.SIGTERM)
    eventually(lambda: talking.events("worker", "told"), lambda found: len(found) == 2)
    assert process.poll() is None and talking.events("worker", "ended") == []
    (talking.app_dir / "enough").touch()
    assert process.wait(15) == 0
    assert len(talking.events("worker", "ended")) == 2 and "killed" not in talking.complained()


def test_a_retired_worker_is_killed_when_its_time_is_up(talking: Stage) -> None:
    talking.play("worker", BUSY)
    process = talking.ready("KILL_AFTER_SECONDS=0.5", grace=0.5)
    hang_up(process)
    eventually(talking.complained, lambda text: "the worker process did not end in time and is killed" in text, 20)
    (talking.app_dir / "enough").touch()
    first, second = talking.events("worker", "started")
    eventually(lambda: exists(first["pid"]), lambda there: not there)
    assert exists(second["pid"])
    assert talking.end(process) == 0


def test_too_many_busy_generations_make_the_next_reload_wait(talking: Stage) -> None:
    talking.play("worker", BUSY)
    process = talking.ready(grace=60.0)
    for count in (1, 2):
        hang_up(process)
        eventually(talking.said, lambda text, count=count: text.count("reloaded: ") == count, 20)  # type: ignore[misc]
    hang_up(process)
    eventually(talking.said, lambda text: "the reload waits: 2 earlier workers are still busy with their last calls\n" in text)
    assert len(talking.events("worker", "started")) == 3
    (talking.app_dir / "enough").touch()
    eventually(talking.said, lambda text: text.count("reloaded: ") == 3, 20)
    assert talking.said().count("the reload waits") == 1
    assert talking.end(process) == 0


def test_a_second_signal_makes_workers_hurry_and_a_third_one_kills(talking: Stage) -> None:
    talking.play("worker", BUSY)
    process = talking.ready("KILL_AFTER_SECONDS=60.0", grace=60.0)
    process.send_signal(signal.SIGTERM)
    eventually(lambda: talking.events("worker", "told"), bool)
    # At once is the same signal: launchers pass on what the whole group got.
    process.send_signal(signal.SIGTERM)
    assert talking.events("worker", "hurry") == []
    _after_a_second(process)
    eventually(lambda: talking.events("worker", "hurry"), bool)
    assert process.poll() is None
    _after_a_second(process)
    assert process.wait(10) == 0
    assert "the worker process did not end in time and is killed" in talking.complained()


def _after_a_second(process: subprocess.Popen[str]) -> None:
    time.sleep(1.1)
    process.send_signal(signal.SIGINT)


def test_listeners_of_mitmproxys_own_cannot_be_handed_over(tmp_path: Path) -> None:
    first = read_accepted(None, {})
    with pytest.raises(UserError, match="--mode"):
        read_anew(ServeOptions(tmp_path, mode=("socks5",)), None, first)
