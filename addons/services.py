"""What steps work with: the stores, the clock and the policy, gathered so that a test can hand in its own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from addons.fullness import Fullness
from addons.health import Health
from addons.places import PlacesMemo
from addons.policy import Policy
from addons.rule_faults import RuleFaults
from addons.steps.learned import AnswerSizes, Learned
from store.clock import Clock, Ids
from store.config_store.snapshot import Snapshot
from store.ledger.types import Granted, HoldRequest, Refused, Settled, Settlement, Stale
from store.logs.types import CallRow
from store.prices.book import PriceBook
from store.prices.limits import LimitsBook


class LedgerLike(Protocol):
    """The part of the ledger that calls use."""

    async def hold(self, request: HoldRequest) -> Granted | Refused | Stale: ...

    def settle_soon(self, settlement: Settlement, done: Callable[[Settled], None] | None = None) -> None: ...

    def cancel(self, call_id: str) -> None: ...


class LogsLike(Protocol):
    """The part of logs.db that calls use."""

    def add(self, row: CallRow) -> None: ...


class Snapshots(Protocol):
    """Where the current governance comes from."""

    @property
    def current(self) -> Snapshot: ...

    async def refresh(self, revision: int) -> None:
        """Wait until the current snapshot is at least at `revision`."""
        ...

    async def look(self) -> bool:
        """Whether a newer snapshot was found just now, for a key that the current one does not know."""
        ...


@dataclass(slots=True)
class ConnectionFacts:
    """What a client connection said about itself in its CONNECT."""

    credentials: str = ""
    """The raw Proxy-Authorization value."""
    port: int = 0
    """The listener's port the client came to."""


@dataclass(slots=True)
class Services:
    """Handed to every step beside the call."""

    policy: Policy
    snapshots: Snapshots
    book: PriceBook
    limits: LimitsBook
    ledger: LedgerLike
    logs: LogsLike
    learned: Learned
    clock: Clock
    ids: Ids
    random: Random
    connections: dict[str, ConnectionFacts] = field(default_factory=dict)
    """By client connection id."""
    watched: bool = True
    """Somebody may look at the flows: an inspector, or the stock tool we run in."""
    answers: AnswerSizes = field(default_factory=AnswerSizes)
    """Earlier answers that requests may name as their past."""
    fullness: Fullness = field(default_factory=Fullness)
    """How full caps are, for routing rules that ask."""
    places: PlacesMemo = field(default_factory=PlacesMemo)
    """Who serves bare names of models."""
    rule_faults: RuleFaults = field(default_factory=RuleFaults)
    health: Health = field(init=False)
    """What failed in the last seconds."""

    def __post_init__(self) -> None:
        self.health = Health(self.clock.monotonic)
