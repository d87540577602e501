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


@dataclass(frozen=True)
class ConfigStore:
    """The configuration in its database. Make one with `open_config_store`, which finds the right vault."""

    database: Database
    clock: Clock
    ids: Ids
    vault: Vault = field(default_factory=Vault)
    builtin: Mapping[str, str] = field(default_factory=lambda: BUILTIN_PROVIDERS)
    entropy: Entropy = os.urandom

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """One write transaction; the governance revision moves with it, so that every worker reads again."""
        with self.database.write() as connection:
            yield connection
            bump_revision(connection)
