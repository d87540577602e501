"""A real console on a real port over a real database of either engine, and a client that is signed in."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tornado.netutil import bind_sockets

from addons.console.app import make_app, serve
from addons.console.context import ConsoleContext, Health
from store.clock import Clock, Ids, SystemClock
from store.config_store.bootstrap import open_config_store
from store.config_store.store import ConfigStore
from store.database import Database
from store.logs.opening import open_logs
from store.logs.queries import LogReader
from store.logs.schema import MIGRATIONS
from store.settings import settings_from
from store.sqlite import SqliteDatabase
from tests.support.postgres import opened as postgres_opened
from tests.support.recycled import Recycled

ADMIN_TOKEN = "test-admin-token-0123456789abcdefghij"


class MovableClock(SystemClock):
    """The machine's time, plus whatever a test adds."""

    ahead_seconds = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + round(self.ahead_seconds * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_seconds


@dataclass
class Console:
    url: str
    client: httpx.AsyncClient
    store: ConfigStore
    clock: MovableClock
    logs: LogReader
    logs_database: Database
    health: list[Health] = field(default_factory=lambda: [Health(True, {"config_store": "ok"})])

    sign_ins: Any = None
    live: Any = None

    def stranger(self, **arguments: Any) -> httpx.AsyncClient:
        """A client that has no credentials."""
        return httpx.AsyncClient(base_url=self.url, trust_env=False, **arguments)


StartConsole = Callable[..., Awaitable[Console]]
OpenStores = Callable[[Clock], tuple[Database, Database]]


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """What keeps the stores. A module whose tests ask little of them may name one."""
    return str(request.param)


@pytest.fixture
def open_stores(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStores]:
    """Opens configuration and logs, two files or one PostgreSQL database for both; closed at the end."""
    with ExitStack() as stack:
        address = None
        if engine == "postgres":
            recycled: Recycled = request.getfixturevalue("recycled")
            address = stack.enter_context(recycled.lent())

        def open_them(clock: Clock) -> tuple[Database, Database]:
            config: Database
            if address is None:
                config, logs = (
                    SqliteDatabase.open(tmp_path / "config.db", clock=clock),
                    open_logs(tmp_path / "logs.db", clock=clock),
                )
            else:
                config = postgres_opened(address, clock=clock)
                logs = postgres_opened(address, purpose="logs", clock=clock, migrations=MIGRATIONS, synchronous="NORMAL")
            stack.callback(logs.close)
            stack.callback(config.close)
            config.migrate()
            return config, logs

        yield open_them


@pytest.fixture
async def start_console(open_stores: OpenStores) -> AsyncIterator[StartConsole]:
    async with AsyncExitStack() as stack:

        async def start(document: dict[str, Any] | None = None, *, host: str = "127.0.0.1", token: str = ADMIN_TOKEN) -> Console:
            clock = MovableClock()
            settings = settings_from(document or {}, {}, source="config.json")
            database, logs_database = open_stores(clock)
            store = open_config_store(database, settings, clock=clock, ids=Ids(clock), seal=True)
            logs = LogReader(logs_database)
            sockets = bind_sockets(0, "127.0.0.1")
            url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
            client = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
            console = Console(url, client, store, clock, logs, logs_database)
            context = ConsoleContext(
                store=store,
                settings=settings,
                admin_token=token,
                health=lambda: console.health[-1],
                logs=logs,
                version="9.8.7",
                host=host,
                gateway_url="http://127.0.0.1:8080",
            )
            app = make_app(context)
            console.sign_ins = app.settings["sign_ins"]
            console.live = app.settings["live"]
            server = serve(app, sockets)
            stack.push_async_callback(server.close_all_connections)
            stack.callback(server.stop)
            stack.callback(context.executor.shutdown)
            await stack.enter_async_context(client)
            return console

        yield start


@pytest.fixture
async def console(start_console: StartConsole) -> Console:
    return await start_console()
