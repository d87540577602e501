"""`/api/governance/virtual-keys`: list, make, change, rotate, delete; and the quota that a key's holder may ask for."""

from typing import Literal

from tornado.web import HTTPError

from addons.console.api.answers import Done, QuotaAnswer, VirtualKeyDone, VirtualKeyList, VirtualKeyOne
from addons.console.api.model_usage import model_usage
from addons.console.api.paging import Flag, PageQuery, list_envelope
from addons.console.api.reading import read_keys, tagged_key
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change, read
from store.config_store.build import one_virtual_key
from store.config_store.fields import Text
from store.config_store.keys import KEY_PREFIX, hash_key_value
from store.config_store.quota import read_quota
from store.config_store.read import KeyQuery
from store.config_store.specs import Spec, VirtualKeyPatch, VirtualKeySpec

_KEY_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")


class KeysQuery(PageQuery):
    """Which keys, in what order. With `export` or `from_memory` all of them come at once."""

    unimplemented = frozenset({"user_id", "for_user_assignment"})
    filters = frozenset({"search", "team_id", "customer_id", "exclude_assigned_virtual_keys"})

    search: Text = ""
    """Part of the name, in any case."""
    team_id: Text | None = None
    customer_id: Text | None = None
    sort_by: Literal["name", "created_at", "status", "budget_spent"] = "created_at"
    order: Literal["asc", "desc"] = "asc"
    export: Flag = False
    from_memory: Flag = False
    exclude_assigned_virtual_keys: Flag = False
    """Only keys of no team and no customer."""
    exclude_access_profile_managed_virtual: Flag = False
    """Without effect: no key here is managed by an access profile."""

    def wanted(self) -> KeyQuery:
        """As the store asks."""
        limit, offset = self.page()
        return KeyQuery(
            limit=None if self.export or self.from_memory else limit,
            offset=0 if self.from_memory else offset,
            search=self.search,
            team_id=self.team_id,
            customer_id=self.customer_id,
            sort_by=self.sort_by,
            descending=self.order == "desc",
            unassigned=self.exclude_assigned_virtual_keys,
        )


class KeyOneQuery(Spec):
    """`from_memory` changes nothing: what is read is what is in force."""

    from_memory: Flag = False


class VirtualKeysHandler(ConsoleHandler):
    """The list, and making a key."""

    @operation("Virtual keys with their budgets and what was spent", query=KeysQuery, answer=VirtualKeyList)
    async def get(self) -> None:
        query = self.query_as(KeysQuery).wanted()
        found, total = await self.on_thread(read_keys, self.context, query)
        self.send(list_envelope("virtual_keys", found, total=total, limit=query.limit, offset=query.offset))

    @operation("Make a virtual key; the answer shows its value", body=VirtualKeySpec, answer=VirtualKeyDone)
    async def post(self) -> None:
        spec = self.body_as(VirtualKeySpec)
        record = await self.on_thread(change.create_virtual_key, self.store, spec)
        made = await self.on_thread(tagged_key, self, record.id, record.value)
        self.send({"message": "Virtual key created successfully", "virtual_key": made})


class VirtualKeyHandler(ConsoleHandler):
    """One key, by id or name."""

    @operation("One virtual key, by id or name", query=KeyOneQuery, answer=VirtualKeyOne)
    async def get(self, key_id: str) -> None:
        self.query_as(KeyOneQuery)
        self.send({"virtual_key": await self.on_thread(tagged_key, self, key_id)})

    @operation("Change a virtual key: absent fields stay, a list is the whole set", body=VirtualKeyPatch, answer=VirtualKeyDone)
    async def put(self, key_id: str) -> None:
        patch = self.body_as(VirtualKeyPatch)
        record = await self.on_thread(change.update_virtual_key, self.store, key_id, patch)
        made = await self.on_thread(tagged_key, self, record.id)
        self.send({"message": "Virtual key updated successfully", "virtual_key": made})

    @operation("Delete a virtual key with its caps; what it spent stays in the books", answer=Done)
    async def delete(self, key_id: str) -> None:
        await self.on_thread(change.delete_virtual_key, self.store, key_id)
        self.send({"message": "Virtual key deleted successfully"})


class QuotaHandler(ConsoleHandler):
    """What a key's holder may know of its caps. The key itself is the credential."""

    needs_sign_in = False
    takes_virtual_key = True

    @operation("What the holder of a virtual key may know of its caps", answer=QuotaAnswer)
    async def get(self) -> None:
        value = self._presented()
        if value is None:
            raise HTTPError(401, "send the virtual key whose quota you want to see, in x-bf-vk or as a Bearer token")
        self.send(await self.on_thread(self._quota, value))

    def _quota(self, value: str) -> object:
        store = self.context.store
        with store.reading() as (governance, ledger):
            key_id = read.virtual_key_id_by_hash(governance, hash_key_value(value), ledger, now_ms=store.clock.now_ms())
            key = one_virtual_key(governance, key_id, ledger) if key_id else None
        if key is None:
            raise HTTPError(401, "this virtual key does not exist, or has been replaced")
        logs = self.context.logs
        return read_quota(store, key, model_usage(logs.database, key) if logs is not None else None)

    def _presented(self) -> str | None:
        headers = self.request.headers
        if named := headers.get("x-bf-vk"):
            return named
        scheme, _, credential = headers.get("Authorization", "").partition(" ")
        candidates = [credential.strip() if scheme.lower() == "bearer" else "", *(headers.get(name, "") for name in _KEY_HEADERS)]
        return next((value for value in candidates if value.lower().startswith(KEY_PREFIX)), None)


ROUTES = (
    Route("/api/governance/virtual-keys", VirtualKeysHandler),
    Route("/api/governance/virtual-keys/quota", QuotaHandler),
    Route("/api/governance/virtual-keys/{key_id}", VirtualKeyHandler),
)
