"""What the gateway port answers by itself: health, the CA certificate, the quota of a key, the model list, preflights."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from mitmproxy import http

from addons.call import Call
from addons.patterns import matches_any
from addons.refusal import Refusal
from addons.services import Services
from store.config_store.snapshot import ANY, ProviderConfig, VirtualKey

HEALTH_SECONDS = 1.5
"""A store that has not answered in this time is out of reach."""
ALLOWED_HEADERS = "authorization, content-type, x-api-key, x-goog-api-key, api-key, x-bf-vk, anthropic-version, anthropic-beta"


Components = dict[str, Any]


class HealthProbe:
    """Asks the stores on a thread, once for all who ask meanwhile: a silent server holds up one thread, and no call."""

    def __init__(self) -> None:
        self._looking: asyncio.Task[Components | None] | None = None

    async def look(self, health: Callable[[], Components | None]) -> Components | None:
        """What `health` says, or None when it takes too long."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(asyncio.to_thread(health), name="health")
        try:
            return await asyncio.wait_for(asyncio.shield(self._looking), HEALTH_SECONDS)
        except TimeoutError:
            return None


@dataclass(frozen=True, slots=True)
class LocalAnswers:
    """What the answers need from outside the chain."""

    version: str
    ca_certificate: Path
    quota: Callable[[VirtualKey], Awaitable[dict[str, Any]]]
    """The quota object of a key, in Bifrost's shape."""
    health: Callable[[], Components | None]
    """Components' states, or None when a store is out of reach. May block; asked on a thread."""
    list_models: Callable[[str], tuple[str, ...]]
    """Model ids that the price book knows of a provider."""
    probe: HealthProbe = field(default_factory=HealthProbe)


async def answer(call: Call, services: Services, local: LocalAnswers) -> http.Response | None:
    """The response to a local path; None with a refusal set where there is none to give."""
    request = call.flow.request
    if request.method == "OPTIONS":
        return _preflight(call, services)
    match call.client_path:
        case "/":
            return _json(
                {
                    "name": "tollgate",
                    "version": local.version,
                    "base_urls": ["/v1", "/genai"] + sorted(f"/{name}" for name in call.governance().providers),
                    "ca": "/ca.pem",
                    "health": "/health",
                }
            )
        case "/health":
            components = await local.probe.look(local.health)
            if components is None:
                call.refuse(Refusal(503, "gateway_unavailable", "A store cannot be reached.", retry_after=5))
                return None
            return _json({"status": "ok", "components": components})
        case "/ca.pem":
            try:
                return http.Response.make(200, local.ca_certificate.read_bytes(), {"content-type": "application/x-pem-file"})
            except OSError:
                call.refuse(Refusal(404, "not_found", "There is no CA certificate yet."))
                return None
        case "/v1/models":
            return _models(call, services, local)
    if call.virtual_key is None:
        call.refuse(Refusal(401, "virtual_key_required", "Send the virtual key whose quota you want to see."))
        return None
    return _json(await local.quota(call.virtual_key))


def _json(value: Any) -> http.Response:
    return http.Response.make(200, orjson.dumps(value), {"content-type": "application/json"})


def _preflight(call: Call, services: Services) -> http.Response | None:
    origin = call.flow.request.headers.get("origin", "")
    allowed = services.policy.allowed_origins
    if ANY not in allowed and origin not in allowed:
        call.refuse(Refusal(403, "origin_blocked", "This web origin is not in client.allowed_origins."))
        return None
    return http.Response.make(
        204,
        b"",
        {
            "access-control-allow-origin": origin,
            "access-control-allow-methods": "GET, POST, OPTIONS",
            "access-control-allow-headers": ALLOWED_HEADERS,
            "access-control-max-age": "600",
            "vary": "origin",
        },
    )


def _models(call: Call, services: Services, local: LocalAnswers) -> http.Response | None:
    """`GET /v1/models`: what the key may use, as `provider/model`; OpenAI's own also without the prefix."""
    key = call.virtual_key
    if key is None and services.policy.enforce_auth:
        call.refuse(Refusal(401, "virtual_key_required", "Send a virtual key to see the models it may use."))
        return None
    rows: list[dict[str, Any]] = []
    for name, provider in sorted(call.governance().providers.items()):
        configs = [c for c in key.provider_configs if c.provider in (ANY, name)] if key else None
        if configs == [] or not (provider.keys or provider.base_url):
            continue
        listed = local.list_models(provider.name) or local.list_models(provider.dialect_family)
        priced = call.governance().prices.names_at(key.id if key else "", name, (each.id for each in provider.keys))
        for model in dict.fromkeys((*listed, *priced)):
            if configs is None or _may_use(configs, model, name):
                rows.append({"id": f"{name}/{model}", "object": "model", "owned_by": name})
                if name == "openai":
                    rows.append({"id": model, "object": "model", "owned_by": name})
    return _json({"object": "list", "data": rows})


def _may_use(configs: list[ProviderConfig], model: str, provider: str) -> bool:
    """As calls are admitted: what a config naming the provider blocks, one for any provider does not serve either."""
    blocking = [config for config in configs if matches_any(config.blacklisted_models, model, provider)]
    if any(config.provider == provider for config in blocking):
        configs = [config for config in configs if config.provider == provider]
    return any(config not in blocking and matches_any(config.allowed_models, model, provider) for config in configs)
