"""Console sessions that were ended before their time. Sessions themselves are signed and kept nowhere; only these are noted."""

import hashlib

from store.database import Connection


def end_session(connection: Connection, session: str, until_ms: int, now_ms: int) -> None:
    """From now on the session opens nothing; the note goes when the session would have run out by itself."""
    connection.execute("DELETE FROM ended_sessions WHERE until_ms <= ?", (now_ms,))
    connection.execute(
        "INSERT INTO ended_sessions (id, until_ms) VALUES (?, ?) ON CONFLICT (id) DO NOTHING", (_id(session), until_ms)
    )


def is_ended(connection: Connection, session: str) -> bool:
    """Whether a session was ended."""
    return bool(connection.execute("SELECT 1 FROM ended_sessions WHERE id = ?", (_id(session),)))


def _id(session: str) -> str:
    """Not the session itself: whoever reads the table must not find what opens the console elsewhere."""
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()
