"""mitmweb's web application, cut down to looking: what edits, kills, intercepts, runs scripts or sets options is answered 403.

mitmweb's token is worth code execution on the machine. Here it is not: only what stands in `ALLOWED` goes through, so whatever a
later mitmproxy adds is closed until somebody opens it.
"""

import hmac
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import tornado.web
from mitmproxy import exceptions
from mitmproxy.tools.web import app, master
from tornado.httputil import HTTPServerRequest

from addons.console.inspect_style import PATH, Index, Style

_FLOW = r"/flows/[0-9a-f-]+"
_MESSAGE = _FLOW + r"/(?:request|response|messages)"
ALLOWED: Sequence[tuple[str, re.Pattern[str]]] = tuple(
    (method, re.compile(path))
    for method, path in (
        ("GET", r"/(?:static/.+|tollgate\.css)?"),
        ("HEAD", r"/(?:static/.+)?"),
        ("POST", r"/"),  # the login form
        ("GET", r"/(?:updates|filter-help|commands|events|flows|options|state)(?:\.json)?"),
        ("GET", r"/flows/dump"),
        ("GET", _MESSAGE + r"/content\.data"),
        ("GET", _MESSAGE + r"/content/[0-9a-zA-Z_%-]+(?:\.json)?"),
        ("DELETE", _FLOW),  # forgets a picture; the log keeps the call
        ("POST", _FLOW + r"/(?:duplicate|replay)"),
        ("POST", r"/clear"),
        ("POST", r"/commands/[a-z.]+"),  # those in COMMANDS
    )
)
COMMANDS = frozenset({"tollgate.load", "export", "export.formats", "commands.history.get", "commands.history.add"})
_HISTORY: dict[str, list[str] | None] = {"commands.history.get": [], "commands.history.add": None}
"""mitmweb asks for these by itself; mitmproxy's own would write a file."""

SEND_QUEUE_MESSAGES = 5_000
"""A browser that lags further behind is disconnected; it connects again and reads the list afresh."""


class Deeds(Protocol):
    """What the pages can do beyond looking."""

    async def replay(self, flow_id: str) -> None: ...

    async def load(self, words: Sequence[str]) -> int: ...


class InspectorApplication(app.Application):
    """mitmweb's application behind an allow-list."""

    def __init__(self, web_master: master.WebMaster, deeds: Deeds, *, token: str, cookie_name: str, hosts: frozenset[str]) -> None:
        super().__init__(web_master, False)
        self.deeds = deeds
        self.hosts = hosts
        self.settings["is_valid_password"] = _token_check(token)
        self.settings["auth_cookie_name"] = lambda: cookie_name
        self.settings["cookie_secret"] = hmac.digest(token.encode(), b"tollgate inspector cookies", "sha256")
        self.add_handlers(
            r".*",
            [
                (r"/", Index),
                (PATH, Style),
                (r"/updates", BoundedUpdates),
                (r"/commands(?:\.json)?", AllowedCommands),
                (r"/commands/(?P<cmd>[a-z.]+)", AllowedCommand),
                (r"/flows/(?P<flow_id>[0-9a-f\-]+)/replay", GovernedReplay),
            ],
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Where every request comes through."""
        if not allowed(request.method or "", request.path):
            return self.get_handler_delegate(request, Closed, {"reason": "This part of mitmweb is closed in Tollgate's inspector."})
        if urlsplit(f"//{request.host}").hostname not in self.hosts:
            return self.get_handler_delegate(request, Closed, {"reason": "The inspector answers to loopback addresses only."})
        return super().find_handler(request, **kwargs)


class Closed(tornado.web.RequestHandler):
    """403 with a sentence, for every method."""

    def initialize(self, reason: str) -> None:
        """Takes the sentence."""
        self.reason = reason

    def prepare(self) -> None:
        """Answers at once, before any other check."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(self.reason)


class BoundedUpdates(app.ClientConnection):  # type: ignore[no-untyped-call]
    """The page's WebSocket, with an end to how far it may lag behind."""

    def send(self, message: bytes) -> None:
        """Queue a message for the browser."""
        if self._send_queue.qsize() >= SEND_QUEUE_MESSAGES:
            self.connections.discard(self)
            self.close(code=1013, reason="too far behind")
            return
        super().send(message)


class GovernedReplay(app.RequestHandler):  # type: ignore[no-untyped-call]
    """mitmweb's replay button: the call goes through the gateway's port."""

    async def post(self, flow_id: str) -> None:
        """Starts the replay; its result appears as a flow of its own. 409 with the reason when it cannot be made."""
        application: Any = self.application
        try:
            await application.deeds.replay(flow_id)
        except LookupError as error:
            raise app.APIError(404, "Flow not found.") from error
        except ValueError as error:
            raise app.APIError(409, str(error)) from error


class AllowedCommands(app.Commands):  # type: ignore[no-untyped-call]
    """The list of commands, without those that are closed."""

    def get(self) -> None:
        """As mitmweb's, filtered."""
        every = self.master.commands.commands
        self.master.commands.commands = {name: command for name, command in every.items() if name in COMMANDS}
        try:
            super().get()
        finally:
            self.master.commands.commands = every


class AllowedCommand(app.ExecuteCommand):  # type: ignore[no-untyped-call]
    """Runs one of `COMMANDS`."""

    async def post(self, cmd: str) -> None:
        """`{"value": …}` or `{"error": …}`, as mitmweb expects."""
        if cmd not in COMMANDS:
            raise app.APIError(403, f"The command {cmd} is closed in Tollgate's inspector.")
        if cmd in _HISTORY:
            self.write({"value": _HISTORY[cmd]})
            return
        if cmd != "tollgate.load":
            super().post(cmd)
            return
        application: Any = self.application
        try:
            words = self.json.get("arguments", [])
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise app.APIError(400, "arguments must be a list of texts")
            self.write({"value": await application.deeds.load(words)})
        except (ValueError, exceptions.CommandError) as error:
            self.write({"error": str(error)})


def allowed(method: str, path: str) -> bool:
    """True for what the inspector lets through to mitmweb."""
    return any(method == verb and pattern.fullmatch(path) for verb, pattern in ALLOWED)


def _token_check(token: str) -> Callable[[str], bool]:
    expected = token.encode()
    return lambda given: hmac.compare_digest(expected, given.encode("utf-8", "replace"))
