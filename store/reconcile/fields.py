"""Single values of an export, checked: counts, amounts of money, instants. Every complaint names file, place and field."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from store.clock import iso_utc, ms_from_iso
from store.errors import UserError
from store.money import MAX_NANOS, NANOS_PER_USD
from store.reconcile.types import DAY_MS, Span

_MOST_TOKENS = 2**63 - 1
_LARGEST_EXPONENT = 20
_MOST_DIGITS = 80
_NUMBER = re.compile(r"[+-]?[0-9]{1,80}(\.[0-9]{0,80})?([eE][+-]?[0-9]{1,3})?")
_LAST_SECOND = 253_402_300_800
"""The year 10000."""
_SHOWN = 60


class Fields:
    """The values of one object or one line."""

    __slots__ = ("place", "values")

    def __init__(self, values: Any, place: str) -> None:
        """Raises UserError when `values` is no object."""
        if not isinstance(values, Mapping):
            raise UserError(f"{place}: expected an object, not {shown(values)}")
        self.values = values
        self.place = place

    def text(self, name: str) -> str:
        """The text of a field; empty when it is missing or null. Raises UserError for anything else."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def count(self, name: str) -> int | None:
        """A whole number that is not negative; None when it is missing, null or blank. Raises UserError."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        number = decimal_of(value)
        if number is None or number != int(number) or not 0 <= number <= _MOST_TOKENS:
            raise self.wrong(name, "a whole number")
        return int(number)

    def needed_count(self, name: str) -> int:
        """As `count`, for a field without which a result means nothing."""
        found = self.count(name)
        if found is None:
            raise UserError(f"{self.place}: {name} is missing")
        return found

    def part(self, name: str) -> "Fields | None":
        """The object in a field; None when it is missing or null."""
        value = self.values.get(name)
        return None if value is None else Fields(value, f"{self.place}, {name}")

    def nanos(self, name: str, per_usd: int = 1) -> int | None:
        """Nano-dollars of an amount (`per_usd` 100: in cents), to the nearest; None when it is missing, null or blank."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        number = decimal_of(value)
        if number is None:
            raise self.wrong(name, "an amount of money")
        numerator, denominator = number.as_integer_ratio()
        nanos = _nearest(numerator * NANOS_PER_USD, denominator * per_usd)
        if abs(nanos) > MAX_NANOS:
            raise self.wrong(name, "an amount that anybody could be billed")
        return nanos

    def unix_seconds(self, name: str) -> int:
        """Milliseconds of a time in Unix seconds. Raises UserError."""
        seconds = self.needed_count(name)
        if seconds >= _LAST_SECOND:
            raise self.wrong(name, "a time in Unix seconds")
        return seconds * 1000

    def rfc3339(self, name: str) -> int:
        """Milliseconds of a time such as 2026-11-20T00:00:00Z. Raises UserError."""
        try:
            return ms_from_iso(self.text(name))
        except (ValueError, OverflowError):
            raise self.wrong(name, "a time such as 2026-11-20T00:00:00Z") from None

    def usd(self, name: str, needed: bool = True) -> None:
        """Raises UserError unless a currency is US dollars."""
        currency = self.text(name)
        if currency.lower() != "usd" and (currency or needed):
            raise self.wrong(name, "USD, the only currency of the books")

    def wrong(self, name: str, wanted: str) -> UserError:
        """The complaint about one field."""
        return UserError(f"{self.place}: {name} is {shown(self.values.get(name))}, not {wanted}")


def decimal_of(value: Any) -> Decimal | None:
    """The exact number, given as a number or as text; None for anything that is none, or beyond all measure."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    if not number.is_finite() or len(number.as_tuple().digits) > _MOST_DIGITS or number.adjusted() > _LARGEST_EXPONENT:
        return None
    # What is so small is nothing, and would only make huge denominators.
    return number if number.adjusted() >= -_MOST_DIGITS else Decimal(0)


def shown(value: Any) -> str:
    """A value for an error message: short, and no more than one line."""
    text = "missing" if value is None else repr(str(value) if isinstance(value, Decimal) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def day_span(text: str, place: str, name: str) -> Span:
    """A whole UTC day, written 2026-11-20 (a time behind it is passed over). Raises UserError."""
    try:
        day = date.fromisoformat(text[:10])
    except ValueError:
        raise UserError(f"{place}: {name} is {shown(text)}, not a day such as 2026-11-20") from None
    start_ms = (day.toordinal() - datetime(1970, 1, 1).toordinal()) * DAY_MS
    if start_ms < 0:
        raise UserError(f"{place}: {name} is {shown(text)}, which is before 1970")
    return start_ms, start_ms + DAY_MS


def bucket(start_ms: int, end_ms: int, place: str, advice: str) -> Span:
    """A bucket of time, which must lie within one UTC day. Raises UserError with `advice` on how to ask for such."""
    if end_ms <= start_ms:
        raise UserError(f"{place}: the bucket ends ({iso_utc(end_ms)}) before it begins ({iso_utc(start_ms)})")
    if (end_ms - 1) // DAY_MS != start_ms // DAY_MS:
        raise UserError(
            f"{place}: the bucket from {iso_utc(start_ms)} to {iso_utc(end_ms)} is not within one UTC day: ask again with {advice}"
        )
    return start_ms, end_ms


def _nearest(numerator: int, denominator: int) -> int:
    """The nearest whole number; halves away from zero."""
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))
