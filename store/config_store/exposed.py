"""Secret files that every user of the machine may read: one sentence for each, for start-up lines and `doctor`."""

from collections.abc import Mapping

from store.config_store import read
from store.config_store.reach import secrets_in
from store.config_store.secret_file import open_to_all
from store.config_store.secret_text import SecretText
from store.config_store.store import ConfigStore
from store.settings import Settings


def exposed_files(settings: Settings, store: ConfigStore, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Files that config.json or the store name with `file:PATH`."""
    with store.database.read() as connection:
        stored = [SecretText(key.secret) for provider in read.providers(connection) for key in provider.keys if not key.sealed]
    paths = {path for secret in (*secrets_in(settings), *stored) if (path := secret.path(environ)) is not None}
    return tuple(
        f"the secret file {path} can be read by every user of this machine: chmod 600 {path}"
        for path in sorted(paths)
        if open_to_all(path)
    )
