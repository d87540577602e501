"""Cheap marks of what is kept: each moves when something is written, so that whoever watches reads only then."""

from dataclasses import dataclass

from store.config_store.edits import chain_place
from store.database import Connection, Database, governance_revision
from store.ledger.open_calls import count_open
from store.ledger.rows import last_sequence


@dataclass(frozen=True, slots=True)
class Markers:
    """Equal as long as nothing has happened. Nothing else may be read from the texts."""

    config: int
    """The revision of the governance."""
    ledger: str
    """Moves with every hold, post, reset, top-up, and with every row of the audit log."""
    calls: str
    """Moves with every row of the logs, and when a refusal joins the newest row."""


def read_markers(ledger: Database, logs: Database | None) -> Markers:
    """The marks of this moment; a few rows are read, whatever the size of the books. Raises StoreUnavailable."""
    with ledger.read() as connection:
        revision, moved = governance_revision(connection), _ledger_marker(connection)
    return Markers(revision, moved, "" if logs is None else _logs_marker(logs))


def _ledger_marker(connection: Connection) -> str:
    # A call that ends leaves a post, so between two looks at the same newest post calls can only have begun: their number says so.
    parts = (last_sequence(connection, "posts"), last_sequence(connection, "entries"), count_open(connection))
    return ".".join(map(str, (*parts, chain_place(connection, "end")[0])))


def _logs_marker(logs: Database) -> str:
    with logs.read() as connection:
        rows = connection.execute("SELECT number, count FROM calls ORDER BY number DESC LIMIT 1")
    return ".".join(map(str, rows[0])) if rows else "0"
