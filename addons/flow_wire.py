"""One flow as a frame of bytes: a redacted, bounded picture that worker processes send to the inspector.

A frame is a length (4 bytes, big endian, of what follows), the length of the head, the head as JSON, the kept request body and
the kept response body. Header bytes travel as Latin-1 text, which keeps every byte. Packing, in the worker, takes out what is
known to be secret; unpacking, where time is cheaper, also what merely looks like a key: nothing is shown that has not been
through both.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import orjson
from mitmproxy import connection, http
from mitmproxy.flow import Error

from addons.redact import is_secret_header, redact_bytes, redact_parameters, without_credential, without_secrets

VERSION = 1
_LENGTHS = struct.Struct(">II")
LENGTH_BYTES = 4
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A longer frame is a fault of the sender."""
FULL_BODY_BYTES = 8 * 1024 * 1024
"""What the body policy `full` means here: nothing in the inspector is unbounded."""
_CUT_MARGIN = 4096
"""Redaction looks this far past the cut, so that no part of a secret is left standing at the edge."""
_HIDDEN_METADATA = frozenset({"proxyauth"})
"""mitmproxy keeps the caller's proxy password under this name."""
_MAX_TEXT = 4096


class BadFrame(ValueError):
    """The bytes are not a frame of this version."""


def body_limit(policy: str | int) -> int:
    """Bytes of each body to keep: `none` → 0, `full` → the inspector's own bound, else a count of bytes.

    Raises ValueError for anything else.
    """
    if isinstance(policy, str):
        if policy in ("none", "full"):
            return 0 if policy == "none" else FULL_BODY_BYTES
        if not policy.isdecimal():
            raise ValueError(f"bodies is {policy!r}; it must be full, none, or a number of bytes")
        policy = int(policy)
    if isinstance(policy, bool) or policy < 0:
        raise ValueError(f"bodies is {policy!r}; it must be full, none, or a number of bytes")
    return min(policy, FULL_BODY_BYTES)


def pack(
    flow: http.HTTPFlow,
    *,
    live: bool,
    body_bytes: int,
    transcript: str | bytes | None = None,
    secrets: Sequence[bytes] = (),
) -> bytes:
    """The frame of a flow. The flow is only read.

    `body_bytes` bounds each kept body; `transcript` stands in for the body of a streamed answer; `secrets` (see
    `redact.secret_bytes`) are removed wherever they stand. The values in `metadata["tollgate"]` stand
    beside the others in the frame, so that `~meta "^key: name"` finds them; their `call` becomes the flow's id, so that a call
    has one id everywhere.
    """
    metadata = _metadata(flow.metadata)
    request, request_body = _request(flow.request, body_bytes, secrets, metadata)
    response, response_body = _response(flow.response, transcript, body_bytes, secrets, metadata)
    call_id = metadata.get("call")
    head = {
        "v": VERSION,
        "id": call_id if isinstance(call_id, str) and call_id else flow.id,
        "live": live,
        "created": flow.timestamp_created,
        "marked": flow.marked,
        "comment": flow.comment,
        "replay": flow.is_replay == "request",
        "error": [flow.error.msg[:_MAX_TEXT], flow.error.timestamp] if flow.error else None,
        "metadata": metadata,
        "client": _client(flow.client_conn),
        "server": _server(flow.server_conn),
        "request": request,
        "response": response,
    }
    text = without_secrets(orjson.dumps(head, default=_plain), secrets)
    size = 4 + len(text) + len(request_body) + len(response_body)
    return b"".join((_LENGTHS.pack(size, len(text)), text, request_body, response_body))


def unpack(frame: bytes | memoryview) -> tuple[http.HTTPFlow, bool]:
    """The flow of a frame (without its leading length) and whether its call still goes on. Raises BadFrame."""
    try:
        view = memoryview(frame)
        head_size = int.from_bytes(view[:4])
        if head_size > len(view) - 4:
            raise BadFrame("the head is longer than the frame")
        head = orjson.loads(redact_bytes(bytes(view[4 : 4 + head_size])))
        if head["v"] != VERSION:
            raise BadFrame(f"the frame has version {head['v']}, this process reads version {VERSION}")
        return _flow(head, view[4 + head_size :]), bool(head["live"])
    except BadFrame:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadFrame(f"not a flow: {error}") from error


def kept_body(body: bytes, limit: int, secrets: Sequence[bytes] = ()) -> tuple[bytes, str]:
    """At most `limit` bytes of a body without the known secrets, and a note when it is not whole (empty otherwise)."""
    if len(body) <= limit:
        return without_secrets(body, secrets), ""
    if limit == 0:
        return b"", f"left out ({len(body)} bytes)"
    return without_secrets(body[: limit + _CUT_MARGIN], secrets)[:limit], f"first {limit} of {len(body)} bytes"


def _decoded(message: http.Message, limit: int) -> tuple[bytes | None, str]:
    """The body with its content coding undone within the bound; None when it cannot be shown, with the reason."""
    body = message.raw_content
    if body is None:
        return None, ""
    coding = message.headers.get("content-encoding", "").strip().lower()
    if not body or coding in ("", "identity"):
        return body, ""
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None, f"left out ({len(body)} bytes, {coding[:40]}-encoded)"
    bound = limit + _CUT_MARGIN
    for window_bits in (47, -15):
        try:
            return zlib.decompressobj(window_bits).decompress(body, bound), ""
        except zlib.error:
            continue
    return None, f"left out ({len(body)} bytes, not {coding} as its header says)"


