"""Anthropic's usage and cost exports: pages of the Admin API, and the Console's tables."""

import re
from collections.abc import Iterator

from store.errors import UserError
from store.money import NANOS_PER_USD
from store.reconcile.fields import Fields, bucket, day_span
from store.reconcile.reading import Page, Table
from store.reconcile.types import CostRow, Part, Source, Span, Tokens, UsageRow

PROVIDER = "anthropic"
USAGE_ADVICE = "bucket_width=1d, or a smaller one"
GROUP_USAGE = "the results are not grouped by model: ask again with group_by[]=model"
GROUP_COSTS = "the amounts are not grouped by description: ask again with group_by[]=description"
HALF_A_CENT = NANOS_PER_USD // 200

_TIMES = ("starting_at", "ending_at")
_ORDINARY_TIERS = ("", "standard")
_USAGE_DIMENSIONS = (
    "workspace_id", "api_key_id", "account_id", "service_account_id", "service_tier", "context_window", "inference_geo", "speed",
)  # fmt: skip
_COST_DIMENSIONS = ("workspace_id", "inference_geo", "service_tier", "context_window", "speed")
_CLASSES = {
    "uncached_input_tokens": "input", "input_no_cache": "input",
    "cache_read_input_tokens": "cache_read", "input_cache_read": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write", "input_cache_write_5m": "cache_write",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write", "input_cache_write_1h": "cache_write",
    "input_cache_write": "cache_write",
    "output_tokens": "output", "output": "output",
}  # fmt: skip

_DAY = "usage_date_utc"
_PLAIN, _READ, _MADE = "usage_input_tokens_no_cache", "usage_input_tokens_cache_read", "usage_output_tokens"
_WRITES = ("usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_write")
_TABLE_DIMENSIONS = ("workspace", "api_key", "api_key_id", "usage_type", "context_window", "inference_geo", "speed")


def is_page(page: Page) -> bool:
    """Whether this looks like a page of Anthropic's Admin API: a list of buckets with RFC 3339 times."""
    data = page.body.get("data")
    return isinstance(data, list) and all(isinstance(each, dict) and _TIMES[0] in each for each in data)


def read_page(page: Page) -> Part:
    """One page of `/v1/organizations/usage_report/messages` or `/v1/organizations/cost_report`. Raises UserError."""
    usage: list[UsageRow] = []
    costs: list[CostRow] = []
    spans: list[Span] = []
    for number, entry in enumerate(page.body.get("data") or (), 1):
        fields = Fields(entry, f"{page.place}, bucket {number}")
        span = bucket(fields.rfc3339(_TIMES[0]), fields.rfc3339(_TIMES[1]), fields.place, USAGE_ADVICE)
        spans.append(span)
        results = fields.values.get("results")
        if not isinstance(results, list):
            raise UserError(f"{fields.place}: results is missing: expected a list")
        for place, result in enumerate(results, 1):
            one = Fields(result, f"{fields.place}, result {place}")
            if "amount" in one.values:
                costs.extend(_cost(one, span))
            elif "uncached_input_tokens" in one.values:
                usage.extend(_usage(one, span))
            else:
                raise UserError(
                    f"{one.place}: holds neither uncached_input_tokens nor an amount: expected Anthropic's usage report for"
                    " messages, or its cost report"
                )
    if usage and costs:
        raise UserError(f"{page.place}: mixes usage and costs in one page; give the pages as the API answered them")
    source = Source.USAGE if usage else Source.COST if costs else Source.EMPTY
    head = Fields(page.body, page.place)
    return Part(
        PROVIDER, source, page.place, tuple(usage), tuple(costs), tuple(spans),
        has_more=page.body.get("has_more") is True, next_page=head.text("next_page"),
    )  # fmt: skip


def is_table(table: Table) -> bool:
    """Whether these are columns of the Console's export."""
    return _DAY in table.columns


def read_table(table: Table) -> Part:
    """One table of the Console's export, usage or cost. Raises UserError."""
    columns = set(table.columns)
    if {_PLAIN, _MADE, "model_version"} <= columns:
        rows = [row for line, values in table.rows for row in _table_usage(Fields(values, f"{table.place}, line {line}"))]
        return Part(PROVIDER, Source.USAGE, table.place, usage=tuple(rows), spans=_whole(rows))
    if {"cost_usd", "model"} <= columns:
        costs = [row for line, values in table.rows for row in _table_cost(Fields(values, f"{table.place}, line {line}"))]
        return Part(PROVIDER, Source.COST, table.place, costs=tuple(costs), spans=_whole(costs))
    raise UserError(
        f"{table.place}: has neither the columns of the Console's usage export (model_version, {_PLAIN}, {_MADE}) nor those of"
        " its cost export (model, cost_usd)"
    )


