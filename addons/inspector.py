"""The worker's end of the inspector: redacted pictures of flows, sent to the console process over a loopback connection.

Watching must never slow a call: `InspectorFeed.offer` only copies and queues, the queue is bounded, and when it is full the oldest
picture goes (counted). Without a console everything is dropped the same way.
"""

import asyncio
import hmac
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mitmproxy import http

from addons.flow_wire import body_limit, pack
from addons.redact import REDACTED, redact_headers, redact_path, redact_text, secret_bytes

__all__ = ["REDACTED", "FeedStats", "InspectorFeed", "redact_flow", "redact_headers"]

logger = logging.getLogger(__name__)

NONCE_BYTES = 16
PROOF_BYTES = 32
_BATCH_BYTES = 256 * 1024
_HANDSHAKE_SECONDS = 5.0
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class FeedStats:
    """What became of the pictures offered since the start."""

    offered: int = 0
    sent: int = 0
    dropped: int = 0
    """Pushed out of the full queue by newer ones, or too large for it."""
    replaced: int = 0
    """A newer picture of the same call came before this one was sent."""
    failed: int = 0
    """The flow could not be pictured."""
    connections: int = 0


class InspectorFeed:
    """Sends pictures of flows to the console. Use from the event loop's thread only.

    `address` None switches it off. `bodies` is `full`, `none` or a number of bytes. The token is never sent: both ends prove
    that they know it, so whoever took the console's port learns nothing.
    """

    def __init__(
        self,
        address: tuple[str, int] | None,
        token: str,
        *,
        bodies: str | int = 65536,
        queue_flows: int = 1000,
        queue_bytes: int = 16 * 1024 * 1024,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if address is not None and not token:
            raise ValueError("the inspector's feed needs a token")
        self._address = address
        self._token = token.encode()
        self._body_bytes = body_limit(bodies)
        self._queue_flows = queue_flows
        self._queue_bytes = queue_bytes
        self._entropy = entropy
        self._queue: OrderedDict[str, bytes] = OrderedDict()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.stats = FeedStats()

    @property
    def enabled(self) -> bool:
        """False when there is no inspector to feed."""
        return self._address is not None

    def keep(self, bodies: str | int) -> None:
        """From now on show so much of each body."""
        self._body_bytes = body_limit(bodies)

    def start(self) -> None:
        """Begin to connect, in the background. Needs a running loop; does nothing when switched off."""
        if self._address is not None and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._address), name="inspector feed")

    def offer(
        self,
        flow: http.HTTPFlow,
        *,
        live: bool = False,
        transcript: str | bytes | None = None,
        secrets: Iterable[str | bytes] = (),
    ) -> None:
        """Queue a redacted copy of the flow as it is now. Never raises, never waits.

        `live`: its call still goes on and another picture will follow. `transcript`: what to show as the body of a streamed
        answer. `secrets`: the credentials this call used, removed wherever they stand.
        """
        if self._address is None:
            return
        self.stats.offered += 1
        try:
            known = secret_bytes(secrets)
            frame = pack(flow, live=live, body_bytes=self._body_bytes, transcript=transcript, secrets=known)
        except Exception:
            # The call itself must not notice; the text of the error could hold what redaction would have removed.
            self.stats.failed += 1
            logger.warning("a flow could not be shown in the inspector", extra={"flow": flow.id})
            return
        self._put(flow.id, frame)

    async def drained(self, timeout_seconds: float) -> bool:
        """Wait until everything offered so far is sent; False when the time was not enough."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_seconds: float = 0.5) -> None:
        """Send what is queued if that goes quickly, then disconnect."""
        task, self._task = self._task, None
        if task is not None:
            await self.drained(timeout_seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._address = None

    def _put(self, flow_id: str, frame: bytes) -> None:
        if len(frame) > self._queue_bytes:
            self.stats.dropped += 1
            return
        older = self._queue.get(flow_id)
        if older is not None:
            self.stats.replaced += 1
            self._queued_bytes -= len(older)
        self._queue[flow_id] = frame
        self._queued_bytes += len(frame)
        while len(self._queue) > self._queue_flows or self._queued_bytes > self._queue_bytes:
            _, oldest = self._queue.popitem(last=False)
            self._queued_bytes -= len(oldest)
            self.stats.dropped += 1
        self._idle.clear()
        self._wake.set()

    def _take(self) -> list[bytes]:
        frames: list[bytes] = []
        size = 0
        while self._queue and size < _BATCH_BYTES:
            _, frame = self._queue.popitem(last=False)
            size += len(frame)
            frames.append(frame)
        self._queued_bytes -= size
        return frames

    async def _run(self, address: tuple[str, int]) -> None:
        failures = 0
        while True:
            before = self.stats.connections
            try:
                await self._session(address)
            except (OSError, EOFError, TimeoutError) as error:
                logger.debug("the inspector cannot be reached: %s", error)
            failures = 0 if self.stats.connections > before else failures + 1
            await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])

    async def _session(self, address: tuple[str, int]) -> None:
        """One connection, from handshake to loss. Raises OSError, EOFError or TimeoutError."""
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(*address)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await self._greet(reader, writer)
            self.stats.connections += 1
            closed = asyncio.ensure_future(reader.read(1))
            try:
                await self._send_until(closed, writer)
            finally:
                closed.cancel()
        finally:
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await reader.readexactly(NONCE_BYTES)
        ours = self._entropy(NONCE_BYTES)
        writer.write(ours + proof(self._token, b"worker", theirs, ours))
        answer = await reader.readexactly(PROOF_BYTES)
        if not hmac.compare_digest(answer, proof(self._token, b"console", theirs, ours)):
            raise ConnectionError("whoever listens at the inspector's port does not know the token")

    async def _send_until(self, closed: asyncio.Future[bytes], writer: asyncio.StreamWriter) -> None:
        while not closed.done():
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                waiter = asyncio.ensure_future(self._wake.wait())
                try:
                    await asyncio.wait((waiter, closed), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiter.cancel()
                continue
            frames = self._take()
            writer.write(b"".join(frames))
            await writer.drain()
            self.stats.sent += len(frames)


def proof(token: bytes, role: bytes, console_nonce: bytes, worker_nonce: bytes) -> bytes:
    """What shows that one end of the feed (`worker` or `console`) knows the token: 32 bytes."""
    return hmac.digest(token, b"tollgate feed 1 " + role + b" " + console_nonce + worker_nonce, "sha256")


def redact_flow(flow: http.HTTPFlow, secrets: Sequence[str | bytes] = (), *, response: bool = False) -> None:
    """Take the credentials out of a flow in place: request headers, request target, comment and error text.

    Only once the request has gone upstream, which would else miss its key. With `response` also the response headers:
    only after the answer has reached the client, which would else miss its cookies.
    """
    known = secret_bytes(secrets)
    flow.request.headers.fields = redact_headers(flow.request.headers.fields, known)
    flow.request.data.path = redact_path(flow.request.data.path, known)
    flow.comment = redact_text(flow.comment, known)
    flow.metadata.pop("proxyauth", None)
    if flow.error:
        flow.error.msg = redact_text(flow.error.msg, known)
    if response and flow.response:
        flow.response.headers.fields = redact_headers(flow.response.headers.fields, known)
