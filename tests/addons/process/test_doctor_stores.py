"""What `doctor` says of stores: engine, version, damage, emptiness, on both engines and in file-only mode."""

import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from addons.process.cli import run
from addons.process.doctor_stores import damage_of, engine_of, is_empty
from run_gateway import cli
from store.clock import Ids, SystemClock
from store.config_store.file_only import apply_file
from store.database import Database
from store.settings import settings_from
from store.sqlite import SqliteDatabase
from tests.support.postgres import Databases, PostgresServer, opened


def examined(app_dir: Path, capsys: pytest.CaptureFixture[str], document: dict[str, Any] | None = None) -> list[dict[str, str]]:
    if document is not None:
        (app_dir / "config.json").write_text(json.dumps(document))
    run(cli, ("doctor", "--app-dir", str(app_dir), "--json"))
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return [finding for finding in found if finding["area"] == "stores"]


def test_an_engine_is_named_with_its_version(any_database: Database) -> None:
    text = engine_of(any_database, synced=True)
    if any_database.engine == "sqlite":
        assert text == f"SQLite {apsw.sqlite_lib_version()}, synced at every commit"
        assert engine_of(any_database, synced=False).endswith("synced now and then")
    else:
        assert text.startswith("PostgreSQL 1") and text.endswith(", fsync on")
    assert damage_of(any_database) is None
    assert not is_empty(any_database)


def test_a_file_with_a_broken_page_is_damaged(tmp_path: Path) -> None:
    database = SqliteDatabase.open(tmp_path / "config.db")
    database.migrate()
    database.close()
    content = bytearray((tmp_path / "config.db").read_bytes())
    content[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    (tmp_path / "config.db").write_bytes(content)
    broken = SqliteDatabase.open(tmp_path / "config.db", read_only=True)
    found = damage_of(broken)
    broken.close()
    assert found is not None and "backup" in found[1]


def test_before_the_first_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [(finding["level"], finding["text"]) for finding in examined(tmp_path, capsys)]
    assert texts == [
        ("note", f"configuration and ledger: {tmp_path / 'config.db'} is not there yet"),
        ("note", f"logs: {tmp_path / 'logs.db'} is not there yet"),
    ]


def test_file_only_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "config_store": {"enabled": False},
        "governance": {"virtual_keys": [{"name": "a", "value": "sk-bf-a-key-for-doctor", "budgets": [{"max_limit": 1}]}]},
    }
    database, clock = SqliteDatabase.open(tmp_path / "ledger.db"), SystemClock()
    database.migrate()
    apply_file(database, settings_from(document, {}, source="config.json"), clock=clock, ids=Ids(clock))
    database.close()
    (tmp_path / "config.json").write_text(json.dumps(document))
    run(cli, ("doctor", "--app-dir", str(tmp_path), "--json"))
    found = json.loads(capsys.readouterr().out)
    texts = [finding["text"] for finding in found]
    place = tmp_path / "ledger.db"
    assert any(text.startswith(f"ledger (config_store.enabled is false): {place} holds together (SQLite") for text in texts)
    assert "a hard budget binds each of 1 active virtual key(s)" in texts
    assert not any("no effect" in text or "encryption_key" in text for text in texts)


def test_servers(postgres_databases: Databases, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = postgres_databases.fresh()
    section: dict[str, Any] = {"type": "postgres", "config": postgres_databases.settings(address)}
    document = {"config_store": section, "logs_store": section}
    where = f"the PostgreSQL database {address.db_name} on {address.host}:{address.port}"
    empty = [finding["text"] for finding in examined(tmp_path, capsys, document)]
    assert empty == [f"configuration and ledger: {where} is empty", f"logs: {where} is empty"]
    opened(address).close()
    texts = [(finding["level"], finding["text"]) for finding in examined(tmp_path, capsys)]
    assert texts[0][0] == "ok" and texts[0][1].startswith(f"configuration and ledger: {where} holds together (PostgreSQL 1")
    document["config_store"] = {"type": "postgres", "config": {**section["config"], "password": "guessed-wrongly"}}
    wrong = examined(tmp_path, capsys, document)
    assert wrong[0]["level"] == "fail" and "password authentication failed" in wrong[0]["text"]
    assert "guessed-wrongly" not in json.dumps(wrong)


def test_a_server_that_forgets_is_a_failure(
    postgres_server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (postgres_server.data / "postgresql.conf").open("a") as settings:
        settings.write("fsync = off\n")
    postgres_server.stop()
    postgres_server.start()
    databases = Databases(postgres_server.dsn)
    section = {"type": "postgres", "config": databases.settings(databases.fresh())}
    (finding, *_) = examined(tmp_path, capsys, {"config_store": section})
    assert finding["level"] == "fail" and "fsync = off" in finding["text"]
