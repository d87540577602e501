"""Money as a person types it on the command line: `2usd`, `$0.50`, `50c`, with a window after a slash when there is one."""

import re
from dataclasses import dataclass

from store.errors import UserError
from store.money import format_usd, nanos_from_usd
from store.windows import parse_duration

_AMOUNT = re.compile(
    r"(?P<dollar>\$)?\s*(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(?P<unit>usd|dollars?|c|cents?|¢)?", re.IGNORECASE
)
_CENTS = frozenset({"c", "cent", "cents", "¢"})
_EXAMPLES = "2usd, $2, 0.50usd or 50c"


@dataclass(frozen=True, slots=True)
class BudgetText:
    """A budget read from the command line: an amount in nano-dollars and the window in which it is spent, if any."""

    limit_nanos: int
    window: str | None

    def __str__(self) -> str:
        return format_usd(self.limit_nanos) + (f" per {self.window}" if self.window else "")


def parse_amount(text: str) -> int:
    """Nano-dollars of `2usd`, `2`, `$2`, `0.50usd`, `50c`. Raises UserError for anything else, zero included."""
    match = _AMOUNT.fullmatch(text.strip())
    unit = (match["unit"] or "").lower() if match else ""
    if match is None or (match["dollar"] and unit in _CENTS):
        raise UserError(f"{text!r} is not an amount of money: write it like {_EXAMPLES}")
    try:
        nanos = nanos_from_usd(match["number"])
    except ValueError as fault:
        raise UserError(f"{text!r} is not an amount of money the ledger can keep: {fault}") from None
    if unit in _CENTS:
        nanos, rest = divmod(nanos, 100)
        if rest:
            raise UserError(f"{text!r} is not an amount of money the ledger can keep: it has more than nine decimals of a dollar")
    if nanos <= 0:
        raise UserError(f"{text!r} is nothing: a budget is more than zero, like {_EXAMPLES}")
    return nanos


def parse_cost(text: str) -> int:
    """As `parse_amount`, of what something cost: nothing is an amount too."""
    bare = text.strip().lower().strip("$").removesuffix("usd").strip()
    if bare and not bare.strip("0.") and bare.count(".") <= 1 and bare != ".":
        return 0
    return parse_amount(text)


def parse_budget(text: str) -> BudgetText:
    """An amount with an optional window: `2usd`, `2usd/1h`, `$50/1d`, `1000usd/1M`. Raises UserError."""
    amount, slash, window = text.partition("/")
    window = window.strip()
    if slash:
        try:
            parse_duration(window)
        except ValueError as fault:
            raise UserError(f"{text!r} has no usable window after the slash: {fault}") from None
    return BudgetText(parse_amount(amount), window if slash else None)
