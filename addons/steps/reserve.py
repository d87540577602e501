"""Hold on every cap the call touches, or wait in line, or a refusal that names the cap."""

from addons.call import Call, State
from addons.refusal import Refusal
from addons.refuse import budget_message
from addons.services import Services
from store.ledger.types import CallFacts, Cap, Enforcement, Exceeded, Granted, HoldRequest, Refused, Stale, Unit
from store.money import MAX_NANOS

TRANSIENT_SECONDS = 60
"""A rate limit that resets within this time is worth waiting for; a later one is final."""
HELD_RETRY_SECONDS = 2
CONCURRENT_RETRY_SECONDS = 1
"""A place among parallel calls comes back sooner than money: whole calls end more often than budgets move."""
RATE_TYPES = {
    Unit.TOKENS: "token_limited",
    Unit.REQUESTS: "request_limited",
    Unit.CONCURRENT: "concurrency_limited",
}


def unpriced(call: Call, services: Services, caps: tuple[Cap, ...]) -> Refusal | None:
    """402 for a call of unknown price under a hard money cap, unless the operator allows it."""
    must_hold = any(cap.unit is Unit.USD and cap.enforcement is Enforcement.HARD for cap in caps)
    if call.price is not None or not must_hold or services.policy.unpriced == "allow":
        return None
    provider = call.provider.name if call.provider else ""
    return Refusal(
        402,
        "unpriced_model",
        f"No price is known for model '{(call.unpriced_model or call.model)[:120]}' of provider '{provider}', and a hard budget"
        " applies to this call. Add a price for it, or set gateway.unpriced.",
    )


async def ask(call: Call, services: Services, request: HoldRequest) -> Granted | Refused | Stale:
    """The ledger's answer. Raises StoreUnavailable when it cannot be written: no provider key is used then."""
    try:
        return await services.ledger.hold(request)
    except BaseException:
        call.provider_key = None
        raise


def keep(call: Call, granted: Granted, caps: tuple[Cap, ...]) -> None:
    """The call may leave with this hold."""
    call.hold = granted
    call.hold_is_strict = any(cap.strict and cap.unit is Unit.USD for cap in caps)
    call.state = State.HELD


async def reserve(call: Call, services: Services, caps: tuple[Cap, ...]) -> Stale | None:
    """Hold the bound on `caps` (narrowest first). Returns Stale when the call must be resolved again; may refuse.

    Raises StoreUnavailable when the ledger cannot be written.
    """
    refusal = unpriced(call, services, caps)
    if refusal is not None:
        call.refuse(refusal)
        return None
    answer = await ask(call, services, request_of(call, services, caps))
    if isinstance(answer, Stale):
        return answer
    if isinstance(answer, Refused):
        call.refuse(refusal_of(answer, services.clock.now_ms()))
        return None
    keep(call, answer, caps)
    return None


def request_of(call: Call, services: Services, caps: tuple[Cap, ...], *, may_wait: bool = True) -> HoldRequest:
    """What the call asks of the ledger. `may_wait`: it stands in line where only other calls' holds are in the way."""
    key, facts = call.virtual_key, call.facts
    bound, strict = call.bound, call.strict_bound
    may_trim = services.policy.trim_output and not call.signed and facts is not None and bool(facts.output_limit_path)
    bound_nanos = bound.bound_nanos(call.output_tokens_bound) if bound else 0
    strict_nanos = strict.bound_nanos(call.output_tokens_bound) if strict else bound_nanos
    floor = min(call.output_floor, call.output_tokens_bound) if may_trim else call.output_tokens_bound
    return HoldRequest(
        call_id=call.id,
        cap_ids=tuple(cap.id for cap in caps),
        bound_nanos=min(bound_nanos, MAX_NANOS),
        floor_nanos=min(bound.bound_nanos(floor), MAX_NANOS) if bound else 0,
        strict_bound_nanos=min(strict_nanos, MAX_NANOS),
        strict_floor_nanos=min(strict.bound_nanos(floor), MAX_NANOS) if strict else 0,
        tokens=min(call.input_tokens_estimate + min(call.output_typical, call.output_tokens_bound), MAX_NANOS),
        trim=may_trim,
        revision=call.governance().revision,
        waiting_bytes=len(call.body),
        may_wait=may_wait,
        facts=CallFacts(
            virtual_key_id=key.id if key else "",
            virtual_key_name=key.name if key else "",
            team_id=(key.team_id or "") if key else "",
            customer_id=(key.customer_id or "") if key else "",
            run_id=(key.run_id or "") if key else "",
            provider=call.provider.name if call.provider else "",
            model=call.model,
            operation=call.operation,
            stream=facts.stream if facts else False,
        ),
    )


def refusal_of(refused: Refused, now_ms: int) -> Refusal:
    """The refusal for what the ledger answered; the first cap decides the type and the words.

    Windows are measured against the ledger's time where it is told: on several machines clocks differ, the ledger's does not.
    """
    now_ms = refused.at_ms or now_ms
    first = refused.exceeded[0]
    message = budget_message(first)
    unit = first.state.cap.unit
    if unit is Unit.USD:
        if refused.held_only:
            return Refusal(
                429,
                "budget_held",
                message + " Other calls in flight hold the rest; it comes back when they end.",
                refused.exceeded,
                HELD_RETRY_SECONDS,
            )
        return Refusal(402, "budget_exceeded", message, refused.exceeded)
    kinds = {RATE_TYPES[e.state.cap.unit] for e in refused.exceeded if e.state.cap.unit is not Unit.USD}
    name = RATE_TYPES[unit] if len(kinds) == 1 else "rate_limited"
    return Refusal(429, name, message, refused.exceeded, _retry_after(refused, now_ms))


def _retry_after(refused: Refused, now_ms: int) -> int | None:
    """Seconds until none of the caps is in the way any more; None where that is too long to wait for."""
    if refused.held_only:
        return max(_seconds_held(exceeded, now_ms) for exceeded in refused.exceeded)
    waits = [_seconds_left(exceeded, now_ms) for exceeded in refused.exceeded]
    longest = max((wait for wait in waits if wait is not None), default=None)
    return longest if None not in waits and longest is not None and longest <= TRANSIENT_SECONDS else None


def _seconds_held(exceeded: Exceeded, now_ms: int) -> int:
    """When to look again at a cap that only calls in flight fill. Never final: what they hold may come back."""
    unit = exceeded.state.cap.unit
    if unit is Unit.CONCURRENT:
        return CONCURRENT_RETRY_SECONDS
    left = _seconds_left(exceeded, now_ms) if unit is Unit.REQUESTS else None
    # A request that is held will most likely be used, so the next window is the next chance.
    return left if left is not None and left <= TRANSIENT_SECONDS else HELD_RETRY_SECONDS


def _seconds_left(exceeded: Exceeded, now_ms: int) -> int | None:
    resets_at = exceeded.state.resets_at_ms
    return None if resets_at is None else max(1, -(-(resets_at - now_ms) // 1000))


def remaining_nanos(granted: Granted | None, cost_nanos: int | None) -> int | None:
    """What the tightest money cap has left after this call: with its hold, or (when known) with its cost instead."""
    if granted is None:
        return None
    left = [
        state.limit - state.used - state.held + (granted.amount_nanos - cost_nanos if cost_nanos is not None else 0)
        for state in granted.caps
        if state.cap.unit is Unit.USD and state.cap.enforcement is not Enforcement.OBSERVE
    ]
    return max(0, min(left)) if left else None
