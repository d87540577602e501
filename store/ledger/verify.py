"""Replays the rows of the books and compares with the caches: balances, open holds, limits, raises. `rebuild` mends the caches."""

from collections.abc import Iterator
from dataclasses import dataclass

from store.clock import Clock
from store.database import Connection, Database, bump_revision
from store.ledger.raises import ENDED
from store.ledger.replay import PAGE, Fault, Replay, replay
from store.ledger.rows import NO_WINDOW, Key, saturated, to_json, write_balances


@dataclass(frozen=True, slots=True)
class Difference:
    """Something the caches say otherwise than the rows, or a row that contradicts another."""

    what: str
    """`used`, `held`, `carried`, `limit`, `raise`, `open hold`, `unknown hold`, `unknown cap` or `amount`."""
    cap_id: str
    window_start_ms: int | None
    kept: int | str
    replayed: int | str
    cap_name: str = ""
    unit: str = ""
    """The cap's unit: what the amounts are counted in, nano-dollars for `usd`."""
    call_id: str = ""

    def __str__(self) -> str:
        where = f" of cap {self.cap_id}" if self.cap_id else ""
        window = "" if self.window_start_ms in (None, NO_WINDOW) else f" in the window from {self.window_start_ms}"
        call = f" of call {self.call_id}" if self.call_id else ""
        return f"{self.what}{where}{window}{call}: kept {self.kept}, the rows say {self.replayed}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a replay found."""

    at_ms: int
    holds: int
    posts: int
    entries: int
    open_holds: int
    cost_nanos: int
    """What all calls cost together whose rows are still kept."""
    differences: tuple[Difference, ...]

    @property
    def clean(self) -> bool:
        """True when rows and caches agree."""
        return not self.differences


def verify(database: Database, clock: Clock) -> VerifyReport:
    """Replays everything at one instant of the database and lists what differs. Reads only, page by page.

    Raises StoreUnavailable.
    """
    with database.read() as connection:
        return verify_in(connection, clock)


def verify_in(connection: Connection, clock: Clock) -> VerifyReport:
    """As `verify`, inside a transaction. Raises StoreUnavailable."""
    books = replay(connection)
    return _report(clock, books, tuple(_differences(connection, books)))


def rebuild(database: Database, clock: Clock) -> VerifyReport:
    """Makes balances, limits, raises and open holds anew from the rows; returns what was wrong before. Raises StoreUnavailable."""
    with database.write() as connection:
        books = replay(connection)
        report = _report(clock, books, tuple(_differences(connection, books)))
        if not report.clean:
            _mend(connection, books, report.differences)
            bump_revision(connection)
        return report


def _report(clock: Clock, books: Replay, differences: tuple[Difference, ...]) -> VerifyReport:
    return VerifyReport(
        clock.now_ms(), books.holds, books.posts, books.entries, len(books.open_calls), books.cost_nanos, differences
    )


def _differences(connection: Connection, books: Replay) -> Iterator[Difference]:
    for fault in books.faults:
        yield _of_fault(books, fault)
    yield from _balances(connection, books)
    yield from _limits(books)
    yield from _raises(connection, books)
    yield from _open_holds(connection, books)


def _named(books: Replay, what: str, key: tuple[str, int | None], kept: int, replayed: int) -> Difference:
    stored = books.caps.get(key[0])
    name, unit = (stored.cap.name, stored.unit.value) if stored is not None else ("", "")
    return Difference(what, key[0], key[1], kept, replayed, name, unit)


def _of_fault(books: Replay, fault: Fault) -> Difference:
    stored = books.caps.get(fault.cap_id)
    name, unit = (stored.cap.name, stored.unit.value) if stored is not None else ("", "")
    call_id = fault.call_id if fault.cap_id else ""
    return Difference(fault.what, fault.cap_id, fault.window_start_ms, fault.kept, fault.expected, name, unit, call_id)


def _balances(connection: Connection, books: Replay) -> Iterator[Difference]:
    """Every balance in the order of its key, against its seal and the rows beyond that; then what has rows and no balance."""
    seen: set[Key] = set()
    for key, kept, sealed in _kept_balances(connection):
        if key in books.sums:
            seen.add(key)
        yield from _one_balance(books, key, kept, sealed)
    for key in sorted(books.sums.keys() - seen):
        yield from _one_balance(books, key, (0, 0, 0), (0, 0))
    for cap_id, start_ms, used, carried in connection.execute(
        """SELECT s.cap_id, s.window_start_ms, s.used, s.carried FROM seals AS s WHERE NOT EXISTS
        (SELECT 1 FROM balances AS b WHERE b.cap_id = s.cap_id AND b.window_start_ms = s.window_start_ms)"""
    ):
        if (cap_id, start_ms) not in books.sums:
            yield from _one_balance(books, (cap_id, start_ms), (0, 0, 0), (used, carried))


