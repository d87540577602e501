"""OpenAI's usage and cost exports: pages of the organization API, and the dashboard's tables with the same fields."""

import re
from collections import Counter
from collections.abc import Iterator

from store.errors import UserError
from store.reconcile.fields import Fields, bucket
from store.reconcile.reading import Page, Table
from store.reconcile.types import CostRow, Part, Source, Span, Tokens, UsageRow

PROVIDER = "openai"
USAGE_ADVICE = "bucket_width=1d and a start_time at midnight UTC"
GROUP_USAGE = "the results are not grouped by model: ask again with group_by=model"
GROUP_COSTS = "the amounts are not grouped by line item: ask again with group_by=line_item"

_RESULT = re.compile(r"organization\.(?:usage\.)?([a-z_]+)\.result")
_COMPARED = ("completions", "embeddings")
_ORDINARY_TIERS = ("", "default", "standard", "auto")
_USAGE_DIMENSIONS = ("project_id", "user_id", "api_key_id", "api_source", "batch", "service_tier")
_COST_DIMENSIONS = ("project_id", "user_id", "api_key_id", "api_source")
_CHEAPER_OR_DEARER = re.compile(r"\b(batch|flex|priority|scale|ultrafast)\b")
_MODEL = re.compile(r"[A-Za-z0-9][\w.:/@-]*")
_MODALITIES = ("audio", "image", "text")
_CLASSES = {
    "input": "input", "input tokens": "input", "input_tokens": "input", "uncached input": "input",
    "input_uncached_tokens": "input", "uncached_input_tokens": "input",
    "cached input": "cache_read", "cached_input_tokens": "cache_read", "input_cached_tokens": "cache_read",
    "cached input tokens": "cache_read",
    "cache write": "cache_write", "cache writes": "cache_write", "input_cache_write_tokens": "cache_write",
    "cache_write_tokens": "cache_write", "cache write tokens": "cache_write",
    "output": "output", "output tokens": "output", "output_tokens": "output",
}  # fmt: skip
_TIMES = ("start_time", "end_time")
_USAGE_COLUMN, _COST_COLUMN = "num_model_requests", "amount_value"


def is_page(page: Page) -> bool:
    """Whether this looks like a page of OpenAI's organization API: a list of buckets with Unix times."""
    data = page.body.get("data")
    return isinstance(data, list) and all(isinstance(each, dict) and _TIMES[0] in each for each in data)


def read_page(page: Page) -> Part:
    """One page of `/v1/organization/usage/…` or `/v1/organization/costs`. Raises UserError."""
    usage: list[UsageRow] = []
    costs: list[CostRow] = []
    spans: list[Span] = []
    left_out: Counter[str] = Counter()
    for number, entry in enumerate(page.body.get("data") or (), 1):
        fields = Fields(entry, f"{page.place}, bucket {number}")
        span = bucket(fields.unix_seconds(_TIMES[0]), fields.unix_seconds(_TIMES[1]), fields.place, USAGE_ADVICE)
        spans.append(span)
        for result in _results(fields):
            kind = _kind(result)
            if kind in _COMPARED:
                usage.extend(_usage(result, span, kind))
            elif kind == "costs":
                costs.extend(_cost(result, span))
            else:
                left_out[kind] += 1
    if usage and costs:
        raise UserError(f"{page.place}: mixes usage and costs in one page; give the pages as the API answered them")
    source = Source.USAGE if usage or (left_out and not costs) else Source.COST if costs else Source.EMPTY
    head = Fields(page.body, page.place)
    return Part(
        PROVIDER, source, page.place, tuple(usage), tuple(costs), tuple(spans),
        has_more=page.body.get("has_more") is True, next_page=head.text("next_page"), left_out=left_out,
    )  # fmt: skip


def is_table(table: Table) -> bool:
    """Whether these are columns of the dashboard's export."""
    return set(_TIMES) <= set(table.columns)


