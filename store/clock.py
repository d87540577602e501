"""Time, ids and chance, handed to whoever needs them so that tests can hold them still."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards, for durations."""
        ...


class SystemClock:
    """The machine's own time."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


POOL_BYTES = 1000


class Ids:
    """Makes time-ordered unique ids (UUID version 7, RFC 9562 section 5.7).

    Ids of one process made within a millisecond still ascend: `rand_a` counts up from a random start, because an index over
    ordered keys is many times cheaper to append to than one over random keys.
    """

    def __init__(self, clock: Clock, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._entropy = entropy
        self._pool = b""
        self._last_ms = 0
        self._count = 0

    def new(self) -> str:
        """A fresh id, 36 characters, lower case."""
        now_ms = self._clock.now_ms()
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            self._count = int.from_bytes(self._random(2)) & 0x7FF
        else:
            self._count += 1
            if self._count > 0xFFF:
                self._last_ms += 1
                self._count = 0
        tail = int.from_bytes(self._random(8)) & ((1 << 62) - 1)
        number = (self._last_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | self._count << 64 | 0b10 << 62 | tail
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _random(self, count: int) -> bytes:
        """From a pool: asking the system for every id costs more than making it."""
        if len(self._pool) < count:
            self._pool = self._entropy(POOL_BYTES)
        taken, self._pool = self._pool[:count], self._pool[count:]
        return taken


def iso_utc(at_ms: int) -> str:
    """`2026-11-23T11:00:00Z`; milliseconds are shown only when there are any."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    if at_ms % 1000:
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def ms_from_iso(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time with a zone. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it like 2026-11-23T11:00:00Z")
    return round(moment.timestamp() * 1000)