def _kept_balances(connection: Connection) -> Iterator[tuple[Key, tuple[int, int, int], tuple[int, int]]]:
    """(key, (used, held, carried), (used, carried) of its seal) of every balance."""
    last: Key = ("", -(2**62))
    while True:
        rows = connection.execute(
            """SELECT b.cap_id, b.window_start_ms, b.used, b.held, b.carried, coalesce(s.used, 0), coalesce(s.carried, 0)
            FROM balances AS b LEFT JOIN seals AS s ON s.cap_id = b.cap_id AND s.window_start_ms = b.window_start_ms
            WHERE (b.cap_id, b.window_start_ms) > (?, ?) ORDER BY b.cap_id, b.window_start_ms LIMIT ?""",
            (*last, PAGE),
        )
        for row in rows:
            yield (row[0], row[1]), (row[2], row[3], row[4]), (row[5], row[6])
        if len(rows) < PAGE:
            return
        last = (rows[-1][0], rows[-1][1])


def _one_balance(books: Replay, key: Key, kept: tuple[int, int, int], sealed: tuple[int, int]) -> Iterator[Difference]:
    sums = books.sums.get(key)
    used, held, carried = (sums.used, sums.held, sums.carried) if sums is not None else (0, 0, 0)
    right = (saturated(sealed[0] + used), saturated(held), saturated(sealed[1] + carried))
    if kept == right:
        return
    books.mended[key] = right
    for what, ours, theirs in zip(("used", "held", "carried"), kept, right, strict=True):
        if ours != theirs:
            yield _named(books, what, key, ours, theirs)


def _limits(books: Replay) -> Iterator[Difference]:
    for cap_id, stored in sorted(books.caps.items()):
        limit = books.limits.get(cap_id, 0)
        if stored.cap.limit != limit:
            yield _named(books, "limit", (cap_id, None), stored.cap.limit, limit)


def _raises(connection: Connection, books: Replay) -> Iterator[Difference]:
    kept: dict[str, int] = dict(connection.execute("SELECT cap_id, amount FROM raises WHERE ended_ms IS NULL"))
    for cap_id in sorted({*kept, *books.raised}):
        ours, theirs = kept.get(cap_id, 0), books.raised.get(cap_id, 0)
        if ours != theirs:
            yield _named(books, "raise", (cap_id, None), ours, theirs)


def _open_holds(connection: Connection, books: Replay) -> Iterator[Difference]:
    cached = {row[0] for row in connection.execute("SELECT call_id FROM open_holds")}
    for call_id in sorted(cached ^ books.open_calls):
        is_open = call_id in books.open_calls
        yield Difference("open hold", "", None, "settled" if is_open else call_id, call_id if is_open else "settled")


def _mend(connection: Connection, books: Replay, differences: tuple[Difference, ...]) -> None:
    write_balances(connection, [(key[0], key[1], *sums) for key, sums in books.mended.items()])
    of = {what: [difference for difference in differences if difference.what == what] for what in ("limit", "raise")}
    connection.executemany(
        "UPDATE caps SET limit_amount = ? WHERE id = ?", [(difference.replayed, difference.cap_id) for difference in of["limit"]]
    )
    for difference in of["raise"]:
        _mend_raise(connection, difference)
    wrong = [d.kept if d.replayed == "settled" else d.replayed for d in differences if d.what == "open hold"]
    if wrong:
        connection.execute(f"DELETE FROM open_holds WHERE call_id IN ({connection.listed})", (to_json(wrong),))
        connection.execute(
            f"""INSERT INTO open_holds (call_id, epoch, at_ms) SELECT call_id, epoch, at_ms FROM holds
            WHERE call_id IN ({connection.listed})""",
            (to_json([call_id for call_id in wrong if call_id in books.open_calls]),),
        )


def _mend_raise(connection: Connection, difference: Difference) -> None:
    cap_id, amount = difference.cap_id, int(difference.replayed)
    now_ms = connection.now_ms()
    if amount > 0 and difference.kept:
        connection.execute("UPDATE raises SET amount = ? WHERE cap_id = ? AND ended_ms IS NULL", (amount, cap_id))
        return
    connection.execute("UPDATE raises SET ended_ms = ? WHERE cap_id = ? AND ended_ms IS NULL", (now_ms, cap_id))
    if amount:
        # The rows tell of a raise whose end nobody knows: it is over, and a row says so.
        connection.execute(
            """INSERT INTO entries (cap_id, window_start_ms, kind, amount, at_ms, reason, posts_sequence)
            VALUES (?, ?, ?, ?, ?, ?, (SELECT coalesce(max(sequence), 0) FROM posts))""",
            (cap_id, NO_WINDOW, ENDED, -amount, now_ms, "no such raise is kept"),
        )
