"""The work of `encryption status` and `encryption rotate`, on the stores of a gateway that is stopped."""

import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from addons.process.common import print_json
from addons.process.stores import config_place_of, opened_database, settings_of
from addons.process.supervisor import owned
from store.clock import SystemClock
from store.config_store.edits import Actor
from store.config_store.protect import Readable, open_vault, readable
from store.config_store.reencrypt import reencrypt
from store.config_store.secret_text import environ_of, parse_secret
from store.errors import UserError
from store.settings import Settings

_STDIN = "-"


def show_status(app_dir: Path, config: Path | None, *, as_json: bool) -> None:
    """Print what of the store is encrypted. Raises UserError, StoreUnavailable."""
    settings = _settings(app_dir, config)
    key = settings.secret(settings.encryption_key, "encryption_key")
    with opened_database(app_dir, settings, SystemClock(), read_only=True) as database:
        with database.read() as connection:
            found = readable(connection)
        fits = _fits(found, key, lambda: open_vault(database, key))
    if as_json:
        print_json({**asdict(found), "key": fits})
        return
    print("\n".join(_lines(found, config_place_of(app_dir, settings), fits)))


def rotate_key(app_dir: Path, config: Path | None, target: str) -> None:
    """Encrypt the store with the key that `target` names, and print what was done. Raises UserError, StoreUnavailable."""
    settings = _settings(app_dir, config)
    new_key = _new_key(app_dir, target)
    old_key = settings.secret(settings.encryption_key, "encryption_key")
    clock = SystemClock()
    with owned(app_dir), opened_database(app_dir, settings, clock, read_only=False) as database:
        actor = Actor(_user(), "command line")
        done = reencrypt(database, old_key, new_key, clock=clock, actor=actor)
    place = config_place_of(app_dir, settings)
    if done.before.is_encrypted:
        print(f"encrypted {_count(done.after.sealed, 'secret')} in {place} with the new key; the old one opens nothing any more")
    else:
        print(f"encrypted {_count(done.after.sealed, 'secret')} in {place}; {_dropped(done.before)}")
    if not done.scrubbed:
        print("somebody reads the store: what it held before is removed from its files at the next start")
    where = target if target != _STDIN else "the new key"
    print(f"now set encryption_key in config.json to {where}, then start the gateway; backups of before need the old key")


def _settings(app_dir: Path, config: Path | None) -> Settings:
    settings = settings_of(app_dir, config)
    if settings.file_only:
        raise UserError("config_store.enabled is false: the ledger holds no secrets, and there is nothing to encrypt")
    return settings


def _new_key(app_dir: Path, target: str) -> str:
    """The key that `--to` names. Raises UserError."""
    if target == _STDIN:
        typed = getpass.getpass("new encryption key: ") if sys.stdin.isatty() else sys.stdin.readline()
        return typed.removesuffix("\n").removesuffix("\r")
    try:
        secret = parse_secret(target)
    except ValueError as error:
        raise UserError(f"--to: {error}") from None
    if not secret.is_reference:
        raise UserError("--to: a key on the command line can be seen by every user of this machine; give env.NAME, file:PATH or -")
    environ = environ_of(app_dir, os.environ)
    if (fault := secret.missing(environ)) is not None:
        raise UserError(f"--to: {fault}")
    return secret.resolve(environ) or ""


def _fits(found: Readable, key: str | None, open_it: Callable[[], object]) -> str:
    """How the key of config.json stands to the store, in a word."""
    if key is None:
        return "missing" if found.is_encrypted else "none"
    if not found.is_encrypted:
        return "not used yet"
    try:
        open_it()
    except UserError:
        return "wrong"
    return "right"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "somebody"


def _dropped(before: Readable) -> str:
    if not before.clear_virtual_keys:
        return "virtual keys are kept as hashes from now on"
    return f"the values of {_count(before.clear_virtual_keys, 'virtual key')} cannot be shown any more, and go on working"


def _lines(found: Readable, place: str, fits: str) -> list[str]:
    words = {
        "none": "config.json names no encryption_key",
        "missing": "the store is encrypted and config.json names no encryption_key: the gateway does not start",
        "not used yet": "config.json names an encryption_key; the next start encrypts the store with it",
        "wrong": "encryption_key in config.json is not the key of this store: the gateway does not start",
        "right": "encryption_key in config.json is the key of this store",
    }
    made = [f"{place} is {'encrypted' if found.is_encrypted else 'not encrypted'}", words[fits]]
    made.append(f"  encrypted   {_count(found.sealed, 'secret')}")
    made.append(f"  elsewhere   {_count(found.references, 'provider key')} (env.NAME, file:PATH)")
    made.append(f"  as hashes   {_count(found.hashed_virtual_keys, 'virtual key')}")
    readable_now = [
        _count(count, word)
        for count, word in (
            (found.clear_provider_keys, "provider key"), (found.clear_headers, "header value"),
            (found.clear_virtual_keys, "virtual key"),
        )
        if count
    ]  # fmt: skip
    made.append(f"  readable    {', '.join(readable_now) or 'nothing'}")
    if found.scrub_due:
        made.append("  bytes of before may still lie in the files; the next start removes them")
    return made
