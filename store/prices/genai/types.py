"""The names that genai-prices' data module is written with, as light classes of our own.

That module begins with `from .types import *`. Loaded as a member of this package it finds these classes instead of the
library's, so that neither the library's HTTP client nor its response parsers are imported (0.17 s of every start).
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Protocol

__all__ = (
    "ArrayMatch",
    "ClauseAnd",
    "ClauseContains",
    "ClauseEndsWith",
    "ClauseEquals",
    "ClauseOr",
    "ClauseRegex",
    "ClauseStartsWith",
    "ConditionalPrice",
    "ModelInfo",
    "ModelPrice",
    "PriceVariant",
    "Provider",
    "StartDateConstraint",
    "Tier",
    "TieredPrices",
    "TimeOfDateConstraint",
    "UsageExtractor",
    "UsageExtractorMapping",
)
# The data module takes all of these by `*` and must find its own `datetime` untouched.

MS_PER_DAY = 86_400_000


class Clause(Protocol):
    """A condition on a model's name, which must be given in lower case."""

    def is_match(self, text: str) -> bool: ...


class ClauseEquals:
    def __init__(self, equals: str) -> None:
        self._equals = equals.lower()

    def is_match(self, text: str) -> bool:
        return text == self._equals


class ClauseStartsWith:
    def __init__(self, starts_with: str) -> None:
        self._start = starts_with.lower()

    def is_match(self, text: str) -> bool:
        return text.startswith(self._start)


class ClauseEndsWith:
    def __init__(self, ends_with: str) -> None:
        self._end = ends_with.lower()

    def is_match(self, text: str) -> bool:
        return text.endswith(self._end)


class ClauseContains:
    def __init__(self, contains: str) -> None:
        self._part = contains.lower()

    def is_match(self, text: str) -> bool:
        return self._part in text


class ClauseRegex:
    def __init__(self, regex: str) -> None:
        self._regex = regex
        self._compiled: re.Pattern[str] | None = None

    def is_match(self, text: str) -> bool:
        if self._compiled is None:
            self._compiled = re.compile(self._regex)
        return self._compiled.search(text) is not None


class ClauseOr:
    def __init__(self, or_: Sequence[Clause]) -> None:
        self._clauses = tuple(or_)

    def is_match(self, text: str) -> bool:
        return any(clause.is_match(text) for clause in self._clauses)


class ClauseAnd:
    def __init__(self, and_: Sequence[Clause]) -> None:
        self._clauses = tuple(and_)

    def is_match(self, text: str) -> bool:
        return all(clause.is_match(text) for clause in self._clauses)


class Tier:
    """A price that holds for all tokens once total input is above `start`."""

    def __init__(self, start: int, price: Decimal) -> None:
        self.start = start
        self.price = price


class TieredPrices:
    """A price with dearer (or cheaper) steps for long inputs; `tiers` ascending."""

    def __init__(self, base: Decimal, tiers: Sequence[Tier]) -> None:
        self.base = base
        self.tiers = tuple(sorted(tiers, key=lambda tier: tier.start))


class ModelPrice:
    """Prices by the data's own keys (`input_mtok`: USD per million tokens, `web_searches_kcount`: USD per thousand …)."""

    def __init__(self, **prices: Decimal | TieredPrices | None) -> None:
        self.by_key: dict[str, Decimal | TieredPrices] = {key: price for key, price in prices.items() if price is not None}


class StartDateConstraint:
    """Active from the beginning of a UTC day."""

    def __init__(self, start_date: date) -> None:
        self.start_ms = int(datetime.combine(start_date, time(), UTC).timestamp()) * 1000

    def active(self, at_ms: int) -> bool:
        return at_ms >= self.start_ms


class TimeOfDateConstraint:
    """Active daily between two times, which may lie on both sides of midnight UTC."""

    def __init__(self, start_time: time, end_time: time) -> None:
        self._start_ms = _ms_of_day(start_time)
        self._end_ms = _ms_of_day(end_time)

    def active(self, at_ms: int) -> bool:
        now_ms = at_ms % MS_PER_DAY
        if self._end_ms < self._start_ms:
            return now_ms >= self._start_ms or now_ms < self._end_ms
        return self._start_ms <= now_ms < self._end_ms


Constraint = StartDateConstraint | TimeOfDateConstraint


class ConditionalPrice:
    """Prices that hold while a constraint does; among several the last active one counts."""

    def __init__(self, constraint: Constraint | None = None, *, prices: ModelPrice) -> None:
        self.constraint = constraint
        self.prices = prices


class PriceVariant:
    """Prices that replace some of a model's while the request has certain properties."""

    def __init__(self, when: dict[str, str], prices: ModelPrice, constraint: Constraint | None = None) -> None:
        self.when = when
        self.prices = prices
        self.constraint = constraint


class ModelInfo:
    """A model of the data; its descriptions are not kept."""

    def __init__(
        self,
        id: str,
        match: Clause,
        context_window: int | None = None,
        prices: ModelPrice | Sequence[ConditionalPrice] = (),
        price_variants: Sequence[PriceVariant] | None = None,
        **_unused: object,
    ) -> None:
        self.id = id
        self.match = match
        self.context_window = context_window
        self.prices: tuple[ConditionalPrice, ...] = (
            (ConditionalPrice(prices=prices),) if isinstance(prices, ModelPrice) else tuple(prices)
        )
        self.variants: tuple[PriceVariant, ...] = tuple(price_variants or ())


class Provider:
    """A provider of the data: its id and its models. Address patterns are left out, since nothing may be routed by them."""

    def __init__(
        self, id: str, models: Sequence[ModelInfo] = (), fallback_model_providers: Sequence[str] | None = None, **_unused: object
    ) -> None:
        self.id = id
        self.models = tuple(models)
        self.fallback_ids: tuple[str, ...] = tuple(fallback_model_providers or ())


def _nothing(*_unused: object, **_unused_by_name: object) -> None:
    """Stands in for the data's rules on reading answers: those are the dialects' work."""


UsageExtractor = UsageExtractorMapping = ArrayMatch = _nothing


def _ms_of_day(moment: time) -> int:
    offset = moment.utcoffset()
    offset_ms = 0 if offset is None else round(offset.total_seconds() * 1000)
    at_ms = ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1000 + moment.microsecond // 1000
    return (at_ms - offset_ms) % MS_PER_DAY
