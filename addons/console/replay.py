"""Sends a call that was looked at once more, through the gateway's own port: it is a new call, identified, charged and capped."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from mitmproxy import http
from mitmproxy.flow import Error
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from addons.flow_wire import FULL_BODY_BYTES
from addons.redact import REDACTED, is_secret_header, redact_bytes, redact_headers
from store.clock import Clock

type Credential = Callable[[str], str | None | Awaitable[str | None]]
"""A virtual key's id (its name where the flow does not say the id) → a credential that the gateway accepts for it, or None."""

PREFIXES: Mapping[str, str] = {"gemini": "genai"}
"""Providers whose path on the gateway is not their name."""

_TIMEOUT_SECONDS = 600.0
_NOT_SENT = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "accept-encoding",
    }
)
_MAX_ANSWER_BYTES = 1024**3


class CannotReplay(Exception):
    """This flow cannot be sent again; the text says why."""


class Replayer:
    """Replays flows through the gateway."""

    def __init__(
        self,
        gateway_url: str,
        credential: Credential | None,
        *,
        clock: Clock,
        prefixes: Mapping[str, str] = PREFIXES,
    ) -> None:
        self._gateway_url = gateway_url.rstrip("/")
        self._credential = credential
        self._clock = clock
        self._prefixes = prefixes
        self._client = AsyncHTTPClient(force_instance=True, max_body_size=_MAX_ANSWER_BYTES)

    def prepare(self, original: http.HTTPFlow) -> HTTPRequest:
        """The request that makes the call again, without its credential. Raises CannotReplay."""
        if original.websocket is not None:
            raise CannotReplay("A WebSocket cannot be replayed.")
        note = original.metadata.get("request_body")
        if note:
            raise CannotReplay(f"The request body of this call was not kept whole ({note}), so it cannot be sent again.")
        body = original.request.raw_content or b""
        if REDACTED.encode() in body:
            raise CannotReplay("The request body held a credential, which was not kept, so it cannot be sent again.")
        headers = HTTPHeaders()
        for name, value in original.request.headers.fields:
            lower = name.decode("latin-1").lower()
            if lower not in _NOT_SENT and not is_secret_header(name) and REDACTED.encode() not in value:
                headers.add(name.decode("latin-1"), value.decode("latin-1"))
        method = original.request.method
        return HTTPRequest(
            self._gateway_url + self._path(original),
            method=method,
            headers=headers,
            body=body if body or method in ("POST", "PUT", "PATCH") else None,
            allow_nonstandard_methods=True,
            follow_redirects=False,
            decompress_response=False,
            connect_timeout=10.0,
            request_timeout=_TIMEOUT_SECONDS,
        )

    async def replay(self, original: http.HTTPFlow) -> http.HTTPFlow:
        """Send it and wait for the answer: a new flow, with the answer or the error. Raises CannotReplay."""
        request = self.prepare(original)
        key_id = str(original.metadata.get("key_id") or original.metadata.get("key") or "")
        credential = await self._credential_of(key_id)
        if credential is not None:
            request.headers["x-bf-vk"] = credential
        answer = bytearray()

        def keep(chunk: bytes) -> None:
            answer.extend(chunk[: max(0, FULL_BODY_BYTES - len(answer))])

        request.streaming_callback = keep
        flow = _copy_of(original, self._clock.now_ms() / 1000)
        try:
            response = await self._client.fetch(request, raise_error=False)
        except (HTTPClientError, OSError) as error:
            self._fail(flow, error)
            return flow
        if response.code == 599:
            self._fail(flow, response.error)
            return flow
        self._answer(flow, response, bytes(answer))
        return flow

    def close(self) -> None:
        """Give up what is on its way."""
        self._client.close()

    def _path(self, original: http.HTTPFlow) -> str:
        path = original.metadata.get("gateway_path")
        if isinstance(path, str) and path.startswith("/"):
            return path
        provider = str(original.metadata.get("provider") or "")
        target = original.request.path
        if REDACTED in target:
            parts = urlsplit(target)
            kept = [pair for pair in parts.query.split("&") if REDACTED not in pair]
            target = parts.path + ("?" + "&".join(kept) if kept else "")
        if not target.startswith("/"):
            raise CannotReplay("The path of this call is not known, so it cannot be sent again.")
        if original.metadata.get("from_logs") and original.metadata.get("way_in") == "reverse":
            return target  # the logs keep the path as the caller asked for it, which was the gateway's
        if not provider:
            raise CannotReplay("The provider of this call is not known, so it cannot be sent again.")
        return f"/{self._prefixes.get(provider, provider)}{target}"

    async def _credential_of(self, key_id: str) -> str | None:
        if self._credential is None or not key_id:
            return None
        found = self._credential(key_id)
        return await found if inspect.isawaitable(found) else found

    def _fail(self, flow: http.HTTPFlow, error: BaseException | None) -> None:
        flow.error = Error(f"the gateway could not be reached: {error}", self._clock.now_ms() / 1000)

    def _answer(self, flow: http.HTTPFlow, response: HTTPResponse, body: bytes) -> None:
        headers = ((name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.get_all())
        now = self._clock.now_ms() / 1000
        flow.response = http.Response(
            http_version=b"HTTP/1.1",
            status_code=response.code,
            reason=(response.reason or "").encode("latin-1", "replace"),
            headers=http.Headers(redact_headers(headers)),
            content=redact_bytes(body),
            trailers=None,
            timestamp_start=now,
            timestamp_end=now,
        )
        call_id = response.headers.get("x-tollgate-request-id") or response.headers.get("x-request-id") or ""
        if call_id and all(character in "0123456789abcdef-" for character in call_id):
            flow.id = call_id
            flow.metadata["call"] = call_id


def _copy_of(original: http.HTTPFlow, at: float) -> http.HTTPFlow:
    flow: http.HTTPFlow = original.copy()  # type: ignore[no-untyped-call]
    flow.is_replay = "request"
    flow.response = None
    flow.error = None
    flow.marked = ""
    flow.comment = f"replay of {original.id}"
    flow.timestamp_created = flow.request.timestamp_start = flow.request.timestamp_end = at
    carried = ("key", "key_id", "provider", "model", "gateway_path", "way_in", "from_logs")
    flow.metadata = {name: original.metadata[name] for name in carried if name in original.metadata}
    flow.metadata["replay_of"] = original.id
    return flow
