"""The supervisor with stand-in children: orders, restarts, deaths at start, the order of the end, the lock, ports, run.json.

Its own process is real and so are the children's, but they are small scripts: what a child does is said by each test.
`tests/gateway/test_serve.py` has the same life with the real children.
"""

import errno
import json
import os
import re
import signal
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from addons.process.children import USER_ERROR_EXIT
from addons.process.options import ChildSpec, ServeOptions
from addons.process.supervisor import owned, serve
from store.errors import UserError
from store.version import VERSION
from tests.addons.process.stage import SERVE, Stage
from tests.support.process_tree import exists
from tests.support.processes import Child
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children inherit sockets by number")

# -- what the children are told


def test_children_get_their_orders_over_stdin_and_the_sockets_they_serve(stage: Stage) -> None:
    stage.play(
        "worker",
        "import socket\nlistener = socket.socket(fileno=orders['gateway_fds'][0])\nlistener.setblocking(True)\n"
        "print('ready', flush=True)\nconnection, _ = listener.accept()\nconnection.sendall(b'a worker')\nconnection.close()\n"
        "told.wait()\n",
    )
    process = stage.ready(inspect=True, grace=7.5, log_level="warning", mode=("socks5",))
    run = json.loads((stage.app_dir / "run.json").read_text())
    with socket.create_connection(("127.0.0.1", int(run["gateway"].rpartition(":")[2])), timeout=5) as connection:
        assert connection.makefile("rb").read() == b"a worker"
    worker, console = stage.orders("worker"), stage.orders("console")
    for orders in (worker, console):
        spec = ChildSpec.from_line(json.dumps(orders).encode())
        assert Path(spec.app_dir) == stage.app_dir.resolve()
        assert (spec.host, spec.console_host, spec.config, spec.version) == ("127.0.0.1", "127.0.0.1", None, VERSION)
        assert (spec.grace, spec.log_level, spec.mode) == (7.5, "warning", ("socks5",))
        assert run["gateway"] == f"http://127.0.0.1:{spec.port}" and run["console"] == f"http://127.0.0.1:{spec.console_port}"
        assert run["inspector"] == f"http://127.0.0.1:{spec.inspect_port}"
    assert (worker["role"], console["role"]) == ("worker", "console")
    assert [name for name in worker if name.endswith("_fds") and worker[name]] == ["gateway_fds"]
    assert [name for name in console if name.endswith("_fds") and console[name]] == ["console_fds", "inspect_fds", "feed_fds"]
    tokens = {name: worker[name] for name in ("feed_token", "inspect_token")}
    assert {name: console[name] for name in tokens} == tokens
    assert len(set(tokens.values())) == 2 and all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens.values())
    # Everybody can read a process's command line, and many can read a log.
    assert [event["arguments"] for event in stage.events(word="started")] == [[], []]
    assert tokens["feed_token"] not in stage.said() + stage.complained()
    assert f"{run['inspector']}/?token={tokens['inspect_token']}" in stage.said()
    assert [event["optimize"] for event in stage.events("worker", "started")] == [1]
    assert stage.end(process) == 0


def test_a_key_of_the_configuration_file_reaches_the_children_by_its_path_alone(stage: Stage) -> None:
    (port,) = _free_ports(1)
    (stage.app_dir / "config.json").write_text(
        json.dumps(
            {
                "encryption_key": "a passphrase of some length",
                "gateway": {"listeners": [{"port": port, "virtual_key": "vendor"}]},
                "governance": {"virtual_keys": [{"name": "vendor", "value": "sk-bf-vendor-000000000000"}]},
            }
        )
    )
    process = stage.ready()
    orders = stage.orders("worker")
    assert orders["config"] == str((stage.app_dir / "config.json").resolve())
    assert len(orders["listener_fds"]) == 1 and len(orders["listener_fds"][0]) == 1
    assert stage.orders("console")["listener_fds"] == []
    assert "passphrase" not in json.dumps(orders) and "sk-bf-vendor" not in json.dumps(orders)
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert stage.end(process) == 0


# -- run.json


