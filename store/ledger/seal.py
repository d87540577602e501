"""Growth: windows that are over are sealed with their sums, and the rows a seal explains are pruned after the retention."""

from store.database import Connection
from store.ledger.rows import CAP_COLUMNS, NO_WINDOW, Key, StoredCap, cap_from_row, last_sequence, post_parts

_AT_ONCE = 500


def seal_windows(connection: Connection, now_ms: int, limit: int = _AT_ONCE) -> int:
    """Seals windows that are over and have no open holds, oldest first, at most `limit`; returns how many.

    An unconfirmed call may still be corrected after its window was sealed: the correction comes after the seal and counts.
    """
    caps = {row[0]: cap_from_row(row) for row in connection.execute(f"SELECT {CAP_COLUMNS} FROM caps")}
    posts, entries = last_sequence(connection, "posts"), last_sequence(connection, "entries")
    rows = connection.execute(
        """SELECT b.cap_id, b.window_start_ms, b.used, b.carried FROM balances AS b
        WHERE b.window_start_ms <> ? AND b.held = 0 AND b.window_start_ms < ?
        AND NOT EXISTS (SELECT 1 FROM seals AS s WHERE s.cap_id = b.cap_id AND s.window_start_ms = b.window_start_ms)
        ORDER BY b.window_start_ms""",
        (NO_WINDOW, now_ms),
    )
    over = [row for row in rows if _is_over(caps[row[0]], row[1], now_ms)][:limit]
    connection.executemany(
        """INSERT INTO seals (cap_id, window_start_ms, used, carried, posts_sequence, entries_sequence, at_ms)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        [(cap_id, start_ms, used, carried, posts, entries, now_ms) for cap_id, start_ms, used, carried in over],
    )
    return len(over)


def prune(connection: Connection, before_ms: int, after_sequence: int = 0, limit: int = _AT_ONCE) -> tuple[int, int | None]:
    """Deletes holds and posts of calls settled before `before_ms` whose every window is sealed.

    Looks at `limit` posts after a sequence; returns how many calls went, and the sequence to go on from (None at the end). The
    newest post always stays, so that sequences go on ascending; so do unconfirmed calls, and calls on caps without a window.
    Settling a pruned call is an error and never a charge.
    """
    sealed: dict[Key, int] = {
        (row[0], row[1]): row[2] for row in connection.execute("SELECT cap_id, window_start_ms, posts_sequence FROM seals")
    }
    newest = last_sequence(connection, "posts")
    rows = connection.execute(
        "SELECT sequence, call_id, kind, parts FROM posts WHERE sequence > ? AND at_ms < ? ORDER BY sequence LIMIT ?",
        (after_sequence, before_ms, limit),
    )
    gone = []
    for sequence, call_id, kind, text in rows:
        if sequence == newest or kind not in ("post", "void"):
            continue
        if all(sealed.get((cap_id, start_ms), -1) >= sequence for cap_id, start_ms, _ in post_parts(text)):
            gone.append((call_id,))
    connection.executemany("DELETE FROM posts WHERE call_id = ?", gone)
    connection.executemany("DELETE FROM holds WHERE call_id = ?", gone)
    return len(gone), rows[-1][0] if len(rows) == limit else None


def _is_over(stored: StoredCap, start_ms: int, now_ms: int) -> bool:
    """Whether a balance belongs to a window that has ended; one of an earlier lattice (the window was changed) counts as ended
    when it began before the current one."""
    return start_ms < stored.start_at(now_ms)
