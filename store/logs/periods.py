"""Spans of time cut into buckets and whole days: pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from store.errors import UserError

DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
DAILY_FROM_MS = 7 * DAY_MS
"""Spans of at least this length have buckets of whole days, which the daily sums can fill."""
MAX_BUCKETS = 1_000
_WIDTHS = (
    (365 * DAY_MS, 30 * DAY_MS),
    (90 * DAY_MS, 7 * DAY_MS),
    (31 * DAY_MS + 1, 3 * DAY_MS),
    (DAILY_FROM_MS, DAY_MS),
    (3 * DAY_MS, 8 * _HOUR_MS),
    (DAY_MS, _HOUR_MS),
    (2 * _HOUR_MS, 600_000),
)


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open time: from `start_ms` on, before `end_ms`."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        """Never negative."""
        return max(0, self.end_ms - self.start_ms)

    @property
    def bucket_ms(self) -> int:
        """How wide the buckets of a histogram over this time are: Bifrost's table."""
        return next((width for least, width in _WIDTHS if self.length_ms >= least), 60_000)

    @property
    def before(self) -> "Span":
        """The time of the same length that ends where this one starts."""
        return Span(self.start_ms - self.length_ms, self.start_ms)

    def buckets(self) -> range:
        """The starts of all buckets that touch this time; multiples of the width since 1970. Raises UserError for too many."""
        width_ms = self.bucket_ms
        found = range(self.start_ms // width_ms * width_ms, self.end_ms if self.length_ms else 0, width_ms)
        if len(found) > MAX_BUCKETS:
            raise UserError(f"start_time: the time asked for has {len(found)} buckets; ask for less than {MAX_BUCKETS}")
        return found if self.length_ms else range(0)

    def whole_days(self) -> "Span | None":
        """The UTC days that lie in this time as a whole; None when there are none."""
        first_ms, last_ms = -(-self.start_ms // DAY_MS) * DAY_MS, self.end_ms // DAY_MS * DAY_MS
        return Span(first_ms, last_ms) if first_ms < last_ms else None

    def days(self) -> Iterator["Span"]:
        """This time cut at every UTC midnight."""
        start_ms = self.start_ms
        while start_ms < self.end_ms:
            end_ms = min(self.end_ms, (start_ms // DAY_MS + 1) * DAY_MS)
            yield Span(start_ms, end_ms)
            start_ms = end_ms
