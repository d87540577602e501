"""Usage and cost exports as providers document them, written from a list of billed calls.

Made to check the program's readers, so nothing here is shared with them: shapes, spellings and arithmetic are this file's own.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from addons.pretend.bill import PRICES, SNAPSHOTS

Json = dict[str, Any]
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Billed:
    """One call on a provider's bill. `fresh` is input that was neither read from nor written to a cache."""

    at_ms: int
    model: str
    """As the provider lists it: the snapshot that answered."""
    fresh: int
    output: int
    cache_read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    searches: int = 0
    kind: str = "completions"
    tier: str = "default"
    key: str = "key_A"
    nanos: dict[str, int] = field(default_factory=dict)
    """Nano-dollars by class: fresh, cache_read, write_5m, write_1h, output, searches."""

    @property
    def second(self) -> int:
        return self.at_ms // 1000

    @property
    def all_input(self) -> int:
        return self.fresh + self.cache_read + self.write_5m + self.write_1h


def billed_of(lines: Iterable[Json], provider: str) -> list[Billed]:
    """The calls of one provider on the pretend provider's bill, priced at its own list."""
    return [_billed(line) for line in lines if _provider_of(line["path"]) == provider]


def _provider_of(path: str) -> str:
    if "/messages" in path:
        return "anthropic"
    return "gemini" if ":" in path else "openai"


def _billed(line: Json) -> Billed:
    usage, price = line["usage"], PRICES[line["model"]]
    written, written_1h, read = usage["cache_write_tokens"], usage["cache_write_1h_tokens"], usage["cache_read_tokens"]
    fresh = usage["input_tokens"] - read - written - written_1h
    nanos = {
        "fresh": fresh * price.input,
        "cache_read": read * price.cache_read,
        "write_5m": written * price.cache_write,
        "write_1h": written_1h * price.cache_write_1h,
        "output": usage["output_tokens"] * price.output,
        "searches": usage["web_searches"] * price.web_search,
    }
    if sum(nanos.values()) != line["cost_nanos"]:
        raise AssertionError("the parts of a bill's line do not add up to its cost")
    return Billed(
        at_ms=round(datetime.fromisoformat(line["started_at"]).timestamp() * 1000),
        model=SNAPSHOTS.get(str(line["model"]), str(line["model"])),
        fresh=fresh,
        output=usage["output_tokens"],
        cache_read=read,
        write_5m=written,
        write_1h=written_1h,
        searches=usage["web_searches"],
        kind="embeddings" if "embeddings" in line["path"] else "completions",
        nanos=nanos,
    )


# ---- OpenAI


def openai_usage(calls: Sequence[Billed], days: Sequence[str], *, kind: str = "completions", width: int = DAY_SECONDS,
                 page_size: int = 31, group_by: Sequence[str] = ("model",)) -> list[Json]:  # fmt: skip
    """Pages of `/v1/organization/usage/completions` (or embeddings)."""
    wanted = [call for call in calls if call.kind == kind]
    return _pages(_openai_buckets(days, width, wanted, lambda some: _openai_results(some, kind, group_by)), page_size, openai=True)


def openai_costs(calls: Sequence[Billed], days: Sequence[str], *, page_size: int = 31) -> list[Json]:
    """Pages of `/v1/organization/costs?group_by=line_item`."""
    return _pages(_openai_buckets(days, DAY_SECONDS, calls, _openai_amounts), page_size, openai=True)


def _openai_buckets(
    days: Sequence[str], width: int, calls: Sequence[Billed], results: Callable[[list[Billed]], list[Json]]
) -> list[Json]:
    return [
        {
            "object": "bucket",
            "start_time": start,
            "end_time": start + width,
            "results": results([call for call in calls if start <= call.second < start + width]),
        }
        for day in days
        for start in range(unix(day), unix(day) + DAY_SECONDS, width)
    ]


def _openai_results(calls: list[Billed], kind: str, group_by: Sequence[str]) -> list[Json]:
    groups: defaultdict[tuple[str | None, ...], list[Billed]] = defaultdict(list)
    for call in calls:
        values = {"model": call.model, "service_tier": call.tier, "api_key_id": call.key, "batch": call.tier == "batch"}
        groups[tuple(str(values[name]) if name in group_by else None for name in values)].append(call)
    made: list[Json] = []
    for (model, tier, key, batch), some in groups.items():
        result: Json = {"object": f"organization.usage.{kind}.result", "input_tokens": sum(call.all_input for call in some)}
        if kind == "completions":
            result |= {
                "output_tokens": sum(call.output for call in some),
                "input_cached_tokens": sum(call.cache_read for call in some),
                "input_cache_write_tokens": sum(call.write_5m + call.write_1h for call in some),
                "input_uncached_tokens": sum(call.fresh for call in some),
                "input_audio_tokens": 0,
                "output_audio_tokens": 0,
            }
        result |= {"num_model_requests": len(some), "project_id": None, "user_id": None, "api_key_id": key, "model": model}
        if kind == "completions":
            result |= {"batch": None if batch is None else batch == "True", "service_tier": tier}
        made.append(result)
    return made


