"""`doctor` on stores: which engine keeps them, in which version, whether commits are synced, and whether they hold together."""

from store.database import Database

_DAMAGED = "stop the gateway and restore a backup"


def engine_of(database: Database, *, synced: bool) -> str:
    """`SQLite 3.50.4, synced at every commit`, `PostgreSQL 17.2, fsync on`. Raises StoreUnavailable."""
    with database.read() as connection:
        if database.engine == "postgres":
            version, fsync = connection.execute("SELECT current_setting('server_version'), current_setting('fsync')")[0]
            return f"PostgreSQL {str(version).split(' ')[0]}, fsync {fsync}"
        version = connection.execute("SELECT sqlite_version()")[0][0]
    return f"SQLite {version}, synced {'at every commit' if synced else 'now and then'}"


def damage_of(database: Database) -> tuple[str, str] | None:
    """(what is broken in the database's file, what to do); None when it holds together. A server looks after its own files."""
    if database.engine == "postgres":
        return None
    with database.read() as connection:
        state = str(connection.execute("PRAGMA quick_check(1)")[0][0])
    return None if state == "ok" else (state, _DAMAGED)


def is_empty(database: Database) -> bool:
    """True when nobody has made the tables yet."""
    with database.read() as connection:
        return not connection.has_table(database.steps_table)