def read_table(table: Table) -> Part:
    """One table of the dashboard's export, usage or costs. Buckets without calls are lines of blanks. Raises UserError."""
    usage: list[UsageRow] = []
    costs: list[CostRow] = []
    spans: list[Span] = []
    for line, values in table.rows:
        fields = Fields(values, f"{table.place}, line {line}")
        span = bucket(fields.unix_seconds(_TIMES[0]), fields.unix_seconds(_TIMES[1]), fields.place, "daily buckets")
        spans.append(span)
        if values.get("input_tokens") and _USAGE_COLUMN in values:
            usage.extend(_usage(fields, span, "completions" if "output_tokens" in values else "embeddings"))
        elif values.get(_COST_COLUMN):
            costs.extend(_table_cost(fields, span))
    if _COST_COLUMN in table.columns:
        source = Source.COST
    elif "input_tokens" in table.columns:
        source = Source.USAGE
    elif set(table.columns) <= {*_TIMES, "start_time_iso", "end_time_iso"}:
        source = Source.EMPTY
    else:
        raise UserError(
            f"{table.place}: has neither tokens (input_tokens, num_model_requests) nor amounts (amount_value): export the"
            " usage of completions or embeddings, or the costs"
        )
    return Part(PROVIDER, source, table.place, tuple(usage), tuple(costs), tuple(dict.fromkeys(spans)))


def line_item(text: str) -> tuple[str, str, str]:
    """(model, class of tokens, tier) of a line item such as `gpt-4o-2024-08-06, cached input`; no model: a fee."""
    tier = next(iter(_CHEAPER_OR_DEARER.findall(text.lower())), "")
    tail = text.rpartition("|")[2].strip()
    head, comma, rest = tail.partition(",")
    words = head.split()
    if comma and len(words) == 2 and words[1].lower() in _MODALITIES:
        return (words[0], "", tier) if _MODEL.fullmatch(words[0]) else ("", "", tier)
    if len(words) != 1 or not _MODEL.fullmatch(head.strip()) or not (comma or "-" in head):
        return "", "", tier
    pieces = [piece.strip().lower() for piece in rest.split(",")]
    return head.strip(), next((_CLASSES[piece] for piece in pieces if piece in _CLASSES), ""), tier


def _results(fields: Fields) -> Iterator[Fields]:
    results = fields.values.get("results", fields.values.get("result"))
    if not isinstance(results, list):
        raise UserError(f"{fields.place}: results is missing: expected a list")
    for number, result in enumerate(results, 1):
        yield Fields(result, f"{fields.place}, result {number}")


def _kind(result: Fields) -> str:
    said = result.text("object")
    found = _RESULT.fullmatch(said)
    if found is None:
        raise result.wrong("object", "a result of OpenAI's usage or costs API")
    return found[1]


def _usage(fields: Fields, span: Span, kind: str) -> Iterator[UsageRow]:
    embeddings = kind == "embeddings"
    tokens = Tokens(
        input=fields.needed_count("input_tokens"),
        cache_read=0 if embeddings else fields.count("input_cached_tokens"),
        cache_write=0 if embeddings else fields.count("input_cache_write_tokens"),
        output=0 if embeddings else fields.needed_count("output_tokens"),
    )
    requests = fields.needed_count("num_model_requests")
    model = fields.text("model")
    if not model:
        if tokens.is_zero and not requests:
            return
        raise UserError(f"{fields.place}: {GROUP_USAGE}")
    if (tokens.cache_read or 0) + (tokens.cache_write or 0) > (tokens.input or 0):
        raise UserError(f"{fields.place}: more tokens of input are cached than there are")
    yield UsageRow(
        *span, model=model, tokens=tokens, requests=requests, tier=_tier(fields), kind=kind,
        group=_group(fields, _USAGE_DIMENSIONS),
    )  # fmt: skip


def _cost(fields: Fields, span: Span) -> Iterator[CostRow]:
    amount = fields.part("amount")
    if amount is None:
        return
    nanos = amount.nanos("value")
    if nanos is None:
        return
    amount.usd("currency")
    yield from _cost_row(fields, span, nanos)


def _table_cost(fields: Fields, span: Span) -> Iterator[CostRow]:
    nanos = fields.nanos(_COST_COLUMN)
    if nanos is None:
        return
    fields.usd("amount_currency")
    yield from _cost_row(fields, span, nanos)


def _cost_row(fields: Fields, span: Span, nanos: int) -> Iterator[CostRow]:
    label = fields.text("line_item")
    if not label:
        if not nanos:
            return
        raise UserError(f"{fields.place}: {GROUP_COSTS}")
    model, token_class, tier = line_item(label)
    yield CostRow(*span, model, label, nanos, token_class, tier, group=_group(fields, _COST_DIMENSIONS))


def _tier(fields: Fields) -> str:
    batch = fields.values.get("batch")
    if batch is True or (isinstance(batch, str) and batch.lower() == "true"):
        return "batch"
    tier = fields.text("service_tier").lower()
    return "" if tier in _ORDINARY_TIERS else tier


def _group(fields: Fields, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(fields.values[name])) for name in names if fields.values.get(name) not in (None, ""))
