"""What every reader and writer of the configuration needs, in one value that is handed around."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from store.clock import Clock, Ids
from store.config_store.builtin import BUILTIN_PROVIDERS
from store.config_store.documents import document, entity_tag
from store.config_store.edits import Actor, Edit, write_audit_row
from store.config_store.file_truth import FileTruth
from store.config_store.keys import Entropy
from store.config_store.reach import Reach
from store.config_store.vault import Vault
from store.database import Connection, Database, bump_revision
from store.errors import Conflict, PreconditionFailed, Rehearsed

CHANGE_THE_FILE = (
    "the configuration comes from config.json alone (config_store.enabled is false): change the file, "
    "then restart the gateway or send it SIGHUP"
)


@dataclass(frozen=True)
class ConfigStore:
    """The configuration in its database. Make one with `open_config_store`, which finds the right vault.

    In file-only mode `database` is a picture of config.json in memory, which nobody changes, and the ledger has a database of its
    own: caps, runs and what was spent are there.
    """

    database: Database
    clock: Clock
    ids: Ids
    vault: Vault = field(default_factory=Vault)
    builtin: Mapping[str, str] = field(default_factory=lambda: BUILTIN_PROVIDERS)
    entropy: Entropy = os.urandom
    ledger_database: Database | None = None
    """File-only mode: where the ledger is."""
    actor: Actor = Actor()
    """Whom the audit log names; `replace(store, actor=…)` makes a store for somebody."""
    if_match: str | None = None
    """The entity tags (`documents.entity_tag`, by commas) of which the thing to be edited must have one; None: whatever it is."""

    reach: Reach = Reach()
    """Which references to secrets may be made over the API."""
    truth: FileTruth = FileTruth()
    """What config.json owns, though there is a store."""
    rehearse: bool = False
    """Every change goes through all its checks and is rolled back at its end: `Rehearsed` comes out in place of a commit."""

    @property
    def file_only(self) -> bool:
        """True when the configuration cannot be changed here."""
        return self.ledger_database is not None

    @property
    def ledger(self) -> Database:
        """The database of caps, runs and what was spent."""
        return self.ledger_database or self.database

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """One write transaction; the governance revision moves with it, so that every worker reads everything again.

        Raises Conflict in file-only mode; Rehearsed.
        """
        if self.file_only:
            raise Conflict(CHANGE_THE_FILE)
        with self.writing() as connection:
            yield connection
            bump_revision(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One write transaction of the ledger, for what says itself which revision and which row of the audit log it leaves.

        Raises Rehearsed.
        """
        with self.ledger.write() as connection:
            yield connection
            if self.rehearse:
                raise Rehearsed

    @contextmanager
    def editing(self, action: str, kind: str, id_or_name: str = "", *, reason: str = "", spending: bool = False) -> Iterator[Edit]:
        """One change of one thing in a transaction of its own; the entity tag is checked before, the audit log is told after.

        Workers read that one thing again. For something that is made, set `Edit.id` inside. `spending`: it belongs to the ledger
        (resets, top-ups) and is allowed in file-only mode. Raises PreconditionFailed; Conflict in file-only mode; Rehearsed.
        """
        if self.file_only and not spending:
            raise Conflict(CHANGE_THE_FILE)
        with self.writing() as connection:
            with self.audited(connection, action, kind, id_or_name, reason=reason) as edit:
                yield edit
            if not spending:
                self._refuse_what_the_file_owns(edit)
            bump_revision(connection, kind, edit.id)

    def _refuse_what_the_file_owns(self, edit: Edit) -> None:
        if not self.truth.kinds:
            return
        kind, connection = edit.kind, edit.connection
        scopes = connection.execute("SELECT scope FROM caps WHERE id = ?", (edit.id,)) if kind == "budget" else []
        names = connection.execute("SELECT name FROM virtual_keys WHERE id = ?", (edit.id,)) if kind == "virtual_key" else []
        words = (edit.id, *(name for (name,) in names))
        self.truth.refuse(edit.action, kind, *words, scope=scopes[0][0] if scopes else None)

    @contextmanager
    def audited(self, connection: Connection, action: str, kind: str, id_or_name: str = "", *, reason: str = "") -> Iterator[Edit]:
        """As `editing`, inside a transaction that is open already: for changes of several things at once."""
        with self.beside(connection) as governance:
            before = document(governance, connection, kind, id_or_name) if id_or_name else None
        tags = None if self.if_match is None else [tag.strip() for tag in self.if_match.split(",")]
        if tags is not None and before is not None and entity_tag(before) not in tags:
            raise PreconditionFailed(
                f"the {kind.replace('_', ' ')} {before.get('name', id_or_name)!r} was changed meanwhile; "
                "read it again, then change it"
            )
        edit = Edit(connection, action, kind, str((before or {}).get("id", id_or_name)), reason)
        yield edit
        with self.beside(connection) as governance:
            after = document(governance, connection, kind, edit.id) if edit.id else None
        write_audit_row(connection, self.actor, edit, before, after, at_ms=self.clock.now_ms())

    def note(
        self,
        ledger: Connection,
        action: str,
        kind: str,
        entity_id: str = "",
        *,
        name: str = "",
        details: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> None:
        """A row of the audit log for what is no edit of one thing with a document, inside a write transaction of the ledger."""
        edit = Edit(ledger, action, kind, entity_id, reason, name, details)
        write_audit_row(ledger, self.actor, edit, None, None, at_ms=self.clock.now_ms())

    @contextmanager
    def reading(self) -> Iterator[tuple[Connection, Connection]]:
        """One read of (the governance, the ledger): of one instant where both are in one database."""
        with self.ledger.read() as ledger, self.beside(ledger) as governance:
            yield governance, ledger

    @contextmanager
    def beside(self, ledger: Connection) -> Iterator[Connection]:
        """The governance, read beside an open transaction of the ledger: the same connection, or the picture of the file."""
        if not self.file_only:
            yield ledger
            return
        with self.database.read() as connection:
            yield connection

    def close(self) -> None:
        """Closes the databases. May be called twice."""
        self.database.close()
        self.ledger.close()
