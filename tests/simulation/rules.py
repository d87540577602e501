"""What a call must be told: the promises of the ledger as plain sums over the auditor's records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.simulation.records import CallRecord, CapRecord, Violation


@dataclass(frozen=True)
class Verdict:
    word: str
    """`grant`, `wait` or `refuse`."""
    amount: int = 0
    alone: bool = False
    blocking: tuple[tuple[str, int], ...] = ()
    would_refuse: tuple[str, ...] = ()
    needs: tuple[tuple[str, int], ...] = ()
    """Of every hard cap, for those who come later."""


def bounds(call: CallRecord, caps: Iterable[CapRecord]) -> tuple[int, int]:
    """The most a call can cost, and the least worth holding for it."""
    bound, floor = call.bound, call.floor
    if any(cap.strict and cap.unit == "usd" for cap in caps):
        bound, floor = max(bound, call.strict_bound), max(floor, call.strict_floor)
    if bound == 0:
        return 0, 0
    return bound, min(bound, max(floor, 1)) if call.trim else bound


def judge(call: CallRecord, caps: list[CapRecord], at_ms: int, ahead: Mapping[str, int]) -> Verdict:
    """Decides one hold; `ahead` is what those before it in the line need of each cap."""
    bound, floor = bounds(call, caps)
    hopeless: list[tuple[str, int]] = []
    waits: list[tuple[str, int]] = []
    watched: list[str] = []
    needs: list[tuple[str, int]] = []
    amount, smallest = bound, None
    for cap in caps:
        if cap.unit == "usd" and bound == 0:
            continue
        need = need_of(call, cap, floor, at_ms)
        left, held = cap.left(at_ms), cap.held(at_ms)
        if cap.enforcement == "soft":
            if left <= 0:
                hopeless.append((cap.id, need))
        elif cap.enforcement == "observe":
            if need > left - (held if cap.unit == "concurrent" else 0):
                watched.append(cap.id)
        else:
            needs.append((cap.id, need))
            kept = ahead.get(cap.id, 0)
            if need > left:
                hopeless.append((cap.id, need))
            elif need > left - held - kept:
                waits.append((cap.id, need))
            elif cap.unit == "usd":
                amount = min(amount, share(bound, floor, left - held - kept, nobody=held + kept == 0))
                if held == 0:
                    smallest = left if smallest is None else min(smallest, left)
    if hopeless:
        return Verdict("refuse", blocking=tuple(hopeless))
    if waits:
        return Verdict("wait", blocking=tuple(waits), needs=tuple(needs))
    return Verdict("grant", amount, amount == smallest, would_refuse=tuple(watched))


def need_of(call: CallRecord, cap: CapRecord, floor: int, at_ms: int) -> int:
    if cap.unit == "usd":
        return floor
    if cap.unit == "tokens":
        return max(1, min(call.tokens, cap.room(at_ms)))
    return 1


def share(bound: int, floor: int, free: int, *, nobody: bool) -> int:
    """Half of what is free when the bound is more than that, but not below the floor; all of it when only one such call fits."""
    if 2 * bound <= free:
        return bound
    if nobody and 2 * floor > free:
        return min(bound, free)
    return min(bound, max(floor, free // 2))


def check_promises_of_grant(call: CallRecord, caps: list[CapRecord], amount: int, at_ms: int) -> None:
    """Promise 1 in its own words: used + held + amount ≤ limit on every hard cap it touches."""
    bound, floor = bounds(call, caps)
    for cap in caps:
        if cap.enforcement != "hard" or (cap.unit == "usd" and bound == 0):
            continue
        taken = amount if cap.unit == "usd" else need_of(call, cap, floor, at_ms)
        sums = f"{cap.used(at_ms)} + {cap.held(at_ms)} + {taken} of {cap.room(at_ms)}"
        if cap.used(at_ms) + cap.held(at_ms) + taken > cap.room(at_ms):
            raise Violation("past a hard cap", f"{call.id} on {cap.id}: {sums}")
    if not floor <= amount <= bound:
        raise Violation("trimmed too far", f"{call.id} holds {amount}, its floor is {floor} and its bound {bound}")


def check_promises_of_refusal(call: CallRecord, caps: list[CapRecord], at_ms: int) -> None:
    """Promise 2 in its own words: a final refusal only if the call would not fit although every other call were voided."""
    bound, floor = bounds(call, caps)

    def full(cap: CapRecord) -> bool:
        if cap.unit == "usd" and bound == 0:
            return False
        if cap.enforcement == "soft":
            return cap.used(at_ms) >= cap.room(at_ms)
        return cap.enforcement == "hard" and cap.used(at_ms) + need_of(call, cap, floor, at_ms) > cap.room(at_ms)

    if not any(map(full, caps)):
        raise Violation("false refusal", f"{call.id} would fit if nobody else were in flight")
