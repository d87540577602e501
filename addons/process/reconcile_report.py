"""How a reconciliation is shown: a table of both sides for people, the same as JSON for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from addons.process.text import printable
from store.money import format_usd, plain_usd
from store.reconcile.types import TOKEN_CLASSES, Fee, Figures, Report, Row, Tokens, Verdict

_HEADERS = ("DAY", "MODEL", "SIDE", "REQUESTS", "INPUT", "CACHE READ", "CACHE WRITE", "OUTPUT", "USD")
_LEFT = 3
"""So many columns are texts; the others are numbers, set to the right."""
_UNKNOWN = "-"


def report_text(report: Report) -> str:
    """The report for people."""
    lines = [_table([line for row in report.rows for line in _row_lines(row, report.provider)])] if report.rows else []
    lines += [f"input includes cache reads and cache writes; amounts may differ by {format_usd(report.tolerance_nanos)}", ""]
    told = [*_told_rows(report.rows), *_told_fees(report.fees), *(f"note: {note}" for note in report.notes)]
    if told:
        lines += [*map(printable, told), ""]
    return "\n".join([*lines, headline(report)])


def headline(report: Report) -> str:
    """The one sentence that says whether it agrees. Only one that begins with "agrees exactly" may be called exact."""
    if not report.rows:
        if report.uncovered_days:
            return f"NOTHING COMPARED: the export does not cover {_span(report.uncovered_days)}"
        return "nothing to compare: neither the export nor the books have calls on these days"
    days = len({row.day for row in report.rows})
    models = len({row.model for row in report.rows})
    size = f"for {_counted(days, 'day')}, {_counted(models, 'model')}"
    if report.agrees:
        what = _compared(report)
        if report.exact:
            return f"agrees exactly {size}: {what}"
        inexact = sum(1 for row in report.rows if row.verdict is Verdict.EXPLAINED or not row.exact)
        explained = (
            f"; {_counted(inexact, 'row')} explained above or with calls that our books do not know exactly" if inexact else ""
        )
        return f"agrees {size}: {what}{explained}"
    differing = sum(1 for row in report.rows if row.verdict is Verdict.DIFFERS)
    parts = [f"{differing} of {len(report.rows)} rows differ"] if differing else []
    unexplained = sum(1 for fee in report.fees if not fee.explained)
    if unexplained:
        parts.append(f"{_counted(unexplained, 'fee')} not in the books")
    if report.uncovered_days:
        parts.append(f"the export does not cover {_span(report.uncovered_days)}")
    return f"DOES NOT AGREE {size}: {', '.join(parts)}"


def report_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "provider": report.provider,
        "agrees": report.agrees,
        "exact": report.exact,
        "summary": headline(report),
        "tolerance_usd": plain_usd(report.tolerance_nanos),
        "rows": [_row_json(row) for row in report.rows],
        "fees": [
            {"day": fee.day, "description": fee.label, "cost_usd": plain_usd(fee.cost_nanos), "explained": fee.explained}
            for fee in report.fees
        ],
        "notes": list(report.notes),
        "uncovered_days": list(report.uncovered_days),
    }


def _compared(report: Report) -> str:
    tokens = any(row.theirs.tokens is not None for row in report.rows)
    money = any(row.theirs.cost_nanos is not None for row in report.rows)
    told = [text for text, is_so in (("tokens", tokens), (f"amounts within {format_usd(report.tolerance_nanos)}", money)) if is_so]
    if not money:
        told.append("amounts not compared")
    if not tokens:
        told.append("tokens not compared")
    return ", ".join(told)


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "day": row.day,
        "model": row.model,
        "verdict": row.verdict.value,
        "exact": row.exact,
        "theirs": _figures_json(row.theirs),
        "ours": _figures_json(row.ours),
        "difference": _figures_json(_difference(row)),
        "findings": [{"cause": finding.cause.value, "text": finding.text} for finding in row.findings],
    }


def _figures_json(figures: Figures) -> dict[str, Any]:
    tokens = figures.tokens
    return {
        "requests": figures.requests,
        **{f"{name}_tokens": tokens.of(name) if tokens is not None else None for name in TOKEN_CLASSES},
        "cost_usd": plain_usd(figures.cost_nanos) if figures.cost_nanos is not None else None,
    }


def _difference(row: Row) -> Figures:
    theirs, ours = row.theirs, row.ours
    return Figures(
        theirs.requests - ours.requests if theirs.requests is not None and ours.requests is not None else None,
        theirs.tokens.minus(ours.tokens) if theirs.tokens is not None and ours.tokens is not None else None,
        theirs.cost_nanos - ours.cost_nanos if theirs.cost_nanos is not None and ours.cost_nanos is not None else None,
    )


def _row_lines(row: Row, provider: str) -> Iterator[tuple[str, ...]]:
    yield row.day, row.model, provider, *_cells(row.theirs)
    yield "", "", "books", *_cells(row.ours)
    yield "", row.verdict.value, "difference", *_cells(_difference(row), signed=True)


def _cells(figures: Figures, *, signed: bool = False) -> Iterator[str]:
    tokens = figures.tokens or Tokens(None, None, None, None)
    for count in (figures.requests, *(tokens.of(name) for name in TOKEN_CLASSES)):
        yield _UNKNOWN if count is None else "0" if not count else f"{count:+,}" if signed else f"{count:,}"
    nanos = figures.cost_nanos
    sign = "+" if signed and nanos is not None and nanos > 0 else ""
    yield _UNKNOWN if nanos is None else sign + format_usd(nanos).replace("$", "")


def _told_rows(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for finding in row.findings:
            yield f"{row.day} {row.model}: {finding.text}"
        if row.verdict is Verdict.DIFFERS and not row.findings:
            yield f"{row.day} {row.model}: the books know of no reason"


def _told_fees(fees: Sequence[Fee]) -> Iterator[str]:
    for fee in fees:
        said = "inside the calls' amounts of our books" if fee.explained else "not in our books"
        yield f"{fee.day} fee {fee.label}: {format_usd(fee.cost_nanos)}, {said}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    every = [_HEADERS, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(_HEADERS))]
    lines = (
        "  ".join(
            cell.ljust(width) if column < _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    )
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
