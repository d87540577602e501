"""Which calls: the conditions that lists, sums and histograms share, and what of them the daily sums can answer."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from store.database import Engine
from store.like import contains, pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which calls: all given conditions together; within one, any of its values. Empty: no condition."""

    virtual_key_ids: Sequence[str] = ()
    virtual_key_names: Sequence[str] = ()
    team_ids: Sequence[str] = ()
    customer_ids: Sequence[str] = ()
    run_ids: Sequence[str] = ()
    providers: Sequence[str] = ()
    models: Sequence[str] = ()
    statuses: Sequence[str] = ()
    operations: Sequence[str] = ()
    refusal_types: Sequence[str] = ()
    stop_reasons: Sequence[str] = ()
    provider_key_ids: Sequence[str] = ()
    routing_rule_ids: Sequence[str] = ()
    clients: Sequence[str] = ()
    """Whole User-Agent texts, as far as they are kept."""
    apps: Sequence[str] = ()
    """Programs: what stands before the first `/` or space of the User-Agent."""
    cap_ids: Sequence[str] = ()
    """Caps that were charged, or that stood in the way."""
    start_ms: int | None = None
    """Calls from this instant on."""
    end_ms: int | None = None
    """Calls before this instant."""
    min_cost_nanos: int | None = None
    max_cost_nanos: int | None = None
    min_latency_ms: int | None = None
    max_latency_ms: int | None = None
    min_tokens: int | None = None
    """Input and output together."""
    max_tokens: int | None = None
    unpriced_only: bool = False
    """Calls whose price was not known. Refused ones cost nothing and are not among them."""
    text: str = ""
    """Part of the message, the path or the client's name; any case."""

    def within(self, start_ms: int | None, end_ms: int | None) -> "LogFilter":
        """The same conditions for another time."""
        return replace(self, start_ms=start_ms, end_ms=end_ms)

    @property
    def fits_daily(self) -> bool:
        """True when the daily sums know everything that is asked for, the time apart."""
        return all(
            field.name in _DAILY or field.name in ("start_ms", "end_ms") or getattr(self, field.name) == field.default
            for field in fields(self)
        )

    @property
    def is_everything(self) -> bool:
        """True without any condition."""
        return self == LogFilter()


class Where:
    """Grows a WHERE clause with its values."""

    def __init__(self) -> None:
        self._terms: list[str] = []
        self.values: list[Any] = []

    def add(self, term: str, *values: Any) -> None:
        """One more condition that must hold."""
        self._terms.append(term)
        self.values.extend(values)

    @property
    def sql(self) -> str:
        """The clause; nothing without conditions."""
        return "WHERE " + " AND ".join(self._terms) if self._terms else ""


_LISTS = {
    "virtual_key_ids": "virtual_key_id",
    "virtual_key_names": "virtual_key_name",
    "team_ids": "team_id",
    "customer_ids": "customer_id",
    "run_ids": "run_id",
    "providers": "provider",
    "models": "model",
    "statuses": "status",
    "operations": "operation",
    "refusal_types": "refusal_type",
    "stop_reasons": "stop_reason",
    "provider_key_ids": "provider_key_id",
    "routing_rule_ids": "routing_rule_id",
    "clients": "client",
}
_DAILY = ("virtual_key_ids", "team_ids", "customer_ids", "providers", "models")
_BOUNDS = {
    "start_ms": "at_ms >= ?",
    "end_ms": "at_ms < ?",
    "min_cost_nanos": "cost_nanos >= ?",
    "max_cost_nanos": "cost_nanos <= ?",
    "min_latency_ms": "latency_ms >= ?",
    "max_latency_ms": "latency_ms <= ?",
    "min_tokens": "input_tokens + output_tokens >= ?",
    "max_tokens": "input_tokens + output_tokens <= ?",
}
_SEARCHED = ("message", "path", "client")
_PARTIAL = {"team_ids": "team_id <> ''", "customer_ids": "customer_id <> ''", "run_ids": "run_id <> ''"}
"""Repeated in the clause so that the database may use the partial index."""


def where_calls(engine: Engine, given: LogFilter) -> Where:
    """The conditions on the table of calls."""
    where = Where()
    for name, column in _LISTS.items():
        if wanted := _listed(getattr(given, name)):
            where.add(f"{column} IN ({', '.join('?' * len(wanted))})", *wanted)
            if name in _PARTIAL and all(wanted):
                where.add(_PARTIAL[name])
            if name in ("statuses", "refusal_types") and "success" not in wanted and all(wanted):
                where.add("status <> 'success'")
    for name, term in _BOUNDS.items():
        if (bound := getattr(given, name)) is not None:
            where.add(term, bound)
    if given.unpriced_only:
        where.add("priced = 0 AND status <> 'refused'")
    _any_of(where, engine, "client", _listed(given.apps), lambda app: (app, f"{app}/%", f"{app} %"))
    _add_caps(where, engine, _listed(given.cap_ids))
    if given.text:
        terms = " OR ".join(contains(engine, column) for column in _SEARCHED)
        where.add(f"({terms})", *(pattern(given.text),) * len(_SEARCHED))
    return where


def where_daily(given: LogFilter, first_day: str | None, last_day: str | None) -> Where:
    """The conditions on the daily sums (or, without days, on the sums over all of them), which must be able to answer them."""
    if not given.fits_daily:
        raise ValueError("the daily sums do not know all of these conditions")
    where = Where()
    if first_day is not None and last_day is not None:
        where.add("day BETWEEN ? AND ?", first_day, last_day)
    for name in _DAILY:
        if wanted := _listed(getattr(given, name)):
            where.add(f"{_LISTS[name]} IN ({', '.join('?' * len(wanted))})", *wanted)
    return where


def app_of(client: str) -> str:
    """The program that a User-Agent names: `claude-cli` of `claude-cli/2.1 (external)`."""
    return client.split("/", 1)[0].split(" ", 1)[0]


def _listed(value: Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _any_of(where: Where, engine: Engine, column: str, apps: Sequence[str], forms: Any) -> None:
    if not apps:
        return
    like = contains(engine, column)
    terms, values = [], []
    for app in apps:
        terms.append(f"{column} = ? OR {like} OR {like}")
        whole, slash, space = forms(app)
        values += [whole, _escaped(slash), _escaped(space)]
    where.add(f"({' OR '.join(terms)})", *values)


def _add_caps(where: Where, engine: Engine, cap_ids: Sequence[str]) -> None:
    if not cap_ids:
        return
    terms, values = [], []
    for cap_id in cap_ids:
        # Both columns are JSON: an id stands there in quotation marks.
        terms.append(f"refusal_cap = ? OR {contains(engine, 'caps_charged')} OR {contains(engine, 'exceeded')}")
        quoted = pattern(f'"{cap_id}"')
        values += [cap_id, quoted, quoted]
    where.add(f"({' OR '.join(terms)})", *values)


def _escaped(text: str) -> str:
    """A LIKE pattern whose last character alone is a wildcard."""
    return pattern(text[:-1])[1:-1] + "%"
