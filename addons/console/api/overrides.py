"""`/api/governance/budgets/{id}/override`: raise a budget's limit for a while, and take that back."""

from pydantic import Field, model_validator

from addons.console.api.reading import one_budget
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route
from store.clock import ms_from_iso
from store.config_store import change
from store.config_store.fields import Duration, Reason, Time, Usd
from store.config_store.specs import Spec
from store.money import nanos_from_usd
from store.windows import parse_duration


class OverrideBody(Spec):
    """By how much or to how much, until when or for how long, and why."""

    unimplemented = frozenset({"mode", "cycles"})

    amount: Usd | None = None
    """Added to the limit."""
    max_limit: Usd | None = None
    """The limit it is raised to."""
    until: Time | None = None
    duration: Duration | None = Field(default=None, description="From now on, such as 2h or 3d.")
    reason: Reason = ""

    @model_validator(mode="after")
    def _one_of_each(self) -> "OverrideBody":
        if (self.amount is None) == (self.max_limit is None):
            raise ValueError("needs amount (what is added to the limit) or max_limit (what it is raised to)")
        if (not self.until) == (self.duration is None):
            raise ValueError("needs until (a time) or duration (such as 2h)")
        return self


class UnraiseBody(Spec):
    """Why a raise is taken back."""

    reason: Reason = ""


class OverrideHandler(ConsoleHandler):
    """The raise of one budget."""

    async def put(self, budget_id: str) -> None:
        body = self.body_as(OverrideBody)
        await self.on_thread(self._raise, budget_id, body)
        made = await self.on_thread(one_budget, self.context, budget_id)
        self.send({"message": "Budget raised successfully", "budget": made})

    async def delete(self, budget_id: str) -> None:
        reason = self.body_as(UnraiseBody).reason
        await self.on_thread(change.unraise_budget, self.context.store, budget_id, reason)
        made = await self.on_thread(one_budget, self.context, budget_id)
        self.send({"message": "Budget lowered successfully", "budget": made})

    def _raise(self, budget_id: str, body: OverrideBody) -> None:
        change.raise_budget(
            self.context.store,
            budget_id,
            by_nanos=None if body.amount is None else nanos_from_usd(body.amount),
            to_nanos=None if body.max_limit is None else nanos_from_usd(body.max_limit),
            until_ms=ms_from_iso(body.until) if body.until else None,
            for_ms=None if body.duration is None else parse_duration(body.duration).ms,
            reason=body.reason,
        )


ROUTES = (Route("/api/governance/budgets/{budget_id}/override", OverrideHandler),)
