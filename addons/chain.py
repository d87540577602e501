"""The way of one call as ordered lists of steps, with the reason for the order. Forward only; `gateway.py` calls it from hooks.

Head   route → identify → (free, unknown: authorize → credentials → address)
       From the request head and an immutable snapshot; no database. Free and unknown paths are decided here because their
       bodies are streamed through and nothing can be refused once the first byte has left.
Body   read → route_by_model → authorize → rules → candidates → for each: key, estimate, hold → trim → credentials → address
       The model is known only from the body, so permission and the choice of the provider come after it. The bound needs the
       model's price; the hold needs the bound; the output limit written into the body needs the hold. A candidate that cannot
       serve gives way to the next before anything is sent. Credentials are written last: a refused call never held a
       provider's key. Money is held before the address is even written.
Answer meter
End    settle → record → label
       Money first: whatever goes wrong in a log row or a label must not lose a charge.
"""

from dataclasses import replace
from functools import partial

from addons.call import Call, Candidate
from addons.candidates import candidates, want, want_again
from addons.holding import hold_first
from addons.outcomes import TIMED_OUT, UPSTREAM_FAILED
from addons.policy import Policy
from addons.providers.registry import PathKind
from addons.refusal import Refusal
from addons.services import Services
from addons.steps import meter
from addons.steps.authorize import admit, allowing, authorize, caps_of, caps_on_any_model, has_hard_money_cap
from addons.steps.credentials import credentials, redact
from addons.steps.identify import identify, identify_again, identify_by_hash
from addons.steps.label import label
from addons.steps.read import read, read_facts
from addons.steps.record import record, status_of
from addons.steps.route import address, place_at, route, route_by_model
from addons.steps.rules import decide
from addons.steps.settle import settle
from addons.steps.trim import trim
from store.ledger.types import Cap

STALE_TRIES = 5
"""How often a call is resolved anew because the governance changed under it; more means somebody edits in a loop."""


def head(call: Call, services: Services, form: str, connect: tuple[str, int] | None) -> None:
    """Everything that the request head decides."""
    route(call, services, form, connect)
    if call.refusal is not None:
        return
    identify(call, services)
    _head_known(call, services)


def head_again(call: Call, services: Services) -> None:
    """The rest of `head` for a key that only a newer snapshot knows."""
    identify_by_hash(call, services.snapshots.current, services.clock.now_ms())
    _head_known(call, services)


def _head_known(call: Call, services: Services) -> None:
    if call.refusal is not None or call.local or call.plain or call.kind is PathKind.METERED:
        return
    authorize(call, services)
    if call.refusal is None and call.kind is PathKind.UNKNOWN:
        _unmetered(call, services)
    if call.refusal is None:
        credentials(call, services)
    if call.refusal is None:
        address(call)


def _unmetered(call: Call, services: Services) -> None:
    """An API path that nobody here can price: not under a hard money cap, unless the operator allows it.

    Nobody knows the model either, so it may be any that the provider has.
    """
    caps = caps_of(call)
    call.cap_ids = tuple(cap.id for cap in caps)
    if _must_block(services.policy, (*caps, *caps_on_any_model(call, services))):
        call.refuse(_unmeterable(f"{call.flow.request.method} {call.provider_path[:120]}", call))


def _must_block(policy: Policy, caps: tuple[Cap, ...]) -> bool:
    return policy.unmetered == "block" and has_hard_money_cap(caps)


def _unmeterable(what: str, call: Call) -> Refusal:
    name = call.provider.name if call.provider else ""
    return Refusal(
        403,
        "unmetered_endpoint",
        f"{what} of provider '{name}' cannot be metered, and a hard budget applies to this key."
        ' Set gateway.unmetered to "allow" to let such calls through.',
    )


