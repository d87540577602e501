"""`store copy` as a command: what it refuses before it begins, what it prints, and that a failure leaves both ends as they were."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from addons.process import store_copying
from addons.process.cli import run
from addons.process.supervisor import owned
from run_gateway import cli
from store.clock import Ids, SystemClock
from store.config_store import change
from store.config_store.bootstrap import open_config_store
from store.config_store.specs import VirtualKeySpec
from store.copy import refuse_unless_empty
from store.errors import StoreUnavailable
from store.logs.opening import open_logs
from store.logs.schema import MIGRATIONS
from store.settings import settings_from
from store.sqlite import SqliteDatabase
from tests.support.postgres import Databases

Copy = Callable[..., tuple[int, str, str]]


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    """An app directory with one virtual key and one logged text."""
    database, clock = SqliteDatabase.open(tmp_path / "config.db"), SystemClock()
    database.migrate()
    store = open_config_store(database, settings_from({}, {}, source="config.json"), clock=clock, ids=Ids(clock))
    change.create_virtual_key(store, VirtualKeySpec(name="somebody"))
    database.close()
    logs = open_logs(tmp_path / "logs.db")
    with logs.write() as connection:
        connection.execute("INSERT INTO bodies (call_id, at_ms, request_bytes, response_bytes) VALUES ('c', 1, 0, 0)")
    logs.close()
    return tmp_path


@pytest.fixture
def copy(app_dir: Path, capsys: pytest.CaptureFixture[str]) -> Copy:
    def run_it(target: dict[str, Any] | str, *options: str, present: dict[str, Any] | None = None) -> tuple[int, str, str]:
        (app_dir / "new.json").write_text(target if isinstance(target, str) else json.dumps(target))
        if present is not None:
            (app_dir / "config.json").write_text(json.dumps(present))
        code = run(cli, ("store", "copy", "--app-dir", str(app_dir), "--to", str(app_dir / "new.json"), *options))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_it


MOVED = {"config_store": {"config": {"path": "new/config.db"}}, "logs_store": {"config": {"path": "new/logs.db"}}}


def rows(path: Path, table: str) -> int:
    database = open_logs(path) if table == "bodies" else SqliteDatabase.open(path)
    try:
        with database.read() as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}")[0][0])
    finally:
        database.close()


def test_it_says_what_was_copied_and_what_to_do_next(app_dir: Path, copy: Copy) -> None:
    code, out, err = copy(MOVED, "--logs")
    assert (code, err) == (0, "")
    assert f"from {app_dir / 'config.db'} to {app_dir / 'new/config.db'}; all compared" in out
    assert "the books agree there: 0 postings of 0 calls" in out
    assert (
        out.splitlines()[-1] == f"now start the gateway with {app_dir / 'new.json'}: tollgate serve --config {app_dir / 'new.json'}"
    )
    assert (rows(app_dir / "new/config.db", "virtual_keys"), rows(app_dir / "new/logs.db", "bodies")) == (1, 1)
    assert (rows(app_dir / "config.db", "virtual_keys"), rows(app_dir / "logs.db", "bodies")) == (1, 1)


def test_logs_stay_where_they_are_unless_asked_for(app_dir: Path, copy: Copy) -> None:
    assert copy(MOVED)[0] == 0
    assert not (app_dir / "new/logs.db").exists()


@pytest.mark.parametrize(
    ("target", "present", "words"),
    [
        ({}, None, "both files name the same config_store"),
        ({"config_store": {"enabled": False}}, None, "config_store.enabled differs"),
        ({**MOVED, "encryption_key": "another"}, {"encryption_key": "a passphrase"}, "encryption_key differs"),
        (MOVED, {"config_store": {"config": {"path": "nowhere.db"}}}, "there is nothing to copy"),
        ({"config_store": {"type": "postgres"}}, None, "PostgreSQL needs host and db_name"),
        ("{", None, "not valid JSON"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    target: dict[str, Any] | str, present: dict[str, Any] | None, words: str, copy: Copy, app_dir: Path
) -> None:
    code, out, err = copy(target, present=present)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert not (app_dir / "new").exists()


def test_not_beside_a_running_gateway(app_dir: Path, copy: Copy) -> None:
    with owned(app_dir):
        code, _, err = copy(MOVED)
    assert code == 2 and "is already served by process" in err


def test_a_full_place_for_logs_is_found_before_anything_is_copied(app_dir: Path, copy: Copy) -> None:
    target = {**MOVED, "logs_store": {}}  # the logs' own present place
    code, _, err = copy(target, "--logs")
    assert code == 2 and f"{app_dir / 'logs.db'} is not empty" in err
    assert not (app_dir / "new/config.db").exists() or rows(app_dir / "new/config.db", "virtual_keys") == 0


def test_a_failing_ledger_takes_the_logs_back(app_dir: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(store_copying, "copy_ledger", fail)
    code, out, err = copy(MOVED, "--logs")
    assert (code, out, err) == (2, "", "tollgate: the disk is full\n")
    logs = open_logs(app_dir / "new/logs.db")
    refuse_unless_empty(logs, MIGRATIONS)
    logs.close()
    monkeypatch.undo()
    assert copy(MOVED, "--logs")[0] == 0


def test_to_a_server_and_back(app_dir: Path, copy: Copy, postgres_databases: Databases) -> None:
    section = {"type": "postgres", "config": postgres_databases.settings(postgres_databases.fresh())}
    server = {"config_store": section, "logs_store": section}
    assert copy(server, "--logs")[0] == 0
    code, out, _ = copy(MOVED, "--logs", present=server)
    assert code == 0 and f"to {app_dir / 'new/config.db'}; all compared" in out
    assert rows(app_dir / "new/config.db", "virtual_keys") == 1
