"""The management API while no gateway runs: the same console application, opened on the stores for one command."""

import asyncio
import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from addons.console.app import make_app, serve
from addons.console.context import ConsoleContext, Health
from addons.opening import store_on
from addons.process.client import ConsoleClient
from addons.process.stores import command_actor, opened_database, settings_of
from store.clock import Ids, SystemClock
from store.version import VERSION

_START_SECONDS = 10.0


@contextmanager
def offline_console(app_dir: Path) -> Iterator[ConsoleClient]:
    """A client of the API on these stores, for the length of a `with` block.

    It listens on a loopback port with a token that nobody else knows. Raises UserError when there are no stores yet.
    """
    clock = SystemClock()
    settings = settings_of(app_dir)
    with opened_database(app_dir, settings, clock, read_only=False) as database:
        store = store_on(database, settings, clock, Ids(clock))
        token = secrets.token_urlsafe(32)
        context = ConsoleContext(
            store=store,
            settings=settings,
            admin_token=token,
            health=lambda: Health(True),
            version=VERSION,
            actor=command_actor(),
        )
        with _serving(context) as port:
            yield ConsoleClient(f"http://127.0.0.1:{port}", token, app_dir)
        context.executor.shutdown()


@contextmanager
def _serving(context: ConsoleContext) -> Iterator[int]:
    """The application on a free loopback port, on a thread with a loop of its own; the port."""
    app = make_app(context)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def answer() -> None:
        server = serve(app, [listening])
        ended = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), ended))
        await ended.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=lambda: asyncio.run(answer()), name="offline console", daemon=True)
    thread.start()
    loop, ended = started.result(_START_SECONDS)
    try:
        yield int(listening.getsockname()[1])
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(_START_SECONDS)
