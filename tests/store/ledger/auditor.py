"""A naive model of the ledger that says what every answer had to be. It shares no code with the ledger.

It keeps one record per call and adds everything up anew whenever it is asked, in fractions, with no caches and no balances.
"""

from dataclasses import dataclass, field
from fractions import Fraction

HOUR_MS = 3_600_000


@dataclass
class ModelCap:
    """A cap as the model sees it: rolling windows of `window_ms` from `created_ms`, None for no window."""

    unit: str
    limit: int
    window_ms: int | None
    enforcement: str
    created_ms: int

    def window(self, at_ms: int) -> int | None:
        return None if self.window_ms is None else (at_ms - self.created_ms) // self.window_ms


@dataclass
class ModelCall:
    """A call: what it holds on each cap, and what it cost once that is known."""

    caps: tuple[str, ...]
    bound: int
    floor: int
    tokens: int
    asked_ms: int
    state: str = "waiting"
    """`waiting`, `open`, `posted`, `unconfirmed`, `void`, `refused`."""
    held_ms: int = 0
    owner: int = 0
    held: dict[str, int] = field(default_factory=dict)
    posted: dict[str, int] = field(default_factory=dict)
    cost: int = 0


class Auditor:
    """The model. Time is passed in with every question."""

    def __init__(self) -> None:
        self.caps: dict[str, ModelCap] = {}
        self.calls: dict[str, ModelCall] = {}
        self.resets: dict[tuple[str, int | None], int] = {}

    def used(self, cap_id: str, at_ms: int) -> int:
        cap = self.caps[cap_id]
        window = cap.window(at_ms)
        total = sum(
            call.posted.get(cap_id, 0) for call in self.calls.values() if call.posted and cap.window(call.held_ms) == window
        )
        return total - self.resets.get((cap_id, window), 0)

    def held(self, cap_id: str, at_ms: int) -> int:
        cap = self.caps[cap_id]
        window = cap.window(at_ms)
        return sum(
            call.held.get(cap_id, 0) for call in self.calls.values() if call.state == "open" and cap.window(call.held_ms) == window
        )

    def need(self, call: ModelCall, cap: ModelCap) -> int:
        if cap.unit == "usd":
            return min(call.bound, max(call.floor, 1)) if call.bound else 0
        if cap.unit == "tokens":
            return max(1, min(call.tokens, cap.limit))
        return 1

    def judge(self, call: ModelCall, at_ms: int, ahead: list[ModelCall]) -> tuple[str, int]:
        """What a call must be told now: (`grant`, amount), (`wait`, 0) or (`refuse`, 0)."""
        hopeless = waits = False
        amount = Fraction(call.bound)
        for cap_id in call.caps:
            cap = self.caps[cap_id]
            need = self.need(call, cap)
            if cap.unit == "usd" and call.bound == 0:
                continue
            used, held = self.used(cap_id, at_ms), self.held(cap_id, at_ms)
            if cap.enforcement == "soft":
                hopeless = hopeless or used >= cap.limit
            elif cap.enforcement == "hard":
                hopeless = hopeless or used + need > cap.limit
                kept = sum(self.need(other, cap) for other in ahead if cap_id in other.caps)
                waits = waits or used + held + kept + need > cap.limit
                if cap.unit == "usd":
                    free = Fraction(cap.limit - used - held - kept)
                    if amount > 0 and Fraction(call.bound) > free / 2:
                        nobody = held == 0 and kept == 0
                        share = free if nobody and need > free // 2 else max(Fraction(need), Fraction(free // 2))
                        amount = min(amount, share, Fraction(call.bound))
        if hopeless:
            return "refuse", 0
        if waits:
            return "wait", 0
        return "grant", int(amount)

    def granted(self, call: ModelCall, amount: int, at_ms: int) -> None:
        call.state, call.held_ms = "open", at_ms
        for cap_id in call.caps:
            cap = self.caps[cap_id]
            call.held[cap_id] = amount if cap.unit == "usd" else self.need(call, cap)

    def settled(self, call: ModelCall, cost: int, tokens: int, sent: bool) -> str:
        """Books an ending; returns `first`, `adjusted` or `repeated`."""
        if call.state not in ("open", "unconfirmed"):
            return "repeated"
        word = "first" if call.state == "open" else "adjusted"
        self._book(call, cost, tokens, sent, "posted" if sent else "void")
        return word

    def died(self, owner: int) -> None:
        """Every open call of this owner is posted at its hold."""
        for call in self.calls.values():
            if call.owner == owner and call.state == "open":
                call.state = "unconfirmed"
                call.posted = {
                    cap_id: 0 if self.caps[cap_id].unit == "concurrent" else amount for cap_id, amount in call.held.items()
                }

    def reset(self, cap_id: str, at_ms: int) -> None:
        key = (cap_id, self.caps[cap_id].window(at_ms))
        self.resets[key] = self.resets.get(key, 0) + self.used(cap_id, at_ms)

    def _book(self, call: ModelCall, cost: int, tokens: int, sent: bool, state: str) -> None:
        call.state = state
        call.cost = cost if sent else 0
        amounts = {"usd": cost, "tokens": tokens, "requests": 1, "concurrent": 0}
        call.posted = {cap_id: amounts[self.caps[cap_id].unit] if sent else 0 for cap_id in call.caps}
