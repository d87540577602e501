"""The ledger's rows between database and program: stored caps, balances, and the compact JSON inside holds and posts."""

from collections.abc import Iterable, Sequence
from enum import IntFlag
from typing import Any, NamedTuple

import orjson

from store.database import Connection
from store.ledger.types import CallFacts, Cap, CapState, Enforcement, Raise, Scope, Unit
from store.windows import Window, window_of

NO_WINDOW = -1
"""The window start of a cap without a window."""
MAX_AMOUNT = 2**63 - 1
FAR_FUTURE_MS = 2**62

Key = tuple[str, int]
"""(cap id, window start in ms): what a balance is kept under."""
HoldPart = tuple[str, int, int, int]
"""(cap id, window start, amount held, generation of the cap's window)."""
PostPart = tuple[str, int, int]
"""(cap id, window start, amount used)."""

CAP_COLUMNS = (
    'id, name, scope, scope_id, scope_name, unit, limit_amount, "window", calendar_aligned, timezone, quarter_start_month, '
    "enforcement, strict, carry_over, created_ms, deleted, generation"
)


class Flag(IntFlag):
    """What a post has to say besides its sums."""

    ESTIMATED = 1
    UNCONFIRMED = 2
    OVER_HOLD = 4


class StoredCap:
    """A cap with the generation of its window, its raise, and the window that was current when it was last asked for."""

    __slots__ = ("_end_ms", "_start_ms", "_window", "cap", "generation", "hard", "limit", "raised", "soft", "strict", "unit")

    def __init__(self, cap: Cap, generation: int, raised: Raise | None = None) -> None:
        self.cap = cap
        self.generation = generation
        self.raised = raised
        self.unit = cap.unit
        self.limit = cap.limit
        self.hard = cap.enforcement is Enforcement.HARD
        self.soft = cap.enforcement is Enforcement.SOFT
        self.strict = cap.strict and cap.unit is Unit.USD
        self._window: Window | None = window_of(cap)
        self._start_ms, self._end_ms = (0, 0) if self._window else (NO_WINDOW, FAR_FUTURE_MS)

    def start_at(self, at_ms: int) -> int:
        """The start of the window that holds this instant; NO_WINDOW for a cap without one."""
        if self._window is None:
            return NO_WINDOW
        if not self._start_ms <= at_ms < self._end_ms:
            self._start_ms, self._end_ms = self._window.at(at_ms, self.cap.created_ms)
        return self._start_ms

    def end_at(self, at_ms: int) -> int:
        """The end of the window that holds this instant; FAR_FUTURE_MS for a cap without one."""
        self.start_at(at_ms)
        return self._end_ms

    def raise_at(self, at_ms: int) -> Raise | None:
        """The raise, while it lasts."""
        raised = self.raised
        return raised if raised is not None and at_ms < raised.until_ms else None

    def limit_at(self, at_ms: int) -> int:
        """The cap's limit with its raise, while that lasts; carry-over is the balance's."""
        raised = self.raised
        return self.limit if raised is None or at_ms >= raised.until_ms else self.limit + raised.amount

    def window_before(self, start_ms: int) -> int:
        """The start of the window that ended at `start_ms`."""
        return NO_WINDOW if self._window is None else self._window.at(start_ms - 1, self.cap.created_ms)[0]

    def home(self, start_ms: int, generation: int, held_ms: int) -> int:
        """Where a hold belongs: where it was taken, or its place in the new lattice when the cap's window has changed since."""
        if generation == self.generation:
            return start_ms
        return NO_WINDOW if self._window is None else self._window.at(held_ms, self.cap.created_ms)[0]

    def state(self, balance: "Balance", now_ms: int) -> CapState:
        """The cap and the sums of its current window."""
        raised = None if self.raised is None else self.raise_at(now_ms)
        if self._window is None:
            return CapState(self.cap, balance.used, balance.held, balance.carried, None, None, raised)
        start_ms = self.start_at(now_ms)
        return CapState(self.cap, balance.used, balance.held, balance.carried, start_ms, self._end_ms, raised)


class Balance:
    """The sums of one cap in one window, while a transaction works on them."""

    __slots__ = ("carried", "held", "used")

    def __init__(self, used: int = 0, held: int = 0, carried: int = 0) -> None:
        self.used = used
        self.held = held
        self.carried = carried


class HoldRow(NamedTuple):
    """A hold as it was written, and whether it is still open."""

    call_id: str
    at_ms: int
    amount_nanos: int
    tokens: int
    alone: bool
    parts: tuple[HoldPart, ...]
    is_open: bool


def cap_from_row(row: Sequence[Any], raised: Raise | None = None) -> StoredCap:
    """A cap from the columns `CAP_COLUMNS`."""
    cap = Cap(
        id=row[0],
        name=row[1],
        scope=Scope(row[2]),
        scope_id=row[3],
        scope_name=row[4],
        unit=Unit(row[5]),
        limit=row[6],
        window=row[7],
        calendar_aligned=bool(row[8]),
        timezone=row[9],
        quarter_start_month=row[10],
        enforcement=Enforcement(row[11]),
        strict=bool(row[12]),
        carry_over=bool(row[13]),
        created_ms=row[14],
        deleted=bool(row[15]),
    )
    return StoredCap(cap, row[16], raised)