def console_model(name: str) -> str:
    """The API's name for the name that the Console shows: `Claude Haiku 4.5` is `claude-haiku-4-5`."""
    return re.sub(r"[\s.]+", "-", name.strip().lower())


def _usage(fields: Fields, span: Span) -> Iterator[UsageRow]:
    written = fields.part("cache_creation")
    plain = fields.needed_count("uncached_input_tokens")
    read = fields.count("cache_read_input_tokens") or 0
    write = 0
    if written is not None:
        write = sum(written.count(name) or 0 for name in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"))
    tools = fields.part("server_tool_use")
    searches = (tools.count("web_search_requests") or 0) if tools is not None else 0
    tokens = Tokens(plain + read + write, read, write, fields.needed_count("output_tokens"))
    tier = fields.text("service_tier").lower()
    yield from _usage_row(fields, span, fields.text("model"), tokens, searches, tier, _USAGE_DIMENSIONS)


def _table_usage(fields: Fields) -> Iterator[UsageRow]:
    span = day_span(fields.text(_DAY), fields.place, _DAY)
    plain = fields.needed_count(_PLAIN)
    read = fields.count(_READ) or 0
    write = sum(fields.count(name) or 0 for name in _WRITES)
    tokens = Tokens(plain + read + write, read, write, fields.needed_count(_MADE))
    searches = fields.count("web_search_count") or 0
    tier = fields.text("usage_type").lower()
    yield from _usage_row(fields, span, fields.text("model_version"), tokens, searches, tier, _TABLE_DIMENSIONS)


def _usage_row(
    fields: Fields, span: Span, model: str, tokens: Tokens, searches: int, tier: str, dimensions: tuple[str, ...]
) -> Iterator[UsageRow]:
    if not model:
        if tokens.is_zero:
            return
        raise UserError(f"{fields.place}: {GROUP_USAGE}")
    ordinary = tier in (*_ORDINARY_TIERS, "message")
    yield UsageRow(
        *span, model=model, tokens=tokens, web_searches=searches, tier="" if ordinary else tier, kind="messages",
        group=_group(fields, dimensions),
    )  # fmt: skip


def _cost(fields: Fields, span: Span) -> Iterator[CostRow]:
    nanos = fields.nanos("amount", per_usd=100)  # in cents
    if nanos is None:
        return
    fields.usd("currency")
    model, kind, label = fields.text("model"), fields.text("cost_type"), fields.text("description")
    if not model and not label and kind in ("", "tokens"):
        if not nanos:
            return
        raise UserError(f"{fields.place}: {GROUP_COSTS}")
    is_tokens = kind in ("", "tokens")
    tier = fields.text("service_tier").lower()
    yield CostRow(
        *span, model if is_tokens else "", label or kind, nanos, _CLASSES.get(fields.text("token_type"), ""),
        "" if tier in _ORDINARY_TIERS else tier, group=_group(fields, _COST_DIMENSIONS),
    )  # fmt: skip


def _table_cost(fields: Fields) -> Iterator[CostRow]:
    span = day_span(fields.text(_DAY), fields.place, _DAY)
    nanos = fields.nanos("cost_usd")
    if nanos is None:
        raise UserError(f"{fields.place}: cost_usd is missing")
    kind, token_type = fields.text("cost_type"), fields.text("token_type")
    is_tokens = kind in ("", "token", "tokens") and token_type not in ("web_search", "code_execution")
    model = console_model(fields.text("model")) if is_tokens else ""
    if is_tokens and not model:
        raise UserError(f"{fields.place}: {GROUP_COSTS}")
    tier = fields.text("usage_type").lower()
    rounding = HALF_A_CENT if nanos % (2 * HALF_A_CENT) == 0 else 0
    yield CostRow(
        *span, model, f"{fields.text('model')} {token_type or kind}".strip(), nanos, _CLASSES.get(token_type, ""),
        "" if tier in (*_ORDINARY_TIERS, "message") else tier, rounding, _group(fields, _TABLE_DIMENSIONS),
    )  # fmt: skip


def _group(fields: Fields, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(fields.values[name])) for name in names if fields.values.get(name) not in (None, ""))


def _whole(rows: list[UsageRow] | list[CostRow]) -> tuple[Span, ...]:
    """From the first day to the last: the Console leaves out days without usage."""
    if not rows:
        return ()
    return ((min(row.start_ms for row in rows), max(row.end_ms for row in rows)),)
