"""`/api/session/*`: signing in with a password or the admin token, signing out, and whether one is signed in."""

from tornado.web import HTTPError

from addons.console.api.answers import AuthState, Done, LoginAnswer
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store.specs import Spec
from store.errors import UserError


class LoginBody(Spec):
    """User and password, or the admin token."""

    username: str | None = None
    password: str | None = None
    token: str | None = None


class LoginHandler(ConsoleHandler):
    """Starts a session."""

    needs_sign_in = False

    @operation("Sign in: sets a session cookie", body=LoginBody, answer=LoginAnswer, rehearsal=False)
    async def post(self) -> None:
        body = self.body_as(LoginBody)
        if self.gatekeeper.is_open:
            raise HTTPError(403, "signing in is switched off (auth_config.is_enabled); the console is open")
        if self.gatekeeper.auth_type == "password":
            if body.username is None or body.password is None:
                raise UserError("username and password are required")
            with self.counted():
                right = self.gatekeeper.password_ok(body.username, body.password, self.client_address)
        else:
            if body.token is None:
                raise UserError("token is required: it stands in the link that `tollgate admin-token` prints")
            right = self.gatekeeper.link_token_ok(body.token.strip())
        if not right:
            self.sign_ins.failed(self.client_address)
            raise HTTPError(401, "Unauthorized: that is not right")
        session = await self.begin_session(self.gatekeeper.auth_type)
        self.send({"message": "Login successful", "csrf_token": self.gatekeeper.csrf_token(session)})


class LogoutHandler(ConsoleHandler):
    """Ends the session, for good: a copy of its cookie opens nothing any more."""

    needs_sign_in = False

    @operation("Sign out: the session ends, also for copies of its cookie", answer=Done, rehearsal=False)
    async def post(self) -> None:
        if self.own_session:
            ends_ms = self.gatekeeper.ends_ms(self.own_session)
            await self.on_thread(self.sign_ins.ended, self.store.actor, self.own_session, ends_ms)
        self.clear_cookie(self.gatekeeper.cookie_name, path="/", httponly=True, samesite="Strict")
        self.send({"message": "Logout successful"})


class AuthStateHandler(ConsoleHandler):
    """Whether signing in is needed, and whether it has happened; on a session also the token that changes need."""

    needs_sign_in = False

    @operation("Whether signing in is needed, and whether it has happened", answer=AuthState)
    async def get(self) -> None:
        state: dict[str, object] = {
            "is_auth_enabled": not self.gatekeeper.is_open,
            "has_valid_token": self.method is not None,
            "auth_type": self.gatekeeper.auth_type,
        }
        if self.method == "session":
            state["csrf_token"] = self.gatekeeper.csrf_token(self.session)
        self.send(state)


ROUTES = (
    Route("/api/session/login", LoginHandler),
    Route("/api/session/logout", LogoutHandler),
    Route("/api/session/is-auth-enabled", AuthStateHandler),
)
