"""The price book: which exact price holds for a call to a model at a moment. No price known is `None`, never free."""

from collections.abc import Mapping
from functools import lru_cache, reduce
from typing import Any, Self

from store.errors import SettingsError
from store.prices import surcharges
from store.prices.classes import dearest_tiers
from store.prices.compile import active_price, active_variants, compile_tiers
from store.prices.genai.catalogue import Catalogue, Found, bundled
from store.prices.names import LONGEST_MODEL_NAME, data_id, spellings
from store.prices.overrides import Override, Overrides
from store.prices.patch import Patch
from store.prices.patched import PatchedLine, dearer
from store.prices.surcharges import Terms, terms
from store.prices.types import ModelPrice, Tier

CACHED_LINES = 4096
"""Resolved (provider, model, terms) kept. Names come from callers, so the cache must be bounded; a miss costs up to 0.3 ms."""


class PriceBook:
    """Prices from the operator's overrides first, then from the bundled data. Immutable once loaded; safe to share."""

    def __init__(self, catalogue: Catalogue, overrides: Overrides) -> None:
        self._catalogue = catalogue
        self.overrides = overrides
        self._line = lru_cache(CACHED_LINES)(self._resolve)
        self._patched = lru_cache(CACHED_LINES)(self._resolve_patched)
        self._overridden = lru_cache(CACHED_LINES)(self._has_override)

    @classmethod
    def load(cls, overrides: Overrides | None = None) -> Self:
        """The bundled data under these overrides. Raises SettingsError for an alias that leads nowhere."""
        book = cls(bundled(), overrides or Overrides())
        book._check_aliases()
        return book

    @property
    def source(self) -> str:
        """Name and version of the bundled data."""
        return self._catalogue.version

    def price(
        self,
        provider: str,
        model: str,
        at_ms: int,
        *,
        service_tier: str | None = None,
        speed: str | None = None,
        region: str | None = None,
        batch: bool = False,
        patch: Patch | None = None,
    ) -> ModelPrice | None:
        """The price of a call that was processed this way; None when it is not known.

        `provider` is our own name (`gemini`, `xai`, …), `model` any name callers use. Words for tier, speed and region may
        be anything; `surcharges.py` states what unknown ones mean. `at_ms` picks among dated and time-of-day prices.
        `patch` goes on top of everything else.
        """
        if not model or len(model) > LONGEST_MODEL_NAME:
            return None
        name = provider.lower()
        wanted = terms(name, service_tier, speed, region, batch)
        if patch is not None:
            return self._patched(patch, name, model.strip().lower(), wanted).at(at_ms)
        return self._line(name, model.strip().lower(), wanted).at(at_ms)

    def asked_price(
        self,
        provider: str,
        model: str,
        at_ms: int,
        *,
        service_tier: str | None = None,
        speed: str | None = None,
        region: str | None = None,
        batch: bool = False,
        patch: Patch | None = None,
    ) -> ModelPrice | None:
        """The dearest price at which a request with these wishes can be billed: a cheaper tier may not be granted."""
        cheaper = surcharges.is_cheaper(service_tier)
        word = None if cheaper else service_tier
        how: dict[str, Any] = {"speed": speed, "region": region, "batch": batch, "patch": patch}
        found = self.price(provider, model, at_ms, service_tier=word, **how)
        if not cheaper or (patch is None and not self.overrides_price(provider, model)):
            return found
        # Prices of the operator's own may be the other way round: then what is granted is the dearer of the two.
        return _dearer(found, self.price(provider, model, at_ms, service_tier=service_tier, **how))

    def overrides_price(self, provider: str, model: str) -> bool:
        """Whether the operator has said what this model costs."""
        return len(model) <= LONGEST_MODEL_NAME and self._overridden(provider.lower(), model.strip().lower())

    def models(self, provider: str) -> tuple[str, ...]:
        """Ids of the models that the bundled data knows of this provider; empty for an unknown one."""
        wanted = data_id(provider.lower())
        return tuple(model.id for entry in self._catalogue.providers() if entry.id == wanted for model in entry.models)

    def find(self, provider: str, model: str) -> Found | None:
        """The data's entry for a model, aliases and resource paths resolved; None when it has none."""
        if not model or len(model) > LONGEST_MODEL_NAME:
            return None
        name, wanted = provider.lower(), model.strip().lower()
        for entry in self.overrides.for_model(name, wanted):
            if entry.alias_of is not None:
                return self._alias_target(entry, name)
        return self._find(name, wanted)

    def _has_override(self, provider: str, model: str) -> bool:
        return any(entry.sets_price for entry in self.overrides.for_model(provider, model))

    def _resolve(self, provider: str, model: str, wanted: Terms) -> "_Line":
        entries = tuple(entry for entry in self.overrides.for_model(provider, model) if entry.sets_price)
        targets = {entry.alias_of: self._alias_target(entry, provider) for entry in entries if entry.alias_of is not None}
        return _Line(self, provider, model, wanted, entries, targets, self._find(provider, model))

    def _resolve_patched(self, patch: Patch, provider: str, model: str, wanted: Terms) -> PatchedLine:
        def line(of: Terms) -> _Line:
            return self._line(provider, model, of)

        return PatchedLine(patch, provider, model, wanted, line, lambda: line(wanted).words())

    def _find(self, provider: str, model: str) -> Found | None:
        for spelling in spellings(provider, model):
            found = self._catalogue.find(data_id(provider), spelling)
            if found is not None:
                return found
        return None

    def _alias_target(self, entry: Override, provider: str) -> Found | None:
        alias = entry.alias_of or ""
        found = self._find(provider, alias)
        if found is None and "/" in alias:
            other, _, model = alias.partition("/")
            found = self._find(other.lower(), model)
        return found

    def _check_aliases(self) -> None:
        for entry in self.overrides:
            if entry.alias_of is None:
                continue
            provider = "" if entry.provider.endswith("*") else entry.provider.lower()
            if self._alias_target(entry, provider) is None:
                raise SettingsError(
                    f"The price file makes {entry.provider}/{entry.model} an alias of {entry.alias_of!r}, "
                    "which the price data does not know; name a model of that provider, or write provider/model."
                )


