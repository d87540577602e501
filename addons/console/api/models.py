"""`/api/models`: which models can be called, what they cost, how much they take."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, TypedDict

from pydantic import Field, WithJsonSchema

from addons.console.api.log_query import List
from addons.console.api.paging import Flag, PageQuery, Whole
from addons.console.handler import ConsoleHandler
from addons.console.model_list import CHATS, Models, load_models
from addons.console.price_books import PriceBooks
from addons.console.routes import Route, operation
from store.config_store.specs import Spec
from store.errors import NotFound
from store.prices.limits import base_name
from store.prices.types import ModelPrice, Rates

MAX_NAMES = 10_000
Price = Annotated[Decimal, WithJsonSchema({"type": "number", "minimum": 0})]
_CLASSES = {
    "input": "input_picos",
    "output": "output_picos",
    "cache_read": "cache_read_picos",
    "cache_write": "cache_write_picos",
    "cache_write_1h": "cache_write_1h_picos",
    "input_audio": "input_audio_picos",
    "cache_read_audio": "cache_read_audio_picos",
    "output_audio": "output_audio_picos",
    "input_image": "input_image_picos",
    "cache_read_image": "cache_read_image_picos",
    "output_image": "output_image_picos",
    "input_video": "input_video_picos",
    "output_video": "output_video_picos",
    "output_reasoning": "output_reasoning_picos",
}
_APIECE = {"web_search": "web_search_picos", "request": "request_picos"}


class ModelJson(TypedDict):
    """A model that can be called."""

    name: str
    provider: str
    accessible_by_keys: list[str]
    """Ids of the provider keys that may be used for it."""


class ModelList(TypedDict):
    """Models by provider and name; `total` counts all that fit, however many are shown."""

    models: list[ModelJson]
    total: int


class PriceTier(TypedDict):
    """Prices that hold when the whole input is above a number of tokens; -1: for every call."""

    above_input_tokens: int
    usd_per_million: dict[str, Price]
    usd_apiece: dict[str, Price]


class ModelDetails(TypedDict):
    """A model with its prices at this moment, for everybody's ordinary calls, and its limits. Null: not known."""

    name: str
    provider: str
    accessible_by_keys: list[str]
    context_length: int | None
    max_output_tokens: int | None
    input_cost_per_token: Price | None
    output_cost_per_token: Price | None
    cache_read_input_token_cost: Price | None
    cache_creation_input_token_cost: Price | None
    tiers: list[PriceTier]
    is_free: bool
    price_source: str | None
    pricing_override_ids: list[str]
    """Every override whose pattern fits, also those that are for some callers alone."""


class ModelDetailsList(TypedDict):
    """A page of models with their prices."""

    models: list[ModelDetails]
    total: int
    limit: int
    offset: int
    price_data: str
    """Name and version of the price data."""


class BaseModels(TypedDict):
    """Names without vendor and date, each once."""

    models: list[str]
    total: int


class ModelParameters(TypedDict):
    """How much a model takes and gives, in tokens. Null: not known."""

    model: str
    provider: str
    context_length: int | None
    max_input_tokens: int | None
    max_output_tokens: int | None


class ModelsQuery(Spec):
    """Which models. With the header `x-bf-vk`: those that this virtual key may use."""

    provider: str = ""
    query: str = ""
    """Part of the name, any case."""
    search: str = ""
    """The same."""
    keys: List = ()
    """Ids of provider keys, of which one must be usable."""
    virtual_key_id: str | None = None
    """As the header, by id or name."""
    unfiltered: Flag = False
    """Whatever the header says."""
    limit: Whole = None


class DetailsQuery(PageQuery, ModelsQuery):
    """Which page of them: 25 unless told otherwise, at most 100."""


