"""`/api/governance/explain/{request_id}`: why a call was refused or what it was charged to, and what can be done about it."""

from dataclasses import dataclass
from typing import TypedDict

from addons.console.api.answers import Money
from addons.console.api.log_query import log_database
from addons.console.api.logs import LogEntry, call_json
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import iso_utc
from store.config_store.shapes import Json, time_json
from store.errors import NotFound
from store.ledger.history import PostRecord, posts_of
from store.ledger.open_calls import open_since_ms
from store.ledger.types import CapState
from store.logs.exceeded import ExceededCap, unpack
from store.logs.filling import Filling, FillingPart, charged_where, filling
from store.logs.merged import rows_that_may_hold
from store.logs.types import CallRow
from store.money import format_usd, usd_from_nanos

Number = Money | int


class CapNow(TypedDict):
    """A cap as it is at this moment."""

    max_limit: Number
    current_usage: Number
    held: Number
    remaining: Number
    resets_at: str | None


class ExplainedCap(TypedDict):
    """A cap that stood in the way, with its sums at that instant. USD for money, else counts."""

    id: str
    name: str
    scope: str
    scope_id: str
    scope_name: str
    unit: str
    enforcement: str
    max_limit: Number
    current_usage: Number
    held: Number
    remaining: Number
    needed: Number
    reset_duration: str | None
    last_reset: str | None
    resets_at: str | None
    now: CapNow | None
    fits_now: bool | None
    opens_at: str | None


class ChargedCap(TypedDict):
    """A cap that a call was charged to; `now` is null when it is there no more."""

    id: str
    name: str
    scope: str
    scope_id: str
    scope_name: str
    unit: str
    now: CapNow | None


class FilledCall(TypedDict):
    id: str
    timestamp: str
    virtual_key_id: str
    virtual_key_name: str
    model: str
    amount: Number


class FilledPart(TypedDict):
    id: str
    name: str
    calls: int
    amount: Number


class FilledBy(TypedDict):
    """What used the named cap up in its window, up to the refusal; biggest first. `complete`: every call was looked at."""

    cap_id: str
    calls: list[FilledCall]
    by_virtual_key: list[FilledPart]
    by_model: list[FilledPart]
    complete: bool


