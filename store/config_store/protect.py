"""Opens the vault of a store: the right key, a wrong one, a first one (what stood in clear is then sealed at once)."""

import json
import logging
import os
from dataclasses import dataclass

from store.config_store.edits import Actor, Edit, write_audit_row
from store.config_store.keys import Entropy
from store.config_store.meta import get_meta, set_meta
from store.config_store.secret_text import is_reference
from store.config_store.vault import NO_KEY, SALT_BYTES, SEALED_PREFIX, Vault
from store.database import Connection, Database
from store.errors import Conflict, StoreUnavailable, UserError

log = logging.getLogger(__name__)

_SALT = "encryption_salt"
_CHECK = "encryption_check"
_SCRUB = "encryption_scrub"
"""Set while bytes from before the encryption may still lie about in what the database keeps."""


@dataclass(frozen=True, slots=True)
class Readable:
    """What of a store's secrets is encrypted, and what anybody who can read the store can read. Counts."""

    is_encrypted: bool
    sealed: int
    """Provider keys and header values that are encrypted."""
    references: int
    """Provider keys that are `env.NAME` or `file:PATH`: not in the store at all."""
    clear_provider_keys: int
    clear_headers: int
    clear_virtual_keys: int
    hashed_virtual_keys: int
    scrub_due: bool
    """Bytes from before the last change of the key may still lie in the files; the next start removes them."""

    @property
    def clear(self) -> int:
        """Secrets in clear."""
        return self.clear_provider_keys + self.clear_headers + self.clear_virtual_keys


def open_vault(database: Database, encryption_key: str | None, *, entropy: Entropy = os.urandom, seal: bool = True) -> Vault:
    """The vault of this store for this key (None: nothing is encrypted).

    With `seal` the first key given seals what stands in clear and drops the readable values of virtual keys, in one transaction;
    without, a store that is not encrypted yet stays so. Raises UserError when the store was encrypted with another key, or is
    encrypted and no key is given.
    """
    seal = seal and not database.read_only
    with database.read() as connection:
        salt, check = get_meta(connection, _SALT), get_meta(connection, _CHECK)
        due = get_meta(connection, _SCRUB) is not None
    if encryption_key is None:
        if check is not None:
            raise UserError(NO_KEY)
        return Vault()
    if salt is not None and check is not None:
        vault = Vault((encryption_key,), bytes.fromhex(salt))
        vault.open(check)
        if due and seal:
            finish_scrub(database)
        return vault
    if not seal:
        return Vault()
    made = change_key(database, Vault(), encryption_key, expected_check=None, entropy=entropy, actor=Actor())
    if made is None:
        return open_vault(database, encryption_key, entropy=entropy)  # another process was first: use its salt
    finish_scrub(database)
    return made


def change_key(
    database: Database,
    before: Vault,
    encryption_key: str,
    *,
    expected_check: str | None,
    entropy: Entropy = os.urandom,
    actor: Actor | None = None,
) -> Vault | None:
    """Seal everything with another key, in one transaction; the new vault. `finish_scrub` comes after.

    None when the store has another check token than expected: somebody changed its key meanwhile, and nothing was done. Raises
    UserError when `before` does not open what is there. `actor`: whom a row of the audit log names; None: the caller writes it.
    """
    salt = entropy(SALT_BYTES)
    after = Vault((encryption_key,), salt)
    with database.write() as connection:
        if get_meta(connection, _CHECK) != expected_check:
            return None
        _seal_keys(connection, before, after)
        _seal_headers(connection, before, after)
        connection.execute("UPDATE virtual_keys SET value = NULL")
        set_meta(connection, _SALT, salt.hex())
        set_meta(connection, _CHECK, after.check_token())
        set_meta(connection, _SCRUB, "due")
        if actor is not None:
            edit = Edit(connection, "encrypt", "encryption", "", name="encryption_key")
            write_audit_row(connection, actor, edit, None, None, at_ms=connection.now_ms())
    return after


def check_token_of(database: Database) -> str | None:
    """The sealed word by which this store knows its key; None when it is not encrypted."""
    with database.read() as connection:
        return get_meta(connection, _CHECK)


def finish_scrub(database: Database) -> bool:
    """Remove what the database's files still hold of secrets that were overwritten. False: to be tried again at the next start."""
    try:
        done = database.scrub()
    except StoreUnavailable as fault:
        log.warning("%s", fault)
        done = False
    if not done:
        log.warning("%s is in use: what it held before it was encrypted is removed at the next start", database.name)
        return False
    with database.write() as connection:
        set_meta(connection, _SCRUB, None)
    return True


def readable(connection: Connection) -> Readable:
    """What of this store can be read by whoever reads its files."""
    keys = connection.execute("SELECT secret, sealed FROM provider_keys")
    providers = connection.execute("SELECT extra_headers FROM providers")
    headers = [value for (text,) in providers for value in json.loads(text).values()]
    sealed_headers = sum(value.startswith(SEALED_PREFIX) for value in headers)
    counts = connection.execute("SELECT count(*), count(value) FROM virtual_keys")[0]
    references = sum(not sealed and is_reference(secret) for secret, sealed in keys)
    sealed_keys = sum(bool(sealed) for _, sealed in keys)
    return Readable(
        is_encrypted=get_meta(connection, _CHECK) is not None,
        sealed=sealed_keys + sealed_headers,
        references=references,
        clear_provider_keys=len(keys) - references - sealed_keys,
        clear_headers=len(headers) - sealed_headers,
        clear_virtual_keys=counts[1],
        hashed_virtual_keys=counts[0] - counts[1],
        scrub_due=get_meta(connection, _SCRUB) is not None,
    )


def _seal_keys(connection: Connection, before: Vault, after: Vault) -> None:
    for key_id, name, secret, sealed in connection.execute("SELECT id, name, secret, sealed FROM provider_keys"):
        if not sealed and is_reference(secret):
            continue
        clear = _opened(before, secret, f"provider key {name!r}") if sealed else secret
        fresh = after.seal(clear)
        if after.open(fresh) != clear:
            raise Conflict(f"provider key {name!r} does not open again once it is sealed; nothing was changed")
        connection.execute("UPDATE provider_keys SET secret = ?, sealed = 1 WHERE id = ?", (fresh, key_id))


def _seal_headers(connection: Connection, before: Vault, after: Vault) -> None:
    for name, text in connection.execute("SELECT name, extra_headers FROM providers"):
        headers = {header: before.open_marked(value) for header, value in json.loads(text).items()}
        if headers:
            sealed = {header: after.seal_marked(value) for header, value in headers.items()}
            connection.execute("UPDATE providers SET extra_headers = ? WHERE name = ?", (json.dumps(sealed), name))


def _opened(vault: Vault, secret: str, what: str) -> str:
    try:
        return vault.open(secret)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
