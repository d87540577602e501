"""The words of reconciliation: rows of an export, calls of our books, and what came of comparing them. No behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

DAY_MS = 86_400_000

Span = tuple[int, int]
"""From (inclusive) to (exclusive), milliseconds since 1970 UTC."""

TOKEN_CLASSES = ("input", "cache_read", "cache_write", "output")
"""`input` is all of it, cache reads and cache writes included; the others are counted as named."""


class Source(StrEnum):
    """What a page or a table of an export holds."""

    USAGE = "usage"
    COST = "cost"
    EMPTY = "empty"
    """No result at all: nobody can tell which of the two it is."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts in our normal form; None: the export does not tell this class."""

    input: int | None = 0
    cache_read: int | None = 0
    cache_write: int | None = 0
    output: int | None = 0

    def of(self, name: str) -> int | None:
        """The count of one of `TOKEN_CLASSES`."""
        return {"input": self.input, "cache_read": self.cache_read, "cache_write": self.cache_write, "output": self.output}[name]

    def __add__(self, other: "Tokens") -> "Tokens":
        return self.plus(other)

    def plus(self, other: "Tokens") -> "Tokens":
        """The sum, class by class; what one of the two does not know the sum does not know."""
        return Tokens(*(_sum(self.of(name), other.of(name)) for name in TOKEN_CLASSES))

    def minus(self, other: "Tokens") -> "Tokens":
        """The difference, class by class; None where one of the two does not know."""
        return Tokens(*(_difference(self.of(name), other.of(name)) for name in TOKEN_CLASSES))

    @property
    def is_zero(self) -> bool:
        """True when no class that is known differs from zero."""
        return not any(self.of(name) for name in TOKEN_CLASSES)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One result of a usage export: the calls of one model in one bucket of time."""

    start_ms: int
    end_ms: int
    model: str
    tokens: Tokens
    requests: int | None = None
    """None where the export does not count them (Anthropic)."""
    web_searches: int = 0
    tier: str = ""
    """`batch`, `flex`, `priority`, …; empty for ordinary processing and where the export does not tell."""
    kind: str = ""
    """Which endpoint's usage it is, where the export keeps them apart (`completions`, `embeddings`)."""
    group: tuple[tuple[str, str], ...] = ()
    """The other dimensions the export is grouped by: project, key, …"""


@dataclass(frozen=True, slots=True)
class CostRow:
    """One amount of a cost export. Money in nano-dollars, rounded to the nearest."""

    start_ms: int
    end_ms: int
    model: str
    """Empty for a fee that belongs to no model."""
    label: str
    """The provider's own words for it."""
    cost_nanos: int
    token_class: str = ""
    """`input` (here: not cached), `cache_read`, `cache_write` or `output`; empty where it is not told."""
    tier: str = ""
    rounding_nanos: int = 0
    """How far the export's own rounding may have moved the amount."""
    group: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One page of an API's answer, or one table, read."""

    provider: str
    source: Source
    place: str
    """The file and the page in it."""
    usage: tuple[UsageRow, ...] = ()
    costs: tuple[CostRow, ...] = ()
    spans: tuple[Span, ...] = ()
    """The time that was asked about, empty buckets included."""
    has_more: bool = False
    next_page: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Results that are not about tokens of metered models, by kind: how many."""


@dataclass(frozen=True, slots=True)
class Export:
    """Everything the given files say, put together."""

    provider: str
    usage: tuple[UsageRow, ...] = ()
    costs: tuple[CostRow, ...] = ()
    usage_spans: tuple[Span, ...] = ()
    cost_spans: tuple[Span, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know of it: pages that are missing, results left out."""


class Standing(StrEnum):
    """How well our books know what a call used."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    """No final usage came: a broken stream, an answer without a report."""
    UNCONFIRMED = "unconfirmed"
    """Posted at its hold because the process died."""
    CORRECTED = "corrected"
    """Unconfirmed once; a person has set its amount since, but not its tokens."""


@dataclass(frozen=True, slots=True)
class OurCall:
    """A call that our ledger has posted. Money in nano-dollars."""

    id: str
    started_ms: int
    """When its hold was taken, just before it left: the instant that puts it on a day."""
    ended_ms: int
    asked: str
    """The model asked for."""
    answered: str
    """The model that answered, as the provider names it; empty when nobody knows."""
    tokens: Tokens
    """Cache classes are None when the log row that knew them is gone."""
    cost_nanos: int
    held_nanos: int
    standing: Standing = Standing.EXACT
    over_hold: bool = False
    priced: bool = True
    price_source: str = ""

    @property
    def is_request(self) -> bool:
        """Whether the provider is taken to count it: a failed call uses no tokens and is not billed."""
        return bool(self.tokens.input or self.tokens.output or self.cost_nanos)


class Verdict(StrEnum):
    """What became of comparing one day and model."""

    AGREES = "agrees"
    EXPLAINED = "explained"
    """It differs by no more than what our books themselves declare inexact, or by calls near midnight."""
    DIFFERS = "differs"


class Cause(StrEnum):
    """Why figures differ, or what is worth knowing though they agree."""

    UNCONFIRMED = "unconfirmed"
    ESTIMATED = "estimated"
    OVER_HOLD = "over_hold"
    OUTSIDE = "outside"
    NOT_BILLED = "not_billed"
    ALIAS = "alias"
    PRICE = "price"
    UNPRICED = "unpriced"
    MIDNIGHT = "midnight"
    BEFORE_LEDGER = "before_ledger"
    PRUNED = "pruned"
    TIER = "tier"
    ROUNDING = "rounding"
    FEES = "fees"
    REQUESTS = "requests"
    OPEN = "open"
    UNFINISHED_DAY = "unfinished_day"
    CLASSES = "classes"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about a difference."""

    cause: Cause
    text: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One side of a row; None: this side does not tell. Money in nano-dollars."""

    requests: int | None = None
    tokens: Tokens | None = None
    cost_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One UTC day and model, both sides."""

    day: str
    model: str
    theirs: Figures
    ours: Figures
    verdict: Verdict
    exact: bool
    """True when every call of ours in it is known exactly."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Fee:
    """What the provider bills beside its models on one day: searches, containers, storage. Money in nano-dollars."""

    day: str
    label: str
    cost_nanos: int
    explained: bool
    """The models' own differences of the day account for it: our books keep such fees inside a call's amount."""


@dataclass(frozen=True, slots=True)
class Report:
    """The whole comparison. Money in nano-dollars."""

    provider: str
    tolerance_nanos: int
    rows: tuple[Row, ...]
    fees: tuple[Fee, ...] = ()
    notes: tuple[str, ...] = ()
    uncovered_days: tuple[str, ...] = ()
    """Days that were asked about and that the export does not cover."""

    @property
    def agrees(self) -> bool:
        """True when nothing differs beyond what is explained, and every day asked about was there to be compared."""
        return (
            bool(self.rows)
            and not self.uncovered_days
            and all(row.verdict is not Verdict.DIFFERS for row in self.rows)
            and all(fee.explained for fee in self.fees)
        )

    @property
    def exact(self) -> bool:
        """True when it agrees and nothing had to be explained or was estimated by us."""
        return self.agrees and all(row.verdict is Verdict.AGREES and row.exact for row in self.rows) and not self.fees


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _difference(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other
