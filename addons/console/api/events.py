"""`/api/events`: server-sent events that say when the configuration, the ledger or the logs have moved."""

import asyncio

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from addons.console.handler import ConsoleHandler
from addons.console.live import Live, TooManyViewers, Viewer
from addons.console.routes import Route, operation
from store.errors import StoreUnavailable

_HELLO = b"retry: 2000\n\n"
_STILL_HERE = b": still here\n\n"


class EventsHandler(ConsoleHandler):
    """One page that watches, until it goes, its session ends, or the console stops."""

    still_here_seconds = 15.0
    sign_in_seconds = 30.0
    """So often it is asked whether the session still is one."""
    slow_seconds = 10.0
    """A page that has not taken a message by then is let go."""

    _viewer: Viewer | None = None

    @operation("Server-sent events: `moved` when config, ledger or calls have moved, `trouble` when a store cannot be read",
               answer=str, media="text/event-stream")  # fmt: skip
    async def get(self) -> None:
        live: Live = self.application.settings["live"]
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        if self.request.method == "HEAD":
            self.finish()
            return
        try:
            self._viewer = live.join()
        except TooManyViewers:
            raise HTTPError(503, "as many pages are watching as may; close some of them") from None
        try:
            await self._watch(self._viewer)
        except StreamClosedError:
            pass
        finally:
            live.leave(self._viewer)

    def on_connection_close(self) -> None:
        """The page has gone."""
        super().on_connection_close()
        if self._viewer is not None:
            self._viewer.end()

    async def _watch(self, viewer: Viewer) -> None:
        now = asyncio.get_running_loop().time
        asked, message = now(), _HELLO
        while await self._sent(message):
            message = await viewer.next(self.still_here_seconds) or _STILL_HERE
            if viewer.is_over:
                return
            if now() - asked >= self.sign_in_seconds:
                asked = now()
                if not await self._is_signed_in():
                    return

    async def _sent(self, message: bytes) -> bool:
        """False when the page does not take it; then its connection is closed, and what waits for it is forgotten."""
        self.write(message)
        flushed = asyncio.ensure_future(self.flush())
        done, _ = await asyncio.wait((flushed,), timeout=self.slow_seconds)
        if not done:
            flushed.cancel()
            if isinstance(self.request.connection, HTTP1Connection):
                self.request.connection.stream.close()
            return False
        flushed.result()
        return True

    async def _is_signed_in(self) -> bool:
        session = self.own_session
        if not session:
            return True
        try:
            return self.gatekeeper.session_ok(session) and not await self._is_ended(session)
        except StoreUnavailable:
            return True  # the page is told of that trouble anyway


ROUTES = (Route("/api/events", EventsHandler),)
