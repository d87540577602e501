"""Sums over calls: which are made, the SQL that makes them of calls or of daily sums, and adding them up exactly."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

_LOW_BITS = 0xFFFF_FFFF


@dataclass(slots=True)
class LogSums:
    """Sums over a set of calls. Money in nano-dollars, exact."""

    calls: int = 0
    """Refusals that share a row are counted one by one."""
    succeeded: int = 0
    refused: int = 0
    failed: int = 0
    """`error`: the provider's fault."""
    cancelled: int = 0
    """The client left."""
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    timed: int = 0
    """Calls that were not refused, whose latency is in `latency_ms`."""
    latency_ms: int = 0
    cost_nanos: int = 0

    @property
    def average_latency_ms(self) -> float:
        """Over calls that were not refused; 0 when there are none."""
        return self.latency_ms / self.timed if self.timed else 0.0

    @property
    def other(self) -> int:
        """Calls that were cut, or of which nobody knows how they went."""
        return self.calls - self.succeeded - self.refused - self.failed - self.cancelled

    def add(self, other: "LogSums") -> None:
        """Takes in the sums of another set."""
        # Written out: reports add thousands of sums, and a loop over names takes three times as long.
        self.calls += other.calls
        self.succeeded += other.succeeded
        self.refused += other.refused
        self.failed += other.failed
        self.cancelled += other.cancelled
        self.unpriced += other.unpriced
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.timed += other.timed
        self.latency_ms += other.latency_ms
        self.cost_nanos += other.cost_nanos


SUM_FIELDS = tuple(field.name for field in fields(LogSums))
"""In their order; the last is the cost."""
_OF_CALLS = {
    "calls": "sum(count)",
    "succeeded": "sum(count) FILTER (WHERE status = 'success')",
    "refused": "sum(count) FILTER (WHERE status = 'refused')",
    "failed": "sum(count) FILTER (WHERE status = 'error')",
    "cancelled": "sum(count) FILTER (WHERE status = 'cancelled')",
    "unpriced": "sum(count) FILTER (WHERE priced = 0 AND status <> 'refused')",
    "timed": "sum(count) FILTER (WHERE status <> 'refused')",
    "latency_ms": "sum(latency_ms) FILTER (WHERE status <> 'refused')",
}
_OF_DAYS = {"calls": "sum(calls) + sum(refused)"}


def exact(column: str) -> str:
    """Two partial sums that cannot overflow 64 bits; `joined` puts them together in Python's unbounded integers."""
    return f"coalesce(sum({column} >> 32), 0), coalesce(sum({column} & {_LOW_BITS}), 0)"


def joined(high: int, low: int) -> int:
    """The sum of `exact`'s two columns."""
    return (int(high) << 32) + int(low)


def _columns(special: dict[str, str]) -> str:
    plain = (f"coalesce({special.get(name, f'sum({name})')}, 0)" for name in SUM_FIELDS[:-1])
    return ", ".join((*plain, exact("cost_nanos")))


OF_CALLS = _columns(_OF_CALLS)
"""The columns to select from `calls` for `sums_of`."""
OF_DAYS = _columns(_OF_DAYS)
"""The columns to select from `daily_costs` or `total_sums` for `sums_of`."""


def sums_of(row: Sequence[Any]) -> LogSums:
    """Sums from the columns of `OF_CALLS` or `OF_DAYS`."""
    values = (*map(int, row[:-2]), joined(row[-2], row[-1]))
    return LogSums(*values)
