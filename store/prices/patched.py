"""A model's price with an override's single prices on top, for each tier of service and each kind of processing."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import reduce
from typing import Protocol

from store.prices import surcharges
from store.prices.classes import dearest_tiers
from store.prices.patch import BATCH, FAST, STANDARD, Patch, patched, scaled
from store.prices.surcharges import Ratio, Terms
from store.prices.types import ModelPrice

_FOLLOWERS = surcharges.CHEAPER | {BATCH, FAST}
"""Processing that a price for ordinary processing covers; every dearer tier needs a price of its own."""


class PricedLine(Protocol):
    """One model under one set of terms, through time."""

    def at(self, at_ms: int) -> ModelPrice | None: ...


class PatchedLine:
    """One model under one set of terms and one override, through time."""

    def __init__(
        self,
        patch: Patch,
        provider: str,
        model: str,
        wanted: Terms,
        line: Callable[[Terms], "PricedLine"],
        words: Callable[[], Iterable[str]],
    ) -> None:
        """`line` is the model without the override; `words` the tiers of service for which it has prices."""
        self._patch = patch
        self._provider = provider
        self._model = model
        self._standard = line(Terms(regional=wanted.regional))
        self._terms: tuple[Terms, ...] = (wanted,)
        if wanted.tier == surcharges.ANY and not wanted.fast:
            tiers = {STANDARD, *words(), *(word for word in patch.changes if word not in (BATCH, FAST))}
            self._terms = tuple(wanted._replace(tier=word) for word in sorted(tiers))  # the ordinary first: it names the source
        self._lines = tuple(line(terms) for terms in self._terms)
        self._made_of: tuple[ModelPrice | None, ...] = ()
        self._made: ModelPrice | None = None

    def at(self, at_ms: int) -> ModelPrice | None:
        """The price at a moment; None where the override does not complete a model that has no price of its own."""
        bases = (self._standard.at(at_ms), *[line.at(at_ms) for line in self._lines])
        if bases != self._made_of:  # the same objects nearly always, and then nothing is compared
            self._made, self._made_of = self._dearest(bases[0], bases[1:]), bases
        return self._made

    def _dearest(self, standard: ModelPrice | None, bases: Sequence[ModelPrice | None]) -> ModelPrice | None:
        """The price; of a tier that nobody knows, class by class the dearest of all that there are."""
        prices = [self._price(terms, base, standard) for terms, base in zip(self._terms, bases, strict=True)]
        known = [price for price in prices if price is not None]
        return reduce(dearer, known) if prices[0] is not None else None

    def _price(self, terms: Terms, base: ModelPrice | None, standard: ModelPrice | None) -> ModelPrice | None:
        word = FAST if terms.fast else BATCH if terms.batch and not terms.tier else terms.tier
        ordinary = self._patch.changes.get(STANDARD, {})
        own = self._patch.changes.get(word, {}) if word != STANDARD else {}
        tiers, uplift = (base.tiers, base.multiplier) if base is not None else (None, self._uplift(terms))
        # What has no price of its own costs what ordinary processing costs, and changes with it.
        follows = word == STANDARD or (word in _FOLLOWERS if base is None else standard is not None and tiers == standard.tiers)
        if follows:
            tiers = patched(tiers, ordinary, self._patch.output_is_nothing)
        if own and word == FAST:
            plain = standard.multiplier if standard is not None else self._uplift(terms._replace(fast=False))
            tiers = scaled(tiers, surcharges.fast_uplift()) if tiers is not None and uplift != plain else tiers
            uplift = plain
        if own:
            tiers = patched(tiers, own, self._patch.output_is_nothing)
        if tiers is None or (base is not None and not own and not (follows and ordinary)):
            return base
        if base is None:
            return ModelPrice(self._provider, self._model, tiers, self._patch.source, uplift)
        return ModelPrice(base.provider, base.model, tiers, f"{self._patch.source}, {base.source}", uplift, base.notes)

    def _uplift(self, terms: Terms) -> Ratio:
        """Surcharges for speed and region come on top of one's own prices too."""
        regional = surcharges.regional_uplift(self._provider, self._model) if terms.regional else (1, 1)
        return surcharges.times(regional, surcharges.fast_uplift()) if terms.fast else regional


def dearer(one: ModelPrice, other: ModelPrice) -> ModelPrice:
    """Class by class the higher of two prices."""
    multiplier = max(one.multiplier, other.multiplier, key=lambda ratio: Fraction(*ratio))
    return ModelPrice(one.provider, one.model, dearest_tiers(one.tiers, other.tiers), one.source, multiplier, one.notes)
