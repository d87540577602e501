"""Which providers may serve a call, and in which order they are asked: what the caller named, the key's configs, routing rules."""

from collections.abc import Iterable, Iterator, Sequence

from addons.call import Call, Candidate, Decision, Wanted
from addons.places import Places
from addons.services import Services
from addons.steps.authorize import allowing
from addons.steps.credentials import lends, sends_own, usable_keys
from addons.steps.route import place_at
from store.config_store.snapshot import ANY, Provider, ProviderConfig, VirtualKey


def want(call: Call) -> None:
    """Remember what the caller asked for. Nothing for a call that has no provider or no dialect."""
    if call.provider is not None and call.family is not None:
        call.wanted = Wanted(call.provider, call.family, call.dialect, call.provider_path, call.model, call.facts)


def want_again(call: Call) -> None:
    """Back to what the caller asked for, with the provider as the snapshot of now has it."""
    wanted = call.wanted
    if wanted is None:
        return
    call.provider, call.family, call.dialect = wanted.provider, wanted.family, wanted.dialect
    call.provider_path, call.model, call.facts = wanted.path, wanted.model, wanted.facts
    call.provider_config = call.provider_key = None
    call.rule, call.foreign, call.key_id = None, False, ""


def candidates(call: Call, services: Services, decision: Decision | None) -> list[Candidate]:
    """Who may serve the call, the first choice first; empty when the key allows nobody.

    Without a usable provider key a place drops out, and one that failed in the last seconds goes last, where there is another.
    """
    wanted = call.wanted
    if wanted is None:
        return []
    found: list[Candidate]
    if decision is None:
        found = _as_asked(call, services, wanted, wanted.model)
    else:
        found = []
        for destination in decision.destinations:
            model = destination.model or wanted.model
            if destination.provider is None:
                found += _as_asked(call, services, wanted, model)
            elif (provider := call.governance().providers.get(destination.provider)) is not None:
                found += _at(call, services, wanted, provider, model, destination.key_id or "")
        found = _once_each(found)
    if len(found) < 2:
        return found
    usable = [candidate for candidate in found if _is_usable(call, services, candidate)]
    found = usable or found[:1]
    if services.health.is_anything_failing:
        found.sort(key=lambda candidate: _is_failing(services, candidate, call.other_models))
    return found


def _once_each(found: Iterable[Candidate]) -> list[Candidate]:
    kept: dict[tuple[str, str, str, str], Candidate] = {}
    for each in found:
        kept.setdefault((each.provider.name, each.config.id if each.config else "", each.model, each.key_id), each)
    return list(kept.values())


def _as_asked(call: Call, services: Services, wanted: Wanted, model: str) -> list[Candidate]:
    if call.virtual_key is None or call.pinned:
        return _at(call, services, wanted, wanted.provider, model)
    return _by_model(call, services, wanted, model, call.virtual_key)


def _at(call: Call, services: Services, wanted: Wanted, provider: Provider, model: str, key_id: str = "") -> list[Candidate]:
    """One provider, by each of the key's configs that allow the model there: weighted ones drawn first, then in their order."""
    if call.virtual_key is None:
        made = _candidate(call, wanted, provider, None, model, key_id)
        return [made] if made is not None else []
    named = allowing(call.virtual_key.provider_configs, model, provider.name, call.other_models)
    if named and named[0].provider != ANY:  # what names the provider goes before what names any: its caps must not be passed
        named = [config for config in named if config.provider != ANY]
    if len(named) > 1:
        named = _drawn(services, [(config.weight, config) for config in named])
    made_of = (_candidate(call, wanted, provider, config, model, key_id) for config in named)
    return [made for made in made_of if made is not None]


