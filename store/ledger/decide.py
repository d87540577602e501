"""Whether a call may hold what it asks for: the rules of sharing, waiting and refusing, without any database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from store.ledger.rows import Balance, StoredCap
from store.ledger.types import Enforcement, HoldRequest, Unit

USD = Unit.USD
TOKENS = Unit.TOKENS


class Answer(Enum):
    """What the rules say."""

    GRANT = "grant"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(slots=True)
class Slot:
    """One cap a call touches, its sums, and what the call needs of it at the very least."""

    stored: StoredCap
    balance: Balance
    start_ms: int
    needed: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision. `blocking` holds the slots in the way: for REFUSE those that can never fit, for WAIT those that are held."""

    answer: Answer
    amount_nanos: int = 0
    alone: bool = False
    blocking: tuple[Slot, ...] = ()
    would_refuse: tuple[str, ...] = ()


def money_bounds(request: HoldRequest, strict: bool) -> tuple[int, int]:
    """(bound, floor) in nano-dollars that apply to this call; (0, 0) for a call that costs nothing.

    `strict` says that one of its caps wants one token counted for each byte.
    """
    bound, floor = request.bound_nanos, request.floor_nanos
    if strict:
        bound, floor = max(bound, request.strict_bound_nanos), max(floor, request.strict_floor_nanos)
    if bound <= 0:
        return 0, 0
    # A call that costs something needs something: a floor of nothing would let it past a cap that is used up.
    return bound, bound if not request.trim else min(bound, max(1, floor))


def set_needs(request: HoldRequest, slots: Sequence[Slot], floor_nanos: int) -> None:
    """Fills in what the call needs of each cap at the very least: its place in the line as well."""
    for slot in slots:
        unit = slot.stored.unit
        if unit is USD:
            slot.needed = floor_nanos
        elif unit is TOKENS:
            slot.needed = max(1, min(request.tokens, slot.stored.cap.limit + slot.balance.carried))
        else:
            slot.needed = 1


def decide(request: HoldRequest, slots: Sequence[Slot], ahead: Mapping[str, int]) -> Verdict:
    """Grant, wait or refuse. `ahead` is what calls ahead in the line need of each cap (by cap id)."""
    strict = any(slot.stored.cap.strict and slot.stored.unit is USD for slot in slots)
    bound, floor = money_bounds(request, strict)
    set_needs(request, slots, floor)
    hopeless: list[Slot] = []
    held: list[Slot] = []
    watched: list[str] = []
    amount, alone = bound, False
    for slot in slots:
        stored, balance = slot.stored, slot.balance
        cap = stored.cap
        is_money = stored.unit is USD
        if is_money and bound == 0:
            continue
        left = cap.limit + balance.carried - balance.used
        if cap.enforcement is Enforcement.SOFT:
            if left <= 0:
                hopeless.append(slot)
            continue
        if slot.needed > left:
            if stored.hard:
                hopeless.append(slot)
            else:
                watched.append(cap.id)
            continue
        if not stored.hard:
            continue
        free = left - balance.held - ahead.get(cap.id, 0)
        if slot.needed > free:
            held.append(slot)
        elif is_money:
            allowed = _share(bound, floor, free, nobody_else=free == left)
            amount = min(amount, allowed)
    if hopeless:
        return Verdict(Answer.REFUSE, blocking=tuple(hopeless))
    if held:
        return Verdict(Answer.WAIT, blocking=tuple(held))
    if bound:
        alone = any(
            slot.stored.hard
            and slot.stored.unit is USD
            and slot.balance.held == 0
            and amount == slot.stored.cap.limit + slot.balance.carried - slot.balance.used
            for slot in slots
        )
    return Verdict(Answer.GRANT, amount_nanos=amount, alone=alone, would_refuse=tuple(watched))


def _share(bound: int, floor: int, free: int, *, nobody_else: bool) -> int:
    """How much of what is free one call may hold on one cap; `floor ≤ free` is known."""
    half = free // 2
    if bound <= half:
        return bound
    if nobody_else and floor > half:
        # Not even this call's floor fits a second time: leaving the rest would help nobody, so it runs alone with all of it.
        return min(bound, free)
    return min(bound, max(floor, half))
