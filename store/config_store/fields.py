"""Types of single fields, as JSON and the command line write them: money, durations, times, names, addresses.

Money stays a Decimal in USD, exactly as written.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, Strict, WithJsonSchema

from store.clock import ms_from_iso
from store.config_store.snapshot import ANY
from store.money import nanos_from_usd
from store.windows import parse_duration


def check_usd(value: Any) -> Decimal:
    """An amount of money from JSON or the command line, exact. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        raise ValueError("must be an amount in USD, such as 0.50")
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is not an amount in USD; write it like 0.50") from None
    if amount.is_finite() and amount and not -12 <= amount.adjusted() <= 12:
        raise ValueError("is more than the ledger can hold, or has more than nine decimals")  # before 1e99999999 is made an int
    if nanos_from_usd(amount) < 0:
        raise ValueError("must not be negative")
    return amount


def check_number(value: Any) -> float:
    """A plain finite number. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float):
        raise ValueError("must be a number")
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("must be a finite number")
    return number


def check_duration(value: Any) -> Any:
    """A duration as `parse_duration` reads it. Raises ValueError."""
    if isinstance(value, str):
        parse_duration(value)
    return value


def check_time(value: Any) -> Any:
    """An RFC 3339 time; an empty text clears it. Raises ValueError."""
    if isinstance(value, str) and value:
        try:
            ms_from_iso(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a time with a zone; write it like 2026-11-23T11:00:00Z") from None
    return value


def check_id(value: Any) -> Any:
    """Ids are text; whole numbers, which other gateways use for some of them, are read as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return check_text(value)


def check_text(value: Any) -> Any:
    """Text that every database can keep and find again: no NUL, no half of a surrogate pair. Raises ValueError."""
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("has half of a surrogate pair, which is no character; write the whole character")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("has a NUL character; leave it out")
    return value


def check_models(value: tuple[str, ...]) -> tuple[str, ...]:
    """An allow list: `*` alone, or names without doubles. Raises ValueError."""
    if ANY in value and len(value) > 1:
        raise ValueError(f"holds {ANY!r} beside names; {ANY!r} alone means all")
    if len({*value}) != len(value):
        raise ValueError("names something twice")
    return value


Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=0, le=2**63 - 1)]
Usd = Annotated[Decimal, BeforeValidator(check_usd), WithJsonSchema({"type": "number", "minimum": 0})]
Number = Annotated[float, BeforeValidator(check_number)]
Weight = Annotated[float, BeforeValidator(check_number), Field(ge=0)]
Duration = Annotated[str, BeforeValidator(check_duration), Field(description="Such as 30m, 1h, 7d, 1M.")]
Time = Annotated[str, BeforeValidator(check_time)]
Id = Annotated[str, BeforeValidator(check_id), Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(check_text)]
Text = Annotated[str, Field(max_length=10_000), BeforeValidator(check_text)]
"""Any text that every database can keep."""
Reason = Annotated[str, Field(max_length=1000), BeforeValidator(check_text)]
"""A person's words beside a change of the ledger, which keeps them."""
Names = Annotated[tuple[Name, ...], Field()]
EnforcementName = Literal["hard", "soft", "observe"]


def check_base_url(value: Any) -> Any:
    """An http(s) address with a host and nothing after the path. Raises ValueError."""
    if not isinstance(value, str) or not value:
        return value or None
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        raise ValueError(f"{value!r} is not an address; write it like https://api.example.com/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise ValueError(f"{value!r} is not an address; write it like https://api.example.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an address here has no user, password, query or fragment")
    return value.rstrip("/")


BaseUrl = Annotated[str, BeforeValidator(check_base_url)]


def loads_exact(text: str | bytes) -> Any:
    """JSON with every fraction as a Decimal; doubled keys, NaN and infinities are errors. Raises ValueError."""
    return json.loads(text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_no_doubles)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a number in JSON")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names: list[str] = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double!r} stands twice in one object")
    return made
