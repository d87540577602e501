"""`/api/governance/teams` and `/customers`: list, make, change, delete."""

from addons.console.api.paging import list_envelope, page_asked
from addons.console.api.reading import read_group, read_groups
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route
from store.config_store import change
from store.config_store.records import GroupRecord
from store.config_store.specs import CustomerSpec, GroupPatch, TeamSpec
from store.ledger.types import Scope


class GroupsHandler(ConsoleHandler):
    """The list of teams or customers, and making one."""

    def initialize(self, scope: Scope) -> None:
        """`scope` says which of the two."""
        self.scope = scope

    async def get(self) -> None:
        found = await self.on_thread(read_groups, self.context, self.scope)
        if search := self.get_query_argument("search", "").lower():
            found = [group for group in found if search in group["name"].lower()]
        if (customer_id := self.get_query_argument("customer_id", None)) is not None:
            found = [group for group in found if group.get("customer_id") == customer_id]
        page = page_asked(self, "search", "customer_id")
        if page is None:
            self.send(list_envelope(f"{self.scope.value}s", found))
            return
        limit, offset = page
        shown = found[offset : offset + limit]
        self.send(list_envelope(f"{self.scope.value}s", shown, total=len(found), limit=limit, offset=offset))

    async def post(self) -> None:
        record: GroupRecord
        if self.scope is Scope.TEAM:
            record = await self.on_thread(change.create_team, self.context.store, self.body_as(TeamSpec))
        else:
            record = await self.on_thread(change.create_customer, self.context.store, self.body_as(CustomerSpec))
        made = await self.on_thread(read_group, self.context, self.scope, record.id)
        self.send({"message": f"{self.scope.value.capitalize()} created successfully", self.scope.value: made})


class GroupHandler(ConsoleHandler):
    """One team or customer, by id or name."""

    def initialize(self, scope: Scope) -> None:
        """`scope` says which of the two."""
        self.scope = scope

    async def get(self, group_id: str) -> None:
        self.send({self.scope.value: await self.on_thread(read_group, self.context, self.scope, group_id)})

    async def put(self, group_id: str) -> None:
        update = change.update_team if self.scope is Scope.TEAM else change.update_customer
        record = await self.on_thread(update, self.context.store, group_id, self.body_as(GroupPatch))
        made = await self.on_thread(read_group, self.context, self.scope, record.id)
        self.send({"message": f"{self.scope.value.capitalize()} updated successfully", self.scope.value: made})

    async def delete(self, group_id: str) -> None:
        delete = change.delete_team if self.scope is Scope.TEAM else change.delete_customer
        await self.on_thread(delete, self.context.store, group_id)
        self.send({"message": f"{self.scope.value.capitalize()} deleted successfully"})


ROUTES = (
    Route("/api/governance/teams", GroupsHandler, {"scope": Scope.TEAM}),
    Route("/api/governance/teams/{group_id}", GroupHandler, {"scope": Scope.TEAM}),
    Route("/api/governance/customers", GroupsHandler, {"scope": Scope.CUSTOMER}),
    Route("/api/governance/customers/{group_id}", GroupHandler, {"scope": Scope.CUSTOMER}),
)
