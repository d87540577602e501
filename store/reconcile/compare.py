"""The comparison itself: per UTC day and model, what agrees, what our books account for, and what differs."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from store.prices.cost import cost_nanos
from store.prices.types import ModelPrice
from store.reconcile.books import DaySum, LedgerState
from store.reconcile.explain import Case, findings
from store.reconcile.midnight import Shift, explain_midnights
from store.reconcile.spans import Coverage, day_of, days
from store.reconcile.sums import Key, Ours, OurSums, Theirs, TheirSums
from store.reconcile.types import DAY_MS, Cause, Fee, Figures, Finding, Report, Row, Span, Tokens, Verdict
from store.usage import Usage

type PriceOf = Callable[[str, int], ModelPrice | None]
"""(model, instant in ms) → the price in force, None when none is known."""


@dataclass(frozen=True, slots=True)
class Given:
    """Everything a comparison is made of."""

    provider: str
    usage: Coverage
    costs: Coverage
    theirs: TheirSums
    ours: OurSums
    state: LedgerState
    daily: Mapping[tuple[str, str], DaySum]
    tolerance_nanos: int
    price_of: PriceOf
    now_ms: int
    notes: tuple[str, ...] = ()
    asked: Span | None = None
    """The days that were asked about explicitly."""


def compare(given: Given) -> Report:
    """The report. Pure."""
    keys = sorted({*given.theirs.rows, *given.ours.rows})
    shifts = _all_shifts(given, keys)
    cases = [case for key in keys if (case := _case(given, key, shifts)) is not None]
    cases = _under_other_names(cases)
    cases, fees = _fees(given, cases)
    return Report(
        provider=given.provider,
        tolerance_nanos=given.tolerance_nanos,
        rows=tuple(_row(case) for case in cases),
        fees=fees,
        notes=tuple(_notes(given)),
        uncovered_days=_uncovered(given),
    )


# ---- one day and model


def _case(given: Given, key: Key, shifts: Mapping[str, Mapping[int, Shift]]) -> Case | None:
    day_ms, model = key
    theirs, ours = given.theirs.rows.get(key, Theirs()), given.ours.rows.get(key, Ours())
    told = given.usage.touches(day_ms)
    paid = given.costs.touches(day_ms)
    gap = theirs.tokens.minus(ours.tokens) if told else None
    if (gap is None or (theirs.tokens.is_zero and ours.tokens.is_zero)) and not (theirs.cost_nanos or ours.cost_nanos):
        return None
    by_midnight = shifts.get(model, {})
    before, after = by_midnight.get(day_ms), by_midnight.get(day_ms + DAY_MS)
    price = given.price_of(model, day_ms)
    case = Case(
        day_ms=day_ms,
        model=model,
        theirs=theirs,
        ours=ours,
        gap=gap,
        money_gap=theirs.cost_nanos - ours.cost_nanos if paid else None,
        arrived=before,
        left=after,
        price=price,
        tolerance_nanos=given.tolerance_nanos,
        is_over=given.now_ms >= day_ms + DAY_MS,
        partly=_partly(given, day_ms),
        state=given.state,
        daily=given.daily,
        provider=given.provider,
    )
    return replace(case, tokens_verdict=_tokens_verdict(case), money_verdict=_money_verdict(case))


def _tokens_verdict(case: Case) -> Verdict:
    if case.gap is None or case.gap.is_zero:
        return Verdict.AGREES
    if case.shifted_gap is not None and case.shifted_gap.is_zero:
        return Verdict.EXPLAINED
    if case.ours.inexact and _within_inexact(case):
        return Verdict.EXPLAINED
    return Verdict.DIFFERS


def _within_inexact(case: Case) -> bool:
    """Whether what the exact calls leave can be what the inexact ones used: nothing negative, and no dearer than was held."""
    rest = case.theirs.tokens.minus(case.ours.exact_tokens)
    read, written = rest.cache_read or 0, rest.cache_write or 0
    parts = (rest.input or 0, rest.output or 0, read, written, (rest.input or 0) - read - written)
    if min(parts) < 0:
        return False
    if case.price is None:
        return True
    return _cheapest(case.price, rest) <= case.ours.most_inexact_nanos + case.tolerance_nanos


def _cheapest(price: ModelPrice, tokens: Tokens) -> int:
    """What so many tokens cost at least: without the tiers for long input, which single calls may not have reached."""
    usage = Usage(
        input_tokens=tokens.input or 0,
        output_tokens=tokens.output or 0,
        cache_read_tokens=tokens.cache_read or 0,
        cache_write_tokens=tokens.cache_write or 0,
    )
    return cost_nanos(replace(price, tiers=price.tiers[:1]), usage)


def _money_verdict(case: Case) -> Verdict:
    gap = case.money_gap
    if gap is None:
        return Verdict.AGREES
    allowed = case.allowed_nanos
    if abs(gap) <= allowed:
        return Verdict.AGREES
    shifted = case.shifted_money_gap
    if shifted is not None and abs(shifted) <= allowed:
        return Verdict.EXPLAINED
    rest = case.theirs.cost_nanos - case.ours.exact_cost_nanos
    if case.ours.inexact and -allowed <= rest <= case.ours.most_inexact_nanos + allowed:
        return Verdict.EXPLAINED
    return Verdict.DIFFERS


def _row(case: Case) -> Row:
    theirs, ours = case.theirs, case.ours
    told, paid = case.gap is not None, case.money_gap is not None
    return Row(
        day=day_of(case.day_ms),
        model=case.model,
        theirs=Figures(theirs.requests if told else None, theirs.tokens if told else None, theirs.cost_nanos if paid else None),
        ours=Figures(ours.requests if told else None, ours.tokens if told else None, ours.cost_nanos),
        verdict=case.verdict,
        exact=not ours.inexact and not ours.classes_lost,
        findings=(*case.extra, *findings(case)),
    )


# ---- what only shows over several rows


def _all_shifts(given: Given, keys: Iterable[Key]) -> dict[str, dict[int, Shift]]:
    gaps: defaultdict[str, dict[int, Tokens]] = defaultdict(dict)
    models = {model for _, model in keys}
    for day_ms in days(given.usage.spans):
        if not given.usage.covers(day_ms):
            continue
        for model in models:
            key = (day_ms, model)
            gaps[model][day_ms] = given.theirs.rows.get(key, Theirs()).tokens.minus(given.ours.rows.get(key, Ours()).tokens)
    found: dict[str, dict[int, Shift]] = {}
    for model, near in given.ours.near.items():
        if any(not gap.is_zero for gap in gaps[model].values()):
            found[model] = explain_midnights(gaps[model], near)
    return found


def _under_other_names(cases: list[Case]) -> list[Case]:
    """Points out pairs of a day with the same tokens, one only theirs and one only ours: most likely one model."""
    made = list(cases)
    for place, case in enumerate(cases):
        if case.gap is None or case.theirs.tokens.is_zero or not case.ours.tokens.is_zero:
            continue
        for other_place, other in enumerate(cases):
            lonely = other.gap is not None and other.theirs.tokens.is_zero and not other.ours.tokens.is_zero
            if lonely and other.day_ms == case.day_ms and case.theirs.tokens.minus(other.ours.tokens).is_zero:
                text = f"the same tokens stand under {case.model} there and under {other.model} here: two names of one model"
                for at in (place, other_place):
                    made[at] = replace(made[at], extra=(Finding(Cause.ALIAS, text),))
    return made


def _fees(given: Given, cases: list[Case]) -> tuple[list[Case], tuple[Fee, ...]]:
    """Our books keep the fee of a search inside its call's amount, a provider may bill it apart: compare the day's sums."""
    made = list(cases)
    fees: list[Fee] = []
    by_day: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for (day_ms, label), nanos in sorted(given.theirs.fees.items()):
        by_day[day_ms].append((label, nanos))
    for day_ms, labelled in by_day.items():
        total = sum(nanos for _, nanos in labelled)
        places = [
            place
            for place, case in enumerate(cases)
            if case.day_ms == day_ms and case.money_verdict is Verdict.DIFFERS and case.tokens_verdict is not Verdict.DIFFERS
        ]
        surplus = -sum(cases[place].money_gap or 0 for place in places)
        inside = bool(places) and abs(surplus - total) <= given.tolerance_nanos
        for label, nanos in labelled:
            fees.append(Fee(day_of(day_ms), label, nanos, explained=inside or abs(total) <= given.tolerance_nanos))
        if inside:
            names = ", ".join(label for label, _ in labelled)
            finding = Finding(Cause.FEES, f"the provider bills {names} apart; our books keep such fees inside the calls' amounts")
            for place in places:
                made[place] = replace(made[place], money_verdict=Verdict.EXPLAINED, extra=(*made[place].extra, finding))
    return made, tuple(fees)


def _notes(given: Given) -> Iterable[str]:
    yield from given.notes
    for ours, theirs in sorted(given.ours.aliases.items()):
        yield f"{ours} of the books is compared with {theirs} of the export"
    if not given.usage:
        yield "the files hold amounts only: tokens are not compared"
    if not given.costs:
        yield "the files hold no amounts: money is not compared"
    told, paid = set(days(given.usage.spans)), set(days(given.costs.spans))
    if told and paid and told != paid:
        yield f"tokens are compared on {len(told)} day(s), amounts on {len(paid)}: the files do not cover the same time"
    gaps = _between(given.usage if given.usage else given.costs)
    if gaps and given.asked is None:
        yield f"the export leaves out {gaps}: nothing is said of that time"


def _between(coverage: Coverage) -> str:
    spans = coverage.spans
    return ", ".join(f"{day_of(end)} to {day_of(start - 1)}" for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def _uncovered(given: Given) -> tuple[str, ...]:
    asked = days(() if given.asked is None else (given.asked,))
    return tuple(day_of(day_ms) for day_ms in asked if not given.usage.touches(day_ms) and not given.costs.touches(day_ms))


def _partly(given: Given, day_ms: int) -> bool:
    return given.usage.touches(day_ms) and not given.usage.covers(day_ms)
