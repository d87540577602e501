"""Every process of a running gateway by its role, and what can be done to one of them from outside."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.process_tree import exists
from tests.support.waiting import eventually


@dataclass(frozen=True, slots=True)
class Process:
    """A child of the supervisor."""

    role: str
    """`worker` or `console`."""
    pid: int


def processes(supervisor: int) -> list[Process]:
    """The supervisor's living children, oldest first."""
    # -ww: else `ps` cuts its lines at $COLUMNS, before the role when the checkout stands deep.
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, timeout=10, check=True
    )
    found = []
    for line in listed.stdout.splitlines():
        pid, parent, state, command = line.split(None, 3)
        for role in ("worker", "console"):
            if int(parent) == supervisor and f"addons.process.role {role}" in command and not state.startswith("Z"):
                found.append(Process(role, int(pid)))
    return sorted(found, key=lambda process: process.pid)


def workers(supervisor: int) -> list[int]:
    """Process ids of the workers, oldest first."""
    return [process.pid for process in processes(supervisor) if process.role == "worker"]


def console(supervisor: int) -> int:
    """Process id of the console. Raises AssertionError when there is none within some seconds."""
    found = eventually(lambda: [p.pid for p in processes(supervisor) if p.role == "console"], bool, 15)
    return found[0]


def kill9(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: exists(pid), lambda there: not there, 10)


def suspend(pid: int) -> None:
    """SIGSTOP, and wait until it stands still."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: _state(pid), lambda state: state.startswith("T"), 10)


def suspend_when(pid: int, good: Callable[[], bool], tries: int = 100) -> None:
    """SIGSTOP at a moment at which `good` says yes of the process that stands still. Raises AssertionError when there is none."""
    for _ in range(tries):
        suspend(pid)
        if good():
            return
        resume(pid)
        time.sleep(0.05)
    raise AssertionError("there was no good moment to suspend the process")


def resume(pid: int) -> None:
    """SIGCONT; nothing when it is gone."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def _state(pid: int) -> str:
    return subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False
    ).stdout.strip()
