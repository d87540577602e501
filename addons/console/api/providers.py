"""`/api/providers` with their keys, and `/api/keys`. Secrets go in and never come out."""

from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route
from store.config_store import change, read
from store.config_store.change import ProviderKeyPatch, ProviderPatch
from store.config_store.fields import Name
from store.config_store.records import ProviderRecord
from store.config_store.shapes import Json, provider_json, provider_key_json
from store.config_store.specs import ProviderKeySpec, ProviderSpec
from store.errors import NotFound


class ProviderCreate(ProviderSpec):
    """A provider with its name, as the API takes it."""

    provider: Name


class ProvidersHandler(ConsoleHandler):
    """Every provider that can be called, configured or built in."""

    async def get(self) -> None:
        found = await self.on_thread(read_providers, self.context)
        self.send({"providers": found, "total": len(found)})

    async def post(self) -> None:
        body = self.body_as(ProviderCreate)
        given = {name: getattr(body, name) for name in body.model_fields_set if name != "provider"}
        spec = ProviderSpec.model_construct(_fields_set=set(given), **given)
        record = await self.on_thread(change.create_provider, self.context.store, body.provider, spec)
        self.send(provider_json(record, self.context.store.builtin, configured=True))


class ProviderHandler(ConsoleHandler):
    """One provider."""

    async def get(self, name: str) -> None:
        for provider in await self.on_thread(read_providers, self.context):
            if provider["name"] == name:
                self.send(provider)
                return
        raise NotFound(f"there is no provider {name!r}")

    async def put(self, name: str) -> None:
        patch = self.body_as(ProviderPatch)
        record = await self.on_thread(change.update_provider, self.context.store, name, patch)
        self.send(provider_json(record, self.context.store.builtin, configured=True))

    async def delete(self, name: str) -> None:
        record = await self.on_thread(change.delete_provider, self.context.store, name)
        self.send(provider_json(record, self.context.store.builtin, configured=False))


class ProviderKeysHandler(ConsoleHandler):
    """A provider's keys."""

    async def get(self, name: str) -> None:
        keys = await self.on_thread(self._keys, name)
        self.send({"keys": keys, "total": len(keys)})

    async def post(self, name: str) -> None:
        spec = self.body_as(ProviderKeySpec)
        record = await self.on_thread(change.create_provider_key, self.context.store, name, spec)
        self.send(provider_key_json(record))

    def _keys(self, name: str) -> list[Json]:
        with self.context.store.database.read() as connection:
            record = read.provider(connection, name)
        if record is None and name not in self.context.store.builtin:
            raise NotFound(f"there is no provider {name!r}")
        return [provider_key_json(key) for key in record.keys] if record else []


class ProviderKeyHandler(ConsoleHandler):
    """One key of a provider."""

    async def get(self, name: str, key_id: str) -> None:
        for provider in await self.on_thread(read_providers, self.context):
            for key in provider["keys"] if provider["name"] == name else ():
                if key_id in (key["id"], key["name"]):
                    self.send(key)
                    return
        raise NotFound(f"{name} has no key {key_id!r}")

    async def put(self, name: str, key_id: str) -> None:
        patch = self.body_as(ProviderKeyPatch)
        record = await self.on_thread(change.update_provider_key, self.context.store, name, key_id, patch)
        self.send(provider_key_json(record))

    async def delete(self, name: str, key_id: str) -> None:
        record = await self.on_thread(change.delete_provider_key, self.context.store, name, key_id)
        self.send(provider_key_json(record))


class AllKeysHandler(ConsoleHandler):
    """Every provider key there is: a bare list, as in Bifrost."""

    async def get(self) -> None:
        providers = await self.on_thread(read_providers, self.context)
        self.send([key for provider in providers for key in provider["keys"]])


def read_providers(context: ConsoleContext) -> list[Json]:
    """Configured providers, then built-in ones that nobody has configured."""
    with context.store.database.read() as connection:
        records = read.providers(connection)
    builtin = context.store.builtin
    names = {record.name for record in records}
    rest = [ProviderRecord(name=name, base_provider=None) for name in sorted(builtin) if name not in names]
    return [provider_json(record, builtin, configured=True) for record in records] + [
        provider_json(record, builtin, configured=False) for record in rest
    ]


ROUTES = (
    Route("/api/providers", ProvidersHandler),
    Route("/api/providers/{name}", ProviderHandler),
    Route("/api/providers/{name}/keys", ProviderKeysHandler),
    Route("/api/providers/{name}/keys/{key_id}", ProviderKeyHandler),
    Route("/api/keys", AllKeysHandler),
)