_OPENAI_WORDS = {"fresh": "input", "cache_read": "cached input", "write_5m": "cache write", "output": "output"}


def _openai_amounts(calls: list[Billed]) -> list[Json]:
    sums: defaultdict[str, int] = defaultdict(int)
    for call in calls:
        for name, nanos in call.nanos.items():
            if name == "searches":
                sums["web search tool calls"] += nanos
            else:
                sums[f"{call.model}, {_OPENAI_WORDS.get(name, name)}"] += nanos
    return [
        {
            "object": "organization.costs.result",
            "amount": {"value": nanos / 10**9, "currency": "usd"},
            "line_item": item,
            "project_id": None,
            "organization_id": "org-made-up",
        }
        for item, nanos in sums.items()
        if nanos
    ]


def openai_usage_csv(calls: Sequence[Billed], days: Sequence[str]) -> str:
    """The dashboard's export of completions: daily buckets by model, a line of blanks for a day without calls."""
    columns = [
        "start_time", "end_time", "start_time_iso", "end_time_iso", "project_id", "num_model_requests", "user_id", "api_key_id",
        "model", "batch", "service_tier", "input_tokens", "output_tokens", "input_cached_tokens", "input_uncached_tokens",
    ]  # fmt: skip
    lines: list[list[object]] = []
    for day in days:
        head = _csv_times(day)
        groups: defaultdict[str, list[Billed]] = defaultdict(list)
        for call in calls:
            if day_of(call) == day and call.kind == "completions":
                groups[call.model].append(call)
        lines += [
            [
                *head, "proj_made_up", f"{len(some)}.0", "user-made-up", "key_A", model, "False", "default",
                f"{sum(call.all_input for call in some)}.0", f"{sum(call.output for call in some)}.0",
                f"{sum(call.cache_read for call in some)}.0", f"{sum(call.fresh for call in some)}.0",
            ]
            for model, some in groups.items()
        ] or [[*head, *[""] * (len(columns) - 4)]]  # fmt: skip
    return _csv(columns, lines)


def openai_costs_csv(calls: Sequence[Billed], days: Sequence[str]) -> str:
    """The dashboard's export of costs by line item."""
    columns = [
        "start_time", "end_time", "start_time_iso", "end_time_iso", "amount_value", "amount_currency", "line_item", "project_id",
        "organization_id", "organization_name",
    ]  # fmt: skip
    lines: list[list[object]] = []
    for day in days:
        amounts = _openai_amounts([call for call in calls if day_of(call) == day])
        head = _csv_times(day)
        lines += [
            [*head, f"{amount['amount']['value']:.16f}", "usd", amount["line_item"], "", "org-made-up", "Made up"]
            for amount in amounts
        ] or [[*head, *[""] * 6]]
    return _csv(columns, lines)


def _csv_times(day: str) -> list[object]:
    start = unix(day)
    return [start, start + DAY_SECONDS, *(datetime.fromtimestamp(at, UTC).isoformat() for at in (start, start + DAY_SECONDS))]


# ---- Anthropic


def anthropic_usage(calls: Sequence[Billed], days: Sequence[str], *, width: int = DAY_SECONDS, page_size: int = 31,
                    group_by: Sequence[str] = ("model",)) -> list[Json]:  # fmt: skip
    """Pages of `/v1/organizations/usage_report/messages`."""
    buckets = _anthropic_buckets(days, width, calls, lambda some: _anthropic_results(some, group_by))
    return _pages(buckets, page_size, openai=False)


def anthropic_costs(calls: Sequence[Billed], days: Sequence[str], *, page_size: int = 31) -> list[Json]:
    """Pages of `/v1/organizations/cost_report?group_by[]=description`."""
    return _pages(_anthropic_buckets(days, DAY_SECONDS, calls, _anthropic_amounts), page_size, openai=False)


def _anthropic_buckets(
    days: Sequence[str], width: int, calls: Sequence[Billed], results: Callable[[list[Billed]], list[Json]]
) -> list[Json]:
    return [
        {
            "starting_at": _rfc3339(start),
            "ending_at": _rfc3339(start + width),
            "results": results([call for call in calls if start <= call.second < start + width]),
        }
        for day in days
        for start in range(unix(day), unix(day) + DAY_SECONDS, width)
    ]


def _anthropic_results(calls: list[Billed], group_by: Sequence[str]) -> list[Json]:
    groups: defaultdict[tuple[str | None, str | None], list[Billed]] = defaultdict(list)
    for call in calls:
        model = call.model if "model" in group_by else None
        groups[model, call.tier if "service_tier" in group_by else None].append(call)
    return [
        {
            "uncached_input_tokens": sum(call.fresh for call in some),
            "cache_creation": {
                "ephemeral_1h_input_tokens": sum(call.write_1h for call in some),
                "ephemeral_5m_input_tokens": sum(call.write_5m for call in some),
            },
            "cache_read_input_tokens": sum(call.cache_read for call in some),
            "output_tokens": sum(call.output for call in some),
            "server_tool_use": {"web_search_requests": sum(call.searches for call in some)},
            "api_key_id": None,
            "workspace_id": None,
            "model": model,
            "service_tier": "standard" if tier == "default" else tier,
            "context_window": None,
        }
        for (model, tier), some in groups.items()
    ]


