"""Puts the body of an answer on the wire: chunked, by length or until the end, compressed when told so."""

import zlib

from addons.pretend.plan import Plan
from addons.pretend.wire import Connection, Request, chunk, response_head


class BodyWriter:
    """Puts a body on the wire in the framing that was asked for, compressed when told so."""

    def __init__(
        self, connection: Connection, plan: Plan, request: Request, content_type: bytes, headers: tuple[bytes, ...]
    ) -> None:
        behaviour = plan.behaviour
        self._connection = connection
        self._request = request
        self._framing = behaviour.framing or ("chunked" if plan.stream else "length")
        if plan.stream and self._framing == "length":
            self._framing = "chunked"
        accepts = "gzip" in request.headers.get("accept-encoding", "")
        zipped = behaviour.gzip == "force" or (behaviour.gzip == "auto" and accepts)
        self._zip = zlib.compressobj(wbits=31) if zipped else None
        lines = (b"content-type: " + content_type, *headers)
        if zipped:
            lines += (b"content-encoding: gzip",)
        if plan.stream:
            lines += (b"cache-control: no-cache",)
        self._lines = lines

    def whole(self, body: bytes) -> None:
        if self._framing == "length":
            body = self._squeeze(body, last=True)
            self._connection.write(response_head(200, (*self._lines, b"content-length: %d" % len(body))) + body)
            return
        self.start()
        self.write(body)
        self.end()

    def half(self, body: bytes) -> None:
        """A head that promises the whole body, and half of it."""
        if self._framing == "length":
            body = self._squeeze(body, last=True)
            self._connection.write(response_head(200, (*self._lines, b"content-length: %d" % len(body))))
            self._connection.write(body[: len(body) // 2])
            return
        self.start()
        self.write(body[: len(body) // 2])

    def start(self) -> None:
        framing = b"transfer-encoding: chunked" if self._framing == "chunked" else b"connection: close"
        self._connection.write(response_head(200, (*self._lines, framing)))

    def write(self, data: bytes) -> None:
        data = self._squeeze(data, last=False)
        if data:
            self._connection.write(chunk(data) if self._framing == "chunked" else data)

    def write_all(self, parts: list[bytes]) -> None:
        if self._zip is None and self._framing == "chunked":
            self._connection.write(b"".join([chunk(part) for part in parts]))
            return
        for part in parts:
            self.write(part)

    def end(self) -> None:
        if self._zip is not None:
            rest = self._zip.flush()
            self._connection.write(chunk(rest) if self._framing == "chunked" else rest)
        if self._framing == "chunked":
            self._connection.write(chunk(b""))
        elif self._framing == "close":
            self._request.keep_alive = False

    def _squeeze(self, data: bytes, last: bool) -> bytes:
        if self._zip is None:
            return data
        return self._zip.compress(data) + self._zip.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
