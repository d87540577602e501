"""`tollgate verify`: what differs is told so that a person finds it, mended on request, and the exit code says which it was."""

import json
from pathlib import Path
from typing import Any

import pytest

import run_gateway
from addons.process.cli import run
from store.sqlite import SqliteDatabase
from tests.store.ledger.till import Till, TillClock


@pytest.fixture
def till(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two calls of a budget named `day` that began on 2026-11-23 at 11:00."""
    clock = TillClock()
    database = SqliteDatabase.open(tmp_path / "config.db", clock=clock)
    database.migrate()
    made = Till(database, clock)
    made.cap("day", 10**9, "1d")
    made.spend("c1", "day", 250_000_000)
    made.hold("c2", "day", 100)
    monkeypatch.setenv("TOLLGATE_APP_DIR", str(tmp_path))
    yield made
    database.close()


def verify(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(run_gateway.cli, ["verify", *words])
    return code, capsys.readouterr().out


def damage(till: Till, sql: str) -> None:
    with till.database.write() as connection:
        connection.execute(sql)


def test_books_that_agree(till: Till, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(capsys) == (
        0,
        "the books agree: 1 postings of 2 calls, 1 still open, 1 other entries; all calls together cost $0.25\n"
        "the audit log is unbroken: 0 rows\n",
    )  # fmt: skip


def test_a_difference_names_budget_window_and_amounts_and_is_mended(till: Till, capsys: pytest.CaptureFixture[str]) -> None:
    damage(till, "UPDATE balances SET used = used + 5")
    line = "used of 'day' (day) in the window from 2026-11-23T11:00:00Z: the balance says $0.250000005, the rows say $0.25"
    code, out = verify(capsys)
    assert code == 1 and out.splitlines()[0].startswith("the books DIFFER in 1 place(s): ") and out.splitlines()[1] == f"  {line}"
    assert "--mend" in out.splitlines()[2]
    code, out = verify(capsys, "--json")
    assert code == 1
    assert json.loads(out)["differences"] == [
        {"what": "used", "cap_id": "day", "cap_name": "day", "unit": "usd", "window_start": "2026-11-23T11:00:00Z", "call_id": None,
         "kept": 250_000_005, "replayed": 250_000_000, "text": line}
    ]  # fmt: skip
    code, out = verify(capsys, "--mend")
    assert code == 1 and out.splitlines()[-2] == "mended from the rows"
    with till.database.read() as connection:
        (row,) = connection.execute("SELECT action, kind, method, details FROM audit")
    assert row == ("mend", "ledger", "command line", '{"differences":1}')
    assert verify(capsys)[0] == 0


def test_rows_that_contradict_one_another_are_not_called_mended(till: Till, capsys: pytest.CaptureFixture[str]) -> None:
    damage(till, "UPDATE posts SET cost_nanos = 1")
    code, out = verify(capsys, "--mend")
    assert code == 1 and "call c1: the row says $0.25, it should be $0.000000001" in out
    assert out.splitlines()[-2].startswith("rows that contradict one another cannot be mended")
    assert verify(capsys)[0] == 1


def test_open_holds_limits_and_raises_are_told_in_words(till: Till, capsys: pytest.CaptureFixture[str]) -> None:
    for sql in (
        "DELETE FROM open_holds",
        "UPDATE caps SET limit_amount = 5",
        "INSERT INTO raises (cap_id, amount, from_ms, until_ms, reason) VALUES ('day', 7, 1, 2, '')",
    ):
        damage(till, sql)
    out = verify(capsys)[1]
    assert "open hold: the list of open holds says settled, the rows say c2" in out
    assert "limit of 'day' (day): the cap says $0.000000005, the rows say $1.00" in out
    assert "raise of 'day' (day): the cap says $0.000000007, the rows say $0.00" in out


def test_many_differences_are_cut_short_for_people_only(till: Till, capsys: pytest.CaptureFixture[str]) -> None:
    with till.database.write() as connection:
        connection.executemany(
            "INSERT INTO balances (cap_id, window_start_ms, used, held, carried) VALUES ('day', ?, 1, 0, 0)",
            [(number,) for number in range(130)],
        )
    out = verify(capsys)[1]
    assert "and 30 more; --json has them all" in out and out.count("used of") == 100
    assert len(json.loads(verify(capsys, "--json")[1])["differences"]) == 130


def test_no_books_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TOLLGATE_APP_DIR", str(tmp_path / "nowhere"))
    assert verify(capsys)[0] == 2


def test_an_audit_log_that_was_tampered_with_is_told_of(till: Till, capsys: pytest.CaptureFixture[str]) -> None:
    damage(till, "UPDATE balances SET used = used + 5")
    verify(capsys, "--mend")
    code, out = verify(capsys)
    assert code == 0 and "the audit log is unbroken: 1 rows, the last one's digest is " in out
    damage(till, "DROP TRIGGER audit_never_changed")
    damage(till, "UPDATE audit SET actor = 'nobody'")
    code, out = verify(capsys)
    assert code == 1 and "the audit log was TAMPERED WITH: row 1 is not what was written" in out
    code, out = verify(capsys, "--json")
    found = json.loads(out)
    assert (code, found["clean"], found["audit_log"]["clean"], found["audit_log"]["rows"]) == (1, True, False, 0)
