"""Replays the rows of the books and compares with the caches: balances, open holds, limits. `rebuild` mends the caches."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from store.clock import Clock
from store.database import Connection, Database, Row, bump_revision
from store.ledger.rows import (
    CAP_COLUMNS,
    NO_WINDOW,
    Key,
    StoredCap,
    cap_from_row,
    hold_parts,
    post_parts,
    saturated,
    write_balances,
)
from store.ledger.types import Unit

_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Something the caches say otherwise than the rows."""

    what: str
    """`used`, `held`, `carried`, `limit`, `open hold`, `settled twice`, `unknown hold` or `amount`."""
    cap_id: str
    window_start_ms: int | None
    kept: int | str
    replayed: int | str

    def __str__(self) -> str:
        where = f" of cap {self.cap_id}" if self.cap_id else ""
        window = "" if self.window_start_ms in (None, NO_WINDOW) else f" in the window from {self.window_start_ms}"
        return f"{self.what}{where}{window}: kept {self.kept}, the rows say {self.replayed}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a replay found."""

    at_ms: int
    holds: int
    posts: int
    entries: int
    open_holds: int
    cost_nanos: int
    """What all calls cost together."""
    differences: tuple[Difference, ...]

    @property
    def clean(self) -> bool:
        """True when rows and caches agree."""
        return not self.differences


@dataclass(slots=True)
class _Replay:
    """The sums that the rows add up to."""

    caps: dict[str, StoredCap]
    used: dict[Key, int] = field(default_factory=dict)
    held: dict[Key, int] = field(default_factory=dict)
    carried: dict[Key, int] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    open_calls: set[str] = field(default_factory=set)
    holds: int = 0
    posts: int = 0
    entries: int = 0
    cost_nanos: int = 0
    faults: list[Difference] = field(default_factory=list)


def verify(database: Database, clock: Clock) -> VerifyReport:
    """Replays everything at one instant of the database and lists what differs. Reads only. Raises StoreUnavailable."""
    with database.read() as connection:
        replay = _replay(connection)
        differences = replay.faults + list(_compare(connection, replay))
    return VerifyReport(
        clock.now_ms(),
        replay.holds,
        replay.posts,
        replay.entries,
        len(replay.open_calls),
        replay.cost_nanos,
        tuple(differences),
    )


def rebuild(database: Database, clock: Clock) -> VerifyReport:
    """Makes balances, limits and open holds anew from the rows; returns what was wrong before. Raises StoreUnavailable."""
    with database.write() as connection:
        replay = _replay(connection)
        differences = replay.faults + list(_compare(connection, replay))
        if differences:
            _write_caches(connection, replay)
            bump_revision(connection)
    return VerifyReport(
        clock.now_ms(),
        replay.holds,
        replay.posts,
        replay.entries,
        len(replay.open_calls),
        replay.cost_nanos,
        tuple(differences),
    )


def _replay(connection: Connection) -> _Replay:
    caps = {row[0]: cap_from_row(row) for row in connection.execute(f"SELECT {CAP_COLUMNS} FROM caps")}
    replay = _Replay(caps)
    sealed = _replay_seals(connection, replay)
    _replay_entries(connection, replay, sealed)
    _replay_posts(connection, replay, sealed)
    _replay_holds(connection, replay)
    return replay


def _replay_seals(connection: Connection, replay: _Replay) -> dict[Key, tuple[int, int]]:
    """Starts from the sums of sealed windows; returns the last (post, entry) that each seal explains."""
    sealed: dict[Key, tuple[int, int]] = {}
    for cap_id, start_ms, used, carried, post, entry in connection.execute(
        "SELECT cap_id, window_start_ms, used, carried, posts_sequence, entries_sequence FROM seals"
    ):
        key = (cap_id, start_ms)
        replay.used[key] = used
        replay.carried[key] = carried
        sealed[key] = (post, entry)
    return sealed


def _replay_entries(connection: Connection, replay: _Replay, sealed: dict[Key, tuple[int, int]]) -> None:
    for sequence, cap_id, start_ms, kind, amount in _pages(
        connection, "SELECT sequence, cap_id, window_start_ms, kind, amount FROM entries", "sequence"
    ):
        replay.entries += 1
        key = (cap_id, start_ms)
        if kind == "limit" or (kind == "topup" and start_ms == NO_WINDOW):
            replay.limits[cap_id] = replay.limits.get(cap_id, 0) + amount
        elif key in sealed and sequence <= sealed[key][1]:
            continue
        elif kind in ("reset", "window"):
            replay.used[key] = replay.used.get(key, 0) + amount
        elif kind in ("carry", "topup"):
            replay.carried[key] = replay.carried.get(key, 0) + amount


