"""Recognises exports by their content, puts the pages and tables of one comparison together, and refuses what would count twice."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from store.clock import iso_utc
from store.errors import UserError
from store.reconcile import anthropic, openai
from store.reconcile.reading import Page, Table, read_documents
from store.reconcile.spans import merged
from store.reconcile.types import DAY_MS, CostRow, Export, Part, Source, Span, UsageRow

PROVIDERS = (openai.PROVIDER, anthropic.PROVIDER)
_KNOWN = (
    "OpenAI: pages of /v1/organization/usage/completions, …/usage/embeddings or /v1/organization/costs, or the dashboard's CSV;"
    " Anthropic: pages of /v1/organizations/usage_report/messages or …/cost_report, or the Console's CSV"
)

type _AnyRow = UsageRow | CostRow


def read_export(paths: Sequence[Path], provider: str | None = None) -> Export:
    """Everything these files say. `provider`: whose they must be. Raises UserError, one sentence with file and place."""
    return combine([part for path in paths for part in map(read_part, read_documents(path))], provider)


def read_part(document: Page | Table) -> Part:
    """One document, by whichever of the known shapes it has. Raises UserError."""
    if isinstance(document, Table):
        if openai.is_table(document):
            return openai.read_table(document)
        if anthropic.is_table(document):
            return anthropic.read_table(document)
        columns = ", ".join(document.columns[:4])
        raise UserError(f"{document.place}: the columns ({columns}, …) are of no export that is known. Known are {_KNOWN}")
    if document.body.get("data") == []:
        return Part("", Source.EMPTY, document.place, has_more=document.body.get("has_more") is True)
    if openai.is_page(document):
        return openai.read_page(document)
    if anthropic.is_page(document):
        return anthropic.read_page(document)
    raise UserError(f"{document.place}: this is no page of an export that is known. Known are {_KNOWN}")


def combine(parts: Sequence[Part], provider: str | None = None) -> Export:
    """The parts as one export. Raises UserError when they are of several providers, overlap, or hold nothing."""
    chosen = _provider(parts, provider)
    _refuse_repeats([(part.place, part.usage) for part in parts if part.usage])
    _refuse_repeats([(part.place, part.costs) for part in parts if part.costs])
    usage, costs = _of(parts, Source.USAGE), _of(parts, Source.COST)
    if not any(part.spans for part in usage + costs):
        raise UserError(f"{parts[0].place}: the export holds no usage and no costs: ask for days on which there were calls")
    return Export(
        provider=chosen,
        usage=tuple(row for part in usage for row in part.usage),
        costs=tuple(row for part in costs for row in part.costs),
        usage_spans=merged(span for part in usage for span in part.spans),
        cost_spans=merged(span for part in costs for span in part.spans),
        notes=(*_missing_pages(parts), *_left_out(parts)),
    )


def _provider(parts: Sequence[Part], wanted: str | None) -> str:
    by_provider: dict[str, str] = {}
    for part in parts:
        if part.provider:
            by_provider.setdefault(part.provider, part.place)
    if len(by_provider) > 1:
        (one, here), (other, there) = list(by_provider.items())[:2]
        raise UserError(f"{here} is of {one} and {there} of {other}: reconcile one provider at a time")
    found = next(iter(by_provider), None)
    if found is None and wanted is None:
        raise UserError(f"{parts[0].place}: the export is empty and does not tell whose it is: name its --provider")
    if wanted is not None and found not in (None, wanted):
        raise UserError(f"{by_provider[found or '']} is an export of {found}, not of {wanted}")
    return found or wanted or ""


def _of(parts: Iterable[Part], source: Source) -> list[Part]:
    """The parts of one source, and those without results: where nothing was used nothing was billed, whichever they are."""
    parts = list(parts)
    if not any(part.source is source for part in parts):
        return []
    return [part for part in parts if part.source in (source, Source.EMPTY)]


def _refuse_repeats(given: Sequence[tuple[str, Sequence[_AnyRow]]]) -> None:
    """The same calls in two documents would count twice; two files may meet only in what their groups tell apart."""
    seen: defaultdict[tuple[str, str, int], list[tuple[int, _AnyRow]]] = defaultdict(list)
    for number, (_, rows) in enumerate(given):
        for row in rows:
            what = row.kind if isinstance(row, UsageRow) else row.label
            seen[row.model, what, row.start_ms // DAY_MS].append((number, row))
    for rows_of_day in seen.values():
        if len({number for number, _ in rows_of_day}) > 1:
            _refuse_meeting(rows_of_day, given)


def _refuse_meeting(rows: list[tuple[int, _AnyRow]], given: Sequence[tuple[str, Sequence[_AnyRow]]]) -> None:
    by_group: defaultdict[tuple[tuple[str, str], ...], dict[Span, int]] = defaultdict(dict)
    names = {number: {name for name, _ in row.group} for number, row in rows}
    shared = set.intersection(*names.values())
    for number, row in rows:
        told = tuple((name, value) for name, value in row.group if name in shared)
        spans = by_group[told]
        for span, other in spans.items():
            if other != number and span[0] < row.end_ms and row.start_ms < span[1]:
                raise UserError(
                    f"{given[other][0]} and {given[number][0]} hold the same calls ({row.model or 'fees'},"
                    f" {iso_utc(row.start_ms)[:10]}): give each page once, and API pages or a CSV, not both"
                )
        spans.setdefault((row.start_ms, row.end_ms), number)


def _missing_pages(parts: Sequence[Part]) -> list[str]:
    """A page that says has_more must be followed by one that goes on where it ends."""
    starts: defaultdict[Source, set[int]] = defaultdict(set)
    for part in parts:
        starts[part.source].update(start for start, _ in part.spans)
    every: set[int] = set().union(*starts.values())
    notes = []
    for part in parts:
        if not part.has_more:
            continue
        known = every if part.source is Source.EMPTY else starts[part.source] | starts[Source.EMPTY]
        end = max((end for _, end in part.spans), default=None)
        if end is None or end not in known:
            where = f"on from {iso_utc(end)}" if end is not None else "on from it"
            token = f" with page={part.next_page}" if _is_token(part.next_page) else ""
            notes.append(f"{part.place} says has_more, and the page that goes {where} is missing: ask for it{token}")
    return notes


def _is_token(text: str) -> bool:
    return 0 < len(text) <= 200 and text.isascii() and text.isprintable() and " " not in text


def _left_out(parts: Sequence[Part]) -> list[str]:
    counted: Counter[str] = Counter()
    for part in parts:
        counted.update(part.left_out)
    return [
        f"{count} result(s) of {kind.replace('_', ' ')} are left out: the gateway meters completions and embeddings"
        for kind, count in sorted(counted.items())
    ]
