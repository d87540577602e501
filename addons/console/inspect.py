"""The inspector: mitmweb without listeners, in the console process, fed by the workers and filled from logs.db.

It shares its event loop with the console application. Everything it shows is a copy: nothing done here can touch a call.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import tornado.httpserver
import tornado.netutil
from mitmproxy import command, exceptions, flow, http, log, options
from mitmproxy.tools.web import app, master

from addons.console import views
from addons.console.bounded_view import BoundedView
from addons.console.feed import FeedServer
from addons.console.history import history, load_rows
from addons.console.inspect_web import InspectorApplication
from addons.console.load_spec import parse_load
from addons.console.replay import CannotReplay, Credential, Replayer
from store.clock import Clock, SystemClock
from store.errors import StoreUnavailable, UserError
from store.logs.queries import LogReader
from store.settings import Inspect
from store.windows import parse_duration

logger = logging.getLogger(__name__)

COLUMNS = ("icon", "method", "path", "comment", "status", "size", "time", "timestamp")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_MAX_UPLOAD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class InspectorLimits:
    """`gateway.inspect`: how much is held, and how far back the logs are read at start."""

    flows: int = 2_000
    megabytes: int = 256
    history_ms: int = 86_400_000
    """0: start empty."""

    @classmethod
    def of(cls, settings: Inspect) -> "InspectorLimits":
        """The limits that the configuration names."""
        history_ms = parse_duration(settings.history).ms if settings.history else 0
        return cls(settings.flows, settings.megabytes, history_ms)


@dataclass(frozen=True, slots=True)
class InspectorStats:
    """Numbers for health pages and metrics."""

    flows: int
    bytes: int
    evicted: int
    received: int
    workers: int
    browsers: int


class InspectorMaster(master.WebMaster):
    """A WebMaster that is never run: no proxy, no listeners, no log capture, no certificate authority."""

    def __init__(self, opts: options.Options) -> None:
        super().__init__(opts, with_termlog=False)
        # The console's own log lines are not for the page, and an error logged elsewhere must not end the process.
        self._legacy_log_events.uninstall()
        self.addons.get("errorcheck").finish()  # type: ignore[no-untyped-call]
        self.events.done()  # type: ignore[no-untyped-call]

    def say(self, message: str, level: str = "info") -> None:
        """A line in the page's event log."""
        self.events._add_log(log.LogEntry(message, level))  # type: ignore[no-untyped-call]

    def _sig_view_add(self, flow: flow.Flow) -> None:
        if app.ClientConnection.connections:  # picturing a flow for nobody costs as much as for somebody
            super()._sig_view_add(flow)

    def _sig_view_update(self, flow: flow.Flow) -> None:
        if app.ClientConnection.connections:
            super()._sig_view_update(flow)


class Commands:
    """What can be typed into mitmweb's command bar."""

    def __init__(self, inspector: "Inspector") -> None:
        self._inspector = inspector

    @command.command("tollgate.load")  # type: ignore[untyped-decorator]
    def tollgate_load(self, *conditions: str) -> int:  # a method `load` would be mitmproxy's hook of that name
        """Load logged calls as flows, charging nothing: tollgate.load key=NAME model=NAME since=yesterday limit=50"""
        try:
            return self._inspector.load_now(conditions)
        except (ValueError, StoreUnavailable) as error:
            raise exceptions.CommandError(str(error)) from error


