"""Where a request goes: origin-form or CONNECT or model → provider, dialect, upstream address; metered, free or unknown."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from mitmproxy import http

from addons.call import Call, State, WayIn
from addons.headers import rewrite
from addons.providers.dialect import Dialect
from addons.providers.registry import (
    FAMILIES,
    PathKind,
    ProviderFamily,
    endpoint,
    family_of_host,
    residency_of_host,
    same_call_path,
)
from addons.refusal import Refusal
from addons.services import Services
from store.config_store.snapshot import Provider, Snapshot

LOCAL_PATHS = frozenset({"/", "/health", "/ca.pem", "/api/governance/virtual-keys/quota"})
REFUSED_METHODS = frozenset({"TRACE", "TRACK"})
PREFIX_ALIASES: Mapping[str, str] = {"genai": "gemini"}
"""Path prefixes that are not the provider's own name."""


def route(call: Call, services: Services, form: str, connect: tuple[str, int] | None) -> None:
    """Find out what the request head says about its destination.

    `form` is how the request line was written, `connect` the target of the CONNECT it came through. Fills the route fields
    of the call; refuses with 404 (unknown path) or 421 (Host names another provider than the CONNECT).
    """
    request = call.flow.request
    path, _, call.query = request.path.partition("?")
    call.client_path = path
    call.header_names = frozenset([name.lower() for name, _ in request.headers.fields])
    call.snapshot = services.snapshots.current
    call.state = State.ROUTED
    if request.method.upper() in REFUSED_METHODS:
        call.refuse(
            Refusal(405, "method_not_allowed", f"The method {request.method.upper()} is not passed on: it would echo credentials.")
        )
    elif connect is not None:
        _forward(call, connect[0], connect[1], path)
    elif form == "absolute" and not _names_gateway(request, services):
        _absolute(call, path)
    else:
        _reverse(call, path)


def _names_gateway(request: http.Request, services: Services) -> bool:
    return request.port == services.policy.own_port and request.host.lower() in services.policy.own_names


def provider_of_host(snapshot: Snapshot, host: str) -> Provider | None:
    """The provider a public host belongs to: the operator's own `hosts` first, then the registry."""
    bare = host.lower().rstrip(".")
    for provider in snapshot.providers.values():
        if bare in provider.hosts:
            return provider
    family = family_of_host(bare)
    return None if family is None else snapshot.providers.get(family.name)


def _forward(call: Call, host: str, port: int, path: str) -> None:
    call.way_in = WayIn.FORWARD
    snapshot = call.governance()
    provider = provider_of_host(snapshot, host)
    if provider is None:
        call.refuse(Refusal(421, "misdirected_request", f"{host} is not a provider this gateway knows."))
        return
    named = call.flow.request.host_header
    if named and provider_of_host(snapshot, _bare_host(named)) is not provider:
        call.refuse(
            Refusal(421, "misdirected_request", f"The connection was opened to {host}, but the Host header names another server.")
        )
        return
    call.host, call.port, call.region = host, port, residency_of_host(host)
    _settle_on(call, provider, path)


def _absolute(call: Call, path: str) -> None:
    """A plain-HTTP proxy request. To a provider it is governed (and leaves encrypted); to anybody else it passes through."""
    call.way_in = WayIn.FORWARD
    request = call.flow.request
    provider = provider_of_host(call.governance(), request.host)
    if provider is None:
        call.plain = True
        call.kind = PathKind.FREE
        return
    call.host, call.port = request.host, 443 if request.port == 80 else request.port
    call.region = residency_of_host(request.host)
    _settle_on(call, provider, path)


def _reverse(call: Call, path: str) -> None:
    call.way_in = WayIn.REVERSE
    snapshot = call.governance()
    if path in LOCAL_PATHS and call.flow.request.method in ("GET", "HEAD"):
        call.local = True
        call.kind = PathKind.FREE
        return
    if call.flow.request.method == "OPTIONS" and "origin" in call.flow.request.headers:
        call.local = True
        call.kind = PathKind.FREE
        return
    if path == "/v1" or path.startswith("/v1/"):
        _openai_shaped(call, snapshot, path)
        return
    prefix, _, rest = path[1:].partition("/")
    provider = snapshot.providers.get(PREFIX_ALIASES.get(prefix, prefix))
    if provider is None or provider.dialect_family not in FAMILIES:
        known = ", ".join(sorted(f"/{name}" for name in snapshot.providers)[:6])
        call.refuse(
            Refusal(404, "not_found", f"No provider at {path[:80]}. Base URLs are /v1, /genai, {known}, … (see GET / for a list).")
        )
        return
    rest = "/" + rest
    if provider.dialect_family == "openai" and rest != "/v1" and not rest.startswith("/v1/"):
        rest = "/v1" + rest
    _settle_on(call, provider, rest)


