"""Live client connections: counting them, bounding the wait for headers, and ending either side of an exchange."""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Coroutine
from itertools import groupby
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, mode_servers, server, server_hooks
from mitmproxy.utils import asyncio_utils

from addons.proxy import faults
from addons.proxy.flow_state import state_of
from addons.proxy.limits import current_limits
from addons.proxy.master import CachedAddonManager

logger = logging.getLogger(__name__)

LAST_BYTES_SECONDS = 60.0
"""For a client that takes the end of its answer slowly; then the operating system is left alone with it."""


class PatientLock(asyncio.Lock):
    """A lock whose waiter is cancelled only after it got the lock.

    mitmproxy takes its event lock while it delivers an event; a cancellation in that moment would lose the event, and
    the flow would wait for it for ever. Here the cancellation takes effect at the task's next wait instead.
    """

    async def acquire(self) -> Any:
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                await super().acquire()
                break
            except asyncio.CancelledError as error:
                cancelled = error
        task = asyncio.current_task()
        if cancelled is not None and task is not None:
            task.cancel(*cancelled.args)
        return True


class Handler(mode_servers.ProxyConnectionHandler):
    """mitmproxy's driver of one client connection, with the limits and the refusals it lacks."""

    carries_tunnel = False
    """Bytes go through unread: whether anybody still needs it cannot be told."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self._server_event_lock = PatientLock()
        self._opening: dict[Connection, commands.OpenConnection] = {}
        self._head_timer: asyncio.TimerHandle | None = None
        self._to_client: Any = None

    async def handle_client(self) -> None:
        limit = current_limits().max_connections
        if len(_live) >= limit:
            self._turn_away(limit)
            return
        _live[self.client.id] = self
        self._to_client = self.transports[self.client].writer
        keep_alive(self._to_client)
        self.start_head_timer()
        try:
            await super().handle_client()
            await self._all_sent()
        finally:
            self.stop_head_timer()
            del _live[self.client.id]

    async def open_connection(self, command: commands.OpenConnection) -> None:
        self._opening[command.connection] = command
        try:
            await super().open_connection(command)
        finally:
            self._opening.pop(command.connection, None)

    async def server_event(self, event: events.Event) -> None:
        """mitmproxy's own, with two savings: hooks that do not wait run here instead of in a task of their own, and pieces
        for one connection are written together, which is one system call instead of one each.
        """
        async with self._server_event_lock:
            # No await beyond this point.
            self.timeout_watchdog.register_activity()  # type: ignore[no-untyped-call]
            due: deque[events.Event] = deque((event,))
            while due:
                try:
                    self._handle_event(due.popleft(), due)
                except Exception:
                    self.log("mitmproxy has crashed!", logging.ERROR, exc_info=True)

    def _handle_event(self, event: events.Event, due: deque[events.Event]) -> None:
        """Gives the layers one event and carries out their commands; events that follow at once are added to `due`."""
        unwritten: list[commands.SendData] = []
        try:
            for command in self.layer.handle_event(event):
                if isinstance(command, commands.SendData):
                    unwritten.append(command)
                elif isinstance(command, commands.StartHook):
                    self._start_hook(command, due)
                elif isinstance(command, commands.OpenConnection):
                    self._start_opening(command)
                elif isinstance(command, commands.RequestWakeup):
                    self._start_wakeup(command)
                elif isinstance(command, commands.CloseConnection):
                    self._write(unwritten)
                    if command.connection in self.transports:
                        half_close = isinstance(command, commands.CloseTcpConnection) and command.half_close
                        self.close_connection(command.connection, half_close)
                elif isinstance(command, commands.Log):
                    self.log(command.message, command.level)
                else:
                    raise RuntimeError(f"Unexpected command: {command}")
        finally:
            self._write(unwritten)

    def _write(self, pieces: list[commands.SendData]) -> None:
        """Writes what was gathered, in order, and empties the list."""
        for connection, group in groupby(pieces, key=lambda piece: piece.connection):
            io = self.transports.get(connection)
            if io is not None and io.writer is not None and not io.writer.is_closing():
                io.writer.write(b"".join(piece.data for piece in group))
        pieces.clear()

    def _start_hook(self, hook: commands.StartHook, due: deque[events.Event]) -> None:
        addons = self.master.addons
        if not isinstance(addons, CachedAddonManager):
            asyncio_utils.create_task(self.hook_task(hook), name=f"handle_hook({hook.name})", keep_ref=True)
            return
        rest = addons.begin_lifecycle(hook)
        if rest is not None:
            asyncio_utils.create_task(self._rest_of_hook(hook, rest), name=f"handle_hook({hook.name})", keep_ref=True)
            return
        if hook.blocking:
            due.append(events.HookCompleted(hook))

    async def _rest_of_hook(self, hook: commands.StartHook, rest: Coroutine[Any, Any, None]) -> None:
        with self.timeout_watchdog.disarm():
            await rest
        if hook.blocking:
            await self.server_event(events.HookCompleted(hook))

    def _start_opening(self, command: commands.OpenConnection) -> None:
        name = f"server connection handler {command.connection.address}"
        task = asyncio_utils.create_task(self.open_connection(command), name=name, keep_ref=False)
        self.transports[command.connection] = server.ConnectionIO(handler=task)

    def _start_wakeup(self, command: commands.RequestWakeup) -> None:
        task = asyncio_utils.create_task(self.wakeup(command), name=f"wakeup timer ({command.delay:.1f}s)", keep_ref=False)
        self.wakeup_timer.add(task)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        await super().handle_hook(hook)
        if type(hook) is server_hooks.ServerConnectedHook:
            reason = hook.data.server.error
            if reason:
                await self._refuse_connected(hook, reason)
            else:
                keep_alive(self.transports[hook.data.server].writer)

    async def _refuse_connected(self, hook: server_hooks.ServerConnectedHook, reason: str) -> None:
        """Ends a server connection that a `server_connected` hook objects to, before a byte is sent on it.

        mitmproxy ignores `server.error` at this point, so the layers are told here that opening failed, and the task
        that would go on to use the connection is ended.
        """
        connection = hook.data.server
        connection.state = ConnectionState.CLOSED
        _abort(self.transports.pop(connection).writer)
        await super().handle_hook(server_hooks.ServerDisconnectedHook(hook.data))
        await self.server_event(events.OpenConnectionCompleted(self._opening[connection], reason))
        raise asyncio.CancelledError(reason)

    def has_unsent_answer(self) -> bool:
        """Whether bytes for the client wait in this process because it takes them slowly."""
        writer = self._to_client
        return isinstance(writer, asyncio.StreamWriter) and writer.transport.get_write_buffer_size() > 0

    async def _all_sent(self) -> None:
        """The connection counts as live until its last bytes have left this process, which may be about to end."""
        if self.has_unsent_answer():
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(LAST_BYTES_SECONDS):
                    await self._to_client.wait_closed()

    def _turn_away(self, limit: int) -> None:
        writer = self.transports.pop(self.client).writer
        if isinstance(writer, asyncio.StreamWriter):
            writer.write(faults.response_bytes(faults.too_many_connections(limit)))
            writer.close()

    def start_head_timer(self) -> None:
        """Closes the client connection unless a complete request head arrives in time. Does nothing while one runs."""
        if self._head_timer is None:
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(current_limits().header_timeout_seconds, self._head_too_slow)

    def stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        cancel_transport(self, self.client, "the request's headers did not arrive in time")


_live: dict[str, Handler] = {}


def live_clients() -> list[Handler]:
    """The drivers of all client connections that this process holds."""
    return list(_live.values())


def unsent_answers() -> int:
    """How many clients have not been sent all of their answer yet."""
    return sum(handler.has_unsent_answer() for handler in _live.values())


def handler_of(client: Client) -> Handler | None:
    """The driver of a live client connection; None once it is gone, and for replayed flows."""
    return _live.get(client.id)


def keep_alive(writer: Any) -> None:
    """Lets the operating system notice peers that vanished: idle limits alone would hold them for hours."""
    sock = writer.get_extra_info("socket") if isinstance(writer, asyncio.StreamWriter) else None
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError:
            logger.debug("cannot enable keep-alive on a socket that is already gone")


def cancel_transport(handler: Handler, connection: Connection, reason: str) -> bool:
    """Ends one side of a connection from outside its task, on the next turn of the loop.

    An upstream transport is aborted as well: closing would wait until everything written to it is sent.
    """
    io = handler.transports.get(connection)
    if io is None or io.handler is None:
        return False
    loop = asyncio.get_running_loop()
    loop.call_soon(io.handler.cancel, reason)
    if isinstance(connection, Server):
        loop.call_soon(_abort, io.writer)
    return True


def _abort(writer: Any) -> None:
    if isinstance(writer, asyncio.StreamWriter):
        writer.transport.abort()


def cancel_upstream(flow: http.HTTPFlow, reason: str) -> bool:
    """Ends the upstream side of this flow on the next loop turn, connected or still connecting. Never blocks.

    `error` fires with `reason` as its message; the client gets an error page if no answer had begun. False when this
    flow has no upstream connection.
    """
    handler = handler_of(flow.client_conn)
    state = state_of(flow)
    stream = state.stream() if state.stream is not None else None
    if handler is None or stream is None:
        return False
    connections = stream.upstream_transports(list(handler.transports))
    if not connections:
        return False
    state.cancel_reason = reason
    return any([cancel_transport(handler, connection, reason) for connection in connections])


def close_client(target: http.HTTPFlow | Client) -> bool:
    """Closes a client connection on the next loop turn, what was written to it still being sent. False when it is gone."""
    client = target.client_conn if isinstance(target, http.HTTPFlow) else target
    handler = handler_of(client)
    return handler is not None and cancel_transport(handler, client, "closed by the gateway")


def live_connections() -> int:
    """How many client connections this process holds."""
    return len(_live)
