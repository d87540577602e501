"""The command line: what it prints, what it changes in real stores, and one clear line for every mistake."""

import json
import os
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import run_gateway
from addons.process import cli as cli_module
from addons.process.cli import default_app_dir, run
from addons.process.enforcement import Circumstances, own_provider_keys, verdict
from addons.process.status import runs_out_at, status_json
from addons.process.text import rounded_usd, span, table
from store.clock import Ids, SystemClock, ms_from_iso
from store.config_store.bootstrap import bootstrap
from store.settings import settings_from
from store.sqlite import SqliteDatabase

ROOT = Path(run_gateway.__file__).parent


@pytest.fixture
def app_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a gateway that was started once, with nothing configured, and stopped."""
    directory = tmp_path / "app"
    directory.mkdir(mode=0o700)
    seed(directory, {})
    monkeypatch.setenv("TOLLGATE_APP_DIR", str(directory))
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return directory


def seed(directory: Path, document: dict[str, Any]) -> None:
    """What `serve` does to the stores at its first start."""
    clock = SystemClock()
    database = SqliteDatabase.open(directory / "config.db", clock=clock)
    try:
        database.migrate()
        bootstrap(database, settings_from(document, {}, source="test"), clock=clock, ids=Ids(clock))
    finally:
        database.close()


class Said:
    """A command's outcome."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_float=Decimal)


@pytest.fixture
def tollgate(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line in this process."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(run_gateway.cli, arguments)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


def test_no_command_means_serve(monkeypatch: pytest.MonkeyPatch, tollgate: Any, tmp_path: Path) -> None:
    import addons.process.supervisor as supervisor

    seen: list[Any] = []

    def serve(options: Any) -> int:
        seen.append(options)
        return 7

    monkeypatch.setattr(supervisor, "serve", serve)
    assert tollgate("--app-dir", str(tmp_path), "--port", "0", "--no-inspect", "--grace", "3").code == 7
    assert tollgate("--console-port", "9", f"--app-dir={tmp_path}").code == 7
    assert tollgate("serve", "--app-dir", str(tmp_path), "--mode", "socks5", "--mode", "dns", "--log-level", "DEBUG").code == 7
    assert tollgate().code == 7
    first, second, third, plain = seen
    assert (first.app_dir, first.port, first.inspect, first.grace) == (tmp_path, 0, False, 3.0)
    assert (second.app_dir, second.console_port, second.port) == (tmp_path, 9, 8080)
    assert (third.mode, third.log_level) == (("socks5", "dns"), "debug")
    assert (plain.host, plain.port, plain.inspect_port, plain.console_port, plain.console_host) == (
        "127.0.0.1", 8080, 8081, 8082, "127.0.0.1",
    )  # fmt: skip
    assert (plain.workers, plain.reseed, plain.grace, plain.config) == (1, False, 30.0, None)


def test_the_app_directory_comes_from_option_environment_or_home(monkeypatch: pytest.MonkeyPatch, tollgate: Any) -> None:
    import addons.process.supervisor as supervisor

    seen: list[Path] = []
    monkeypatch.setattr(supervisor, "serve", lambda options: seen.append(options.app_dir) or 0)
    monkeypatch.setenv("TOLLGATE_APP_DIR", "/from/environment")
    tollgate("serve")
    tollgate("serve", "--app-dir", "/from/option")
    tollgate("--app-dir", "/before", "serve")
    tollgate("--app-dir", "/before", "serve", "--app-dir", "/after")
    monkeypatch.delenv("TOLLGATE_APP_DIR")
    monkeypatch.setenv("HOME", "/home/somebody")
    tollgate("serve")
    assert [str(path) for path in seen] == [
        "/from/environment", "/from/option", "/before", "/after", "/home/somebody/.config/tollgate",
    ]  # fmt: skip


def test_windows_uses_the_roaming_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_module.sys, "platform", "win32")
    monkeypatch.setenv("APPDATA", "/profile/roaming")
    assert default_app_dir() == Path("/profile/roaming/tollgate")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stauts"], "there is no command 'stauts': did you mean status?"),
        (["frobnicate"], "there is no command 'frobnicate': there are"),
        (["serve", "--port", "99999"], "'99999' is not a port"),
        (["serve", "--workers", "0"], "--workers"),
        (["exec"], "Missing argument"),
        (["exec", "--bugdet", "2", "--", "true"], "No such option '--bugdet'"),
        (["exec", "--budget", "2eur", "--", "true"], "'2eur' is not an amount of money"),
        (["env", "--shell", "tcsh"], "tcsh"),
        (["env", "--gateway", "ftp://x"], "--gateway 'ftp://x' is not an address"),
        (["keys", "create"], "Missing argument 'NAME'"),
        (["keys", "delete", "nobody", "--yes"], "there is no virtual key 'nobody'"),
        (["keys", "rotate", "defaul"], "did you mean 'default'?"),
        (["keys", "update", "default"], "nothing to change"),
        (["keys", "create", "default"], "already a virtual key named 'default'"),
        (["keys", "create", "x", "--provider", "opnai"], "did you mean 'openai'?"),
        (["keys", "create", "x", "--expires", "tomorrow"], "tomorrow"),
        (["keys", "create", "x", "--budget", "2usd/soon"], "no usable window"),
        (["keys", "create", "x", "--team", "nobody"], "there is no team 'nobody'"),
        (["keys", "create", "x", "--team", "a", "--customer", "b"], "not to both"),
        (["budgets", "create", "b", "--limit", "2usd"], "exactly one owner"),
        (["budgets", "create", "b", "--limit", "2usd/1h", "--key", "default", "--team", "t"], "exactly one owner"),
        (["budgets", "create", "b", "--limit", "2usd/1h", "--key", "nobody"], "there is no virtual key 'nobody'"),
        (["budgets", "create", "b", "--limit", "2usd/1h", "--key", "default", "--calendar"], "calendar"),
        (["budgets", "reset", "nothing"], "there is no budget 'nothing'"),
        (["budgets", "topup", "nothing", "5usd/1h"], "a window has no meaning here"),
        (["admin-token"], "no admin token yet"),
    ],
)
def test_every_mistake_is_one_line_and_2(app_dir: Path, tollgate: Any, arguments: list[str], said: str) -> None:
    outcome = tollgate(*arguments)
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("tollgate: ") and outcome.err.count("\n") == 1
    assert said in outcome.err


