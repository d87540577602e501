"""How much a model can read and write, in tokens: the operator's word first, then the vendored table and the price data."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Self

import orjson

from store.prices.book import PriceBook
from store.prices.names import LONGEST_MODEL_NAME, spellings
from store.prices.types import ModelLimits

TABLE = Path(__file__).parent / "data" / "limits.json"
CACHED_MODELS = 4096

Pair = tuple[int | None, int | None]
_UNKNOWN: Pair = (None, None)
_LENDERS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("vertex", "azure"),
    "azure": ("openai", "anthropic"),
    "gemini": ("vertex",),
    "openai": ("azure",),
    "vertex": ("gemini", "anthropic"),
}
"""Whose table also describes a provider's models: the same models are sold in several places."""
_VENDORS: Mapping[str, str] = {"google": "gemini", "x-ai": "xai", "mistralai": "mistral", "moonshotai": "moonshot", "z-ai": "zai"}
"""Routers write `vendor/model`; their words for vendors where they are not ours."""
_SNAPSHOT = re.compile(r"(@[\w.-]+|-latest|-20\d\d-?\d\d-?\d\d(-v\d+)?(:\d+)?|-v\d+:\d+|:[a-z]+)$")
"""A dated snapshot, a version or a routing suffix at the end of a name."""


class LimitsBook:
    """Limits by provider and model. Immutable once loaded; safe to share."""

    def __init__(self, book: PriceBook, table: Mapping[str, Mapping[str, Pair]]) -> None:
        self._book = book
        self._table = table
        self._cached = lru_cache(CACHED_MODELS)(self._look_up)

    @classmethod
    def load(cls, book: PriceBook) -> Self:
        """The vendored table beside this price book's data and overrides."""
        return cls(book, read_table(TABLE.read_bytes()))

    def limits(self, provider: str, model: str) -> ModelLimits:
        """What is known of a model under any name callers use; fields are None where nothing is.

        Where sources differ the larger figure holds, because these limits bound what a call may cost.
        """
        if not model or len(model) > LONGEST_MODEL_NAME:
            return ModelLimits()
        return self._cached(provider.lower(), model.strip().lower())

    def _look_up(self, provider: str, model: str) -> ModelLimits:
        context, longest = self._tabled(provider, model)
        found = self._book.find(provider, model)
        if found is not None:
            if (context, longest) == _UNKNOWN:
                context, longest = self._tabled(provider, found.model.id.lower())
            context = _larger((context, found.model.context_window))
        for entry in reversed(self._book.overrides.for_model(provider, model)):
            context = entry.context_tokens or context
            longest = entry.max_output_tokens or longest
        return ModelLimits(context, longest)

    def _tabled(self, provider: str, model: str) -> Pair:
        for seller, name in _places(provider, model):
            pair = self._table.get(seller, {}).get(name)
            if pair is not None:
                return pair
        return _UNKNOWN


def base_name(model: str) -> str:
    """A model's name without the vendor in front and without date, version or routing suffix: what people call it."""
    bare = model.rpartition("/")[2]
    return next(iter(reversed(list(_undated(bare)))), bare)


def read_table(content: bytes) -> dict[str, dict[str, Pair]]:
    """provider → model → (largest input, largest output) of a table made by `make_limits.py`."""
    document = orjson.loads(content)
    table: dict[str, dict[str, Pair]] = {}
    for provider, by_mode in document["limits"].items():
        models = table.setdefault(provider, {})
        for by_id in by_mode.values():
            for model, (most_in, most_out) in by_id.items():
                before = models.get(model, _UNKNOWN)
                models[model] = (_larger((before[0], most_in)), _larger((before[1], most_out)))
    return table


def _places(provider: str, model: str) -> Iterator[tuple[str, str]]:
    """Where to look, best first: the name as it is, then without its date, then both at those who sell the same models."""
    vendor, slash, rest = model.partition("/")
    for seller in (provider, *_LENDERS.get(provider, ())):
        for spelling in spellings(seller, model):
            yield seller, spelling
            yield from ((seller, shorter) for shorter in _undated(spelling))
    if slash and rest:
        seller = _VENDORS.get(vendor, vendor)
        yield seller, rest
        yield from ((seller, shorter) for shorter in _undated(rest))


def _undated(name: str) -> Iterator[str]:
    """The name with its endings taken off, one after another; and the last segment of a resource name."""
    if ":" in name and "/" in name:
        name = name.rpartition("/")[2]
        yield name
    while (shorter := _SNAPSHOT.sub("", name)) != name and shorter:
        name = shorter
        yield name


def _larger(figures: Iterable[int | None]) -> int | None:
    return max((figure for figure in figures if figure is not None), default=None)
