"""When windows begin and end, worked out without the store: by counting lengths, or by asking the zone what day it is."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

HOUR_MS = 3_600_000
LENGTHS_MS = {"1m": 60_000, "10m": 600_000, "1h": HOUR_MS, "6h": 6 * HOUR_MS, "1d": 24 * HOUR_MS, "7d": 168 * HOUR_MS}
LENGTHS_MS["1M"] = 30 * 24 * HOUR_MS

Period = tuple[int, int]
"""(first ms, first ms after)."""
ALL_TIME: Period = (-(2**62), 2**62)


@dataclass(frozen=True)
class Lattice:
    """A cap's window: rolling from `created_ms`, a calendar period in a zone, or none at all."""

    window: str | None
    zone: str | None = None
    """None: rolling."""
    created_ms: int = 0

    def period(self, at_ms: int) -> Period:
        """The period that holds this instant."""
        if self.window is None:
            return ALL_TIME
        if self.zone is None:
            length = LENGTHS_MS[self.window]
            start = at_ms - (at_ms - self.created_ms) % length
            return start, start + length
        return _calendar(self.window, self.zone, at_ms)


_remembered: dict[tuple[str, str], list[Period]] = {}


def _calendar(window: str, zone: str, at_ms: int) -> Period:
    known = _remembered.setdefault((window, zone), [])
    for period in known:
        if period[0] <= at_ms < period[1]:
            return period
    place = ZoneInfo(zone)
    first = _first_day(window, _day(at_ms, place))
    after = _first_day(window, first + timedelta(days={"1d": 1, "7d": 7, "1M": 31}[window]))
    period = _first_instant(first, place), _first_instant(after, place)
    known.append(period)
    return period


def _first_day(window: str, day: date) -> date:
    """The first day of the period that a day is in."""
    while window == "7d" and day.isoweekday() != 1:
        day -= timedelta(days=1)
    while window == "1M" and day.day != 1:
        day -= timedelta(days=1)
    return day


def _day(at_ms: int, place: ZoneInfo) -> date:
    return datetime.fromtimestamp(at_ms // 1000, place).date()


def _first_instant(day: date, place: ZoneInfo) -> int:
    """The first whole second, in ms, at which it is this day there (or a later one, where the day was left out)."""
    guess = int((datetime(day.year, day.month, day.day) - datetime(1970, 1, 1)).total_seconds())
    return 1000 * _first(guess - 30 * 3600, guess + 30 * 3600, lambda second: _day(second * 1000, place) >= day)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least number in (low, high] for which it holds; it holds from there on."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