@pytest.mark.parametrize("arguments", [["status"], ["keys", "list"], ["verify"], ["env"], ["budgets", "reset", "x"]])
def test_a_directory_where_nothing_was_started_says_so(tmp_path: Path, tollgate: Any, arguments: list[str]) -> None:
    outcome = tollgate(*arguments, "--app-dir", str(tmp_path / "none"))
    assert outcome.code == 2 and outcome.err.count("tollgate serve") == 1
    assert not (tmp_path / "none" / "config.db").exists()


def test_broken_configuration_is_one_line(app_dir: Path, tollgate: Any) -> None:
    (app_dir / "config.json").write_text('{"gateway": {"unprised": "allow"}}')
    outcome = tollgate("status")
    assert outcome.code == 2 and "unprised" in outcome.err and "unpriced" in outcome.err and outcome.err.count("\n") == 1


def test_help_teaches_every_command(tollgate: Any) -> None:
    shown = tollgate("--help")
    assert shown.code == 0
    for name in run_gateway.cli.commands:
        assert name in shown.out
        assert tollgate(name, "--help").code == 0


def test_groups_without_a_subcommand_show_their_help_on_stderr(tollgate: Any) -> None:
    outcome = tollgate("keys")
    assert outcome.code == 2 and "create" in outcome.err and outcome.out == ""


def test_a_key_from_making_to_deleting(app_dir: Path, tollgate: Any) -> None:
    made = tollgate(
        "keys", "create", "agent", "--budget", "2usd/1h", "--budget", "$50/1d", "--provider", "openai", "--model", "gpt-4o"
    )
    value = made.out.strip()
    assert made.code == 0 and value.startswith("sk-bf-") and "made the virtual key agent" in made.err

    listed = {key["name"]: key for key in tollgate("keys", "list", "--json").json}
    assert set(listed) == {"default", "agent"}
    agent = listed["agent"]
    assert [(config["provider"], config["allowed_models"]) for config in agent["provider_configs"]] == [("openai", ["gpt-4o"])]
    assert [(budget["max_limit"], budget["reset_duration"]) for budget in agent["budgets"]] == [(2, "1h"), (50, "1d")]
    shown = tollgate("keys", "list").out
    assert "$0.00 of $2.00 per 1h; $0.00 of $50.00 per 1d" in shown
    assert value not in shown and value[-4:] in shown

    assert tollgate("keys", "update", "agent", "--name", "robot", "--provider", "anthropic").code == 0
    robot = {key["name"]: key for key in tollgate("keys", "list", "--json").json}["robot"]
    assert (robot["id"], robot["value"]) == (agent["id"], value)
    assert [config["provider"] for config in robot["provider_configs"]] == ["anthropic"]
    assert len(robot["budgets"]) == 2

    rotated = tollgate("keys", "rotate", "robot").out.strip()
    assert rotated.startswith("sk-bf-") and rotated != value

    assert tollgate("keys", "disable", robot["id"]).code == 0
    assert "disabled" in tollgate("keys", "list").out
    assert tollgate("keys", "update", "robot", "--enable").code == 0
    assert "disabled" not in tollgate("keys", "list").out

    refused = tollgate("keys", "delete", "robot")  # no terminal to ask on
    assert refused.code == 2 and "--yes" in refused.err
    assert tollgate("keys", "delete", "robot", "--yes").code == 0
    assert [key["name"] for key in tollgate("keys", "list", "--json").json] == ["default"]


