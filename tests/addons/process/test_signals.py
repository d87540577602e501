"""What signals mean, and what the end of a terminal means."""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from addons.process.signals import AGAIN_SECONDS, Signals
from tests.addons.process.stage import TALK, Stage
from tests.support.processes import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX knows them")


class Hands:
    at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def caught() -> Iterator[tuple[Signals, selectors.BaseSelector, Hands]]:
    """Signals of this very process, caught for one test."""
    names = ("SIGTERM", "SIGINT", "SIGHUP")
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    hands, selector = Hands(), selectors.DefaultSelector()
    made = Signals(hands)
    made.catch(selector)
    yield made, selector, hands
    writer = signal.set_wakeup_fd(-1)
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)
    for key in list(selector.get_map().values()):
        os.close(key.fd)
    os.close(writer)
    selector.close()


def test_they_wake_the_selector(caught: tuple[Signals, selectors.BaseSelector, Hands]) -> None:
    signals, selector, _ = caught
    assert selector.select(0.0) == []
    os.kill(os.getpid(), signal.SIGTERM)
    ((key, _),) = selector.select(5.0)
    assert key.data is None and os.read(key.fd, 100) == bytes([signal.SIGTERM])
    assert (signals.stops, signals.reload_wanted) == (1, False)


def test_the_same_wish_twice_at_once_is_one(caught: tuple[Signals, selectors.BaseSelector, Hands]) -> None:
    signals, _, hands = caught
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert signals.stops == 1
    hands.at += AGAIN_SECONDS
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.stops == 2


def test_sighup_asks_for_a_reload(caught: tuple[Signals, selectors.BaseSelector, Hands]) -> None:
    signals, _, _ = caught
    os.kill(os.getpid(), signal.SIGHUP)
    assert (signals.stops, signals.reload_wanted) == (0, True)


# -- with a terminal

ON_A_TERMINAL = """
import fcntl, os, pty, signal, subprocess, sys, termios
controller, terminal = pty.openpty()
def take():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if sys.argv[1] == "nohup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
with open(os.environ["OUT"], "w") as out, open(os.environ["ERR"], "w") as err:
    process = subprocess.Popen(sys.argv[2:], stdin=terminal, stdout=out, stderr=err, start_new_session=True, preexec_fn=take)
os.close(terminal)
print(process.pid, flush=True)
if sys.stdin.readline() == "kill\\n":
    process.send_signal(signal.SIGHUP)
    sys.stdin.readline()
os.close(controller)
print(process.wait(), flush=True)
"""
"""Runs a command on a terminal of its own; closes the terminal on the last line from its stdin, and says how the command ended."""


def on_a_terminal(stage: Stage, how: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-c", "import io, sys; sys.stdin = io.StringIO('dict(inspect=False)\\n');" + stage.driver(),
        str(stage.root / "project"), str(stage.app_dir),
    ]  # fmt: skip
    env = {**os.environ, "OUT": str(stage.root / "out"), "ERR": str(stage.root / "err")}
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, how, *command],
        cwd=ROOT,
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    stage.running.append(process)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    stage.groups.append(pid)
    eventually(lambda: (stage.said(), stage.complained()), lambda texts: "ready gateway=" in texts[0], 20)
    return process


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def test_closing_the_terminal_ends_the_gateway_in_order(stage: Stage) -> None:
    for role in ("worker", "console"):
        stage.play(role, "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + TALK)
    process = on_a_terminal(stage, "plain")
    tell(process, "kill\n")
    # SIGHUP with the terminal still there is what `kill -HUP` sends.
    eventually(stage.said, lambda text: "reloaded: " in text, 20)
    tell(process, "close\n")
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    assert stage.order()[-1] == ("console", "ended")


def test_under_nohup_the_end_of_the_terminal_is_none(stage: Stage) -> None:
    for role in ("worker", "console"):
        stage.play(role, "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + TALK)
    process = on_a_terminal(stage, "nohup")
    tell(process, "close\n")
    eventually(stage.said, lambda text: "reloaded: " in text, 20)
    os.kill(stage.groups[-1], signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