class Explanation(TypedDict):
    """`outcome`: refused, charged, free, in_flight, unconfirmed. `merged_into`: the row this refusal shares with others."""

    request_id: str
    merged_into: str | None
    outcome: str
    explanation: str
    refusal_type: str | None
    cost: Money | None
    call: LogEntry | None
    exceeded: list[ExplainedCap]
    charged: list[ChargedCap]
    filled_by: FilledBy | None
    opens_at: str | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What the books know of a call."""

    row: CallRow | None
    merged: bool
    posts: list[PostRecord]
    open_since_ms: int | None


class ExplainHandler(ConsoleHandler):
    """One call, in a sentence and in figures."""

    @operation("Why a call was refused, or what it was charged to", answer=Explanation)
    async def get(self, request_id: str) -> None:
        self.send(await self.on_thread(explanation, self.context, request_id))


def explanation(context: ConsoleContext, request_id: str) -> Json:
    """Everything that is known of a call. Raises NotFound. Blocks."""
    found = _find(context, request_id)
    now_ms = context.store.clock.now_ms()
    row = found.row
    caps = unpack(row.exceeded) if row is not None else ()
    charged = row.caps_charged if row is not None else found.posts[-1].cap_ids if found.posts else ()
    with context.store.ledger.read() as connection:
        states = {state.cap.id: state for state in context.states(connection, now_ms, [*(cap.cap_id for cap in caps), *charged])}
    outcome = _outcome(found)
    cost_nanos = _cost_nanos(found)
    return {
        "request_id": request_id,
        "merged_into": row.id if row is not None and found.merged else None,
        "outcome": outcome,
        "explanation": _sentence(outcome, found, cost_nanos, caps, states),
        "refusal_type": row.refusal_type or None if row is not None else None,
        "cost": None if cost_nanos is None else usd_from_nanos(cost_nanos),
        "call": None if row is None else call_json(row),
        "exceeded": [_exceeded_json(cap, states.get(cap.cap_id), now_ms) for cap in caps],
        "charged": [_charged_json(cap_id, states.get(cap_id)) for cap_id in charged],
        "filled_by": _filled_json(context, row, caps[0]) if row is not None and caps else None,
        "opens_at": time_json(_all_open_ms(caps, states, now_ms)),
    }


def _find(context: ConsoleContext, request_id: str) -> _Found:
    with context.store.ledger.read() as connection:
        posts = posts_of(connection, request_id)
        since_ms = None if posts else open_since_ms(connection, request_id)
    row = context.logs.get(request_id) if context.logs is not None else None
    if row is not None or posts or since_ms is not None:
        return _Found(row, False, posts, since_ms)
    shared = rows_that_may_hold(log_database(context), request_id) if context.logs is not None else []
    if len(shared) == 1:
        return _Found(shared[0], True, [], None)
    if shared:
        raise NotFound(
            f"the call {request_id!r} has no row of its own: identical refusals within a second share one, and this one may be in "
            f"any of {', '.join(repr(one.id) for one in shared)}; ask for one of these"
        )
    raise NotFound(
        f"there is no call {request_id!r} in the logs or the ledger; it may be deleted, or so young that its row is not written yet"
    )


def _outcome(found: _Found) -> str:
    if found.open_since_ms is not None:
        return "in_flight"
    if found.row is not None and found.row.status == "refused":
        return "refused"
    if any(post.unconfirmed for post in found.posts) and len(found.posts) == 1:
        return "unconfirmed"
    return "charged" if _cost_nanos(found) else "free"


def _cost_nanos(found: _Found) -> int | None:
    if found.posts:
        return sum(post.cost_nanos for post in found.posts)
    if found.row is None or (found.row.status != "refused" and not found.row.priced):
        return None
    return found.row.cost_nanos


def _sentence(
    outcome: str,
    found: _Found,
    cost_nanos: int | None,
    caps: tuple[ExceededCap, ...],
    states: dict[str, CapState],
) -> str:
    row = found.row
    if outcome == "in_flight":
        return f"The call is in flight since {iso_utc(found.open_since_ms or 0)}; what it may cost is held."
    if outcome == "refused" and row is not None:
        told = row.message or f"The call was refused: {row.refusal_type}."
        return " ".join(part for part in (told, _what_now(caps, states)) if part)
    if outcome == "unconfirmed":
        booked = format_usd(cost_nanos or 0)
        return f"Nobody knows what the call cost: {booked}, what was held for it, is booked until it is confirmed."
    if outcome == "charged":
        names = [f"'{states[cap_id].cap.name}'" for cap_id in (row.caps_charged if row else ()) if cap_id in states]
        return f"The call cost {format_usd(cost_nanos or 0)}" + (f", charged to {', '.join(names)}." if names else ".")
    if row is not None and not row.priced:
        return "No price is known for the call, so nothing was charged."
    return "The call cost nothing."


def _what_now(caps: tuple[ExceededCap, ...], states: dict[str, CapState]) -> str:
    """What stands in the way still, in words."""
    if not caps:
        return ""
    waiting = []
    for cap in caps:
        state = states.get(cap.cap_id)
        if state is None or _fits(cap, state):
            continue
        if cap.needed > state.limit:
            waiting.append(f"'{cap.name}' allows less in all than this call needs")
        elif state.resets_at_ms is None:
            waiting.append(f"'{cap.name}' is full and does not reset by itself")
        else:
            waiting.append(f"'{cap.name}' is full until {iso_utc(state.resets_at_ms)}")
    if not waiting:
        return "Such a call would go through now."
    return "Now: " + "; ".join(waiting) + "."


def _fits(cap: ExceededCap, state: CapState) -> bool:
    return state.used + state.held + cap.needed <= state.limit


def _exceeded_json(cap: ExceededCap, state: CapState | None, now_ms: int) -> Json:
    return {
        "id": cap.cap_id,
        "name": cap.name,
        "scope": cap.scope,
        "scope_id": cap.scope_id,
        "scope_name": cap.scope_name,
        "unit": cap.unit,
        "enforcement": cap.enforcement,
        "max_limit": _amount(cap.unit, cap.limit),
        "current_usage": _amount(cap.unit, cap.used),
        "held": _amount(cap.unit, cap.held),
        "remaining": _amount(cap.unit, cap.remaining),
        "needed": _amount(cap.unit, cap.needed),
        "reset_duration": cap.window,
        "last_reset": time_json(cap.window_start_ms),
        "resets_at": time_json(cap.resets_at_ms),
        "now": None if state is None else _now_json(state),
        "fits_now": None if state is None else _fits(cap, state),
        "opens_at": None if state is None else time_json(_opens_ms(cap, state, now_ms)),
    }


def _opens_ms(cap: ExceededCap, state: CapState, now_ms: int) -> int | None:
    """When a call such as this one fits again by the clock alone; None when that is never, or not known."""
    if _fits(cap, state):
        return now_ms
    # A raise may end before the window does: what counts then is the cap's own limit.
    return state.resets_at_ms if cap.needed <= state.cap.limit else None


def _all_open_ms(caps: tuple[ExceededCap, ...], states: dict[str, CapState], now_ms: int) -> int | None:
    """When none of the caps is in the way any more; None when that is not known. Caps that are gone are in nobody's way."""
    latest = now_ms if caps else None
    for cap in caps:
        state = states.get(cap.cap_id)
        opens_ms = now_ms if state is None else _opens_ms(cap, state, now_ms)
        if opens_ms is None or latest is None:
            return None
        latest = max(latest, opens_ms)
    return latest


