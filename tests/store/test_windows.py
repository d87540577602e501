"""Windows: durations as text, rolling lattices, calendar periods in time zones with odd midnights."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ledger.types import Cap, Scope, Unit
from store.windows import check_window, parse_duration, window_at

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def cap(window: str | None, *, aligned: bool = False, timezone: str = "UTC", created_ms: int = 0, quarter: int = 1) -> Cap:
    return Cap(
        "c", "c", Scope.TEAM, "t", "t", Unit.USD, 1, window, aligned, timezone, quarter_start_month=quarter, created_ms=created_ms
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1_800),
        ("1h", 3_600),
        ("7d", 604_800),
        ("1w", 604_800),
        ("1M", 2_592_000),
        ("1Q", 7_776_000),
        ("1Y", 31_536_000),
        ("1h30m", 5_400),
        ("1h0m0s", 3_600),
        ("1m500ms", 60.5),
        (" 24h ", 86_400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text).ms == seconds * 1000


@pytest.mark.parametrize(
    "text", ["", "  ", "1", "h", "1 h", "-1h", "+1h", "1.5h", "1x", "0s", "0h0m", "1h-", "500ms", "1H", "200Y", "٣h", None, 5]
)
def test_bad_durations_say_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 30m"):
        parse_duration(text)


def test_a_rolling_window_steps_from_the_creation() -> None:
    created = ms("2026-01-01T10:17:00+00:00")
    hourly = cap("1h", created_ms=created)

    assert window_at(hourly, created) == (created, created + HOUR_MS)
    assert window_at(hourly, created + HOUR_MS - 1) == (created, created + HOUR_MS)
    assert window_at(hourly, created + HOUR_MS) == (created + HOUR_MS, created + 2 * HOUR_MS)
    assert window_at(hourly, created + 50 * HOUR_MS + 5) == (created + 50 * HOUR_MS, created + 51 * HOUR_MS)
    assert window_at(hourly, created - 1) == (created - HOUR_MS, created)


def test_no_window() -> None:
    assert window_at(cap(None), 5) is None


@pytest.mark.parametrize(
    ("window", "at", "start", "end", "timezone", "quarter"),
    [
        ("1d", "2026-11-23T13:00:00+00:00", "2026-11-23T00:00:00+00:00", "2026-11-24T00:00:00+00:00", "UTC", 1),
        ("1w", "2026-11-29T23:59:59+00:00", "2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00", "UTC", 1),
        ("7d", "2026-11-25T00:00:00+00:00", "2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00", "UTC", 1),
        ("1M", "2028-02-29T12:00:00+00:00", "2028-02-01T00:00:00+00:00", "2028-03-01T00:00:00+00:00", "UTC", 1),
        ("1Q", "2026-11-23T00:00:00+00:00", "2026-10-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00", "UTC", 1),
        ("1Q", "2026-01-15T00:00:00+00:00", "2025-11-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", "UTC", 2),
        ("1Q", "2026-12-31T00:00:00+00:00", "2026-12-01T00:00:00+00:00", "2027-03-01T00:00:00+00:00", "UTC", 12),
        ("1Y", "2026-11-23T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00", "UTC", 1),
        # 23 and 25 hours long: the days the clocks change in Berlin
        ("1d", "2026-03-29T12:00:00+02:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "Europe/Berlin", 1),
        ("1d", "2026-10-25T12:00:00+01:00", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", "Europe/Berlin", 1),
        # midnight does not exist in Cairo on this day: it begins at 01:00
        ("1d", "2024-04-26T12:00:00+03:00", "2024-04-26T01:00:00+03:00", "2024-04-27T00:00:00+03:00", "Africa/Cairo", 1),
        # midnight comes twice in Havana on this day: it begins with the first one
        ("1d", "2024-11-03T12:00:00-05:00", "2024-11-03T00:00:00-04:00", "2024-11-04T00:00:00-05:00", "America/Havana", 1),
        # a day that Samoa left out
        ("1d", "2011-12-29T12:00:00-10:00", "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "Pacific/Apia", 1),
        ("1M", "2026-11-30T23:30:00+00:00", "2026-12-01T00:00:00+01:00", "2027-01-01T00:00:00+01:00", "Europe/Berlin", 1),
    ],
)
def test_calendar_windows(window: str, at: str, start: str, end: str, timezone: str, quarter: int) -> None:
    aligned = cap(window, aligned=True, timezone=timezone, quarter=quarter)

    assert window_at(aligned, ms(at)) == (ms(start), ms(end))


def test_the_last_millisecond_belongs_to_the_old_day() -> None:
    aligned = cap("1d", aligned=True)
    midnight = ms("2026-11-24T00:00:00+00:00")

    assert window_at(aligned, midnight - 1) == (midnight - DAY_MS, midnight)
    assert window_at(aligned, midnight) == (midnight, midnight + DAY_MS)


@pytest.mark.parametrize(
    ("window", "extra", "words"),
    [
        ("1h", {"calendar_aligned": True}, "too short"),
        ("23h59m", {"calendar_aligned": True}, "too short"),
        ("24h", {"calendar_aligned": True}, "no calendar period"),
        ("3d", {"calendar_aligned": True}, "no calendar period"),
        (None, {"calendar_aligned": True}, "without a window"),
        ("1d", {"calendar_aligned": True, "timezone": "Mars/Olympus"}, "time zone"),
        ("1d", {"calendar_aligned": True, "timezone": "../../etc/passwd"}, "time zone"),
        ("1Q", {"quarter_start_month": 13}, "quarter_start_month"),
        ("1Q", {"quarter_start_month": 0}, "quarter_start_month"),
    ],
)
def test_bad_windows(window: str | None, extra: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_window(window, **extra)


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Africa/Cairo",
    "America/Havana",
    "Pacific/Apia",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
]


@given(
    at_ms=st.integers(ms("1990-01-01T00:00:00+00:00"), ms("2090-01-01T00:00:00+00:00")),
    window=st.sampled_from(["1d", "1w", "1M", "1Q", "1Y"]),
    zone=st.sampled_from(ZONES),
    quarter=st.integers(1, 12),
)
def test_calendar_windows_touch_and_hold_their_instant(at_ms: int, window: str, zone: str, quarter: int) -> None:
    aligned = cap(window, aligned=True, timezone=zone, quarter=quarter)
    bounds = window_at(aligned, at_ms)

    assert bounds is not None
    start_ms, end_ms = bounds
    assert start_ms <= at_ms < end_ms
    assert window_at(aligned, start_ms) == bounds
    assert window_at(aligned, end_ms - 1) == bounds
    following = window_at(aligned, end_ms)
    assert following is not None and following[0] == end_ms
    first = datetime.fromtimestamp(start_ms // 1000, ZoneInfo(zone))
    before = datetime.fromtimestamp(start_ms // 1000, UTC) - timedelta(seconds=1)
    assert first.date() > before.astimezone(ZoneInfo(zone)).date(), "a window starts with a new day"


@given(
    at_ms=st.integers(0, 2**42), created_ms=st.integers(0, 2**42), text=st.sampled_from(["1s", "90s", "1h", "7d", "1M", "1h30m"])
)
def test_rolling_windows_touch_and_hold_their_instant(at_ms: int, created_ms: int, text: str) -> None:
    rolling = cap(text, created_ms=created_ms)
    bounds = window_at(rolling, at_ms)

    assert bounds is not None
    assert bounds[0] <= at_ms < bounds[1]
    assert bounds[1] - bounds[0] == parse_duration(text).ms
    assert (bounds[0] - created_ms) % parse_duration(text).ms == 0
