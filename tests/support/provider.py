"""The pretend provider as a process of its own, for tests that put the gateway in front of it."""

import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.processes import Child

_LISTENING = re.compile(r"pretend provider on (http://\S+)")


class PretendProcess:
    """`with PretendProcess() as provider:` — `provider.url` is what `network_config.base_url` wants.

    `defaults` are pretend instructions (`{"output-tokens": 8}`) for requests that say nothing themselves.
    """

    def __init__(self, *, bill_path: Path | None = None, keep: int = 500, defaults: dict[str, object] | None = None) -> None:
        self._command = [sys.executable, "-m", "addons.pretend", "--lifeline", "--port", "0", "--keep", str(keep)]
        if bill_path is not None:
            self._command += ["--bill", str(bill_path)]
        for key, value in (defaults or {}).items():
            self._command += ["--default", f"{key}={value}"]
        self._child: Child | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._child = Child(self._command, lifeline=True)
        try:
            line = self._child.wait_for_line(lambda text: "pretend provider on" in text, 20)
        except BaseException:
            self._child.kill9()
            raise
        found = _LISTENING.search(line)
        if found is None:
            raise RuntimeError(f"the pretend provider printed {line!r}")
        self.url = found[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill9()

    def kill9(self) -> None:
        if self._child is not None:
            self._child.kill9()

    def log(self) -> str:
        return self._child.log() if self._child is not None else ""

    def bill(self) -> dict[str, Any]:
        """`{calls, cost_nanos, finished: {calls, cost_nanos}, unfinished: {…}, lines, requests, in_flight, peak_in_flight}`."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/__bill", trust_env=False, timeout=30).json()
        return answer

    def last(self, count: int = 10) -> list[dict[str, Any]]:
        """The last requests it got, oldest first: number, method, target, headers (pairs), body_text, body_base64, body_length."""
        answer: list[dict[str, Any]] = httpx.get(f"{self.url}/__last", params={"n": count}, trust_env=False, timeout=30).json()
        return answer

    def reset(self) -> None:
        """Forget bill, requests and changed defaults."""
        httpx.post(f"{self.url}/__reset", trust_env=False).raise_for_status()

    def set_defaults(self, **instructions: object) -> None:
        """Replace the defaults at run time, for clients that cannot send headers: `set_defaults(output_tokens=8)`."""
        wanted = {key.replace("_", "-"): value for key, value in instructions.items()}
        httpx.post(f"{self.url}/__default", json=wanted, trust_env=False).raise_for_status()
