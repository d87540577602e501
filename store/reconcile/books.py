"""Our side: the calls that the ledger has posted, with the token classes that only the logs know."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from store.database import Connection, Database, Row
from store.ledger.rows import Flag, facts_from_json, to_json
from store.logs.queries import LogReader
from store.reconcile.names import Names
from store.reconcile.spans import day_of
from store.reconcile.types import OurCall, Span, Standing, Tokens

CALLS_AT_ONCE = 2_000

_POSTS = """SELECT p.sequence, p.call_id, p.kind, p.at_ms, p.held_ms, p.cost_nanos, p.tokens, p.input_tokens, p.output_tokens,
    p.flags, p.model, p.price_source, h.facts, h.amount_nanos,
    c.cost_nanos, c.tokens, c.input_tokens, c.output_tokens, c.flags, c.model, c.price_source
    FROM posts AS p JOIN holds AS h ON h.call_id = p.call_id
    LEFT JOIN posts AS c ON c.call_id = p.call_id AND c.step = 2
    WHERE p.sequence > ? AND p.step = 1 AND p.kind <> 'void' AND p.held_ms >= ? AND p.held_ms < ?
    ORDER BY p.sequence LIMIT ?"""


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the ledger can say of a time at all."""

    began_ms: int | None
    """The oldest call it still has; None when it has none."""
    open_calls: dict[str, int]
    """By UTC day: calls that have not been settled yet."""


@dataclass(frozen=True, slots=True)
class DaySum:
    """One day and model of the logs' daily sums, which outlive the rows. Money in nano-dollars."""

    calls: int
    tokens: Tokens
    cost_nanos: int


def our_calls(ledger: Database, logs: Database | None, providers: frozenset[str], span: Span) -> Iterator[OurCall]:
    """Every call to these providers whose hold was taken in `span`, in short reads. Raises StoreUnavailable."""
    sequence = 0
    while True:
        with ledger.read() as connection:
            rows = connection.execute(_POSTS, (sequence, *span, CALLS_AT_ONCE))
        if not rows:
            return
        sequence = rows[-1][0]
        wanted = [row for row in rows if facts_from_json(row[12]).provider in providers]
        known = _log_rows(logs, [row[1] for row in wanted])
        yield from (_call(row, known.get(row[1])) for row in wanted)


def ledger_state(ledger: Database, providers: frozenset[str], span: Span) -> LedgerState:
    """What there is of the ledger around a time. Raises StoreUnavailable."""
    with ledger.read() as connection:
        began = connection.execute("SELECT min(held_ms) FROM posts")[0]
        rows = connection.execute(
            """SELECT h.at_ms, h.facts FROM open_holds AS o JOIN holds AS h ON h.call_id = o.call_id
            WHERE h.at_ms >= ? AND h.at_ms < ?""",
            span,
        )
    open_calls: dict[str, int] = {}
    for at_ms, facts in rows:
        if facts_from_json(facts).provider in providers:
            open_calls[day_of(at_ms)] = open_calls.get(day_of(at_ms), 0) + 1
    return LedgerState(began[0], open_calls)


def daily_sums(
    logs: Database | None, providers: frozenset[str], names: Names, first_day: str, last_day: str
) -> dict[tuple[str, str], DaySum]:
    """By day and model: what the logs' daily sums say of these providers. Raises StoreUnavailable."""
    if logs is None:
        return {}
    found: dict[tuple[str, str], DaySum] = {}
    for total in LogReader(logs).daily(first_day, last_day, by=("day", "provider", "model")):
        day, provider, asked = total.group
        if provider not in providers:
            continue
        model = names.ours("", asked)
        before = found.get((day, model), DaySum(0, Tokens(), 0))
        tokens = Tokens(total.input_tokens, total.cache_read_tokens, total.cache_write_tokens, total.output_tokens)
        found[day, model] = DaySum(before.calls + total.calls, before.tokens.plus(tokens), before.cost_nanos + total.cost_nanos)
    return found


def _call(row: Row, known: "_Known | None") -> OurCall:
    _, call_id, _, ended_ms, held_ms, cost, tokens, given, made, flags, model, source, facts, held, *later = row
    corrected = later[0] is not None
    if corrected:
        cost, tokens, given, made = cost + later[0], tokens + later[1], given + later[2], made + later[3]
        flags, model, source = later[4], later[5] or model, later[6] or source
    standing = _standing(Flag(flags), corrected, unsplit=tokens != given + made or (cost > 0 and not given + made))
    asked = facts_from_json(facts).model
    # Without input there was nothing to cache; a call that nobody knows the tokens of adds nothing to any class.
    read, written = (known.cache_read, known.cache_write) if known is not None and given else (None, None) if given else (0, 0)
    return OurCall(
        id=call_id,
        started_ms=held_ms,
        ended_ms=ended_ms,
        asked=asked,
        answered=model or (known.answered if known is not None else ""),
        tokens=Tokens(given, read, written, made),
        cost_nanos=cost,
        held_nanos=held,
        standing=standing,
        over_hold=Flag.OVER_HOLD in Flag(flags),
        priced=known is None or known.priced,
        price_source=source,
    )


def _standing(flags: Flag, corrected: bool, *, unsplit: bool) -> Standing:
    if Flag.UNCONFIRMED in flags:
        return Standing.UNCONFIRMED
    if corrected and unsplit:
        return Standing.CORRECTED  # a person's word on the amount; nobody knows the tokens
    return Standing.ESTIMATED if Flag.ESTIMATED in flags else Standing.EXACT


@dataclass(frozen=True, slots=True)
class _Known:
    cache_read: int | None
    cache_write: int | None
    answered: str
    priced: bool


def _log_rows(logs: Database | None, call_ids: Sequence[str]) -> dict[str, _Known]:
    if logs is None or not call_ids:
        return {}
    with logs.read() as connection:
        rows = _read_log_rows(connection, call_ids)
    return {row[0]: _known(row) for row in rows}


def _read_log_rows(connection: Connection, call_ids: Sequence[str]) -> list[Row]:
    return connection.execute(
        "SELECT id, cache_read_tokens, cache_write_tokens, answered_model, priced, method FROM calls"
        f" WHERE id IN ({connection.listed})",
        (to_json(list(call_ids)),),
    )


def _known(row: Sequence[Any]) -> _Known:
    # A row that was made from the ledger has no method, and its zeros mean that nobody knows.
    lost = not row[5]
    return _Known(None if lost else row[1], None if lost else row[2], row[3], bool(row[4]) or lost)
