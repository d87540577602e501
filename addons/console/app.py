"""The console as a Tornado application of its own: API, metrics, dashboard; made from a context, served on given sockets."""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, StaticFileHandler

from addons.console.api import (
    audit,
    budgets,
    events,
    explain,
    forecast,
    governance_providers,
    groups,
    log_overview,
    log_stats,
    logs,
    model_configs,
    models,
    openapi,
    overrides,
    pricing_overrides,
    prompts,
    providers,
    rate_limits,
    recalculate,
    rotation,
    routing_rules,
    runs,
    session,
    system,
    transfer,
    unconfirmed,
    virtual_keys,
)
from addons.console.auth import Gatekeeper, check_open_console
from addons.console.context import ConsoleContext
from addons.console.handler import SECURITY_HEADERS, ConsoleHandler, NotFoundHandler
from addons.console.live import Live
from addons.console.origin import HostRules
from addons.console.routes import Route
from addons.console.sign_ins import SignIns
from store.markers import read_markers

STATIC_DIR = Path(__file__).with_name("static")
MAX_BODY_BYTES = 8 * 1024 * 1024
"""More than this is cut off unread; what is less, and yet more than a handler takes, is a 413 in words."""


class IndexHandler(ConsoleHandler):
    """The page itself; `?token=` signs in and goes on to the address without it."""

    needs_sign_in = False

    async def get(self) -> None:
        token = self.get_query_argument("token", None)
        if token is not None:
            if not self.gatekeeper.is_open:
                if not self.gatekeeper.link_token_ok(token):
                    self.sign_ins.failed(self.client_address)
                    raise HTTPError(
                        401, "Unauthorized: this link is not valid (any more); `tollgate admin-token` prints the right one"
                    )
                await self.begin_session("link")
            self.redirect("/", status=303)
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((STATIC_DIR / "index.html").read_bytes())


class AssetHandler(StaticFileHandler):
    """Scripts, styles and pictures of the page; nothing in them is secret."""

    async def prepare(self) -> None:
        """The same Host rule as everywhere."""
        hosts: HostRules = self.application.settings["hosts"]
        if not hosts.host_ok(self.request.host):
            raise HTTPError(403)

    def set_extra_headers(self, path: str) -> None:
        """As on every other answer."""
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-cache")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A word is enough here."""
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}\n")


API_ROUTES: tuple[Route, ...] = (
    *system.ROUTES,
    *openapi.ROUTES,
    *events.ROUTES,
    *session.ROUTES,
    *audit.ROUTES,
    *prompts.ROUTES,
    *rotation.ROUTES,
    *virtual_keys.ROUTES,
    *budgets.ROUTES,
    *overrides.ROUTES,
    *unconfirmed.ROUTES,
    *rate_limits.ROUTES,
    *transfer.ROUTES,
    *groups.ROUTES,
    *model_configs.ROUTES,
    *governance_providers.ROUTES,
    *runs.ROUTES,
    *providers.ROUTES,
    *routing_rules.ROUTES,
    *pricing_overrides.ROUTES,
    *models.ROUTES,
    *explain.ROUTES,
    *forecast.ROUTES,
    *log_stats.ROUTES,
    *log_overview.ROUTES,
    *recalculate.ROUTES,
    *logs.ROUTES,  # last: every other address under /api/logs could be the id of a call
)
"""Every address of the API; where two match, the first answers. The OpenAPI description is made of it."""


def make_app(context: ConsoleContext) -> Application:
    """The application. Raises SettingsError when the login is switched off although others can reach the console."""
    check_open_console(context.settings, context.host)
    logs = context.logs
    return Application(
        [
            (r"/", IndexHandler),
            (r"/static/(.+)", AssetHandler, {"path": str(STATIC_DIR)}),
            *(route.rule() for route in API_ROUTES),
        ],
        default_handler_class=NotFoundHandler,
        context=context,
        api_routes=API_ROUTES,
        gatekeeper=Gatekeeper(context.admin_token, context.settings, context.store.clock, context.store.entropy),
        hosts=HostRules.of(context.settings, context.host),
        sign_ins=SignIns(context.store, context.executor),
        live=Live(
            lambda: read_markers(context.store.ledger, None if logs is None else logs.database),
            context.executor,
            context.store.clock,
        ),
        log_function=lambda handler: None,
    )


def serve(app: Application, sockets: Iterable[socket.socket]) -> HTTPServer:
    """Answers on sockets that listen already; call `stop()` and `close_all_connections()` on what comes back."""
    server = HTTPServer(
        app,
        max_body_size=MAX_BODY_BYTES,
        max_header_size=64 * 1024,
        idle_connection_timeout=300,
        body_timeout=30,
    )
    server.add_sockets(sockets)
    return server
