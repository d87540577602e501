"""Gives a store another `encryption_key`, or its first one: all secrets in one transaction, with a row in the audit log."""

import os
from dataclasses import dataclass

from store.clock import Clock
from store.config_store.edits import Actor, Edit, write_audit_row
from store.config_store.keys import Entropy
from store.config_store.protect import Readable, change_key, check_token_of, finish_scrub, open_vault, readable
from store.database import Database, bump_revision
from store.errors import Conflict, UserError

SHORTEST = 12
"""Characters of a key that is taken; scrypt slows guessing down, and cannot save a short one."""


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """What was done."""

    before: Readable
    after: Readable
    scrubbed: bool
    """Nothing of before can be read in the files any more; else the next start sees to it."""


def reencrypt(
    database: Database, old_key: str | None, new_key: str, *, clock: Clock, actor: Actor, entropy: Entropy = os.urandom
) -> Reencrypted:
    """Seal everything with `new_key`. A crash leaves everything sealed with the one key or with the other, never some with each.

    `old_key` is the one the store has now (for a store in clear it is not looked at). Raises UserError for a wrong old key or an
    unusable new one, Conflict when a gateway serves from this store.
    """
    check_new_key(new_key)
    if database.watchers():
        raise Conflict(f"a gateway serves from {database.name} and holds the old key: stop it first, on every machine")
    check = check_token_of(database)
    before_vault = open_vault(database, old_key if check is not None else None, seal=False)
    if check is not None and new_key == old_key:
        raise UserError("the new key is the one that the store has already; give another")
    with database.read() as connection:
        before = readable(connection)
    if change_key(database, before_vault, new_key, expected_check=check, entropy=entropy) is None:
        raise Conflict(f"the key of {database.name} was changed by somebody else just now; look again with encryption status")
    scrubbed = finish_scrub(database)
    with database.write() as connection:
        bump_revision(connection)
        edit = Edit(connection, "rotate" if check is not None else "encrypt", "encryption", "", name="encryption_key")
        write_audit_row(connection, actor, edit, None, None, at_ms=clock.now_ms())
        after = readable(connection)
    return Reencrypted(before, after, scrubbed)


def check_new_key(key: str) -> None:
    """Raises UserError for a key that would not be worth its name."""
    if len(key) < SHORTEST or key != key.strip():
        raise UserError(
            f"the new encryption key must have {SHORTEST} characters or more and no spaces around it; "
            "make one with: openssl rand -base64 32"
        )