class _Line:
    """One model under one set of terms, through time. The tables of each period are made once, when first asked for."""

    def __init__(
        self,
        book: PriceBook,
        provider: str,
        model: str,
        wanted: Terms,
        entries: tuple[Override, ...],
        targets: Mapping[str, Found | None],
        found: Found | None,
    ) -> None:
        self._book = book
        self._provider = provider
        self._model = model
        self._wanted = wanted
        self._entries = entries
        self._targets = targets
        self._found = found
        self._periods: dict[tuple[object, ...], ModelPrice | None] = {}
        self._dated = any(entry.starts_at is not None for entry in entries) or any(
            _is_dated(one) for one in (found, *targets.values()) if one is not None
        )

    def at(self, at_ms: int) -> ModelPrice | None:
        """The price at a moment."""
        period = self._period(at_ms) if self._dated else ()
        if period not in self._periods:
            self._periods[period] = self._price(at_ms)
        return self._periods[period]

    def words(self) -> set[str]:
        """The tiers of service for which there are prices, of the data or of the operator's file."""
        own = {terms(self._provider, entry.service_tier, None, None, False).tier for entry in self._entries}
        return own | (_tier_words(self._found) if self._found is not None and self._found.own else set())

    def _period(self, at_ms: int) -> tuple[object, ...]:
        """What holds at this moment; equal for all moments with equal prices. As many values as the data has periods."""
        signature: list[object] = [at_ms >= entry.start_ms() for entry in self._entries]
        for found in (self._found, *self._targets.values()):
            if found is not None:
                signature.append(active_price(found.model, at_ms))
                signature.extend(v.constraint is None or v.constraint.active(at_ms) for v in found.model.variants)
        return tuple(signature)

    def _price(self, at_ms: int) -> ModelPrice | None:
        by_tier = self._most_precise(at_ms)
        standard = by_tier.get(surcharges.STANDARD)
        tier = self._wanted.tier
        chosen: list[Override] = []
        if tier in by_tier:
            chosen = [by_tier[tier]]
        elif tier == surcharges.ANY:
            chosen = list(by_tier.values())
        elif standard is not None:
            covers_all = standard.free or standard.alias_of is not None
            if tier in surcharges.DEARER and not covers_all:
                return None  # the operator's price is for ordinary processing, and nobody knows what this tier costs
            chosen = [standard]
        prices = [self._own_price(entry, at_ms) for entry in chosen]
        if self._found is not None and (not chosen or (standard is None and tier == surcharges.ANY)):
            prices.append(self._data_price(self._found, at_ms))
        return reduce(_dearer, prices) if prices else None

    def _most_precise(self, at_ms: int) -> dict[str, Override]:
        """By tier word, the latest started entry of the most precise pattern that has any."""
        by_tier: dict[str, Override] = {}
        pattern: tuple[str, str] | None = None
        for entry in self._entries:
            if at_ms < entry.start_ms():
                continue
            mine = (entry.provider.lower(), entry.model.lower())
            pattern = pattern or mine
            if mine != pattern:
                continue
            word = terms(self._provider, entry.service_tier, None, None, False).tier
            rival = by_tier.get(word)
            if rival is None or entry.start_ms() > rival.start_ms():
                by_tier[word] = entry
        return by_tier

    def _own_price(self, entry: Override, at_ms: int) -> ModelPrice | None:
        """The price one entry gives. Surcharges for speed and region come on top; tiers have entries of their own."""
        source = self._book.overrides.source
        if entry.alias_of is not None:
            found = self._targets.get(entry.alias_of)
            return None if found is None else self._data_price(found, at_ms, f"{source}, {self._book.source}")
        uplift = surcharges.fast_uplift() if self._wanted.fast else (1, 1)
        return self._model_price(self._model, entry.tiers(), source, uplift, ())

    def _data_price(self, found: Found, at_ms: int, source: str | None = None) -> ModelPrice | None:
        model = found.model
        contexts, notes = self._contexts(found, at_ms)
        uplift = (1, 1)
        if self._wanted.fast:
            if found.own and active_variants(model, at_ms, {"speed": "fast"}):
                contexts = [{**context, "speed": "fast"} for context in contexts]
            else:
                uplift = surcharges.fast_uplift()
        tables = [compile_tiers(model, at_ms, context) for context in contexts]
        known = [table for table in tables if table is not None]
        if not known or len(known) < len(tables):
            return None
        return self._model_price(model.id, reduce(dearest_tiers, known), source or self._book.source, uplift, notes)

    def _contexts(self, found: Found, at_ms: int) -> tuple[list[dict[str, str]], tuple[str, ...]]:
        """The variants to price: one, all tiers for an unknown tier, none when the price is not known."""
        base = {"processing": "batch"} if self._wanted.batch and not self._wanted.fast and found.own else {}
        tier = self._wanted.tier
        if tier == surcharges.STANDARD:
            return [base], ()
        words = _tier_words(found) if found.own else set()
        if tier == surcharges.ANY:
            every = [{**base, "service_tier": word} for word in sorted(words)]
            return [base, *every], ("service tier not known: the dearest of the model's tiers is assumed",)
        if tier in words and active_variants(found.model, at_ms, {"service_tier": tier}):
            return [{**base, "service_tier": tier}], ()
        if tier in surcharges.DEARER:
            return [], ()
        return [base], (f"no price for the {tier} tier: the standard price is assumed",)

    def _model_price(
        self, model: str, tiers: tuple[Tier, ...], source: str, uplift: surcharges.Ratio, notes: tuple[str, ...]
    ) -> ModelPrice:
        if self._wanted.regional:
            uplift = surcharges.times(uplift, surcharges.regional_uplift(self._provider, model))
        return ModelPrice(self._provider, model, tiers, source, uplift, notes)


def _tier_words(found: Found) -> set[str]:
    return {variant.when["service_tier"] for variant in found.model.variants if "service_tier" in variant.when}


def _is_dated(found: Found) -> bool:
    model = found.model
    return len(model.prices) > 1 or any(variant.constraint is not None for variant in model.variants)


def _dearer(one: ModelPrice | None, other: ModelPrice | None) -> ModelPrice | None:
    """Class by class the higher of two prices; unknown when either is."""
    return None if one is None or other is None else dearer(one, other)
