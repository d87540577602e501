"""`/api/governance/virtual-keys`: list, make, change, rotate, delete; and the quota that a key's holder may ask for."""

from typing import Literal, cast

from tornado.web import HTTPError

from addons.console.api.paging import list_envelope, page_asked
from addons.console.api.reading import read_key, read_keys
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route
from store.config_store import change, read
from store.config_store.build import one_virtual_key
from store.config_store.fields import Id
from store.config_store.keys import KEY_PREFIX, hash_key_value
from store.config_store.quota import read_quota
from store.config_store.specs import Spec, VirtualKeyPatch, VirtualKeySpec
from store.errors import StoreUnavailable, UserError

_FILTERS = ("search", "customer_id", "team_id")
_SORTS = ("name", "created_at", "status")
_KEY_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")


class RotateMany(Spec):
    """Which keys get new values."""

    ids: tuple[Id, ...]


class VirtualKeysHandler(ConsoleHandler):
    """The list, and making a key."""

    async def get(self) -> None:
        page = page_asked(self, *_FILTERS)
        limit, offset = page if page is not None else (None, 0)
        sort_by = self.get_query_argument("sort_by", "created_at")
        if sort_by not in _SORTS:
            raise UserError(f"sort_by: must be one of {', '.join(_SORTS)}")
        query = read.KeyQuery(
            limit=None if self.get_query_argument("export", "") == "true" else limit,
            offset=offset,
            search=self.get_query_argument("search", ""),
            team_id=self.get_query_argument("team_id", None),
            customer_id=self.get_query_argument("customer_id", None),
            sort_by=cast(Literal["name", "created_at", "status"], sort_by),
            descending=self.get_query_argument("order", "asc") == "desc",
        )
        found, total = await self.on_thread(read_keys, self.context, query)
        self.send(list_envelope("virtual_keys", found, total=total, limit=query.limit, offset=offset))

    async def post(self) -> None:
        spec = self.body_as(VirtualKeySpec)
        record = await self.on_thread(change.create_virtual_key, self.context.store, spec)
        made = await self.on_thread(read_key, self.context, record.id, record.value)
        self.send({"message": "Virtual key created successfully", "virtual_key": made})


class VirtualKeyHandler(ConsoleHandler):
    """One key, by id or name."""

    async def get(self, key_id: str) -> None:
        self.send({"virtual_key": await self.on_thread(read_key, self.context, key_id)})

    async def put(self, key_id: str) -> None:
        patch = self.body_as(VirtualKeyPatch)
        record = await self.on_thread(change.update_virtual_key, self.context.store, key_id, patch)
        made = await self.on_thread(read_key, self.context, record.id)
        self.send({"message": "Virtual key updated successfully", "virtual_key": made})

    async def delete(self, key_id: str) -> None:
        await self.on_thread(change.delete_virtual_key, self.context.store, key_id)
        self.send({"message": "Virtual key deleted successfully"})


class RotateKeyHandler(ConsoleHandler):
    """A new value for one key."""

    async def post(self, key_id: str) -> None:
        record = await self.on_thread(change.rotate_virtual_key, self.context.store, key_id)
        made = await self.on_thread(read_key, self.context, record.id, record.value)
        self.send({"message": "Virtual key rotated successfully", "virtual_key": made})


class RotateKeysHandler(ConsoleHandler):
    """New values for several keys; those that fail are named with the reason."""

    async def post(self) -> None:
        wanted = self.body_as(RotateMany).ids
        if not wanted:
            raise UserError("ids: names no key")
        made, errors = [], {}
        for key_id in dict.fromkeys(wanted):
            try:
                record = await self.on_thread(change.rotate_virtual_key, self.context.store, key_id)
                made.append(await self.on_thread(read_key, self.context, record.id, record.value))
            except (UserError, StoreUnavailable) as error:
                errors[key_id] = str(error)
        if not made:
            raise HTTPError(500, "; ".join(errors.values()).replace("%", "%%"))
        answer = {"message": "Virtual keys rotated successfully", "virtual_keys": made}
        self.send({**answer, "errors": errors} if errors else answer)


class QuotaHandler(ConsoleHandler):
    """What a key's holder may know of its caps. The key itself is the credential."""

    needs_sign_in = False

    async def get(self) -> None:
        value = self._presented()
        if value is None:
            raise HTTPError(401, "send the virtual key whose quota you want to see, in x-bf-vk or as a Bearer token")
        self.send(await self.on_thread(self._quota, value))

    def _quota(self, value: str) -> object:
        store = self.context.store
        with store.reading() as (governance, ledger):
            key_id = read.virtual_key_id_by_hash(governance, hash_key_value(value), ledger)
            key = one_virtual_key(governance, key_id, ledger) if key_id else None
        if key is None:
            raise HTTPError(401, "this virtual key does not exist, or has been replaced")
        return read_quota(store, key)

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
    Route("/api/governance/virtual-keys/rotate", RotateKeysHandler),
    Route("/api/governance/virtual-keys/{key_id}/rotate", RotateKeyHandler),
    Route("/api/governance/virtual-keys/{key_id}", VirtualKeyHandler),
)
