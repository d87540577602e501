"""`/api/logs`: the calls, newest first, refused ones among them; one call with its bodies; deleting calls."""

from dataclasses import fields
from typing import Any, TypedDict

from pydantic import Field

from addons.console.api.answers import Money
from addons.console.api.log_answers import LogStats, stats_json
from addons.console.api.log_query import LogsQuery, log_database
from addons.console.api.log_stats import sums_over
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store.fields import Reason
from store.config_store.shapes import Json, time_json
from store.config_store.specs import Spec
from store.errors import NotFound, UserError
from store.logs.deletion import delete_calls
from store.logs.exceeded import unpack
from store.logs.filters import LogFilter
from store.logs.sums import LogSums
from store.logs.types import CallRow
from store.money import usd_from_nanos

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
MAX_DELETED = 1000


class DeleteBody(Spec):
    """Which calls are taken out of the logs, and why."""

    ids: tuple[str, ...] = Field(max_length=MAX_DELETED)
    reason: Reason = ""


class LogEntry(TypedDict):
    """One call. Times in milliseconds where they are spans; `cost` is null when no price was known."""

    id: str
    timestamp: str
    status: str
    http_status: int
    provider: str
    model: str
    answered_model: str
    object_type: str
    stream: bool
    way_in: str
    virtual_key_id: str
    virtual_key_name: str
    team_id: str
    customer_id: str
    run_id: str
    provider_key_id: str
    selected_key_id: str
    routing_rule_id: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: Money | None
    recalculated_cost: Money | None
    """What it would cost at later prices, when somebody asked; in no sum and in no budget."""
    recalculated_source: str
    priced: bool
    estimated: bool
    held: Money
    price_source: str
    caps_charged: list[str]
    budget_ids: list[str]
    refusal_type: str
    refusal_cap: str
    refused_by: list[str]
    message: str
    latency: int
    first_token_ms: int | None
    stop_reason: str
    method: str
    path: str
    client: str
    count: int
    text_bytes: int


class LogEntryWhole(LogEntry):
    """One call with its texts; null where they are not kept."""

    request_body: str | None
    response_body: str | None


class Pagination(TypedDict):
    limit: int
    offset: int
    sort_by: str
    order: str
    total_count: int


class LogPage(TypedDict):
    logs: list[LogEntry]
    pagination: Pagination
    stats: LogStats
    has_logs: bool


class Deleted(TypedDict):
    message: str
    deleted: int


class LogsHandler(ConsoleHandler):
    """A page of calls, and taking calls out."""

    @operation("Calls, newest first, with the sums over all that the filter finds", query=LogsQuery, answer=LogPage)
    async def get(self) -> None:
        query = self.query_as(LogsQuery)
        limit = query.limit or DEFAULT_LIMIT
        if limit > MAX_LIMIT:
            raise UserError(f"limit: must be at most {MAX_LIMIT}")
        given = query.log_filter(self.context.store.clock.now_ms())
        rows, total, some, sums = await self.on_thread(self._page, query, limit, given)
        self.send(
            {
                "logs": [call_json(row) for row in rows],
                "pagination": {
                    "limit": limit,
                    "offset": query.offset or 0,
                    "sort_by": query.sort_by,
                    "order": query.order,
                    "total_count": total,
                },
                "stats": stats_json(sums),
                "has_logs": some,
            }
        )

    def _page(self, query: LogsQuery, limit: int, given: LogFilter) -> tuple[list[CallRow], int, bool, LogSums]:
        logs = self.context.logs
        if logs is None:
            return [], 0, False, LogSums()
        conditions: dict[str, Any] = {field.name: getattr(given, field.name) for field in fields(given)}
        rows = list(
            logs.recent(limit, offset=query.offset or 0, sort_by=query.sort_by, ascending=query.order == "asc", **conditions)
        )
        total = logs.count(**conditions)
        return rows, total, total > 0 or logs.count(at_most=1) > 0, sums_over(self.context, given)

    @operation("Take calls out of the logs; daily sums and the ledger keep what they cost", body=DeleteBody, answer=Deleted,
               rehearsal=False)  # fmt: skip
    async def delete(self) -> None:
        body = self.body_as(DeleteBody)
        if not body.ids:
            raise UserError("ids: must not be empty; name the calls to delete")
        deleted = await self.on_thread(self._delete, body)
        self.send({"message": "Logs deleted successfully", "deleted": len(deleted)})

    def _delete(self, body: DeleteBody) -> list[str]:
        database = log_database(self.context)
        # Told first: a deletion that is in no audit log must not happen.
        with self.store.ledger.write() as connection:
            self.store.note(connection, "delete", "log", details={"ids": list(body.ids)}, reason=body.reason)
        return delete_calls(database, body.ids)


class LogHandler(ConsoleHandler):
    """One call with its bodies."""

    @operation("One call with its texts as far as they are kept", answer=LogEntryWhole)
    async def get(self, call_id: str) -> None:
        logs = self.context.logs
        row = await self.on_thread(logs.get, call_id) if logs is not None else None
        if row is None:
            raise NotFound(f"there is no call {call_id!r} in the logs")
        self.send({**call_json(row), "request_body": row.request_body, "response_body": row.response_body})


_OWN_NAMES = (
    "at_ms", "cost_nanos", "held_nanos", "request_body", "response_body", "latency_ms", "operation", "exceeded",
    "recalculated_nanos",
)  # fmt: skip
_PLAIN = [field.name for field in fields(CallRow) if field.name not in _OWN_NAMES]


def call_json(row: CallRow) -> Json:
    """A call under Bifrost's names where it has them, and ours for the rest. `cost` is null when no price was known."""
    made: Json = {name: getattr(row, name) for name in _PLAIN}
    return {
        **made,
        "timestamp": time_json(row.at_ms),
        "object_type": row.operation,
        "selected_key_id": row.provider_key_id,
        "latency": row.latency_ms,
        "cost": usd_from_nanos(row.cost_nanos) if row.priced else None,
        "recalculated_cost": None if row.recalculated_nanos is None else usd_from_nanos(row.recalculated_nanos),
        "held": usd_from_nanos(row.held_nanos),
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens,
        "total_tokens": row.input_tokens + row.output_tokens,
        "budget_ids": row.caps_charged,
        "refused_by": [cap.cap_id for cap in unpack(row.exceeded)] or ([row.refusal_cap] if row.refusal_cap else []),
    }


ROUTES = (
    Route("/api/logs", LogsHandler),
    Route("/api/logs/{call_id}", LogHandler),
)
