"""`tollgate teams` and `tollgate customers` by hand."""

import json

from tests.addons.process.test_budgets_command import Shop, shop

__all__ = ["shop"]


def test_a_customer_a_team_and_a_key(shop: Shop) -> None:
    assert shop("customers", "create", "Acme", "--budget", "100usd/1M")[0] == 0
    made = json.loads(shop("teams", "create", "Research", "--budget", "$5/1d", "--customer", "Acme", "--json")[1])
    assert made["customer"]["name"] == "Acme" and made["budgets"][0]["reset_duration"] == "1d"
    assert shop("keys", "create", "robot", "--team", "Research")[0] == 0
    assert shop("teams", "list")[1].splitlines()[1].split("  ")[:2] == ["Research", "$0.00 of $5.00 per 1d"]
    assert shop("customers", "list")[1].splitlines()[1].startswith("Acme  $0.00 of $100.00 per 1M")
    assert shop("teams", "update", "Research", "--name", "Lab", "--customer", "")[0] == 0
    (team,) = json.loads(shop("teams", "list", "--json")[1])
    assert (team["name"], team["customer"]) == ("Lab", None)
    code, _, err = shop("teams", "delete", "Lab")
    assert code == 2 and "add --yes" in err
    assert shop("teams", "delete", "Lab", "--yes")[0] == 0
    assert json.loads(shop("keys", "show", "robot", "--json")[1])["team"] is None


def test_what_is_wrong_is_one_line(shop: Shop) -> None:
    assert shop("teams", "list")[1] == "no teams yet: tollgate teams create NAME makes one\n"
    for words, said in (
        (
            ("teams", "create", "x", "--customer", "nobody"),
            "there is no customer 'nobody': tollgate customers list shows what there is",
        ),
        (("customers", "create", "x", "--customer", "y"), "No such option"),
        (("customers", "update", "x"), "there is no customer 'x'"),
    ):
        code, _, err = shop(*words)
        assert code == 2 and said.lower() in err.lower() and err.count("\n") == 1
