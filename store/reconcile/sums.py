"""Adds up both sides by UTC day and model, and keeps apart our calls near midnight, which either day may count."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from store.reconcile.names import Names
from store.reconcile.spans import Coverage
from store.reconcile.types import DAY_MS, CostRow, Export, OurCall, Standing, Tokens, UsageRow

MIDNIGHT_MS = 15 * 60_000
"""So near to midnight, clocks and the instant that counts (request or completion) decide the day."""
EDGE_MS = 3 * 3_600_000
"""Calls begun so long before the compared time are looked at too: they may end inside it."""

type Key = tuple[int, str]
"""(start of the UTC day in ms, model as the export lists it)."""


@dataclass(slots=True)
class Theirs:
    """What an export says of one day and model. Money in nano-dollars."""

    requests: int | None = 0
    tokens: Tokens = Tokens()
    web_searches: int = 0
    tiers: dict[str, Tokens] = field(default_factory=dict)
    """Of the tokens, those at another tier than the ordinary one."""
    cost_nanos: int = 0
    rounding_nanos: int = 0
    amounts: int = 0
    cost_by_class: Counter[str] = field(default_factory=Counter)
    has_usage: bool = False
    has_costs: bool = False

    def add_usage(self, row: UsageRow) -> None:
        self.has_usage = True
        self.requests = None if self.requests is None or row.requests is None else self.requests + row.requests
        self.tokens = self.tokens.plus(row.tokens)
        self.web_searches += row.web_searches
        if row.tier:
            self.tiers[row.tier] = self.tiers.get(row.tier, Tokens()).plus(row.tokens)

    def add_cost(self, row: CostRow) -> None:
        self.has_costs = True
        self.cost_nanos += row.cost_nanos
        self.rounding_nanos += row.rounding_nanos
        self.amounts += 1
        self.cost_by_class[row.token_class] += row.cost_nanos


@dataclass(slots=True)
class Inexact:
    """Calls of one standing that our books do not know exactly. Money in nano-dollars."""

    calls: int = 0
    cost_nanos: int = 0
    most_nanos: int = 0
    """The most they can have cost: what was held, or what was posted when that is more."""


@dataclass(slots=True)
class Ours:
    """What our books say of one day and model. Money in nano-dollars.

    Tokens and requests are of the calls in the time that the usage covers, money of those in the time that the costs cover.
    """

    requests: int = 0
    failed: int = 0
    tokens: Tokens = Tokens()
    exact_tokens: Tokens = Tokens()
    cost_nanos: int = 0
    exact_cost_nanos: int = 0
    inexact: dict[Standing, Inexact] = field(default_factory=dict)
    over_hold: int = 0
    unpriced: int = 0
    classes_lost: int = 0
    """Calls whose cache reads and writes nobody knows any more."""
    sources: Counter[str] = field(default_factory=Counter)

    @property
    def most_inexact_nanos(self) -> int:
        """The most that the calls which are not known exactly can have cost together."""
        return sum(one.most_nanos for one in self.inexact.values())

    def add(self, call: OurCall, *, counts_usage: bool, counts_cost: bool) -> None:
        exact = call.standing is Standing.EXACT
        if counts_usage:
            self.tokens = self.tokens.plus(call.tokens)
            self.requests += call.is_request
            self.failed += not call.is_request
            self.classes_lost += call.tokens.cache_read is None and call.is_request
            if exact:
                self.exact_tokens = self.exact_tokens.plus(call.tokens)
        if counts_cost:
            self.cost_nanos += call.cost_nanos
            self.exact_cost_nanos += call.cost_nanos if exact else 0
        if not exact:
            group = self.inexact.setdefault(call.standing, Inexact())
            group.calls += 1
            group.cost_nanos += call.cost_nanos
            group.most_nanos += max(call.cost_nanos, call.held_nanos)
        self.over_hold += call.over_hold
        self.unpriced += not call.priced
        if call.price_source:
            self.sources[call.price_source] += 1


@dataclass(slots=True)
class TheirSums:
    """A whole export, added up."""

    rows: dict[Key, Theirs]
    fees: dict[tuple[int, str], int]
    """(day, the provider's words) → nano-dollars."""


@dataclass(slots=True)
class OurSums:
    """Our books over the time of an export, added up."""

    rows: dict[Key, Ours]
    near: dict[str, dict[int, list[OurCall]]]
    """By model and midnight: the calls that run across it or stand close to it."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Our name → theirs, where calls were matched by the family of their name alone."""


def add_theirs(export: Export, names: Names, usage: Coverage, costs: Coverage) -> TheirSums:
    """The rows of an export that begin in the compared time, by day and model."""
    rows: defaultdict[Key, Theirs] = defaultdict(Theirs)
    fees: Counter[tuple[int, str]] = Counter()
    for row in export.usage:
        if row.start_ms in usage:
            rows[_day(row.start_ms), names.theirs(row.model)].add_usage(row)
    for amount in export.costs:
        if amount.start_ms not in costs:
            continue
        if amount.model:
            rows[_day(amount.start_ms), names.theirs(amount.model)].add_cost(amount)
        elif amount.cost_nanos:
            fees[_day(amount.start_ms), amount.label] += amount.cost_nanos
    return TheirSums(dict(rows), dict(fees))


def add_ours(calls: Iterable[OurCall], names: Names, usage: Coverage, costs: Coverage) -> OurSums:
    """Our calls of the compared time, by day and model."""
    rows: defaultdict[Key, Ours] = defaultdict(Ours)
    near: defaultdict[str, defaultdict[int, list[OurCall]]] = defaultdict(lambda: defaultdict(list))
    aliases: dict[str, str] = {}
    for call in calls:
        model = names.ours(call.answered, call.asked)
        day_ms, counts_usage = _day(call.started_ms), call.started_ms in usage
        # Where the export tells no amounts of a day ours are of the same calls as our tokens.
        counts_cost = call.started_ms in costs if costs.touches(day_ms) else counts_usage
        if counts_usage or counts_cost:
            rows[day_ms, model].add(call, counts_usage=counts_usage, counts_cost=counts_cost)
            if call.is_request and model.lower() not in (call.answered.lower(), call.asked.lower()):
                aliases[call.answered or call.asked] = model
        for midnight_ms in _midnights(call):
            near[model][midnight_ms].append(call)
    return OurSums(dict(rows), {model: dict(calls) for model, calls in near.items()}, aliases)


def _midnights(call: OurCall) -> range:
    first = -(-(call.started_ms - MIDNIGHT_MS) // DAY_MS) * DAY_MS
    # A call that was confirmed or recovered days later did not run all that time.
    last = max(call.started_ms, min(call.ended_ms, call.started_ms + EDGE_MS)) + MIDNIGHT_MS
    return range(first, last + 1, DAY_MS)


def _day(at_ms: int) -> int:
    return at_ms // DAY_MS * DAY_MS
