"""Where the stores are, as config.json names them: SQLite files, or PostgreSQL databases with Bifrost's fields."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from store.config_store.fields import Bool, Int
from store.config_store.secret_text import Secret, parse_secret
from store.config_store.specs import Spec
from store.windows import parse_duration

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
MAX_COMMAND_SECONDS = 60.0


def check_seconds(value: Any) -> float:
    """Seconds as a number, or a duration such as `10s`. Raises ValueError."""
    if isinstance(value, str):
        return parse_duration(value).ms / 1000
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be seconds as a number, or a duration such as 10s")
    number = float(value)
    if not 0 <= number < 1e9:
        raise ValueError("must be seconds as a number from 0, or a duration such as 10s")
    return number


def check_port(value: Any) -> Any:
    """A port as a number or as text, which may be `env.NAME`. Raises ValueError."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    secret = parse_secret(text)
    if not secret.is_reference:
        port_number(secret.written)
    return secret


def port_number(text: str) -> int:
    """The port that a text names. Raises ValueError."""
    if text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536 and len(text) < 6:
        return int(text)
    raise ValueError(f"{text!r} is not a port; write a number from 1 to 65535, such as 5432")


Seconds = Annotated[
    float,
    BeforeValidator(check_seconds),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}], "description": "Seconds, or 10s, 5m."}),
]
PortText = Annotated[
    Secret,
    BeforeValidator(check_port),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string"}]}),
]
Pool = Annotated[Int, Field(ge=1, le=1000)]


class SqliteConfig(Spec):
    """Where the SQLite file is, relative to the app directory."""

    path: str | None = None


class PasswordCommand(Spec):
    """A program that prints the database's password, for passwords that change."""

    command: Annotated[str, Field(min_length=1)]
    args: tuple[str, ...] = ()
    timeout: Seconds = 10.0
    """How long it may take."""
    cache_ttl: Seconds = 0.0
    """How long its answer is used again for further connections; 0: never."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not 0 < self.timeout <= MAX_COMMAND_SECONDS:
            raise ValueError(f"timeout: must be more than 0 and at most {MAX_COMMAND_SECONDS:.0f} seconds")
        return self


class PostgresConfig(Spec):
    """A PostgreSQL database. `host`, `port`, `user`, `password` and `db_name` may be `env.NAME`."""

    unimplemented = frozenset({"conn_max_lifetime", "conn_max_idle_time", "matview_refresh_interval", "schema"})

    host: Secret
    port: PortText = Field(default_factory=lambda: parse_secret("5432"))
    user: Secret | None = None
    password: Secret | None = None
    password_command: PasswordCommand | None = None
    db_name: Secret
    ssl_mode: SslMode = "prefer"
    max_idle_conns: Pool = 5
    max_open_conns: Pool = 50

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.password is not None and self.password_command is not None:
            raise ValueError("has both password and password_command; keep one of them")
        for name in ("host", "db_name"):
            if not getattr(self, name).written:
                raise ValueError(f"{name} is empty; name the database's {'server' if name == 'host' else 'name'}")
        if self.max_open_conns < 2:
            raise ValueError("max_open_conns: must be at least 2: one connection writes while another reads")
        return self


_POSTGRES_ONLY = frozenset(PostgresConfig.model_fields) | PostgresConfig.unimplemented


def _kind(config: Any) -> str:
    """Which engine a `config` is written for, by its keys: the type stands beside it, where this place cannot see it."""
    if isinstance(config, Mapping):
        return "postgres" if _POSTGRES_ONLY.intersection(config) else "sqlite"
    return "postgres" if isinstance(config, PostgresConfig) else "sqlite"


StoreConfig = Annotated[Annotated[SqliteConfig, Tag("sqlite")] | Annotated[PostgresConfig, Tag("postgres")], Discriminator(_kind)]


class StoreSettings(Spec):
    """One store: its engine and where it is."""

    type: Literal["sqlite", "postgres"] = "sqlite"
    config: StoreConfig = SqliteConfig()

    @model_validator(mode="after")
    def _config_fits_the_type(self) -> Self:
        if self.type == "postgres" and not isinstance(self.config, PostgresConfig):
            raise ValueError('config: PostgreSQL needs host and db_name, such as {"host": "db.internal", "db_name": "tollgate"}')
        if self.type == "sqlite" and isinstance(self.config, PostgresConfig):
            said = ", ".join(sorted(self.config.model_fields_set & _POSTGRES_ONLY))
            raise ValueError(f'config: {said} belong to PostgreSQL; set type to "postgres", or leave them out')
        return self


class ConfigStoreSettings(StoreSettings):
    """Where providers, keys, budgets and the ledger are kept. Not `enabled`: the file alone says what there is."""

    unimplemented = frozenset({"vault_store"})

    enabled: Bool = True


class LedgerStoreSettings(StoreSettings):
    """Where spend is kept while `config_store.enabled` is false."""


class LogsStoreSettings(StoreSettings):
    """Where the rows of calls are kept."""

    unimplemented = frozenset({"object_storage", "object_storage_exclude_fields", "writer", "matview_refresh_interval"})

    enabled: Bool = True
    retention_days: Annotated[Int, Field(ge=1)] | None = None
