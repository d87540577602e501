"""What every reader and writer of the configuration needs, in one value that is handed around."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from store.clock import Clock, Ids
from store.config_store.builtin import BUILTIN_PROVIDERS
from store.config_store.keys import Entropy
from store.config_store.vault import Vault
from store.database import Connection, Database, bump_revision
from store.errors import Conflict

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
        """One write transaction; the governance revision moves with it, so that every worker reads again.

        Raises Conflict in file-only mode.
        """
        if self.file_only:
            raise Conflict(CHANGE_THE_FILE)
        with self.database.write() as connection:
            yield connection
            bump_revision(connection)

    @contextmanager
    def spending(self) -> Iterator[Connection]:
        """As `changing`, for what belongs to the ledger: runs, resets and top-ups. Allowed in file-only mode."""
        with self.ledger.write() as connection:
            yield connection
            bump_revision(connection)

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
