"""The HTTP/1 side that talks to clients: bounded heads and bodies, error pages as JSON, lingering closes."""

import re
from functools import cached_property

import h11
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import HttpLayer, _http1
from mitmproxy.proxy.layers.http._events import ErrorCode, HttpEvent, ResponseHeaders, ResponseProtocolError

from addons.proxy import faults
from addons.proxy.connections import handler_of
from addons.proxy.limits import current_limits
from addons.proxy.stream import CutEnd, Stream, enclosing_http_layer

LINGER_SECONDS = 5.0
"""How long an upload that was refused is read and thrown away, so that the refusal is not lost in a reset connection."""

UNDECIDED_BYTES = 4 * 1024 * 1024
"""How much more than the largest body may wait for the first hook, which decides whether the body is streamed on."""

_END_OF_HEAD = re.compile(rb"\n\r?\n")


class ClientSide(_http1.Http1Server):
    """mitmproxy's HTTP/1 server with bounds on everything a client can make it keep."""

    overflowed = False
    """More body arrived than may be kept while the request's first hook was still running."""
    _undecided_bytes = 0
    _lingering = False
    _head_refused = False

    @cached_property
    def _http_layer(self) -> HttpLayer | None:
        return enclosing_http_layer(self)

    def _stream(self) -> Stream | None:
        stream = self._http_layer.streams.get(self.stream_id) if self._http_layer is not None else None
        return stream if isinstance(stream, Stream) else None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Wakeup):
            yield commands.CloseConnection(self.conn)
        else:
            yield from super()._handle_event(event)

    # -- receiving ---------------------------------------------------------------------------------------------------

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        if self._head_refused:
            self.buf = ReceiveBuffer()
            if isinstance(event, events.ConnectionClosed):
                yield commands.CloseConnection(self.conn)
            return
        if isinstance(event, events.DataReceived):
            while bytes(self.buf)[:2] == b"\r\n":
                # Allowed before a request line (RFC 9112 section 2.2); mitmproxy would wait for more data after one.
                self.buf.maybe_extract_at_most(2)
            if self._head_too_large():
                yield from self._refuse_head()
                return
        self.overflowed, self._undecided_bytes = False, 0
        yield from super().read_headers(event)
        self._watch_head()

    def _head_too_large(self) -> bool:
        limit = current_limits().max_header_bytes
        if len(self.buf) <= limit:
            return False
        end = _END_OF_HEAD.search(bytes(self.buf))
        return end is None or end.end() > limit

    def _refuse_head(self) -> layer.CommandGenerator[None]:
        self._head_refused = True
        self.buf = ReceiveBuffer()
        yield commands.SendData(self.conn, faults.response_bytes(faults.headers_too_large(current_limits().max_header_bytes)))
        yield commands.RequestWakeup(LINGER_SECONDS)

    def _watch_head(self) -> None:
        """A head that has begun must end in time; between requests a connection may be idle."""
        handler = handler_of(self.context.client)
        if handler is None:
            return
        if self.state != self.read_headers:
            handler.stop_head_timer()
        elif self.buf:
            handler.start_head_timer()

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        stream = self._stream()
        if stream is not None and stream.undecided and isinstance(event, events.DataReceived):
            # Not the event's data: the first one holds the head, too.
            self._undecided_bytes += len(self.buf)
            self.overflowed = self.overflowed or self._undecided_bytes > (current_limits().max_body_bytes + UNDECIDED_BYTES)
        if self._lingering or self.overflowed or (stream is not None and stream.refused):
            self.request_done = self.request_done or self._upload_is_over(event)
            if isinstance(event, events.ConnectionClosed) or (self._lingering and self.request_done):
                yield commands.CloseConnection(self.conn)
            return
        for command in super().read_body(event):
            if isinstance(command, commands.CloseConnection) and isinstance(event, events.DataReceived) and self.response is None:
                # mitmproxy closes without a word when the chunks of a body are none.
                flow = stream.flow if stream is not None else None
                fault = faults.ProtocolFault(
                    400, "bad_request", "The request body is not valid HTTP.", flow, faults.path_of(self.request)
                )
                yield commands.SendData(self.conn, faults.response_bytes(fault))
            yield command

    def _upload_is_over(self, event: events.Event) -> bool:
        """Reads and forgets what arrived of a refused body."""
        if not isinstance(event, events.DataReceived):
            return True
        while True:
            try:
                part = self.body_reader(self.buf)
            except h11.ProtocolError:
                return True
            if part is None or isinstance(part, h11.EndOfMessage):
                return part is not None

    def wait(self, event: events.Event) -> layer.CommandGenerator[None]:
        limits = current_limits()
        if len(self.buf) > limits.max_body_bytes + limits.max_header_bytes:
            # A client that sends on and on without reading its answers would be buffered without bound.
            self.buf = ReceiveBuffer()
            yield commands.CloseConnection(self.conn)
            return
        yield from super().wait(event)

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        if isinstance(event, ResponseProtocolError):
            yield from self._send_fault(event)
        elif isinstance(event, CutEnd):
            yield from self.mark_done(response=True)
        else:
            yield from super().send(event)
            if isinstance(event, ResponseHeaders) and _is_interim(event.response):
                # mitmproxy takes its own 100 Continue for the answer and would send no error page after it.
                self.response = None

    def _send_fault(self, event: ResponseProtocolError) -> layer.CommandGenerator[None]:
        if not self.conn.state & ConnectionState.CAN_WRITE:
            return
        status = event.code.http_status_code()
        if status is not None and self.response is None:
            bodiless = self.request is not None and self.request.method.upper() == "HEAD"
            yield commands.SendData(self.conn, faults.response_bytes(self._fault(event), without_body=bodiless))
            if not self.request_done:
                self._lingering = True
                yield commands.RequestWakeup(LINGER_SECONDS)
                return
        yield commands.CloseConnection(self.conn)

    def _fault(self, event: ResponseProtocolError) -> faults.ProtocolFault:
        stream = self._stream()
        if stream is None:
            return faults.bad_request("The request could not be handled.", self.request)
        flow = stream.flow
        if event.code is ErrorCode.REQUEST_TOO_LARGE:
            return faults.body_too_large(flow, stream.body_limit() or 0)
        if event.code.http_status_code() == 400:
            message = _BAD_REQUESTS.get(event.code, "The request is not valid HTTP.")
            return faults.ProtocolFault(400, "bad_request", message, flow, faults.path_of(flow.request))
        return faults.upstream_fault(flow, event.message, flow.request.host, flow.request.port)


_BAD_REQUESTS = {
    ErrorCode.DESTINATION_UNKNOWN: "The request has no valid Host header, so it is not known where it should go.",
    ErrorCode.REQUEST_VALIDATION_FAILED: "The request's headers are malformed or contradict each other.",
}


def _is_interim(response: http.Response) -> bool:
    return 100 <= response.status_code < 200 and response.status_code != 101


def make_error_response(status_code: int, message: str = "") -> bytes:
    """Stands in for mitmproxy's function of that name, which quotes the request line, keys and all, in HTML."""
    return faults.response_bytes(faults.bad_request("The request is not valid HTTP.", None))
