"""Whether a call may hold what it asks for: the rules of sharing, waiting and refusing, without any database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from store.ledger.rows import Balance, StoredCap
from store.ledger.types import HoldRequest, Unit

USD = Unit.USD
TOKENS = Unit.TOKENS
CONCURRENT = Unit.CONCURRENT


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
    limit: int
    """In force at this instant: carry-over and a raise included."""
    needed: int = 0


class Verdict(NamedTuple):
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


def decide(request: HoldRequest, slots: Sequence[Slot], ahead: Mapping[str, int]) -> Verdict:
    """Grant, wait or refuse; fills in what each slot needs. `ahead` is what calls ahead in the line need of each cap (by id)."""
    strict = False
    for slot in slots:
        strict = strict or slot.stored.strict
    bound, floor = money_bounds(request, strict)
    hopeless: list[Slot] = []
    held: list[Slot] = []
    watched: list[str] = []
    amount, all_of = bound, -1
    for slot in slots:
        stored, balance = slot.stored, slot.balance
        left = slot.limit - balance.used
        is_money = stored.unit is USD
        if is_money:
            if bound == 0:
                continue
            needed = floor
        else:
            needed = 1 if stored.unit is not TOKENS else max(1, min(request.tokens, slot.limit))
        slot.needed = needed
        if not stored.hard:
            if stored.soft:
                if left <= 0:
                    hopeless.append(slot)
            elif needed > (left if stored.unit is not CONCURRENT else left - balance.held):
                watched.append(stored.cap.id)
        elif needed > left:
            hopeless.append(slot)
        else:
            free = left - balance.held
            if ahead:
                free -= ahead.get(stored.cap.id, 0)
            if needed > free:
                held.append(slot)
            elif is_money:
                amount = min(amount, _share(bound, floor, free, nobody_else=free == left))
                if balance.held == 0 and (all_of < 0 or left < all_of):
                    all_of = left
    if hopeless:
        return Verdict(Answer.REFUSE, blocking=tuple(hopeless))
    if held:
        return Verdict(Answer.WAIT, blocking=tuple(held))
    # No cap has less left than the amount, so taking all that is left of one means taking all of the tightest.
    return Verdict(Answer.GRANT, amount, amount == all_of, (), tuple(watched))


def _share(bound: int, floor: int, free: int, *, nobody_else: bool) -> int:
    """How much of what is free one call may hold on one cap; `floor ≤ free` is known."""
    half = free // 2
    if bound <= half:
        return bound
    if nobody_else and floor > half:
        # Not even this call's floor fits a second time: leaving the rest would help nobody, so it runs alone with all of it.
        return min(bound, free)
    return min(bound, max(floor, half))
