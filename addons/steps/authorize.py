"""What the caller may do: the key is active and not expired, the provider and the model are allowed; its caps are gathered."""

from addons.call import Call, State
from addons.patterns import caps_on, matches_any
from addons.refusal import Refusal
from addons.services import Services
from store.config_store.snapshot import ANY, ProviderConfig
from store.ledger.types import Cap, Enforcement, Unit


def admit(call: Call, services: Services) -> None:
    """Refuse 403 `virtual_key_blocked` for a key that is switched off or has expired."""
    key = call.virtual_key
    if key is None or call.provider is None or call.local:
        return
    if not key.is_active:
        call.refuse(Refusal(403, "virtual_key_blocked", f"Virtual key '{key.name}' is switched off."))
    elif key.expires_at_ms is not None and key.expires_at_ms <= services.clock.now_ms():
        call.refuse(Refusal(403, "virtual_key_blocked", f"Virtual key '{key.name}' has expired."))


def authorize(call: Call, services: Services) -> None:
    """Fill `provider_config`; refuse 403 `virtual_key_blocked`, `provider_blocked` or `model_blocked`."""
    admit(call, services)
    key = call.virtual_key
    if key is None or call.provider is None or call.local:
        call.state = State.AUTHORIZED
        return
    if call.refusal is not None:
        return
    candidates = [config for config in key.provider_configs if config.provider in (ANY, call.provider.name)]
    # What names the provider goes before what names any: its caps must not be passed by way of the other.
    candidates.sort(key=lambda config: config.provider == ANY)
    if not candidates:
        call.refuse(
            Refusal(403, "provider_blocked", f"Provider '{call.provider.name}' is not allowed for virtual key '{key.name}'.")
        )
        return
    if not call.model:
        call.provider_config = candidates[0]
    else:
        call.provider_config = next((config for config in candidates if allows(config, call.model, call.provider.name)), None)
        if call.provider_config is None:
            call.refuse(
                Refusal(
                    403,
                    "model_blocked",
                    f"Model '{call.model[:120]}' of provider '{call.provider.name}' is not allowed for virtual key '{key.name}'.",
                )
            )
            return
    call.state = State.AUTHORIZED


def allows(config: ProviderConfig, model: str, provider: str = "") -> bool:
    """The block list wins; an empty allow list allows nothing; names are compared as `addons.patterns` says."""
    return not matches_any(config.blacklisted_models, model, provider) and matches_any(config.allowed_models, model, provider)


def caps_of(call: Call) -> tuple[Cap, ...]:
    """Every cap the call touches, narrowest scope first, shortest window first within an owner."""
    snapshot, key = call.governance(), call.virtual_key
    provider = call.provider.name if call.provider is not None else ""
    caps: list[Cap] = []
    if key is not None:
        caps += key.run_caps
        if call.provider_config is not None:
            caps += call.provider_config.caps
        caps += caps_on(key.model_caps, call.model, provider)
        caps += key.caps
        caps += key.team_caps
        caps += key.customer_caps
    if call.provider is not None:
        caps += call.provider.caps
    caps += caps_on(snapshot.model_caps, call.model, provider)
    return tuple(caps)


def has_hard_money_cap(caps: tuple[Cap, ...]) -> bool:
    """Whether a cost that nobody knows could pass a cap that promises to hold."""
    return any(cap.unit is Unit.USD and cap.enforcement is Enforcement.HARD for cap in caps)
