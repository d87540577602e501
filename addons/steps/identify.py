"""Who is calling: the first virtual key in headers, query, proxy credentials, listener or default; and it is taken out again."""

import base64
import hashlib
from urllib.parse import unquote_plus

from addons.call import Call, State
from addons.headers import rewrite
from addons.providers.registry import PathKind
from addons.refusal import Refusal
from addons.services import Services
from store.config_store.snapshot import Snapshot, VirtualKey

PREFIX = "sk-bf-"
KEY_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")
PREFIX_BYTES = PREFIX.encode()
KEY_FIELDS = frozenset((b"x-bf-vk", b"authorization", *(name.encode() for name in KEY_HEADERS)))
OAUTH_PREFIXES = ("sk-ant-oat", "eyJ", "ya29.")
"""Bearer tokens of subscriptions and cloud logins: a person's own, never replaced by a shared key."""


def is_virtual_key(value: str) -> bool:
    return value[: len(PREFIX)].lower() == PREFIX


def key_hash(value: str) -> str:
    """SHA-256 hex digest, the form in which keys are looked up.

    Looking a digest up in a table needs no constant-time comparison: what an attacker could learn from the time is about
    the digest, not about the key.
    """
    return hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()


def identify(call: Call, services: Services) -> None:
    """Resolve the caller's virtual key, remove it from what goes upstream, note whether the caller has its own credential.

    Refuses 401 `virtual_key_not_found` for an unknown key (without falling through to the next place) and, for metered
    paths, 401 `virtual_key_required` when there is none and keys are required.
    """
    if call.plain:
        credential = proxy_credential(call.flow.request.headers.pop("proxy-authorization", ""))
        call.key_hash = key_hash(credential) if credential else ""
        _drop_leftovers(call)
        return
    value = _presented(call, services)
    _drop_leftovers(call)
    _note_own_credential(call)
    if call.refusal is not None:
        return
    snapshot = call.governance()
    key: VirtualKey | None
    if value is not None:
        call.key_hash = key_hash(value)
        key = snapshot.find(call.key_hash, services.clock.now_ms())
        if key is None:
            call.refuse(
                Refusal(
                    401,
                    "virtual_key_not_found",
                    "This virtual key does not exist or was rotated; ask whoever runs the gateway for the current one.",
                )
            )
            return
    else:
        key = _without_key(call, services, snapshot)
    call.virtual_key = key
    call.state = State.IDENTIFIED
    if key is None and services.policy.enforce_auth and not call.local and _needs_key(call):
        call.refuse(
            Refusal(
                401,
                "virtual_key_required",
                "No virtual key was sent. Use it as the API key (sk-bf-…), as the header x-bf-vk, or in the proxy address"
                " http://NAME:sk-bf-…@HOST:PORT.",
            )
        )


def is_unknown_key(call: Call) -> bool:
    """Refused for a key that this snapshot does not know; a newer one may."""
    return call.refusal is not None and call.refusal.type == "virtual_key_not_found"


def identify_by_hash(call: Call, snapshot: Snapshot, now_ms: int) -> None:
    """A second chance for an unknown key, in a newer snapshot. The refusal stays when it is unknown there too."""
    key = snapshot.find(call.key_hash, now_ms)
    if key is None:
        return
    call.refusal = None
    call.state = State.IDENTIFIED
    call.snapshot, call.virtual_key = snapshot, key
    if call.provider is not None:
        call.provider = snapshot.providers.get(call.provider.name, call.provider)


def identify_again(call: Call, snapshot: Snapshot, now_ms: int) -> None:
    """After the governance has changed: the same key in the new picture. Refuses when it is gone."""
    call.snapshot = snapshot
    if call.virtual_key is None:
        return
    key = snapshot.find(call.key_hash, now_ms) if call.key_hash else snapshot.virtual_keys.get(call.virtual_key.id)
    if key is None:
        call.refuse(Refusal(401, "virtual_key_not_found", "This virtual key was deleted or rotated a moment ago."))
    call.virtual_key = key
    if call.provider is not None:
        name = call.provider.name
        call.provider = snapshot.providers.get(name)
        if call.provider is None:
            call.refuse(Refusal(404, "not_found", f"Provider '{name}' was deleted a moment ago."))


def _needs_key(call: Call) -> bool:
    """Metered calls always; everything else only where a key of the gateway's own would be lent to a stranger."""
    return call.kind is not PathKind.FREE or not (call.caller_credential or _is_website_or_bare(call))


