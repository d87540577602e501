"""Logged calls as mitmproxy flows: what the inspector shows of calls that happened before it was opened."""

import hashlib
from collections.abc import Mapping

from mitmproxy import connection, http

from addons.flow_wire import body_limit
from addons.redact import redact_bytes, redact_text
from store.logs.labels import comment_of, mark_of, metadata_of
from store.logs.types import CallRow

_HOSTS: Mapping[str, str] = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "gemini": "generativelanguage.googleapis.com",
}
_BOUND = body_limit("full")
_JSON = b"application/json"


def flow_of(row: CallRow, lengths: tuple[int, int] | None = None) -> http.HTTPFlow:
    """A flow made from a log row: nothing is sent, charged or looked up. Its id is the call's, so it is never shown twice.

    `lengths`: bytes of the request and response text before they were cut, None when they were not kept.
    """
    host = _HOSTS.get(row.provider, row.provider or "gateway")
    at = row.at_ms / 1000
    client = connection.Client(peername=("", 0), sockname=("", 0), timestamp_start=at)
    server = connection.Server(address=(host, 443))
    flow = http.HTTPFlow(client, server)
    flow.id = row.id if _is_flow_id(row.id) else hashlib.sha256(row.id.encode()).hexdigest()[:32]
    flow.timestamp_created = at
    flow.request = _request(row, host, at)
    if row.http_status:
        flow.response = _response(row, at)
    flow.comment = redact_text(comment_of(row))
    flow.marked = mark_of(row)
    flow.metadata = {**metadata_of(row), "from_logs": True, **_notes(row, lengths)}
    if "message" in flow.metadata:
        flow.metadata["message"] = redact_text(str(flow.metadata["message"]))
    return flow


def _request(row: CallRow, host: str, at: float) -> http.Request:
    headers = [(b"host", host.encode("utf-8", "replace")), (b"content-type", _JSON)]
    if row.client:
        headers.append((b"user-agent", row.client.encode("utf-8", "replace")))
    return http.Request(
        host=host,
        port=443,
        method=(row.method or "POST").encode("utf-8", "replace"),
        scheme=b"https",
        authority=b"",
        path=redact_bytes((row.path or "/").encode("utf-8", "replace")),
        http_version=b"HTTP/1.1",
        headers=http.Headers(headers),
        content=_body(row.request_body),
        trailers=None,
        timestamp_start=at,
        timestamp_end=at,
    )


def _response(row: CallRow, at: float) -> http.Response:
    body = _body(row.response_body)
    kind = _JSON if body[:1] in (b"{", b"[") else b"text/plain; charset=utf-8"
    first_byte_ms = row.first_token_ms if row.first_token_ms is not None else row.latency_ms
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=row.http_status,
        reason=b"",
        headers=http.Headers([(b"content-type", kind)]),
        content=body,
        trailers=None,
        timestamp_start=at + first_byte_ms / 1000,
        timestamp_end=at + row.latency_ms / 1000,
    )


def _body(text: str | None) -> bytes:
    return redact_bytes((text or "").encode("utf-8", "replace"))[:_BOUND]


def _notes(row: CallRow, lengths: tuple[int, int] | None) -> dict[str, str]:
    if lengths is None:
        return {"request_body": "not kept in the logs", "response_body": "not kept in the logs"}
    notes = {}
    for name, text, whole in (("request_body", row.request_body, lengths[0]), ("response_body", row.response_body, lengths[1])):
        kept = len((text or "").encode("utf-8", "replace"))
        if kept < whole:
            notes[name] = f"first {kept} of {whole} bytes"
    if row.stream:
        notes["transcript"] = "yes"
    return notes


def _is_flow_id(text: str) -> bool:
    """True for ids that mitmweb's addresses can hold."""
    return bool(text) and all(character in "0123456789abcdef-" for character in text)
