"""Temporary raises of a cap's limit: begun and taken back by a person, ended by themselves at their time."""

from store.database import Connection, bump_revision
from store.errors import NotFound
from store.ledger.books import Books
from store.ledger.rows import MAX_AMOUNT, StoredCap, read_caps
from store.ledger.types import CapState, Raise
from store.windows import MAX_DURATION_MS

RAISED, ENDED = "raise", "unraise"
"""The kinds of the entries that explain a raise and its end."""


def raise_cap(
    connection: Connection, cap_id: str, *, by: int | None = None, to: int | None = None, until_ms: int, reason: str
) -> CapState:
    """Raises the limit by an amount, or to one, until an instant of the database's time; returns the state after it.

    Amounts are in the cap's unit, nano-dollars for money. A raise that is in force is replaced. It does not touch the cap itself:
    edits of the limit go on beside it, and carry-over does not count it. Raises NotFound, ValueError.
    """
    stored = _existing(connection, cap_id)
    now_ms = connection.now_ms()
    if (by is None) == (to is None):
        raise ValueError("say either by how much the limit is raised, or to how much")
    amount = by if by is not None else _above(to or 0, stored.cap.limit)
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= MAX_AMOUNT - stored.cap.limit:
        raise ValueError("a raise is an amount above 0, and the limit stays within what the ledger can hold")
    if until_ms <= now_ms:
        raise ValueError("a raise ends in the future, and that time is over")
    if until_ms - now_ms > MAX_DURATION_MS:
        raise ValueError("a raise ends within a hundred years; to raise the limit for good, change the limit")
    books = _books(connection, stored, now_ms)
    if stored.cap.limit + books.current(stored).carried + amount > MAX_AMOUNT:
        raise ValueError("the raised limit, with what was carried over or topped up, is more than the ledger can hold")
    if stored.raised is not None:
        _end(books, stored, "replaced" if stored.raise_at(now_ms) else _TIME_IS_UP)
    stored.raised = Raise(amount, now_ms, until_ms, reason)
    connection.execute(
        "INSERT INTO raises (cap_id, amount, from_ms, until_ms, reason) VALUES (?, ?, ?, ?, ?)",
        (cap_id, amount, now_ms, until_ms, reason),
    )
    books.entry((cap_id, stored.start_at(now_ms)), RAISED, amount, reason)
    books.flush()
    bump_revision(connection, stored.cap.scope.value, stored.cap.scope_id)
    return books.state(stored)


def end_raise(connection: Connection, cap_id: str, reason: str) -> CapState:
    """Takes a raise back before its time; what was granted stays granted. Raises NotFound when there is none in force."""
    stored = _existing(connection, cap_id)
    now_ms = connection.now_ms()
    if stored.raise_at(now_ms) is None:
        raise NotFound(f"the limit of {stored.cap.name!r} is not raised now")
    books = _books(connection, stored, now_ms)
    _end(books, stored, reason)
    books.flush()
    bump_revision(connection, stored.cap.scope.value, stored.cap.scope_id)
    return books.state(stored)


def end_raise_of_deleted(books: Books, stored: StoredCap) -> None:
    """A raise ends with its cap."""
    if stored.raised is not None:
        _end(books, stored, "deleted")


def end_raises(connection: Connection, now_ms: int, limit: int) -> int:
    """Notes the end of raises whose time is up, at most `limit`; returns how many.

    Nothing is granted on them since their instant: this only writes the row that says so.
    """
    rows = connection.execute(
        "SELECT cap_id FROM raises WHERE ended_ms IS NULL AND until_ms <= ? ORDER BY cap_id LIMIT ?", (now_ms, limit)
    )
    due = read_caps(connection, [row[0] for row in rows])
    if due:
        books = Books(connection, now_ms, due)
        books.load_current(due)
        for stored in due.values():
            _end(books, stored, _TIME_IS_UP)
        books.flush()
        for stored in due.values():
            bump_revision(connection, stored.cap.scope.value, stored.cap.scope_id)
    return len(due)


_TIME_IS_UP = "its time was up"


def _above(to: int, limit: int) -> int:
    if to <= limit:
        raise ValueError("the limit is that high already; raise it to more")
    return to - limit


def _existing(connection: Connection, cap_id: str) -> StoredCap:
    stored = read_caps(connection, (cap_id,)).get(cap_id)
    if stored is None or stored.cap.deleted:
        raise NotFound(f"there is no cap with the id {cap_id!r}")
    return stored


def _books(connection: Connection, stored: StoredCap, now_ms: int) -> Books:
    books = Books(connection, now_ms, {stored.cap.id: stored})
    books.load_current((stored.cap.id,))
    return books


def _end(books: Books, stored: StoredCap, reason: str) -> None:
    raised = stored.raised
    if raised is None:
        return
    cap_id = stored.cap.id
    books.connection.execute(
        "UPDATE raises SET ended_ms = ? WHERE cap_id = ? AND ended_ms IS NULL", (min(books.now_ms, raised.until_ms), cap_id)
    )
    books.entry((cap_id, stored.start_at(books.now_ms)), ENDED, -raised.amount, reason)
    stored.raised = None
