"""What the auditor remembers: caps, calls, what people did. Plain records with sums made anew at every question."""

from dataclasses import dataclass, field
from zlib import crc32

from tests.simulation.periods import Lattice, Period


class Violation(BaseException):
    """A promise was broken; `check` names which. It passes through everything that expects ordinary errors."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check


@dataclass
class CapRecord:
    """A cap, everything that was posted to it, and what is held on it."""

    id: str
    unit: str
    limit: int
    lattice: Lattice
    enforcement: str = "hard"
    strict: bool = False
    carry_over: bool = False
    created_ms: int = 0
    deleted: bool = False
    was_changed: bool = False
    """It had another window once."""
    posts: list[tuple[int, int, int, str]] = field(default_factory=list)
    """(order, when the call was held, amount, call id)."""
    holds: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Call id → (when it was held, amount)."""
    resets: list[tuple[int, int]] = field(default_factory=list)
    """(order, when)."""
    extra: dict[int, int] = field(default_factory=dict)
    """Start of a period → what was carried into it or topped up."""
    carried: dict[int, int] = field(default_factory=dict)
    """Start of a period → what was left over before it and carried into it."""
    begun: set[int] = field(default_factory=set)
    """Starts of the periods that something was done in: what was left over before them is frozen."""
    raised: "RaiseRecord | None" = None

    def period(self, at_ms: int) -> Period:
        return self.lattice.period(at_ms)

    def line(self) -> int:
        """The order of the last reset: what was posted before it is forgiven."""
        return max((order for order, _ in self.resets), default=-1)

    def used(self, at_ms: int) -> int:
        """Posts of calls held in the period of this instant, since the last reset in it."""
        start, end = self.period(at_ms)
        barrier = max((order for order, when in self.resets if start <= when < end), default=-1)
        return sum(amount for order, held_ms, amount, _ in self.posts if order > barrier and start <= held_ms < end)

    def held(self, at_ms: int) -> int:
        """Holds taken in the period of this instant."""
        start, end = self.period(at_ms)
        return sum(amount for held_ms, amount in self.holds.values() if start <= held_ms < end)

    def room(self, at_ms: int) -> int:
        """The limit in force at this instant."""
        raised = self.raised.amount if self.raised is not None and at_ms < self.raised.until_ms else 0
        return self.limit + self.extra.get(self.period(at_ms)[0], 0) + raised

    def left(self, at_ms: int) -> int:
        return self.room(at_ms) - self.used(at_ms)


@dataclass
class RaiseRecord:
    """A limit raised for a while."""

    amount: int
    until_ms: int


@dataclass(eq=False)
class CallRecord:
    """One call: what it asks, what the provider will bill, and what became of it."""

    id: str
    owner: int
    """The serial number of the process it came to."""
    caps: tuple[str, ...]
    bound: int
    floor: int
    strict_bound: int
    strict_floor: int
    tokens: int
    trim: bool
    revision: int
    waiting_bytes: int
    state: str = "new"
    """`new`, `open`, `post`, `void`, `unconfirmed`, `adjust`: what the books must say of it."""
    epoch: str = ""
    amount: int = 0
    alone: bool = False
    held_ms: int = 0
    held: dict[str, int] = field(default_factory=dict)
    posted: dict[str, int] = field(default_factory=dict)
    posted_order: int = -1
    cost: int = 0
    posted_tokens: int = 0
    settled_ms: int = 0
    pruned: bool = False
    told_to_stay: bool = False

    @property
    def may_wait(self) -> bool:
        """Every sixth call has another choice and does not stand in line."""
        return crc32(self.id.encode()) % 6 != 0

    """Its caller was told that it may not leave, whatever the books say."""
    forgotten: bool = False
    by_hand: bool = False
    """A person has said what it cost."""
    route: tuple[str, ...] = ()
    truth: "SettleRecord | None" = None
    """How it really ended."""
    bill: int = 0
    """What the provider bills."""
    left: bool = False
    """It went upstream."""
    spooled: "list[SettleRecord]" = field(default_factory=list)


@dataclass(eq=False)
class SettleRecord:
    """An ending that was handed to the ledger."""

    call: CallRecord
    cost: int
    tokens: int
    sent: bool


@dataclass(frozen=True)
class StateSeen:
    """A cap's sums at one instant, as answers show them."""

    cap_id: str
    used: int
    held: int
    limit: int
    start_ms: int | None
    end_ms: int | None


@dataclass(frozen=True)
class Expected:
    """The answer that the model gives. `word` says which; the rest depends on it."""

    word: str
    amount: int = 0
    alone: bool = False
    held_only: bool = False
    blocking: tuple[tuple[str, int], ...] = ()
    would_refuse: tuple[str, ...] = ()
    over_hold: bool = False
    revision: int = 0
    states: tuple[StateSeen, ...] | None = None


@dataclass
class PostRecord:
    """A row of the books about a call, as the model expects or finds it."""

    call_id: str
    kind: str
    cost: int
    amounts: dict[str, int]
