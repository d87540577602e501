"""Opens the vault of a store: the right key, a wrong one, a first one (what stood in clear is then sealed at once)."""

import os

from store.config_store.keys import Entropy
from store.config_store.meta import get_meta, set_meta
from store.config_store.secret_text import ENV_PREFIX
from store.config_store.vault import SALT_BYTES, Vault
from store.database import Connection, Database
from store.errors import UserError

_SALT = "encryption_salt"
_CHECK = "encryption_check"


def open_vault(database: Database, encryption_key: str | None, *, entropy: Entropy = os.urandom) -> Vault:
    """The vault of this store for this key (None: nothing is encrypted).

    The first start with a key seals provider keys and drops the readable values of virtual keys, in one transaction.
    Raises UserError when the store was encrypted with another key, or is encrypted and no key is given.
    """
    with database.read() as connection:
        salt, check = get_meta(connection, _SALT), get_meta(connection, _CHECK)
    if encryption_key is None:
        if check is not None:
            raise UserError("the store is encrypted; set encryption_key in config.json to the key it was made with")
        return Vault()
    if salt is not None and check is not None:
        vault = Vault((encryption_key,), bytes.fromhex(salt))
        vault.open(check)
        return vault
    raw_salt = entropy(SALT_BYTES)
    vault = Vault((encryption_key,), raw_salt)
    with database.write() as connection:
        if get_meta(connection, _CHECK) is None:
            _seal_all(connection, vault)
            set_meta(connection, _SALT, raw_salt.hex())
            set_meta(connection, _CHECK, vault.check_token())
            return vault
    return open_vault(database, encryption_key, entropy=entropy)  # another process was first: use its salt


def _seal_all(connection: Connection, vault: Vault) -> None:
    rows = list(connection.execute("SELECT id, secret FROM provider_keys WHERE sealed = 0"))
    for key_id, secret in rows:
        if not secret.startswith(ENV_PREFIX):
            connection.execute("UPDATE provider_keys SET secret = ?, sealed = 1 WHERE id = ?", (vault.seal(secret), key_id))
    connection.execute("UPDATE virtual_keys SET value = NULL")
