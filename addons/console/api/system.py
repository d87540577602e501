"""`/health`, `/metrics`, `/api/version`, `/api/config`: how the gateway is, and how it is set up."""

from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from addons.console.handler import ConsoleHandler, error_envelope
from addons.console.metrics import metrics_text
from addons.console.routes import Route
from store.errors import StoreUnavailable


class HealthHandler(ConsoleHandler):
    """For probes: open to all, says nothing secret."""

    needs_sign_in = False

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

    async def get(self) -> None:
        self.send(self.context.version)


class MetricsHandler(ConsoleHandler):
    """Prometheus text."""

    async def get(self) -> None:
        text = await self.on_thread(metrics_text, self.context)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(text)


class ConfigHandler(ConsoleHandler):
    """The settings in force, without secrets."""

    async def get(self) -> None:
        settings = self.context.settings
        client: dict[str, Any] = settings.client.model_dump(mode="python")
        answer: dict[str, Any] = {
            "client_config": client,
            "framework_config": {},
            "gateway_config": settings.gateway.model_dump(mode="python", exclude={"upstream_proxy"}),
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
        if settings.auth is not None:
            user = settings.auth.admin_username
            answer["auth_config"] = {
                "admin_username": user.resolve(settings.environ) if user else None,
                "admin_password": "" if settings.auth.admin_password is None else "…",
                "is_enabled": settings.auth.is_enabled,
            }
        self.send(answer)


ROUTES = (
    Route("/health", HealthHandler),
    Route("/health/readiness", HealthHandler),
    Route("/metrics", MetricsHandler),
    Route("/api/version", VersionHandler),
    Route("/api/config", ConfigHandler),
)
