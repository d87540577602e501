"""The provider's key goes in on the way out, and is taken out of the flow again before anybody can look at it."""

from collections.abc import Collection

from addons.call import Call
from addons.patterns import matches_any
from addons.providers.registry import PathKind
from addons.refusal import Refusal
from addons.services import Services
from store.config_store.snapshot import ANY, Provider, ProviderConfig, ProviderKey

METHOD_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")
"""Some servers take the method from these; what was metered as a GET must not become a POST there."""
AUTH_HEADERS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")
REDACTED = b"[redacted]"


def credentials(call: Call, services: Services) -> None:
    """Put the credential in that goes upstream. Refuses 400 `no_provider_key` when a metered call would leave without one.

    Forward: the caller's own credential passes untouched, only a virtual key or nothing in its place is replaced.
    Reverse: the configured key, unless the caller's own is a subscription's token, direct keys are allowed, or there is no
    usable key. A stranger without a virtual key never gets a key of the gateway.
    """
    provider = call.provider
    if provider is None or call.family is None:
        return
    for override in METHOD_OVERRIDES:
        if override in call.header_names:
            call.changes[override] = None
    if sends_own(call, services):
        return
    key = call.provider_key or (choose_key(call, services) if lends(call, services) else None)
    if key is None:
        if call.foreign:
            call.changes.update(dict.fromkeys(AUTH_HEADERS))
            call.query = _without_key(call.query)
        elif call.caller_credential:
            return
        if call.family.auth == "none" or call.kind is PathKind.FREE:
            return
        whose = f" for virtual key '{call.virtual_key.name}'" if call.virtual_key else ""
        call.refuse(
            Refusal(
                400,
                "no_provider_key",
                f"Provider '{provider.name}' has no usable key{whose}: add one under Models → Providers, or send your own.",
            )
        )
        return
    call.provider_key = key
    _insert(call, key.value)


def sends_own(call: Call, services: Services) -> bool:
    """Whether the caller's own credential goes upstream whatever keys there are. Never to a provider it did not address."""
    if not call.caller_credential or call.foreign:
        return False
    direct = call.caller_oauth or services.policy.allow_direct_keys or call.signed_by_caller
    return direct or call.way_in.value == "forward"


def lends(call: Call, services: Services) -> bool:
    """Whether a key of the gateway's may be used: a stranger without a virtual key gets none."""
    return call.virtual_key is not None or not services.policy.enforce_auth


def choose_key(call: Call, services: Services) -> ProviderKey | None:
    """One of the usable keys at random by weight; one that failed in the last seconds only where there is no other."""
    if call.provider is None:
        return None
    usable = usable_keys(call.provider, call.provider_config, call.model, call.key_id, call.other_models)
    if len(usable) < 2:
        return usable[0] if usable else None
    name, health = call.provider.name, services.health
    usable = [key for key in usable if not health.is_failing(name, key.id)] or usable
    return services.random.choices(usable, weights=[key.weight for key in usable])[0]


def usable_keys(
    provider: Provider, config: ProviderConfig | None, model: str, key_id: str = "", others: tuple[str, ...] = ()
) -> list[ProviderKey]:
    """The provider's keys that a config allows for this model. `key_id`: only this one. `others`: models that may answer too."""
    allowed = config.key_ids if config is not None else (ANY,)
    return [
        key
        for key in provider.keys
        if key.value
        and (key.id == key_id if key_id else key.weight > 0)
        and (ANY in allowed or key.id in allowed or key.name in allowed)
        and (not model or _serves(key, model, provider.name))
        and all(_serves(key, other, provider.name) for other in others)
    ]


def _serves(key: ProviderKey, model: str, provider: str) -> bool:
    return matches_any(key.models, model, provider) and not matches_any(key.blacklisted_models, model, provider)


def _insert(call: Call, value: str) -> None:
    call.changes.update(dict.fromkeys(AUTH_HEADERS))
    call.query = _without_key(call.query)
    auth = call.family.auth if call.family else "bearer"
    if auth == "bearer":
        call.changes[b"authorization"] = f"Bearer {value}".encode()
    else:
        call.changes[auth.encode()] = value.encode()
    for name, extra in call.provider.extra_headers if call.provider else ():
        call.changes[name.lower().encode()] = extra.encode()


def _without_key(query: str) -> str:
    return "&".join(part for part in query.split("&") if not part.startswith("key=")) if "key=" in query else query


def redact(call: Call) -> None:
    """The request has left: nothing that can be viewed or saved later holds a credential, nor the operator's own headers."""
    request = call.flow.request
    hidden: Collection[bytes] = AUTH_HEADERS
    if call.provider_key is not None and call.provider is not None and call.provider.extra_headers:
        hidden = {*AUTH_HEADERS, *(name.lower().encode() for name, _ in call.provider.extra_headers)}
    fields = request.headers.fields
    request.headers.fields = tuple((name, REDACTED if name.lower() in hidden else value) for name, value in fields)
    if "key=" in call.query:
        path, _, query = request.path.partition("?")
        kept = ["key=[redacted]" if part.startswith("key=") else part for part in query.split("&")]
        request.path = f"{path}?{'&'.join(kept)}"
