"""`/api/logs`: the calls, newest first, refused ones among them; one call with its bodies."""

from dataclasses import fields
from typing import Any

from addons.console.api.paging import whole_number
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route
from store.clock import ms_from_iso
from store.config_store.shapes import Json, time_json
from store.errors import NotFound, UserError
from store.logs.types import CallRow
from store.money import usd_from_nanos

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
_LISTS = {
    "virtual_key_ids": "virtual_key_ids",
    "team_ids": "team_ids",
    "customer_ids": "customer_ids",
    "run_ids": "run_ids",
    "providers": "providers",
    "models": "models",
    "status": "statuses",
    "objects": "operations",
    "refusal_types": "refusal_types",
}
_TIMES = {"start_time": "start_ms", "end_time": "end_ms"}
_OTHERS = frozenset({"limit", "offset", "sort_by", "order", "content_search"})
_SORTS = ("timestamp", "latency", "tokens", "cost")


class LogsHandler(ConsoleHandler):
    """A page of calls."""

    async def get(self) -> None:
        limit = whole_number(self, "limit", DEFAULT_LIMIT) or DEFAULT_LIMIT
        if limit > MAX_LIMIT:
            raise UserError(f"limit: must be at most {MAX_LIMIT}")
        offset = whole_number(self, "offset", 0)
        sort_by = self.get_query_argument("sort_by", "timestamp")
        if sort_by not in _SORTS:
            raise UserError(f"sort_by: must be one of {', '.join(_SORTS)}")
        order = self.get_query_argument("order", "desc")
        if order not in ("asc", "desc"):
            raise UserError("order: must be asc or desc")
        rows, total, some = await self.on_thread(self._page, limit, offset, sort_by, order, self._conditions())
        self.send(
            {
                "logs": [call_json(row) for row in rows],
                "pagination": {"limit": limit, "offset": offset, "sort_by": sort_by, "order": order, "total_count": total},
                "has_logs": some,
            }
        )

    def _page(
        self, limit: int, offset: int, sort_by: str, order: str, conditions: dict[str, Any]
    ) -> tuple[list[CallRow], int, bool]:
        logs = self.context.logs
        if logs is None:
            return [], 0, False
        rows = list(logs.recent(limit, offset=offset, sort_by=sort_by, ascending=order == "asc", **conditions))
        total = logs.count(**conditions)
        return rows, total, total > 0 or logs.count(at_most=1) > 0

    def _conditions(self) -> dict[str, Any]:
        known = {*_LISTS, *_TIMES, *_OTHERS}
        unknown = sorted(set(self.request.query_arguments) - known)
        if unknown:
            raise UserError(f"{unknown[0]}: is no filter here; known are {', '.join(sorted(known))}")
        made: dict[str, Any] = {}
        for parameter, condition in _LISTS.items():
            text = self.get_query_argument(parameter, "")
            if wanted := [part.strip() for part in text.split(",") if part.strip()]:
                made[condition] = wanted
        for parameter, condition in _TIMES.items():
            if text := self.get_query_argument(parameter, ""):
                try:
                    made[condition] = ms_from_iso(text)
                except ValueError:
                    raise UserError(f"{parameter}: write it like 2026-11-23T11:00:00Z") from None
        if text := self.get_query_argument("content_search", ""):
            made["text"] = text
        return made


class LogHandler(ConsoleHandler):
    """One call with its bodies."""

    async def get(self, call_id: str) -> None:
        logs = self.context.logs
        row = await self.on_thread(logs.get, call_id) if logs is not None else None
        if row is None:
            raise NotFound(f"there is no call {call_id!r} in the logs")
        self.send({**call_json(row), "request_body": row.request_body, "response_body": row.response_body})


_PLAIN = [
    field.name
    for field in fields(CallRow)
    if field.name not in ("at_ms", "cost_nanos", "held_nanos", "request_body", "response_body", "latency_ms", "operation")
]


def call_json(row: CallRow) -> Json:
    """A call under Bifrost's names where it has them, and ours for the rest. `cost` is null when no price was known."""
    made: Json = {name: getattr(row, name) for name in _PLAIN}
    return {
        **made,
        "timestamp": time_json(row.at_ms),
        "object_type": row.operation,
        "latency": row.latency_ms,
        "cost": usd_from_nanos(row.cost_nanos) if row.priced else None,
        "held": usd_from_nanos(row.held_nanos),
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens,
        "total_tokens": row.input_tokens + row.output_tokens,
        "budget_ids": row.caps_charged,
    }


ROUTES = (
    Route("/api/logs", LogsHandler),
    Route("/api/logs/{call_id}", LogHandler),
)
