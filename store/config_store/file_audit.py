"""One row of the audit log for a whole file that was applied: what it added, changed and took away, by name."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.config_store.documents import Json
from store.config_store.edits import Edit, write_audit_row
from store.config_store.fields import loads_exact
from store.config_store.json_text import dumps
from store.config_store.meta import get_meta, set_meta
from store.config_store.store import ConfigStore
from store.config_store.whole import Documents, read_whole
from store.database import Connection

NAMES_KEPT = 100
"""Names of each kind that a row holds; the rest is a number."""
DOCUMENTS_KEPT = 200
"""A file that changed more than this is told of without documents: they are in the file."""
_APPLIED = "applied_file"

Marks = Mapping[str, Mapping[str, tuple[str, str]]]
"""Kind → id → (name, digest of the document)."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a file changed: (kind, id, name) of each thing."""

    added: tuple[tuple[str, str, str], ...]
    changed: tuple[tuple[str, str, str], ...]
    removed: tuple[tuple[str, str, str], ...]

    @property
    def count(self) -> int:
        """How many things."""
        return len(self.added) + len(self.changed) + len(self.removed)

    def details(self) -> dict[str, Any]:
        """`{"added": {"team": ["blue"]}, …}`; of many things the first names, and how many more there are."""
        told: dict[str, Any] = {}
        for word, things in (("added", self.added), ("changed", self.changed), ("removed", self.removed)):
            by_kind: dict[str, list[str]] = {}
            for kind, _, name in things:
                by_kind.setdefault(kind, []).append(name)
            told |= {word: {kind: _bounded(names) for kind, names in by_kind.items()}} if by_kind else {}
        return told


def documents_of(connection: Connection) -> Documents:
    """Everything as it is now."""
    return read_whole(connection, connection, revision=0).documents


def note_seeded(store: ConfigStore, connection: Connection, action: str, before: Documents) -> None:
    """The row of a file that went into the store, inside its transaction: `seed`, or `reseed`. None when nothing is different."""
    after = documents_of(connection)
    applied = compare(marks_of(before), marks_of(after))
    if applied.count:
        _write(store, connection, action, applied, before, after)


def note_applied(store: ConfigStore, ledger: Connection, picture: Connection) -> None:
    """The row of a file that was applied to the ledger of file-only mode, inside its transaction: against the one before."""
    after = documents_of(picture)
    marks = marks_of(after)
    text = dumps(marks).decode()
    known = get_meta(ledger, _APPLIED)
    if known == text:
        return
    before = {
        kind: {key: (name, digest) for key, (name, digest) in rows.items()} for kind, rows in loads_exact(known or "{}").items()
    }
    set_meta(ledger, _APPLIED, text)
    applied = compare(before, marks)
    if applied.count:
        _write(store, ledger, "apply", applied, {}, after)


def marks_of(documents: Documents) -> Marks:
    """Enough of each document to see later whether it is another."""
    return {
        kind: {key: (_name(key, made), hashlib.sha256(dumps(made)).hexdigest()[:16]) for key, made in rows.items()}
        for kind, rows in documents.items()
    }


def compare(before: Marks, after: Marks) -> Applied:
    """What is there now and was not, is another now, or has gone."""
    added, changed, removed = [], [], []
    for kind in dict.fromkeys([*after, *before]):
        old, new = before.get(kind, {}), after.get(kind, {})
        added += [(kind, key, name) for key, (name, _) in new.items() if key not in old]
        changed += [(kind, key, name) for key, (name, digest) in new.items() if key in old and old[key][1] != digest]
        removed += [(kind, key, name) for key, (name, _) in old.items() if key not in new]
    return Applied(tuple(added), tuple(changed), tuple(removed))


def _write(store: ConfigStore, ledger: Connection, action: str, applied: Applied, before: Documents, after: Documents) -> None:
    edit = Edit(ledger, action, "configuration", "config.json", details=applied.details())
    few = applied.count <= DOCUMENTS_KEPT
    old = _picked(before, (*applied.changed, *applied.removed)) if few else None
    new = _picked(after, (*applied.added, *applied.changed)) if few else None
    write_audit_row(ledger, store.actor, edit, old, new, at_ms=store.clock.now_ms())


def _picked(documents: Documents, things: tuple[tuple[str, str, str], ...]) -> Json | None:
    picked: Json = {}
    for kind, key, _ in things:
        if key in documents.get(kind, {}):
            picked.setdefault(kind, []).append(documents[kind][key])
    return picked or None


def _name(key: str, made: Json) -> str:
    return str(made.get("name") or made.get("model_name") or key)


def _bounded(names: list[str]) -> list[str]:
    rest = len(names) - NAMES_KEPT
    return [*names[:NAMES_KEPT], f"and {rest} more"] if rest > 0 else names
