"""Looks at a gateway's processes from outside."""

import os
import subprocess
from pathlib import Path


def children(pid: int) -> dict[str, int]:
    """The gateway's direct child processes: `worker`, `console` → process id."""
    # -ww: else `ps` cuts its lines at $COLUMNS, before the role when the checkout stands deep.
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, timeout=10, check=True
    ).stdout
    found = {}
    for line in listed.splitlines():
        child, parent, command = line.split(None, 2)
        for role in ("worker", "console"):
            if int(parent) == pid and f"addons.process.role {role}" in command:
                found[role] = int(child)
    return found


def exists(pid: int) -> bool:
    """Whether a process lives; one that ended and was not waited for by its parent does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False).stdout
    return bool(listed.strip()) and not listed.strip().startswith("Z")


def peak_megabytes(pid: int) -> float | None:
    """The most memory a process ever had resident; None where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None
