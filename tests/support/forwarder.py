"""A TCP forwarder between a gateway and its database that can fall silent: a network that swallows everything."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self


class _Road:
    """One connection: two pumps that stand still while the road is closed."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.pumps: list[asyncio.Task[None]] = []


class Forwarder:
    """`with Forwarder(host, port) as forwarder:` — whoever connects to `forwarder.port` of 127.0.0.1 reaches host:port."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = (host, port)
        self._roads: set[_Road] = set()
        self._loop = asyncio.new_event_loop()
        self._passing: asyncio.Event | None = None
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="forwarder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Nothing passes, in either direction, and nobody is told; afterwards everything goes on where it stood."""
        self._do(self._set_passing(False))
        try:
            yield
        finally:
            self._do(self._set_passing(True))

    def forget(self) -> None:
        """Connections that exist now stay silent for ever, without being closed; new ones are as good as any."""
        self._do(self._forget())

    # -- on its own thread

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        pumps = [pump for road in self._roads for pump in road.pumps]
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _set_passing(self, passing: bool) -> None:
        if self._passing is not None:
            self._passing.set() if passing else self._passing.clear()

    async def _forget(self) -> None:
        for road in self._roads:
            road.open.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passes()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        road = _Road()
        self._roads.add(road)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            road.pumps.append(asyncio.create_task(self._pump(road, source, sink)))
        try:
            await asyncio.gather(*road.pumps, return_exceptions=True)
        finally:
            self._roads.discard(road)
            for end in (writer, far_writer):
                end.close()

    async def _pump(self, road: _Road, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._passes()
                await road.open.wait()
                sink.write(data)
                await sink.drain()
        await self._passes()
        await road.open.wait()
        for pump in road.pumps:
            if pump is not asyncio.current_task():
                pump.cancel()

    async def _passes(self) -> None:
        if self._passing is not None:
            await self._passing.wait()