class ParametersQuery(Spec):
    """`model` may be `provider/name`."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    provider: str = ""


class _ModelHandler(ConsoleHandler):
    """What the addresses share."""

    async def found(self, asked: ModelsQuery) -> tuple[Models, PriceBooks, list[tuple[str, str]]]:
        """The models, the books, and the (provider, model) that fit."""
        value = None if asked.unfiltered else self.request.headers.get("x-bf-vk") or None
        key_id = None if asked.unfiltered else asked.virtual_key_id

        def look() -> tuple[Models, PriceBooks, list[tuple[str, str]]]:
            books = self.context.prices()
            models = load_models(self.context.store, books, key_value=value, key_id=key_id)
            return models, books, list(models.pairs(asked.provider, asked.search or asked.query, asked.keys))

        return await self.on_thread(look)


class ModelsHandler(_ModelHandler):
    """The names."""

    @operation("List models that can be called", query=ModelsQuery, answer=ModelList)
    async def get(self) -> None:
        asked = self.query_as(ModelsQuery)
        models, _, pairs = await self.found(asked)
        shown = pairs[: asked.limit or MAX_NAMES]
        listed = [
            {"name": model, "provider": provider, "accessible_by_keys": models.key_ids(provider, model)}
            for provider, model in shown
        ]
        self.send({"models": listed, "total": len(pairs)})


class ModelDetailsHandler(_ModelHandler):
    """Prices and limits."""

    @operation("List models with their prices and limits", query=DetailsQuery, answer=ModelDetailsList)
    async def get(self) -> None:
        asked = self.query_as(DetailsQuery)
        models, books, pairs = await self.found(asked)
        limit, offset = min(asked.limit or 25, 100), asked.offset or 0
        now_ms = self.context.store.clock.now_ms()
        shown = pairs[offset : offset + limit]
        details = await self.on_thread(lambda: [details_json(models, books, *pair, now_ms) for pair in shown])
        self.send({"models": details, "total": len(pairs), "limit": limit, "offset": offset, "price_data": books.prices.source})


class BaseModelsHandler(_ModelHandler):
    """Names alone."""

    @operation("List model names without vendor and date", query=ModelsQuery, answer=BaseModels)
    async def get(self) -> None:
        asked = self.query_as(ModelsQuery)
        _, _, pairs = await self.found(asked)
        names = sorted({base_name(model) for _, model in pairs})
        self.send({"models": names[: asked.limit or MAX_NAMES], "total": len(names)})


class ModelParametersHandler(ConsoleHandler):
    """Limits of one model."""

    @operation("Read the limits of a model", query=ParametersQuery, answer=ModelParameters)
    async def get(self) -> None:
        asked = self.query_as(ParametersQuery)
        self.send(await self.on_thread(self._parameters, asked.provider, asked.model))

    def _parameters(self, provider: str, model: str) -> dict[str, Any]:
        books = self.context.prices()
        models = load_models(self.context.store, books)
        before, slash, after = model.partition("/")
        choices = [(provider, model)] if provider else [(name, model) for name in sorted(models.names)]
        if not provider and slash and before in models.names:
            choices.insert(0, (before, after))
        for name, wanted in choices:
            limits = next(
                (
                    found
                    for known_as in models.price_names(name)
                    if (found := books.limits.limits(known_as, wanted)).context_tokens or found.max_output_tokens
                ),
                None,
            )
            if limits is not None:
                return {
                    "model": wanted,
                    "provider": name,
                    "context_length": limits.context_tokens,
                    "max_input_tokens": limits.context_tokens,
                    "max_output_tokens": limits.max_output_tokens,
                }
        raise NotFound(f"nothing is known of the limits of model {model[:200]!r}")


def details_json(models: Models, books: PriceBooks, provider: str, model: str, now_ms: int) -> dict[str, Any]:
    """A model's price for everybody: overrides for some callers, keys or tiers of service are not in it."""
    patch = next((found for kind in CHATS if (found := models.scoped.find("", provider, "", model, kind)) is not None), None)
    names = models.price_names(provider)
    known_as = next((name for name in names if books.prices.price(name, model, now_ms) is not None), names[0])
    price = books.prices.price(known_as, model, now_ms, patch=patch)
    limits = books.limits.limits(known_as, model)
    rates = price.tiers[0].rates if price is not None else None
    return {
        "name": model,
        "provider": provider,
        "accessible_by_keys": models.key_ids(provider, model),
        "context_length": limits.context_tokens,
        "max_output_tokens": limits.max_output_tokens,
        "input_cost_per_token": _usd(rates, "input_picos"),
        "output_cost_per_token": _usd(rates, "output_picos"),
        "cache_read_input_token_cost": _usd(rates, "cache_read_picos"),
        "cache_creation_input_token_cost": _usd(rates, "cache_write_picos"),
        "tiers": _tiers(price),
        "is_free": price is not None and price.is_zero,
        "price_source": price.source if price is not None else None,
        "pricing_override_ids": [
            record.id
            for record in models.overrides
            if record.provider_id in (None, provider) and _fits(record.pattern, record.match_type, model)
        ],
    }


def _tiers(price: ModelPrice | None) -> list[dict[str, Any]]:
    return [
        {
            "above_input_tokens": tier.above_input_tokens,
            "usd_per_million": _prices(tier.rates, _CLASSES, -6),
            "usd_apiece": _prices(tier.rates, _APIECE, -12),
        }
        for tier in (price.tiers if price is not None else ())
    ]


def _prices(rates: Rates, classes: Mapping[str, str], exponent: int) -> dict[str, Decimal]:
    return {name: _plain(picos, exponent) for name, field in classes.items() if (picos := getattr(rates, field)) is not None}


def _usd(rates: Rates | None, field: str) -> Decimal | None:
    picos = getattr(rates, field) if rates is not None else None
    return None if picos is None else _plain(picos, -12)


def _plain(picos: int, exponent: int) -> Decimal:
    """Exact, without idle zeros; never with an exponent above zero."""
    exact = Decimal(picos).scaleb(exponent)
    short = exact.normalize()
    return short if short.as_tuple().exponent <= 0 else exact.quantize(Decimal(1))  # type: ignore[operator]


def _fits(pattern: str, match_type: str, model: str) -> bool:
    wanted, name = pattern.lower(), model.lower()
    return name.startswith(wanted.removesuffix("*")) if match_type == "wildcard" else name == wanted


ROUTES = (
    Route("/api/models", ModelsHandler),
    Route("/api/models/details", ModelDetailsHandler),
    Route("/api/models/base", BaseModelsHandler),
    Route("/api/models/parameters", ModelParametersHandler),
)
