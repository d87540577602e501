"""What the routes of the logs answer: the shapes that the API's description shows, and how sums become them."""

from typing import NotRequired, TypedDict

from addons.console.api.answers import Money
from store.logs.histograms import LatencyPoint
from store.logs.sums import LogSums
from store.money import usd_from_nanos


class LogStats(TypedDict):
    """Sums over the calls that were asked for. Rates are percentages; latency is in milliseconds."""

    total_requests: int
    success_rate: float
    user_facing_success_rate: float
    user_facing_total_requests: int
    average_latency: float
    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    cached_read_tokens: int
    cached_write_tokens: int
    reasoning_tokens: int
    total_cost: Money
    success: int
    error: int
    cancelled: int
    refused: int
    other: int
    unpriced: int


class Counts(TypedDict):
    """Calls by how they ended; `other` were cut, or nobody knows."""

    count: int
    success: int
    error: int
    cancelled: int
    refused: int
    other: int


class Tokens(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_read_tokens: int
    cached_write_tokens: int
    reasoning_tokens: int


class Cost(TypedDict):
    total_cost: Money
    unpriced: int


class Latency(TypedDict):
    """Milliseconds, of calls that were not refused."""

    avg_latency: float
    p90_latency: int
    p95_latency: int
    p99_latency: int
    total_requests: int


class Throughput(TypedDict):
    """`tokens_per_second`: tokens that came out, by the time their calls took; null without calls."""

    requests_per_second: float
    tokens_per_second: float | None
    total_requests: int


class Trend(TypedDict):
    """Change against the time before, in percent; null where there was nothing before."""

    has_previous_period: bool
    requests_trend: float | None
    tokens_trend: float | None
    cost_trend: float | None
    latency_trend: float | None


class Ranking(TypedDict):
    """One place. `trend` is null where no time before is known."""

    total_requests: int
    success_count: int
    success_rate: float
    refused: int
    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    total_cost: Money
    avg_latency: float
    trend: Trend | None
    model: NotRequired[str]
    id: NotRequired[str]
    name: NotRequired[str]


def stats_json(sums: LogSums) -> LogStats:
    """The sums of a time."""
    rate = _percent(sums.succeeded, sums.calls)
    return {
        "total_requests": sums.calls,
        "success_rate": rate,
        "user_facing_success_rate": rate,
        "user_facing_total_requests": sums.calls,
        "average_latency": round(sums.average_latency_ms, 3),
        "total_tokens": sums.input_tokens + sums.output_tokens,
        "prompt_tokens": sums.input_tokens,
        "completion_tokens": sums.output_tokens,
        "cached_read_tokens": sums.cache_read_tokens,
        "cached_write_tokens": sums.cache_write_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "total_cost": usd_from_nanos(sums.cost_nanos),
        "success": sums.succeeded,
        "error": sums.failed,
        "cancelled": sums.cancelled,
        "refused": sums.refused,
        "other": sums.other,
        "unpriced": sums.unpriced,
    }


def counts_json(sums: LogSums) -> Counts:
    """Calls by how they ended."""
    return {
        "count": sums.calls,
        "success": sums.succeeded,
        "error": sums.failed,
        "cancelled": sums.cancelled,
        "refused": sums.refused,
        "other": sums.other,
    }


def tokens_json(sums: LogSums) -> Tokens:
    """Tokens in and out; cached and reasoning ones are parts of these."""
    return {
        "prompt_tokens": sums.input_tokens,
        "completion_tokens": sums.output_tokens,
        "total_tokens": sums.input_tokens + sums.output_tokens,
        "cached_read_tokens": sums.cache_read_tokens,
        "cached_write_tokens": sums.cache_write_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
    }


def cost_json(sums: LogSums) -> Cost:
    """Money, and how many calls had no known price."""
    return {"total_cost": usd_from_nanos(sums.cost_nanos), "unpriced": sums.unpriced}


def latency_json(point: LatencyPoint) -> Latency:
    """One point of latencies."""
    return {
        "avg_latency": round(point.average_ms, 3),
        "p90_latency": point.p90_ms,
        "p95_latency": point.p95_ms,
        "p99_latency": point.p99_ms,
        "total_requests": point.calls,
    }


def throughput_json(sums: LogSums, bucket_ms: int) -> Throughput:
    """How much went through in a bucket."""
    return {
        "requests_per_second": round(sums.calls * 1000 / bucket_ms, 6),
        "tokens_per_second": round(sums.output_tokens * 1000 / sums.latency_ms, 3) if sums.latency_ms > 0 else None,
        "total_requests": sums.calls,
    }


def ranking_json(sums: LogSums, before: LogSums | None) -> Ranking:
    """One place, without its name."""
    return {
        "total_requests": sums.calls,
        "success_count": sums.succeeded,
        "success_rate": _percent(sums.succeeded, sums.calls),
        "refused": sums.refused,
        "total_tokens": sums.input_tokens + sums.output_tokens,
        "prompt_tokens": sums.input_tokens,
        "completion_tokens": sums.output_tokens,
        "total_cost": usd_from_nanos(sums.cost_nanos),
        "avg_latency": round(sums.average_latency_ms, 3),
        "trend": None if before is None else _trend(sums, before),
    }


def _trend(sums: LogSums, before: LogSums) -> Trend:
    tokens, tokens_before = sums.input_tokens + sums.output_tokens, before.input_tokens + before.output_tokens
    return {
        "has_previous_period": before.calls > 0,
        "requests_trend": _change(sums.calls, before.calls),
        "tokens_trend": _change(tokens, tokens_before),
        "cost_trend": _change(sums.cost_nanos, before.cost_nanos),
        "latency_trend": _change(sums.average_latency_ms, before.average_latency_ms),
    }


def _change(now: float, before: float) -> float | None:
    return round((now - before) * 100 / before, 2) if before else None


def _percent(part: int, whole: int) -> float:
    return round(part * 100 / whole, 3) if whole else 0.0
