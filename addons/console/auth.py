"""Who may use the console: the admin token of the app directory, or a user and a password; sessions, throttling, CSRF."""

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from store.clock import Clock
from store.errors import SettingsError, UserError
from store.settings import Settings

SESSION_SECONDS = 30 * 86_400
_FREE_TRIES = 5
_LONGEST_WAIT_SECONDS = 60.0
_REMEMBERED_CLIENTS = 10_000
_TOKEN_BYTES = 32

Method = Literal["bearer", "basic", "session", "open"]


class Throttled(Exception):
    """Too many wrong credentials from one address; `seconds` until the next try counts."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many wrong sign-ins; try again in {seconds:.0f} s")
        self.seconds = seconds


def ensure_admin_token(path: Path) -> str:
    """The token in `path`, made on the first start, readable by its owner alone. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
            _write_private(fresh, secrets.token_urlsafe(_TOKEN_BYTES))
            try:
                os.link(fresh, path)  # whole or not at all, and never over another process's token
            except FileExistsError:
                raise
            except OSError:
                if not path.exists():  # a file system without links
                    os.replace(fresh, path)
            finally:
                fresh.unlink(missing_ok=True)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise UserError(f"cannot read or make the admin token {path}: {reason}") from None
    if len(token) < 16:
        raise UserError(f"the admin token in {path} is too short to be safe; delete the file, and a new one is made")
    return token


def rotate_admin_token(path: Path) -> str:
    """A new token in place of the old one; sessions and links made with the old one end. Raises UserError."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_private(fresh, token)
        os.replace(fresh, path)
    except OSError as error:
        raise UserError(f"cannot write the admin token {path}: {error.strerror}") from None
    return token


def is_loopback(host: str) -> bool:
    """True for addresses and names that only this machine can reach."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_open_console(settings: Settings, host: str) -> None:
    """Raises SettingsError when the login is switched off although others can reach the console."""
    auth = settings.auth
    if auth is not None and not auth.is_enabled and not is_loopback(host):
        raise SettingsError(
            f"auth_config.is_enabled: is false, but the console listens on {host}, where others reach it; "
            "set it to true, or use --console-host 127.0.0.1"
        )


@dataclass
class _Tries:
    failures: int = 0
    blocked_until: float = 0.0


@dataclass
class Throttle:
    """Makes guessing slow: after five wrong tries from an address each further one doubles the wait, to a minute."""

    clock: Clock
    _clients: OrderedDict[str, _Tries] = field(default_factory=OrderedDict)

    def check(self, client: str) -> None:
        """Raises Throttled while the address has to wait."""
        tries = self._clients.get(client)
        if tries is not None and (left := tries.blocked_until - self.clock.monotonic()) > 0:
            raise Throttled(left)

    def failed(self, client: str) -> None:
        """Counts a wrong try."""
        tries = self._clients.setdefault(client, _Tries())
        self._clients.move_to_end(client)
        tries.failures += 1
        if tries.failures >= _FREE_TRIES:
            wait = min(_LONGEST_WAIT_SECONDS, 2.0 ** (tries.failures - _FREE_TRIES))
            tries.blocked_until = self.clock.monotonic() + wait
        while len(self._clients) > _REMEMBERED_CLIENTS:
            self._clients.popitem(last=False)

    def succeeded(self, client: str) -> None:
        """A right try forgets the wrong ones."""
        self._clients.pop(client, None)


class Gatekeeper:
    """Checks credentials and sessions. Everything secret is compared in constant time."""

    def __init__(
        self,
        admin_token: str,
        settings: Settings,
        clock: Clock,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        auth = settings.auth
        self._token = admin_token
        self._clock = clock
        self._entropy = entropy
        self.is_open = auth is not None and not auth.is_enabled
        self._user: str | None = None
        self._password: str | None = None
        if auth is not None and auth.is_enabled and auth.admin_username is not None:
            self._user = settings.secret(auth.admin_username, "auth_config.admin_username")
            self._password = settings.secret(auth.admin_password, "auth_config.admin_password")
            if not self._user or not self._password:
                raise SettingsError("auth_config: admin_username and admin_password must not be empty")
        material = "\x1f".join((admin_token, self._user or "", self._password or "")).encode()
        # Sessions survive a restart and end when the token or the password changes.
        self._secret = hmac.digest(material, b"tollgate console session", hashlib.sha256)
        self.cookie_name = "tollgate_" + hmac.digest(self._secret, b"cookie name", hashlib.sha256).hex()[:8]
        self.throttle = Throttle(clock)

    @property
    def auth_type(self) -> Literal["none", "password", "token"]:
        """How people sign in."""
        if self.is_open:
            return "none"
        return "password" if self._user is not None else "token"

    @property
    def user_name(self) -> str:
        """Whom people sign in as; nobody without `auth_config`."""
        return self._user or ""

    def link_token_ok(self, token: str) -> bool:
        """Whether a `?token=` link opens the console; with a user and a password set it does not.

        Not throttled: 256 random bits cannot be guessed, and nobody else's tries must keep the owner out.
        """
        return self._user is None and self._same(token, self._token)

    def password_ok(self, user: str, password: str, client: str) -> bool:
        """Whether user and password are right. Raises Throttled."""
        if self._user is None or self._password is None:
            return False
        right = self._same(user, self._user) & self._same(password, self._password)
        return self._counted(client, right)

    def header_ok(self, authorization: str, client: str) -> Method | None:
        """What an Authorization header proves: bearer (the admin token, or a session), basic, or nothing. Raises Throttled."""
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() == "bearer" and credential:
            if self.session_ok(credential):
                return "bearer"
            return "bearer" if self._same(credential, self._token) else None
        if scheme.lower() == "basic" and credential:
            user, password = _basic(credential)
            return "basic" if self.password_ok(user, password, client) else None
        return None

    def new_session(self) -> str:
        """A signed session, good for 30 days."""
        payload = f"{self._clock.now_ms() // 1000 + SESSION_SECONDS}.{self._entropy(12).hex()}"
        return f"{payload}.{self._sign(payload)}"

    def session_ok(self, session: str) -> bool:
        """Whether a session was signed by us and has not run out."""
        payload, _, signature = session.rpartition(".")
        ends, _, _ = payload.partition(".")
        if not payload or not self._same(signature, self._sign(payload)):
            return False
        return ends.isascii() and ends.isdigit() and int(ends) > self._clock.now_ms() // 1000

    @staticmethod
    def ends_ms(session: str) -> int:
        """When a good session runs out by itself."""
        return int(session.partition(".")[0]) * 1000

    def csrf_token(self, session: str) -> str:
        """What a page must send back in `X-CSRF-Token` with every change made on a cookie session."""
        return self._sign(f"csrf {session}")

    def csrf_ok(self, session: str, token: str) -> bool:
        """Whether that token belongs to this session."""
        return self._same(token, self.csrf_token(session))

    def _counted(self, client: str, right: bool) -> bool:
        self.throttle.check(client)
        if right:
            self.throttle.succeeded(client)
        else:
            self.throttle.failed(client)
        return right

    def _sign(self, text: str) -> str:
        return hmac.digest(self._secret, text.encode(), hashlib.sha256).hex()

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _basic(credential: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(credential, validate=True).decode()
    except (binascii.Error, ValueError):
        return "", ""
    user, _, password = text.partition(":")
    return user, password


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600) if hasattr(os, "fchmod") else None
        os.write(descriptor, text.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
