"""`/api/providers` with their keys, and `/api/keys`. Secrets go in and never come out."""

from addons.console.api.provider_answers import ProviderAnswer, ProviderKeyAnswer, ProviderKeyList, ProviderList
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change, read
from store.config_store.build import fault_of
from store.config_store.change import ProviderKeyPatch, ProviderPatch
from store.config_store.fields import Name
from store.config_store.records import ProviderRecord
from store.config_store.shapes import Fault, Json, provider_json, provider_key_json
from store.config_store.specs import ProviderKeySpec, ProviderSpec
from store.errors import NotFound


class ProviderCreate(ProviderSpec):
    """A provider with its name, as the API takes it."""

    provider: Name


class ProvidersHandler(ConsoleHandler):
    """Every provider that can be called, configured or built in."""

    @operation("Every provider that can be called, configured or built in", answer=ProviderList)
    async def get(self) -> None:
        found = await self.on_thread(read_providers, self.context)
        self.send({"providers": found, "total": len(found)})

    @operation("Configure a provider with its keys", body=ProviderCreate, answer=ProviderAnswer)
    async def post(self) -> None:
        body = self.body_as(ProviderCreate)
        given = {name: getattr(body, name) for name in body.model_fields_set if name != "provider"}
        spec = ProviderSpec.model_construct(_fields_set=set(given), **given)
        record = await self.on_thread(change.create_provider, self.store, body.provider, spec)
        self.send(await self.on_thread(_tagged, self, record.name))


class ProviderHandler(ConsoleHandler):
    """One provider."""

    @operation("One provider", answer=ProviderAnswer)
    async def get(self, name: str) -> None:
        self.send(await self.on_thread(_tagged, self, name))

    @operation("Change a provider; a built-in one becomes configured", body=ProviderPatch, answer=ProviderAnswer)
    async def put(self, name: str) -> None:
        patch = self.body_as(ProviderPatch)
        await self.on_thread(change.update_provider, self.store, name, patch)
        self.send(await self.on_thread(_tagged, self, name))

    @operation("Forget a provider with its keys and its deployment-wide caps", answer=ProviderAnswer)
    async def delete(self, name: str) -> None:
        record = await self.on_thread(change.delete_provider, self.store, name)
        self.send(provider_json(record, self.context.store.builtin, fault_in(self.context), configured=False))


class ProviderKeysHandler(ConsoleHandler):
    """A provider's keys."""

    @operation("The keys of a provider", answer=ProviderKeyList)
    async def get(self, name: str) -> None:
        keys = await self.on_thread(self._keys, name)
        self.send({"keys": keys, "total": len(keys)})

    @operation("Add a key to a provider", body=ProviderKeySpec, answer=ProviderKeyAnswer)
    async def post(self, name: str) -> None:
        spec = self.body_as(ProviderKeySpec)
        record = await self.on_thread(change.create_provider_key, self.store, name, spec)
        self.send(provider_key_json(record, fault_in(self.context)))

    def _keys(self, name: str) -> list[Json]:
        with self.context.store.database.read() as connection:
            record = read.provider(connection, name)
        if record is None and name not in self.context.store.builtin:
            raise NotFound(f"there is no provider {name!r}")
        return [provider_key_json(key, fault_in(self.context)) for key in record.keys] if record else []


class ProviderKeyHandler(ConsoleHandler):
    """One key of a provider."""

    @operation("One key of a provider, by id or name", answer=ProviderKeyAnswer)
    async def get(self, name: str, key_id: str) -> None:
        self.send(await self.on_thread(self._key, name, key_id))

    @operation("Change a provider's key; an absent value stays", body=ProviderKeyPatch, answer=ProviderKeyAnswer)
    async def put(self, name: str, key_id: str) -> None:
        patch = self.body_as(ProviderKeyPatch)
        record = await self.on_thread(change.update_provider_key, self.store, name, key_id, patch)
        self.send(provider_key_json(record, fault_in(self.context)))

    @operation("Delete a provider's key", answer=ProviderKeyAnswer)
    async def delete(self, name: str, key_id: str) -> None:
        record = await self.on_thread(change.delete_provider_key, self.store, name, key_id)
        self.send(provider_key_json(record, fault_in(self.context)))

    def _key(self, name: str, key_id: str) -> Json:
        self.tag("provider", name)  # a key has no tag of its own: it is a part of its provider
        with self.context.store.database.read() as connection:
            keys = read.provider_keys(connection, name)
        for wanted in ("id", "name"):
            for key in keys:
                if getattr(key, wanted) == key_id:
                    return provider_key_json(key, fault_in(self.context))
        raise NotFound(f"{name} has no key {key_id!r}")


class AllKeysHandler(ConsoleHandler):
    """Every provider key there is: a bare list, as in Bifrost."""

    @operation("Every provider key there is", answer=list[ProviderKeyAnswer])
    async def get(self) -> None:
        providers = await self.on_thread(read_providers, self.context)
        self.send([key for provider in providers for key in provider["keys"]])


def _tagged(handler: ConsoleHandler, name: str) -> Json:
    store = handler.context.store
    handler.tag("provider", name)
    with store.database.read() as connection:
        record = read.provider(connection, name)
    if record is None and name not in store.builtin:
        raise NotFound(f"there is no provider {name!r}")
    shown = record or ProviderRecord(name=name, base_provider=None)
    return provider_json(shown, store.builtin, fault_in(handler.context), configured=record is not None)


def fault_in(context: ConsoleContext) -> Fault:
    """Whether a key can be used, as this process sees it: its environment and files are the workers' too."""
    return lambda key: fault_of(key, context.store.vault, context.settings.environ)


def read_providers(context: ConsoleContext) -> list[Json]:
    """Configured providers, then built-in ones that nobody has configured."""
    with context.store.database.read() as connection:
        records = read.providers(connection)
    builtin, fault = context.store.builtin, fault_in(context)
    names = {record.name for record in records}
    rest = [ProviderRecord(name=name, base_provider=None) for name in sorted(builtin) if name not in names]
    return [provider_json(record, builtin, fault, configured=True) for record in records] + [
        provider_json(record, builtin, fault, configured=False) for record in rest
    ]


ROUTES = (
    Route("/api/providers", ProvidersHandler),
    Route("/api/providers/{name}", ProviderHandler),
    Route("/api/providers/{name}/keys", ProviderKeysHandler),
    Route("/api/providers/{name}/keys/{key_id}", ProviderKeyHandler),
    Route("/api/keys", AllKeysHandler),
)
