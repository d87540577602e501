"""`/api/governance/model-configs`: caps on models, for everybody or inside one virtual key: list, make, change, delete."""

from collections.abc import Sequence
from typing import TypedDict

from addons.console.api.answers import Caps, Done, Instant, Page
from addons.console.api.paging import Flag, PageQuery, list_envelope
from addons.console.api.reading import states_of
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change, read
from store.config_store.fields import Text
from store.config_store.model_owners import scope_of
from store.config_store.read_models import ModelConfigQuery, model_config, model_config_page
from store.config_store.records import ModelConfigRecord
from store.config_store.shapes import Json, by_owner, model_config_json
from store.config_store.specs import Spec
from store.config_store.specs_models import ModelConfigPatch, ModelConfigSpec, ModelScope
from store.database import Connection
from store.errors import NotFound
from store.ledger.types import Scope


class ModelConfigsQuery(PageQuery):
    """Which model configs, in the order of their making. With `from_memory` all of them come at once."""

    filters = frozenset({"search", "scope", "scope_id", "provider"})

    search: Text = ""
    """Part of the model's name, in any case."""
    scope: ModelScope | None = None
    scope_id: Text = ""
    provider: Text = ""
    from_memory: Flag = False

    def wanted(self) -> ModelConfigQuery:
        """As the store asks."""
        limit, offset = self.page()
        return ModelConfigQuery(
            limit=None if self.from_memory else limit,
            offset=0 if self.from_memory else offset,
            search=self.search,
            scope=self.scope,
            scope_id=self.scope_id or None,
            provider=self.provider or None,
        )


class ModelConfigOneQuery(Spec):
    """`from_memory` changes nothing: what is read is what is in force."""

    from_memory: Flag = False


class ModelConfigAnswer(Caps):
    """A model config. `scope_name` is the name of its virtual key; `budget_id` the first of its budgets."""

    id: str
    model_name: str
    provider: str | None
    scope: ModelScope
    scope_id: str | None
    scope_name: str | None
    calendar_aligned: bool
    budget_id: str | None
    rate_limit_id: str | None
    created_at: Instant
    updated_at: Instant


class ModelConfigList(Page):
    """A page of model configs, or all."""

    model_configs: list[ModelConfigAnswer]


class ModelConfigOne(TypedDict):
    """One model config."""

    model_config: ModelConfigAnswer


class ModelConfigDone(Done):
    """The model config as it is now."""

    model_config: ModelConfigAnswer


class ModelConfigsHandler(ConsoleHandler):
    """The list, and making one."""

    @operation("Caps on models with what was spent", query=ModelConfigsQuery, answer=ModelConfigList)
    async def get(self) -> None:
        query = self.query_as(ModelConfigsQuery).wanted()
        found, total = await self.on_thread(_page, self.context, query)
        self.send(list_envelope("model_configs", found, total=total, limit=query.limit, offset=query.offset))

    @operation("Cap a model, for everybody or inside one virtual key", body=ModelConfigSpec, answer=ModelConfigDone)
    async def post(self) -> None:
        spec = self.body_as(ModelConfigSpec)
        record = await self.on_thread(change.create_model_config, self.store, spec)
        made = await self.on_thread(_tagged, self, record.id)
        self.send({"message": "Model config created successfully", "model_config": made})


class ModelConfigHandler(ConsoleHandler):
    """One model config."""

    @operation("One model config", query=ModelConfigOneQuery, answer=ModelConfigOne)
    async def get(self, mc_id: str) -> None:
        self.query_as(ModelConfigOneQuery)
        self.send({"model_config": await self.on_thread(_tagged, self, mc_id)})

    @operation("Change a model config's caps; whom it binds stays", body=ModelConfigPatch, answer=ModelConfigDone)
    async def put(self, mc_id: str) -> None:
        patch = self.body_as(ModelConfigPatch)
        record = await self.on_thread(change.update_model_config, self.store, mc_id, patch)
        made = await self.on_thread(_tagged, self, record.id)
        self.send({"message": "Model config updated successfully", "model_config": made})

    @operation("Delete a model config with its caps; what was spent stays in the books", answer=Done)
    async def delete(self, mc_id: str) -> None:
        await self.on_thread(change.delete_model_config, self.store, mc_id)
        self.send({"message": "Model config deleted successfully"})


def _tagged(handler: ConsoleHandler, config_id: str) -> Json:
    """One with its entity tag, which is read first: with an older tag nobody overwrites what he has not seen."""
    handler.tag("model_config", config_id)
    with handler.context.store.reading() as (connection, ledger):
        record = model_config(connection, config_id)
        if record is None:
            raise NotFound(f"there is no model config {config_id!r}")
        return _shown(handler.context, connection, ledger, (record,))[0]


def _page(context: ConsoleContext, query: ModelConfigQuery) -> tuple[list[Json], int]:
    with context.store.reading() as (connection, ledger):
        records, total = model_config_page(connection, query)
        return _shown(context, connection, ledger, records), total


def _shown(context: ConsoleContext, connection: Connection, ledger: Connection, records: Sequence[ModelConfigRecord]) -> list[Json]:
    ids = [
        cap_id
        for scope in (Scope.MODEL, Scope.VIRTUAL_KEY_MODEL)
        for cap_id in read.cap_ids_of(ledger, scope, [record.id for record in records if scope_of(record) is scope])
    ]
    states = by_owner(states_of(context, ledger, ids))
    keys = read.virtual_keys(connection, list({record.scope_id for record in records if record.scope_id}))
    names = {key.id: key.name for key in keys}
    return [model_config_json(record, states, names.get(record.scope_id or "")) for record in records]


ROUTES = (
    Route("/api/governance/model-configs", ModelConfigsHandler),
    Route("/api/governance/model-configs/{mc_id}", ModelConfigHandler),
)