def _is_website_or_bare(call: Call) -> bool:
    """Forward traffic that carries no credential (settings, telemetry, `HEAD /`) gets none from us either."""
    return call.way_in.value == "forward"


def _presented(call: Call, services: Services) -> str | None:
    """The first virtual key present, in the order of the contract; every one of them is removed from the request."""
    headers, names = call.flow.request.headers, call.header_names
    found: list[str] = []
    if b"x-bf-vk" in names and (own := headers.get("x-bf-vk", "").strip()):
        found.append(own)  # taken out with the leftovers
    if b"authorization" in names:
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        if is_virtual_key(scheme):
            scheme, token = "bearer", scheme  # the scheme was forgotten; a virtual key goes upstream in no spelling
        if scheme.lower() == "bearer" and is_virtual_key(token.strip()):
            found.append(token.strip())
            rewrite(headers, {b"authorization": None})
    for name in KEY_HEADERS:
        if name.encode() not in names:
            continue
        value = headers.get(name, "").strip()
        if is_virtual_key(value):
            found.append(value)
            del headers[name]
    if "key=" in call.query or "%" in call.query:
        found += _take_query_key(call)
    proxy = headers.pop("proxy-authorization", "") if b"proxy-authorization" in names else ""
    facts = services.connections.get(call.flow.client_conn.id)
    for raw in (proxy, facts.credentials if facts else ""):
        credential = proxy_credential(raw) if raw else None
        if credential is not None:
            found.append(credential)
    return found[0] if found else None


def _drop_leftovers(call: Call) -> None:
    """No virtual key goes upstream, wherever else it stands: doubled headers, odd white space, requests to strangers."""
    if call.header_names.isdisjoint(KEY_FIELDS):
        return
    headers = call.flow.request.headers
    kept = [
        (name, value)
        for name, value in headers.fields
        if (lower := name.lower()) not in KEY_FIELDS or (lower != b"x-bf-vk" and PREFIX_BYTES not in value.lower())
    ]
    if len(kept) != len(headers.fields):
        headers.fields = tuple(kept)


def _take_query_key(call: Call) -> list[str]:
    taken: list[str] = []
    kept: list[str] = []
    for part in call.query.split("&"):
        name, _, value = part.partition("=")
        if unquote_plus(name) == "key" and is_virtual_key(unquote_plus(value)):
            taken.append(unquote_plus(value))
        else:
            kept.append(part)
    if taken:
        call.query = "&".join(kept)
        call.flow.request.path = call.flow.request.path.partition("?")[0] + (f"?{call.query}" if call.query else "")
    return taken


def proxy_credential(header: str) -> str | None:
    """The virtual key in a Proxy-Authorization value (as password or as user of Basic, or as Bearer); None without one.

    Credentials that are no virtual keys are somebody else's business: they count as none.
    """
    scheme, _, rest = header.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest if is_virtual_key(rest) else None
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
    except ValueError:  # no base64, bytes beyond ASCII, no UTF-8 inside
        return None
    for value in (password, user):
        if is_virtual_key(value):
            return value
    return None


def _without_key(call: Call, services: Services, snapshot: Snapshot) -> VirtualKey | None:
    """The listener's key, else the default key; neither for a web page somewhere that makes the browser call us."""
    facts = services.connections.get(call.flow.client_conn.id)
    name = services.policy.listener_keys.get(facts.port) if facts else None
    if name is None:
        name = services.policy.default_virtual_key
    if name is None or _from_a_web_page(call):
        return None
    return snapshot.virtual_keys.get(name) or next((key for key in snapshot.virtual_keys.values() if key.name == name), None)


def _from_a_web_page(call: Call) -> bool:
    headers = call.flow.request.headers
    return "origin" in headers or headers.get("sec-fetch-site", "none").lower() not in ("none", "same-origin")


def _note_own_credential(call: Call) -> None:
    headers, names = call.flow.request.headers, call.header_names
    authorization = headers.get("authorization", "") if b"authorization" in names else ""
    token = authorization.partition(" ")[2].strip()
    call.signed_by_caller = authorization.startswith("AWS4-HMAC-SHA256")
    call.signed = call.signed_by_caller or b"content-digest" in names or b"digest" in names
    call.caller_oauth = authorization[:7].lower() == "bearer " and token.startswith(OAUTH_PREFIXES)
    own_key = any(headers.get(name) for name in KEY_HEADERS if name.encode() in names)
    call.caller_credential = bool(authorization) or own_key or "key=" in call.query
