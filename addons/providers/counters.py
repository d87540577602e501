"""Reads counters and amounts that a provider reports, without trusting their type or their size."""

from decimal import Decimal, InvalidOperation
from math import isfinite

MAX_TOKENS = 1_000_000_000
"""A counter above this is no report at all: no model reads or writes so much in one call."""
_MAX_COST_NANOS = 1_000_000 * 1_000_000_000


def whole(value: object) -> int | None:
    """A counter as a number from 0 to MAX_TOKENS; None when it is absent, of another type, negative or absurd."""
    if type(value) is int:
        return value if 0 <= value <= MAX_TOKENS else None
    if type(value) is float and isfinite(value) and value.is_integer() and 0 <= value <= MAX_TOKENS:
        return int(value)
    return None


def subset(holder: object, *keys: str) -> int:
    """The first valid counter among `keys` of an object that refines a total; 0 when there is none."""
    if type(holder) is dict:
        for key in keys:
            number = whole(holder.get(key))
            if number is not None:
                return number
    return 0


def totals(usage: dict[str, object], *groups: tuple[str, ...]) -> list[int] | None:
    """The main counters of a usage object, one for each group of alternative names.

    An absent one counts 0. None (not reported) when all are absent, or when one is there but is no counter:
    half a report must not pass for the whole.
    """
    found: list[int] = []
    seen = False
    for names in groups:
        value = next((usage[name] for name in names if usage.get(name) is not None), None)
        number = whole(value)
        if value is not None:
            if number is None:
                return None
            seen = True
        found.append(number or 0)
    return found if seen else None


def text_of(value: object) -> str | None:
    """The value when it is a text that says something."""
    return value if type(value) is str and value else None


def nanos_of_usd(value: object) -> int | None:
    """Nano-dollars, rounded up, of an amount that a provider states in USD; None when it is not a sensible amount."""
    if type(value) not in (int, float, str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    if not amount.is_finite() or not 0 <= amount <= _MAX_COST_NANOS // 1_000_000_000:
        return None
    nanos = amount.scaleb(9)
    return -int(-nanos // 1)


def utf8_length(text: str) -> int:
    """Bytes of a text in UTF-8; unpaired surrogates count like the replacement they become."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
