"""Editing caps without losing money: create, change, delete, reset, top up; each edit is explained by a row."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from store.clock import Ids
from store.database import Connection, bump_revision
from store.errors import Conflict, NotFound
from store.ledger.books import Books
from store.ledger.raises import end_raise_of_deleted
from store.ledger.resets import reset_lines
from store.ledger.rows import (
    CAP_COLUMNS,
    FAR_FUTURE_MS,
    MAX_AMOUNT,
    NO_WINDOW,
    Key,
    StoredCap,
    cap_from_row,
    cap_to_row,
    hold_parts,
    last_sequence,
    post_parts,
    read_caps,
    to_json,
)
from store.ledger.seal import look_again
from store.ledger.types import Cap, CapState, Scope, Unit
from store.windows import window_of

_POSTS_AT_ONCE = 20_000
_WINDOW_FIELDS = ("window", "calendar_aligned", "timezone", "quarter_start_month", "created_ms")


def check_cap(cap: Cap) -> None:
    """Raises ValueError with a sentence on what is wrong with a cap."""
    if not cap.id or not cap.scope_id:
        raise ValueError("a cap needs an id and the id of what it binds")
    if isinstance(cap.limit, bool) or not isinstance(cap.limit, int) or not 0 <= cap.limit <= MAX_AMOUNT:
        raise ValueError(f"the limit of {cap.name!r} is a number from 0 to what the ledger can hold")
    window_of(cap)
    if cap.unit is Unit.CONCURRENT and cap.window is not None:
        raise ValueError(f"{cap.name!r} counts parallel calls and takes no window; leave the window out")
    if cap.carry_over and cap.window is None:
        raise ValueError(f"{cap.name!r} has no window, so there is nothing to carry over; leave carry_over out")


def put_cap(connection: Connection, cap: Cap, *, reason: str = "") -> Cap:
    """Creates the cap or changes the one with its id, keeping what was used and held; returns it as stored.

    A `created_ms` of 0 means now for a new cap and unchanged for an old one. When the window changes, `used` is recomputed from
    the posts since the start of the new window; open holds, carry-over and top-ups of the running window move there. Raises
    ValueError, and Conflict for a changed unit.
    """
    old = read_caps(connection, (cap.id,)).get(cap.id)
    cap = _with_creation(connection, cap, old)
    check_cap(cap)
    if old is not None and old.cap == cap:
        return cap
    if old is not None and old.cap.unit is not cap.unit:
        raise Conflict(
            f"the cap {old.cap.name!r} counts {old.cap.unit.value}; delete it and make a new one to count {cap.unit.value}"
        )
    moved = old is not None and any(getattr(old.cap, name) != getattr(cap, name) for name in _WINDOW_FIELDS)
    books = Books(connection, connection.now_ms(), {} if old is None else {cap.id: old})
    # What the window before left over is frozen under the old limit, before anything is changed.
    books.load_current((cap.id,))
    generation = 0 if old is None else old.generation + int(moved)
    _store(connection, cap, generation)
    new = StoredCap(cap, generation, None if old is None else old.raised)
    books.caps[cap.id] = new
    key = (cap.id, new.start_at(books.now_ms))
    books.load((key,))
    books.touch(key)  # the window has begun: whatever comes first in it now, nothing is carried a second time
    before = 0 if old is None else old.cap.limit
    if cap.limit != before or old is None:
        books.entry(key, "limit", cap.limit - before, reason or ("created" if old is None else "limit changed"))
    if old is not None and old.cap.deleted and not cap.deleted:
        books.entry(key, "restore", 0, reason)
    if old is not None and (moved or old.cap.deleted):
        look_again(connection, key)
    if old is not None and moved:
        _move_holds(books, old, new)
        _move_allowance(books, (cap.id, old.start_at(books.now_ms)), key, reason or "window changed")
        _recompute(books, new, reason or "window changed")
    books.flush()
    bump_revision(connection, cap.scope.value, cap.scope_id)
    return cap


def delete_cap(connection: Connection, cap_id: str, *, reason: str = "") -> None:
    """Turns the cap into a tombstone: it binds nobody any more, and what is held on it still settles. Raises NotFound."""
    stored = _existing(connection, cap_id)
    connection.execute("UPDATE caps SET deleted = 1 WHERE id = ?", (cap_id,))
    books = Books(connection, connection.now_ms(), {cap_id: stored})
    books.load_current((cap_id,))
    end_raise_of_deleted(books, stored)
    books.entry((cap_id, stored.start_at(books.now_ms)), "delete", 0, reason)
    books.flush()
    bump_revision(connection, stored.cap.scope.value, stored.cap.scope_id)


def sync_caps(
    connection: Connection, scope: Scope, scope_id: str, desired: Sequence[Cap], ids: Ids, *, reason: str = ""
) -> list[Cap]:
    """Makes the caps of one owner exactly these; returns them as stored, in the order given.

    An existing cap is matched by id, then by unit and window, then by name within the unit, and keeps its id, its age and what
    was used. Caps that match nothing are deleted. An id may be empty. Raises ValueError, Conflict.
    """
    existing = {cap.id: cap for cap in load_caps(connection, scope=scope, scope_id=scope_id)}
    matches = _match(list(existing.values()), desired)
    kept = {match.id for match in matches if match is not None}
    for cap_id in existing:
        if cap_id not in kept:
            delete_cap(connection, cap_id, reason=reason)
    result = []
    for wanted, match in zip(desired, matches, strict=True):
        cap_id = match.id if match is not None else wanted.id or ids.new()
        if match is None and wanted.id:
            _refuse_foreign(connection, wanted, scope, scope_id)
        created_ms = match.created_ms if match is not None else wanted.created_ms
        cap = replace(wanted, id=cap_id, scope=scope, scope_id=scope_id, created_ms=created_ms, deleted=False)
        result.append(put_cap(connection, cap, reason=reason))
    return result


def reset_cap(connection: Connection, cap_id: str, reason: str) -> CapState:
    """Appends minus what was used in the current window; holds stay. Returns the state after it. Raises NotFound."""
    stored = _existing(connection, cap_id)
    books = Books(connection, connection.now_ms(), {cap_id: stored})
    books.load_current((cap_id,))
    balance = books.current(stored)
    books.entry((cap_id, stored.start_at(books.now_ms)), "reset", -balance.used, reason)
    balance.used = 0
    books.flush()
    return books.state(stored)


def top_up(connection: Connection, cap_id: str, amount: int, reason: str) -> CapState:
    """Adds to what the cap allows: for good when it has no window (prepaid), else for the current window only.

    `amount` is in the cap's unit, nano-dollars for money. Returns the state after it. Raises NotFound, ValueError.
    """
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= MAX_AMOUNT:
        raise ValueError("a top-up is an amount above 0")
    stored = _existing(connection, cap_id)
    books = Books(connection, connection.now_ms(), {cap_id: stored})
    books.load_current((cap_id,))
    if books.state(stored).limit + amount > MAX_AMOUNT:
        raise ValueError("the limit would be more than the ledger can hold")
    if stored.cap.window is None:
        stored = StoredCap(replace(stored.cap, limit=stored.cap.limit + amount), stored.generation, stored.raised)
        _store(connection, stored.cap, stored.generation)
    key = (cap_id, stored.start_at(books.now_ms))
    if stored.cap.window is not None:
        books.current(stored).carried += amount
    books.entry(key, "topup", amount, reason)
    books.flush()
    bump_revision(connection, stored.cap.scope.value, stored.cap.scope_id)
    return books.state(stored)


def load_caps(
    connection: Connection, *, scope: Scope | None = None, scope_id: str | None = None, deleted: bool = False
) -> list[Cap]:
    """All caps, or those of one scope or owner, oldest first; with `deleted` the tombstones too."""
    conditions, params = ["true"], []
    if scope is not None:
        conditions.append("scope = ?")
        params.append(scope.value)
    if scope_id is not None:
        conditions.append("scope_id = ?")
        params.append(scope_id)
    if not deleted:
        conditions.append("deleted = 0")
    rows = connection.execute(f"SELECT {CAP_COLUMNS} FROM caps WHERE {' AND '.join(conditions)} ORDER BY created_ms, id", params)
    return [cap_from_row(row).cap for row in rows]


def cap_states(connection: Connection, now_ms: int, cap_ids: Iterable[str] | None = None) -> list[CapState]:
    """The caps with the sums of their windows at this instant, all of them or these in this order; reads only."""
    wanted = [cap.id for cap in load_caps(connection)] if cap_ids is None else list(cap_ids)
    books = Books(connection, now_ms)
    books.load_caps(wanted)
    books.load_current(wanted)  # rolls in memory only: nothing is flushed
    return list(books.states(wanted))


def _with_creation(connection: Connection, cap: Cap, old: StoredCap | None) -> Cap:
    if cap.created_ms:
        return cap
    return replace(cap, created_ms=connection.now_ms() if old is None else old.cap.created_ms)


def _existing(connection: Connection, cap_id: str) -> StoredCap:
    stored = read_caps(connection, (cap_id,)).get(cap_id)
    if stored is None or stored.cap.deleted:
        raise NotFound(f"there is no cap with the id {cap_id!r}")
    return stored


def _store(connection: Connection, cap: Cap, generation: int) -> None:
    columns = CAP_COLUMNS.split(", ")
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
    connection.execute(
        f"""INSERT INTO caps ({CAP_COLUMNS}) VALUES ({", ".join("?" * len(columns))})
        ON CONFLICT (id) DO UPDATE SET {changes}""",
        cap_to_row(cap, generation),
    )


def _refuse_foreign(connection: Connection, wanted: Cap, scope: Scope, scope_id: str) -> None:
    taken = read_caps(connection, (wanted.id,)).get(wanted.id)
    if taken is not None and (taken.cap.scope is not scope or taken.cap.scope_id != scope_id):
        raise Conflict(f"the id {wanted.id!r} belongs to a cap of {taken.cap.scope_name or taken.cap.scope_id!r}; leave the id out")


def _match(existing: Sequence[Cap], desired: Sequence[Cap]) -> list[Cap | None]:
    """For each desired cap the existing one it stands for: by id, then unit and window, then unit and name."""
    free = list(existing)
    matches: list[Cap | None] = [None] * len(desired)

    def sweep(same: Callable[[Cap, Cap], bool]) -> None:
        for index, wanted in enumerate(desired):
            if matches[index] is None:
                found = next((cap for cap in free if cap.unit is wanted.unit and same(cap, wanted)), None)
                if found is not None:
                    matches[index] = found
                    free.remove(found)

    sweep(lambda cap, wanted: bool(wanted.id) and cap.id == wanted.id)
    sweep(lambda cap, wanted: cap.window == wanted.window and cap.calendar_aligned == wanted.calendar_aligned)
    sweep(lambda cap, wanted: cap.window == wanted.window)
    sweep(lambda cap, wanted: bool(wanted.name) and cap.name == wanted.name)
    return matches


def _move_holds(books: Books, old: StoredCap, new: StoredCap) -> None:
    """Moves what is held from the windows of the old lattice to those of the new one."""
    rows = books.connection.execute("SELECT h.at_ms, h.parts FROM open_holds AS o JOIN holds AS h ON h.call_id = o.call_id")
    cap_id = new.cap.id
    for held_ms, text in rows:
        for part_id, start_ms, amount, generation in hold_parts(text):
            if part_id != cap_id:
                continue
            source = (cap_id, old.home(start_ms, generation, held_ms))
            target = (cap_id, new.home(start_ms, generation, held_ms))
            books.at(source).held -= amount
            books.at(target).held += amount
            books.touch(source)
            books.touch(target)


def _move_allowance(books: Books, source: Key, target: Key, reason: str) -> None:
    """What was carried over or topped up for the running window counts in the one that takes its place."""
    amount = books.at(source).carried
    if amount and source != target:
        books.at(source).carried -= amount
        books.entry(source, "carry", -amount, reason)
        books.at(target).carried += amount
        books.entry(target, "carry", amount, reason)


def _recompute(books: Books, new: StoredCap, reason: str) -> None:
    """Sets `used` of the new current window to what was posted for its calls since the last reset."""
    start_ms = new.start_at(books.now_ms)
    key = (new.cap.id, start_ms)
    balance = books.at(key)
    used = _posted_since(books.connection, new.cap.id, start_ms)
    books.entry(key, "window", used - balance.used, reason)
    balance.used = used


def _posted_since(connection: Connection, cap_id: str, start_ms: int) -> int:
    """Newest first, in pages, until a whole page was settled before the start: an edit costs what its window holds."""
    since_ms = -FAR_FUTURE_MS if start_ms == NO_WINDOW else start_ms
    first = connection.execute("SELECT coalesce(min(sequence), 0) FROM posts")[0][0]
    line = max(first - 1, reset_lines(connection, (cap_id,)).get(cap_id, 0))
    upto, used = last_sequence(connection, "posts"), 0
    naming = "%" + re.sub(r"[\\%_]", "_", to_json(cap_id)) + "%"  # rather one row too many: the id is compared below
    while upto > line:
        after = max(line, upto - _POSTS_AT_ONCE)
        newest = connection.execute(
            "SELECT coalesce(max(at_ms), ?), coalesce(max(held_ms), ?) FROM posts WHERE sequence > ? AND sequence <= ?",
            (since_ms, since_ms, after, upto),
        )
        if max(newest[0]) < since_ms:
            break
        rows = connection.execute(
            "SELECT parts FROM posts WHERE sequence > ? AND sequence <= ? AND held_ms >= ? AND parts LIKE ?",
            (after, upto, since_ms, naming),
        )
        used += sum(part[2] for (text,) in rows for part in post_parts(text) if part[0] == cap_id)
        upto = after
    return used