def _openai_shaped(call: Call, snapshot: Snapshot, path: str) -> None:
    """`/v1/…`: the model in the body picks the provider later; until then the shape of the path decides."""
    if path == "/v1/models" and call.flow.request.method == "GET":
        call.local = True
        call.kind = PathKind.FREE
        return
    name = "anthropic" if path == "/v1/messages" or path.startswith("/v1/messages/") else "openai"
    provider = snapshot.providers.get(name)
    if provider is None:
        call.refuse(Refusal(404, "not_found", f"No provider '{name}' is configured for {path[:80]}."))
        return
    _settle_on(call, provider, path)
    call.by_model = call.kind is PathKind.METERED
    call.pinned = not call.by_model


def _settle_on(call: Call, provider: Provider, path: str) -> None:
    """Classify `path` at `provider`, remember dialect and error shape. The path of the family's public address may be written."""
    family = FAMILIES[provider.dialect_family]
    prefix = _public_prefix(family)
    path = _below(prefix, path)
    whole = path
    if family.website:
        # There the prefix tells the API from the rest of the site; a base URL always means the API.
        whole = call.client_path if call.way_in is WayIn.FORWARD else prefix + path
    place = endpoint(family, call.flow.request.method, whole)
    call.provider, call.family = provider, family
    call.provider_path = path
    call.kind, call.dialect, call.operation = place.kind, place.dialect, place.operation
    call.path_model, call.websocket = place.model, place.websocket
    call.error_dialect = family.error_dialect if place.dialect is None else _error_dialect(place.dialect.name, family)


@lru_cache
def _public_prefix(family: ProviderFamily) -> str:
    """The path of the public address below which `/v1/…` lives."""
    return urlsplit(family.base_url).path.rstrip("/").removesuffix("/v1")


def _below(prefix: str, path: str) -> str:
    """`path` without `prefix`, where it has it."""
    return path[len(prefix) :] if prefix and path.startswith(prefix + "/") else path


def _error_dialect(dialect_name: str, family: ProviderFamily) -> str:
    for name in ("anthropic", "gemini"):
        if dialect_name.startswith(name):
            return name
    return "openai" if dialect_name.startswith("openai") else family.error_dialect


def route_by_model(call: Call) -> None:
    """`/v1`: `provider/name` picks the provider when the part before the first slash is a configured one.

    May change the dialect to that provider's variant of the same protocol; the facts must then be read once more.
    """
    facts = call.facts
    if not call.by_model or facts is None or facts.model is None or call.dialect is None:
        return
    head, slash, rest = facts.model.partition("/")
    provider = call.governance().providers.get(PREFIX_ALIASES.get(head, head)) if slash else None
    if provider is None or not rest or provider.dialect_family not in FAMILIES:
        return
    place = place_at(call, provider)
    if place is None:
        call.refuse(
            Refusal(
                400,
                "wrong_dialect",
                f"Provider '{provider.name}' does not speak this protocol at {call.provider_path};"
                f" use its own base URL /{provider.name} (the gateway does not translate).",
            )
        )
        return
    call.provider, call.family, call.dialect, call.provider_path = provider, place.family, place.dialect, place.path
    call.model, call.pinned = rest, True


class PlaceAt(NamedTuple):
    """Where another provider takes the same kind of request: its protocol's variant there, and the path."""

    family: ProviderFamily
    dialect: Dialect
    path: str


def place_at(call: Call, provider: Provider) -> PlaceAt | None:
    """Where `provider` takes this call's request as it is; None when it does not speak the call's dialect there.

    A provider without any known address serves nothing.
    """
    family = FAMILIES.get(provider.dialect_family)
    if family is None or call.dialect is None or not (provider.base_url or family.base_url):
        return None
    path = same_call_path(family, call.provider_path)
    place = endpoint(family, call.flow.request.method, path)
    if place.dialect is None or place.dialect.name != call.dialect.name:
        return None
    return PlaceAt(family, place.dialect, path)


def upstream_address(call: Call) -> tuple[str, str, int, str]:
    """(scheme, host, port, path) of the provider: always from the registry or the configuration, never from Host.

    Raises RuntimeError when the call was never routed to a provider.
    """
    provider, family = call.provider, call.family
    if provider is None or family is None:
        raise RuntimeError("the call has no provider")
    if provider.base_url is None and call.way_in is WayIn.FORWARD:
        return "https", call.host, call.port, call.client_path
    parts = urlsplit(provider.base_url or family.base_url)
    prefix = parts.path.rstrip("/")
    if prefix.endswith("/v1") and call.provider_path.startswith("/v1/"):
        prefix = prefix[: -len("/v1")]
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port, prefix + call.provider_path


def address(call: Call) -> None:
    """Write the upstream address into the request, with the Host header and every other change of headers."""
    scheme, host, port, path = upstream_address(call)
    request = call.flow.request
    # Not through the setters: each of them would rewrite the Host header.
    request.data.scheme, request.data.host, request.data.port = scheme.encode(), host, port
    request.path = f"{path}?{call.query}" if call.query else path
    default_port = 443 if scheme == "https" else 80
    bracketed = f"[{host}]" if ":" in host else host
    call.changes[b"host"] = (bracketed if port == default_port else f"{bracketed}:{port}").encode()
    rewrite(request.headers, call.changes)


def _bare_host(authority: str) -> str:
    """Host of an authority, without port; brackets of an IPv6 address taken off."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    host, _, port = authority.rpartition(":")
    return host if host and port.isdigit() else authority
