"""The models that can be called here: what the price data knows of each provider, and what the operator has named."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from addons.console.price_books import PriceBooks
from addons.patterns import matches_any
from addons.providers.registry import FAMILIES
from addons.steps.authorize import allowing
from store.config_store import read
from store.config_store.build import one_virtual_key
from store.config_store.keys import hash_key_value
from store.config_store.price_overrides import scoped_prices
from store.config_store.records import PricingOverrideRecord, ProviderRecord
from store.config_store.snapshot import VirtualKey
from store.config_store.store import ConfigStore
from store.errors import NotFound
from store.prices.scoped import ScopedPrices

CHATS = ("chat_completion", "responses", "text_completion", "embedding")
"""The kinds of calls for which an override may say what a model costs, in the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Models:
    """Providers with the names of their models, and the overrides that hold for everybody."""

    providers: Mapping[str, ProviderRecord]
    names: Mapping[str, tuple[str, ...]]
    overrides: tuple[PricingOverrideRecord, ...]
    scoped: ScopedPrices
    key: VirtualKey | None = None
    """Only what this virtual key may use."""
    nobody: bool = False
    """A virtual key was named that there is not: it may use nothing."""

    def pairs(self, provider: str = "", search: str = "", key_ids: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
        """(provider, model) in the order of their names; `key_ids`: such that one of these provider keys may be used for it."""
        if self.nobody:
            return
        wanted = tuple(key_ids)
        needle = search.strip().lower()
        for name in sorted(self.names):
            if provider and name != provider:
                continue
            for model in self.names[name]:
                if needle and needle not in model.lower():
                    continue
                if self.key is not None and not self._may(self.key, name, model):
                    continue
                if wanted and not set(wanted).intersection(self.key_ids(name, model)):
                    continue
                yield name, model

    def key_ids(self, provider: str, model: str) -> list[str]:
        """The provider keys that may be used for a model."""
        record = self.providers.get(provider)
        return [
            key.id
            for key in (record.keys if record is not None else ())
            if matches_any(key.models, model, provider) and not matches_any(key.blacklisted_models, model, provider)
        ]

    def price_names(self, provider: str) -> tuple[str, ...]:
        """The names under which the price book may know a provider, its own first."""
        record = self.providers.get(provider)
        family = FAMILIES.get(record.base_provider or provider if record is not None else provider)
        names = (provider, family.name, family.prices_of) if family is not None else (provider,)
        return tuple(dict.fromkeys(filter(None, names)))

    @staticmethod
    def _may(key: VirtualKey, provider: str, model: str) -> bool:
        return bool(allowing(key.provider_configs, model, provider))


def load_models(store: ConfigStore, books: PriceBooks, *, key_value: str | None = None, key_id: str | None = None) -> Models:
    """Everything as it is now. A `key_value` that nobody has leads to no models. Raises NotFound for an unknown `key_id`."""
    with store.reading() as (connection, ledger):
        records = {record.name: record for record in read.providers(connection)}
        overrides = read.pricing_overrides(connection)
        found = read.virtual_key_id_by_hash(connection, hash_key_value(key_value), ledger) if key_value is not None else None
        if key_id is not None:
            record = read.virtual_key(connection, key_id)
            if record is None:
                raise NotFound(f"there is no virtual key {key_id!r}")
            found = record.id
        key = one_virtual_key(connection, found, ledger) if found is not None else None
    made = Models(records, {}, overrides, scoped_prices(overrides), key, nobody=key is None and key_value is not None)
    names = {provider: tuple(_names(made, books, provider)) for provider in {*store.builtin, *records}}
    return Models(records, names, overrides, made.scoped, key, made.nobody)


def _names(models: Models, books: PriceBooks, provider: str) -> list[str]:
    known = next((found for name in models.price_names(provider) if (found := books.prices.models(name))), ())
    named = {entry.model for entry in books.prices.overrides if entry.provider.lower() == provider and "*" not in entry.model}
    named |= {record.pattern for record in models.overrides if record.provider_id == provider and record.match_type == "exact"}
    if (record := models.providers.get(provider)) is not None:
        named |= {model for key in record.keys for model in key.models if "*" not in model}
    return sorted({*known, *named})
