"""What the caller may do: the key is active and not expired, the provider and the model are allowed; its caps are gathered."""

from collections.abc import Sequence

from addons.call import Call, State
from addons.patterns import caps_on, caps_on_any, matches_any
from addons.refusal import Refusal
from addons.services import Services
from store.config_store.snapshot import ANY, ModelCaps, ProviderConfig, VirtualKey
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
    if not candidates:
        call.refuse(
            Refusal(403, "provider_blocked", f"Provider '{call.provider.name}' is not allowed for virtual key '{key.name}'.")
        )
        return
    # What names the provider goes before what names any: its caps must not be passed by way of the other.
    candidates = allowing(key.provider_configs, call.model, call.provider.name, call.other_models)
    if not candidates:
        call.provider_config = None
        call.refuse(_model_blocked(call, key, call.provider.name))
        return
    call.provider_config = candidates[0]
    call.state = State.AUTHORIZED


def _model_blocked(call: Call, key: VirtualKey, provider: str) -> Refusal:
    """Names the model that is not allowed: the one asked for, or the first of the others that the request names."""
    allowed = allowing(key.provider_configs, call.model, provider)
    names = (model for model in call.other_models if not allowing(allowed, model, provider))
    model = next(names, call.other_models[0]) if allowed and call.other_models else call.model
    said = f"Model '{model[:120]}' of provider '{provider}' is not allowed for virtual key '{key.name}'."
    if allowed:
        said += " The request names it among the models that may answer instead."
    return Refusal(403, "model_blocked", said)


def allowing(configs: Sequence[ProviderConfig], model: str, provider: str, others: tuple[str, ...] = ()) -> list[ProviderConfig]:
    """The configs that let a call for `model` (empty: not known) go to `provider`, what names the provider first.

    What one of these blocks, a `*` config does not serve either. `others`: models that may answer instead; all must be allowed.
    """
    named: list[ProviderConfig] = []
    anywhere: list[ProviderConfig] = []
    for config in configs:
        if config.provider == provider:
            named.append(config)
        elif config.provider == ANY:
            anywhere.append(config)
    found = [config for config in named if not model or allows(config, model, provider)]
    if anywhere and not (model and named and any(matches_any(config.blacklisted_models, model, provider) for config in named)):
        found += [config for config in anywhere if not model or allows(config, model, provider)]
    for other in others:
        fitting = {id(config) for config in allowing(configs, other, provider)}
        found = [config for config in found if id(config) in fitting]
    return found


def allows(config: ProviderConfig, model: str, provider: str = "") -> bool:
    """The block list wins; an empty allow list allows nothing; names are compared as `addons.patterns` says."""
    return not matches_any(config.blacklisted_models, model, provider) and matches_any(config.allowed_models, model, provider)


def caps_of(call: Call) -> tuple[Cap, ...]:
    """Every cap the call touches, narrowest scope first, shortest window first within an owner.

    Caps on a model bind a call that names it as one that may answer instead, too.
    """
    snapshot, key = call.governance(), call.virtual_key
    provider = call.provider.name if call.provider is not None else ""
    caps: list[Cap] = []
    if key is not None:
        caps += key.run_caps
        if call.provider_config is not None:
            caps += call.provider_config.caps
        caps += _caps_on_models(key.model_caps, call, provider)
        caps += key.caps
        caps += key.team_caps
        caps += key.customer_caps
    if call.provider is not None:
        caps += call.provider.caps
    caps += _caps_on_models(snapshot.model_caps, call, provider)
    return tuple(caps)


def caps_on_any_model(call: Call, services: Services) -> tuple[Cap, ...]:
    """The caps on models that a call may touch of which nobody knows the model."""
    provider, family, key = call.provider, call.family, call.virtual_key
    if provider is None or family is None:
        return ()
    names = (provider.name, family.name, family.prices_of)
    models = next((found for name in names if name and (found := services.book.models(name))), ())
    of_key = caps_on_any(key.model_caps, models, provider.name) if key is not None else ()
    return (*of_key, *caps_on_any(call.governance().model_caps, models, provider.name))


def _caps_on_models(limits: ModelCaps, call: Call, provider: str) -> tuple[Cap, ...]:
    found = caps_on(limits, call.model, provider)
    if call.other_models:
        each_once = {cap.id: cap for cap in found}
        for model in call.other_models:
            each_once |= {cap.id: cap for cap in caps_on(limits, model, provider)}
        found = tuple(each_once.values())
    return found


def has_hard_money_cap(caps: tuple[Cap, ...]) -> bool:
    """Whether a cost that nobody knows could pass a cap that promises to hold."""
    return any(cap.unit is Unit.USD and cap.enforcement is Enforcement.HARD for cap in caps)