def _request(request: http.Request, limit: int, secrets: Sequence[bytes], metadata: dict[str, Any]) -> tuple[list[Any], bytes]:
    body, note = _decoded(request, limit)
    kept = b""
    if body is not None:
        kept, note = kept_body(body, limit, secrets)
    if note:
        metadata["request_body"] = note
    data = request.data
    return [
        _latin(data.method),
        _latin(data.scheme),
        data.host,
        data.port,
        _latin(data.authority),
        _latin(redact_parameters(data.path)),
        _latin(data.http_version),
        _headers(request),
        len(kept),
        data.timestamp_start,
        data.timestamp_end,
    ], kept


def _response(
    response: http.Response | None,
    transcript: str | bytes | None,
    limit: int,
    secrets: Sequence[bytes],
    metadata: dict[str, Any],
) -> tuple[list[Any] | None, bytes]:
    if response is None:
        return None, b""
    note = ""
    if transcript is not None:
        body: bytes | None = transcript.encode("utf-8", "replace") if isinstance(transcript, str) else transcript
        metadata["transcript"] = "yes"
    else:
        body, note = _decoded(response, limit)
    kept = b""
    if body is not None:
        kept, note = kept_body(body, limit, secrets)
    if note:
        metadata["response_body"] = note
    data = response.data
    return [
        _latin(data.http_version),
        data.status_code,
        _latin(data.reason),
        _headers(response),
        len(kept),
        data.timestamp_start,
        data.timestamp_end,
    ], kept


def _headers(message: http.Message) -> list[str]:
    flat: list[str] = []
    for name, value in message.headers.fields:
        if is_secret_header(name):
            value = without_credential(value)
        elif name.lower() == b"content-encoding":
            continue  # the body in the frame is decoded
        flat.append(name.decode("latin-1"))
        flat.append(value.decode("latin-1"))
    return flat


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in metadata.items() if not key.startswith("_") and key not in _HIDDEN_METADATA}
    ours = shown.pop("tollgate", None)
    if isinstance(ours, dict):
        shown |= {str(key): value for key, value in ours.items() if value != ""}
    return shown


def _plain(value: Any) -> Any:
    """What JSON does not know."""
    if isinstance(value, set | frozenset):
        return list(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _client(client: connection.Client) -> list[Any]:
    return [client.peername, client.sockname, client.timestamp_start, client.timestamp_tls_setup, client.sni, client.tls_version]


def _server(server: connection.Server) -> list[Any]:
    return [
        server.address,
        server.peername,
        server.timestamp_start,
        server.timestamp_tcp_setup,
        server.timestamp_tls_setup,
        server.sni,
        server.tls_version,
    ]


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


def _flow(head: dict[str, Any], bodies: memoryview) -> http.HTTPFlow:
    flow = http.HTTPFlow(_client_of(head["client"]), _server_of(head["server"]))
    flow.id = str(head["id"])
    flow.timestamp_created = float(head["created"])
    flow.marked = str(head["marked"])
    flow.comment = str(head["comment"])
    flow.is_replay = "request" if head["replay"] else None
    flow.metadata = dict(head["metadata"])
    if head["error"]:
        flow.error = Error(str(head["error"][0]), float(head["error"][1]))
    request_size = int(head["request"][8])
    response_size = int(head["response"][4]) if head["response"] else 0
    if min(request_size, response_size) < 0 or request_size + response_size != len(bodies):
        raise BadFrame("the bodies are not as long as the head says")
    flow.request = _request_of(head["request"], redact_bytes(bytes(bodies[:request_size])))
    if head["response"]:
        flow.response = _response_of(head["response"], redact_bytes(bytes(bodies[request_size:])))
    return flow


def _request_of(values: list[Any], body: bytes) -> http.Request:
    method, scheme, host, port, authority, path, version, headers, _, start, end = values
    return http.Request(
        host=str(host),
        port=int(port),
        method=method.encode("latin-1"),
        scheme=scheme.encode("latin-1"),
        authority=authority.encode("latin-1"),
        path=path.encode("latin-1"),
        http_version=version.encode("latin-1"),
        headers=_headers_of(headers),
        content=body,
        trailers=None,
        timestamp_start=float(start),
        timestamp_end=None if end is None else float(end),
    )


def _response_of(values: list[Any], body: bytes) -> http.Response:
    version, status, reason, headers, _, start, end = values
    return http.Response(
        http_version=version.encode("latin-1"),
        status_code=int(status),
        reason=reason.encode("latin-1"),
        headers=_headers_of(headers),
        content=body,
        trailers=None,
        timestamp_start=float(start),
        timestamp_end=None if end is None else float(end),
    )


def _headers_of(flat: list[str]) -> http.Headers:
    raw = [text.encode("latin-1") for text in flat]
    return http.Headers(list(zip(raw[::2], raw[1::2], strict=True)))


def _client_of(values: list[Any]) -> connection.Client:
    peername, sockname, start, tls_setup, sni, tls_version = values
    return connection.Client(
        peername=_address(peername) or ("", 0),
        sockname=_address(sockname) or ("", 0),
        timestamp_start=start or 0.0,
        timestamp_tls_setup=tls_setup,
        sni=sni,
        tls=tls_setup is not None,
        tls_version=tls_version,
    )


def _server_of(values: list[Any]) -> connection.Server:
    address, peername, start, tcp_setup, tls_setup, sni, tls_version = values
    server = connection.Server(address=_address(address))
    server.peername = _address(peername)
    server.timestamp_start = start
    server.timestamp_tcp_setup = tcp_setup
    server.timestamp_tls_setup = tls_setup
    server.tls = tls_setup is not None
    server.sni = sni
    server.tls_version = tls_version
    return server


def _address(value: Any) -> tuple[str, int] | None:
    return None if value is None else (str(value[0]), int(value[1]))