_ANTHROPIC_TYPES = {
    "fresh": ("Input Tokens", "uncached_input_tokens"),
    "cache_read": ("Input Tokens, Cache Hit", "cache_read_input_tokens"),
    "write_5m": ("Input Tokens, Cache Write (5m)", "cache_creation.ephemeral_5m_input_tokens"),
    "write_1h": ("Input Tokens, Cache Write (1h)", "cache_creation.ephemeral_1h_input_tokens"),
    "output": ("Output Tokens", "output_tokens"),
}


def _anthropic_amounts(calls: list[Billed]) -> list[Json]:
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for call in calls:
        for name, nanos in call.nanos.items():
            sums[("" if name == "searches" else call.model), name] += nanos
    return [
        {
            "currency": "USD",
            "amount": _cents(nanos),
            "workspace_id": None,
            "description": f"{model} Usage - {_ANTHROPIC_TYPES[name][0]}" if model else "Web Search Usage",
            "cost_type": "tokens" if model else "web_search",
            "context_window": "0-200k" if model else None,
            "model": model or None,
            "service_tier": "standard" if model else None,
            "token_type": _ANTHROPIC_TYPES[name][1] if model else None,
        }
        for (model, name), nanos in sums.items()
        if nanos
    ]


def _cents(nanos: int) -> str:
    whole, rest = divmod(nanos, 10**7)
    return f"{whole}.{rest:07d}"


def console_usage_csv(calls: Sequence[Billed], days: Sequence[str]) -> str:
    """The Console's usage export: one line for each day, model and key that has any."""
    columns = [
        "usage_date_utc", "model_version", "api_key", "workspace", "usage_type", "context_window", "usage_input_tokens_no_cache",
        "usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_read",
        "usage_output_tokens", "web_search_count", "inference_geo", "speed",
    ]  # fmt: skip
    groups: defaultdict[tuple[str, str, str], list[Billed]] = defaultdict(list)
    for call in calls:
        if day_of(call) in days:
            groups[day_of(call), call.model, call.key].append(call)
    lines: list[list[object]] = [
        [
            day, model, key, "Default", "standard", "≤ 200k", sum(call.fresh for call in some), sum(call.write_5m for call in some),
            sum(call.write_1h for call in some), sum(call.cache_read for call in some), sum(call.output for call in some),
            sum(call.searches for call in some), "not_available", "",
        ]
        for (day, model, key), some in sorted(groups.items())
    ]  # fmt: skip
    return _csv(columns, lines)


def console_costs_csv(calls: Sequence[Billed], days: Sequence[str], shown: dict[str, str]) -> str:
    """The Console's cost export: amounts rounded to the cent, models by the name people know (`shown`)."""
    columns = [
        "usage_date_utc", "model", "workspace", "api_key", "usage_type", "context_window", "token_type", "cost_usd",
        "list_price_usd", "cost_type", "inference_geo", "speed",
    ]  # fmt: skip
    words = {
        "fresh": "input_no_cache", "cache_read": "input_cache_read", "write_5m": "input_cache_write_5m",
        "write_1h": "input_cache_write_1h", "output": "output",
    }  # fmt: skip
    sums: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for call in calls:
        for name, nanos in call.nanos.items():
            if name in words and nanos and day_of(call) in days:
                sums[day_of(call), call.model, words[name]] += nanos
    lines: list[list[object]] = []
    for (day, model, word), nanos in sorted(sums.items()):
        cents = (nanos + 5_000_000) // 10_000_000
        usd = f"{cents // 100}.{cents % 100:02d}"
        lines.append([day, shown[model], "Default", "key_A", "message", "≤ 200k", word, usd, usd, "token", "not_available", ""])
    return _csv(columns, lines)


# ---- common


def unix(day: str) -> int:
    """The Unix second at which a UTC day begins."""
    return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())


def second_of(text: str) -> int:
    """The Unix second of an RFC 3339 time."""
    return int(datetime.fromisoformat(text).timestamp())


def day_text(second: int) -> str:
    """The UTC day of a Unix second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d")


def day_of(call: Billed) -> str:
    return day_text(call.second)


def _rfc3339(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pages(buckets: list[Json], page_size: int, *, openai: bool) -> list[Json]:
    pieces = [buckets[start : start + page_size] for start in range(0, len(buckets), page_size)]
    return [
        {
            **({"object": "page"} if openai else {}),
            "data": piece,
            "has_more": number < len(pieces),
            "next_page": f"page_{number + 1}" if number < len(pieces) else None,
        }
        for number, piece in enumerate(pieces, 1)
    ]


def _csv(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue()
