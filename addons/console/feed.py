"""The console's end of the feed: takes flow pictures from worker processes that prove they know the token."""

import asyncio
import hmac
import logging
import os
import socket
from collections.abc import Callable, Sequence

from mitmproxy import http

from addons.flow_wire import LENGTH_BYTES, MAX_FRAME_BYTES, BadFrame, unpack
from addons.inspector import NONCE_BYTES, PROOF_BYTES, proof

logger = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 5.0
_READ_BYTES = 1024 * 1024


class FeedServer:
    """Listens on loopback. `show(flow, live)` is called for every picture, on the loop; `gone(ids)` with the calls a lost worker
    had not finished."""

    def __init__(
        self,
        token: str,
        show: Callable[[http.HTTPFlow, bool], None],
        gone: Callable[[Sequence[str]], None],
        *,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not token:
            raise ValueError("the inspector's feed needs a token")
        self._token = token.encode()
        self._show = show
        self._gone = gone
        self._entropy = entropy
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self.workers = 0
        """Connected now."""
        self.received = 0
        self.refused = 0
        """Connections that did not prove the token."""

    async def start(self, sockets: Sequence[socket.socket], port: int = 0) -> None:
        """Serve on listening sockets, or on a loopback port of our own when there are none. Raises OSError."""
        if sockets:
            self._servers = [await asyncio.start_server(self._serve, sock=sock, limit=_READ_BYTES) for sock in sockets]
        else:
            self._servers = [await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_READ_BYTES)]

    @property
    def address(self) -> tuple[str, int]:
        """Where workers connect."""
        name = self._servers[0].sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
        unfinished: dict[str, None] = {}
        try:
            if await self._greet(reader, writer):
                self.workers += 1
                try:
                    await self._receive(reader, unfinished)
                finally:
                    self.workers -= 1
        except BadFrame as error:
            logger.warning("a worker sent the inspector something else than flows: %s", error)
        except (OSError, EOFError, TimeoutError):
            pass  # workers come and go
        except asyncio.CancelledError:
            pass  # closing; asyncio's streams would report it as a fault
        finally:
            self._gone(tuple(unfinished))
            writer.close()
            if task is not None:
                self._connections.discard(task)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        ours = self._entropy(NONCE_BYTES)
        writer.write(ours)
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            theirs = await reader.readexactly(NONCE_BYTES)
            shown = await reader.readexactly(PROOF_BYTES)
        if not hmac.compare_digest(shown, proof(self._token, b"worker", ours, theirs)):
            self.refused += 1
            logger.warning("a connection to the inspector's feed did not know the token")
            return False
        writer.write(proof(self._token, b"console", ours, theirs))
        await writer.drain()
        return True

    async def _receive(self, reader: asyncio.StreamReader, unfinished: dict[str, None]) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
            if size > MAX_FRAME_BYTES:
                raise BadFrame(f"a frame of {size} bytes is longer than any flow")
            flow, live = unpack(await reader.readexactly(size))
            self.received += 1
            if live:
                unfinished[flow.id] = None
            else:
                unfinished.pop(flow.id, None)
            self._show(flow, live)
            if self.received % 50 == 0:
                await asyncio.sleep(0)  # what stands in the buffer must not keep the loop from the people looking