def cap_to_row(cap: Cap, generation: int) -> tuple[Any, ...]:
    """The columns `CAP_COLUMNS` of a cap."""
    return (
        cap.id,
        cap.name,
        cap.scope.value,
        cap.scope_id,
        cap.scope_name,
        cap.unit.value,
        cap.limit,
        cap.window,
        int(cap.calendar_aligned),
        cap.timezone,
        cap.quarter_start_month,
        cap.enforcement.value,
        int(cap.strict),
        int(cap.carry_over),
        cap.created_ms,
        int(cap.deleted),
        generation,
    )


def read_caps(connection: Connection, cap_ids: Iterable[str]) -> dict[str, StoredCap]:
    """The caps with these ids, tombstones included, each with its raise that has not ended; unknown ids are left out."""
    wanted = (to_json(list(cap_ids)),)
    raises = {
        row[0]: Raise(*row[1:])
        for row in connection.execute(
            f"""SELECT cap_id, amount, from_ms, until_ms, reason FROM raises
            WHERE ended_ms IS NULL AND cap_id IN ({connection.listed})""",
            wanted,
        )
    }
    rows = connection.execute(f"SELECT {CAP_COLUMNS} FROM caps WHERE id IN ({connection.listed})", wanted)
    return {row[0]: cap_from_row(row, raises.get(row[0])) for row in rows}


def read_balances(connection: Connection, keys: Iterable[Key]) -> dict[Key, Balance]:
    """The balances under these keys; those without a row are left out."""
    return balances_from(connection.execute(*balances_query(connection, keys)))


def balances_query(connection: Connection, keys: Iterable[Key]) -> tuple[str, tuple[object, ...]]:
    """The statement that reads these balances, and its parameters; its rows are for `balances_from`."""
    return (
        f"""SELECT b.cap_id, b.window_start_ms, b.used, b.held, b.carried FROM {connection.rowset("text", "bigint")} AS k
        CROSS JOIN balances AS b ON b.cap_id = k.c0 AND b.window_start_ms = k.c1""",
        (to_json(list(keys)),),
    )


def balances_from(rows: Iterable[Sequence[Any]]) -> dict[Key, Balance]:
    """Balances by their keys."""
    return {(row[0], row[1]): Balance(row[2], row[3], row[4]) for row in rows}


def write_balances(connection: Connection, rows: Sequence[tuple[str, int, int, int, int]]) -> None:
    """Sets balances: rows of (cap id, window start, used, held, carried)."""
    connection.execute(
        f"""INSERT INTO balances (cap_id, window_start_ms, used, held, carried)
        SELECT c0, c1, c2, c3, c4 FROM {connection.rowset("text", "bigint", "bigint", "bigint", "bigint")} AS k WHERE true
        ON CONFLICT (cap_id, window_start_ms)
        DO UPDATE SET used = excluded.used, held = excluded.held, carried = excluded.carried""",
        (to_json(rows),),
    )


def read_holds(connection: Connection, call_ids: Sequence[str]) -> dict[str, HoldRow]:
    """The holds of these calls; unknown ids are left out."""
    rows = connection.execute(
        f"""SELECT h.call_id, h.at_ms, h.amount_nanos, h.tokens, h.alone, h.parts, o.call_id IS NOT NULL
        FROM ({connection.listed}) AS k CROSS JOIN holds AS h ON h.call_id = k.value
        LEFT JOIN open_holds AS o ON o.call_id = h.call_id""",
        (to_json(call_ids),),
    )
    return {row[0]: HoldRow(row[0], row[1], row[2], row[3], bool(row[4]), hold_parts(row[5]), bool(row[6])) for row in rows}


def hold_parts(text: str) -> tuple[HoldPart, ...]:
    """The parts of a hold from their JSON."""
    return tuple(map(tuple, orjson.loads(text)))


def post_parts(text: str) -> tuple[PostPart, ...]:
    """The parts of a post from their JSON."""
    return tuple(map(tuple, orjson.loads(text)))


def to_json(value: object) -> str:
    """Compact JSON text."""
    return orjson.dumps(value).decode()


def facts_to_json(facts: CallFacts) -> str:
    """The facts of a call as a JSON list, in the order of the fields; trailing fields may be added later."""
    return to_json(
        (
            facts.virtual_key_id,
            facts.virtual_key_name,
            facts.team_id,
            facts.customer_id,
            facts.run_id,
            facts.provider,
            facts.model,
            facts.operation,
            facts.stream,
        )
    )


def facts_from_json(text: str) -> CallFacts:
    """The facts of a call from their JSON list."""
    return CallFacts(*orjson.loads(text))


def saturated(amount: int) -> int:
    """An amount that fits a 64-bit column: sums beyond nine billion dollars stop there instead of failing."""
    return max(-MAX_AMOUNT, min(MAX_AMOUNT, amount))


def last_sequence(connection: Connection, table: str) -> int:
    """The highest sequence of `posts` or `entries`, 0 when it is empty."""
    if table not in ("posts", "entries"):
        raise ValueError(f"no sequence in {table}")
    return int(connection.execute(f"SELECT coalesce(max(sequence), 0) FROM {table}")[0][0])
