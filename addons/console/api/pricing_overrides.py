"""`/api/governance/pricing-overrides`: list, make, change, delete prices of one's own."""

from decimal import Decimal
from typing import Any, Literal, TypedDict

from addons.console.api.paging import PageQuery, list_envelope
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import iso_utc
from store.config_store.change_prices import (
    KIND,
    create_pricing_override,
    delete_pricing_override,
    plain_price,
    update_pricing_override,
)
from store.config_store.price_overrides import compiled
from store.config_store.read_prices import OverrideQuery, override_page, pricing_override
from store.config_store.records import PricingOverrideRecord
from store.config_store.specs_prices import ID_NAMES, PricingOverridePatch, PricingOverrideSpec, is_large, per_million
from store.errors import NotFound


class PricingOverrideJson(TypedDict):
    """An override as the API shows it. Prices are exact decimals in USD."""

    id: str
    name: str
    scope_kind: str
    virtual_key_id: str | None
    provider_id: str | None
    provider_key_id: str | None
    match_type: Literal["exact", "wildcard"]
    pattern: str
    request_types: list[str]
    patch: dict[str, float]
    """USD per single token, search or request."""
    patch_per_million_usd: dict[str, float]
    """The prices per token once more, per million tokens."""
    confirm_high_prices: bool
    complete: bool
    """Whether it prices a model that the price data does not know."""
    created_at: str
    updated_at: str


class PricingOverrideAnswer(TypedDict):
    """One override."""

    pricing_override: PricingOverrideJson


class PricingOverrideWritten(TypedDict):
    """What was done, and the override as it is now."""

    message: str
    pricing_override: PricingOverrideJson


class PricingOverrideList(TypedDict):
    """A page of overrides, oldest first."""

    pricing_overrides: list[PricingOverrideJson]
    count: int
    total_count: int
    limit: int
    offset: int


class Message(TypedDict):
    """What was done."""

    message: str


class OverridesQuery(PageQuery):
    """Which overrides."""

    filters = frozenset({"search", "scope_kind", *ID_NAMES})

    search: str = ""
    """Part of the name or the pattern."""
    scope_kind: str | None = None
    virtual_key_id: str | None = None
    provider_id: str | None = None
    provider_key_id: str | None = None


class PricingOverridesHandler(ConsoleHandler):
    """The list, and making one."""

    @operation("List pricing overrides", query=OverridesQuery, answer=PricingOverrideList)
    async def get(self) -> None:
        asked = self.query_as(OverridesQuery)
        limit, offset = asked.page()
        equal = {name: value for name in ("scope_kind", *ID_NAMES) if (value := getattr(asked, name))}
        found, total = await self.on_thread(self._page, OverrideQuery(limit, offset, asked.search, equal))
        shown = [override_json(record) for record in found]
        self.send(list_envelope("pricing_overrides", shown, total=total, limit=limit, offset=offset))

    @operation("Create a pricing override", body=PricingOverrideSpec, answer=PricingOverrideWritten, status=201)
    async def post(self) -> None:
        record = await self.on_thread(create_pricing_override, self.store, self.body_as(PricingOverrideSpec))
        await self.on_thread(self.tag, KIND, record.id)
        self.send({"message": "Pricing override created successfully", KIND: override_json(record)}, 201)

    def _page(self, query: OverrideQuery) -> tuple[tuple[PricingOverrideRecord, ...], int]:
        with self.context.store.reading() as (connection, _):
            return override_page(connection, query)


class PricingOverrideHandler(ConsoleHandler):
    """One override."""

    @operation("Read a pricing override", answer=PricingOverrideAnswer)
    async def get(self, override_id: str) -> None:
        record = await self.on_thread(self._one, override_id)
        await self.on_thread(self.tag, KIND, override_id)
        self.send({KIND: override_json(record)})

    @operation("Change a pricing override", body=PricingOverridePatch, answer=PricingOverrideWritten)
    async def put(self, override_id: str) -> None:
        record = await self.on_thread(update_pricing_override, self.store, override_id, self.body_as(PricingOverridePatch))
        await self.on_thread(self.tag, KIND, record.id)
        self.send({"message": "Pricing override updated successfully", KIND: override_json(record)})

    @operation("Delete a pricing override", answer=Message)
    async def delete(self, override_id: str) -> None:
        await self.on_thread(delete_pricing_override, self.store, override_id)
        self.send({"message": "Pricing override deleted successfully"})

    def _one(self, override_id: str) -> PricingOverrideRecord:
        with self.context.store.reading() as (connection, _):
            record = pricing_override(connection, override_id)
        if record is None:
            raise NotFound(f"there is no pricing override {override_id!r}")
        return record


def override_json(record: PricingOverrideRecord) -> dict[str, Any]:
    """An override with its prices per token and per million tokens."""
    prices = {name: Decimal(usd) for name, usd in record.patch}
    scoped = compiled(record)
    return {
        "id": record.id,
        "name": record.name,
        "scope_kind": record.scope_kind,
        "virtual_key_id": record.virtual_key_id,
        "provider_id": record.provider_id,
        "provider_key_id": record.provider_key_id,
        "match_type": record.match_type,
        "pattern": record.pattern,
        "request_types": list(record.request_types),
        "patch": prices,
        "patch_per_million_usd": {
            name: Decimal(plain_price(f"{million:f}"))
            for name, usd in prices.items()
            if (million := per_million(name, usd)) is not None
        },
        "confirm_high_prices": any(is_large(name, usd) for name, usd in prices.items()),
        "complete": scoped is not None and scoped.patch.is_complete,
        "created_at": iso_utc(record.created_ms),
        "updated_at": iso_utc(record.updated_ms),
    }


ROUTES = (
    Route("/api/governance/pricing-overrides", PricingOverridesHandler),
    Route("/api/governance/pricing-overrides/{override_id}", PricingOverrideHandler),
)
