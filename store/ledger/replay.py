"""Adds up the rows of the books, page by page: what every cache must say, and rows that contradict one another."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from store.database import Connection, Row
from store.ledger.raises import ENDED, RAISED
from store.ledger.rows import CAP_COLUMNS, NO_WINDOW, Key, PostPart, StoredCap, cap_from_row, hold_parts, post_parts, to_json
from store.ledger.types import Unit

PAGE = 5_000
"""Rows in memory at a time."""


@dataclass(slots=True)
class Sums:
    """What the rows beyond a balance's seal add up to."""

    used: int = 0
    held: int = 0
    carried: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that cannot be right."""

    what: str
    call_id: str
    cap_id: str
    window_start_ms: int | None
    kept: int | str
    expected: int | str


@dataclass(slots=True)
class Replay:
    """The result. `sums` has the balances with rows beyond their seal only, so memory goes with the windows that are not over."""

    caps: dict[str, StoredCap]
    sums: dict[Key, Sums] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    raised: dict[str, int] = field(default_factory=dict)
    """Raises that have begun and not ended, by cap."""
    open_calls: set[str] = field(default_factory=set)
    holds: int = 0
    posts: int = 0
    entries: int = 0
    cost_nanos: int = 0
    faults: list[Fault] = field(default_factory=list)
    mended: dict[Key, tuple[int, int, int]] = field(default_factory=dict)
    """(used, held, carried) of the balances that were found wrong."""
    resets: dict[str, list[int]] = field(default_factory=dict)
    """The sequence of the last post before each reset, ascending, by cap."""

    def at(self, key: Key) -> Sums:
        """The sums under a key."""
        found = self.sums.get(key)
        if found is None:
            found = self.sums[key] = Sums()
        return found


def replay(connection: Connection) -> Replay:
    """Everything at the instant of the transaction. Raises StoreUnavailable."""
    caps = {row[0]: cap_from_row(row) for row in connection.execute(f"SELECT {CAP_COLUMNS} FROM caps")}
    books = Replay(caps)
    _entries(connection, books)
    _posts(connection, books)
    _holds(connection, books)
    return books


def _entries(connection: Connection, books: Replay) -> None:
    columns = "sequence, cap_id, window_start_ms, kind, amount, posts_sequence"
    for page in _pages(connection, f"SELECT {columns} FROM entries"):
        sealed = _seals(connection, {(row[1], row[2]) for row in page}, "entries_sequence")
        for sequence, cap_id, start_ms, kind, amount, posts_sequence in page:
            books.entries += 1
            key = (cap_id, start_ms)
            if kind == "reset":
                books.resets.setdefault(cap_id, []).append(posts_sequence)
            if kind == "limit" or (kind == "topup" and start_ms == NO_WINDOW):
                books.limits[cap_id] = books.limits.get(cap_id, 0) + amount
            elif kind in (RAISED, ENDED):
                books.raised[cap_id] = books.raised.get(cap_id, 0) + amount
            elif sequence <= sealed.get(key, -1):
                continue
            elif kind in ("reset", "window"):
                books.at(key).used += amount
            elif kind in ("carry", "topup"):
                books.at(key).carried += amount


def _posts(connection: Connection, books: Replay) -> None:
    columns = "sequence, call_id, step, kind, cost_nanos, tokens, parts"
    money = {cap_id for cap_id, stored in books.caps.items() if stored.unit is Unit.USD}
    for page in _pages(connection, f"SELECT {columns} FROM posts"):
        parsed = [(row, post_parts(row[6])) for row in page]
        sealed = _seals(connection, {(part[0], part[1]) for _, parts in parsed for part in parts}, "posts_sequence")
        firsts = _first_posts(connection, [row[1] for row in page if row[2] == 2])
        for row, parts in parsed:
            sequence, call_id, step, _, cost_nanos, _, _ = row
            books.posts += 1
            books.cost_nanos += cost_nanos
            for part in parts:
                cap_id, start_ms, used = part
                if used != cost_nanos or step != 1 or cap_id not in money:  # nearly every row is money that is right
                    _check_amount(books, row, firsts.get(call_id), part)
                key = (cap_id, start_ms)
                if sequence > sealed.get(key, -1):
                    books.at(key).used += used


@dataclass(frozen=True, slots=True)
class _First:
    """The settling post of a call that was corrected."""

    sequence: int
    cost_nanos: int
    tokens: int
    used: dict[str, int]


def _check_amount(books: Replay, row: Row, first: _First | None, part: PostPart) -> None:
    """Whether a post books on a cap what its cost, its tokens and the resets since say."""
    sequence, call_id, step, kind, cost_nanos, tokens, _ = row
    cap_id, start_ms, used = part
    stored = books.caps.get(cap_id)
    if stored is None:
        books.faults.append(Fault("unknown cap", call_id, cap_id, start_ms, used, "nothing"))
        return
    if step == 1:
        expected = _expected(stored.unit, kind, cost_nanos, tokens)
    elif first is None:
        return
    else:
        expected = _expected_correction(books, stored.unit, first, sequence, cap_id, (cost_nanos, tokens))
    if expected is not None and used != expected:
        books.faults.append(Fault("amount", call_id, cap_id, start_ms, used, expected))


def _expected(unit: Unit, kind: str, cost_nanos: int, tokens: int) -> int | None:
    if unit is Unit.USD:
        return cost_nanos
    if unit is Unit.CONCURRENT:
        return 0
    if unit is Unit.TOKENS:
        return None if kind == "unconfirmed" else tokens  # unconfirmed: what this cap held, which may be less than the estimate
    return 0 if kind == "void" else 1


def _expected_correction(
    books: Replay, unit: Unit, first: _First, sequence: int, cap_id: str, differences: tuple[int, int]
) -> int | None:
    """A correction brings what was booked to what the call really was, unless the cap was reset between the two."""
    resets = books.resets.get(cap_id, [])
    at = bisect_left(resets, first.sequence)
    if at < len(resets) and resets[at] < sequence:
        return 0
    before = first.used.get(cap_id, 0)
    if unit is Unit.USD:
        return first.cost_nanos + differences[0] - before
    if unit is Unit.TOKENS:
        # No other count of tokens: either it was as estimated, or somebody confirmed the call as it was charged.
        return first.tokens + differences[1] - before if differences[1] else None
    return 0 if unit is Unit.CONCURRENT else None  # requests: 0 when it was sent after all, -1 when it was not


def _holds(connection: Connection, books: Replay) -> None:
    books.holds = int(connection.execute("SELECT count(*) FROM holds")[0][0])
    for call_id, at_ms, text in connection.execute(
        """SELECT h.call_id, h.at_ms, h.parts FROM holds AS h
        WHERE NOT EXISTS (SELECT 1 FROM posts AS p WHERE p.call_id = h.call_id AND p.step = 1)"""
    ):
        books.open_calls.add(call_id)
        for cap_id, start_ms, amount, generation in hold_parts(text):
            stored = books.caps.get(cap_id)
            if stored is None:
                books.faults.append(Fault("unknown cap", call_id, cap_id, start_ms, amount, "nothing"))
            else:
                books.at((cap_id, stored.home(start_ms, generation, at_ms))).held += amount
    for (call_id,) in connection.execute(
        "SELECT p.call_id FROM posts AS p WHERE NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.call_id = p.call_id)"
    ):
        books.faults.append(Fault("unknown hold", call_id, "", None, call_id, "nothing"))


def _seals(connection: Connection, keys: Iterable[Key], column: str) -> dict[Key, int]:
    """The last row that the seal of each of these balances explains."""
    rows = connection.execute(
        f"""SELECT s.cap_id, s.window_start_ms, s.{column} FROM {connection.rowset("text", "bigint")} AS k
        CROSS JOIN seals AS s ON s.cap_id = k.c0 AND s.window_start_ms = k.c1""",
        (to_json(list(keys)),),
    )
    return {(row[0], row[1]): row[2] for row in rows}


def _first_posts(connection: Connection, call_ids: Sequence[str]) -> dict[str, _First]:
    if not call_ids:
        return {}
    rows = connection.execute(
        f"""SELECT p.call_id, p.sequence, p.cost_nanos, p.tokens, p.parts FROM ({connection.listed}) AS k
        CROSS JOIN posts AS p ON p.call_id = k.value AND p.step = 1""",
        (to_json(list(call_ids)),),
    )
    return {row[0]: _First(row[1], row[2], row[3], {part[0]: part[2] for part in post_parts(row[4])}) for row in rows}


def _pages(connection: Connection, select: str) -> Iterator[list[Row]]:
    """All rows in the order of their sequence, which is the first column."""
    last = 0
    while True:
        rows = connection.execute(f"{select} WHERE sequence > ? ORDER BY sequence LIMIT ?", (last, PAGE))
        if rows:
            yield rows
        if len(rows) < PAGE:
            return
        last = rows[-1][0]
