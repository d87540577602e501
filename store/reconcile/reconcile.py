"""From files and stores to a report: the one door of this package."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from store.clock import Clock
from store.database import Database
from store.errors import UserError
from store.reconcile.books import daily_sums, ledger_state, our_calls
from store.reconcile.compare import Given, PriceOf, compare
from store.reconcile.export import read_export
from store.reconcile.names import Names
from store.reconcile.spans import Coverage, day_of, within
from store.reconcile.sums import EDGE_MS, add_ours, add_theirs
from store.reconcile.types import Export, Report

DEFAULT_TOLERANCE_NANOS = 10_000_000
"""One cent per day and model."""

type Asked = tuple[int | None, int | None]
"""From (inclusive) to (exclusive) in milliseconds; None: as far as the export goes."""


@dataclass(frozen=True, slots=True)
class Books:
    """Where our side is kept."""

    ledger: Database
    logs: Database | None
    """None when there are none: cache classes are then not compared."""
    providers: frozenset[str]
    """Our names of the provider: its own, and those configured with it as their base."""


def reconcile(
    books: Books, export: Export, *, clock: Clock, price_of: PriceOf, asked: Asked = (None, None),
    tolerance_nanos: int = DEFAULT_TOLERANCE_NANOS,
) -> Report:  # fmt: skip
    """Compares an export with the books. `asked`: only this time. Raises UserError, StoreUnavailable."""
    spans = (*export.usage_spans, *export.cost_spans)
    first, end = min(start for start, _ in spans), max(end for _, end in spans)
    limits = (first if asked[0] is None else asked[0], end if asked[1] is None else asked[1])
    usage, costs = Coverage(within(export.usage_spans, limits)), Coverage(within(export.cost_spans, limits))
    if not usage and not costs:
        raise UserError(f"the export covers {day_of(first)} to {day_of(end - 1)}, and nothing of the days asked about")
    names = Names((row.model for row in export.usage), (row.model for row in export.costs if row.model))
    both = (*usage.spans, *costs.spans)
    span = (min(start for start, _ in both), max(end for _, end in both))
    wide = (span[0] - EDGE_MS, span[1] + EDGE_MS)
    given = Given(
        provider=export.provider,
        usage=usage,
        costs=costs,
        theirs=add_theirs(export, names, usage, costs),
        ours=add_ours(our_calls(books.ledger, books.logs, books.providers, wide), names, usage, costs),
        state=ledger_state(books.ledger, books.providers, span),
        daily=daily_sums(books.logs, books.providers, names, day_of(span[0]), day_of(span[1] - 1)),
        tolerance_nanos=tolerance_nanos,
        price_of=price_of,
        now_ms=clock.now_ms(),
        notes=export.notes,
        asked=None if asked == (None, None) else limits,
    )
    return compare(given)


def reconcile_files(
    books: Books, paths: Sequence[Path], provider: str | None, *, clock: Clock, price_of: PriceOf, asked: Asked = (None, None),
    tolerance_nanos: int = DEFAULT_TOLERANCE_NANOS,
) -> Report:  # fmt: skip
    """As `reconcile`, for files. Raises UserError, StoreUnavailable."""
    export = read_export(paths, provider)
    return reconcile(books, export, clock=clock, price_of=price_of, asked=asked, tolerance_nanos=tolerance_nanos)