def test_a_budget_from_making_to_deleting(app_dir: Path, tollgate: Any) -> None:
    made = tollgate("budgets", "create", "workshop", "--limit", "0.50usd/1h", "--key", "default")
    assert made.code == 0 and made.err == "tollgate: made the budget workshop: $0.50 per 1h on virtual key default\n"
    (budget,) = tollgate("budgets", "list", "--json").json
    assert (budget["name"], budget["max_limit"], budget["reset_duration"]) == ("workshop", Decimal("0.5"), "1h")
    assert "workshop" in tollgate("budgets", "list").out and "virtual key default" in tollgate("budgets", "list").out

    assert tollgate("budgets", "topup", "workshop", "25c", "--reason", "a long evening").code == 0
    (exact,) = tollgate("status", "--json").json["budgets"]
    assert exact["remaining_usd"] == "0.75" and exact["used_usd"] == "0" and exact["state"] == "active"
    assert tollgate("budgets", "reset", "workshop").code == 0
    assert tollgate("verify").out.startswith("the books agree: ")
    assert tollgate("budgets", "delete", "workshop", "--yes").code == 0
    assert tollgate("budgets", "list", "--json").json == []


@pytest.mark.parametrize(
    ("scope", "option", "owner"),
    [("provider", "--provider", "openai"), ("model", "--model", "gpt-4o")],
)
def test_a_budget_for_everybody(app_dir: Path, tollgate: Any, scope: str, option: str, owner: str) -> None:
    assert tollgate("budgets", "create", "all", "--limit", "9usd/1d", option, owner, "--enforcement", "soft").code == 0
    (exact,) = tollgate("status", "--json").json["budgets"]
    assert (exact["scope"], exact["scope_id"], exact["enforcement"]) == (scope, owner, "soft")


def test_a_calendar_budget(app_dir: Path, tollgate: Any) -> None:
    create = ("budgets", "create", "day", "--limit", "9usd/1d", "--key", "default", "--calendar", "--timezone", "Europe/Riga")
    assert tollgate(*create).code == 0
    (exact,) = tollgate("status", "--json").json["budgets"]
    assert exact["resets_at"].endswith(("T22:00:00Z", "T21:00:00Z"))  # midnight in Riga, winter or summer


def test_two_budgets_of_one_name_are_told_apart_by_id(app_dir: Path, tollgate: Any) -> None:
    tollgate("budgets", "create", "same", "--limit", "1usd/1h", "--key", "default")
    tollgate("budgets", "create", "same", "--limit", "1usd/1d", "--key", "default")
    outcome = tollgate("budgets", "reset", "same")
    ids = [budget["id"] for budget in tollgate("budgets", "list", "--json").json]
    assert outcome.code == 2 and all(each in outcome.err for each in ids)
    assert tollgate("budgets", "reset", ids[0]).code == 0


def test_env_prints_the_default_keys_value(app_dir: Path, tollgate: Any) -> None:
    value = tollgate("keys", "list", "--json").json[0]["value"]
    outcome = tollgate("env", "--shell", "json")
    assert outcome.json["HTTPS_PROXY"] == f"http://tollgate:{value}@127.0.0.1:8080"
    assert Path(outcome.json["SSL_CERT_FILE"]).is_file() and "no gateway runs" in outcome.err
    elsewhere = tollgate("env", "--shell", "json", "--gateway", "http://gw.example:9000/", "-k", "default")
    assert elsewhere.json["HTTPS_PROXY"] == f"http://tollgate:{value}@gw.example:9000" and elsewhere.err == ""


