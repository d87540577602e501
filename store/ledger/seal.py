"""Growth: windows that are over are sealed with their sums, and the rows a seal explains are pruned after the retention."""

from store.database import Connection
from store.ledger.rows import NO_WINDOW, Key, StoredCap, cap_from_row, hold_parts, last_sequence, post_parts, read_caps
from store.ledger.rows import CAP_COLUMNS as _CAP_COLUMNS

_AT_ONCE = 500


def seal_windows(connection: Connection, now_ms: int, limit: int = _AT_ONCE) -> int:
    """Seals windows that are over and have no open holds, oldest first, at most `limit`; returns how many.

    An unconfirmed call may still be corrected after its window was sealed: the correction comes after the seal and counts.
    """
    caps = {row[0]: cap_from_row(row) for row in connection.execute(f"SELECT {_CAP_COLUMNS} FROM caps")}
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


def prune(connection: Connection, before_ms: int, limit: int = _AT_ONCE) -> int:
    """Deletes holds and posts of calls settled before `before_ms` whose every window is sealed; returns how many calls.

    The newest post always stays, so that sequences go on ascending. Settling a pruned call is an error and never a charge.
    """
    sealed: dict[Key, int] = {
        (row[0], row[1]): row[2] for row in connection.execute("SELECT cap_id, window_start_ms, posts_sequence FROM seals")
    }
    if not sealed:
        return 0
    newest = last_sequence(connection, "posts")
    rows = connection.execute(
        """SELECT p.call_id, group_concat(p.parts, char(10)), max(p.sequence), max(p.at_ms), h.parts, h.at_ms
        FROM posts AS p JOIN holds AS h ON h.call_id = p.call_id
        WHERE p.call_id IN (SELECT call_id FROM posts ORDER BY sequence LIMIT ?) GROUP BY p.call_id""",
        (limit,),
    )
    gone = []
    for call_id, texts, sequence, at_ms, held_text, _ in rows:
        parts = [part for text in texts.split("\n") for part in post_parts(text)]
        explained = all(sealed.get((cap_id, start_ms), -1) >= sequence for cap_id, start_ms, _ in parts)
        if explained and at_ms < before_ms and sequence < newest and len(hold_parts(held_text)) <= len(parts):
            gone.append((call_id,))
    connection.executemany("DELETE FROM posts WHERE call_id = ?", gone)
    connection.executemany("DELETE FROM holds WHERE call_id = ?", gone)
    return len(gone)


def _is_over(stored: StoredCap, start_ms: int, now_ms: int) -> bool:
    """Whether a balance belongs to a window that has ended; one of an earlier lattice (the window was changed) counts as ended
    when it began before the current one."""
    return start_ms < stored.start_at(now_ms)


__all__ = ["prune", "read_caps", "seal_windows"]
