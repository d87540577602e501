"""`tollgate keys` by hand: what is not named stays, values are shown once, and every answer can be had as JSON."""

import json
from decimal import Decimal
from typing import Any

from tests.addons.process.test_budgets_command import Shop, shop

__all__ = ["shop"]


def key(shop: Shop, name: str) -> Any:
    return json.loads(shop("keys", "show", name, "--json")[1], parse_float=Decimal)


def test_a_new_key_prints_its_value_alone(shop: Shop) -> None:
    code, out, err = shop("keys", "create", "robot", "--budget", "2usd/1h", "--provider", "openai", "--model", "gpt-4o")
    assert code == 0 and out.strip() == key(shop, "robot")["value"] and "made the virtual key robot" in err
    made = json.loads(shop("keys", "create", "other", "--json")[1])
    assert made["name"] == "other" and made["provider_configs"][0]["provider"] == "*"


def test_an_update_keeps_what_it_does_not_name(shop: Shop) -> None:
    shop("keys", "create", "robot", "--provider", "openai", "--provider", "anthropic", "--model", "gpt-4o")
    first = key(shop, "robot")["provider_configs"]
    assert shop("budgets", "create", "day", "--limit", "1usd/1d", "--key", "robot")[0] == 0
    assert shop("keys", "update", "robot", "--allow-model", "o3", "--description", "new")[0] == 0
    second = key(shop, "robot")
    assert [config["id"] for config in second["provider_configs"]] == [config["id"] for config in first]
    assert [config["allowed_models"] for config in second["provider_configs"]] == [["gpt-4o", "o3"]] * 2
    assert len(second["budgets"]) == 1 and second["description"] == "new"
    assert shop("keys", "update", "robot", "--provider", "openai")[0] == 0
    (left,) = key(shop, "robot")["provider_configs"]
    assert (left["id"], left["allowed_models"]) == (first[0]["id"], ["gpt-4o", "o3"])
    assert shop("keys", "update", "robot", "--model", "x", "--allow-model", "y")[0] == 2
    assert shop("keys", "update", "robot")[0] == 2


def test_off_and_on_and_what_show_says(shop: Shop) -> None:
    shop("teams", "create", "Research", "--budget", "10usd/1d")
    shop("keys", "create", "robot", "--budget", "0.50usd/1h", "--team", "Research", "--provider", "openai")
    assert json.loads(shop("keys", "disable", "robot", "--json")[1])["is_active"] is False
    shown = shop("keys", "show", "robot")[1]
    for line in (
        "name      robot",
        "state     disabled",
        "team      Research",
        "budget    $0.00 of $0.50 per 1h",
        "provider  openai: any",
    ):
        assert line in shown
    assert "sk-bf-…" in shown and key(shop, "robot")["value"] not in shown
    assert shop("keys", "enable", "robot")[0] == 0 and "state     active" in shop("keys", "show", "robot")[1]
    assert shop("keys", "update", "robot", "--team", "")[0] == 0 and key(shop, "robot")["team"] is None
    code, _, err = shop("keys", "show", "robto")
    assert code == 2 and "did you mean 'robot'?" in err


def test_rotation(shop: Shop) -> None:
    old = key(shop, "default")["value"]
    code, out, err = shop("keys", "rotate", "default", "--overlap", "24h")
    assert code == 0 and out.strip() == key(shop, "default")["value"] != old and "the old one works until" in err
    assert "earlier value" in shop("keys", "show", "default")[1]
    assert shop("keys", "rotate", "default", "--end-overlap")[0] == 0
