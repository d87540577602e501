"""Single facts about the configuration, kept as text under a name."""

from store.database import Connection


def get_meta(connection: Connection, key: str) -> str | None:
    """The fact, or None."""
    rows = list(connection.execute("SELECT value FROM config_meta WHERE key = ?", (key,)))
    return str(rows[0][0]) if rows else None


def set_meta(connection: Connection, key: str, value: str | None) -> None:
    """Keep a fact; None forgets it."""
    if value is None:
        connection.execute("DELETE FROM config_meta WHERE key = ?", (key,))
        return
    connection.execute(
        "INSERT INTO config_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