def test_run_json_says_where_everything_is_to_its_owner_alone(stage: Stage) -> None:
    process = stage.ready()
    path = stage.app_dir / "run.json"
    run = json.loads(path.read_text())
    assert sorted(run) == ["console", "gateway", "inspector", "pid", "started_at", "version"]
    assert (run["pid"], run["version"], run["inspector"]) == (process.pid, VERSION, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run["started_at"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stage.said().splitlines()[-1] == f"ready gateway={run['gateway']} console={run['console']} inspector=off"
    assert not list(stage.app_dir.glob("run.json?*")), "a half-written one was left"
    assert stage.end(process) == 0
    assert not path.exists()


# -- deaths


def test_a_child_that_dies_is_started_again_after_growing_pauses(stage: Stage) -> None:
    stage.play("worker", "n = earlier('started')\nprint('ready', flush=True)\nif n < 5:\n    die()\ntold.wait()\n")
    process = stage.ready("pulse.RESTART_PAUSE_SECONDS=(0.05, 0.2, 0.4)")
    starts = [event["at"] for event in eventually(lambda: stage.events("worker", "started"), lambda found: len(found) == 5)]
    pauses = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    # At least the pause; the last one is the longest, and it stays.
    assert [pause > least for pause, least in zip(pauses, (0.05, 0.2, 0.4, 0.4), strict=True)] == [True] * 4, pauses
    assert len(stage.events("console", "started")) == 1
    assert stage.complained().count("the worker process ended with code 9; it is started again") == 4
    assert "ready gateway=" in stage.said() and stage.said().count("ready ") == 1
    assert stage.end(process) == 0


def test_a_child_that_ran_for_long_enough_is_started_again_at_once(stage: Stage) -> None:
    stage.play("worker", "n = earlier('started')\nprint('ready', flush=True)\nif n < 4:\n    die()\ntold.wait()\n")
    process = stage.ready("pulse.RESTART_PAUSE_SECONDS=(0.01, 60.0)", "pulse.STABLE_SECONDS=0.0")
    eventually(lambda: stage.events("worker", "started"), lambda found: len(found) == 4)
    assert stage.end(process) == 0


def test_a_pause_holds_up_neither_another_child_nor_the_end(stage: Stage) -> None:
    stage.play("worker", "print('ready', flush=True)\ndie()\n")
    process = stage.ready("pulse.RESTART_PAUSE_SECONDS=(0.01, 60.0)")
    eventually(stage.complained, lambda text: text.count("the worker process ended") == 2)
    # The worker now rests for a minute. The console dies for the first time: its pause is short.
    (first,) = stage.events("console", "started")
    os.kill(first["pid"], signal.SIGKILL)
    eventually(lambda: stage.events("console", "started"), lambda found: len(found) == 2, 5)
    assert stage.end(process) == 0
    assert len(stage.events("worker", "started")) == 2


def test_orders_are_the_same_after_a_restart(stage: Stage) -> None:
    process = stage.ready("pulse.RESTART_PAUSE_SECONDS=(0.01,)", inspect=True)
    os.kill(stage.events("worker", "started")[0]["pid"], signal.SIGKILL)
    first, second = eventually(lambda: stage.events("worker", "started"), lambda found: len(found) == 2)
    assert first["pid"] != second["pid"] and first["orders"] == second["orders"]
    assert stage.end(process) == 0


@pytest.mark.parametrize("role", ["worker", "console"])
def test_a_child_that_ends_at_start_over_an_error_of_the_user_ends_serve_with_that_line(stage: Stage, role: str) -> None:
    stage.play(role, f"print('tollgate: mend this', file=sys.stderr, flush=True)\nos._exit({USER_ERROR_EXIT})\n")
    assert stage.run().wait(20) == USER_ERROR_EXIT
    assert stage.complained() == "tollgate: mend this\n"
    assert "ready" not in stage.said() and not (stage.app_dir / "run.json").exists()
    assert [event["pid"] for event in stage.events(word="started") if exists(event["pid"])] == []


def test_a_child_that_breaks_at_start_is_named_with_its_code(stage: Stage) -> None:
    stage.play("worker", "os._exit(3)\n")
    assert stage.run().wait(20) == 1
    assert stage.complained() == "tollgate: the worker process ended at start with code 3\n"
    assert [event["pid"] for event in stage.events(word="started") if exists(event["pid"])] == []
    assert len(stage.events("worker", "started")) == 1


def test_a_child_that_is_never_ready_does_not_keep_serve_waiting_for_ever(stage: Stage) -> None:
    stage.play("worker", "print('read', flush=True)\ntold.wait()\nnote('ended')\n")
    assert stage.run("pulse.READY_SECONDS=1.0").wait(20) == 1
    assert "not ready within 1 seconds" in stage.complained()
    assert ("worker", "ended") in stage.order() and "ready" not in stage.said()


def test_children_see_the_end_of_their_lifeline_when_the_supervisor_is_killed(stage: Stage) -> None:
    for role in ("worker", "console"):
        stage.play(role, "print('ready', flush=True)\nsys.stdin.buffer.read()\nnote('lifeline')\n")
    process = stage.ready(workers=2)
    process.kill()
    process.wait(10)
    eventually(lambda: stage.events(word="lifeline"), lambda found: len(found) == 3)


# -- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_end_before_the_console_is_told(stage: Stage, number: signal.Signals) -> None:
    stage.play("worker", "print('ready', flush=True)\ntold.wait()\ntime.sleep(0.3)\nnote('ended')\n")
    process = stage.ready(workers=2)
    pids = [event["pid"] for event in stage.events(word="started")]
    assert stage.end(process, number) == 0
    told, ended = [("worker", "told")] * 2, [("worker", "ended")] * 2
    # Both workers are told at once, not one after the other.
    assert stage.order() == [*told, *ended, ("console", "told"), ("console", "ended")]
    assert [pid for pid in pids if exists(pid)] == []


def test_the_end_may_come_before_everything_is_ready(stage: Stage) -> None:
    stage.play("worker", "told.wait()\nnote('ended')\n")
    process = stage.run()
    eventually(lambda: stage.events(word="started"), lambda found: len(found) == 2)
    assert stage.end(process) == 0
    assert "ready" not in stage.said() and stage.complained() == ""


def test_workers_have_the_grace_and_are_killed_after_it(stage: Stage) -> None:
    stage.play("worker", "print('ready', flush=True)\nwhile True:\n    told.wait()\n    time.sleep(0.05)\n")
    process = stage.ready("KILL_AFTER_SECONDS=0.2", grace=0.6)
    worker = stage.events("worker", "started")[0]["pid"]
    assert stage.end(process) == 0
    (told,) = stage.events("worker", "told")
    (console,) = stage.events("console", "told")
    assert console["at"] - told["at"] > 0.75, "it was killed within the grace"
    assert not exists(worker)
    assert "the worker process did not end in time and is killed" in stage.complained()


def test_a_console_that_does_not_end_is_killed_too(stage: Stage) -> None:
    stage.play("console", "print('ready', flush=True)\nwhile True:\n    told.wait()\n    time.sleep(0.05)\n")
    process = stage.ready("CONSOLE_STOP_SECONDS=0.2")
    console = stage.events("console", "started")[0]["pid"]
    assert stage.end(process) == 0
    assert not exists(console)
    assert "the console process did not end in time and is killed" in stage.complained()


def test_the_ports_are_closed_while_workers_still_drain(stage: Stage) -> None:
    """A newcomer is refused at once rather than left in the queue of a socket that nobody will read."""
    stage.play(
        "worker",
        "import socket\nlistener = socket.socket(fileno=orders['gateway_fds'][0])\nprint('ready', flush=True)\ntold.wait()\n"
        "listener.close()\nnote('closed')\n"
        "while not os.path.exists(os.path.join(orders['app_dir'], 'enough')):\n    time.sleep(0.01)\n",
    )
    stage.play("console", "os.close(orders['console_fds'][0])\n" + SERVE)
    process = stage.ready(grace=20.0)
    port = stage.orders("worker")["port"]
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    process.send_signal(signal.SIGTERM)
    eventually(lambda: stage.events("worker", "closed"), bool)
    eventually(lambda: _connect_error(port), lambda code: code == errno.ECONNREFUSED, 5)
    assert process.poll() is None
    (stage.app_dir / "enough").touch()
    assert process.wait(10) == 0


def _connect_error(port: int) -> int:
    with socket.socket() as sock:
        sock.settimeout(5)
        return sock.connect_ex(("127.0.0.1", port))


# -- the lock


def test_the_lock_names_its_owner_and_is_given_back(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(UserError) as caught, owned(tmp_path):
        pytest.fail("two owners at a time")
    text = str(caught.value)
    assert f"process {os.getpid()};" in text and str(tmp_path) in text and "--app-dir" in text
    with owned(tmp_path):
        pass
    assert stat.S_IMODE((tmp_path / "serve.lock").stat().st_mode) == 0o600


def test_what_an_earlier_owner_left_in_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "serve.lock").write_text("99999999999\n")
    with owned(tmp_path):
        assert (tmp_path / "serve.lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_of_another_process_holds_until_it_dies(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from addons.process.supervisor import owned\n"
        "with owned(Path(sys.argv[1])):\n    print('mine', flush=True)\n    sys.stdin.read()\n"
    )
    child = Child([sys.executable, "-c", script, str(tmp_path)], lifeline=True)
    try:
        child.wait_for_line(lambda line: line == "mine\n")
        with pytest.raises(UserError, match=rf"process {child.pid};"), owned(tmp_path):
            pytest.fail("two owners at a time")
    finally:
        child.kill9()
    with owned(tmp_path):
        pass


# -- ports and directories


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """An app directory on which `serve` never comes further than its sockets."""
    app_dir = tmp_path_factory.mktemp("ports")
    (app_dir / "ca").symlink_to(prepared)
    return app_dir


@pytest.mark.parametrize(
    "port,what,option",
    [
        ("port", "gateway", "--port"),
        ("console_port", "console", "--console-port"),
        ("inspect_port", "inspector", "--inspect-port"),
        ("listener", "listener", "gateway.listeners"),
    ],
)
def test_a_port_in_use_is_one_line_that_names_the_option(
    beginning: Path, capfd: pytest.CaptureFixture[str], port: str, what: str, option: str
) -> None:
    free = _free_ports(3)
    ports: dict[str, Any] = dict(zip(("port", "console_port", "inspect_port"), free, strict=True))
    config = beginning / "config.json"
    config.unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        taken = sock.getsockname()[1]
        if port == "listener":
            config.write_text(json.dumps({"gateway": {"listeners": [{"port": taken, "virtual_key": "default"}]}}))
        else:
            ports[port] = taken
        assert serve(replace(ServeOptions(beginning), **ports)) == USER_ERROR_EXIT
    printed = capfd.readouterr()
    reason = os.strerror(errno.EADDRINUSE)
    assert printed.err == f"tollgate: cannot listen on 127.0.0.1:{taken} for the {what}: {reason}; choose another with {option}\n"
    assert printed.out == ""
    # What had been opened before it is let go, and nothing says that a gateway runs.
    for number in free:
        if number in ports.values():
            socket.create_server(("127.0.0.1", number)).close()
    assert not (beginning / "run.json").exists()
    with owned(beginning):
        pass


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def test_a_directory_in_the_place_of_the_lock_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "serve.lock").mkdir()
    assert serve(ServeOptions(tmp_path)) == USER_ERROR_EXIT
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("tollgate: ") and "serve.lock" in line


def test_a_file_in_the_place_of_the_directory_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "app").write_text("in the way")
    assert serve(ServeOptions(tmp_path / "app")) == USER_ERROR_EXIT
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("tollgate: cannot make the app directory") and str(tmp_path / "app") in line


def test_ready_is_understood_in_pieces_and_after_other_lines(stage: Stage) -> None:
    stage.play(
        "worker", "for piece in (b'a line before\\nrea', b'dy\\n'):\n    os.write(1, piece)\n    time.sleep(0.05)\ntold.wait()\n"
    )
    assert stage.end(stage.ready()) == 0
