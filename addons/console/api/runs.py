"""`/api/governance/runs`: short-lived credentials for `exec`, and what each run has cost."""

from typing import Annotated

from pydantic import Field

from addons.console.api.answers import RunDone, RunOne
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change, read
from store.config_store.change_runs import MAX_TTL_SECONDS, run_calls_cap_id, run_cost_cap_id
from store.config_store.fields import Int, Name, Usd
from store.config_store.shapes import Json, rate_limit_json, time_json
from store.config_store.specs import RateLimitSpec, Spec
from store.errors import NotFound
from store.ledger.caps import cap_states
from store.ledger.types import Scope
from store.money import nanos_from_usd, plain_usd


class RunSpec(Spec):
    """For whom, with which budget and limits of its own, and for how long."""

    virtual_key: Name | None = None
    budget_usd: Usd | None = None
    ttl_seconds: Annotated[Int, Field(ge=1, le=MAX_TTL_SECONDS)] = 86_400
    rate_limit: RateLimitSpec | None = None


class RunsHandler(ConsoleHandler):
    """Making a run credential."""

    @operation("Make a run: a short-lived credential, shown this once", body=RunSpec, answer=RunDone)
    async def post(self) -> None:
        spec = self.body_as(RunSpec)
        budget_nanos = None if spec.budget_usd is None else nanos_from_usd(spec.budget_usd)
        wanted = spec.virtual_key or self.context.settings.gateway.default_virtual_key
        store, ttl_seconds, limit = self.store, spec.ttl_seconds, spec.rate_limit
        made = await self.on_thread(change.create_run, store, wanted, budget_nanos, ttl_seconds, limit)
        run = await self.on_thread(read_run, self, made.id)
        self.send({"message": "Run created successfully", "run": {**run, "value": made.value}})


class RunHandler(ConsoleHandler):
    """One run."""

    @operation("One run with what it cost", answer=RunOne)
    async def get(self, run_id: str) -> None:
        self.send({"run": await self.on_thread(read_run, self, run_id)})

    @operation("End a run; its sums are kept for a week", answer=RunDone)
    async def delete(self, run_id: str) -> None:
        await self.on_thread(change.end_run, self.store, run_id)
        self.send({"message": "Run ended successfully", "run": await self.on_thread(read_run, self, run_id)})


def read_run(handler: ConsoleHandler, run_id: str) -> Json:
    """A run with its cost from the ledger and its refusals from the logs. `calls` counts refused ones too."""
    store, logs = handler.context.store, handler.context.logs
    with store.reading() as (governance, ledger):
        run = read.run(ledger, run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}; its sums are kept for a week after it ends")
        key = read.virtual_key(governance, run.virtual_key_id)
        caps = (run_cost_cap_id(run_id), run_calls_cap_id(run_id))
        limits = [cap.id for cap in read.caps_of(ledger, Scope.RUN, run_id) if cap.id not in caps]
        cost, calls, *limited = cap_states(ledger, store.clock.now_ms(), (*caps, *limits))
    refused = int(logs.stats(run_ids=(run_id,)).refused) if logs is not None else 0
    return {
        "id": run.id,
        "virtual_key_id": run.virtual_key_id,
        "virtual_key_name": key.name if key else "",
        "budget_usd": None if run.budget_nanos is None else plain_usd(run.budget_nanos),
        "cost_usd": plain_usd(cost.used),
        "held_usd": plain_usd(cost.held),
        "calls": calls.used + refused,
        "refused": refused,
        "open_calls": calls.held,
        "rate_limit": rate_limit_json(limited),
        "created_at": time_json(run.created_ms),
        "expires_at": time_json(run.expires_at_ms),
    }


ROUTES = (
    Route("/api/governance/runs", RunsHandler),
    Route("/api/governance/runs/{run_id}", RunHandler),
)
