"""`/api/governance/budgets`: every budget with its sums; make, change, delete, reset, top up."""

from addons.console.api.answers import BudgetDone, BudgetList, BudgetOne, Done
from addons.console.api.paging import PageQuery
from addons.console.api.reading import budget_page, tagged_budget
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change
from store.config_store.fields import Reason, Text, Usd
from store.config_store.shapes import budget_json
from store.config_store.specs import BudgetPatch, BudgetRowSpec, Spec
from store.money import nanos_from_usd


class ResetBody(Spec):
    """Why a budget starts anew."""

    reason: Reason = ""


class TopUpBody(Spec):
    """How much to add, in USD, and why."""

    amount: Usd
    reason: Reason = ""


class BudgetsQuery(PageQuery):
    """Which budgets."""

    filters = frozenset({"search"})

    search: Text = ""
    """Part of the budget's name or of its owner's, in any case."""
    scope: Text | None = None
    scope_id: Text | None = None


class BudgetsHandler(ConsoleHandler):
    """The list, and making a budget."""

    @operation("Every budget with its sums, oldest first", query=BudgetsQuery, answer=BudgetList)
    async def get(self) -> None:
        query = self.query_as(BudgetsQuery)
        limit, offset = query.page()
        found = await self.on_thread(budget_page, self.context, limit, offset, query.search, query.scope, query.scope_id)
        states, total = found
        self.send({"budgets": [budget_json(state) for state in states], "count": len(states), "total_count": total})

    @operation("Make a budget for whom it names", body=BudgetRowSpec, answer=BudgetDone)
    async def post(self) -> None:
        spec = self.body_as(BudgetRowSpec)
        cap = await self.on_thread(change.create_budget, self.store, spec)
        made = await self.on_thread(tagged_budget, self, cap.id)
        self.send({"message": "Budget created successfully", "budget": made})


class BudgetHandler(ConsoleHandler):
    """One budget."""

    @operation("One budget", answer=BudgetOne)
    async def get(self, budget_id: str) -> None:
        self.send({"budget": await self.on_thread(tagged_budget, self, budget_id)})

    @operation("Change a budget; what was spent stays", body=BudgetPatch, answer=BudgetDone)
    async def put(self, budget_id: str) -> None:
        patch = self.body_as(BudgetPatch)
        await self.on_thread(change.update_budget, self.store, budget_id, patch)
        made = await self.on_thread(tagged_budget, self, budget_id)
        self.send({"message": "Budget updated successfully", "budget": made})

    @operation("Delete a budget; calls in flight still settle on it", answer=Done)
    async def delete(self, budget_id: str) -> None:
        await self.on_thread(change.delete_budget, self.store, budget_id)
        self.send({"message": "Budget deleted successfully"})


class ResetHandler(ConsoleHandler):
    """Start a budget at nothing spent."""

    @operation("Start a budget at nothing spent; holds stay", body=ResetBody, answer=BudgetDone)
    async def post(self, budget_id: str) -> None:
        reason = self.body_as(ResetBody).reason
        await self.on_thread(change.reset_budget, self.store, budget_id, reason)
        made = await self.on_thread(tagged_budget, self, budget_id)
        self.send({"message": "Budget reset successfully", "budget": made})


class TopUpHandler(ConsoleHandler):
    """Add to a budget."""

    @operation("Add to a budget: for good when prepaid, else for this window", body=TopUpBody, answer=BudgetDone)
    async def post(self, budget_id: str) -> None:
        body = self.body_as(TopUpBody)
        amount_nanos = nanos_from_usd(body.amount)
        await self.on_thread(change.top_up_budget, self.store, budget_id, amount_nanos, body.reason)
        made = await self.on_thread(tagged_budget, self, budget_id)
        self.send({"message": "Budget topped up successfully", "budget": made})


ROUTES = (
    Route("/api/governance/budgets", BudgetsHandler),
    Route("/api/governance/budgets/{budget_id}/reset", ResetHandler),
    Route("/api/governance/budgets/{budget_id}/topup", TopUpHandler),
    Route("/api/governance/budgets/{budget_id}", BudgetHandler),
)
