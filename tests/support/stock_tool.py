"""mitmdump and mitmweb as they come, with the addon loaded by `-s addons/gateway.py`, started from another directory."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.gateway import Gateway
from tests.support.log_rows import read_log_rows
from tests.support.processes import ROOT, Child
from tests.support.servers import unused_port
from tests.support.waiting import eventually
from tests.support.wire import Answer, Ended, Wire, request


class StockTool:
    """`with StockTool("mitmdump", folder, config) as tool:` — the virtual environment's program, in a directory of its own."""

    def __init__(self, program: str, app_dir: Path, config: dict[str, Any], *arguments: str) -> None:
        self.app_dir = app_dir
        self.port = unused_port()
        self._surroundings = Gateway(app_dir, config)
        elsewhere = app_dir.parent / f"{app_dir.name}-elsewhere"
        elsewhere.mkdir(parents=True, exist_ok=True)
        self._elsewhere = elsewhere
        self._command = [
            str(Path(sys.executable).parent / program),
            "-s",
            str(ROOT / "addons" / "gateway.py"),
            "--set",
            f"tollgate_app_dir={app_dir}",
            "--listen-port",
            str(self.port),
            *arguments,
        ]
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._child = Child(self._command, env=self._surroundings.env(), cwd=self._elsewhere)
        try:
            eventually(self._serves, bool, 40)
        except BaseException:
            self.kill9()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill9()

    def kill9(self) -> None:
        if self._child is not None:
            self._child.kill9()

    def terminate(self) -> int:
        if self._child is None:
            raise RuntimeError("the tool was never started")
        return self._child.terminate(20)

    def log(self) -> str:
        return self._child.log() if self._child is not None else ""

    def ask(self, data: bytes) -> Answer:
        with Wire.to("127.0.0.1", self.port) as wire:
            return wire.ask(data)

    def log_rows(self) -> list[dict[str, Any]]:
        return read_log_rows(self.app_dir / "logs.db")

    def _serves(self) -> bool:
        """It listens before its stores are open, refuses everything until then, and at last listens anew, on loopback."""
        if self._child is not None and not self._child.running():
            raise RuntimeError(f"it ended:\n{self.log()}")
        try:
            return self.ask(request("GET", "/no-such-thing", {"host": f"127.0.0.1:{self.port}"})).status != 503
        except (OSError, Ended):
            return False
