"""Child processes of the tests: started in a group of their own, read line by line, always ended."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A process and what it prints (both streams together). Ends with its whole group.

    With `lifeline` its standard input stays open for as long as this process lives: programs that watch it never outlive a
    test run, however that ends.
    """

    def __init__(self, command: list[str], *, env: dict[str, str] | None = None, cwd: Path = ROOT, lifeline: bool = False) -> None:
        self.command = command
        self._lines: list[str] = []
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE if lifeline else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for_line(self, wanted: Callable[[str], bool], timeout_seconds: float = 30) -> str:
        """The first line not looked at yet that is wanted. Raises RuntimeError, with the output, when none comes."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                line = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"{self._name()} did not say what was awaited in {timeout_seconds} s:\n{self.log()}") from None
            if line is None:
                raise RuntimeError(f"{self._name()} ended with {self._process.wait()} before it was ready:\n{self.log()}")
            if wanted(line):
                return line

    def log(self) -> str:
        """Everything it has printed so far."""
        return "".join(self._lines)

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_seconds: float = 30) -> int:
        """Its exit code, once it ended and all it printed was read. Raises subprocess.TimeoutExpired."""
        code = self._process.wait(timeout_seconds)
        self._reader.join(5)
        return code

    def terminate(self, timeout_seconds: float = 40) -> int:
        """Ask it (only it, as an operating system would) to end; its exit code. What is left is killed."""
        if self.running():
            self._process.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout_seconds)
        finally:
            self.kill9()

    def kill9(self) -> None:
        """SIGKILL to the whole group, and wait until nothing of it is left."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._process.wait(10)
        self._reader.join(5)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _name(self) -> str:
        return " ".join(self.command[:4])

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            for line in stream:
                self._lines.append(line)
                self._fresh.put(line)
        self._fresh.put(None)
