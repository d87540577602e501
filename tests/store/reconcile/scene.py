"""A comparison without files and stores: calls of ours against documents of theirs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from store.prices.types import ModelPrice, Rates, Tier
from store.reconcile.books import DaySum, LedgerState
from store.reconcile.compare import Given, compare
from store.reconcile.export import combine, read_part
from store.reconcile.names import Names
from store.reconcile.reading import parse_documents
from store.reconcile.spans import Coverage, within
from store.reconcile.sums import add_ours, add_theirs
from store.reconcile.types import Cause, OurCall, Report, Row, Span, Standing, Tokens
from tests.support.exports import Billed

CENT = 10_000_000
LATER = 1_800_000_000_000
PRICE = ModelPrice("openai", "gpt-4o", (Tier(-1, Rates(2_500_000, 10_000_000, cache_read_picos=1_250_000)),), "a test's prices")


def ours_of(call: Billed, number: int = 0, **fields: Any) -> OurCall:
    """What our books have of a call on the bill."""
    values: dict[str, Any] = {
        "id": f"call-{number}",
        "started_ms": call.at_ms,
        "ended_ms": call.at_ms + 2_000,
        "asked": call.model,
        "answered": call.model,
        "tokens": Tokens(call.all_input, call.cache_read, call.write_5m + call.write_1h, call.output),
        "cost_nanos": sum(call.nanos.values()),
        "held_nanos": sum(call.nanos.values()),
        "price_source": "genai-prices 0.2.3",
    }
    return OurCall(**(values | fields))


def inexact(call: Billed, standing: Standing, held_nanos: int, **fields: Any) -> OurCall:
    """A call that our books posted without knowing it exactly."""
    return ours_of(call, 99, standing=standing, held_nanos=held_nanos, cost_nanos=held_nanos, **fields)


def report(
    ours: Iterable[OurCall],
    documents: Sequence[Any],
    *,
    tolerance_nanos: int = CENT,
    price: ModelPrice | None = PRICE,
    now_ms: int = LATER,
    began_ms: int | None = 0,
    open_calls: Mapping[str, int] | None = None,
    daily: Mapping[tuple[str, str], DaySum] | None = None,
    asked: Span | None = None,
) -> Report:
    """Documents are pages (as Python values) or tables (as text)."""
    texts = [document if isinstance(document, str) else json.dumps(document) for document in documents]
    parts = [read_part(found) for number, text in enumerate(texts) for found in parse_documents(text, f"file{number}")]
    export = combine(parts)
    usage, costs = Coverage(export.usage_spans), Coverage(export.cost_spans)
    if asked is not None:
        usage, costs = Coverage(within(usage.spans, asked)), Coverage(within(costs.spans, asked))
    names = Names((row.model for row in export.usage), (row.model for row in export.costs if row.model))
    return compare(
        Given(
            provider=export.provider,
            usage=usage,
            costs=costs,
            theirs=add_theirs(export, names, usage, costs),
            ours=add_ours(ours, names, usage, costs),
            state=LedgerState(began_ms, dict(open_calls or {})),
            daily=daily or {},
            tolerance_nanos=tolerance_nanos,
            price_of=lambda model, at_ms: price,
            now_ms=now_ms,
            notes=export.notes,
            asked=asked,
        )
    )


def row_of(made: Report, day: str, model: str) -> Row:
    (found,) = [row for row in made.rows if (row.day, row.model) == (day, model)]
    return found


def causes(row: Row) -> list[Cause]:
    return [finding.cause for finding in row.findings]


def said(row: Row) -> str:
    return " | ".join(finding.text for finding in row.findings)
