"""Small servers for what the gateway connects to: each accepts connections on a thread and does one thing with each of them."""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.wire import TIMEOUT_SECONDS, Ended, Wire

type Talk = Callable[[Wire], None]


class Server:
    """`with Server(talk) as server:` listens on 127.0.0.1 and calls `talk` for each connection, on a thread of its own.

    With `context` the connections are TLS. `connections` counts what was accepted; `received` is all that `read_request` read.
    """

    def __init__(self, talk: Talk, *, context: ssl.SSLContext | None = None) -> None:
        self._talk = talk
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._wires: list[Wire] = []
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
        for wire in self._wires:
            with suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, Ended):
            if self._context is not None:
                connection.settimeout(TIMEOUT_SECONDS)
                connection = self._context.wrap_socket(connection, server_side=True)
            with Wire(connection) as wire:
                self._wires.append(wire)
                self._talk(wire)


def read_request(wire: Wire) -> tuple[bytes, bytes]:
    """Head and body (by its content length) of the next request. Raises Ended."""
    head = wire.until(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head, wire.receive(int(line.split(b":")[1]))
    return head, b""


def answering(data: bytes) -> Talk:
    """Reads one request, sends exactly `data`, closes."""

    def talk(wire: Wire) -> None:
        read_request(wire)
        wire.send(data)

    return talk


def silent(wire: Wire) -> None:
    """Accepts and never says a word, until the other side leaves."""
    wire.rest()


def closing(wire: Wire) -> None:
    """Reads one request and closes."""
    read_request(wire)


def unused_port() -> int:
    """A port on which nobody listens (until somebody takes it)."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