class Inspector:
    """A running inspector. `url` opens it; `close()` ends it."""

    def __init__(
        self,
        *,
        token: str,
        feed_token: str,
        limits: InspectorLimits,
        logs: LogReader | None,
        gateway_url: str,
        credential: Credential | None,
        clock: Clock,
        host: str,
        port: int,
    ) -> None:
        self._token = token
        self._limits = limits
        self._logs = logs
        self._clock = clock
        self._host = host
        self._port = port
        self._master = InspectorMaster(_options(host, port))
        self._shown = BoundedView(self._master.view, limits.flows, limits.megabytes * 1024 * 1024)
        self._feed = FeedServer(feed_token, self._shown.show, self._shown.finished)
        self._replayer = Replayer(gateway_url, credential, clock=clock)
        self._master.addons.add(Commands(self))  # type: ignore[no-untyped-call]
        self._app = InspectorApplication(
            self._master,
            self,
            token=token,
            cookie_name=f"tollgate-inspector-{port}",
            hosts=_LOOPBACK | {host},
        )
        self._master.app = self._app
        self._server = tornado.httpserver.HTTPServer(
            self._app, max_body_size=_MAX_UPLOAD_BYTES, max_buffer_size=2 * _MAX_UPLOAD_BYTES
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.refilled: asyncio.Task[int] | None = None
        """Done when the history is loaded."""

    @property
    def url(self) -> str:
        """The link that opens the inspector, with its token."""
        return f"{self.base_url}/?token={quote(self._token, safe='')}"

    @property
    def base_url(self) -> str:
        """Where it listens, without the token."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def feed_address(self) -> tuple[str, int]:
        """Where `InspectorFeed`s connect."""
        return self._feed.address

    @property
    def stats(self) -> InspectorStats:
        """Numbers of this moment."""
        shown = self._shown
        browsers = sum(connection.application is self._app for connection in app.ClientConnection.connections)
        return InspectorStats(shown.flows, shown.bytes, shown.evicted, self._feed.received, self._feed.workers, browsers)

    def link(self, call_id: str) -> str:
        """The address of one call in the inspector; works once `open_call` has loaded it."""
        return f"{self.url}#/flows/{call_id}/request"

    async def open_call(self, call_id: str) -> str | None:
        """*Open in inspector*: load one logged call when it is not shown yet. Its link, or None when there is no such call."""
        if not self._shown.has(call_id) and await self.load((f"id={call_id}",)) == 0:
            return None
        return self.link(call_id)

    # Deeds of the web pages

    async def load(self, words: Sequence[str]) -> int:
        """`tollgate.load` without holding up the loop: how many calls were loaded. Raises ValueError, StoreUnavailable."""
        logs, spec = self._readable_logs(), parse_load(words, now_ms=self._clock.now_ms(), max_limit=self._limits.flows)
        return self._add(await asyncio.to_thread(load_rows, logs, spec))

    def load_now(self, words: Sequence[str]) -> int:
        """`tollgate.load` for mitmproxy's own, synchronous commands. Raises ValueError, StoreUnavailable."""
        logs, spec = self._readable_logs(), parse_load(words, now_ms=self._clock.now_ms(), max_limit=self._limits.flows)
        return self._add(load_rows(logs, spec))

    async def replay(self, flow_id: str) -> None:
        """Start a replay; its outcome is shown as a flow. Raises LookupError, or ValueError when it cannot be made."""
        original = self._master.view.get_by_id(flow_id)
        if not isinstance(original, http.HTTPFlow):
            raise LookupError(flow_id)
        try:
            self._replayer.prepare(original)
        except CannotReplay as error:
            self._master.say(str(error), "warn")
            raise ValueError(str(error)) from error
        task = asyncio.get_running_loop().create_task(self._replay(original), name="replay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop listening, drop browsers and workers, give up replays."""
        self._server.stop()
        for connection in tuple(app.ClientConnection.connections):
            if connection.application is self._app:
                connection.close()
        await self._feed.close()
        tasks: list[asyncio.Task[None] | asyncio.Task[int]] = [*self._tasks, *([self.refilled] if self.refilled else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._replayer.close()
        await self._server.close_all_connections()

    # Inside

    async def start(self, web_sockets: Sequence[socket.socket], feed_sockets: Sequence[socket.socket]) -> None:
        """Begin to serve. Raises OSError."""
        await self._feed.start(feed_sockets)
        self._server.add_sockets(web_sockets)
        if self._logs is not None and self._limits.history_ms > 0:
            self.refilled = asyncio.get_running_loop().create_task(self._refill(self._logs), name="inspector history")

    async def _refill(self, logs: LogReader) -> int:
        since_ms = self._clock.now_ms() - self._limits.history_ms
        room = self._limits.megabytes * 1024 * 1024
        try:
            flows = await asyncio.to_thread(history, logs, since_ms, self._limits.flows, room)
        except StoreUnavailable as error:
            logger.warning("the inspector starts without history: %s", error)
            return 0
        return self._add(flows, only_into_room=True)

    async def _replay(self, original: http.HTTPFlow) -> None:
        try:
            result = await self._replayer.replay(original)
        except CannotReplay as error:
            self._master.say(str(error), "warn")
            return
        shown = self._master.view.get_by_id(result.id)
        if isinstance(shown, http.HTTPFlow):  # the worker's own picture of the new call is here already, and says more
            shown.is_replay = "request"
            shown.metadata["replay_of"] = original.id
            self._master.view.update([shown])
        else:
            self._shown.show(result)

    def _add(self, flows: Sequence[http.HTTPFlow], *, only_into_room: bool = False) -> int:
        added = 0
        for loaded in flows:
            if self._shown.has(loaded.id):
                continue
            if only_into_room and not self._shown.room_for(0):
                break
            self._shown.show(loaded)
            added += 1
        return added

    def _readable_logs(self) -> LogReader:
        if self._logs is None:
            raise ValueError("there are no logs to load from: logging is switched off")
        return self._logs


async def start_inspector(
    *,
    web_token: str,
    feed_token: str,
    gateway_url: str,
    host: str = "127.0.0.1",
    port: int = 8081,
    sockets: Sequence[socket.socket] = (),
    feed_sockets: Sequence[socket.socket] = (),
    limits: InspectorLimits = InspectorLimits(),
    logs: LogReader | None = None,
    credential: Credential | None = None,
    clock: Clock | None = None,
) -> Inspector:
    """Start the inspector on the running loop. One per process: mitmproxy keeps its master in a global.

    `sockets` and `feed_sockets` are listening loopback sockets made by the supervisor; without them a port of `host` (0: a free
    one) and a free feed port are opened. `web_token` opens the pages, `feed_token` is what workers prove. `credential` turns a
    virtual key's id into something the gateway accepts for it, so that replays run under the key of the call they repeat.
    Raises UserError.
    """
    if not web_token or not feed_token:
        raise ValueError("the inspector needs a token for its pages and one for its feed")
    opened: list[socket.socket] = []
    try:
        if not sockets:
            if host not in _LOOPBACK:
                raise UserError(f"the inspector listens on loopback only, not on {host}; use an SSH tunnel to look from elsewhere")
            opened = tornado.netutil.bind_sockets(port, host)
        web_sockets = list(sockets) or opened
        address = web_sockets[0].getsockname()
        if not _is_loopback(str(address[0])):
            raise UserError(
                f"the inspector listens on loopback only, not on {address[0]}; use an SSH tunnel to look from elsewhere"
            )
        views.register()
        inspector = Inspector(
            token=web_token,
            feed_token=feed_token,
            limits=limits,
            logs=logs,
            gateway_url=gateway_url,
            credential=credential,
            clock=clock or SystemClock(),
            host=str(address[0]),
            port=int(address[1]),
        )
        await inspector.start(web_sockets, feed_sockets)
    except OSError as error:
        _close(opened)
        raise UserError(
            f"the inspector cannot listen on {host}:{port}: {error.strerror or error}; choose another --inspect-port"
        ) from None
    except BaseException:
        _close(opened)
        raise
    return inspector


def _options(host: str, port: int) -> options.Options:
    made = options.Options(server=False)
    made.update_defer(  # type: ignore[no-untyped-call]
        web_host=host,
        web_port=port,
        web_open_browser=False,
        web_columns=list(COLUMNS),
        onboarding=False,
        command_history=False,
    )
    return made


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
