"""Starting and stopping a gateway as a process of its own, for `exec` and `demo`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from addons.process.client import RunningGateway, read_run_file
from addons.process.locks import process_exists
from store.errors import UserError

PROGRAM = Path(__file__).resolve().parents[2] / "run_gateway.py"
"""The command line's own file, in a checkout and when installed. Run by path: `-m` would let the caller's directory shadow us."""

READY_SECONDS = 60.0
STOP_SECONDS = 40.0
"""More than the gateway gives its own calls in flight."""
_POLL_SECONDS = 0.02
_ERROR_PREFIX = "tollgate: "


class StartFailed(UserError):
    """The gateway did not come up; the text says why, in the gateway's own words where it left any."""


class LaunchedGateway:
    """A gateway process that this one started."""

    def __init__(self, process: subprocess.Popen[bytes], running: RunningGateway, log: Path) -> None:
        self._process = process
        self.running = running
        self._log = log

    def said(self, word: str) -> str | None:
        """The rest of the line that begins with `word` in what it printed while starting; None when there is none."""
        return next((rest.strip() for first, _, rest in (line.partition(" ") for line in _lines(self._log)) if first == word), None)

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, let its calls finish, and end the whole family when it does not."""
        stop_process(self._process, timeout_seconds)


def launch(
    app_dir: Path, arguments: Sequence[str], environ: Mapping[str, str], *, timeout_seconds: float = READY_SECONDS
) -> LaunchedGateway:
    """Run `serve` on `app_dir` on free ports and wait until everything listens. Its output goes to `APP_DIR/gateway.log`.

    Raises StartFailed.
    """
    log = app_dir / "gateway.log"
    command = [
        sys.executable, *(["-O"] if sys.flags.optimize else []), str(PROGRAM), "serve", "--app-dir", str(app_dir),
        "--port", "0", "--inspect-port", "0", "--console-port", "0", *arguments,
    ]  # fmt: skip
    with open(log, "wb", opener=_private) as output:
        process = spawn(command, output, environ)
    try:
        _wait_until_ready(process, log, timeout_seconds)
        running = read_run_file(app_dir)
        if running is None:
            raise StartFailed(f"the gateway started but left no {app_dir / 'run.json'}; its output is in {log}")
    except BaseException:
        stop_process(process, timeout_seconds=5.0)
        raise
    return LaunchedGateway(process, running, log)


def spawn(command: Sequence[str], output: object, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a background process in a group of its own, so that a Ctrl-C in the terminal does not end it before its users."""
    group = {"creationflags": 0x200} if sys.platform == "win32" else {"start_new_session": True}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        env=dict(environ), cwd=PROGRAM.parent, **group,
    )  # fmt: skip


def stop_process(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    """SIGTERM, then a wait, then SIGKILL for its whole group."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        process.wait()


def stop_by_pid(pid: int, timeout_seconds: float = STOP_SECONDS) -> None:
    """Ask a gateway that another process started to end, and wait until it has."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_seconds
    while process_exists(pid) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not _is_ready(log):
        if process.poll() is not None:
            raise StartFailed(_last_words(log) or f"the gateway ended at once with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise StartFailed(f"the gateway was not ready within {timeout_seconds:.0f} seconds; its output is in {log}")
        time.sleep(_POLL_SECONDS)


def _is_ready(log: Path) -> bool:
    return any(line.startswith("ready gateway=") and line.endswith("\n") for line in _lines(log))


def _last_words(log: Path) -> str | None:
    spoken = [line.strip() for line in _lines(log) if line.strip()]
    if not spoken:
        return None
    # A fault that the user can mend is said in one line of that form; otherwise the end of whatever came is the best there is.
    said = [line.removeprefix(_ERROR_PREFIX) for line in spoken if line.startswith(_ERROR_PREFIX)]
    return f"the gateway could not start: {(said or spoken)[-1]}"


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text("utf-8", errors="replace").splitlines(keepends=True)
    except OSError:
        return []


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