def _replay_posts(connection: Connection, replay: _Replay, sealed: dict[Key, tuple[int, int]]) -> None:
    for sequence, cost_nanos, tokens, kind, text in _pages(
        connection, "SELECT sequence, cost_nanos, tokens, kind, parts FROM posts", "sequence"
    ):
        replay.posts += 1
        replay.cost_nanos += cost_nanos
        for cap_id, start_ms, used in post_parts(text):
            key = (cap_id, start_ms)
            unit = replay.caps[cap_id].unit if cap_id in replay.caps else None
            expected = _expected(unit, kind, cost_nanos, tokens)
            if expected is not None and used != expected:
                replay.faults.append(Difference("amount", cap_id, start_ms, used, expected))
            if key not in sealed or sequence > sealed[key][0]:
                replay.used[key] = replay.used.get(key, 0) + used


def _expected(unit: Unit | None, kind: str, cost_nanos: int, tokens: int) -> int | None:
    """What a post must have booked on a cap of this unit; None when the row alone does not tell."""
    if unit is Unit.USD:
        return cost_nanos
    if unit is Unit.CONCURRENT:
        return 0
    # What a cap in tokens held may be less than the estimate, so a guess and its correction tell only together.
    return tokens if unit is Unit.TOKENS and kind in ("post", "void") else None


def _replay_holds(connection: Connection, replay: _Replay) -> None:
    replay.holds = int(connection.execute("SELECT count(*) FROM holds")[0][0])
    for call_id, at_ms, text in connection.execute(
        """SELECT h.call_id, h.at_ms, h.parts FROM holds AS h
        WHERE NOT EXISTS (SELECT 1 FROM posts AS p WHERE p.call_id = h.call_id AND p.step = 1)"""
    ):
        replay.open_calls.add(call_id)
        for cap_id, start_ms, amount, generation in hold_parts(text):
            key = (cap_id, replay.caps[cap_id].home(start_ms, generation, at_ms))
            replay.held[key] = replay.held.get(key, 0) + amount
    for (call_id,) in connection.execute(
        "SELECT p.call_id FROM posts AS p WHERE NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.call_id = p.call_id)"
    ):
        replay.faults.append(Difference("unknown hold", "", None, call_id, "nothing"))


def _compare(connection: Connection, replay: _Replay) -> Iterator[Difference]:
    kept = {
        (row[0], row[1]): row[2:] for row in connection.execute("SELECT cap_id, window_start_ms, used, held, carried FROM balances")
    }
    for key in sorted({*kept, *replay.used, *replay.held, *replay.carried}):
        used, held, carried = kept.get(key, (0, 0, 0))
        for what, ours, sums in (("used", used, replay.used), ("held", held, replay.held), ("carried", carried, replay.carried)):
            theirs = saturated(sums.get(key, 0))
            if ours != theirs:
                yield Difference(what, key[0], key[1], ours, theirs)
    for cap_id, stored in sorted(replay.caps.items()):
        limit = replay.limits.get(cap_id, 0)
        if stored.cap.limit != limit:
            yield Difference("limit", cap_id, None, stored.cap.limit, limit)
    cached = {row[0] for row in connection.execute("SELECT call_id FROM open_holds")}
    for call_id in sorted(cached ^ replay.open_calls):
        is_open = call_id in replay.open_calls
        yield Difference("open hold", "", None, "settled" if is_open else call_id, call_id if is_open else "settled")


def _write_caches(connection: Connection, replay: _Replay) -> None:
    connection.execute("DELETE FROM balances")
    keys = sorted({*replay.used, *replay.held, *replay.carried})
    write_balances(
        connection,
        [
            (
                key[0],
                key[1],
                saturated(replay.used.get(key, 0)),
                saturated(replay.held.get(key, 0)),
                saturated(replay.carried.get(key, 0)),
            )
            for key in keys
        ],
    )
    connection.executemany(
        "UPDATE caps SET limit_amount = ? WHERE id = ?", [(replay.limits.get(cap, 0), cap) for cap in replay.caps]
    )
    connection.execute("DELETE FROM open_holds")
    connection.executemany(
        "INSERT INTO open_holds (call_id, epoch, at_ms) SELECT call_id, epoch, at_ms FROM holds WHERE call_id = ?",
        [(call_id,) for call_id in sorted(replay.open_calls)],
    )


def _pages(connection: Connection, select: str, column: str) -> Iterator[Row]:
    """All rows in order, a bounded number in memory at a time; the first column must be `column`."""
    last = 0
    while True:
        rows = connection.execute(f"{select} WHERE {column} > ? ORDER BY {column} LIMIT ?", (last, _AT_ONCE))
        yield from rows
        if len(rows) < _AT_ONCE:
            return
        last = rows[-1][0]
