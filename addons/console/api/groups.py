"""`/api/governance/teams` and `/customers`: list, make, change, delete."""

from collections.abc import Callable

from addons.console.api.answers import (
    CustomerDone,
    CustomerList,
    CustomerOne,
    Done,
    TeamDone,
    TeamList,
    TeamOne,
)
from addons.console.api.paging import PageQuery, list_envelope
from addons.console.api.reading import read_group, read_groups
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change
from store.config_store.fields import Text
from store.config_store.read_groups import GroupKind, GroupQuery
from store.config_store.records import GroupRecord
from store.config_store.shapes import Json
from store.config_store.specs import CustomerPatch, CustomerSpec, GroupPatch, TeamSpec
from store.config_store.store import ConfigStore


class CustomersQuery(PageQuery):
    """Which customers."""

    filters = frozenset({"search"})

    search: Text = ""
    """Part of the name, in any case."""


class TeamsQuery(CustomersQuery):
    """Which teams."""

    filters = frozenset({"search", "customer_id"})

    customer_id: Text | None = None


class GroupHandler(ConsoleHandler):
    """What handlers of teams and of customers share."""

    kind: GroupKind

    async def send_page(self, query: CustomersQuery, customer_id: str | None = None) -> None:
        """A page of them, or all."""
        limit, offset = query.page()
        wanted = GroupQuery(limit, offset, query.search, customer_id)
        found, total = await self.on_thread(read_groups, self.context, self.kind, wanted)
        self.send(list_envelope(f"{self.kind}s", found, total=total, limit=limit, offset=offset))

    async def send_one(self, group_id: str, word: str = "") -> None:
        """One of them; after a change with a word on what was done."""
        made = await self.on_thread(self._tagged, group_id)
        self.send({"message": f"{self.kind.capitalize()} {word} successfully", self.kind: made} if word else {self.kind: made})

    async def send_deleted(self, delete: Callable[[ConfigStore, str], None], group_id: str) -> None:
        """Deletes and says so."""
        await self.on_thread(delete, self.store, group_id)
        self.send({"message": f"{self.kind.capitalize()} deleted successfully"})

    def _tagged(self, group_id: str) -> Json:
        self.tag(self.kind, group_id)
        return read_group(self.context, self.kind, group_id)


class TeamsHandler(GroupHandler):
    """The list of teams, and making one."""

    kind = "team"

    @operation("Teams, by name", query=TeamsQuery, answer=TeamList)
    async def get(self) -> None:
        query = self.query_as(TeamsQuery)
        await self.send_page(query, query.customer_id)

    @operation("Make a team", body=TeamSpec, answer=TeamDone)
    async def post(self) -> None:
        record: GroupRecord = await self.on_thread(change.create_team, self.store, self.body_as(TeamSpec))
        await self.send_one(record.id, "created")


class TeamHandler(GroupHandler):
    """One team, by id or name."""

    kind = "team"

    @operation("One team, by id or name", answer=TeamOne)
    async def get(self, group_id: str) -> None:
        await self.send_one(group_id)

    @operation("Change a team: absent fields stay, a list is the whole set wanted", body=GroupPatch, answer=TeamDone)
    async def put(self, group_id: str) -> None:
        record = await self.on_thread(change.update_team, self.store, group_id, self.body_as(GroupPatch))
        await self.send_one(record.id, "updated")

    @operation("Delete a team with its caps; its keys stay", answer=Done)
    async def delete(self, group_id: str) -> None:
        await self.send_deleted(change.delete_team, group_id)


class CustomersHandler(GroupHandler):
    """The list of customers, and making one."""

    kind = "customer"

    @operation("Customers, by name", query=CustomersQuery, answer=CustomerList)
    async def get(self) -> None:
        await self.send_page(self.query_as(CustomersQuery))

    @operation("Make a customer", body=CustomerSpec, answer=CustomerDone)
    async def post(self) -> None:
        record: GroupRecord = await self.on_thread(change.create_customer, self.store, self.body_as(CustomerSpec))
        await self.send_one(record.id, "created")


class CustomerHandler(GroupHandler):
    """One customer, by id or name."""

    kind = "customer"

    @operation("One customer, by id or name", answer=CustomerOne)
    async def get(self, group_id: str) -> None:
        await self.send_one(group_id)

    @operation("Change a customer: absent fields stay, a list is the whole set wanted", body=CustomerPatch, answer=CustomerDone)
    async def put(self, group_id: str) -> None:
        record = await self.on_thread(change.update_customer, self.store, group_id, self.body_as(CustomerPatch))
        await self.send_one(record.id, "updated")

    @operation("Delete a customer with its caps; its teams and keys stay", answer=Done)
    async def delete(self, group_id: str) -> None:
        await self.send_deleted(change.delete_customer, group_id)


ROUTES = (
    Route("/api/governance/teams", TeamsHandler),
    Route("/api/governance/teams/{group_id}", TeamHandler),
    Route("/api/governance/customers", CustomersHandler),
    Route("/api/governance/customers/{group_id}", CustomerHandler),
)
