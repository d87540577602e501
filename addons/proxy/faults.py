"""Every error page mitmproxy would write as HTML, written as JSON by one replaceable function."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.net.http import status_codes

from addons.proxy.flow_state import state_of

logger = logging.getLogger(__name__)

DENIED_PREFIX = "address denied: "
"""How the reason of a connection refused by the egress rules begins; mitmproxy carries reasons as plain text."""

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class ProtocolFault:
    """An exchange that ends in an error page of the proxy core rather than in an answer or a refusal.

    `code` is one of bad_request, request_too_large, headers_too_large, upstream_unreachable, upstream_timeout,
    address_denied, gateway_unavailable. `flow` is None when no request could be parsed; `path` is without its query.
    """

    status: int
    code: str
    message: str
    flow: http.HTTPFlow | None
    path: str | None


FaultWriter = Callable[[ProtocolFault], tuple[int, Headers, bytes]]


def plain_fault(fault: ProtocolFault) -> tuple[int, Headers, bytes]:
    """The page used until a writer is set, and whenever the writer fails: OpenAI-shaped JSON."""
    error = {"message": fault.message, "type": fault.code, "code": fault.code, "param": None}
    body = {
        "type": fault.code,
        "is_bifrost_error": False,
        "status_code": fault.status,
        "message": fault.message,
        "error": error,
    }
    return fault.status, [(b"content-type", b"application/json")], json.dumps(body).encode()


_writer: FaultWriter = plain_fault


def set_fault_writer(writer: FaultWriter) -> None:
    """Sets who writes error pages: a function from a fault to status, headers and body.

    Framing (`content-length`, `connection: close`) is added here. A writer that raises is replaced by the plain page.
    """
    global _writer
    _writer = writer


def written(fault: ProtocolFault) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the page for this fault, without framing."""
    try:
        return _writer(fault)
    except Exception:
        logger.exception("The writer of error pages failed; the plain page was sent instead.")
        return plain_fault(fault)


def response_bytes(fault: ProtocolFault, *, without_body: bool = False) -> bytes:
    """The whole HTTP/1.1 response for a connection that is closed after it."""
    status, headers, body = written(fault)
    reason = status_codes.RESPONSES.get(status, "Error").encode()
    lines = [b"HTTP/1.1 %d %s" % (status, reason)]
    lines += [b"%s: %s" % header for header in framed(headers, body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if without_body else body)


def response_object(fault: ProtocolFault) -> http.Response:
    """The same page as mitmproxy's own response object, for a connection that goes on."""
    status, headers, body = written(fault)
    return http.Response.make(status, body, http.Headers(headers))


def framed(headers: Headers, body: bytes) -> Headers:
    """The writer's headers with the framing of a last response on its connection."""
    ours = {b"content-length", b"connection", b"transfer-encoding"}
    kept = [(name, value) for name, value in headers if name.lower() not in ours]
    return [*kept, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]


def path_of(request: http.Request | None) -> str | None:
    """The request's path without the query, which may hold a key."""
    return None if request is None else request.path.partition("?")[0]


def bad_request(message: str, request: http.Request | None = None) -> ProtocolFault:
    return ProtocolFault(400, "bad_request", message, None, path_of(request))


def headers_too_large(limit_bytes: int) -> ProtocolFault:
    message = f"The request's headers are larger than {limit_bytes} bytes; send fewer or shorter headers."
    return ProtocolFault(431, "headers_too_large", message, None, None)


def body_too_large(flow: http.HTTPFlow, limit_bytes: int) -> ProtocolFault:
    message = f"The request body is larger than the {limit_bytes} bytes allowed here."
    return ProtocolFault(413, "request_too_large", message, flow, path_of(flow.request))


def too_many_connections(limit: int) -> ProtocolFault:
    message = f"The gateway already holds {limit} connections, the most it is configured for; try again later."
    return ProtocolFault(503, "gateway_unavailable", message, None, None)


def upstream_fault(flow: http.HTTPFlow, reason: str, host: str, port: int) -> ProtocolFault:
    """The fault for an upstream server that gave no usable answer; `reason` is mitmproxy's own text for it.

    The text is not passed on when it could quote what the server sent.
    """
    path = path_of(flow.request)
    target = f"{host}:{port}"
    if DENIED_PREFIX in reason or "Request destination unknown" in reason:
        # The second is mitmproxy's own text for a request that would come back to it.
        denied = reason.partition(DENIED_PREFIX)[2] or "that is one of its own ports"
        return ProtocolFault(403, "address_denied", f"The gateway does not connect to {target}: {denied}.", flow, path)
    kind = state_of(flow).timed_out
    if kind is not None:
        return ProtocolFault(504, "upstream_timeout", f"{target} {_TIMEOUTS[kind]}.", flow, path)
    if reason == "server closed connection":
        message = f"{target} closed the connection before it answered."
    elif reason.startswith(("Cannot parse HTTP response", "unexpected server response", "HTTP/1 protocol error")):
        message = f"{target} sent an incomplete or malformed answer."
    elif "from server, refusing" in reason:
        message = f"{target} sent headers that are not valid HTTP."
    else:
        message = f"{target} cannot be reached: {reason}."
    return ProtocolFault(502, "upstream_unreachable", message, flow, path)


_TIMEOUTS = {
    "connect": "did not accept a connection in time",
    "first_byte": "did not begin to answer in time",
    "idle": "stopped sending its answer",
}
