"""Why one day and model differs, as far as the books can tell. Each finding is one sentence with its figures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from store.clock import iso_utc
from store.money import PICOS_PER_NANO, format_usd
from store.prices import classes
from store.prices.types import ModelPrice
from store.reconcile.books import DaySum, LedgerState
from store.reconcile.midnight import Shift
from store.reconcile.spans import day_of
from store.reconcile.sums import Ours, Theirs
from store.reconcile.types import TOKEN_CLASSES, Cause, Finding, Standing, Tokens, Verdict

_ORDER = (Verdict.AGREES, Verdict.EXPLAINED, Verdict.DIFFERS)
_CLASS_NAMES = {"input": "input", "cache_read": "cache read", "cache_write": "cache write", "output": "output"}
_STANDINGS = {
    Standing.ESTIMATED: (Cause.ESTIMATED, "ended without a final report of their usage, so it is estimated"),
    Standing.UNCONFIRMED: (Cause.UNCONFIRMED, "were posted unconfirmed, at what was held, because the gateway died"),
    Standing.CORRECTED: (Cause.UNCONFIRMED, "were posted unconfirmed and set to an amount by a person; their tokens are unknown"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One day and model with all that is known about it. Money in nano-dollars."""

    day_ms: int
    model: str
    theirs: Theirs
    ours: Ours
    gap: Tokens | None
    """Tokens of theirs minus ours; None when the export does not tell tokens of that day."""
    money_gap: int | None
    arrived: Shift | None
    """What the midnight before the day moves."""
    left: Shift | None
    """What the midnight after it moves."""
    price: ModelPrice | None
    tolerance_nanos: int
    is_over: bool
    partly: bool
    state: LedgerState
    daily: Mapping[tuple[str, str], DaySum]
    provider: str
    tokens_verdict: Verdict = Verdict.AGREES
    money_verdict: Verdict = Verdict.AGREES
    extra: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worse of the two."""
        return max(self.tokens_verdict, self.money_verdict, key=_ORDER.index)

    @property
    def allowed_nanos(self) -> int:
        """How far the amounts may be apart: the tolerance, and what the export itself has rounded away."""
        return self.tolerance_nanos + self.theirs.rounding_nanos

    @property
    def shifted_gap(self) -> Tokens | None:
        """The gap once calls near midnight are counted on the provider's side of it; None when none are."""
        if self.gap is None or (self.arrived is None and self.left is None):
            return None
        gap = self.gap
        if self.arrived is not None:
            gap = gap.minus(self.arrived.later)
        return gap if self.left is None else gap.plus(self.left.later)

    @property
    def shifted_money_gap(self) -> int | None:
        """The same for the amounts."""
        if self.money_gap is None or (self.arrived is None and self.left is None):
            return None
        came = self.arrived.later_nanos if self.arrived is not None else 0
        went = self.left.later_nanos if self.left is not None else 0
        return self.money_gap - came + went


def findings(case: Case) -> tuple[Finding, ...]:
    """What is worth saying about a day and model, the most telling first."""
    return tuple(_findings(case))


def _findings(case: Case) -> Iterator[Finding]:
    if case.verdict is not Verdict.AGREES:
        yield from _midnight(case)
        yield from _inexact(case)
    if case.tokens_verdict is Verdict.DIFFERS and case.gap is not None:
        yield from _tokens(case, case.gap)
    if case.money_verdict is Verdict.DIFFERS and case.money_gap is not None:
        yield from _money(case, case.money_gap)
    if case.verdict is Verdict.DIFFERS:
        yield from _circumstances(case)
    yield from _remarks(case)


def _midnight(case: Case) -> Iterator[Finding]:
    for shift, where in ((case.arrived, "before"), (case.left, "after")):
        if shift is not None:
            yield Finding(
                Cause.MIDNIGHT,
                f"{_calls(shift.moved)} near the midnight {where} the day counted on the other side of it by the provider:"
                f" {_signed(shift.later)}, {format_usd(abs(shift.later_nanos))}",
            )


