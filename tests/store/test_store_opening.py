"""Opening stores where the settings say: files, servers, secrets from the environment, passwords from a program."""

import getpass
import sys
from pathlib import Path
from typing import Any

import pytest

from store import filesystem
from store.clock import SystemClock
from store.errors import SettingsError, StoreUnavailable, UserError
from store.logs.opening import open_logs_store
from store.opening import (
    CONFIG_FILE,
    CommandPassword,
    config_place,
    open_config_database,
    place_of,
    sqlite_path,
)
from store.settings import Settings, settings_from
from store.sqlite import SqliteDatabase
from store.store_settings import PasswordCommand
from tests.support.postgres import PASSWORD, Databases

CLOCK = SystemClock()


def settings(document: dict[str, Any], environ: dict[str, str] | None = None) -> Settings:
    return settings_from(document, environ or {}, source="config.json")


def on(place: dict[str, Any], **changes: Any) -> dict[str, Any]:
    config = {name: value for name, value in {**place, **changes}.items() if value is not None}
    return {"config_store": {"type": "postgres", "config": config}}


@pytest.fixture
def place(postgres_databases: Databases) -> dict[str, Any]:
    return postgres_databases.settings(postgres_databases.fresh())


@pytest.mark.parametrize(
    ("configured", "wanted"),
    [(None, "/app/config.db"), ("", "/app/config.db"), ("sub/a.db", "/app/sub/a.db"), ("/x/a.db", "/x/a.db")],
)
def test_a_file_is_relative_to_the_app_directory(configured: str | None, wanted: str) -> None:
    section = settings({"config_store": {"config": {"path": configured}}}).config_store
    assert sqlite_path(section, Path("/app"), CONFIG_FILE) == Path(wanted)
    assert place_of(section, Path("/app"), CONFIG_FILE) == wanted


def test_a_server_is_named_without_secrets() -> None:
    section = settings(on({"host": "db.internal", "db_name": "env.DB", "password": "hush", "port": 5433})).config_store
    assert sqlite_path(section, Path("/app"), CONFIG_FILE) is None
    assert place_of(section, Path("/app"), CONFIG_FILE) == "the PostgreSQL database $DB on db.internal:5433"


def test_in_file_only_mode_the_ledger_has_a_place_of_its_own(tmp_path: Path) -> None:
    made = settings({"config_store": {"enabled": False, "config": {"path": "not-this.db"}}})
    section, path, name = config_place(made)
    assert (path, sqlite_path(section, tmp_path, name)) == ("ledger_store", tmp_path / "ledger.db")
    open_config_database(tmp_path, made, CLOCK).close()
    assert (tmp_path / "ledger.db").is_file() and not (tmp_path / "not-this.db").exists()


def test_files_are_opened_for_configuration_and_logs(tmp_path: Path) -> None:
    database = open_config_database(tmp_path, settings({}), CLOCK)
    logs = open_logs_store(tmp_path, settings({}))
    assert isinstance(database, SqliteDatabase) and isinstance(logs, SqliteDatabase)
    assert (database.path.name, logs.path.name) == ("config.db", "logs.db")
    database.close()
    logs.close()


def test_a_server_is_opened_with_secrets_from_the_environment(place: dict[str, Any], tmp_path: Path) -> None:
    environ = {"H": place["host"], "P": str(place["port"]), "U": place["user"], "W": place["password"], "D": place["db_name"]}
    made = settings(on({}, host="env.H", port="env.P", user="env.U", password="env.W", db_name="env.D"), environ)
    database = open_config_database(tmp_path, made, CLOCK)
    try:
        assert database.engine == "postgres"
        assert "ledger" in database.migrate()
        assert database.name == f"the PostgreSQL database {place['db_name']} on {place['host']}:{place['port']}"
    finally:
        database.close()


@pytest.mark.parametrize("name", ["host", "port", "user", "password", "db_name"])
def test_a_variable_that_is_not_set_is_named(name: str, tmp_path: Path) -> None:
    made = settings(on({"host": "h", "db_name": "d", "user": "u", name: "env.NOT_SET"}))
    with pytest.raises(SettingsError, match=rf"^config_store\.config\.{name}: the environment variable NOT_SET is not set$"):
        open_config_database(tmp_path, made, CLOCK)


def test_a_port_from_the_environment_is_checked(tmp_path: Path) -> None:
    made = settings(on({"host": "h", "db_name": "d", "user": "u", "port": "env.P"}), {"P": "five"})
    with pytest.raises(SettingsError, match=r"^config_store\.config\.port: 'five' is not a port"):
        open_config_database(tmp_path, made, CLOCK)


