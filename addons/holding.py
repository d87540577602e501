"""Holds for the first candidate that can serve at once. One hold at a time; only the one that is kept is ever charged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from addons.call import Call, Candidate
from addons.refusal import Refusal
from addons.services import Services
from addons.steps.authorize import caps_of
from addons.steps.credentials import choose_key, lends, sends_own
from addons.steps.estimate import estimate
from addons.steps.read import read_facts
from addons.steps.reserve import ask, keep, refusal_of, request_of, unpriced
from store.ledger.decide import money_bounds
from store.ledger.types import Cap, Exceeded, Granted, HoldRequest, Refused, Stale, Unit

Forbidden = Callable[[Call, Services, tuple[Cap, ...]], Refusal | None]


async def hold_first(call: Call, services: Services, candidates: Sequence[Candidate], forbidden: Forbidden) -> Stale | None:
    """Prepare the call for one candidate after the other until one holds; refuse when none does.

    While another candidate is left nobody waits in line; when none can serve at once, the first of those that only calls in
    flight stand in the way of waits. Should it turn out to be used up meanwhile, the others are asked again. What is told is the
    refusal of the first, or of the one that has waited in vain. Returns Stale when the call must be resolved again. Raises
    StoreUnavailable.
    """
    refusals: dict[int, Refusal] = {}
    final: list[Refused] = []
    remaining = list(range(len(candidates)))
    told: int | None = None
    while remaining and told is None:
        alone = len(remaining) == 1
        held: list[Refused] = []
        hopeful: list[int] = []
        for index in remaining:
            caps = prepare(call, services, candidates[index])
            if call.refusal is not None:
                return None
            refusal = forbidden(call, services, caps) or unpriced(call, services, caps)
            if refusal is not None:
                refusals[index] = refusal
                continue
            request = request_of(call, services, caps, may_wait=alone)
            if _is_blocked(final, request, caps):
                continue
            if _is_blocked(held, request, caps):
                hopeful.append(index)
                continue
            answer = await ask(call, services, request)
            if not isinstance(answer, Refused):
                return _taken(call, answer, caps)
            refusals[index] = refusal_of(answer, services.clock.now_ms())
            if answer.held_only:
                held.append(answer)
                hopeful.append(index)
            else:
                final.append(answer)
        if not hopeful:
            break
        first, *remaining = hopeful
        if alone:
            told = first
            break
        caps = prepare(call, services, candidates[first])
        answer = await ask(call, services, request_of(call, services, caps, may_wait=True))
        if not isinstance(answer, Refused):
            return _taken(call, answer, caps)
        refusals[first] = refusal_of(answer, services.clock.now_ms())
        if answer.held_only:
            told = first
        else:
            final.append(answer)
    _tell(call, services, candidates, refusals, min(refusals) if told is None else told)
    return None


def _taken(call: Call, answer: Granted | Stale, caps: tuple[Cap, ...]) -> Stale | None:
    if isinstance(answer, Stale):
        return answer
    keep(call, answer, caps)
    return None


def prepare(call: Call, services: Services, candidate: Candidate) -> tuple[Cap, ...]:
    """Make the call one to this candidate: place, model, key, price and bounds. Returns the caps it touches."""
    call.provider, call.family, call.provider_config = candidate.provider, candidate.family, candidate.config
    call.provider_path, call.model = candidate.path, candidate.model
    call.foreign, call.key_id = candidate.foreign, candidate.key_id
    if call.dialect is not candidate.dialect:
        call.dialect = candidate.dialect
        read_facts(call)
    call.provider_key = None
    if lends(call, services) and not sends_own(call, services):
        call.provider_key = choose_key(call, services)
    call.price = call.bound = call.strict_bound = None
    call.unpriced_model = ""
    call.assumed_price = call.free = call.must_limit = False
    caps = caps_of(call)
    call.cap_ids = tuple(cap.id for cap in caps)
    estimate(call, services, caps)
    return caps


def _is_blocked(refused: Sequence[Refused], request: HoldRequest, caps: tuple[Cap, ...]) -> bool:
    return any(_stands_in_the_way(exceeded, request, caps) for each in refused for exceeded in each.exceeded)


def _stands_in_the_way(exceeded: Exceeded, request: HoldRequest, caps: tuple[Cap, ...]) -> bool:
    """A cap that has just refused an earlier candidate, and of which this one needs no less."""
    cap = exceeded.state.cap
    if cap.id not in request.cap_ids:
        return False
    if cap.unit is Unit.USD:
        return money_bounds(request, any(other.strict for other in caps))[1] >= exceeded.needed > 0
    if cap.unit is Unit.TOKENS:
        return max(1, min(request.tokens, exceeded.state.limit)) >= exceeded.needed
    return True


def _tell(call: Call, services: Services, candidates: Sequence[Candidate], refusals: Mapping[int, Refusal], index: int) -> None:
    """Refuse with one of the refusals, listing every cap that stood in some candidate's way."""
    refusal = refusals[index]
    if len(candidates) > 1:
        exceeded = {each.state.cap.id: each for each in refusal.exceeded}
        for other in sorted(refusals):
            for each in refusals[other].exceeded:
                exceeded.setdefault(each.state.cap.id, each)
        refusal = replace(refusal, exceeded=tuple(exceeded.values()))
        prepare(call, services, candidates[index])
    call.provider_key = None  # nothing was sent with it
    call.refuse(refusal)
