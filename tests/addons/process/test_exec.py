"""`exec` with real processes: environment, signals, terminal, exit codes, the gateway's life, and the last line."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from addons.process.client import find_running, read_run_file
from addons.process.exec_command import cost_line
from addons.process.locks import process_exists

FAKE = Path(__file__).with_name("fake_gateway.py")
DRIVER = f"""
import sys
from pathlib import Path
import addons.process.exec_command as exec_command
import addons.process.launch as launch
exec_command._STILL_SECONDS = 0.05
launch.PROGRAM = Path({str(FAKE)!r})
import run_gateway
run_gateway.main()
"""
CURL_ONCE = "import os, urllib.request as u; print(u.urlopen('http://api.example.com/').status)"
CALL_AND_REFUSED = """
import urllib.request, urllib.error
for path in ("a", "b", "c", "refused"):
    try:
        urllib.request.urlopen("http://api.example.com/" + path).read()
    except urllib.error.HTTPError as error:
        assert error.code == 402, error
"""


def command(app_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", DRIVER, "exec", "--app-dir", str(app_dir), *arguments]


def environ(**more: str) -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name != "SSL_CERT_FILE"}
    return {**keep, **more}


def run(app_dir: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(app_dir, *arguments), capture_output=True, text=True, timeout=60, env=environ(**more), stdin=subprocess.DEVNULL
    )


def start(app_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(app_dir, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        env=environ(),
    )  # fmt: skip


def wait_for(condition: Any, what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from addons.process.ca import ensure_ca

    directory = tmp_path_factory.mktemp("certificates") / "ca"
    ensure_ca(directory)
    return directory


@pytest.fixture
def app_dir(tmp_path: Path, certificates: Path) -> Iterator[Path]:
    """An app directory with a CA; whatever gateway is left in it at the end is ended."""
    import shutil

    directory = tmp_path / "app dir"
    directory.mkdir()
    shutil.copytree(certificates, directory / "ca")
    yield directory
    left = read_run_file(directory)
    if left is not None and process_exists(left.pid):
        os.kill(left.pid, signal.SIGKILL)


@pytest.fixture
def running(app_dir: Path) -> Iterator[Path]:
    """The app directory of a gateway that somebody started by hand."""
    process = subprocess.Popen([sys.executable, str(FAKE), "serve", "--app-dir", str(app_dir)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield app_dir
    process.terminate()
    process.wait(10)
    process.stdout.close()


def journal(app_dir: Path) -> list[dict[str, Any]]:
    found = find_running(app_dir)
    assert found is not None
    entries: list[dict[str, Any]] = found.client().get("/journal")["journal"]
    return entries


def test_the_program_gets_the_variables_and_its_calls_are_summed_up(running: Path) -> None:
    done = run(running, "--budget", "2usd", "--", sys.executable, "-c", CALL_AND_REFUSED)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "tollgate: $0.0123 in 4 calls (1 refused), run budget $2.00\n"
    opened = [entry["body"] for entry in journal(running) if entry["method"] == "POST"]
    assert opened == [{"virtual_key": None, "budget_usd": "2", "ttl_seconds": 604800}]
    assert [entry["method"] for entry in journal(running) if entry["path"].endswith("/runs/1")][-1] == "DELETE"


def test_key_and_arguments_pass_through_untouched(running: Path) -> None:
    show = "import json, sys, os; print(json.dumps([sys.argv[1:], os.environ['HTTPS_PROXY'], os.environ['KEPT']]))"
    passed = ["-k", "--budget", "a b", "--", "", "$X"]
    done = run(running, "-k", "workshop-vk-1", "--", sys.executable, "-c", show, *passed, KEPT="yes")
    arguments, proxy, kept = json.loads(done.stdout)
    assert arguments == passed and kept == "yes"
    address = find_running(running)
    assert address is not None and proxy == address.gateway.replace("http://", "http://tollgate:sk-bf-run-1@")
    assert [entry["body"]["virtual_key"] for entry in journal(running) if entry["method"] == "POST"] == ["workshop-vk-1"]


def test_the_credential_is_not_shown_to_the_user(running: Path) -> None:
    done = run(running, "--", sys.executable, "-c", CURL_ONCE)
    assert "sk-bf" not in done.stderr + done.stdout


def test_no_call_is_said_with_its_likely_causes(running: Path) -> None:
    done = run(running, "--", "true", NO_PROXY="localhost,.openai.com")
    assert done.returncode == 0
    assert "no call of true came through the gateway" in done.stderr
    assert "NO_PROXY sends .openai.com past it" in done.stderr and "--base-url" in done.stderr


def test_quiet_says_nothing_when_all_is_well(running: Path) -> None:
    assert run(running, "-q", "--", sys.executable, "-c", CURL_ONCE).stderr == ""


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_programs(running: Path, code: int) -> None:
    assert run(running, "--", "sh", "-c", f"exit {code}").returncode == code


def test_a_program_ended_by_a_signal_is_128_and_n(running: Path) -> None:
    assert run(running, "--", "sh", "-c", "kill -TERM $$").returncode == 128 + 15
    assert run(running, "--", "sh", "-c", "kill -KILL $$").returncode == 128 + 9


def test_commands_that_cannot_be_run_are_one_line_and_start_nothing(app_dir: Path, tmp_path: Path) -> None:
    missing = run(app_dir, "--", "no-such-program-here")
    assert (missing.returncode, missing.stderr) == (127, "tollgate: no-such-program-here: command not found\n")
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    refused = run(app_dir, "--", str(plain))
    assert (refused.returncode, refused.stderr) == (126, f"tollgate: {plain} is not executable\n")
    assert not (app_dir / "starts.log").exists()


def test_an_executable_that_is_no_program_is_126(running: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELFnonsense")
    broken.chmod(0o755)
    done = run(running, "--", str(broken))
    assert done.returncode == 126 and "Traceback" not in done.stderr


def test_an_unknown_key_is_one_line_in_the_gateways_words(running: Path) -> None:
    done = run(running, "-k", "nobody", "--", "true")
    assert (done.returncode, done.stderr) == (2, "tollgate: there is no virtual key 'nobody'\n")


@pytest.mark.parametrize("amount", ["2eur", "-1", "0", "two", "2usd/1h"])
def test_a_budget_that_is_no_amount_is_one_line(app_dir: Path, amount: str) -> None:
    done = run(app_dir, "--budget", amount, "--", "true")
    assert done.returncode == 2
    assert done.stderr.startswith("tollgate: ") and done.stderr.count("\n") == 1


def test_a_foreign_token_is_one_line(running: Path) -> None:
    (running / "admin.token").write_text("another")
    done = run(running, "--", "true")
    assert done.returncode == 2 and "does not accept the token" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1"])
def test_a_signal_to_us_alone_reaches_the_program_once(running: Path, tmp_path: Path, name: str) -> None:
    program = f"""