def test_without_a_user_it_is_whoever_runs_it(place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: place["user"])
    open_config_database(tmp_path, settings(on(place, user=None)), CLOCK).close()


def test_both_stores_in_one_database_do_not_mix(place: dict[str, Any], tmp_path: Path) -> None:
    section = {"type": "postgres", "config": place}
    made = settings({"config_store": section, "logs_store": section})
    database = open_config_database(tmp_path, made, CLOCK)
    logs = open_logs_store(tmp_path, made)
    try:
        assert "ledger" in database.migrate()
        assert (database.migrate(), logs.migrate()) == ((), ())
    finally:
        database.close()
        logs.close()


def test_a_wrong_password_is_a_sentence_without_it(place: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="password authentication failed") as caught:
        open_config_database(tmp_path, settings(on(place, password="guessed-wrongly")), CLOCK)
    assert "guessed-wrongly" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_network_file_system_is_refused_by_the_name_of_what_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = f"20 1 0:19 / / rw - ext4 /dev/a rw\n21 20 0:20 / {tmp_path} rw - nfs4 server:/export rw\n"
    monkeypatch.setattr(filesystem, "_read_mountinfo", lambda: mounts)
    with pytest.raises(UserError, match=r"network file system \(nfs4\).*PostgreSQL"):
        open_config_database(tmp_path, settings({}), CLOCK)
    with pytest.raises(UserError, match=r"network file system \(nfs4\).*PostgreSQL"):
        open_logs_store(tmp_path, settings({}))


# -- passwords from a program


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now


def command(code: str, **fields: Any) -> PasswordCommand:
    return PasswordCommand.model_validate({"command": sys.executable, "args": ["-c", code], **fields})


COUNTING = "import sys; f = open(sys.argv[1], 'a+'); f.write('x'); f.seek(0); print(' secret-%d \\n' % len(f.read()))"


def counting(tmp_path: Path, **fields: Any) -> PasswordCommand:
    return command(COUNTING, **fields).model_copy(update={"args": ("-c", COUNTING, str(tmp_path / "count"))})


def test_what_it_prints_is_the_password_stripped_and_remembered_for_a_while(tmp_path: Path) -> None:
    clock = Clock()
    ask = CommandPassword(counting(tmp_path, cache_ttl=60), "config_store.config.password_command", clock)
    assert (ask(), ask()) == ("secret-1", "secret-1")
    clock.now += 59.9
    assert ask() == "secret-1"
    clock.now += 0.1
    assert ask() == "secret-2"


def test_without_a_time_to_live_it_is_asked_each_time(tmp_path: Path) -> None:
    ask = CommandPassword(counting(tmp_path), "p")
    assert [ask(), ask(), ask()] == ["secret-1", "secret-2", "secret-3"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (command("print('half-a-secret'); raise SystemExit(3)"), "ended with exit code 3"),
        (
            command("import time; print('half-a-secret', flush=True); time.sleep(20)", timeout=0.2),
            "not answer within 0.2 seconds",
        ),
        (command("print('   ')"), "printed no password"),
        (command("import sys; sys.stdout.buffer.write(b'half-a-secret\\xff')"), "something else than UTF-8"),
        (PasswordCommand(command="/nowhere/at/all"), "cannot be run (No such file or directory)"),
        (PasswordCommand(command="nul\0byte"), "cannot be run"),
    ],
)
def test_a_program_that_fails_is_one_line_without_its_output(spec: PasswordCommand, words: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        CommandPassword(spec, "config_store.config.password_command")()
    text = str(caught.value)
    assert words in text and text.startswith("config_store.config.password_command: ")
    assert "half-a-secret" not in text and "\n" not in text


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    spec = command(f"import os, sys; sys.exit(0 if print('late') is None and os.path.exists({str(flag)!r}) else 1)", cache_ttl=60)
    ask = CommandPassword(spec, "p")
    with pytest.raises(StoreUnavailable):
        ask()
    flag.touch()
    assert ask() == "late"


def test_a_server_takes_the_password_of_a_program(place: dict[str, Any], tmp_path: Path) -> None:
    asked = {"command": sys.executable, "args": ["-c", f"print({PASSWORD!r})"]}
    open_config_database(tmp_path, settings(on(place, password=None, password_command=asked)), CLOCK).close()
    failing = {"command": sys.executable, "args": ["-c", "raise SystemExit(9)"]}
    with pytest.raises(UserError, match=r"config_store\.config\.password_command: .* ended with exit code 9"):
        open_config_database(tmp_path, settings(on(place, password=None, password_command=failing)), CLOCK)