def _inexact(case: Case) -> Iterator[Finding]:
    for standing, (cause, what) in _STANDINGS.items():
        group = case.ours.inexact.get(standing)
        if group is not None:
            yield Finding(
                cause,
                f"{_calls(group.calls)} of ours {what}: {format_usd(group.cost_nanos)} booked,"
                f" at most {format_usd(group.most_nanos)}",
            )
    if case.ours.over_hold:
        yield Finding(Cause.OVER_HOLD, f"{_calls(case.ours.over_hold)} cost more than was held; booked in full")


def _tokens(case: Case, gap: Tokens) -> Iterator[Finding]:
    known = [count for name in TOKEN_CLASSES if (count := gap.of(name))]
    tier = next((name for name, tokens in case.theirs.tiers.items() if gap.minus(tokens).is_zero), None)
    if tier is not None:
        through = " (batch jobs do not go through the gateway's meter)" if tier == "batch" else ""
        yield Finding(Cause.TIER, f"the difference is exactly what the provider counted at the {tier} tier{through}")
    elif min(known) > 0:
        more = case.theirs.requests - case.ours.requests if case.theirs.requests is not None else None
        calls = f" in {more:,} more request(s)" if more is not None and more > 0 else ""
        yield Finding(
            Cause.OUTSIDE,
            f"the provider counted {_signed(gap)}{calls}: calls that did not go through the gateway, under another key or"
            " project, or of parts that are billed under this model without being named in the answer",
        )
    elif max(known) < 0:
        yield Finding(
            Cause.NOT_BILLED,
            f"our books have more than the provider counted ({_signed(gap)}): the export may be of another organization, project"
            " or key, or its last calls had not arrived when it was made",
        )
    else:
        yield Finding(Cause.OUTSIDE, f"some classes are more and some less ({_signed(gap)}): not the same calls were counted")


def _money(case: Case, gap: int) -> Iterator[Finding]:
    if case.ours.unpriced:
        yield Finding(
            Cause.UNPRICED, f"no price was known for {_calls(case.ours.unpriced)} of ours: their cost is missing, not zero"
        )
    if case.tokens_verdict is Verdict.DIFFERS:
        return
    if case.gap is None:
        more, cause = ("more", Cause.OUTSIDE) if gap > 0 else ("less", Cause.NOT_BILLED)
        yield Finding(
            cause,
            f"the provider billed {format_usd(abs(gap))} {more} than our books have: give its usage export as well, to see whether"
            " tokens or prices differ",
        )
        return
    source = ", ".join(sorted(case.ours.sources)) or "the books"
    entry = f"the price entry {case.price.model} of {source}" if case.price is not None else source
    if case.ours.cost_nanos or not case.ours.unpriced:
        yield Finding(
            Cause.PRICE,
            f"the same tokens cost {format_usd(case.theirs.cost_nanos)} there and {format_usd(case.ours.cost_nanos)} by {entry}"
            f"{_by_class(case)}: put the provider's price into your price file",
        )
    if case.theirs.tiers:
        told_tiers = "; ".join(f"{_plain(tokens)} at {tier}" for tier, tokens in case.theirs.tiers.items())
        yield Finding(Cause.TIER, f"not everything was processed at the ordinary tier: {told_tiers}")
    if case.theirs.web_searches:
        yield Finding(
            Cause.FEES, f"{case.theirs.web_searches:,} web search(es): our books keep their fee inside the calls' amounts"
        )


