"""`tollgate unconfirmed`: what a dead process left is listed, and a person's word settles it."""

import json
from pathlib import Path
from typing import Any

import pytest

import run_gateway
from addons.process.amounts import parse_cost
from addons.process.cli import run
from store.clock import SystemClock
from store.errors import UserError
from store.ledger.verify import verify
from store.sqlite import SqliteDatabase
from tests.store.ledger.till import Till

FIRST = "019abc00-0000-7000-8000-00000000000a"
SECOND = "019abc00-1111-7000-8000-00000000000b"


class Shop:
    """An app directory in which two calls were lost, and its command line."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.database = SqliteDatabase.open(directory / "config.db", clock=SystemClock())
        self.database.migrate()
        self.till = Till(self.database, SystemClock())  # type: ignore[arg-type]
        self.till.cap("day", 10**9, "1d")
        for call_id in (FIRST, SECOND):
            self.till.hold(call_id, "day", 50_000_000)
            self.till.lose(call_id)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = run(run_gateway.cli, ["unconfirmed", *words])
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    made = Shop(tmp_path, capsys)
    monkeypatch.setenv("TOLLGATE_APP_DIR", str(tmp_path))
    yield made
    assert verify(made.database, SystemClock()).clean
    made.database.close()


def test_list_and_correct(shop: Shop) -> None:
    code, out, _ = shop("list")
    assert code == 0 and out.splitlines()[0].split() == ["CALL", "HELD", "AT", "KEY", "MODEL", "CHARGED", "TOKENS", "WHY"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == [FIRST, SECOND] and out.count("$0.05") == 2
    assert [call["call_id"] for call in json.loads(shop("list", "--json")[1])] == [FIRST, SECOND]

    answer = shop("confirm", "019abc00-1", "--cost", "0.0123usd", "--tokens", "7", "--reason", "the dashboard")
    assert answer == (0, "", f"tollgate: the call {SECOND} is booked at $0.0123 in place of $0.05\n")
    assert shop.till.used("day") == 62_300_000
    code, out, err = shop("confirm", FIRST, "--reason", "as charged", "--json")
    assert (code, err) == (0, f"tollgate: the call {FIRST} is booked at $0.05\n")
    assert json.loads(out) == {"call_id": FIRST, "cost": 0.05, "tokens": 0, "posted": 0.05, "reason": "as charged"}
    assert shop("list") == (0, "no call is unconfirmed\n", "")


def test_the_end_of_an_id_will_do_and_nothing_is_an_amount(shop: Shop) -> None:
    assert shop("confirm", "000b", "--cost", "0", "--reason", "never billed")[0] == 0
    assert shop.till.used("day") == 50_000_000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("confirm", FIRST), "Missing option '--reason'"),
        (("confirm", FIRST, "--reason", " "), "must say why"),
        (("confirm", "", "--reason", "x"), "say which call"),
        (("confirm", "019abc00", "--reason", "x"), f"give more of one of {FIRST}, {SECOND}"),
        (("confirm", "ffff", "--reason", "x"), "no unconfirmed call begins or ends with 'ffff'"),
        (("confirm", "019abc00-2222-7000-8000-00000000000c", "--reason", "x"), "is not unconfirmed"),
        (("confirm", FIRST, "--cost", "cheap", "--reason", "x"), "not an amount of money"),
        (("confirm", FIRST, "--cost", "0.0000000001", "--reason", "x"), "nine decimals"),
        (("confirm", FIRST, "--tokens", "-1", "--reason", "x"), "--tokens"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(shop: Shop, words: tuple[str, ...], told: str) -> None:
    code, out, err = shop(*words)
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1
    assert shop.till.used("day") == 100_000_000


def test_what_was_confirmed_cannot_be_confirmed_again(shop: Shop) -> None:
    assert shop("confirm", FIRST, "--cost", "1c", "--reason", "x")[0] == 0
    code, _, err = shop("confirm", FIRST, "--cost", "2c", "--reason", "y")
    assert code == 2 and "confirmed or corrected before" in err
    assert shop.till.used("day") == 60_000_000


@pytest.mark.parametrize("text", ["0", "0usd", "$0", "0.00", "$0.0", " 0 USD "])
def test_a_cost_of_nothing(text: str) -> None:
    assert parse_cost(text) == 0


@pytest.mark.parametrize("text", ["", "$", "usd", ".", "0..0", "-0", "0x"])
def test_no_cost_at_all(text: str) -> None:
    with pytest.raises(UserError):
        parse_cost(text)
