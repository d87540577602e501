"""Which calls filled a cap in a time: the dearest of them, and their sums by key and model. Bounded reads."""

from dataclasses import dataclass

from store.database import Database
from store.like import contains, pattern
from store.logs.filters import LogFilter, where_calls

MAX_CALLS = 50_000
"""So many calls of the time are looked at, the newest ones; `Filling.complete` is false when there were more."""
TOP_CALLS = 10
TOP_PARTS = 10

_AMOUNTS = {"usd": "cost_nanos", "tokens": "input_tokens + output_tokens", "requests": "count"}


@dataclass(frozen=True, slots=True)
class FillingCall:
    """A call that was charged to the cap. `amount` is in the cap's unit, nano-dollars for money."""

    id: str
    at_ms: int
    virtual_key_id: str
    virtual_key_name: str
    model: str
    amount: int


@dataclass(frozen=True, slots=True)
class FillingPart:
    """What the calls of one key or model came to."""

    value: str
    name: str
    calls: int
    amount: int


@dataclass(frozen=True, slots=True)
class Filling:
    """Biggest first."""

    calls: tuple[FillingCall, ...]
    by_virtual_key: tuple[FillingPart, ...]
    by_model: tuple[FillingPart, ...]
    complete: bool


def charged_where(scope: str, scope_id: str, virtual_key_id: str, start_ms: int | None, end_ms: int | None) -> LogFilter:
    """The calls among which those that a cap was charged for are; caps inside a key concern the calls of that key alone."""
    inside_a_key = scope in ("provider_config", "virtual_key_model") and virtual_key_id
    return LogFilter(
        start_ms=start_ms,
        end_ms=end_ms,
        virtual_key_ids=(virtual_key_id,) if inside_a_key else (scope_id,) if scope == "virtual_key" else (),
        team_ids=(scope_id,) if scope == "team" else (),
        customer_ids=(scope_id,) if scope == "customer" else (),
        providers=(scope_id,) if scope == "provider" else (),
        run_ids=(scope_id,) if scope == "run" else (),
    )


def filling(database: Database, cap_id: str, unit: str, given: LogFilter) -> Filling:
    """The calls that were charged to a cap, among those of `given`. Raises StoreUnavailable.

    A cap on parallel calls is filled by calls in flight alone: nothing is found for it.
    """
    amount = _AMOUNTS.get(unit)
    if amount is None:
        return Filling((), (), (), True)
    where = where_calls(database.engine, given)
    newest = f"SELECT * FROM calls {where.sql} ORDER BY at_ms DESC, number DESC LIMIT ?"
    charged = f"FROM ({newest}) AS newest WHERE {contains(database.engine, 'caps_charged')}"
    values = (*where.values, MAX_CALLS, pattern(f'"{cap_id}"'))
    with database.read() as connection:
        seen = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM calls {where.sql} LIMIT ?) AS found", (*where.values, MAX_CALLS + 1)
        )[0][0]
        top = connection.execute(
            f"SELECT id, at_ms, virtual_key_id, virtual_key_name, model, {amount} AS amount {charged} "
            "ORDER BY amount DESC, at_ms LIMIT ?",
            (*values, TOP_CALLS),
        )
        parts = connection.execute(
            f"SELECT virtual_key_id, max(virtual_key_name), model, sum(count), sum(({amount}) >> 32), "
            f"sum(({amount}) & 4294967295) {charged} GROUP BY virtual_key_id, model",
            values,
        )
    by_key: dict[str, FillingPart] = {}
    by_model: dict[str, FillingPart] = {}
    for key_id, key_name, model, calls, high, low in parts:
        total = (int(high) << 32) + int(low)
        _take(by_key, key_id, key_name, int(calls), total)
        _take(by_model, model, model, int(calls), total)
    return Filling(tuple(FillingCall(*row) for row in top), _biggest(by_key), _biggest(by_model), seen <= MAX_CALLS)


def _take(parts: dict[str, FillingPart], value: str, name: str, calls: int, amount: int) -> None:
    before = parts.get(value)
    if before is not None:
        calls, amount, name = calls + before.calls, amount + before.amount, max(name, before.name)
    parts[value] = FillingPart(value, name, calls, amount)


def _biggest(parts: dict[str, FillingPart]) -> tuple[FillingPart, ...]:
    return tuple(sorted(parts.values(), key=lambda part: (-part.amount, part.value))[:TOP_PARTS])
