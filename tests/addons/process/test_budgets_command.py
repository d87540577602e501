"""`tollgate budgets` by hand: in a real app directory without a gateway, and on either engine's rows beneath."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import run_gateway
from addons.process.budgets_command import budgets
from addons.process.cli import run
from store.clock import Ids, SystemClock, iso_utc
from store.config_store.bootstrap import bootstrap
from store.ledger.verify import verify
from store.settings import settings_from
from store.sqlite import SqliteDatabase
from tests.store.ledger.till import Till


class Shop:
    """An app directory, its command line, and its books."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.capsys, self.clock = directory, capsys, SystemClock()

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = run(run_gateway.cli, words)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def budget(self, name: str = "day") -> Any:
        listed = json.loads(self("budgets", "list", "--json")[1], parse_float=Decimal)
        return next(budget for budget in listed if budget["name"] == name)

    def opened(self) -> SqliteDatabase:
        database = SqliteDatabase.open(self.directory / "config.db", clock=self.clock)
        database.migrate()
        return database

    def entries(self) -> list[Any]:
        database = self.opened()
        with database.read() as connection:
            rows = connection.execute(
                "SELECT kind, amount, reason FROM entries WHERE kind IN ('reset', 'topup', 'raise', 'unraise') ORDER BY sequence"
            )
        assert verify(database, self.clock).clean
        database.close()
        return rows


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shop:
    made = Shop(tmp_path, capsys)
    database = made.opened()
    bootstrap(database, settings_from({}, {}, source="test"), clock=made.clock, ids=Ids(made.clock))
    database.close()
    monkeypatch.setenv("TOLLGATE_APP_DIR", str(tmp_path))
    assert made("budgets", "create", "day", "--limit", "2usd/1d", "--key", "default")[0] == 0
    assert made("budgets", "create", "paid", "--limit", "10usd", "--key", "default")[0] == 0
    return made


def test_reset_topup_raise_and_unraise_leave_rows_with_their_reasons(shop: Shop) -> None:
    database = shop.opened()
    Till(database, shop.clock).spend("c", shop.budget()["id"], 500_000_000)  # type: ignore[arg-type]
    database.close()

    assert shop("budgets", "reset", "day", "--reason", "a new start") == (
        0, "", "tollgate: reset the budget day: $0.50 had been spent\n"
    )  # fmt: skip
    code, out, err = shop("budgets", "topup", "paid", "5usd", "--reason", "invoice 7", "--json")
    assert (code, err) == (0, "tollgate: added $5.00 to the budget paid: $15.00 of $15.00 left\n")
    assert json.loads(out)["resets_at"] is None
    code, out, err = shop("budgets", "raise", "day", "--by", "50c", "--for", "2h", "--reason", "a demo", "--json")
    raised = json.loads(out, parse_float=Decimal)
    assert (code, raised["effective_max_limit"], raised["override"]["amount"]) == (0, Decimal("2.5"), Decimal("0.5"))
    assert err == f"tollgate: raised the budget day to $2.50 until {raised['override']['until']}\n"
    assert ", raised for 1h 59min" in shop("budgets", "list")[1] and "$2.50" in shop("budgets", "list")[1]
    assert (
        shop("budgets", "unraise", "day", "--reason", "it was short")[2] == "tollgate: the limit of the budget day is $2.00 again\n"
    )
    assert shop.entries() == [
        ("reset", -500_000_000, "a new start"),
        ("topup", 5_000_000_000, "invoice 7"),
        ("raise", 500_000_000, "a demo"),
        ("unraise", -500_000_000, "it was short"),
    ]


