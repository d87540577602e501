"""The console process: management API, dashboard and inspector. Nothing a call waits for runs here."""

import asyncio
import logging
import os
import re
from pathlib import Path

from addons.bookkeeping import keep_logs_complete
from addons.console.app import make_app, serve
from addons.console.auth import ensure_admin_token
from addons.console.context import ConsoleContext, Health
from addons.console.inspect import InspectorLimits, start_inspector
from addons.console.price_books import price_books
from addons.console.process_state import FamilyState
from addons.opening import open_store
from addons.process.children import adopt, ignore_terminal_signals, listen_to_supervisor, read_spec, report_ready, run_loop
from addons.process.options import ChildSpec
from addons.process.prepare import url_of
from addons.process.role import collect_again
from addons.redact import REDACTED
from store.clock import Ids, SystemClock
from store.config_store.change_client import client_in_force
from store.config_store.change_runs import create_run
from store.config_store.client_config import logged_from, stored_client
from store.logs.opening import open_logs_store
from store.logs.queries import LogReader
from store.settings import Settings

logger = logging.getLogger(__name__)

REPLAY_SECONDS = 600
_TOKEN = re.compile(r"(?<=[?&]token=)[^&\s'\"()]+")


class WithoutTokens(logging.Filter):
    """Takes tokens out of log lines: the links that people open carry theirs, and the web server's log repeats addresses."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "token=" in text:
            record.msg, record.args = _TOKEN.sub(REDACTED, text), None
        return True


async def serve_console(spec: ChildSpec, settings: Settings) -> None:
    """Serve until told to end."""
    app_dir = Path(spec.app_dir)
    clock = SystemClock()
    store = open_store(app_dir, settings, clock, Ids(clock))
    logs_database = open_logs_store(app_dir, settings, clock=clock)
    logs = LogReader(logs_database)
    gateway_url = url_of(spec.host, spec.port)
    inspector = None
    family = FamilyState()

    async def replay_credential(key_id: str) -> str:
        """A short-lived credential, so that what is replayed is governed and charged like any call of that key."""
        return (await asyncio.to_thread(create_run, store, key_id, None, REPLAY_SECONDS)).value

    if spec.inspect_fds:
        inspector = await start_inspector(
            sockets=adopt(spec.inspect_fds),
            feed_sockets=adopt(spec.feed_fds),
            feed_token=spec.feed_token,
            web_token=spec.inspect_token,
            logs=logs,
            gateway_url=gateway_url,
            credential=replay_credential,
            limits=InspectorLimits.of(settings.gateway.inspect),
        )
    link = inspector.url if inspector is not None else None

    def health() -> Health:
        with store.ledger.read() as connection:
            connection.execute("SELECT 1")
        return Health(family.can_serve, {"db_pings": "ok", **family.components()})

    context = ConsoleContext(
        store=store,
        settings=settings,
        admin_token=ensure_admin_token(app_dir / "admin.token"),
        health=health,
        logs=logs,
        version=spec.version,
        host=spec.console_host,
        gateway_url=gateway_url,
        inspector_url=lambda: link,
        prices=price_books(app_dir / settings.gateway.prices.file if settings.gateway.prices.file else None),
        family=family,
    )
    app = make_app(context)
    server = serve(app, adopt(spec.console_fds))
    books: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def logged_after() -> int | None:
        with store.database.read() as connection:
            is_logging = client_in_force(settings, stored_client(connection)).enable_logging
            return logged_from(connection) if is_logging else None

    if settings.logs_store.enabled:
        books = asyncio.ensure_future(keep_logs_complete(store.ledger, logs_database, clock, logged_after))
    told = listen_to_supervisor()
    told.family = family.take
    collect_again()
    report_ready()
    await told.end.wait()
    server.stop()
    app.settings["live"].close()
    await server.close_all_connections()
    await asyncio.to_thread(app.settings["sign_ins"].close)
    books.cancel()
    await asyncio.gather(books, return_exceptions=True)
    if inspector is not None:
        await inspector.close()
    await asyncio.to_thread(context.recalculation.close)
    context.executor.shutdown(wait=False, cancel_futures=True)
    logs_database.close()
    store.close()


def main() -> None:
    """Entry point of the process."""
    spec, settings = read_spec("console")
    ignore_terminal_signals()
    os.environ.pop("SSLKEYLOGFILE", None)
    for handler in logging.root.handlers:
        handler.addFilter(WithoutTokens())
    run_loop(serve_console(spec, settings))
