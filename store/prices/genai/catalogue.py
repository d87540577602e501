"""Finds a model of the genai-prices data by a provider's id and any name callers use for the model."""

import importlib.machinery
import importlib.util
import re
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from store.prices.genai.types import ModelInfo, Provider

PACKAGE = "genai-prices"
_COMPACT_DATE = re.compile(r"-(20\d\d)(\d\d)(\d\d)(?=-|:|$)")


class Found(NamedTuple):
    """A model, and whether it is the provider's own entry (variants of a borrowed one do not hold)."""

    model: ModelInfo
    own: bool


class Catalogue:
    """The providers and models of the data. Matching is by the data's own rules; nothing is remembered about names asked for."""

    def __init__(self, providers: list[Provider], data_version: str) -> None:
        self.version = data_version
        self._by_id = {provider.id: provider for provider in providers}

    def has_provider(self, provider_id: str) -> bool:
        return provider_id in self._by_id

    def providers(self) -> tuple[Provider, ...]:
        """All providers, in the data's order."""
        return tuple(self._by_id.values())

    def find(self, provider_id: str, reference: str) -> Found | None:
        """The first model that matches `reference`, the provider's own before those of providers it borrows from."""
        provider = self._by_id.get(provider_id)
        if provider is None:
            return None
        lowered = reference.lower()
        found = self._match(provider, lowered)
        if found is None and (dashed := _dash_dates(lowered)) != lowered:
            found = self._match(provider, dashed)
        return found

    def _match(self, provider: Provider, reference: str) -> Found | None:
        for model in provider.models:
            if model.match.is_match(reference):
                return Found(model, own=True)
        for lender_id in provider.fallback_ids:
            lender = self._by_id.get(lender_id)
            for model in lender.models if lender is not None else ():
                if model.match.is_match(reference):
                    return Found(model, own=False)
        return None


@cache
def bundled() -> Catalogue:
    """The data of the installed package. Raises ModuleNotFoundError when it is not installed."""
    outer = importlib.util.find_spec("genai_prices")
    if outer is None or not outer.submodule_search_locations:
        raise ModuleNotFoundError("genai_prices is not installed", name="genai_prices")
    path = Path(outer.submodule_search_locations[0]) / "data.py"
    name = f"{__package__}.data"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    if spec is None:
        raise ModuleNotFoundError("genai_prices has no data module", name="genai_prices.data")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return Catalogue(module.providers, f"{PACKAGE} {version(PACKAGE)}")


def _dash_dates(reference: str) -> str:
    """`gpt-5-20250807` as `gpt-5-2025-08-07`: some routers write dates without dashes. Impossible dates are left alone."""

    def dashed(found: re.Match[str]) -> str:
        try:
            return f"-{date(*(int(part) for part in found.groups()))}"
        except ValueError:
            return found[0]

    return _COMPACT_DATE.sub(dashed, reference)