import signal, sys, time
seen = []
signal.signal(signal.{name}, lambda *_: seen.append(1))
print("up", flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(0.3)
sys.exit(40 + len(seen))
"""
    # In a session of its own there is no terminal, so nothing but the signal to the one process is at work.
    process = subprocess.Popen(
        command(running, "--", sys.executable, "-c", program), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, text=True, env=environ(), start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=30)
    assert process.returncode == 41


def in_a_terminal(app_dir: Path, program: str, keys: bytes) -> tuple[int, str]:
    """Run exec on a pseudo-terminal, type `keys` once the program says "up", and return (exit code, all that was shown)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command(app_dir, "--", sys.executable, "-c", program), environ())
    shown, typed = b"", False
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            chunk = os.read(terminal, 4096)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
        if b"up\r\n" in shown and not typed:
            typed = True
            os.write(terminal, keys)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


COUNT_INTERRUPTS = """
import os, signal, sys, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
print("tty" if os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp() else "no tty", flush=True)
print("up", flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(0.3)
sys.exit(40 + len(seen))
"""


def test_ctrl_c_reaches_the_program_once_and_the_last_line_is_still_said(running: Path) -> None:
    code, shown = in_a_terminal(running, COUNT_INTERRUPTS, b"\x03")
    assert code == 41, shown
    assert "tty\r\n" in shown and "no tty" not in shown
    assert "tollgate: no call of" in shown


def test_ctrl_c_does_not_reach_a_gateway_that_exec_started(app_dir: Path) -> None:
    code, shown = in_a_terminal(app_dir, COUNT_INTERRUPTS, b"\x03")
    assert code == 41, shown
    assert [line.split()[0] for line in (app_dir / "starts.log").read_text().splitlines()] == ["started", "drained"]


def test_the_program_reads_what_is_typed(running: Path) -> None:
    code, shown = in_a_terminal(running, "print('up', flush=True); print('got', input())", b"hello\n")
    assert code == 0 and "got hello" in shown


def test_stdin_is_the_callers(running: Path) -> None:
    done = subprocess.run(
        command(running, "-q", "--", "tr", "a-z", "A-Z"), input="piped\n", capture_output=True, text=True, env=environ(), timeout=30
    )
    assert done.stdout == "PIPED\n"


