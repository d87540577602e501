"""Calendar windows on days whose clocks change, in figures worked out by hand: bounds, resets, and money that crosses midnight."""

from datetime import datetime

import pytest

from store.config_store.shapes import budget_json
from store.ledger.types import Granted
from tests.store.ledger.till import Till

# (zone, window, quarter, an instant in it, start, end, hours). Offsets and dates are the zones' published rules:
# Berlin changes on 2026-03-29 and 2026-10-25, New York on 2026-03-08 and 2026-11-01, Lord Howe by half an hour on 2026-04-05 and
# 2026-10-04, and Samoa had no 30th of December 2011.
FIGURES = [
    ("Europe/Berlin", "1d", 1, "2026-03-29T20:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00", 23),
    ("Europe/Berlin", "1d", 1, "2026-10-25T20:00+01:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", 25),
    ("Europe/Berlin", "1w", 1, "2026-03-29T20:00+02:00", "2026-03-23T00:00+01:00", "2026-03-30T00:00+02:00", 167),
    ("Europe/Berlin", "1M", 1, "2026-03-01T00:00+01:00", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00", 31 * 24 - 1),
    ("Europe/Berlin", "1Q", 1, "2026-12-31T23:59+01:00", "2026-10-01T00:00+02:00", "2027-01-01T00:00+01:00", 92 * 24 + 1),
    ("Europe/Berlin", "1Y", 1, "2026-07-01T00:00+02:00", "2026-01-01T00:00+01:00", "2027-01-01T00:00+01:00", 8760),
    ("America/New_York", "1d", 1, "2026-03-08T12:00-04:00", "2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00", 23),
    ("America/New_York", "1d", 1, "2026-11-01T12:00-05:00", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00", 25),
    ("America/New_York", "1w", 1, "2026-11-01T12:00-05:00", "2026-10-26T00:00-04:00", "2026-11-02T00:00-05:00", 169),
    ("America/New_York", "1M", 1, "2026-11-30T23:59-05:00", "2026-11-01T00:00-04:00", "2026-12-01T00:00-05:00", 721),
    ("America/New_York", "1Q", 1, "2026-03-31T23:59-04:00", "2026-01-01T00:00-05:00", "2026-04-01T00:00-04:00", 90 * 24 - 1),
    ("America/New_York", "1Q", 2, "2026-03-31T23:59-04:00", "2026-02-01T00:00-05:00", "2026-05-01T00:00-04:00", 89 * 24 - 1),
    ("America/New_York", "1Y", 1, "2028-07-01T00:00-04:00", "2028-01-01T00:00-05:00", "2029-01-01T00:00-05:00", 366 * 24),
    ("Australia/Lord_Howe", "1d", 1, "2026-04-05T12:00+10:30", "2026-04-05T00:00+11:00", "2026-04-06T00:00+10:30", 24.5),
    ("Australia/Lord_Howe", "1d", 1, "2026-10-04T12:00+11:00", "2026-10-04T00:00+10:30", "2026-10-05T00:00+11:00", 23.5),
    ("Australia/Lord_Howe", "1w", 1, "2026-04-05T12:00+10:30", "2026-03-30T00:00+11:00", "2026-04-06T00:00+10:30", 168.5),
    ("Australia/Lord_Howe", "1M", 1, "2026-10-31T12:00+11:00", "2026-10-01T00:00+10:30", "2026-11-01T00:00+11:00", 743.5),
    ("Australia/Lord_Howe", "1Q", 1, "2026-05-05T12:00+10:30", "2026-04-01T00:00+11:00", "2026-07-01T00:00+10:30", 2184.5),
    ("Australia/Lord_Howe", "1Y", 1, "2026-05-05T12:00+10:30", "2026-01-01T00:00+11:00", "2027-01-01T00:00+11:00", 8760),
    ("Pacific/Apia", "1d", 1, "2011-12-29T23:59-10:00", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00", 24),
    ("Pacific/Apia", "1d", 1, "2011-12-31T00:00+14:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00", 24),
    ("Pacific/Apia", "1w", 1, "2011-12-31T12:00+14:00", "2011-12-26T00:00-10:00", "2012-01-02T00:00+14:00", 144),
    ("Pacific/Apia", "1M", 1, "2011-12-31T12:00+14:00", "2011-12-01T00:00-10:00", "2012-01-01T00:00+14:00", 720),
    ("Pacific/Apia", "1Q", 1, "2011-12-29T12:00-10:00", "2011-10-01T00:00-10:00", "2012-01-01T00:00+14:00", 91 * 24),
    ("Pacific/Apia", "1Y", 1, "2011-12-29T12:00-10:00", "2011-01-01T00:00-10:00", "2012-01-01T00:00+14:00", 364 * 24),
]  # fmt: skip


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def utc(text: str) -> str:
    """By hand: local time minus its offset, as the API writes it."""
    naive, sign, offset = text[:16], text[16], text[17:]
    hours, minutes = map(int, offset.split(":"))
    at = datetime.fromisoformat(naive).toordinal() * 1440 + int(naive[11:13]) * 60 + int(naive[14:16])
    at -= (hours * 60 + minutes) * (1 if sign == "+" else -1)
    day, minute = divmod(at, 1440)
    return f"{datetime.fromordinal(day):%Y-%m-%d}T{minute // 60:02d}:{minute % 60:02d}:00Z"


@pytest.mark.parametrize(("zone", "window", "quarter", "at", "start", "end", "hours"), FIGURES)
def test_bounds_and_resets_at(
    sqlite_till: Till, zone: str, window: str, quarter: int, at: str, start: str, end: str, hours: float
) -> None:
    till = sqlite_till
    till.clock.at_ms = ms(at)
    till.cap("a", 100, window, calendar_aligned=True, timezone=zone, quarter_start_month=quarter)
    state = till.state("a")
    shown = budget_json(state)

    assert (state.window_start_ms, state.resets_at_ms) == (ms(start), ms(end))
    assert (shown["last_reset"], shown["resets_at"]) == (utc(start), utc(end))
    assert ms(end) - ms(start) == hours * 3_600_000


@pytest.mark.parametrize(("zone", "window", "quarter", "at", "start", "end", "hours"), FIGURES)
def test_money_counts_up_to_the_last_millisecond_and_what_is_left_is_carried(
    sqlite_till: Till, zone: str, window: str, quarter: int, at: str, start: str, end: str, hours: float
) -> None:
    """30 of 100 are spent, half at the first and half at the last millisecond of the window; then 70 are carried."""
    till = sqlite_till
    till.clock.at_ms = ms(start)
    till.cap("a", 100, window, calendar_aligned=True, timezone=zone, quarter_start_month=quarter, carry_over=True)
    till.clock.at_ms = ms(start) - 1
    assert till.used("a") == 0
    till.clock.at_ms = ms(start)
    till.spend("first", "a", 15)
    till.clock.at_ms = ms(end) - 1
    till.spend("last", "a", 15)
    assert till.used("a") == 30
    till.clock.at_ms = ms(end)
    assert isinstance(till.hold("next", "a", 170), Granted)
    assert (till.state("a").used, till.state("a").carried, till.state("a").held) == (0, 70, 170)


def test_a_budget_without_a_window_never_resets(sqlite_till: Till) -> None:
    sqlite_till.cap("a", 100, None)
    assert budget_json(sqlite_till.state("a"))["resets_at"] is None
