"""`/api/logs/recalculate-cost`: what logged calls would cost at today's prices, reckoned in the background.

The ledger is not touched and no budget is charged: the figure is `recalculated_cost` beside `cost`.
"""

from typing import Any, Literal, TypedDict

from addons.console.api.log_query import LogFilterQuery, log_database
from addons.console.api.paging import Flag
from addons.console.handler import ConsoleHandler, error_envelope
from addons.console.recalculation import Job, todays_prices
from addons.console.routes import Route, operation
from store.clock import iso_utc
from store.config_store.fields import Count, Reason
from store.config_store.specs import Spec


class RecalculateFilters(LogFilterQuery):
    """Which calls. Unless told otherwise those without a known price."""

    missing_cost_only: Flag = True


class RecalculateBody(Spec):
    """Which calls, and at most how many."""

    filters: RecalculateFilters = RecalculateFilters()
    limit: Count | None = None
    reason: Reason = ""


class RecalculationJson(TypedDict):
    """A run. `processed` = `updated` + `skipped` + `unpriceable`."""

    id: str
    status: Literal["idle", "running", "completed", "cancelled", "failed"]
    """`idle`: there was none since the console started."""
    total: int
    processed: int
    updated: int
    skipped: int
    """Right already, or refused."""
    unpriceable: int
    """No price is known today either, or what was used is not."""
    started_at: str | None
    finished_at: str | None
    failure: str | None


class StatusQuery(Spec):
    """The latest run, or the one with this id."""

    id: str = ""


class RecalculateHandler(ConsoleHandler):
    """Starting one."""

    @operation("Recalculate the cost of logged calls", body=RecalculateBody, answer=RecalculationJson, status=202, rehearsal=False)
    async def post(self) -> None:
        body = self.body_as(RecalculateBody)
        job, is_new = await self.on_thread(self._start, body)
        if is_new:
            self.send(job_json(job), 202)
        else:  # both what every refusal has and the run that is in the way
            told = error_envelope(409, "a recalculation is running already; wait for it, or cancel it")
            self.send({**told, **job_json(job)}, 409)

    def _start(self, body: RecalculateBody) -> tuple[Job, bool]:
        context, store = self.context, self.store
        database = log_database(context)
        given = body.filters.log_filter(store.clock.now_ms())
        running = context.recalculation.job()
        if running is not None and running.status == "running":
            return running, False
        with store.ledger.write() as connection:
            asked = body.filters.model_dump(mode="json", exclude_unset=True)
            store.note(connection, "recalculate", "log", details={"filters": asked}, reason=body.reason)
        return context.recalculation.start(
            database,
            given,
            lambda: todays_prices(store, context.prices),
            clock=store.clock,
            ids=store.ids,
            at_most=body.limit or None,
        )


class RecalculateStatusHandler(ConsoleHandler):
    """How far it is."""

    @operation("Read the latest recalculation", query=StatusQuery, answer=RecalculationJson)
    async def get(self) -> None:
        self.send(job_json(self.context.recalculation.job(self.query_as(StatusQuery).id)))


class RecalculateCancelHandler(ConsoleHandler):
    """Stopping it."""

    @operation("Stop the recalculation that is running", answer=RecalculationJson, rehearsal=False)
    async def post(self) -> None:
        self.send(job_json(self.context.recalculation.cancel()))


def job_json(job: Job | None) -> dict[str, Any]:
    """A run as the API shows it."""
    if job is None:
        counts = dict.fromkeys(("total", "processed", "updated", "skipped", "unpriceable"), 0)
        return {"id": "", "status": "idle", **counts, "started_at": None, "finished_at": None, "failure": None}
    progress = job.progress
    return {
        "id": job.id,
        "status": job.status,
        "total": progress.total,
        "processed": progress.processed,
        "updated": progress.updated,
        "skipped": progress.skipped,
        "unpriceable": progress.unpriceable,
        "started_at": iso_utc(job.started_ms),
        "finished_at": None if job.finished_ms is None else iso_utc(job.finished_ms),
        "failure": job.error or None,
    }


ROUTES = (
    Route("/api/logs/recalculate-cost", RecalculateHandler),
    Route("/api/logs/recalculate-cost/status", RecalculateStatusHandler),
    Route("/api/logs/recalculate-cost/cancel", RecalculateCancelHandler),
)