def test_without_a_gateway_one_is_started_and_drained(app_dir: Path) -> None:
    done = run(app_dir, "--", sys.executable, "-c", CURL_ONCE)
    assert (done.returncode, done.stdout) == (0, "200\n")
    assert done.stderr.splitlines() == [
        f"tollgate: starting a gateway for this run in {app_dir}",
        "tollgate: $0.003075 in 1 call",
    ]
    assert [line.split()[0] for line in (app_dir / "starts.log").read_text().splitlines()] == ["started", "drained"]
    assert find_running(app_dir) is None
    assert oct((app_dir / "gateway.log").stat().st_mode & 0o777) == "0o600"


def test_the_app_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    assert run(tmp_path / "new", "-q", "--", sys.executable, "-c", CURL_ONCE).returncode == 0
    assert oct((tmp_path / "new").stat().st_mode & 0o777) == "0o700"


def test_a_gateway_started_by_hand_stays(running: Path) -> None:
    assert run(running, "--", "true").returncode == 0
    assert find_running(running) is not None


def test_runs_at_the_same_time_share_one_gateway_and_the_last_one_stops_it(app_dir: Path) -> None:
    wait = "import sys, time, pathlib; print('up', flush=True)\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)"
    processes = [start(app_dir, "--", sys.executable, "-c", wait, str(app_dir / f"go{number}")) for number in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
    log = app_dir / "starts.log"
    assert log.read_text().count("started") == 1
    for number, process in enumerate(processes):
        assert find_running(app_dir) is not None
        (app_dir / f"go{number}").touch()
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert log.read_text().count("drained") == 1 and find_running(app_dir) is None


def test_a_gateway_left_by_a_killed_exec_is_stopped_by_the_next(app_dir: Path) -> None:
    process = start(app_dir, "--", sys.executable, "-c", "print('up', flush=True); input()")
    assert process.stdout is not None
    wait_for(lambda: (app_dir / "exec-gateway.json").exists(), "the gateway to start")
    left = find_running(app_dir)
    process.kill()
    process.communicate(timeout=10)
    assert left is not None and process_exists(left.pid)
    assert run(app_dir, "-q", "--", sys.executable, "-c", CURL_ONCE).returncode == 0
    wait_for(lambda: not process_exists(left.pid), "the left-over gateway to end")
    assert (app_dir / "starts.log").read_text().count("started") == 1


def test_sigterm_while_the_gateway_starts_leaves_nothing_behind(app_dir: Path) -> None:
    slow = app_dir / "slow.py"
    slow.write_text(f"import time, sys, os\nopen({str(app_dir / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    driver = DRIVER.replace(str(FAKE), str(slow))
    process = subprocess.Popen(
        [sys.executable, "-c", driver, "exec", "--app-dir", str(app_dir), "--", "true"], stderr=subprocess.PIPE, env=environ()
    )
    wait_for(lambda: (app_dir / "pid").exists() and (app_dir / "pid").read_text(), "the gateway process")
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 128 + 15
    assert not process_exists(int((app_dir / "pid").read_text()))


def test_a_gateway_that_cannot_start_says_why_in_one_line(app_dir: Path) -> None:
    done = run(app_dir, "-q", "--", "true", FAKE_REFUSE_START="governance.budgets[0]: max_limit must be a number")
    assert done.returncode == 2
    assert done.stderr == "tollgate: the gateway could not start: governance.budgets[0]: max_limit must be a number\n"


def test_a_stale_run_file_does_not_count_as_running(app_dir: Path) -> None:
    record = {"pid": os.getpid(), "gateway": "http://127.0.0.1:9", "console": "http://127.0.0.1:9", "inspector": None}
    (app_dir / "run.json").write_text(json.dumps(record))  # the id lives, but nothing listens there
    assert find_running(app_dir) is None
    (app_dir / "run.json").write_text("{torn")
    assert find_running(app_dir) is None


@pytest.mark.parametrize(
    ("cost", "calls", "refused", "budget", "line"),
    [
        (12_300_000, 4, 1, 2_000_000_000, "$0.0123 in 4 calls (1 refused), run budget $2.00"),
        (0, 1, 0, None, "$0.00 in 1 call"),
        (1_500_000_000, 12, 0, None, "$1.50 in 12 calls"),
    ],
)
def test_the_line_at_the_end(cost: int, calls: int, refused: int, budget: int | None, line: str) -> None:
    assert cost_line(cost, calls, refused, budget) == line
