"""The lines before `ready`: each says what is the case, and only then."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from addons.process.welcome import welcome
from store.config_store.bootstrap import BootstrapReport
from store.settings import settings_from

APP_DIR = Path("/srv/toll gate")
KEY = "sk-bf-00000000-1111-4222-8333-444444444444"
GATEWAY = "http://127.0.0.1:8080"
DASHBOARD = "http://127.0.0.1:8082/?token=abc"
INSPECTOR = "http://127.0.0.1:8081/?token=def"
ENCRYPTED = {"encryption_key": "a passphrase of some length"}


def lines(report: BootstrapReport | None = None, document: dict[str, Any] | None = None, inspector: str | None = None) -> list[str]:
    settings = settings_from(ENCRYPTED if document is None else document, {}, source="config.json")
    return list(welcome(APP_DIR, settings, report or BootstrapReport(), GATEWAY, DASHBOARD, inspector))


def test_an_ordinary_start_shows_the_dashboard_and_nothing_else() -> None:
    assert lines() == [f"dashboard  {DASHBOARD}"]


def test_the_inspector_is_shown_when_there_is_one() -> None:
    assert lines(inspector=INSPECTOR) == [f"dashboard  {DASHBOARD}", f"inspector  {INSPECTOR}"]


def test_seeding_is_said() -> None:
    assert lines(BootstrapReport(seeded=True)) == ["seeded the configuration store from config.json", f"dashboard  {DASHBOARD}"]


def test_a_file_that_is_applied_to_what_is_there_seeds_nothing() -> None:
    assert lines(BootstrapReport(seeded=True, over_data=True)) == [f"dashboard  {DASHBOARD}"]


def test_what_the_file_says_in_vain_is_named_together_with_the_remedy() -> None:
    first, *rest = lines(BootstrapReport(ignored=("providers: openai", "virtual keys: a, b")))
    assert "providers: openai, virtual keys: a, b" in first and "--reseed" in first and "ignored" in first
    assert rest == [f"dashboard  {DASHBOARD}"]


def test_without_an_encryption_key_it_says_what_lies_open() -> None:
    first, *rest = lines(document={})
    assert "encryption_key" in first and str(APP_DIR / "config.db") in first
    assert rest == [f"dashboard  {DASHBOARD}"]


def test_the_note_names_the_store_that_is_configured() -> None:
    first = lines(document={"config_store": {"config": {"path": "elsewhere.db"}}})[0]
    assert str(APP_DIR / "elsewhere.db") in first and "config.db" not in first


@pytest.mark.parametrize(
    "program,shown",
    [
        ("/usr/local/bin/tollgate", "/usr/local/bin/tollgate"),
        ("/opt/my tools/tollgate", "'/opt/my tools/tollgate'"),
        ("/home/a/run_gateway.py", "uv run run_gateway.py"),
        ("", "uv run run_gateway.py"),
    ],
)
def test_the_first_start_is_ready_to_paste(monkeypatch: pytest.MonkeyPatch, program: str, shown: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "serve"])
    found = lines(BootstrapReport(default_key_value=KEY))
    text = "\n".join(found)
    assert found[-1] == f"dashboard  {DASHBOARD}"
    assert f"key              {KEY}" in text
    assert f"eval \"$({shown} env --app-dir '/srv/toll gate')\"" in text
    assert f"{shown} exec --app-dir '/srv/toll gate' --budget 2usd -- claude" in text
    for prefix in ("/openai/v1", "/anthropic", "/genai"):
        assert f"base_url={GATEWAY}{prefix}" in text
    assert "budget" in found[-2]


def test_pasted_words_arrive_as_they_were_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell splits the pasted line into the program's words, whatever is in the directory's name."""
    monkeypatch.setattr("sys.argv", ["run_gateway.py"])
    settings = settings_from(ENCRYPTED, {}, source="config.json")
    strange = Path("/srv/it's; rm $HOME")
    report = BootstrapReport(default_key_value=KEY)
    line = next(line for line in welcome(strange, settings, report, GATEWAY, DASHBOARD, None) if "one run" in line)
    words = shlex.split(line.split("capped", 1)[1])
    assert words == ["uv", "run", "run_gateway.py", "exec", "--app-dir", str(strange), "--budget", "2usd", "--", "claude"]


def test_the_key_is_shown_only_on_the_first_start() -> None:
    assert all("sk-bf-" not in line for line in lines(BootstrapReport(seeded=True, ignored=("teams: a",)), document={}))


def test_the_order_is_seeded_ignored_note_first_steps_links() -> None:
    report = BootstrapReport(seeded=True, ignored=("teams: a",), default_key_value=KEY)
    found = lines(report, document={}, inspector=INSPECTOR)
    starts = ["seeded", "ignored", "note:", "first start", "dashboard", "inspector"]
    positions = [next(at for at, line in enumerate(found) if line.startswith(start)) for start in starts]
    assert positions == sorted(positions)


FILE_ONLY: dict[str, Any] = {"config_store": {"enabled": False}}
OF_A_KEY = {"governance": {"virtual_keys": [{"name": "a", "value": "sk-bf-of-a-key-in-the-file"}]}}


def test_file_only_mode_says_where_spend_is_kept_and_what_the_file_changed() -> None:
    report = BootstrapReport(applied="caps: 2 added")
    assert lines(report, FILE_ONLY | OF_A_KEY)[0] == (
        "the configuration is config.json alone; what is spent is kept in /srv/toll gate/ledger.db (caps: 2 added)"
    )
    postgres = {"type": "postgres", "config": {"host": "db.internal", "db_name": "env.DB", "password": "secret-of-the-database"}}
    assert lines(BootstrapReport(applied=""), FILE_ONLY | OF_A_KEY | {"ledger_store": postgres}) == [
        "the configuration is config.json alone; what is spent is kept in the PostgreSQL database $DB on db.internal:5432",
        f"dashboard  {DASHBOARD}",
    ]


def test_a_file_without_keys_says_that_nobody_can_call() -> None:
    said = lines(BootstrapReport(applied=""), FILE_ONLY)
    assert said[1] == "warning: config.json has no virtual keys, so nobody can call: add one to governance.virtual_keys"