def test_env_asks_which_key_when_there_are_several_and_none_is_default(app_dir: Path, tollgate: Any) -> None:
    tollgate("keys", "update", "default", "--name", "first")
    assert tollgate("env", "--gateway", "http://gw:1").code == 0
    tollgate("keys", "create", "second")
    outcome = tollgate("env", "--gateway", "http://gw:1")
    assert outcome.code == 2 and "several virtual keys" in outcome.err


def test_env_says_what_to_do_when_only_hashes_are_kept(tmp_path: Path, tollgate: Any) -> None:
    document = {"encryption_key": "correct horse battery staple"}
    (tmp_path / "config.json").write_text(json.dumps(document))
    seed(tmp_path, document)
    outcome = tollgate("env", "--app-dir", str(tmp_path), "--gateway", "http://gw:1")
    assert outcome.code == 2 and "kept as a hash" in outcome.err and "tollgate exec" in outcome.err
    made = tollgate("keys", "create", "x", "--app-dir", str(tmp_path))
    assert made.out.startswith("sk-bf-")  # shown once


def test_status_of_a_stopped_gateway(app_dir: Path, tollgate: Any) -> None:
    outcome = tollgate("status")
    assert outcome.out.startswith(f"stopped: no gateway runs in {app_dir}") and "no budgets yet" in outcome.out
    assert tollgate("status", "--json").json == {"running": False, "gateway": None, "budgets": []}


def budget(**changes: Any) -> dict[str, Any]:
    plain = {
        "id": "b", "name": "b", "max_limit": Decimal("10"), "current_usage": Decimal("2"), "held": Decimal("0"),
        "last_reset": "2026-11-23T10:00:00Z", "resets_at": "2026-11-23T20:00:00Z", "enforcement": "hard",
    }  # fmt: skip
    return plain | changes


NOON = ms_from_iso("2026-11-23T12:00:00Z")


def test_when_a_budget_runs_out_at_its_pace() -> None:
    # Two dollars in two hours, eight left: at 20:00, which is when it resets anyway.
    assert runs_out_at(budget(), NOON) is None
    # Four dollars in two hours, six left: three hours from noon.
    assert runs_out_at(budget(current_usage=4), NOON) == ms_from_iso("2026-11-23T15:00:00Z")
    # What is held is not free either: two dollars an hour, five left.
    assert runs_out_at(budget(current_usage=4, held=1), NOON) == ms_from_iso("2026-11-23T14:30:00Z")
    assert runs_out_at(budget(current_usage=0), NOON) is None
    assert runs_out_at(budget(current_usage=10), NOON) == NOON
    assert runs_out_at(budget(current_usage=4, resets_at=None), NOON) == ms_from_iso("2026-11-23T15:00:00Z")
    assert runs_out_at(budget(current_usage=4, last_reset=None), NOON) is None


def test_status_for_programs_is_exact() -> None:
    (exact,) = status_json(None, [budget(current_usage=Decimal("4.000000001"), held=Decimal("0.0000001"))], NOON)["budgets"]
    assert (exact["used_usd"], exact["held_usd"], exact["remaining_usd"]) == ("4.000000001", "0.0000001", "5.999999899")


def test_tables_amounts_and_spans() -> None:
    assert table(["A", "LONG"], [["one", "x"], ["2", "y"]]) == "A    LONG\none  x\n2    y\n"
    assert [rounded_usd(nanos) for nanos in (0, 1, 123_456_789, 1_000_000_000)] == ["$0.00", "$0.0001", "$0.1235", "$1.00"]
    assert [span(ms) for ms in (0, 59_000, 65 * 60_000, 26 * 3_600_000 + 60_000)] == [
        "under a minute", "under a minute", "1h 5min", "1d 2h",
    ]  # fmt: skip


def test_doctor_finds_nothing_wrong_and_says_advisory(app_dir: Path, tollgate: Any) -> None:
    tollgate("budgets", "create", "b", "--limit", "1usd/1h", "--key", "default")
    outcome = tollgate("doctor", "--json")
    found = {(finding["area"], finding["level"]): finding["text"] for finding in outcome.json}
    assert outcome.code == 0, outcome.out
    assert "holds together" in found["stores", "ok"]
    assert found["budgets", "ok"].startswith("a hard budget binds")
    assert found["caps", "warn"].startswith("advisory: callers hold their own keys for ")


