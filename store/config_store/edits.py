"""Who changes the configuration, and the row of the audit log that every change leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.config_store.json_text import dumps
from store.database import Connection


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, how they showed who they are, and from where. All of it is shown to people; none of it is secret."""

    name: str = "gateway"
    """A user's name, `admin token`, or `gateway` for what happens by itself."""
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


Document = Mapping[str, Any]


def write_audit_row(
    ledger: Connection, actor: Actor, edit: Edit, before: Document | None, after: Document | None, *, at_ms: int
) -> None:
    """Adds one row; nothing ever changes or removes one but the retention."""
    named = after or before or {}
    ledger.execute(
        "INSERT INTO audit (at_ms, actor, method, address, action, kind, entity_id, entity_name, before, after, reason) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            at_ms,
            actor.name,
            actor.method,
            actor.address,
            edit.action,
            edit.kind,
            str(named.get("id") or edit.id),
            str(named.get("name") or named.get("model_name") or ""),
            _text(before),
            _text(after),
            edit.reason,
        ),
    )


def _text(document: Document | None) -> str | None:
    return None if document is None else dumps(document).decode()
