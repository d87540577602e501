"""What the pretend provider charges: its own prices, its own arithmetic, and a line for every call it started."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars per token, each a whole number because list prices have at most three decimals per million."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    web_search: int = 0
    """Nano-dollars per search."""


_SEARCH = 10_000_000

# USD per million tokens times 1,000 is nano-dollars per token. Long-context tiers are left out: tests stay below them.
PRICES: dict[str, Price] = {
    "gpt-4o-mini": Price(150, 600, 75, 150, 150, _SEARCH),
    "gpt-4o": Price(2_500, 10_000, 1_250, 2_500, 2_500, _SEARCH),
    "gpt-5-mini": Price(250, 2_000, 25, 250, 250, _SEARCH),
    "text-embedding-3-small": Price(20, 0),
    "claude-haiku-4-5": Price(1_000, 5_000, 100, 1_250, 2_000, _SEARCH),
    "claude-sonnet-4-5": Price(3_000, 15_000, 300, 3_750, 6_000, _SEARCH),
    "claude-opus-4-5": Price(5_000, 25_000, 500, 6_250, 10_000, _SEARCH),
    "claude-opus-5": Price(5_000, 25_000, 500, 6_250, 10_000, _SEARCH),
    "claude-sonnet-5": Price(2_000, 10_000, 200, 2_500, 4_000, _SEARCH),
    "gemini-2.5-flash": Price(300, 2_500, 30),
    "gemini-2.5-pro": Price(1_250, 10_000, 125),
}

# What a provider answers as `model` when asked for the short name.
SNAPSHOTS: dict[str, str] = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
}
_SHORT_NAMES = {snapshot: name for name, snapshot in SNAPSHOTS.items()}


def price_of(model: str) -> Price | None:
    """The price of a model by its short or dated name; None when it has none, and then the call is billed at 0."""
    return PRICES.get(model) or PRICES.get(_SHORT_NAMES.get(model, ""))


@dataclass(slots=True)
class Counts:
    """What one call consumes: `input` is all that was read, caches included, `output` all that was written."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    """Five-minute cache writes only; the hour's are counted apart."""
    cache_write_1h: int = 0
    reasoning: int = 0
    tool: int = 0
    """Tool-use prompt tokens (Gemini), on top of `input`."""
    web_searches: int = 0

    def cost_nanos(self, price: Price | None) -> int:
        """The charge in nano-dollars; exact, nothing is rounded."""
        if price is None:
            return 0
        fresh = self.input - self.cache_read - self.cache_write - self.cache_write_1h + self.tool
        return (
            fresh * price.input
            + self.cache_read * price.cache_read
            + self.cache_write * price.cache_write
            + self.cache_write_1h * price.cache_write_1h
            + self.output * price.output
            + self.web_searches * price.web_search
        )


@dataclass(slots=True)
class Line:
    """One call on the bill, from the moment it started to generate."""

    id: str
    path: str
    model: str
    started_at_ms: int
    counts: Counts
    outcome: str = "running"
    """`running`, `finished`, `gone` (the caller left), `cut` (by the provider), `error` (told inside the stream)."""

    @property
    def finished(self) -> bool:
        return self.outcome == "finished"

    @property
    def cost_nanos(self) -> int:
        return self.counts.cost_nanos(price_of(self.model))

    def as_dict(self) -> dict[str, Any]:
        counts = self.counts
        started = datetime.fromtimestamp(self.started_at_ms / 1000, UTC)
        return {
            "id": self.id,
            "path": self.path,
            "model": self.model,
            "priced": price_of(self.model) is not None,
            "usage": {
                "input_tokens": counts.input + counts.tool,
                "output_tokens": counts.output,
                "cache_read_tokens": counts.cache_read,
                "cache_write_tokens": counts.cache_write,
                "cache_write_1h_tokens": counts.cache_write_1h,
                "reasoning_tokens": counts.reasoning,
                "tool_tokens": counts.tool,
                "web_searches": counts.web_searches,
            },
            "cost_nanos": self.cost_nanos,
            "finished": self.finished,
            "outcome": self.outcome,
            "started_at": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }


@dataclass(slots=True)
class Bill:
    """All lines of this run, kept in memory and, with a path, appended to a file as they change.

    The file holds JSON lines; the last line of an id is the valid one (`read_bill`). Each line is one write to the
    kernel, so it outlives a `kill -9` of this process and of any other.
    """

    path: Path | None = None
    lines: list[Line] = field(default_factory=list)
    _fd: int | None = None

    def start(self, line: Line) -> None:
        """Enter a call that goes on for a while: it is owed from now on."""
        self.lines.append(line)
        self._write(line)

    def close(self, line: Line, outcome: str) -> None:
        """Settle a call that was started."""
        line.outcome = outcome
        self._write(line)

    def add_finished(self, line: Line) -> None:
        """Enter a call that started and finished at once."""
        line.outcome = "finished"
        self.lines.append(line)
        self._write(line)

    def reset(self) -> None:
        """Forget the lines in memory; the file keeps what it has."""
        self.lines = []

    def release(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def as_dict(self, with_lines: bool = True) -> dict[str, Any]:
        """Sums over finished and unfinished calls, and the lines themselves."""
        summary = summarise(line.as_dict() for line in self.lines)
        if with_lines:
            summary["lines"] = [line.as_dict() for line in self.lines]
        return summary

    def _write(self, line: Line) -> None:
        if self.path is None:
            return
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(self._fd, orjson.dumps(line.as_dict()) + b"\n")


def summarise(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """`{calls, cost_nanos, finished: {calls, cost_nanos}, unfinished: {…}}` of lines as `Line.as_dict` makes them."""
    sums = {True: [0, 0], False: [0, 0]}
    for line in lines:
        sums[line["finished"]][0] += 1
        sums[line["finished"]][1] += line["cost_nanos"]
    return {
        "calls": sums[True][0] + sums[False][0],
        "cost_nanos": sums[True][1] + sums[False][1],
        "finished": {"calls": sums[True][0], "cost_nanos": sums[True][1]},
        "unfinished": {"calls": sums[False][0], "cost_nanos": sums[False][1]},
    }


def read_bill(path: Path) -> list[dict[str, Any]]:
    """The valid lines of a bill file in the order the calls started. A torn last line is left out."""
    latest: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return []
    for raw in path.read_bytes().splitlines():
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        latest[line["id"]] = line
    return list(latest.values())
