"""The stores' sections of config.json: Bifrost's fields, what is missing or contradicts itself, and nothing secret in a repr."""

import json
from pathlib import Path
from typing import Any

import pytest

from store.errors import SettingsError
from store.settings import Settings, load_settings, schema_text, settings_from
from store.store_settings import PostgresConfig, SqliteConfig

WHOLE = {
    "host": "db.internal", "port": "5433", "user": "gateway", "password": "env.DB_PASSWORD", "db_name": "tollgate",
    "ssl_mode": "verify-full", "max_idle_conns": 7, "max_open_conns": 70,
}  # fmt: skip


def read(section: Any, name: str = "config_store") -> Settings:
    return settings_from({name: section}, {}, source="config.json")


def refusal(section: Any, name: str = "config_store") -> str:
    with pytest.raises(SettingsError) as caught:
        read(section, name)
    text = str(caught.value)
    assert "\n" not in text and text.startswith("config.json: ")
    return text.removeprefix("config.json: ")


def test_every_field_of_bifrost_is_read() -> None:
    config = read({"type": "postgres", "config": WHOLE}).config_store.config
    assert isinstance(config, PostgresConfig)
    written = {name: getattr(config, name).written for name in ("host", "port", "user", "password", "db_name")}
    assert written == {name: WHOLE[name] for name in written}
    assert (config.ssl_mode, config.max_idle_conns, config.max_open_conns) == ("verify-full", 7, 70)
    assert config.password_command is None
    assert "DB_PASSWORD" not in repr(config)


def test_what_may_be_left_out_has_bifrosts_defaults() -> None:
    config = read({"type": "postgres", "config": {"host": "h", "db_name": "d"}}, "logs_store").logs_store.config
    assert isinstance(config, PostgresConfig)
    assert (config.port.written, config.max_idle_conns, config.max_open_conns, config.ssl_mode) == ("5432", 5, 50, "prefer")
    assert (config.user, config.password, config.password_command) == (None, None, None)


@pytest.mark.parametrize("port", [5433, "5433", "env.PORT", {"value": "env.PORT"}])
def test_a_port_is_a_number_or_a_text(port: Any) -> None:
    config = read({"type": "postgres", "config": {"host": "h", "db_name": "d", "port": port}}).config_store.config
    assert isinstance(config, PostgresConfig)
    assert config.port.written in ("5433", "env.PORT")


def test_a_password_command_takes_seconds_or_durations() -> None:
    command = {"command": "vault", "args": ["read", "-field=password", "db"], "timeout": 2.5, "cache_ttl": "5m"}
    config = read({"type": "postgres", "config": {"host": "h", "db_name": "d", "password_command": command}}).config_store.config
    assert isinstance(config, PostgresConfig) and config.password_command is not None
    made = config.password_command
    assert (made.command, made.args, made.timeout, made.cache_ttl) == ("vault", ("read", "-field=password", "db"), 2.5, 300.0)


def postgres(**fields: Any) -> dict[str, Any]:
    base = {"host": "h", "db_name": "d", **fields}
    return {"type": "postgres", "config": {name: value for name, value in base.items() if value is not ...}}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "postgres"}, "config_store: config: PostgreSQL needs host and db_name"),
        ({"type": "postgres", "config": {"path": "x.db"}}, "config_store: config: PostgreSQL needs host and db_name"),
        (postgres(db_name=...), "config_store.config.db_name: is required"),
        (postgres(host=...), "config_store.config.host: is required"),
        (postgres(host=""), "config_store.config: host is empty"),
        (postgres(hots="x"), "config_store.config.hots: unknown key; did you mean 'host'?"),
        (postgres(password="a", password_command={"command": "b"}), "config_store.config: has both password and password_command"),
        (postgres(password_command={"args": []}), "config_store.config.password_command.command: is required"),
        (postgres(password_command="x"), "config_store.config.password_command: must be an object"),
        (postgres(password_command={"command": "x", "timeout": 0}), "timeout: must be more than 0 and at most 60 seconds"),
        (postgres(password_command={"command": "x", "timeout": "2h"}), "timeout: must be more than 0 and at most 60 seconds"),
        (postgres(password_command={"command": "x", "cache_ttl": -1}), "config_store.config.password_command.cache_ttl: must be"),
        (postgres(password_command={"command": "x", "cache_ttl": "soon"}), "cache_ttl: 'soon' is not a duration"),
        (postgres(port=0), "config_store.config.port: '0' is not a port"),
        (postgres(port="65536"), "config_store.config.port: '65536' is not a port"),
        (postgres(port=True), "config_store.config.port: must be text"),
        (postgres(ssl_mode="maybe"), "config_store.config.ssl_mode: must be 'disable', 'allow'"),
        (postgres(max_open_conns=1), "max_open_conns: must be at least 2"),
        (postgres(max_open_conns="50"), "config_store.config.max_open_conns: must be a whole number"),
        (
            {"config": {"host": "h", "db_name": "d"}},
            'config_store: config: db_name, host belong to PostgreSQL; set type to "postgres"',
        ),
        ({"type": "sqlite", "config": {"pth": "x"}}, "config_store.config.pth: unknown key; did you mean 'path'?"),
        ({"type": "mysql"}, "config_store.type: must be 'sqlite' or 'postgres'"),
        ({"config": "x.db"}, "config_store.config: must be an object"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(section: dict[str, Any], message: str) -> None:
    assert message in refusal(section)


def test_clickhouse_is_named() -> None:
    assert refusal({"type": "clickhouse", "config": {}}, "logs_store").startswith('logs_store.type: "clickhouse" is not supported')


def test_pool_ages_and_schemas_of_bifrost_files_are_warnings() -> None:
    settings = read(postgres(conn_max_lifetime="30m", schema="bifrost"))
    assert settings.warnings == (
        "config_store.config.conn_max_lifetime is not implemented and has no effect",
        "config_store.config.schema is not implemented and has no effect",
    )


def test_a_ledger_store_has_a_meaning_in_file_only_mode_alone() -> None:
    section = postgres()
    said = settings_from({"ledger_store": section}, {}, source="config.json")
    assert not said.file_only and [line.split(" ")[0] for line in said.warnings] == ["ledger_store"]
    meant = settings_from({"config_store": {"enabled": False}, "ledger_store": section}, {}, source="config.json")
    assert meant.file_only and meant.warnings == ()
    assert isinstance(meant.ledger_store.config, PostgresConfig)
    assert isinstance(read({"enabled": False}).ledger_store.config, SqliteConfig)


def test_an_editor_knows_the_fields(tmp_path: Path) -> None:
    schema = json.loads(schema_text())["$defs"]
    assert set(WHOLE) | {"password_command"} <= set(schema["PostgresConfig"]["properties"])
    assert schema["PostgresConfig"]["required"] == ["host", "db_name"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config_store": {"type": "postgres", "config": WHOLE}}))
    assert load_settings(path, {}).config_store.type == "postgres"