async def body(call: Call, services: Services) -> None:
    """Everything between the last byte of the request and the first byte to the provider. May refuse.

    Raises StoreUnavailable when the hold cannot be written.
    """
    read(call, services)
    if call.refusal is None and call.by_model:
        dialect = call.dialect
        route_by_model(call)
        if call.dialect is not dialect:
            read_facts(call)
    for _ in range(STALE_TRIES):
        if call.refusal is not None:
            return
        admit(call, services)
        if call.refusal is not None:
            return
        want(call)
        found = choose(call, services)
        if not found:
            authorize(call, services)  # which says why
            if call.refusal is None:
                call.refuse(Refusal(403, "provider_blocked", "No provider may serve this call."))
            _name_rule(call)
            return
        stale = await hold_first(call, services, found, _deferred)
        if stale is None:
            break
        await services.snapshots.refresh(stale.revision)
        want_again(call)
        identify_again(call, services.snapshots.current, services.clock.now_ms())
    else:
        call.refuse(Refusal(503, "gateway_unavailable", "The configuration keeps changing; try again.", retry_after=2))
    if call.refusal is not None:
        _name_rule(call)
        return
    trim(call)
    credentials(call, services)
    if call.refusal is None:
        address(call)


def choose(call: Call, services: Services) -> list[Candidate]:
    """Who may serve the call, after the routing rules. Where nobody may, the call stands as its first destination was meant."""
    decision = decide(call, services, partial(_caps_as_asked, call), partial(_can_serve, call)) if _has_rules(call) else None
    found = candidates(call, services, decision)
    if decision is None:
        return found
    call.rule = decision.rule
    if not found:
        first = decision.destinations[0]
        call.model = first.model or call.model
        call.provider = call.governance().providers.get(first.provider or "", call.provider)
    return found


def _has_rules(call: Call) -> bool:
    return bool(call.governance().routing_rules)


def _caps_as_asked(call: Call) -> tuple[Cap, ...]:
    """The caps that the call touches where the caller sent it, by the config that goes first there."""
    key, provider = call.virtual_key, call.provider
    if key is not None and provider is not None:
        fitting = allowing(key.provider_configs, call.model, provider.name, call.other_models)
        call.provider_config = fitting[0] if fitting else None
    caps = caps_of(call)
    call.provider_config = None
    return caps


def _can_serve(call: Call, provider_name: str) -> bool:
    provider = call.governance().providers.get(provider_name)
    if provider is None or call.wanted is None:
        return False
    return provider.name == call.wanted.provider.name or place_at(call, provider) is not None


def _deferred(call: Call, services: Services, caps: tuple[Cap, ...]) -> Refusal | None:
    if call.facts is not None and call.facts.deferred and _must_block(services.policy, caps):
        return _unmeterable("A background response", call)
    return None


def _name_rule(call: Call) -> None:
    """A refusal of what the caller did not ask for says who asked for it."""
    refusal, rule, wanted = call.refusal, call.rule, call.wanted
    if refusal is None or rule is None or wanted is None or call.provider is None:
        return
    if (call.provider.name, call.model) != (wanted.provider.name, wanted.model):
        said = f"{refusal.message} Routing rule '{rule.name}' chose {call.provider.name}/{call.model[:120]} for this call."
        call.refusal = replace(refusal, message=said)


def answer(call: Call, services: Services) -> None:
    """The head of the provider's answer is here: choose how to read the rest."""
    redact(call)
    _note_health(call, services)
    meter.begin(call, services)


def _note_health(call: Call, services: Services) -> None:
    """What the answer says of the provider and of the gateway's key there; of the caller's own key nothing is remembered."""
    response, provider = call.flow.response, call.provider
    if response is None or provider is None or call.kind is not PathKind.METERED:
        return
    status = response.status_code
    if status == 429 and call.provider_key is None:
        return
    key_id = call.provider_key.id if call.provider_key else ""
    services.health.answered(provider.name, key_id, status, response.headers.get("retry-after"))


def end(call: Call, services: Services, outcome: str) -> None:
    """The exchange is over, well or badly. Idempotent."""
    if outcome in (UPSTREAM_FAILED, TIMED_OUT) and call.provider is not None and call.kind is PathKind.METERED:
        services.health.failed(call.provider.name)
    settle(call, services, outcome)
    record(call, services)
    if call.response_started is None and not call.plain:
        # No answer came, so nobody has taken the credential out yet; a viewer keeps the flow.
        redact(call)
    if services.watched:
        label(call, services, status_of(call))


def is_streamed_through(call: Call) -> bool:
    """Whether the request body may flow before its end is seen: only where nothing is metered."""
    return call.refusal is None and not call.local and call.kind is not PathKind.METERED
