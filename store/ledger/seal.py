"""Growth: windows that are over are sealed with their sums, and the rows a seal explains are pruned after the retention."""

from collections.abc import Sequence

from store.database import Connection, Row
from store.ledger.rows import NO_WINDOW, Key, StoredCap, last_sequence, post_parts, read_caps, to_json

AT_ONCE = 500
"""How many rows one transaction touches at most: nobody's hold waits long for it."""
HELD_LOOK_MS = 60_000
"""When a window that is over but still has open holds is looked at again."""
PREPAID_LOOK_MS = 86_400_000
"""How often the seal of a balance without a window moves forward."""


def seal_windows(connection: Connection, now_ms: int, limit: int = AT_ONCE) -> int:
    """Seals windows that are over and have no open holds, at most `limit`; returns how many. See `look_at_windows`."""
    return look_at_windows(connection, now_ms, limit)[1]


def look_at_windows(connection: Connection, now_ms: int, limit: int = AT_ONCE) -> tuple[int, int]:
    """Looks at balances whose time has come, at most `limit`; returns how many were looked at, and how many of them sealed.

    A window is sealed when it is over and has no open holds; one that is not is looked at again when that may have changed, so a
    balance costs two or three looks in its life however many there are. A balance without a window is sealed every day anew: its
    seal says what was used up to a sequence, and moves. Rows after a seal count beside it, such as the correction of an
    unconfirmed call.
    """
    rows = connection.execute(
        """SELECT cap_id, window_start_ms, used, held, carried FROM balances
        WHERE look_ms IS NOT NULL AND look_ms <= ? ORDER BY look_ms LIMIT ?""",
        (now_ms, limit),
    )
    if not rows:
        return 0, 0
    caps = read_caps(connection, {row[0] for row in rows})
    over = [row for row in rows if _may_be_sealed(caps[row[0]], row, now_ms)]
    looks = [(_next_look(caps[row[0]], row, now_ms), row[0], row[1]) for row in rows]
    posts, entries = last_sequence(connection, "posts"), last_sequence(connection, "entries")
    connection.executemany(
        """INSERT INTO seals (cap_id, window_start_ms, used, carried, posts_sequence, entries_sequence, at_ms)
        VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (cap_id, window_start_ms) DO UPDATE SET used = excluded.used,
        carried = excluded.carried, posts_sequence = excluded.posts_sequence, entries_sequence = excluded.entries_sequence,
        at_ms = excluded.at_ms""",
        [(cap_id, start_ms, used, carried, posts, entries, now_ms) for cap_id, start_ms, used, _, carried in over],
    )
    connection.executemany("UPDATE balances SET look_ms = ? WHERE cap_id = ? AND window_start_ms = ?", looks)
    return len(rows), len(over)


def look_again(connection: Connection, key: Key) -> None:
    """Says that a balance is in use again, although it may be sealed: a restored cap, or a window that came back."""
    connection.execute("UPDATE balances SET look_ms = 0 WHERE cap_id = ? AND window_start_ms = ?", key)


def prune(connection: Connection, before_ms: int, after_sequence: int = 0, limit: int = AT_ONCE) -> tuple[int, int | None]:
    """Deletes holds and posts of calls settled before `before_ms` whose every balance is sealed.

    Looks at `limit` posts after a sequence; returns how many calls went, and the sequence to go on from (None at the end). The
    newest post always stays, so that sequences go on ascending; so do unconfirmed calls with their corrections. Settling a pruned
    call is an error and never a charge.
    """
    newest = last_sequence(connection, "posts")
    rows = connection.execute(
        "SELECT sequence, call_id, kind, parts FROM posts WHERE sequence > ? AND at_ms < ? ORDER BY sequence LIMIT ?",
        (after_sequence, before_ms, limit),
    )
    candidates = [
        (sequence, call_id, tuple((part[0], part[1]) for part in post_parts(text)))
        for sequence, call_id, kind, text in rows
        if sequence != newest and kind in ("post", "void")
    ]
    sealed = _seals_of(connection, {key for _, _, keys in candidates for key in keys})
    gone = [call_id for sequence, call_id, keys in candidates if all(sealed.get(key, -1) >= sequence for key in keys)]
    if gone:
        for table in ("posts", "holds"):
            connection.execute(f"DELETE FROM {table} WHERE call_id IN ({connection.listed})", (to_json(gone),))
    return len(gone), rows[-1][0] if len(rows) == limit else None


def forget_epochs(connection: Connection, before_ms: int) -> None:
    """Deletes what is kept of processes that ended before `before_ms` and left nothing open."""
    connection.execute(
        """DELETE FROM epochs WHERE ended_ms IS NOT NULL AND ended_ms < ?
        AND NOT EXISTS (SELECT 1 FROM open_holds AS o WHERE o.epoch = epochs.id)""",
        (before_ms,),
    )


def _seals_of(connection: Connection, keys: set[Key]) -> dict[Key, int]:
    """The last post that the seal of each of these balances explains."""
    rows: Sequence[Row] = connection.execute(
        f"""SELECT s.cap_id, s.window_start_ms, s.posts_sequence FROM {connection.rowset("text", "bigint")} AS k
        CROSS JOIN seals AS s ON s.cap_id = k.c0 AND s.window_start_ms = k.c1""",
        (to_json(list(keys)),),
    )
    return {(row[0], row[1]): row[2] for row in rows}


def _may_be_sealed(stored: StoredCap, row: Row, now_ms: int) -> bool:
    start_ms, held = row[1], row[3]
    return start_ms == NO_WINDOW or (held == 0 and _is_over(stored, start_ms, now_ms))


def _next_look(stored: StoredCap, row: Row, now_ms: int) -> int | None:
    start_ms, held = row[1], row[3]
    if start_ms == NO_WINDOW:
        in_use = held != 0 or (stored.cap.window is None and not stored.cap.deleted)
        return now_ms + PREPAID_LOOK_MS if in_use else None
    if not _is_over(stored, start_ms, now_ms):
        return stored.end_at(now_ms)
    return None if held == 0 else now_ms + HELD_LOOK_MS


def _is_over(stored: StoredCap, start_ms: int, now_ms: int) -> bool:
    """Whether a balance belongs to a window that has ended; one of an earlier lattice (the window was changed) counts as ended
    when it began before the current one, or when there are no windows any more."""
    current_ms = stored.start_at(now_ms)
    return current_ms == NO_WINDOW or start_ms < current_ms
