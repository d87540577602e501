"""Opening an app directory's stores for a command, without starting anything."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.clock import Clock, SystemClock
from store.config_store.edits import Actor, Edit, write_audit_row
from store.config_store.secret_text import environ_of
from store.database import Database
from store.errors import UserError
from store.opening import config_place, open_config_database, place_of, sqlite_path
from store.settings import Settings, load_settings

_SERVED_CONFIG = "served-config"


def remember_config(app_dir: Path, config: Path | None) -> None:
    """Note which `--config` a gateway serves this directory with (None: none), so that commands find the same stores.

    Raises OSError.
    """
    note = app_dir / _SERVED_CONFIG
    if config is None:
        note.unlink(missing_ok=True)
        return
    fresh = note.with_name(f"{note.name}.new")
    fresh.write_text(f"{config.absolute()}\n", encoding="utf-8")
    fresh.replace(note)


def config_file(app_dir: Path, config: Path | None = None) -> Path:
    """The configuration file that commands read: the one they are given, else the last gateway's, else APP_DIR/config.json.

    Raises UserError when the last gateway's is gone.
    """
    return config or served_config(app_dir) or app_dir / "config.json"


def served_config(app_dir: Path) -> Path | None:
    """The `--config` of the last gateway; None when it had none. Raises UserError when that file is gone: the stores it named
    must not be taken for others."""
    try:
        served = Path((app_dir / _SERVED_CONFIG).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None
    if not served.is_file():
        raise UserError(
            f"{app_dir} was last served with --config {served}, which is not there any more: put it back, or start the gateway "
            "once with the right file"
        )
    return served


def settings_of(app_dir: Path, config: Path | None = None) -> Settings:
    """The settings that the gateway of this directory has, or would have. Raises UserError."""
    path = config_file(app_dir, config)
    return load_settings(path if config is not None or path.is_file() else None, environ_of(app_dir, os.environ))


def config_place_of(app_dir: Path, settings: Settings) -> str:
    """What to call the store that holds the ledger (and, but for file-only mode, the configuration)."""
    section, _, name = config_place(settings)
    return place_of(section, app_dir, name)


def config_is_missing(app_dir: Path, settings: Settings) -> bool:
    """True when that store is a file that nobody has made yet."""
    section, _, name = config_place(settings)
    path = sqlite_path(section, app_dir, name)
    return path is not None and not path.is_file()


def command_actor() -> Actor:
    """Whom the audit log names for what a command does by itself: the operating system's user, as the system knows it."""
    try:
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        name = getpass.getuser() if os.name == "nt" else f"user {os.getuid()}"
    return Actor(name, "command line")


def note_command(app_dir: Path, action: str, kind: str, **told: Any) -> None:
    """A row of the audit log for what a command did beside the management API; without stores there is nobody to tell.

    Raises UserError, StoreUnavailable.
    """
    settings = settings_of(app_dir)
    if config_is_missing(app_dir, settings):
        return
    clock = SystemClock()
    with opened_database(app_dir, settings, clock, read_only=False) as database, database.write() as connection:
        edit = Edit(connection, action, kind, **{"id": "", **told})
        write_audit_row(connection, command_actor(), edit, None, None, at_ms=clock.now_ms())


@contextmanager
def opened_database(app_dir: Path, settings: Settings, clock: Clock, *, read_only: bool) -> Iterator[Database]:
    """The configuration and ledger database (in file-only mode the ledger's), brought up to date unless `read_only`.

    Works beside a running gateway. Raises UserError when there is none yet, or when it cannot be used.
    """
    place = config_place_of(app_dir, settings)
    if config_is_missing(app_dir, settings):
        raise UserError(f"there is no {place} yet: start the gateway once with tollgate serve, or name another --app-dir")
    database = open_config_database(app_dir, settings, clock, read_only=read_only)
    try:
        with database.read() as connection:
            if not connection.has_table(database.steps_table):
                raise UserError(f"{place} is empty: start the gateway once with tollgate serve")
        database.migrate()
        yield database
    finally:
        database.close()
