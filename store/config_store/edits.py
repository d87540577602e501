"""Who changes the configuration, and the row of the audit log that every change leaves, chained to the row before."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.config_store.json_text import dumps
from store.database import Connection

_NUL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, how they showed who they are, and from where. All of it is shown to people; none of it is secret."""

    name: str = "gateway"
    """A user's name, `admin token`, an operating system's user, or `gateway` for what happens by itself."""
    method: str = "start"
    """`session`, `bearer`, `basic`, `open`, `command line`, `start`."""
    address: str = ""
    """The client's IP address; empty on this machine's command line."""


@dataclass(slots=True)
class Edit:
    """One change while it happens. Whoever makes something sets `id`; a `reason` given by a person is kept with the row."""

    connection: Connection
    action: str
    """`create`, `update`, `delete`, or the word of another operation, such as `rotate`."""
    kind: str
    id: str
    reason: str = ""
    name: str = ""
    """For what has no document."""
    details: Mapping[str, Any] | None = None
    """What the operation was about where before and after do not tell, such as an amount. No secrets."""


Document = Mapping[str, Any]

AUDIT_COLUMNS = (
    "sequence", "at_ms", "actor", "method", "address", "action", "kind", "entity_id", "entity_name", "before", "after", "details",
    "reason", "digest",
)  # fmt: skip
_INSERT = f"INSERT INTO audit ({', '.join(AUDIT_COLUMNS)}) VALUES ({', '.join('?' * len(AUDIT_COLUMNS))})"


def write_audit_row(
    ledger: Connection, actor: Actor, edit: Edit, before: Document | None, after: Document | None, *, at_ms: int
) -> None:
    """Adds one row, in a write transaction, which is alone: sequences have no gaps and each row's digest covers the one before."""
    named = after or before or {}
    last, previous = chain_place(ledger, "end")
    row = (
        last + 1,
        at_ms,
        *map(_clean, (actor.name, actor.method, actor.address, edit.action, edit.kind)),
        _clean(str(named.get("id") or edit.id)),
        _clean(str(named.get("name") or named.get("model_name") or edit.name)),
        _text(before),
        _text(after),
        _text(edit.details),
        _clean(edit.reason),
    )
    digest = row_digest(previous, row)
    ledger.execute(_INSERT, (*row, digest))
    move_chain_place(ledger, "end", last + 1, digest)


def row_digest(previous: str, row: Sequence[int | str | None]) -> str:
    """The digest of a row: SHA-256 over the digest of the row before and every column but its own, as a JSON list."""
    return hashlib.sha256(dumps([previous, *row])).hexdigest()


def chain_place(connection: Connection, place: str) -> tuple[int, str]:
    """(sequence, digest) of the row the chain begins after, or ends with."""
    rows = connection.execute("SELECT sequence, digest FROM audit_chain WHERE place = ?", (place,))
    return (int(rows[0][0]), str(rows[0][1])) if rows else (0, "")


def move_chain_place(connection: Connection, place: str, sequence: int, digest: str) -> None:
    """Sets where the chain begins, or ends."""
    connection.execute(
        "INSERT INTO audit_chain (place, sequence, digest) VALUES (?, ?, ?) "
        "ON CONFLICT (place) DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest",
        (place, sequence, digest),
    )


def _text(document: Document | None) -> str | None:
    return None if document is None else _clean(dumps(document).decode())


def _clean(text: str) -> str:
    """The text as every database keeps it: digests must not depend on where a row was written."""
    return _NUL_ESCAPE.sub(r"\1\\ufffd", text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode())