def test_doctor_names_keys_without_a_budget_and_models_without_a_price(app_dir: Path, tollgate: Any) -> None:
    tollgate("keys", "create", "x", "--provider", "openai", "--model", "gpt-4o", "--model", "gpt-nobody-knows")
    shown = tollgate("doctor").out
    assert "no hard budget binds every call of: default, x" in shown or "no hard budget binds every call of: x, default" in shown
    assert "no price is known for openai/gpt-nobody-knows" in shown and "openai/gpt-4o" not in shown


def test_doctor_fails_on_a_readable_ca_key_and_a_damaged_store(app_dir: Path, tollgate: Any) -> None:
    tollgate("env", "--gateway", "http://gw:1")
    (app_dir / "ca" / "mitmproxy-ca.pem").chmod(0o644)
    outcome = tollgate("doctor")
    assert outcome.code == 1 and "other users can read the CA's private key" in outcome.out
    (app_dir / "ca" / "mitmproxy-ca.pem").chmod(0o600)
    for path in app_dir.glob("config.db*"):
        path.unlink()
    (app_dir / "config.db").write_bytes(b"this is no database" * 500)
    outcome = tollgate("doctor")
    assert outcome.code == 1 and "fail  stores" in outcome.out and "Traceback" not in outcome.err


def test_doctor_names_the_files_entries_that_have_no_effect(app_dir: Path, tollgate: Any) -> None:
    (app_dir / "config.json").write_text(json.dumps({"providers": {"openai": {"keys": [{"name": "k", "value": "env.NOT_SET"}]}}}))
    shown = tollgate("doctor").out
    assert "have no effect: provider openai" in shown and "--reseed" in shown


def test_doctor_names_secrets_that_are_not_set(tmp_path: Path, tollgate: Any) -> None:
    seed(tmp_path, {"providers": {"openai": {"keys": [{"name": "k", "value": "env.NOT_SET_HERE"}]}}})
    assert "NOT_SET_HERE is not set" in tollgate("doctor", "--app-dir", str(tmp_path)).out


def test_verdicts_on_enforcement() -> None:
    assert verdict(Circumstances()).enforced
    assert not verdict(Circumstances(without_keys=("openai",))).enforced
    assert not verdict(Circumstances(own_keys=("OPENAI_API_KEY",))).enforced
    assert not verdict(Circumstances(direct_keys_allowed=True)).enforced
    assert verdict(Circumstances(without_keys=("openai",), reachable=())).enforced
    judged = verdict(Circumstances(own_keys=("OPENAI_API_KEY",), reachable=("api.openai.com",)))
    assert not judged.enforced and "api.openai.com can be reached directly" in judged.text


def test_a_virtual_key_in_a_key_variable_is_no_real_key() -> None:
    assert own_provider_keys({"OPENAI_API_KEY": "sk-bf-1", "GEMINI_API_KEY": "AIza", "OTHER": "x"}) == ("GEMINI_API_KEY",)


def test_the_program_itself_from_another_directory(app_dir: Path, tmp_path: Path) -> None:
    """Directories named like our packages where the user stands must not get in the way."""
    for name in ("addons", "store"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_gateway.py"), "status", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ, "TOLLGATE_APP_DIR": str(app_dir)},
    )  # fmt: skip
    assert done.returncode == 0 and json.loads(done.stdout)["running"] is False, done.stderr


def test_a_reader_that_goes_away_is_no_fault(app_dir: Path) -> None:
    program = f"{sys.executable} {ROOT / 'run_gateway.py'} --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and done.stdout.startswith("Usage")


def test_what_commands_do_by_themselves_is_in_the_audit_log(tollgate: Any, app_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's user is named; an environment that says otherwise is not believed."""
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setenv("LOGNAME", "mallory")
    monkeypatch.setenv("USER", "mallory")
    (app_dir / "admin.token").write_text("an-earlier-token-0123456789\n")
    assert tollgate("keys", "create", "robot").code == 0
    assert tollgate("admin-token", "--rotate").code == 0
    with closing(SqliteDatabase.open(app_dir / "config.db", clock=SystemClock())) as database, database.read() as connection:
        rows = connection.execute("SELECT actor, method, address, action, kind FROM audit ORDER BY sequence DESC LIMIT 2")
    assert rows == [(user, "command line", "", "rotate", "admin_token"), (user, "command line", "", "create", "virtual_key")]


def test_the_help_of_a_group_tells_each_command_to_the_end_of_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("keys",), ("budgets",), ("unconfirmed",), ("store",), ("encryption",), ("teams",)):
        assert run(run_gateway.cli, [*words, "--help"]) == 0
        listed = capsys.readouterr().out.partition("Commands:\n")[2]
        assert listed and "..." not in listed, words
