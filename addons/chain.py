"""The way of one call as ordered lists of steps, with the reason for the order. Forward only; `gateway.py` calls it from hooks.

Head   route → identify → (free, unknown: authorize → credentials → address)
       From the request head and an immutable snapshot; no database. Free and unknown paths are decided here because their
       bodies are streamed through and nothing can be refused once the first byte has left.
Body   read → route_by_model → authorize → estimate → reserve → trim → credentials → address
       The model is known only from the body, so permission comes after it. The bound needs the model's price; the hold needs
       the bound; the output limit written into the body needs the hold. Credentials come last, so that a refused call never
       held a provider's key. Money is held before the address is even written.
Answer meter
End    settle → record → label
       Money first: whatever goes wrong in a log row or a label must not lose a charge.
"""

from addons.call import Call
from addons.policy import Policy
from addons.providers.registry import PathKind
from addons.refusal import Refusal
from addons.services import Services
from addons.steps import meter
from addons.steps.authorize import authorize, caps_of, has_hard_money_cap
from addons.steps.credentials import credentials, redact
from addons.steps.estimate import estimate
from addons.steps.identify import identify, identify_again, identify_by_hash
from addons.steps.label import label
from addons.steps.read import read, read_facts
from addons.steps.record import record, status_of
from addons.steps.reserve import reserve
from addons.steps.route import address, route, route_by_model
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
    identify_by_hash(call, services.snapshots.current)
    _head_known(call, services)


def _head_known(call: Call, services: Services) -> None:
    if call.refusal is not None or call.local or call.plain or call.kind is PathKind.METERED:
        return
    authorize(call, services)
    if call.refusal is None and call.kind is PathKind.UNKNOWN:
        _unmetered(call, services.policy)
    if call.refusal is None:
        credentials(call, services)
    if call.refusal is None:
        address(call)


def _unmetered(call: Call, policy: Policy) -> None:
    """An API path that nobody here can price: not under a hard money cap, unless the operator allows it."""
    caps = caps_of(call)
    call.cap_ids = tuple(cap.id for cap in caps)
    if _must_block(policy, caps):
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
        authorize(call, services)
        if call.refusal is not None:
            return
        caps = caps_of(call)
        if call.facts is not None and call.facts.deferred and _must_block(services.policy, caps):
            call.refuse(_unmeterable("A background response", call))
            return
        estimate(call, services, caps)
        call.cap_ids = tuple(cap.id for cap in caps)
        stale = await reserve(call, services, caps)
        if stale is None:
            break
        await services.snapshots.refresh(stale.revision)
        identify_again(call, services.snapshots.current)
    else:
        call.refuse(Refusal(503, "gateway_unavailable", "The configuration keeps changing; try again.", retry_after=2))
    if call.refusal is not None:
        return
    trim(call)
    credentials(call, services)
    if call.refusal is None:
        address(call)


def answer(call: Call, services: Services) -> None:
    """The head of the provider's answer is here: choose how to read the rest."""
    redact(call)
    meter.begin(call, services)


def end(call: Call, services: Services, outcome: str) -> None:
    """The exchange is over, well or badly. Idempotent."""
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
