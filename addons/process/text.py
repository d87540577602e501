"""Plain text for people: tables, amounts and spans of time on a terminal."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from store.money import format_usd, nanos_from_usd

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"))


def printable(text: str) -> str:
    """Words of somebody else's, such as the model that a caller named, as a terminal may show them: no control characters."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, two spaces apart; the last one runs free."""
    every = [headers, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(headers))]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in every)


def nanos_of(value: Any) -> int:
    """Nano-dollars of an amount in USD as the API prints it."""
    return nanos_from_usd(value if isinstance(value, Decimal | int | str) else Decimal(str(value)))


def usd(value: Any) -> str:
    """`$0.50` of an amount in USD as the API prints it."""
    return format_usd(nanos_of(value))


def rounded_usd(nanos: int) -> str:
    """At most four decimals, rounded up, for tables: a little spent never looks like nothing."""
    step = 100_000
    return format_usd(-(-nanos // step) * step)


def few(names: Sequence[str], most: int = 4) -> str:
    """`a, b, c, d and 18 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def span(milliseconds: int) -> str:
    """`2d 3h`, `1h 5min`, `under a minute`: the two largest units."""
    parts: list[str] = []
    for size, unit in _UNITS:
        count, milliseconds = divmod(max(0, milliseconds), size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "under a minute"


def exact_json(value: Any, indent: str = "") -> str:
    """Indented JSON in which a Decimal is a plain number, every digit kept and without an exponent."""
    inner = indent + "  "
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(str(key), ensure_ascii=False)}: {exact_json(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + exact_json(each, inner) for each in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
