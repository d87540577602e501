"""The words of the ledger: caps, what a call asks for, and what it is answered. Plain frozen values, no behaviour.

What is made several times for each call is a NamedTuple: it costs a third of a frozen dataclass.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from store.errors import StoreUnavailable


class CallerLeft(StoreUnavailable):
    """`cancel` was called for a hold that was not answered yet: the call must not leave, and nobody is there to be told."""


class Unit(StrEnum):
    """What a cap counts."""

    USD = "usd"
    """Amounts are nano-dollars."""
    TOKENS = "tokens"
    REQUESTS = "requests"
    CONCURRENT = "concurrent"


class Enforcement(StrEnum):
    """What a full cap does."""

    HARD = "hard"
    SOFT = "soft"
    OBSERVE = "observe"


class Scope(StrEnum):
    """Whom a cap binds, narrowest first: the order in which refusals name caps."""

    RUN = "run"
    PROVIDER_CONFIG = "provider_config"
    VIRTUAL_KEY_MODEL = "virtual_key_model"
    VIRTUAL_KEY = "virtual_key"
    TEAM = "team"
    CUSTOMER = "customer"
    PROVIDER = "provider"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit as the store keeps it. `limit` is in nano-dollars for USD, else a count."""

    id: str
    name: str
    scope: Scope
    scope_id: str
    scope_name: str
    unit: Unit
    limit: int
    window: str | None
    """A duration such as `1h`, `7d`, `1M`; None: no window (prepaid money, or a cap on parallel calls)."""
    calendar_aligned: bool = False
    timezone: str = "UTC"
    quarter_start_month: int = 1
    enforcement: Enforcement = Enforcement.HARD
    strict: bool = False
    """Hold one token per byte of input instead of the learnt ratio."""
    carry_over: bool = False
    created_ms: int = 0
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Raise:
    """A temporary addition to a cap's limit, in the cap's unit. It counts before `until_ms` by the database's time."""

    amount: int
    from_ms: int
    until_ms: int
    reason: str = ""


class CapState(NamedTuple):
    """A cap with its sums at one instant: what refusals, the API and the dashboard show."""

    cap: Cap
    used: int
    held: int
    carried: int = 0
    """Carried over from the window before; counts in favour of the limit."""
    window_start_ms: int | None = None
    resets_at_ms: int | None = None
    raised: Raise | None = None
    """The raise in force at this instant."""

    @property
    def limit(self) -> int:
        """The limit in force now: carry-over, top-ups of this window and a raise included."""
        return self.cap.limit + self.carried + (self.raised.amount if self.raised is not None else 0)

    @property
    def remaining(self) -> int:
        """What a new call may take: limit − used − held, never below 0."""
        return max(0, self.limit - self.used - self.held)


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Who and what a call is: kept with the hold so that its log row can be made again after a crash."""

    virtual_key_id: str = ""
    virtual_key_name: str = ""
    team_id: str = ""
    customer_id: str = ""
    run_id: str = ""
    provider: str = ""
    model: str = ""
    operation: str = ""
    stream: bool = False


_NOBODY = CallFacts()


class HoldRequest(NamedTuple):
    """Everything a call wants to hold, on all the caps it touches, all or none.

    Money: `bound_nanos` is the most the call can cost as it stands; `floor_nanos` the least worth trimming to (equal to
    `bound_nanos` when the call cannot be trimmed); `strict_bound_nanos` and `strict_floor_nanos` the same with one token per
    byte, used as soon as one cap is strict. `trim` False: no lowering, the full bound is held, waits, or is refused.
    """

    call_id: str
    cap_ids: tuple[str, ...]
    """Narrowest scope first, shortest window first within a scope: the order in which refusals name them."""
    bound_nanos: int
    floor_nanos: int
    strict_bound_nanos: int = 0
    strict_floor_nanos: int = 0
    tokens: int = 0
    trim: bool = True
    revision: int = 0
    """Governance revision the caps were resolved against; an older one than the store's is answered `Stale`."""
    facts: CallFacts = _NOBODY
    waiting_bytes: int = 0
    """Memory this call keeps while it waits in line (its buffered body); the line is bounded in calls and in bytes."""
    may_wait: bool = True
    """False: where only other calls' holds are in the way it is refused (`held_only`) at once, for there is another choice."""


class Granted(NamedTuple):
    """The call may leave: its hold is on disk."""

    call_id: str
    amount_nanos: int
    """Held on every money cap; less than the bound when it was trimmed to share what is left."""
    alone: bool
    """True when the call runs with all that is left of some cap."""
    caps: tuple[CapState, ...]
    """After the hold, in the order of the request."""
    waited_ms: int = 0
    would_refuse: tuple[str, ...] = ()
    """Ids of observe caps that would have refused."""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """One cap that stands in the way, and what the call would have needed of it."""

    state: CapState
    needed: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The call may not leave. `held_only`: only other calls' holds were in the way and waiting did not help."""

    call_id: str
    exceeded: tuple[Exceeded, ...]
    """Every cap that is hit, in the order of the request; the first one is named to the caller."""
    held_only: bool
    waited_ms: int = 0
    at_ms: int = 0
    """When it was decided, by the ledger's clock: what the ends of windows are measured against."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The governance has changed since the call was resolved: resolve it again and come back."""

    revision: int


class Settlement(NamedTuple):
    """How a held call ended. `cost_nanos` and `tokens` are posted in full to every cap that was held."""

    call_id: str
    cost_nanos: int
    tokens: int
    sent: bool
    """False: nothing left for the provider; everything held is voided and the request is not counted."""
    estimated: bool = False
    """True when some of the amount is our estimate and not the provider's report."""
    input_tokens: int = 0
    output_tokens: int = 0
    model: str = ""
    price_source: str = ""
    note: str = ""
    """A short word on the ending for whoever reads the books: `complete`, `client_left`, `upstream_broke`, `cut`, …"""


class Settled(NamedTuple):
    """The answer to a settlement; `caps` are the states after it, in the order of the hold."""

    call_id: str
    caps: tuple[CapState, ...]
    over_hold: bool = False
    """More was posted than had been held."""
    repeated: bool = False
    """The call was settled before; nothing changed."""
    adjusted: bool = False
    """The call had been posted unconfirmed; the difference was booked now."""
    spooled: bool = False
    """The store cannot be written: the settlement is safe in a file and will be booked later. `caps` is empty."""
