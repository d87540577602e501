"""Base of every handler: security headers, Host and Origin, sign-in, CSRF, JSON in and out, one error envelope."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, HTTPError, MissingArgumentError, RequestHandler

from addons.console.auth import Gatekeeper, Method, Throttled
from addons.console.context import ConsoleContext
from addons.console.origin import HostRules
from addons.console.routes import REHEARSE_HEADER, Operation, methods_of
from addons.console.sign_ins import SignIns
from store.config_store.documents import document, entity_tag
from store.config_store.edits import Actor
from store.config_store.fields import loads_exact
from store.config_store.json_text import dumps
from store.config_store.problems import join_problems, problems
from store.config_store.sessions import is_ended
from store.config_store.store import ConfigStore
from store.errors import Conflict, NotFound, PreconditionFailed, Rehearsed, StoreUnavailable, UserError

log = logging.getLogger(__name__)

CSRF_HEADER = "X-CSRF-Token"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "tollgate",
}


class ConsoleHandler(RequestHandler):
    """What pages and API share."""

    needs_sign_in = True
    max_body_bytes = 2 * 1024 * 1024
    takes_virtual_key = False
    """True where a virtual key is the credential."""

    def __init__(self, application: Application, request: HTTPServerRequest, **kwargs: Any) -> None:
        self.context: ConsoleContext = application.settings["context"]
        self.gatekeeper: Gatekeeper = application.settings["gatekeeper"]
        self.hosts: HostRules = application.settings["hosts"]
        self.sign_ins: SignIns = application.settings["sign_ins"]
        self.method: Method | None = None
        self.own_session = ""
        """The session that this request came with, when it is good."""
        self._has_token = False
        self._is_tagged = False
        super().__init__(application, request, **kwargs)

    async def head(self, **parts: str) -> None:
        """As GET, without the body."""
        await self.get(**parts)  # type: ignore[misc]

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """A part of the path or a parameter. Raises UserError for a NUL character, which no database keeps."""
        text: str = super().decode_argument(value, name)
        if "\0" in text:
            raise UserError(f"{name or 'the address'}: has a NUL character; leave it out")
        return text

    def compute_etag(self) -> str | None:
        """The tag of the thing shown where there is one, else the hash of the answer."""
        return self._headers.get("ETag") or super().compute_etag()

    def check_etag_header(self) -> bool:
        """304 is for answers tagged by their own bytes: a thing's tag says nothing of the sums that are shown with it."""
        return not self._is_tagged and super().check_etag_header()

    def set_default_headers(self) -> None:
        """On every answer, errors too."""
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")

    async def prepare(self) -> None:
        """Refuses what must not come in, before anything is read or done."""
        if not self.hosts.host_ok(self.request.host):
            raise HTTPError(403, "the console does not go by this host name; set console.public_url or console.allowed_hosts")
        headers = self.request.headers
        changes = self.request.method not in _SAFE_METHODS
        if changes or "Origin" in headers:
            if not self.hosts.origin_ok(headers.get("Origin"), headers.get("Sec-Fetch-Site"), self.request.host):
                raise HTTPError(403, "this request comes from another site's page; open the console itself")
        self.method = await self._who()
        if not self.needs_sign_in:
            self._refuse_what_nobody_reads()
            return
        if self.method is None:
            raise HTTPError(401, "Unauthorized: sign in, or open the link that `tollgate admin-token` prints")
        if changes and self.method == "session":
            if not self.gatekeeper.csrf_ok(self.session, headers.get(CSRF_HEADER, "")):
                raise HTTPError(403, f"the header {CSRF_HEADER} is missing or stale; load the page again")
        self._refuse_what_nobody_reads()

    @property
    def client_address(self) -> str:
        """Whom failed sign-ins are counted against."""
        return str(self.request.remote_ip)

    @property
    def session(self) -> str:
        """The session cookie's value, or nothing."""
        return self.get_cookie(self.gatekeeper.cookie_name) or ""

    async def begin_session(self, by: str) -> str:
        """Sets the session cookie; returns the session. `by`: what was shown, `password`, `token` or `link`."""
        session = self.gatekeeper.new_session()
        await self.on_thread(self.sign_ins.began, Actor(self._name(), by, self.client_address))
        self.set_cookie(
            self.gatekeeper.cookie_name,
            session,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self.request.protocol == "https",
            max_age=30 * 86_400,
        )
        return session

    @property
    def store(self) -> ConfigStore:
        """The store to make changes with: the audit log names this caller, and `If-Match` must hold."""
        if_match = self.request.headers.get("If-Match", "").strip()
        return replace(
            self.context.store,
            actor=self._actor(),
            if_match=if_match if if_match not in ("", "*") else None,
            rehearse=self.is_rehearsal,
        )

    @property
    def is_rehearsal(self) -> bool:
        """Whether this request changes something and asks that nothing be changed."""
        return self.request.method not in _SAFE_METHODS and REHEARSE_HEADER in self.request.headers

    def _actor(self) -> Actor:
        if self.context.actor is not None:
            return self.context.actor
        return Actor(self._name(), self.method or "open", self.client_address)

    def _name(self) -> str:
        """Whom the credentials belong to: the user who signed in, or whoever has the token."""
        gate = self.gatekeeper
        if gate.is_open:
            return "anybody"
        return gate.user_name if gate.auth_type == "password" and not self._has_token else "admin token"

    async def on_thread[Answer](self, work: Callable[..., Answer], *args: Any) -> Answer:
        """Runs what touches a database off the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.context.executor, work, *args)

    def query_as[Query: BaseModel](self, model: type[Query]) -> Query:
        """The query parameters as a model; of a doubled one the last counts. Raises UserError naming the nearest known one."""
        given = {name: self.get_query_argument(name, strip=False) for name in self.request.query_arguments}
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise UserError(join_problems(problems(model, error)).replace("unknown key;", "unknown parameter;")) from None

    def tag(self, kind: str, entity_id: str) -> None:
        """Sets `ETag`: send it back as `If-Match` and an edit of what somebody else has changed meanwhile is a 412. Blocks."""
        with self.context.store.reading() as (connection, ledger):
            made = document(connection, ledger, kind, entity_id)
        if made is not None:
            self._is_tagged = True
            self.set_header("ETag", entity_tag(made))

    def body_as[Body: BaseModel](self, model: type[Body]) -> Body:
        """The request's JSON as a model. Raises UserError naming paths and the nearest known keys."""
        text = self.request.body or b"{}"
        try:
            document = loads_exact(text)
        except RecursionError:
            raise UserError("the body is nested too deeply") from None
        except ValueError as error:
            raise UserError(f"the body is not valid JSON: {error}") from None
        if not isinstance(document, dict):
            raise UserError("the body must be a JSON object")
        try:
            return model.model_validate(document)
        except ValidationError as error:
            raise UserError(join_problems(problems(model, error))) from None

    def send(self, value: Any, status: int = 200) -> None:
        """Answers with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every failure as the JSON envelope; never a traceback."""
        fault = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if isinstance(fault, Rehearsed):
            self.set_status(204)
            self.finish()
            return
        status, message = _status_of(status_code, fault)
        if isinstance(fault, Throttled):
            self.set_header("Retry-After", str(max(1, round(fault.seconds))))
        if status == 401 and self.gatekeeper.auth_type == "password" and "Sec-Fetch-Site" not in self.request.headers:
            # Not for our own page: the browser would put its own dialog before the page's form.
            self.set_header("WWW-Authenticate", 'Basic realm="tollgate", charset="UTF-8"')
        if status == 405:
            self.set_header("Allow", ", ".join(name.upper() for name in methods_of(type(self))))
        self._is_tagged = False
        self.clear_header("ETag")
        self.send(error_envelope(status, message), status)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Only what is our fault is logged, without the request's address, which may hold a token."""
        if isinstance(value, StoreUnavailable):
            log.warning("console: %s", value)
        elif not isinstance(value, Rehearsed) and _status_of(500, value)[0] >= 500:
            log.error("console: %s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))

    def data_received(self, chunk: bytes) -> None:
        """Bodies are read whole; the server bounds them."""

    def _refuse_what_nobody_reads(self) -> None:
        """Parameters and a body that the method does not take are errors, not noise; so is a body of more than it takes."""
        if len(self.request.body) > self.max_body_bytes:
            raise HTTPError(413, f"the body is larger than {self.max_body_bytes:,} bytes")
        told: Operation | None = getattr(getattr(self, (self.request.method or "").lower(), None), "operation", None)
        if told is None:
            return
        if self.is_rehearsal:
            self._refuse_what_cannot_be_rehearsed(told)
        if told.query is None and self.request.query_arguments:
            raise UserError(f"{min(self.request.query_arguments)}: unknown parameter; nothing may stand here")
        if told.body is None and self.request.body.strip() not in (b"", b"{}"):
            raise UserError("this takes no body; leave it out")

    def _refuse_what_cannot_be_rehearsed(self, told: Operation) -> None:
        if not told.rehearsal:
            raise UserError(f"this cannot be rehearsed; leave the header {REHEARSE_HEADER} out to do it")
        if self.request.headers[REHEARSE_HEADER].strip() != "1":
            raise UserError(f"{REHEARSE_HEADER}: must be 1; leave the header out to make the change")

    async def _who(self) -> Method | None:
        gate = self.gatekeeper
        if gate.is_open:
            return "open"
        method: Method | None = "session"
        session = self.session
        if authorization := self.request.headers.get("Authorization"):
            with self.counted():
                method = gate.header_ok(authorization, self.client_address)
            session = authorization.partition(" ")[2].strip() if method == "bearer" else ""
            if method is None:
                self.sign_ins.failed(self.client_address)
            self._has_token = method == "bearer" and not gate.session_ok(session)
            if not session or self._has_token:
                return method
        if not session or not gate.session_ok(session) or await self._is_ended(session):
            return None
        self.own_session = session
        return method

    async def _is_ended(self, session: str) -> bool:
        try:
            return await self.on_thread(self._was_ended, session)
        except StoreUnavailable:
            if self.needs_sign_in:
                raise
            return True  # pages and probes that are open to all still answer

    def _was_ended(self, session: str) -> bool:
        with self.context.store.ledger.read() as connection:
            return is_ended(connection, session)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Tries that have to wait count as failures too."""
        try:
            yield
        except Throttled:
            self.sign_ins.failed(self.client_address)
            raise


class NotFoundHandler(ConsoleHandler):
    """Every address that nothing else answers."""

    needs_sign_in = False

    async def prepare(self) -> None:
        """Says so in JSON."""
        await super().prepare()
        raise HTTPError(404, "there is nothing at this address")


def error_envelope(status: int, message: str) -> dict[str, Any]:
    """Bifrost's error object."""
    return {
        "is_bifrost_error": False,
        "status_code": status,
        "error": {"message": message},
        "extra_fields": {"routing_info": {}},
    }


def _status_of(status: int, fault: BaseException | None) -> tuple[int, str]:
    for kind, code in (
        (NotFound, 404),
        (PreconditionFailed, 412),
        (Conflict, 409),
        (Throttled, 429),
        (UserError, 400),
        (StoreUnavailable, 503),
    ):
        if isinstance(fault, kind):
            return code, str(fault)
    if isinstance(fault, MissingArgumentError):
        return 400, f"the query parameter {fault.arg_name} is required"
    if isinstance(fault, HTTPError):
        if fault.status_code == 405:
            return 405, "this address does not take that method"
        return fault.status_code, fault.log_message or _REASONS.get(fault.status_code, "the request cannot be answered")
    if status < 500:
        return status, _REASONS.get(status, "the request cannot be answered")
    return 500, "the console failed to answer; its log says why"


_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404),
    (PreconditionFailed, 412),
    (Conflict, 409),
    (Throttled, 429),
    (UserError, 400),
    (StoreUnavailable, 503),
)
_REASONS = {
    400: "the request cannot be read",
    404: "there is nothing at this address",
    405: "this address does not take that method",
}