def test_a_raise_to_an_amount_until_a_time_is_in_status(shop: Shop) -> None:
    until = iso_utc((shop.clock.now_ms() // 1000 + 7200) * 1000)
    assert shop("budgets", "raise", "day", "--to", "80usd", "--until", until)[0] == 0
    found = {budget["name"]: budget for budget in json.loads(shop("status", "--json")[1])["budgets"]}
    assert (found["day"]["limit_usd"], found["day"]["raised_usd"], found["day"]["raised_until"]) == ("80", "78", until)
    assert (found["paid"]["raised_usd"], found["paid"]["resets_at"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("raise", "day", "--for", "1h"), "say how much"),
        (("raise", "day", "--by", "1usd", "--to", "9usd", "--for", "1h"), "say how much"),
        (("raise", "day", "--by", "1usd"), "say how long"),
        (("raise", "day", "--by", "1usd", "--for", "1h", "--until", "2099-01-01T00:00:00Z"), "say how long"),
        (("raise", "day", "--by", "1usd", "--for", "a while"), "not a duration"),
        (("raise", "day", "--by", "1usd", "--until", "tomorrow"), "not a time"),
        (("raise", "day", "--by", "1usd", "--until", "2020-01-01T00:00:00Z"), "is over"),
        (("raise", "day", "--to", "1usd", "--for", "1h"), "that high already"),
        (("raise", "day", "--by", "0", "--for", "1h"), "nothing"),
        (("raise", "night", "--by", "1usd", "--for", "1h"), "there is no budget 'night'"),
        (("unraise", "day"), "'day' is not raised now"),
        (("topup", "day", "1usd/1h"), "a window has no meaning here"),
        (("topup", "paid", "-5"), "No such option"),
        (("reset",), "Missing argument"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(shop: Shop, words: tuple[str, ...], told: str) -> None:
    code, out, err = shop("budgets", *words)
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1
    assert shop.entries() == []


def test_an_ambiguous_name_lists_whom_it_could_mean(shop: Shop) -> None:
    shop("keys", "create", "robot")
    shop("budgets", "create", "day", "--limit", "1usd/1h", "--key", "robot")
    code, _, err = shop("budgets", "raise", "day", "--by", "1usd", "--for", "1h")
    ids = [budget["id"] for budget in json.loads(shop("budgets", "list", "--json")[1]) if budget["name"] == "day"]
    assert code == 2 and all(each in err for each in ids)
    assert "(virtual key default, every 1d)" in err and "(virtual key robot, every 1h)" in err
    assert shop("budgets", "raise", ids[0], "--by", "1usd", "--for", "1h")[0] == 0


def test_the_group_names_every_act() -> None:
    assert sorted(budgets.commands) == ["create", "delete", "list", "raise", "reset", "topup", "unraise", "update"]


def test_an_update_changes_what_it_names_and_keeps_what_was_spent(shop: Shop) -> None:
    database = shop.opened()
    Till(database, shop.clock).spend("c", shop.budget()["id"], 500_000_000)  # type: ignore[arg-type]
    database.close()
    code, _, err = shop("budgets", "update", "day", "--limit", "3usd", "--reason", "more work")
    assert (code, err) == (0, "tollgate: changed the budget day: $2.50 of $3.00 left\n")
    made = json.loads(
        shop("budgets", "update", "day", "--name", "hour", "--limit", "3usd/1h", "--enforcement", "soft", "--json")[1]
    )
    assert (made["name"], made["reset_duration"], made["enforcement"]) == ("hour", "1h", "soft")
    code, _, err = shop("budgets", "update", "hour")
    assert code == 2 and "nothing to change" in err


def test_a_budget_on_a_model_is_for_everybody_one_key_one_provider_or_both(shop: Shop) -> None:
    made = {
        "everybody": ("--model", "o3"),
        "there": ("--model", "o3", "--provider", "openai"),
        "mine": ("--model", "o3", "--key", "default"),
        "mine there": ("--model", "o3", "--key", "default", "--provider", "openai"),
    }
    for name, words in made.items():
        assert shop("budgets", "create", name, "--limit", "1usd/1d", *words)[0] == 0
    shown = {name: (shop.budget(name)["scope"], shop.budget(name)["scope_name"]) for name in made}
    assert shown == {
        "everybody": ("model", "o3"),
        "there": ("model", "o3 at openai"),
        "mine": ("virtual_key_model", "default on o3"),
        "mine there": ("virtual_key_model", "default on o3 at openai"),
    }
    assert "virtual key default on o3 at openai " in shop("budgets", "list")[1]
    # A second window joins the first one on the same calls; the same window twice is refused as everywhere.
    code, out, err = shop("budgets", "create", "mine hourly", "--limit", "20c/1h", "--model", "o3", "--key", "default", "--json")
    assert (code, err) == (0, "tollgate: made the budget mine hourly: $0.20 per 1h on model o3 of virtual key default\n")
    assert json.loads(out)["scope_id"] == shop.budget("mine")["scope_id"] != shop.budget("mine there")["scope_id"]
    code, _, err = shop("budgets", "create", "again", "--limit", "1usd/1d", "--model", "o3", "--key", "default")
    assert code == 2 and "'default on o3' already has the budget 'mine'" in err
    aligned = ("--limit", "1usd/1d", "--model", "o1", "--calendar", "--timezone", "Europe/Berlin", "--enforcement", "observe")
    assert shop("budgets", "create", "dawn", *aligned)[0] == 0
    dawn = shop.budget("dawn")
    assert (dawn["calendar_aligned"], dawn["timezone"], dawn["enforcement"]) == (True, "Europe/Berlin", "observe")


@pytest.mark.parametrize("words", [("--key", "default", "--provider", "openai"), ("--model", "o3", "--team", "t"), ()])
def test_whom_a_budget_binds_must_be_clear(shop: Shop, words: tuple[str, ...]) -> None:
    code, _, err = shop("budgets", "create", "x", "--limit", "1usd", *words)
    assert code == 2 and err.startswith("tollgate: a budget binds exactly one owner: give one of --key, --team, ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--model", "o3", "--provider", "opnai"), "did you mean 'openai'?"),
        (("--model", "o3", "--key", "defautl"), "did you mean 'default'?"),
    ],
)
def test_a_misspelt_target_of_a_model_budget_is_named(shop: Shop, words: tuple[str, ...], told: str) -> None:
    code, _, err = shop("budgets", "create", "x", "--limit", "1usd", *words)
    assert code == 2 and told in err
