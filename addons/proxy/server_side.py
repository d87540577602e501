"""The HTTP/1 side that talks to upstream servers."""

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError

from addons.proxy.flow_state import state_of
from addons.proxy.stream import Stream, enclosing_http_layer

MAX_RESPONSE_HEAD_BYTES = 256 * 1024


class ServerSide(_http1.Http1Client):
    """mitmproxy's HTTP/1 client that skips interim answers and knows when it was ended on purpose."""

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self.request is not None:
            if not self._skip_interim_answers():
                return
            if len(self.buf) > MAX_RESPONSE_HEAD_BYTES and b"\n\r\n" not in bytes(self.buf):
                yield from self._fail("Cannot parse HTTP response: headers too large")
                return
        if isinstance(event, events.ConnectionClosed) and (reason := self._cancel_reason()):
            yield from self._fail(reason)
            return
        yield from super().read_headers(event)

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.ConnectionClosed) and (reason := self._cancel_reason()):
            # An answer without a length would otherwise look complete.
            yield from self._fail(reason)
            return
        yield from super().read_body(event)

    def _skip_interim_answers(self) -> bool:
        """Drops 100, 102, 103 …, which mitmproxy would take for the answer. False while one is still incomplete."""
        while _is_interim(bytes(self.buf)[:12]):
            if self.buf.maybe_extract_lines() is None:
                return len(self.buf) > MAX_RESPONSE_HEAD_BYTES
        return True

    def _cancel_reason(self) -> str | None:
        """Why the gateway itself ended the exchange on this connection, if it did."""
        if self.stream_id is None:
            return None
        http_layer = enclosing_http_layer(self)
        stream = http_layer.streams.get(self.stream_id) if http_layer is not None else None
        flow = getattr(stream, "flow", None)
        return state_of(flow).cancel_reason if isinstance(stream, Stream) and flow is not None else None

    def _fail(self, reason: str) -> layer.CommandGenerator[None]:
        yield commands.CloseConnection(self.conn)
        if self.stream_id is not None:
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, reason, ErrorCode.GENERIC_SERVER_ERROR))


def _is_interim(start: bytes) -> bool:
    """Whether a status line (its first twelve bytes) is 1xx, but not 101, which is final for a WebSocket."""
    return start.startswith(b"HTTP/1.") and start[8:10] == b" 1" and start[9:12].isdigit() and start[9:12] != b"101"
