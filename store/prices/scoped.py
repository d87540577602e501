"""Which override holds for a call: the narrowest scope that has one, and in it exact names before patterns, long before short.

Made with each snapshot of the governance, beside the road. A lookup is a few dictionary accesses however many overrides there are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from store.prices.names import LONGEST_MODEL_NAME, spellings
from store.prices.patch import Patch

CACHED_LOOKUPS = 4096
"""Answers kept. Model names come from callers, so there must be a bound."""

_Place = tuple[str, str, str]
"""Virtual key, provider, provider key; empty for any. A provider key stands without its provider: it has only one."""


@dataclass(frozen=True, slots=True)
class ScopedPatch:
    """One override: whose calls (empty: anybody's), to which models, of which kinds, and the prices it sets."""

    patch: Patch
    pattern: str
    operations: frozenset[str]
    wildcard: bool = False
    """The pattern ends in `*`."""
    virtual_key_id: str = ""
    provider: str = ""
    """Ignored where a provider key is named."""
    provider_key_id: str = ""


class ScopedPrices:
    """Overrides by scope. Immutable; of two that match equally well the one that comes first holds."""

    def __init__(self, overrides: Iterable[ScopedPatch] = ()) -> None:
        self._scopes: dict[_Place, _Scope] = {}
        for override in overrides:
            provider = "" if override.provider_key_id else override.provider
            place = (override.virtual_key_id, provider, override.provider_key_id)
            self._scopes.setdefault(place, _Scope()).add(override)
        for scope in self._scopes.values():
            scope.lengths = sorted({len(prefix) for prefix, _ in scope.prefixes}, reverse=True)
        self._found = lru_cache(CACHED_LOOKUPS)(self._look_up)

    def __bool__(self) -> bool:
        return bool(self._scopes)

    def find(self, virtual_key_id: str, provider: str, provider_key_id: str, model: str, operation: str) -> Patch | None:
        """The override for a call; empty ids for what the call does not have. `model` is the name that goes to the provider."""
        if not self._scopes or len(model) > LONGEST_MODEL_NAME:
            return None
        return self._found(virtual_key_id, provider, provider_key_id, model, operation)

    def is_known_at(self, virtual_key_id: str, provider: str, provider_keys: Iterable[str], model: str, operation: str) -> bool:
        """Whether an override prices this model at this provider or with one of its keys, whatever else is known of it.

        One for no provider in particular, or for every model, does not say that this provider has it.
        """
        if not self._scopes or len(model) > LONGEST_MODEL_NAME:
            return False
        names = list(dict.fromkeys(spellings(provider, model.strip().lower())))
        found = (scope.find(names, operation, shortest=1) for scope in self._at(virtual_key_id, provider, provider_keys))
        return any(patch is not None and patch.is_complete for patch in found)

    def names_at(self, virtual_key_id: str, provider: str, provider_keys: Iterable[str]) -> tuple[str, ...]:
        """The models that overrides name in full at this provider or for its keys, as they are written."""
        return tuple(dict.fromkeys(name for scope in self._at(virtual_key_id, provider, provider_keys) for name in scope.names))

    def _at(self, key: str, provider: str, provider_keys: Iterable[str]) -> Iterator["_Scope"]:
        within = ((provider, ""), *(("", provider_key) for provider_key in provider_keys))
        places = ((owner, *place) for owner in dict.fromkeys((key, "")) for place in within)
        return (scope for place in places if (scope := self._scopes.get(place)) is not None)

    def _look_up(self, key: str, provider: str, provider_key: str, model: str, operation: str) -> Patch | None:
        names = list(dict.fromkeys(spellings(provider, model.strip().lower())))
        for place in _places(key, provider, provider_key):
            scope = self._scopes.get(place)
            if scope is not None and (found := scope.find(names, operation)) is not None:
                return found
        return None


def _places(key: str, provider: str, provider_key: str) -> list[_Place]:
    """Narrowest first: what is said of a virtual key goes before what is said of everybody."""
    within = dict.fromkeys((*([("", provider_key)] if provider_key else ()), (provider, ""), ("", "")))
    return [(owner, *place) for owner in dict.fromkeys((key, "")) for place in within]


class _Scope:
    """The overrides of one place."""

    __slots__ = ("exact", "lengths", "names", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[tuple[str, str], Patch] = {}
        self.prefixes: dict[tuple[str, str], Patch] = {}
        self.lengths: list[int] = []
        self.names: list[str] = []
        """Models named in full, as they are written."""

    def add(self, override: ScopedPatch) -> None:
        pattern = override.pattern.strip().lower()
        table, name = (self.prefixes, pattern.removesuffix("*")) if override.wildcard else (self.exact, pattern)
        if not override.wildcard:
            self.names.append(override.pattern.strip())
        for operation in override.operations:
            table.setdefault((name, operation), override.patch)

    def find(self, names: list[str], operation: str, *, shortest: int = 0) -> Patch | None:
        """By patterns with at least `shortest` characters before the star."""
        for name in names:
            if (found := self.exact.get((name, operation))) is not None:
                return found
        for length in self.lengths:
            if length < shortest:
                break
            for name in names:
                if len(name) >= length and (found := self.prefixes.get((name[:length], operation))) is not None:
                    return found
        return None


NO_OVERRIDES = ScopedPrices()
