"""The console's own price book and limits, loaded when first asked for: most consoles are never asked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from store.prices.book import PriceBook
from store.prices.limits import LimitsBook
from store.prices.overrides import load_overrides


@dataclass(frozen=True, slots=True)
class PriceBooks:
    """What models cost and how much they take."""

    prices: PriceBook
    limits: LimitsBook


def price_books(price_file: Path | None = None) -> Callable[[], PriceBooks]:
    """Gives the books of the bundled data under this price file; loads them once, on the first call, which may block 0.1 s.

    What is given raises SettingsError for a price file that is not right (any more).
    """
    lock = Lock()
    loaded: list[PriceBooks] = []

    def books() -> PriceBooks:
        with lock:
            if not loaded:
                book = PriceBook.load(load_overrides(price_file) if price_file is not None else None)
                loaded.append(PriceBooks(book, LimitsBook.load(book)))
            return loaded[0]

    return books
