"""A worker or a console process on its own: the test stands in the supervisor's place."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from addons.process.options import ChildSpec
from store.clock import Ids, SystemClock
from store.config_store.bootstrap import seed
from store.settings import load_settings
from tests.support.processes import ROOT

_KEPT = ("PATH", "HOME", "TMPDIR", "LANG")


def seeded(app_dir: Path) -> None:
    """What the supervisor does before there are children: stores migrated, seeded from config.json where there is one."""
    from addons.opening import open_store

    config = app_dir / "config.json"
    settings = load_settings(config if config.exists() else None, {})
    clock = SystemClock()
    store = open_store(app_dir, settings, clock, Ids(clock))
    try:
        seed(store, settings)
    finally:
        store.database.close()


class OneChild:
    """`with OneChild(spec, sockets) as child:` runs `addons.process.<role>`; it is killed at the end.

    `orders` replaces the line that it is given; `code` runs another program in its place.
    """

    def __init__(
        self,
        spec: ChildSpec,
        sockets: list[socket.socket] | None = None,
        *,
        code: str | None = None,
        orders: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        program = ["-c", code] if code is not None else ["-m", "addons.process.role", spec.role]
        self.process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[sock.fileno() for sock in sockets or []],
            cwd=ROOT,
            env={name: os.environ[name] for name in _KEPT if name in os.environ} | dict(env or {}),
            bufsize=0,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(spec.to_line() if orders is None else orders)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def line(self) -> str:
        """The next line it prints; empty when there is none because it ended."""
        assert self.process.stdout is not None
        data = b""
        while not data.endswith(b"\n") and (byte := self.process.stdout.read(1)):
            data += byte
        return data.decode()

    def drop_lifeline(self) -> None:
        """What the children see when the supervisor dies."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self, timeout_seconds: float = 15) -> tuple[int, str, str]:
        """(exit code, what was not read yet of its output, all of its errors), once it ended by itself."""
        deadline = time.monotonic() + timeout_seconds
        code = self.process.wait(timeout_seconds)
        assert time.monotonic() < deadline and self.process.stdout is not None and self.process.stderr is not None
        return code, self.process.stdout.read().decode(), self.process.stderr.read().decode()