def _charged_json(cap_id: str, state: CapState | None) -> Json:
    cap = state.cap if state is not None else None
    return {
        "id": cap_id,
        "name": cap.name if cap else "",
        "scope": cap.scope.value if cap else "",
        "scope_id": cap.scope_id if cap else "",
        "scope_name": cap.scope_name if cap else "",
        "unit": cap.unit.value if cap else "",
        "now": None if state is None else _now_json(state),
    }


def _now_json(state: CapState) -> Json:
    unit = state.cap.unit.value
    return {
        "max_limit": _amount(unit, state.limit),
        "current_usage": _amount(unit, state.used),
        "held": _amount(unit, state.held),
        "remaining": _amount(unit, state.remaining),
        "resets_at": time_json(state.resets_at_ms),
    }


def _filled_json(context: ConsoleContext, row: CallRow, cap: ExceededCap) -> Json:
    given = charged_where(cap.scope, cap.scope_id, row.virtual_key_id, cap.window_start_ms, row.at_ms + 1)
    found: Filling = filling(log_database(context), cap.cap_id, cap.unit, given)
    return {
        "cap_id": cap.cap_id,
        "calls": [
            {
                "id": call.id,
                "timestamp": iso_utc(call.at_ms),
                "virtual_key_id": call.virtual_key_id,
                "virtual_key_name": call.virtual_key_name,
                "model": call.model,
                "amount": _amount(cap.unit, call.amount),
            }
            for call in found.calls
        ],
        "by_virtual_key": [_part_json(cap.unit, part) for part in found.by_virtual_key],
        "by_model": [_part_json(cap.unit, part) for part in found.by_model],
        "complete": found.complete,
    }


def _part_json(unit: str, part: FillingPart) -> Json:
    return {"id": part.value, "name": part.name, "calls": part.calls, "amount": _amount(unit, part.amount)}


def _amount(unit: str, value: int) -> object:
    return usd_from_nanos(value) if unit == "usd" else value


ROUTES = (Route("/api/governance/explain/{request_id}", ExplainHandler),)
