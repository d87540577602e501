"""`…/budgets/{id}/override`: raise a budget's limit for a while, or for some of its windows, and take that back."""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from addons.console.api.answers import BudgetDone, BudgetOverridden
from addons.console.api.reading import tagged_budget
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import ms_from_iso
from store.config_store import change, read
from store.config_store.fields import Duration, Reason, Time, Usd
from store.config_store.read_models import model_configs_of
from store.config_store.specs import Spec
from store.errors import NotFound, UserError
from store.ledger.types import Cap, Unit
from store.money import nanos_from_usd
from store.windows import parse_duration, window_at

MAX_CYCLES = 1000


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


class CyclesBody(Spec):
    """How much is added to the limit, and for how many of its windows; the one that runs now is the first."""

    amount: Usd
    mode: Literal["cycles", "forever"]
    cycles: Annotated[int, Strict(), Field(ge=1, le=MAX_CYCLES)] | None = None
    reason: Reason = ""

    @model_validator(mode="after")
    def _clear(self) -> "CyclesBody":
        if self.mode == "forever":
            raise ValueError("mode forever is not implemented: raise max_limit itself, which holds until it is changed again")
        if self.cycles is None:
            raise ValueError("cycles is required: for how many windows, the present one counted")
        return self


class UnraiseBody(Spec):
    """Why a raise is taken back."""

    reason: Reason = ""


class OverrideHandler(ConsoleHandler):
    """The raise of one budget."""

    @operation("Raise a budget's limit for a while; a raise in force is replaced", body=OverrideBody, answer=BudgetDone)
    async def put(self, budget_id: str) -> None:
        body = self.body_as(OverrideBody)
        await self.on_thread(self._raise, budget_id, body)
        made = await self.on_thread(tagged_budget, self, budget_id)
        self.send({"message": "Budget raised successfully", "budget": made})

    @operation("Take a raise back before its time", body=UnraiseBody, answer=BudgetDone)
    async def delete(self, budget_id: str) -> None:
        reason = self.body_as(UnraiseBody).reason
        await self.on_thread(change.unraise_budget, self.store, budget_id, reason)
        made = await self.on_thread(tagged_budget, self, budget_id)
        self.send({"message": "Budget lowered successfully", "budget": made})

    def _raise(self, budget_id: str, body: OverrideBody) -> None:
        change.raise_budget(
            self.store,
            budget_id,
            by_nanos=None if body.amount is None else nanos_from_usd(body.amount),
            to_nanos=None if body.max_limit is None else nanos_from_usd(body.max_limit),
            until_ms=ms_from_iso(body.until) if body.until else None,
            for_ms=None if body.duration is None else parse_duration(body.duration).ms,
            reason=body.reason,
        )


class KeyOverrideHandler(ConsoleHandler):
    """As Bifrost has it: the raise of a budget of a virtual key, for whole windows."""

    @operation("Raise a budget of a virtual key for some of its windows", body=CyclesBody, answer=BudgetOverridden)
    async def put(self, key_id: str, budget_id: str) -> None:
        body = self.body_as(CyclesBody)
        await self.on_thread(self._raise, key_id, budget_id, body)
        await self._send(budget_id)

    @operation("Take the raise of a virtual key's budget back", body=UnraiseBody, answer=BudgetOverridden)
    async def delete(self, key_id: str, budget_id: str) -> None:
        reason = self.body_as(UnraiseBody).reason
        await self.on_thread(self._budget, key_id, budget_id)
        await self.on_thread(change.unraise_budget, self.store, budget_id, reason)
        await self._send(budget_id)

    async def _send(self, budget_id: str) -> None:
        made = await self.on_thread(tagged_budget, self, budget_id)
        self.send({"budget": made, "effective_max_limit": made["effective_max_limit"]})

    def _raise(self, key_id: str, budget_id: str, body: CyclesBody) -> None:
        until_ms = end_of_cycles(self._budget(key_id, budget_id), self.context.store.clock.now_ms(), body.cycles or 1)
        by_nanos = nanos_from_usd(body.amount)
        change.raise_budget(self.store, budget_id, by_nanos=by_nanos, until_ms=until_ms, reason=body.reason)

    def _budget(self, key_id: str, budget_id: str) -> Cap:
        """The budget, which must be the key's or that of one of its provider or model configs. Raises NotFound."""
        with self.context.store.reading() as (connection, ledger):
            key = read.virtual_key(connection, key_id)
            if key is None:
                raise NotFound(f"there is no virtual key {key_id!r}")
            if budget_id in read.key_cap_ids(ledger, (key,), model_configs_of(connection, [key.id])):
                cap = read.cap(ledger, budget_id)
                if cap is not None and cap.unit is Unit.USD:
                    return cap
        raise NotFound(f"the virtual key {key.name!r} has no budget {budget_id!r}")


def end_of_cycles(cap: Cap, now_ms: int, cycles: int) -> int:
    """The end of a budget's nth window, counted from the one that runs now, in milliseconds. Raises UserError without a window."""
    at_ms = now_ms
    for _ in range(cycles):
        window = window_at(cap, at_ms)
        if window is None:
            raise UserError("cycles: this budget never resets; top it up instead")
        at_ms = window[1]
    return at_ms


ROUTES = (
    Route("/api/governance/budgets/{budget_id}/override", OverrideHandler),
    Route("/api/governance/virtual-keys/{key_id}/budgets/{budget_id}/override", KeyOverrideHandler),
)
