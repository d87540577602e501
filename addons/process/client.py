"""Reaching a running gateway from the command line: who runs in an app directory, and calls to its management API."""

import http.client
import json
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from addons.process.locks import process_exists
from store.config_store.json_text import dumps as exact_dumps
from store.errors import Conflict, NotFound, UserError

type Json = dict[str, Any]
"""A JSON object; numbers with a point are Decimal."""

_RUN_FILE = "run.json"
_TOKEN_FILE = "admin.token"
_TIMEOUT_SECONDS = 10.0
_PROBE_SECONDS = 3.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class GatewayUnreachable(UserError):
    """A gateway owns the app directory, or should, and does not answer."""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """What `run.json` tells of the gateway that owns an app directory, and the token that opens its console."""

    app_dir: Path
    pid: int
    gateway: str
    console: str
    inspector: str | None
    version: str
    started_at: str
    token: str | None = field(default=None, repr=False)
    workers: str | None = None
    """How many of them serve, in words, as the console's health page tells; None when it does not."""

    def client(self) -> "ConsoleClient":
        return ConsoleClient(self.console, self.token, self.app_dir)


def read_run_file(app_dir: Path) -> RunningGateway | None:
    """The gateway that last wrote `run.json`; None when there is none, or the file is torn. It may have died since."""
    try:
        stored = json.loads((app_dir / _RUN_FILE).read_text("utf-8"))
        return RunningGateway(
            app_dir=app_dir,
            pid=int(stored["pid"]),
            gateway=_reachable(str(stored["gateway"])),
            console=_reachable(str(stored["console"])),
            inspector=_reachable(str(stored["inspector"])) if stored.get("inspector") else None,
            version=str(stored.get("version", "")),
            started_at=str(stored.get("started_at", "")),
            token=read_admin_token(app_dir),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_admin_token(app_dir: Path) -> str | None:
    """The token that opens the console, or None when the directory has none (yet) or it is not ours to read."""
    try:
        return (app_dir / _TOKEN_FILE).read_text("utf-8").strip() or None
    except (OSError, ValueError):
        return None


def find_running(app_dir: Path) -> RunningGateway | None:
    """The live gateway of an app directory, or None.

    A `run.json` left behind by a killed gateway counts as none: its process is gone, or nothing listens where it says.
    Raises GatewayUnreachable when the process lives and its console accepts connections but does not answer.
    """
    found = read_run_file(app_dir)
    if found is None or not process_exists(found.pid):
        return None
    try:
        _, health = ConsoleClient(found.console, None, app_dir, timeout_seconds=_PROBE_SECONDS).exchange("GET", "/health", None)
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException):
        raise GatewayUnreachable(
            f"the gateway of {app_dir} (process {found.pid}) does not answer at {found.console}:"
            " wait a moment, or stop it and start it again"
        ) from None
    return replace(found, workers=_workers(health))


def _workers(health: bytes) -> str | None:
    answer = _decode(health)
    components = answer.get("components") if isinstance(answer, dict) else None
    words = components.get("workers") if isinstance(components, dict) else None
    return words if isinstance(words, str) else None


class ConsoleClient:
    """Calls to the management API. Speaks to the given address directly: proxy variables of the caller have no say."""

    def __init__(self, console_url: str, token: str | None, app_dir: Path, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._address = urlsplit(console_url)
        self._url = console_url
        self._token = token
        self._app_dir = app_dir
        self._timeout_seconds = timeout_seconds

    def patient(self, seconds: float) -> "ConsoleClient":
        """The same client for what may take that long."""
        return ConsoleClient(self._url, self._token, self._app_dir, seconds)

    def get(self, path: str) -> Json:
        return self.call("GET", path)

    def text(self, path: str) -> str:
        """The text that stands at an address of the API. Raises as `call`."""
        return self._answer("GET", path, None).decode("utf-8")

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """One API call; the decoded JSON object of a 2xx answer.

        Raises NotFound (404), Conflict (409, 412), UserError with the server's own message for other 4xx, and GatewayUnreachable
        when nobody answers or the server is at fault.
        """
        answer = _decode(self._answer(method, path, body))
        return answer if isinstance(answer, dict) else {"value": answer}

    def _answer(self, method: str, path: str, body: Json | None) -> bytes:
        try:
            status, text = self.exchange(method, path, body)
        except (OSError, http.client.HTTPException) as fault:
            raise GatewayUnreachable(f"the console at {self._url} does not answer: {fault or type(fault).__name__}") from None
        if 200 <= status < 300:
            return text
        raise self._error(status, _decode(text))

    def exchange(self, method: str, path: str, body: Json | None) -> tuple[int, bytes]:
        """One HTTP exchange: (status, body). Raises OSError and http.client.HTTPException."""
        kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._address.hostname or "", self._address.port, timeout=self._timeout_seconds)
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        content = None
        if body is not None:
            content = _encoded(body)
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, self._address.path.rstrip("/") + path, body=content, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _error(self, status: int, answer: Any) -> UserError:
        message = _message(answer) or f"the console at {self._url} answered {status}"
        if status == 401:
            where = self._app_dir / _TOKEN_FILE
            return UserError(f"the console at {self._url} does not accept the token in {where}: is it of another app directory?")
        if status == 404:
            return NotFound(message)
        if status in (409, 412):
            return Conflict(message)
        if status >= 500:
            return GatewayUnreachable(message)
        return UserError(message)


def _encoded(body: Json) -> bytes:
    try:
        return json.dumps(body).encode("utf-8")
    except TypeError:  # amounts, which are written digit by digit
        return exact_dumps(body)


def _decode(text: bytes) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except ValueError:
        return None


def _message(answer: Any) -> str | None:
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    message = error.get("message") if isinstance(error, dict) else answer.get("message")
    return message if isinstance(message, str) and message else None


def _reachable(url: str) -> str:
    """An address to connect to: "every interface" is no destination on all systems."""
    parts = urlsplit(url)
    host = _ANY_ADDRESS.get(parts.hostname or "")
    if host is None:
        return url.rstrip("/")
    shown = f"[{host}]" if ":" in host else host
    return urlunsplit(parts._replace(netloc=f"{shown}:{parts.port}" if parts.port else shown)).rstrip("/")
