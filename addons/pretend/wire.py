"""A small HTTP/1.1 server on asyncio: quick for small requests, and able to misbehave on purpose."""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    529: "Overloaded",
}
_MAX_HEAD = 256 * 1024
_MAX_BODY = 512 * 1024 * 1024


class BadRequest(Exception):
    """The bytes that came are no HTTP/1.1 request."""


@dataclass(slots=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    path: str
    query: str
    headers: dict[str, str]
    """Lower-case names; repeated ones are joined with a comma."""
    head: bytes
    body: bytes
    keep_alive: bool

    def decoded_body(self) -> bytes:
        """The body without its content encoding. Raises BadRequest when it cannot be decoded."""
        encoding = self.headers.get("content-encoding", "identity").lower()
        try:
            if encoding in ("", "identity"):
                return self.body
            if encoding == "gzip":
                return gzip.decompress(self.body)
            if encoding == "deflate":
                return zlib.decompress(self.body)
            if encoding == "zstd":
                import zstandard

                return zstandard.ZstdDecompressor().decompressobj().decompress(self.body)
        except Exception as error:
            raise BadRequest(f"the body is not {encoding}") from error
        raise BadRequest(f"content-encoding {encoding} is not supported")


Handler = Callable[[Request, "Connection"], "Coroutine[Any, Any, None] | None"]
"""Answers a request at once (and returns None) or returns the coroutine that will."""


class Connection(asyncio.Protocol):
    """One client connection: requests are answered strictly one after the other."""

    def __init__(self, handler: Handler, open_connections: set["Connection"]) -> None:
        self._handler = handler
        self._open = open_connections
        self._buffer = bytearray()
        self._pending: Request | None = None
        self._body_left = 0
        self._chunked: bytearray | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone = False
        self._transport: asyncio.Transport | None = None

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        else:  # uvloop's transports are not subclasses
            self._transport = transport  # type: ignore[assignment]
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self._open.discard(self)
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._advance()

    # -- the handler's side

    def write(self, data: bytes) -> None:
        if not self.gone and self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        if not self._writable.is_set():
            await self._writable.wait()

    def close(self) -> None:
        """End the connection after what was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now; what was not sent yet is lost."""
        if self._transport is not None:
            self._transport.abort()

    def stop(self) -> "asyncio.Task[None] | None":
        """End the connection because the server stops; returns what it was doing, cancelled but not yet over."""
        task = self._task
        if task is not None:
            task.cancel()
        self.abort()
        return task

    # -- reading

    def _advance(self) -> None:
        while not self.gone and self._task is None:
            try:
                request = self._next_request()
            except BadRequest as error:
                self.write(response(400, b"text/plain", str(error).encode(), (b"connection: close",)))
                self.close()
                return
            if request is None:
                return
            work = self._handler(request, self)
            if work is None:
                self._after(request)
            else:
                self._task = asyncio.get_running_loop().create_task(self._run(work, request))

    async def _run(self, work: Coroutine[Any, Any, None], request: Request) -> None:
        try:
            await work
        except asyncio.CancelledError:
            if not self.gone:
                self.abort()
            return
        except Exception:
            self.abort()
            raise
        finally:
            self._task = None
        self._after(request)
        self._advance()

    def _after(self, request: Request) -> None:
        if not request.keep_alive:
            self.close()
            self.gone = True

    def _next_request(self) -> Request | None:
        if self._pending is None and not self._read_head():
            return None
        request = self._pending
        if request is None or not self._read_body(request):
            return None
        self._pending = None
        return request

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise BadRequest("the request head is too large")
            return False
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        request = _parse_head(head)
        headers = request.headers
        if headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunked = bytearray()
        else:
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > _MAX_BODY:
                raise BadRequest(f"content-length {length!r} is not acceptable")
            self._body_left = int(length)
        if headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._pending = request
        return True

    def _read_body(self, request: Request) -> bool:
        if self._chunked is not None:
            return self._read_chunked_body(request)
        if len(self._buffer) < self._body_left:
            return False
        if self._body_left:
            request.body = bytes(self._buffer[: self._body_left])
            del self._buffer[: self._body_left]
        return True

    def _read_chunked_body(self, request: Request) -> bool:
        body = self._chunked
        while body is not None:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0:
                return False
            try:
                size = int(bytes(self._buffer[:line_end]).split(b";")[0], 16)
            except ValueError:
                raise BadRequest("a chunk size is not hexadecimal") from None
            if size + len(body) > _MAX_BODY:
                raise BadRequest("the body is too large")
            end = line_end + 2 + size
            if len(self._buffer) < end + 2:
                return False
            body += self._buffer[line_end + 2 : end]
            del self._buffer[: end + 2]
            if size == 0:
                request.body = bytes(body)
                self._chunked = None
                return True
        return True


def _parse_head(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("the request line is not HTTP/1.1")
    method, target, version = parts
    headers: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if not separator:
            raise BadRequest("a header line has no colon")
        name = name.lower()
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, _, query = target.partition("?")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
    return Request(method, target, path, query, headers, head, b"", keep_alive)


def response_head(status: int, lines: tuple[bytes, ...]) -> bytes:
    """The bytes up to and including the empty line."""
    reason = _REASONS.get(status, "Unknown")
    return b"\r\n".join((f"HTTP/1.1 {status} {reason}".encode(), *lines, b"", b""))


def response(status: int, content_type: bytes, body: bytes, lines: tuple[bytes, ...] = ()) -> bytes:
    """A whole answer with a content length."""
    return response_head(status, (b"content-type: " + content_type, b"content-length: %d" % len(body), *lines)) + body


def chunk(data: bytes) -> bytes:
    """One HTTP chunk; of nothing, the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def listen(handler: Handler, host: str, port: int) -> tuple[asyncio.Server, set[Connection]]:
    """Start to listen. The set holds the connections that are open at any time."""
    open_connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(handler, open_connections), host, port, backlog=2048)
    return server, open_connections
