"""What a request about the logs may ask for: Bifrost's filters and ours, as one query model that becomes a `LogFilter`."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from addons.console.api.paging import Flag, Whole
from addons.console.context import ConsoleContext
from store.clock import ms_from_iso
from store.config_store.fields import check_duration, check_usd
from store.config_store.specs import Spec
from store.database import Database
from store.errors import NotFound, UserError
from store.logs.filters import LogFilter
from store.money import nanos_from_usd
from store.windows import parse_duration

MAX_LIST = 500
STATUSES = ("success", "error", "refused", "cancelled", "cut", "unconfirmed", "processing")


def read_list(value: Any) -> Any:
    """`a,b` as ("a", "b"). Raises ValueError for more than `MAX_LIST` values."""
    if isinstance(value, str):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    if not isinstance(value, tuple | list):
        raise ValueError("must be a list, or text such as a,b")
    if len(value) > MAX_LIST:
        raise ValueError(f"holds more than {MAX_LIST} values; ask for fewer")
    return value


def read_statuses(value: Any) -> Any:
    """As `read_list`, of words that a status can be. Raises ValueError."""
    found = read_list(value)
    for status in found:
        if status not in STATUSES:
            raise ValueError(f"{status!r} is no status; known are {', '.join(STATUSES)}")
    return found


def read_instant(value: Any) -> Any:
    """An RFC 3339 time as milliseconds since 1970; nothing for no text. Raises ValueError."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        # A plus sign that was not encoded arrives as a space.
        found = ms_from_iso(value.strip().replace(" ", "+"))
    except (ValueError, OverflowError):
        raise ValueError("is not a time with a zone; write it like 2026-11-23T11:00:00Z") from None
    if not 0 <= found < 2**53:
        raise ValueError("must be a time after 1970")
    return found


def read_amount(value: Any) -> Any:
    """Text of a query as an amount in USD; nothing for no text. Raises ValueError."""
    return check_usd(value) if value not in ("", None) else None


def read_period(value: Any) -> Any:
    """A duration; nothing for no text. Raises ValueError."""
    return check_duration(value) or None


List = Annotated[tuple[str, ...], BeforeValidator(read_list), WithJsonSchema({"type": "string"}), Field(description="a,b,c")]
Statuses = Annotated[tuple[str, ...], BeforeValidator(read_statuses), WithJsonSchema({"type": "string"})]
Instant = Annotated[
    int | None,
    BeforeValidator(read_instant),
    # No `format`: an empty one is no bound, and some spellings beside RFC 3339 are read as well.
    WithJsonSchema({"type": "string", "description": "A time with a zone, such as 2026-11-23T11:00:00Z; empty: no bound."}),
]
Amount = Annotated[Decimal | None, BeforeValidator(read_amount), WithJsonSchema({"type": "number", "minimum": 0})]
Period = Annotated[str | None, BeforeValidator(read_period), Field(description="Such as 1h, 24h, 7d, 30d: up to now.")]
Text = Annotated[str, Field(max_length=4096)]


class LogFilterQuery(Spec):
    """Which calls. Conditions hold together; of a list any value does."""

    unimplemented = frozenset(
        {"aliases", "user_ids", "business_unit_ids", "parent_request_id", "routing_engine_used", "cache_hit_types", "session_id"}
    )  # fmt: skip

    providers: List = ()
    models: List = ()
    status: Statuses = ()
    objects: List = ()
    """Operations."""
    stop_reasons: List = ()
    selected_key_ids: List = ()
    """Provider keys."""
    virtual_key_ids: List = ()
    team_ids: List = ()
    customer_ids: List = ()
    routing_rule_ids: List = ()
    apps: List = ()
    """Programs: the first word of a User-Agent."""
    user_agents: List = ()
    run_ids: List = ()
    refusal_types: List = ()
    cap_ids: List = ()
    """Caps that were charged, or stood in the way."""
    start_time: Instant = None
    end_time: Instant = None
    period: Period = None
    min_latency: Whole = None
    """Milliseconds."""
    max_latency: Whole = None
    min_tokens: Whole = None
    max_tokens: Whole = None
    min_cost: Amount = None
    """USD."""
    max_cost: Amount = None
    missing_cost_only: Flag = False
    content_search: Text = ""
    """Part of the message, the path or the client's name."""
    roots_only: Flag = False
    """Every call here is one of its own, so this changes nothing."""

    def log_filter(self, now_ms: int) -> LogFilter:
        """The conditions. Raises UserError for a period beside times, and for a time that ends before it starts."""
        start_ms, end_ms = self.start_time, self.end_time
        if self.period is not None:
            if start_ms is not None or end_ms is not None:
                raise UserError("period: goes without start_time and end_time; give one or the other")
            start_ms, end_ms = max(0, now_ms - parse_duration(self.period).ms), now_ms + 1
        if start_ms is not None and end_ms is not None and end_ms < start_ms:
            raise UserError("end_time: is before start_time")
        return LogFilter(
            virtual_key_ids=self.virtual_key_ids,
            team_ids=self.team_ids,
            customer_ids=self.customer_ids,
            run_ids=self.run_ids,
            providers=self.providers,
            models=self.models,
            statuses=self.status,
            operations=self.objects,
            refusal_types=self.refusal_types,
            stop_reasons=self.stop_reasons,
            provider_key_ids=self.selected_key_ids,
            routing_rule_ids=self.routing_rule_ids,
            clients=self.user_agents,
            apps=self.apps,
            cap_ids=self.cap_ids,
            start_ms=start_ms,
            end_ms=end_ms,
            min_cost_nanos=_nanos(self.min_cost),
            max_cost_nanos=_nanos(self.max_cost),
            min_latency_ms=self.min_latency,
            max_latency_ms=self.max_latency,
            min_tokens=self.min_tokens,
            max_tokens=self.max_tokens,
            unpriced_only=self.missing_cost_only,
            text=self.content_search,
        )


class LogsQuery(LogFilterQuery):
    """A page of calls."""

    limit: Whole = None
    """50 when it is absent or 0; at most 1000."""
    offset: Whole = None
    sort_by: Literal["timestamp", "latency", "tokens", "cost"] = "timestamp"
    order: Literal["asc", "desc"] = "desc"


class DimensionQuery(LogFilterQuery):
    """A histogram split by one thing."""

    dimension: Literal["provider", "model", "virtual_key_id", "team_id", "customer_id", "status", "object"]


class RankingsQuery(LogFilterQuery):
    """How many places."""

    limit: Whole = None
    """25 when it is absent or 0; at most 1000."""
    all: Flag = False
    """Every place."""


class DimensionRankingsQuery(RankingsQuery):
    """Places of one kind."""

    dimension: Literal["model", "provider", "team", "customer", "virtual_key", "app", "user_agent"]


class FilterDataQuery(Spec):
    """Which lists of values; all of them when nothing is named."""

    dimensions: List = ()


def log_database(context: ConsoleContext) -> Database:
    """Where the logs are. Raises NotFound when there are none."""
    if context.logs is None:
        raise NotFound("there are no logs: logs_store is switched off in config.json")
    return context.logs.database


def _nanos(amount: Decimal | None) -> int | None:
    return None if amount is None else nanos_from_usd(amount)
