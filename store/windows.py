"""When a cap's window starts and ends: rolling lattices and calendar periods, as pure functions of the cap and an instant."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from store.ledger.types import Cap

MS_PER_SECOND = 1_000
MS_PER_DAY = 86_400_000
MAX_DURATION_MS = 100 * 366 * MS_PER_DAY

_UNIT_MS = {
    "ms": 1,
    "s": MS_PER_SECOND,
    "m": 60 * MS_PER_SECOND,
    "h": 3_600 * MS_PER_SECOND,
    "d": MS_PER_DAY,
    "w": 7 * MS_PER_DAY,
    "M": 30 * MS_PER_DAY,
    "Q": 90 * MS_PER_DAY,
    "Y": 365 * MS_PER_DAY,
}
_PART = re.compile(r"([0-9]{1,12})(ms|[smhdwMQY])")
_EXAMPLES = "write it like 30m, 1h, 7d, 1w, 1M, 1Q or 1Y"
_CALENDAR_DAYS = {"d": "day", "w": "week", "M": "month", "Q": "quarter", "Y": "year"}


@dataclass(frozen=True, slots=True)
class Duration:
    """A window's length. `unit` and `count` are set when the text was one number and one unit, else `unit` is empty."""

    text: str
    ms: int
    unit: str = ""
    count: int = 0

    @property
    def calendar_period(self) -> str | None:
        """`day`, `week`, `month`, `quarter` or `year` when the duration is exactly one of them; else None."""
        if self.unit == "d" and self.count == 7:
            return "week"
        return _CALENDAR_DAYS.get(self.unit) if self.count == 1 else None


@dataclass(frozen=True, slots=True)
class Window:
    """A checked window: its length, and whether it follows the calendar of a time zone."""

    duration: Duration
    calendar_aligned: bool = False
    timezone: str = "UTC"
    quarter_start_month: int = 1

    def at(self, at_ms: int, created_ms: int) -> tuple[int, int]:
        """The half-open period (start_ms, end_ms) that holds `at_ms`; `created_ms` anchors the rolling lattice."""
        if not self.calendar_aligned:
            length_ms = self.duration.ms
            start_ms = created_ms + (at_ms - created_ms) // length_ms * length_ms
            return start_ms, start_ms + length_ms
        zone = _zone(self.timezone)
        period = self.duration.calendar_period or "day"
        first = _period_start(_local_date(at_ms, zone), period, self.quarter_start_month)
        return _midnight_ms(first, zone), _midnight_ms(_period_after(first, period), zone)


def parse_duration(text: str) -> Duration:
    """The length of `30m`, `1h`, `7d`, `1w`, `1M` (30 days), `1Q` (90), `1Y` (365) or `1h30m`. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"a duration is text; {_EXAMPLES}")
    return _parse(text)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Duration:
    stripped = text.strip()
    parts: list[tuple[int, str]] = []
    position = 0
    while position < len(stripped):
        match = _PART.match(stripped, position)
        if match is None:
            raise ValueError(f"{text!r} is not a duration; {_EXAMPLES}")
        parts.append((int(match[1]), match[2]))
        position = match.end()
    if not parts:
        raise ValueError(f"a duration is missing; {_EXAMPLES}")
    total_ms = sum(count * _UNIT_MS[unit] for count, unit in parts)
    if total_ms < MS_PER_SECOND:
        raise ValueError(f"the duration {text!r} is shorter than a second; {_EXAMPLES}")
    if total_ms > MAX_DURATION_MS:
        raise ValueError(f"the duration {text!r} is longer than a hundred years; {_EXAMPLES}")
    count, unit = parts[0] if len(parts) == 1 else (0, "")
    return Duration(text=stripped, ms=total_ms, unit=unit, count=count)


@lru_cache(maxsize=4096)
def check_window(
    window: str | None, *, calendar_aligned: bool = False, timezone: str = "UTC", quarter_start_month: int = 1
) -> Window | None:
    """The checked window of a cap; None for none. Raises ValueError with a sentence that says what to write instead."""
    if not 1 <= quarter_start_month <= 12:
        raise ValueError(f"quarter_start_month is a month from 1 to 12, not {quarter_start_month}")
    if window is None:
        if calendar_aligned:
            raise ValueError("a cap without a window cannot be calendar aligned; give it one of 1d, 1w, 1M, 1Q or 1Y")
        return None
    duration = parse_duration(window)
    if calendar_aligned:
        if duration.ms < MS_PER_DAY:
            raise ValueError(f"a window of {window} is too short to be calendar aligned; use at least 1d")
        if duration.calendar_period is None:
            raise ValueError(f"a window of {window} matches no calendar period; calendar aligned caps take 1d, 1w, 1M, 1Q or 1Y")
        _zone(timezone)
    return Window(duration, calendar_aligned, timezone or "UTC", quarter_start_month)


def window_of(cap: Cap) -> Window | None:
    """The cap's window, checked; None for none. Raises ValueError."""
    return check_window(
        cap.window,
        calendar_aligned=cap.calendar_aligned,
        timezone=cap.timezone,
        quarter_start_month=cap.quarter_start_month,
    )


def window_at(cap: Cap, at_ms: int) -> tuple[int, int] | None:
    """The half-open period (start_ms, end_ms) of the cap's window at `at_ms`; None when the cap has no window."""
    window = window_of(cap)
    return None if window is None else window.at(at_ms, cap.created_ms)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone this machine knows; write it like Europe/Berlin or UTC") from None


def _local_date(at_ms: int, zone: ZoneInfo) -> date:
    # Whole seconds only: a float of milliseconds would round the last instant of a day into the next.
    return datetime.fromtimestamp(at_ms // 1000, zone).date()


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    # fold=0 is right in both odd cases: of a midnight that comes twice it is the first, and for one that is skipped it uses the
    # offset before the jump, which gives the instant of the jump: the first moment of that day.
    local = datetime(day.year, day.month, day.day, tzinfo=zone, fold=0)
    return int(local.astimezone(UTC).timestamp()) * 1000


def _period_start(day: date, period: str, quarter_start_month: int) -> date:
    if period == "week":
        return day - timedelta(days=day.weekday())
    if period == "month":
        return day.replace(day=1)
    if period == "quarter":
        months_in = (day.month - quarter_start_month) % 3
        return _plus_months(day.replace(day=1), -months_in)
    if period == "year":
        return day.replace(month=1, day=1)
    return day


def _period_after(first: date, period: str) -> date:
    if period == "week":
        return first + timedelta(days=7)
    if period == "month":
        return _plus_months(first, 1)
    if period == "quarter":
        return _plus_months(first, 3)
    if period == "year":
        return first.replace(year=first.year + 1)
    return first + timedelta(days=1)


def _plus_months(first: date, months: int) -> date:
    index = first.year * 12 + first.month - 1 + months
    return first.replace(year=index // 12, month=index % 12 + 1)