def _by_model(call: Call, services: Services, wanted: Wanted, model: str, key: VirtualKey) -> list[Candidate]:
    """A bare model name: every provider of the key that speaks the path's dialect, allows the model and is known to have it."""
    snapshot = call.governance()
    method, dialect = call.flow.request.method, call.dialect.name if call.dialect is not None else ""
    asked = (key.id, wanted.provider.name, method, wanted.path, dialect, call.operation, model, call.other_models)
    pairs = services.places.get(snapshot, asked)
    if pairs is None:
        pairs = _having_model(call, services, wanted, model, key.provider_configs)
        services.places.put(snapshot, asked, pairs)
    if not pairs:
        # Nobody is known to have it: the provider that the path stands for is asked, as it would be by its own base URL.
        return _at(call, services, wanted, wanted.provider, model)
    weighted = [pair for pair in pairs if pair[0]]
    if weighted:
        return _drawn(services, weighted)
    return sorted((made for _, made in pairs), key=lambda made: made.foreign)


def _having_model(call: Call, services: Services, wanted: Wanted, model: str, configs: tuple[ProviderConfig, ...]) -> Places:
    named = {config.provider for config in configs}
    pairs: list[tuple[float | None, Candidate]] = []
    for config in configs:
        for provider in _providers_of(call, wanted, config, named):
            if not any(config is each for each in allowing(configs, model, provider.name, call.other_models)):
                continue
            if not _has_model(call, services, provider, config, model):
                continue
            made = _candidate(call, wanted, provider, config, model)
            if made is not None:
                pairs.append((config.weight, made))
    return pairs


def _providers_of(call: Call, wanted: Wanted, config: ProviderConfig, named: set[str]) -> Iterator[Provider]:
    """The provider a config names; of `*` the one that the path stands for, then all with keys that no config names."""
    providers = call.governance().providers
    if config.provider != ANY:
        provider = providers.get(config.provider)
        if provider is not None:
            yield provider
        return
    if wanted.provider.name not in named:
        yield wanted.provider
    for name in sorted(providers):
        if name not in named and name != wanted.provider.name and providers[name].keys:
            yield providers[name]


def _candidate(
    call: Call, wanted: Wanted, provider: Provider, config: ProviderConfig | None, model: str, key_id: str = ""
) -> Candidate | None:
    if provider.name == wanted.provider.name:
        return Candidate(provider, wanted.family, wanted.dialect, wanted.path, config, model, key_id)
    place = place_at(call, provider)
    if place is None:
        return None
    return Candidate(provider, place.family, place.dialect, place.path, config, model, key_id, foreign=True)


def _has_model(call: Call, services: Services, provider: Provider, config: ProviderConfig, model: str) -> bool:
    """Whether the key's owner names the model there, the operator runs the provider, or a price is known there."""
    if ANY not in config.allowed_models:
        return True
    if provider.dialect_family != provider.name and provider.base_url and config.provider != ANY:
        return True
    if services.book.overrides_price(provider.name, model) or services.book.find(provider.name, model) is not None:
        return True
    key_id = call.virtual_key.id if call.virtual_key else ""
    key_ids = (key.id for key in provider.keys)
    return call.governance().prices.is_known_at(key_id, provider.name, key_ids, model, call.operation)


def _drawn[Item](services: Services, weighted: Sequence[tuple[float | None, Item]]) -> list[Item]:
    """Drawn one after the other by weight, those without one last as they stand.

    Exponential clocks: the least of them belongs to each with the chance of its weight (Efraimidis and Spirakis 2006).
    """
    clocks = [(services.random.expovariate(weight) if weight else float("inf"), item) for weight, item in weighted]
    return [item for _, item in sorted(clocks, key=lambda clock: clock[0])]


def _is_usable(call: Call, services: Services, candidate: Candidate) -> bool:
    """Whether the call could leave for there: with the caller's own credential, with a key, or where none is needed."""
    if not candidate.foreign and call.caller_credential:
        return True
    if candidate.foreign and sends_own(call, services):
        return False
    keys = usable_keys(candidate.provider, candidate.config, candidate.model, candidate.key_id, call.other_models)
    return (bool(keys) and lends(call, services)) or candidate.family.auth == "none"


def _is_failing(services: Services, candidate: Candidate, others: tuple[str, ...]) -> bool:
    health, name = services.health, candidate.provider.name
    if health.is_failing(name):
        return True
    keys = usable_keys(candidate.provider, candidate.config, candidate.model, candidate.key_id, others)
    return bool(keys) and all(health.is_failing(name, key.id) for key in keys)
