"""Money as whole nano-dollars (1e-9 USD), read from and printed as plain decimals; the one place that rounds."""

from decimal import Decimal, InvalidOperation

NANOS_PER_USD = 1_000_000_000
PICOS_PER_NANO = 1_000
MAX_NANOS = 2**63 - 1
"""The largest amount a 64-bit column holds: about 9.2 billion USD."""


def nanos_from_usd(value: Decimal | int | float | str) -> int:
    """Exact nano-dollars of an amount in USD.

    A float is read through its shortest decimal form, so ``0.1`` from a JSON file is ten cents exactly.
    Raises ValueError for NaN, infinities, booleans, more than nine decimals, or amounts that 64 bits cannot hold.
    """
    if isinstance(value, bool):
        raise ValueError("an amount of money is a number, not true or false")
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is not an amount of money") from None
    if not amount.is_finite():
        raise ValueError(f"{value!r} is not an amount of money")
    if amount and amount.adjusted() > 10:
        # Before any arithmetic: the integer of 1e99999999 would eat all memory.
        raise ValueError(f"{value} USD is more than the ledger can hold")
    # On the digits themselves: Decimal's own arithmetic rounds what is longer than the context's 28 digits.
    sign, digits, exponent = amount.as_tuple()
    shift = int(exponent) + 9
    kept = digits if shift >= 0 else digits[:shift]
    if any(digits[len(kept) :]):
        raise ValueError(f"{value} USD has more than nine decimals")
    nanos = int("".join(map(str, kept)) or "0") * 10 ** max(0, shift) if amount else 0
    if nanos > MAX_NANOS:
        raise ValueError(f"{value} USD is more than the ledger can hold")
    return -nanos if sign else nanos


def usd_from_nanos(nanos: int) -> Decimal:
    """The amount in USD, exact. Print it with `plain_usd` or `format(x, 'f')`; `str` may use exponents."""
    return Decimal(plain_usd(nanos))


def format_usd(nanos: int) -> str:
    """``$0.50``, ``$0.0021``, ``$1234.00``: at least two decimals, as many more as the amount needs, no exponent."""
    text = plain_usd(nanos)
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, _, decimals = text.partition(".")
    return f"{sign}${whole}.{decimals.ljust(2, '0')}"


def plain_usd(nanos: int) -> str:
    """``0.5``, ``0.0021``, ``1234``: the shortest exact decimal, for headers and JSON text."""
    sign = "-" if nanos < 0 else ""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    decimals = f"{rest:09d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def nanos_from_picos(picos: int) -> int:
    """Whole nano-dollars of an amount in pico-dollars, rounded up: the single rounding of a call."""
    return -(-picos // PICOS_PER_NANO)
