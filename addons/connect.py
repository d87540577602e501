"""CONNECT: who may open one, whereto, and whether it is decrypted. Everything else is refused inside, where clients show it."""

from mitmproxy import http

from addons import refuse
from addons.proxy import mitm
from addons.refusal import Refusal
from addons.runtime import Runtime
from addons.services import ConnectionFacts, Services, Snapshots
from addons.steps.identify import key_hash, proxy_credential
from addons.steps.route import provider_of_host

REALM = 'Basic realm="Tollgate: user name anything, password your virtual key"'
PROVIDERS_ONLY = "this gateway forwards to known providers only (gateway.forward.unmatched)"


async def decide(flow: http.HTTPFlow, runtime: Runtime) -> Refusal | None:
    """The refusal of a CONNECT, or None to let it through; its credentials are remembered for the calls inside."""
    services = runtime.services
    header = flow.request.headers.pop("proxy-authorization", "")
    facts = services.connections.setdefault(flow.client_conn.id, ConnectionFacts())
    facts.credentials = header
    value = proxy_credential(header) if header else None
    if value is not None:
        digest = key_hash(value)
        if not await _is_known(digest, services):
            return Refusal(407, "virtual_key_not_found", "The proxy credentials name no virtual key.")
        if not may_connect(digest, services) and provider_of_host(services.snapshots.current, flow.request.host) is None:
            # To a provider the refusal comes inside, where clients show it.
            return Refusal(407, "virtual_key_blocked", "The virtual key in the proxy credentials is switched off or has expired.")
    if value is None and runtime.require_auth and facts.port not in services.policy.listener_keys:
        return Refusal(407, "virtual_key_required", "This proxy needs a virtual key: http://NAME:sk-bf-…@HOST:PORT.")
    mitm.route(flow, runtime.upstream_proxy)
    host, port = flow.request.host, flow.request.port
    if provider_of_host(services.snapshots.current, host) is not None:
        return None
    reason = PROVIDERS_ONLY if runtime.unmatched == "deny" else runtime.egress.check(host, port)
    if reason is None:
        return None
    return Refusal(403, "address_denied", f"The gateway does not connect to {host}:{port}: {reason}.")


def may_connect(digest: str, services: Services) -> bool:
    """Whether the key with this hash may use the proxy now."""
    now_ms = services.clock.now_ms()
    key = services.snapshots.current.find(digest, now_ms)
    return key is not None and key.is_active and (key.expires_at_ms is None or key.expires_at_ms > now_ms)


async def _is_known(digest: str, services: Services) -> bool:
    """A key that the current snapshot does not know may have been made a moment ago."""
    snapshots, clock = services.snapshots, services.clock
    if snapshots.current.find(digest, clock.now_ms()) is not None:
        return True
    return await snapshots.look() and snapshots.current.find(digest, clock.now_ms()) is not None


def refused(refusal: Refusal, request_id: str) -> http.Response:
    """The answer to a CONNECT that is not let through."""
    content = refuse.body(refusal, "openai", request_id, {})
    response = http.Response.make(refusal.status, content, {"content-type": "application/json"})
    if refusal.status == 407:
        response.headers["proxy-authenticate"] = REALM
    return response


def is_intercepted(snapshots: Snapshots, host: str, port: int) -> bool:
    """Whether a CONNECT to `host` is decrypted: exactly when it belongs to a known provider."""
    return provider_of_host(snapshots.current, host) is not None


def sni_allowed(snapshots: Snapshots, connect_host: str, sni: str) -> bool:
    """Inside an intercepted CONNECT the TLS handshake must ask for the same provider."""
    return provider_of_host(snapshots.current, connect_host) is provider_of_host(snapshots.current, sni)
