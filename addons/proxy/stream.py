"""One HTTP exchange inside mitmproxy: body limits, tunnels for CONNECT, clean cuts, and errors that cannot hang."""

import asyncio
import logging
import weakref
from typing import Any

from mitmproxy import flow as mitm_flow
from mitmproxy import http
from mitmproxy.connection import Connection, Server
from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import (
    DropStream,
    HttpLayer,
    HTTPMode,
    HttpStream,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import (
    HttpConnectedHook,
    HttpConnectErrorHook,
    HttpConnectHook,
    HttpErrorHook,
    HttpRequestHeadersHook,
)

from addons.proxy import faults
from addons.proxy.connections import cancel_transport, handler_of
from addons.proxy.flow_state import DefaultLimit, FlowState, RequestForm, state_of
from addons.proxy.limits import current_limits
from addons.proxy.tunnel import ConnectProbe, TunnelLayer, TunnelReady, dialled_connection, through_proxy

logger = logging.getLogger(__name__)


class CutEnd(ResponseEndOfMessage):
    """The end of an answer whose terminator the client has already been sent."""


def enclosing_http_layer(of: layer.Layer) -> HttpLayer | None:
    """The innermost HTTP layer around a layer."""
    return next((outer for outer in reversed(of.context.layers) if isinstance(outer, HttpLayer)), None)


class Stream(HttpStream):
    """mitmproxy's state machine for one request and its answer."""

    refused = False
    """The request body was too large; the rest of it is thrown away as it arrives."""
    undecided = True
    """No hook has had its say on this request yet, so it is not known whether its body is buffered."""
    governs_connect = False
    """This is a CONNECT on which `tunnel.decide` has spoken."""

    # -- the request -------------------------------------------------------------------------------------------------

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Runs mitmproxy's own state, with our say before and after the first hook."""
        form: RequestForm = "absolute" if event.replay_flow is not None else _form_of(event.request)
        if event.replay_flow is None:
            self._prepare_head(event.request, form)
        stock = super().state_wait_for_request_headers(event)
        reply: Any = None
        while True:
            try:
                command = stock.send(reply)
            except StopIteration:
                return
            if isinstance(command, HttpRequestHeadersHook | HttpConnectHook):
                self._note(form)
            reply = yield command
            if isinstance(command, HttpRequestHeadersHook):
                self.undecided = False
                # An error is set when mitmproxy is rejecting the request anyway.
                if not self.flow.error and self._declares_too_much(event):
                    stock.close()
                    yield from self._refuse_body()
                    return

    def _note(self, form: RequestForm) -> None:
        state = self._state()
        state.form = form
        state.stream = weakref.ref(self)
        for outer in self.context.layers:
            if isinstance(outer, HttpStream) and outer is not self:
                state.connect_target = (outer.flow.request.host, outer.flow.request.port)

    def _prepare_head(self, request: http.Request, form: RequestForm) -> None:
        # No h2c: the upgrade must be gone before a streamed request is sent on, which is before the `request` hook.
        if "h2c" in request.headers.get("upgrade", "").lower():
            for name in ("upgrade", "connection", "http2-settings"):
                request.headers.pop(name, None)
        # The target of an absolute request line overrules the Host header (RFC 9112 section 3.2.2). Inside a CONNECT
        # mitmproxy would send both on as they are.
        if form == "absolute":
            request.host_header = request.authority.rpartition("@")[2]
            request.authority = ""
        # HTTP/1.0 needs no Host header; such a request is meant for the gateway itself.
        if form == "origin" and self.mode is HTTPMode.regular and request.http_version == "HTTP/1.0" and not request.host_header:
            request.data.host, request.data.port = self.context.client.sockname[:2]
            request.data.scheme = b"https" if self.context.client.tls else b"http"

    def _state(self) -> FlowState:
        return state_of(self.flow)

    def body_limit(self) -> int | None:
        """The largest buffered body for this request in bytes; None for no limit."""
        own = self._state().body_limit
        return current_limits().max_body_bytes if isinstance(own, DefaultLimit) else own

    def _declares_too_much(self, event: RequestHeaders) -> bool:
        client_side = self._parent().connections.get(self.context.client)
        if getattr(client_side, "overflowed", False):
            return True
        limit = self.body_limit()
        if event.end_stream or self.flow.request.stream or limit is None:
            return False
        size = expected_http_body_size(self.flow.request)
        return size is not None and size > limit

    def _refuse_body(self) -> layer.CommandGenerator[None]:
        message = f"The request body is larger than {self.body_limit()} bytes."
        self.refused = True
        self.request_body_buf.clear()  # type: ignore[no-untyped-call]
        self.client_state = self.server_state = self.state_errored
        self.flow.error = mitm_flow.Error(message)
        yield HttpErrorHook(self.flow)
        self.flow.live = False
        yield SendHttp(ResponseProtocolError(self.stream_id, message, ErrorCode.REQUEST_TOO_LARGE), self.context.client)

    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, RequestData):
            if self.flow.response is not None:
                return  # decided at the head: what still comes is read and forgotten, not kept
            limit = self.body_limit()
            if limit is not None and len(self.request_body_buf) + len(event.data) > limit:
                yield from self._refuse_body()
                return
        yield from super().state_consume_request_body(event)

    # -- the answer --------------------------------------------------------------------------------------------------

    def state_stream_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        state = self._state()
        if state.cut:
            if isinstance(event, ResponseEndOfMessage):
                # The answer ended in the very read in which it was cut.
                yield from self._finish_cut(state.cancel_reason or "cut")
            return
        state.last_chunk_at = asyncio.get_running_loop().time()
        try:
            yield from super().state_stream_response_body(event)
        except Exception:
            # A stream callable that raises would leave the client waiting for ever.
            logger.exception("Reading a streamed answer failed; the exchange was ended.")
            yield commands.CloseConnection(self.context.server)
            yield from super().handle_protocol_error(
                ResponseProtocolError(self.stream_id, "the gateway failed to read the answer", ErrorCode.GENERIC_SERVER_ERROR)
            )

    def state_consume_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        self._state().last_chunk_at = asyncio.get_running_loop().time()
        yield from super().state_consume_response_body(event)

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> layer.CommandGenerator[None]:
        if (
            isinstance(event, ResponseProtocolError)
            and self._state().cut
            and self.client_state != self.state_errored
            and self.server_state == self.state_stream_response_body
            and is_chunked(self.flow)
        ):
            yield from self._finish_cut(event.message)
        else:
            yield from super().handle_protocol_error(event)

    def _finish_cut(self, reason: str) -> layer.CommandGenerator[None]:
        """Fires `error`; the client has seen a proper end already, so its connection goes on (or closes, see cut_stream)."""
        self.server_state = self.state_errored
        self.flow.error = mitm_flow.Error(reason)
        yield HttpErrorHook(self.flow)
        self.flow.live = False
        yield DropStream(self.stream_id)
        if is_chunked(self.flow):
            yield SendHttp(CutEnd(self.stream_id), self.context.client)
        else:
            yield commands.CloseConnection(self.context.client)

    def upstream_transports(self, open_connections: list[Connection]) -> list[Connection]:
        """Which of the handler's open connections carry this exchange upstream: one, or none when it has not begun."""
        if self.governs_connect and self.child_layer is not None:
            target: Connection | None = dialled_connection(self.child_layer)
        else:
            target = self._upstream_connection()
        if target is None:
            return []
        # Behind an upstream proxy the open socket is the proxy's; both are driven by the same layer.
        driver = self._parent().connections.get(target)
        return [
            connection
            for connection in open_connections
            if isinstance(connection, Server)
            and (connection is target or (driver is not None and self._parent().connections.get(connection) is driver))
        ]

    def _upstream_connection(self) -> Connection | None:
        parent = self._parent()
        for connection, waiting in parent.waiting_for_establishment.items():
            if any(parent.command_sources.get(command) is self for command in waiting):
                return connection
        # Until a connection is established the flow holds a placeholder that was never opened.
        return self.flow.server_conn if self.flow.server_conn.timestamp_start is not None else None

    def _parent(self) -> HttpLayer:
        parent = enclosing_http_layer(self)
        if parent is None:
            raise RuntimeError("an HTTP stream outside an HTTP layer")
        return parent

    # -- CONNECT -----------------------------------------------------------------------------------------------------

    def handle_connect_regular(self) -> layer.CommandGenerator[None]:
        """Asks, before CONNECT is answered, whether it becomes a raw tunnel; if so dials first and answers then.

        Asking when the first bytes arrive, as mitmproxy does, would deadlock protocols in which the server speaks first.
        """
        self._own_server()
        if self.flow.response is None:
            probe = ConnectProbe(self.context.fork())
            yield layer.NextLayerHook(probe)
            self.governs_connect = probe.decided
            if isinstance(probe.layer, TunnelLayer):
                yield from self._dial(probe.layer)
                return
        yield from super().handle_connect_regular()  # type: ignore[no-untyped-call]

    def _own_server(self) -> None:
        """Gives this CONNECT a server connection of its own: the one it got is shared by every request of the client's
        connection, and one that failed cannot be opened again."""
        shared = self.context.server
        self.context.server = Server(address=shared.address)
        self.context.server.via = shared.via
        self.flow.server_conn = self.context.server

    def _dial(self, tunnel: TunnelLayer) -> layer.CommandGenerator[None]:
        self.child_layer = through_proxy(tunnel)
        self._handle_event = self._dialling
        self._dial_timer = asyncio.get_running_loop().call_later(
            current_limits().connect_timeout_seconds, self._dial_too_slow, dialled_connection(self.child_layer)
        )
        yield from self._relay_while_dialling(self.child_layer.handle_event(events.Start()))

    def _dial_too_slow(self, connection: Connection) -> None:
        self._state().timed_out = "connect"
        handler = handler_of(self.context.client)
        if handler is not None:
            cancel_transport(handler, connection, "connecting took too long")

    def _dialling(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, RequestProtocolError) or self.child_layer is None:
            return  # The client left; its handler ends the dialling.
        yield from self._relay_while_dialling(self.child_layer.handle_event(event))

    def _relay_while_dialling(self, from_child: layer.CommandGenerator[None]) -> layer.CommandGenerator[None]:
        for command in from_child:
            if isinstance(command, TunnelReady):
                yield from self._answer_connect(command.error)
            else:
                yield command

    def _answer_connect(self, error: str | None) -> layer.CommandGenerator[None]:
        self._dial_timer.cancel()
        if error is None:
            self._handle_event = self._tunnel
            self.flow.response = http.Response.make(200, b"", http.Headers())
            self.flow.response.reason = "Connection established"
            self.flow.response.headers.clear()
            yield HttpConnectedHook(self.flow)
        else:
            self._handle_event = self.state_errored
            request = self.flow.request
            fault = faults.upstream_fault(self.flow, error, request.host, request.port)
            self.flow.response = faults.response_object(fault)
            self.flow.live = False
            yield HttpConnectErrorHook(self.flow)
        content = self.flow.response.raw_content
        yield SendHttp(ResponseHeaders(self.stream_id, self.flow.response, not content), self.context.client)
        if content:
            yield SendHttp(ResponseData(self.stream_id, content), self.context.client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def _tunnel(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Passes bytes and half-closes as they are; mitmproxy's own `passthrough` turns a half-close into a close."""
        if self.child_layer is None or isinstance(event, RequestProtocolError):
            return
        if isinstance(event, RequestData):
            event = events.DataReceived(self.context.client, event.data)
        elif isinstance(event, RequestEndOfMessage):
            event = events.ConnectionClosed(self.context.client)
        yield from self.child_layer.handle_event(event)


def _form_of(request: http.Request) -> RequestForm:
    """How the request line named its target. Only here: the authority is blanked before the first hook."""
    if request.method.upper() == "CONNECT":
        return "authority"
    return "absolute" if request.data.authority and not (request.is_http2 or request.is_http3) else "origin"


def is_chunked(flow: http.HTTPFlow) -> bool:
    """Whether this flow's answer is sent to the client in chunks."""
    return flow.response is not None and "chunked" in flow.response.headers.get("transfer-encoding", "").lower()