def _by_class(case: Case) -> str:
    """Class by class what a million tokens cost there and by our price, where the export tells both; only what differs."""
    if case.price is None or case.gap is None:
        return ""
    tokens = case.theirs.tokens
    rates = case.price.tiers[0].rates
    plain = (tokens.input or 0) - (tokens.cache_read or 0) - (tokens.cache_write or 0)
    numerator, denominator = case.price.multiplier
    compared = (
        ("input", plain, rates.input_picos),
        ("cache_read", tokens.cache_read or 0, classes.cache_read(rates)),
        ("output", tokens.output or 0, rates.output_picos),
    )
    told = []
    for name, count, picos in compared:
        paid = case.theirs.cost_by_class.get(name)
        if not paid or not count:
            continue
        ours = count * picos * numerator // (denominator * PICOS_PER_NANO)
        if abs(paid - ours) > case.tolerance_nanos:
            theirs_per_million = format_usd(round(paid * 1_000_000 / count / 10_000) * 10_000)
            ours_per_million = format_usd(picos * numerator * 1_000_000 // (denominator * PICOS_PER_NANO))
            told.append(f"{_CLASS_NAMES[name]} {theirs_per_million} a million tokens, not {ours_per_million}")
    return f" ({'; '.join(told)})" if told else ""


def _circumstances(case: Case) -> Iterator[Finding]:
    began = case.state.began_ms
    if began is None:
        yield Finding(Cause.BEFORE_LEDGER, "the ledger has no calls at all yet")
    elif began > case.day_ms:
        yield Finding(
            Cause.BEFORE_LEDGER,
            f"the ledger's rows begin at {iso_utc(began)} (nothing was called before, or it was pruned): compare later days, with"
            " --from",
        )
    kept = case.daily.get((day_of(case.day_ms), case.model))
    if kept is not None and case.gap is not None and _more(kept.tokens, case.ours.tokens):
        yield Finding(
            Cause.PRUNED,
            f"rows of the day are gone from the ledger: the logs' daily sums still have {_calls(kept.calls)} with"
            f" {_plain(kept.tokens)}, {format_usd(kept.cost_nanos)}",
        )
    waiting = case.state.open_calls.get(day_of(case.day_ms))
    if waiting:
        yield Finding(Cause.OPEN, f"{_calls(waiting)} of that day, of any model, are not settled yet")
    if not case.is_over:
        yield Finding(
            Cause.UNFINISHED_DAY, "the day is not over, and usage reaches an export minutes to hours late: ask again later"
        )
    elif case.partly:
        yield Finding(Cause.UNFINISHED_DAY, "the export covers only a part of the day; our calls outside of it are left out")


def _remarks(case: Case) -> Iterator[Finding]:
    theirs, ours = case.theirs, case.ours
    if case.gap is not None and ours.classes_lost:
        yield Finding(
            Cause.CLASSES,
            f"the logs do not have {_calls(ours.classes_lost)} any more: cache reads and writes are not compared, all input is",
        )
    if case.gap is not None and case.gap.is_zero and theirs.requests is not None and theirs.requests != ours.requests:
        failed = f"; {_calls(ours.failed)} of ours failed and used no tokens" if ours.failed else ""
        yield Finding(
            Cause.REQUESTS,
            f"the tokens agree, but the provider counted {theirs.requests:,} request(s), we {ours.requests:,}{failed}",
        )
    if case.money_gap is not None and case.money_verdict is Verdict.AGREES and abs(case.money_gap) > case.tolerance_nanos:
        yield Finding(Cause.ROUNDING, f"the export has rounded each of {theirs.amounts:,} amounts to the cent")


def _more(some: Tokens, than: Tokens) -> bool:
    return (some.input or 0) + (some.output or 0) > (than.input or 0) + (than.output or 0)


def _calls(count: int) -> str:
    return f"{count:,} call" if count == 1 else f"{count:,} calls"


def _signed(tokens: Tokens) -> str:
    told = [f"{count:+,} {_CLASS_NAMES[name]}" for name in TOKEN_CLASSES if (count := tokens.of(name))]
    return (", ".join(told) or "no") + " tokens"


def _plain(tokens: Tokens) -> str:
    told = [f"{count:,} {_CLASS_NAMES[name]}" for name in TOKEN_CLASSES if (count := tokens.of(name))]
    return (", ".join(told) or "no") + " tokens"
