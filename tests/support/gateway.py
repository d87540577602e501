"""A real gateway for tests: `run_gateway.py serve` as a process tree of its own, on free ports, in a directory of its own."""

import json
import os
import re
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import certifi
import httpx

from tests.support.config import VIRTUAL_KEY
from tests.support.log_rows import read_log_rows
from tests.support.processes import ROOT, Child

_READY = re.compile(r"ready gateway=(?P<gateway>\S+) console=(?P<console>\S+)(?: inspector=(?P<inspector>\S+))?")
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "TMP", "TEMP", "SYSTEMROOT", "LANG", "USERPROFILE", "APPDATA")
START_TIMEOUT_SECONDS = 60


class Gateway:
    """`with Gateway(tmp_path, config_for(provider.url)) as gateway:` — a running gateway; it is killed at the end.

    `arguments` are added to `serve`; `env` to its (otherwise nearly empty) environment. The inspector is off unless asked for.
    """

    def __init__(
        self,
        app_dir: Path,
        config: Mapping[str, Any] | None,
        *,
        inspect: bool = False,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.app_dir = app_dir
        self.url = ""
        self.console_url = ""
        self.inspector_url: str | None = None
        self._arguments = [*arguments] if inspect else ["--no-inspect", *arguments]
        self._extra_env = dict(env or {})
        self._earlier_logs = ""
        self._child: Child | None = None
        app_dir.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self.write_config(config)

    # -- life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill9()

    def start(self) -> None:
        """Start it and wait until everything listens. Raises RuntimeError, with what it printed, when it does not come up."""
        self._child = Child(
            self.command("serve", "--port", "0", "--console-port", "0", "--inspect-port", "0", *self._arguments), env=self.env()
        )
        try:
            line = self._child.wait_for_line(lambda text: text.startswith("ready "), START_TIMEOUT_SECONDS)
        except BaseException:
            self._child.kill9()
            raise
        found = _READY.match(line)
        if found is None:
            self._child.kill9()
            raise RuntimeError(f"the ready line is not as promised: {line!r}")
        self.url, self.console_url, self.inspector_url = found["gateway"], found["console"], found["inspector"]

    def kill9(self) -> None:
        """SIGKILL to supervisor, workers and console at once."""
        if self._child is not None:
            self._child.kill9()

    def terminate(self, timeout_seconds: float = 40) -> int:
        """SIGTERM to the supervisor; its exit code once everything has drained."""
        return self._running().terminate(timeout_seconds)

    def restart(self) -> None:
        """Kill what still runs and start again on new ports, with the same directory."""
        self.kill9()
        self._earlier_logs += self._running().log()
        self.start()

    def running(self) -> bool:
        return self._child is not None and self._child.running()

    @property
    def pid(self) -> int:
        """Of the supervisor; also the id of the process group."""
        return self._running().pid

    def log(self) -> str:
        """Everything printed since the first start."""
        return self._earlier_logs + (self._child.log() if self._child is not None else "")

    # -- its surroundings

    def write_config(self, config: Mapping[str, Any]) -> None:
        (self.app_dir / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    def command(self, *words: str) -> list[str]:
        """A command line of the project's program for this directory, as for `subprocess`."""
        return [sys.executable, str(ROOT / "run_gateway.py"), *words[:1], "--app-dir", str(self.app_dir), *words[1:]]

    def env(self) -> dict[str, str]:
        """A small clean environment: no proxies, no keys of whoever runs the tests."""
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return kept | {"PYTHONUNBUFFERED": "1"} | self._extra_env

    # -- its interfaces

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def admin_token(self) -> str:
        return (self.app_dir / "admin.token").read_text(encoding="utf-8").strip()

    def console(self) -> httpx.Client:
        """A client of the management API, logged in. Close it."""
        headers = {"authorization": f"Bearer {self.admin_token}"}
        return httpx.Client(base_url=self.console_url, headers=headers, trust_env=False, timeout=30)

    def client(self, key: str | None = VIRTUAL_KEY, **options: Any) -> httpx.Client:
        """A plain HTTP client of the gateway port that names itself by `x-bf-vk`. Close it."""
        headers = {"x-bf-vk": key} if key is not None else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30, **options)

    def quota(self, key: str = VIRTUAL_KEY) -> dict[str, Any]:
        """What the gateway tells the holder of a key about its budgets; numbers with a fraction are Decimals."""
        with self.client(key) as client:
            answer = client.get("/api/governance/virtual-keys/quota")
        answer.raise_for_status()
        quota: dict[str, Any] = json.loads(answer.text, parse_float=Decimal)
        return quota

    def spent_nanos(self, key: str = VIRTUAL_KEY) -> int:
        """What the key's first budget has used, in nano-dollars."""
        return int(Decimal(self.quota(key)["budgets"][0]["current_usage"]) * 10**9)

    def log_rows(self) -> list[dict[str, Any]]:
        """Every row of logs.db as a mapping, oldest first. Rows are written in batches: await them with `eventually`."""
        return read_log_rows(self.app_dir / "logs.db")

    def ca_files(self) -> tuple[Path, Path]:
        """(the CA alone, a bundle of the public roots and the CA), written beside the app directory."""
        answer = httpx.get(f"{self.url}/ca.pem", trust_env=False, timeout=30)
        answer.raise_for_status()
        alone, bundle = self.app_dir / "test-ca.pem", self.app_dir / "test-bundle.pem"
        alone.write_text(answer.text, encoding="utf-8")
        bundle.write_text(Path(certifi.where()).read_text(encoding="utf-8") + "\n" + answer.text, encoding="utf-8")
        return alone, bundle

    def proxy_env(self, key: str | None = VIRTUAL_KEY) -> dict[str, str]:
        """The whole environment of a program that goes through the gateway as its proxy, under `key`."""
        return self.env() | self.proxy_variables(key)

    def proxy_variables(self, key: str | None = VIRTUAL_KEY) -> dict[str, str]:
        """The variables alone that lead a program through the gateway."""
        alone, bundle = self.ca_files()
        credential = f"tests:{key}@" if key is not None else ""
        proxy = self.url.replace("://", f"://{credential}")
        return {
            "HTTPS_PROXY": proxy,
            "HTTP_PROXY": proxy,
            "NO_PROXY": "127.0.0.1,localhost",
            "SSL_CERT_FILE": str(bundle),
            "REQUESTS_CA_BUNDLE": str(bundle),
            "NODE_EXTRA_CA_CERTS": str(alone),
        }

    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError("the gateway was never started")
        return self._child
