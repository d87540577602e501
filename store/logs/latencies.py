"""Latencies counted in steps, so that percentiles of long times need no calls: pure."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

_BITS = 4
_EXACT = 1 << (_BITS + 1)
"""Below this every millisecond is a step of its own."""


def step_of(latency_ms: int) -> int:
    """The step of a latency. Sixteen steps lie between a power of two and the next: none is wider than a sixteenth of its value.

    The scheme is that of HdrHistogram (Tene, 2012) with four significant bits.
    """
    if latency_ms < _EXACT:
        return max(0, latency_ms)
    shift = latency_ms.bit_length() - _BITS - 1
    return _EXACT + (shift - 1) * (1 << _BITS) + (latency_ms >> shift) - (1 << _BITS)


@lru_cache(4096)
def longest_in(step: int) -> int:
    """The longest latency that lies in a step, in milliseconds."""
    if step < _EXACT:
        return step
    shift, place = divmod(step - _EXACT, 1 << _BITS)
    return (((1 << _BITS) + place + 1) << (shift + 1)) - 1


def percentiles(counts: Iterable[tuple[int, int]], percents: Sequence[int] = (90, 95, 99)) -> tuple[int, ...]:
    """Nearest-rank percentiles of (value, how often) pairs: the smallest value that so many percent of all do not pass.

    Zeros when there are no values. The percents ascend.
    """
    ordered = sorted(counts)
    total = sum(count for _, count in ordered)
    found: list[int] = []
    passed = 0
    due = [-(-percent * total // 100) for percent in percents]
    for value, count in ordered:
        passed += count
        while due and passed >= due[0]:
            due.pop(0)
            found.append(value)
    return tuple(found) if total > 0 else (0,) * len(percents)
