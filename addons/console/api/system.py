"""`/health`, `/metrics`, `/api/version`, `/api/config`: how the gateway is, and how it is set up."""

from typing import Any, Literal, NotRequired, TypedDict

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import Field

from addons.console.api.answers import HealthAnswer
from addons.console.handler import ConsoleHandler, error_envelope
from addons.console.metrics import metrics_text
from addons.console.routes import Route, operation
from store.config_store.change_client import ClientPatch, client_in_force, update_client
from store.config_store.client_config import CLIENT_CONFIG, CLIENT_ID, stored_client
from store.config_store.documents import HIDDEN
from store.config_store.secret_text import SecretText
from store.config_store.specs import Spec
from store.config_store.unimplemented import is_empty
from store.errors import StoreUnavailable, UserError
from store.settings import AuthConfig


class HealthHandler(ConsoleHandler):
    """For probes: open to all, says nothing secret."""

    needs_sign_in = False

    @operation("Whether the gateway can do its work", answer=HealthAnswer)
    async def get(self) -> None:
        try:
            health = await self.on_thread(self.context.health)
        except StoreUnavailable:
            self.send(error_envelope(503, "a store cannot be reached"), 503)
            return
        if not health.ok:
            words = ", ".join(f"{name} {state}" for name, state in health.components.items())
            self.send(error_envelope(503, f"not healthy: {words}"), 503)
            return
        self.send({"status": "ok", "components": dict(health.components)})


class VersionHandler(ConsoleHandler):
    """The version, as a bare string."""

    needs_sign_in = False

    @operation("The version", answer=str)
    async def get(self) -> None:
        self.send(self.context.version)


class MetricsHandler(ConsoleHandler):
    """Prometheus text."""

    @operation("Figures for Prometheus", answer=str, media="text/plain")
    async def get(self) -> None:
        text = await self.on_thread(metrics_text, self.context)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(text)


class ConfigBody(Spec):
    """What of the configuration is to be changed. Sections that are absent stay."""

    read_only = frozenset(
        {"gateway_config", "stored_client_config", "is_db_connected", "is_read_only", "is_cache_connected", "is_logs_connected",
         "is_object_storage_connected", "restart_required", "version", "gateway_url", "inspector_url", "warnings"}
    )  # fmt: skip

    client_config: ClientPatch = ClientPatch()
    framework_config: dict[str, Any] = Field(default_factory=dict)
    auth_config: AuthConfig | None = None


class ConfigDone(TypedDict):
    """It is done."""

    status: Literal["success"]
    message: str
    client_config: dict[str, Any]


class RestartRequired(TypedDict):
    """Whether what was changed waits for a restart. Nothing that can be changed here does."""

    required: bool
    reason: str


class ConfigState(TypedDict):
    """The settings in force. `stored_client_config` holds the fields that the store keeps and that go before config.json."""

    client_config: dict[str, Any]
    stored_client_config: dict[str, Any]
    framework_config: dict[str, Any]
    gateway_config: dict[str, Any]
    auth_config: NotRequired[dict[str, Any]]
    restart_required: RestartRequired
    is_db_connected: bool
    is_read_only: bool
    is_cache_connected: bool
    is_logs_connected: bool
    is_object_storage_connected: bool
    version: str
    gateway_url: str | None
    inspector_url: str | None
    warnings: list[str]


class ConfigHandler(ConsoleHandler):
    """The settings in force, without secrets, and changing those of `client` while the gateway runs."""

    @operation("The settings in force, without secrets", answer=ConfigState)
    async def get(self) -> None:
        self.send(await self.on_thread(self._answer))

    @operation("Change client settings; every process takes them over within a second", body=ConfigBody, answer=ConfigDone)
    async def put(self) -> None:
        body = self.body_as(ConfigBody)
        settings = self.context.settings
        self._refuse_others(body)
        stored = await self.on_thread(update_client, self.store, settings, body.client_config)
        await self.on_thread(self.tag, CLIENT_CONFIG, CLIENT_ID)
        client = client_in_force(settings, stored).model_dump(mode="python")
        self.send({"status": "success", "message": "Configuration updated successfully", "client_config": client})

    def _refuse_others(self, body: ConfigBody) -> None:
        for name, value in body.framework_config.items():
            if not is_empty(value):
                raise UserError(f"framework_config.{name}: is not implemented; leave it out")
        if body.auth_config is None:
            return
        shown = self._auth() or {"is_enabled": True}
        for name in body.auth_config.model_fields_set:
            given = getattr(body.auth_config, name)
            if (given.written if isinstance(given, SecretText) else given) != shown.get(name):
                raise UserError(f"auth_config.{name}: stands in config.json; change it there, then restart the gateway")

    def _answer(self) -> dict[str, Any]:
        settings = self.context.settings
        with self.context.store.database.read() as connection:
            stored = stored_client(connection)
        self.tag(CLIENT_CONFIG, CLIENT_ID)
        answer: dict[str, Any] = {
            "client_config": client_in_force(settings, stored).model_dump(mode="python"),
            "stored_client_config": stored,
            "framework_config": {},
            "gateway_config": settings.gateway.model_dump(mode="python", exclude={"upstream_proxy"}),
            "restart_required": {"required": False, "reason": ""},
            "is_db_connected": True,
            "is_read_only": self.context.store.file_only,
            "is_cache_connected": False,
            "is_logs_connected": self.context.logs is not None,
            "is_object_storage_connected": False,
            "version": self.context.version,
            "gateway_url": self.context.gateway_url,
            "inspector_url": self.context.inspector_url(),
            "warnings": settings.warnings,
        }
        auth = self._auth()
        return answer if auth is None else {**answer, "auth_config": auth}

    def _auth(self) -> dict[str, Any] | None:
        auth = self.context.settings.auth
        if auth is None:
            return None
        user = auth.admin_username
        return {
            "admin_username": user.resolve(self.context.settings.environ) if user else None,
            "admin_password": "" if auth.admin_password is None else HIDDEN,
            "is_enabled": auth.is_enabled,
        }


ROUTES = (
    Route("/health", HealthHandler),
    Route("/health/readiness", HealthHandler),
    Route("/metrics", MetricsHandler),
    Route("/api/version", VersionHandler),
    Route("/api/config", ConfigHandler),
)
