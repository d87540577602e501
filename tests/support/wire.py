"""A client that speaks HTTP/1.1 by hand over a plain socket, so that a test can send what no HTTP library would."""

import base64
import json
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TIMEOUT_SECONDS = 20.0
_END_OF_HEAD = b"\r\n\r\n"


class Ended(Exception):
    """The other side closed the connection before a whole answer had come."""


@dataclass
class Answer:
    """One HTTP answer as it was on the wire; header names in lower case, repeated ones joined with a comma."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw_body: bytes
    """The body with its chunk framing, when it came in chunks."""

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection. Close it, or use it in a `with`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT_SECONDS)
        self.sock = sock
        self._buffer = b""

    @classmethod
    def to(cls, host: str, port: int) -> Self:
        return cls(socket.create_connection((host, port), timeout=TIMEOUT_SECONDS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_all_it_takes(self, pieces: Iterable[bytes]) -> int:
        """Send until the other side will not have more; how many bytes were sent."""
        sent = 0
        try:
            for piece in pieces:
                self.sock.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        return sent

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes. Raises Ended."""
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`. Raises Ended."""
        while mark not in self._buffer:
            self._more()
        end = self._buffer.index(mark) + len(mark)
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        return data

    def rest(self) -> bytes:
        """Everything until the other side closes; a reset counts as closing."""
        try:
            while True:
                self._more()
        except Ended:
            data, self._buffer = self._buffer, b""
            return data

    def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer; `bodiless` for one to HEAD. Raises Ended."""
        lines = self.until(_END_OF_HEAD).decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if bodiless or status in (204, 304) or 100 <= status < 200:
            return Answer(status, headers, b"", b"")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            raw, body = self._chunks()
            return Answer(status, headers, body, raw)
        body = self.receive(int(headers["content-length"])) if "content-length" in headers else self.rest()
        return Answer(status, headers, body, body)

    def ask(self, request: bytes, *, bodiless: bool = False) -> Answer:
        self.send(request)
        return self.answer(bodiless=bodiless)

    def start_tls(self, name: str | None, ca_file: Path, *, alpn: list[str] | None = None) -> None:
        """Go on inside TLS; `name` is what the greeting asks for and what the certificate must be for.

        Raises ssl.SSLError or OSError when the handshake fails.
        """
        context = ssl.create_default_context(cafile=str(ca_file))
        if name is None:
            context.check_hostname = False
        if alpn is not None:
            context.set_alpn_protocols(alpn)
        self.sock = context.wrap_socket(self.sock, server_hostname=name)

    def _chunks(self) -> tuple[bytes, bytes]:
        raw = body = b""
        while True:
            line = self.until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            data = self.receive(size)
            raw += line + data + self.receive(2) if size else line + self.until(b"\r\n")
            body += data
            if not size:
                return raw, body

    def _more(self) -> None:
        try:
            data = self.sock.recv(256 * 1024)
        except (ConnectionError, ssl.SSLError) as fault:
            raise Ended(f"the connection broke after {self._buffer[:200]!r}: {fault}") from None
        if not data:
            raise Ended(f"the connection ended after {self._buffer[:200]!r}")
        self._buffer += data


def request(
    method: str,
    target: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
    *,
    host: str = "gateway.test",
) -> bytes:
    """A request as bytes. `Host` and, with a body, `Content-Length` are added unless given."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    given = {name.lower() for name, _ in pairs}
    if "host" not in given:
        pairs.insert(0, ("Host", host))
    if body is not None and not given & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join(lines).encode("latin-1") + _END_OF_HEAD + (body or b"")


def post_json(target: str, body: Any, headers: Mapping[str, str] = {}, *, host: str = "gateway.test") -> bytes:  # noqa: B006
    """A POST of `body` as JSON, or of its very bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", target, {"Content-Type": "application/json", **headers}, content, host=host)


def proxy_credentials(user: str, password: str = "") -> dict[str, str]:
    """The `Proxy-Authorization` header that HTTP libraries send for `http://user:password@proxy`."""
    return {"Proxy-Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def connect_request(host: str, port: int, headers: Mapping[str, str] = {}) -> bytes:  # noqa: B006
    return request("CONNECT", f"{host}:{port}", headers, host=f"{host}:{port}")


@contextmanager
def tunnel(
    gateway: tuple[str, int],
    host: str,
    port: int = 443,
    *,
    key: str | None = None,
    headers: Mapping[str, str] = {},  # noqa: B006
) -> Iterator[Wire]:
    """A connection through the proxy at `gateway`, with CONNECT answered 200. Raises AssertionError otherwise."""
    credentials = proxy_credentials("tests", key) if key is not None else {}
    with Wire.to(*gateway) as wire:
        wire.send(connect_request(host, port, {**credentials, **headers}))
        head = wire.answer(bodiless=True)
        if head.status != 200:
            raise AssertionError(f"CONNECT {host}:{port} was answered {head.status}")
        yield wire
