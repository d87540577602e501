"""`/api/governance/budgets`: every budget with its sums; make, change, delete, reset, top up."""

from addons.console.api.paging import page_asked
from addons.console.api.reading import budget_page, one_budget
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route
from store.config_store import change
from store.config_store.fields import Reason, Usd
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


class BudgetsHandler(ConsoleHandler):
    """The list, and making a budget."""

    async def get(self) -> None:
        page = page_asked(self, "search")
        limit, offset = page if page is not None else (None, 0)
        states, total = await self.on_thread(budget_page, self.context, limit, offset, self.get_query_argument("search", ""))
        found = [budget_json(state) for state in states]
        for name in ("scope", "scope_id"):
            if (wanted := self.get_query_argument(name, None)) is not None:
                found = [budget for budget in found if budget[name] == wanted]
        self.send({"budgets": found, "count": len(found), "total_count": total})

    async def post(self) -> None:
        spec = self.body_as(BudgetRowSpec)
        cap = await self.on_thread(change.create_budget, self.context.store, spec)
        self.send({"message": "Budget created successfully", "budget": await self.on_thread(one_budget, self.context, cap.id)})


class BudgetHandler(ConsoleHandler):
    """One budget."""

    async def get(self, budget_id: str) -> None:
        self.send({"budget": await self.on_thread(one_budget, self.context, budget_id)})

    async def put(self, budget_id: str) -> None:
        patch = self.body_as(BudgetPatch)
        await self.on_thread(change.update_budget, self.context.store, budget_id, patch)
        made = await self.on_thread(one_budget, self.context, budget_id)
        self.send({"message": "Budget updated successfully", "budget": made})

    async def delete(self, budget_id: str) -> None:
        await self.on_thread(change.delete_budget, self.context.store, budget_id)
        self.send({"message": "Budget deleted successfully"})


class ResetHandler(ConsoleHandler):
    """Start a budget at nothing spent."""

    async def post(self, budget_id: str) -> None:
        reason = self.body_as(ResetBody).reason
        await self.on_thread(change.reset_budget, self.context.store, budget_id, reason)
        made = await self.on_thread(one_budget, self.context, budget_id)
        self.send({"message": "Budget reset successfully", "budget": made})


class TopUpHandler(ConsoleHandler):
    """Add to a budget."""

    async def post(self, budget_id: str) -> None:
        body = self.body_as(TopUpBody)
        amount_nanos = nanos_from_usd(body.amount)
        await self.on_thread(change.top_up_budget, self.context.store, budget_id, amount_nanos, body.reason)
        made = await self.on_thread(one_budget, self.context, budget_id)
        self.send({"message": "Budget topped up successfully", "budget": made})


ROUTES = (
    Route("/api/governance/budgets", BudgetsHandler),
    Route("/api/governance/budgets/{budget_id}/reset", ResetHandler),
    Route("/api/governance/budgets/{budget_id}/topup", TopUpHandler),
    Route("/api/governance/budgets/{budget_id}", BudgetHandler),
)
