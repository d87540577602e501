"""Opens a store where config.json says it is: a SQLite file, or a PostgreSQL database with its password from where it is kept."""

import getpass
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from store.clock import Clock, SystemClock
from store.config_store.secret_text import NoSecret, SecretText, environ_of
from store.database import Database, Synchronous
from store.errors import SettingsError, StoreUnavailable
from store.migrations import Migration
from store.settings import Settings
from store.sqlite import SqliteDatabase
from store.store_settings import PasswordCommand, PostgresConfig, StoreSettings, port_number

CONFIG_FILE, LOGS_FILE, LEDGER_FILE = "config.db", "logs.db", "ledger.db"


def open_config_database(app_dir: Path, settings: Settings, clock: Clock, *, read_only: bool = False) -> Database:
    """Where configuration and ledger are, or in file-only mode the ledger alone. Call `migrate()` before use. Raises UserError."""
    section, path, name = config_place(settings)
    return open_database(section, app_dir, name, path=path, environ=settings.environ, clock=clock, read_only=read_only)


def config_place(settings: Settings) -> tuple[StoreSettings, str, str]:
    """(section, its name in the file, usual file name) of the store that holds the ledger."""
    if settings.file_only:
        return settings.ledger_store, "ledger_store", LEDGER_FILE
    return settings.config_store, "config_store", CONFIG_FILE


def open_database(
    section: StoreSettings,
    app_dir: Path,
    name: str,
    *,
    path: str,
    environ: Mapping[str, str],
    clock: Clock,
    migrations: Sequence[Migration] | None = None,
    synchronous: Synchronous = "FULL",
    read_only: bool = False,
) -> Database:
    """The database that a section of config.json (`path`) names; `name` is the usual file in the app directory.

    `migrations` are the schema steps of anything but configuration and ledger. The clock is SQLite's: PostgreSQL has its own.
    Raises UserError, one sentence, when the database cannot serve; a secret is never in it.
    """
    config = section.config
    environ = environ_of(app_dir, environ)
    if isinstance(config, PostgresConfig):
        from store.postgres import PostgresAddress, PostgresDatabase

        where = f"{path}.config"
        address = PostgresAddress(
            host=_text(config.host, environ, f"{where}.host"),
            port=_port(config.port, environ, f"{where}.port"),
            user=_user(config, environ, where),
            db_name=_text(config.db_name, environ, f"{where}.db_name"),
            password=_password(config, environ, where, clock),
            ssl_mode=config.ssl_mode,
            max_open=config.max_open_conns,
            max_idle=config.max_idle_conns,
        )
        return PostgresDatabase.open(
            address,
            purpose="config" if migrations is None else "logs",
            migrations=migrations,
            synchronous=synchronous,
            read_only=read_only,
        )
    return SqliteDatabase.open(
        sqlite_path(section, app_dir, name) or app_dir / name,
        read_only=read_only,
        clock=clock,
        migrations=migrations,
        synchronous=synchronous,
    )


def sqlite_path(section: StoreSettings, app_dir: Path, name: str) -> Path | None:
    """The store's file, as configured (relative to the app directory) or under its usual name there; None for PostgreSQL."""
    if isinstance(section.config, PostgresConfig):
        return None
    return app_dir / (section.config.path or name)


def place_of(section: StoreSettings, app_dir: Path, name: str) -> str:
    """What messages call the store before it is open: a path, or the PostgreSQL database with its server."""
    config = section.config
    if isinstance(config, PostgresConfig):
        return f"the PostgreSQL database {_shown(config.db_name)} on {_shown(config.host)}:{_shown(config.port)}"
    return str(sqlite_path(section, app_dir, name))


class CommandPassword:
    """The password that a program prints, asked for at each connect and remembered for `cache_ttl` seconds."""

    def __init__(self, spec: PasswordCommand, path: str, clock: Clock | None = None) -> None:
        self._spec = spec
        self._path = path
        self._clock = clock or SystemClock()
        self._turn = threading.Lock()
        self._known: str | None = None
        self._known_until = 0.0

    def __call__(self) -> str:
        """Raises StoreUnavailable, one sentence that never repeats what the program printed."""
        with self._turn:
            now = self._clock.monotonic()
            if self._known is None or now >= self._known_until:
                self._known = self._ask()
                self._known_until = now + self._spec.cache_ttl
            return self._known

    def _ask(self) -> str:
        spec = self._spec
        command = f"{self._path}: {spec.command}"
        try:
            done = subprocess.run(
                [spec.command, *spec.args], stdin=subprocess.DEVNULL, capture_output=True, timeout=spec.timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise StoreUnavailable(f"{command} did not answer within {spec.timeout:g} seconds") from None
        except (OSError, ValueError) as error:
            raise StoreUnavailable(f"{command} cannot be run ({getattr(error, 'strerror', None) or 'bad arguments'})") from None
        if done.returncode:
            raise StoreUnavailable(f"{command} ended with exit code {done.returncode} and gave no password")
        try:
            password = done.stdout.decode().strip()
        except UnicodeDecodeError:
            raise StoreUnavailable(f"{command} printed something else than UTF-8 text") from None
        if not password:
            raise StoreUnavailable(f"{command} printed no password")
        return password


def _password(config: PostgresConfig, environ: Mapping[str, str], where: str, clock: Clock) -> Callable[[], str | None] | None:
    if config.password_command is not None:
        return CommandPassword(config.password_command, f"{where}.password_command", clock)
    if config.password is None or not config.password.written:
        return None
    secret = config.password
    _text(secret, environ, f"{where}.password")
    return lambda: _text(secret, environ, f"{where}.password")  # at each connect: a file of it may have been replaced


def _user(config: PostgresConfig, environ: Mapping[str, str], where: str) -> str:
    if config.user is not None:
        return _text(config.user, environ, f"{where}.user")
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise SettingsError(f"{where}.user: is required") from None


def _port(secret: SecretText, environ: Mapping[str, str], path: str) -> int:
    text = _text(secret, environ, path)
    try:
        return port_number(text)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None


def _text(secret: SecretText, environ: Mapping[str, str], path: str) -> str:
    try:
        return secret.look_up(environ)
    except NoSecret as error:
        raise SettingsError(f"{path}: {error}") from None


def _shown(secret: SecretText) -> str:
    return f"${secret.env_name}" if secret.env_name else secret.written  # a file: as it is written
