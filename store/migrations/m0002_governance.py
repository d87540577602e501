"""Providers, virtual keys, teams, customers and run credentials: the first governance tables."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.database import Connection

_STATEMENTS = (
    """
    CREATE TABLE providers (
        name TEXT NOT NULL PRIMARY KEY,
        base_provider TEXT,
        base_url TEXT,
        hosts TEXT NOT NULL,
        extra_headers TEXT NOT NULL,
        created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE provider_keys (
        id TEXT NOT NULL PRIMARY KEY,
        provider TEXT NOT NULL REFERENCES providers (name) ON DELETE CASCADE,
        name TEXT NOT NULL,
        secret TEXT NOT NULL,
        sealed INTEGER NOT NULL,
        hint TEXT NOT NULL,
        models TEXT NOT NULL,
        blacklisted_models TEXT NOT NULL,
        weight REAL NOT NULL,
        created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX provider_keys_name ON provider_keys (provider, name)",
    """
    CREATE TABLE customers (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        calendar_aligned INTEGER NOT NULL,
        created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE teams (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        customer_id TEXT REFERENCES customers (id) ON DELETE SET NULL,
        calendar_aligned INTEGER NOT NULL,
        created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL
    )
    """,
    "CREATE INDEX teams_customer ON teams (customer_id)",
    """
    CREATE TABLE virtual_keys (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        description TEXT NOT NULL,
        value TEXT,
        value_hash TEXT NOT NULL UNIQUE,
        hint TEXT NOT NULL,
        is_active INTEGER NOT NULL,
        expires_at_ms BIGINT,
        team_id TEXT REFERENCES teams (id) ON DELETE SET NULL,
        customer_id TEXT REFERENCES customers (id) ON DELETE SET NULL,
        calendar_aligned INTEGER NOT NULL,
        created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL
    )
    """,
    "CREATE INDEX virtual_keys_team ON virtual_keys (team_id)",
    "CREATE INDEX virtual_keys_customer ON virtual_keys (customer_id)",
    """
    CREATE TABLE provider_configs (
        id TEXT NOT NULL PRIMARY KEY,
        virtual_key_id TEXT NOT NULL REFERENCES virtual_keys (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        provider TEXT NOT NULL,
        weight REAL,
        allowed_models TEXT NOT NULL,
        blacklisted_models TEXT NOT NULL,
        key_ids TEXT NOT NULL,
        calendar_aligned INTEGER NOT NULL
    )
    """,
    "CREATE INDEX provider_configs_key ON provider_configs (virtual_key_id, position)",
    """
    CREATE TABLE run_credentials (
        id TEXT NOT NULL PRIMARY KEY,
        virtual_key_id TEXT NOT NULL REFERENCES virtual_keys (id) ON DELETE CASCADE,
        value_hash TEXT NOT NULL UNIQUE,
        hint TEXT NOT NULL,
        budget_nanos BIGINT,
        created_ms BIGINT NOT NULL,
        expires_at_ms BIGINT NOT NULL
    )
    """,
    "CREATE INDEX run_credentials_key ON run_credentials (virtual_key_id)",
    "CREATE INDEX run_credentials_expiry ON run_credentials (expires_at_ms)",
    "CREATE TABLE config_meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
)


def up(connection: "Connection") -> None:
    """Make the tables."""
    for statement in _STATEMENTS:
        connection.define(statement)
