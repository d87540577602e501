"""An import into a running gateway: its workers follow within a second, what was spent stays, and its caps refuse."""

import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from store.config_store.export import toml_text
from tests.gateway.test_by_hand import World, world
from tests.support.waiting import eventually

__all__ = ["world"]
FRESH = "sk-bf-imported-000000000000000000000000000"


def exported(world: World) -> dict[str, Any]:
    code, out, err = world.run("export", "-")
    assert code == 0, err
    return tomllib.loads(out, parse_float=Decimal)


def test_a_running_gateway_follows_an_import(world: World, tmp_path: Path) -> None:
    file = tmp_path / "governance.toml"
    document = exported(world)
    document["governance"]["virtual_keys"].append(
        {
            "name": "imported",
            "value": FRESH,
            "provider_configs": [{"provider": "openai"}],
            "budgets": [{"name": "small", "max_limit": 1, "reset_duration": "1d"}],
        }
    )
    file.write_text(toml_text(document), encoding="utf-8")
    assert world.call(FRESH).status_code == 401
    assert world.run("import", str(file), "--yes")[0] == 0
    eventually(lambda: world.call(FRESH).status_code, lambda status: status == 200, 5)
    spent = eventually(lambda: world.gateway.spent_nanos(FRESH), lambda nanos: nanos > 0, 5)

    document = exported(world)
    key = next(key for key in document["governance"]["virtual_keys"] if key["name"] == "imported")
    key["budgets"][0]["max_limit"] = Decimal("0.000000001")
    file.write_text(toml_text(document), encoding="utf-8")
    code, out, err = world.run("import", str(file), "--yes")
    assert code == 0 and "budgets[small].max_limit: $1.00 -> $0.000000001" in out and "is used already" in out, err
    eventually(lambda: world.call(FRESH).status_code, lambda status: status == 402, 5)
    assert world.gateway.spent_nanos(FRESH) >= spent
    assert world.verified()

    document["governance"]["virtual_keys"].remove(key)
    file.write_text(toml_text(document), encoding="utf-8")
    code, out, _ = world.run("import", str(file), "--yes", "--prune")
    assert code == 0 and "- virtual key imported" in out
    eventually(lambda: world.call(FRESH).status_code, lambda status: status == 401, 5)
    assert world.verified()


@pytest.mark.parametrize("form", ["toml", "json"])
def test_a_pipe_from_one_command_to_the_other_changes_nothing(world: World, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"all.{form}"
    assert world.run("export", str(file), "--secrets")[0] == 0
    code, out, _ = world.run("import", str(file), "--prune", "--json")
    assert code == 0 and json.loads(out)["changes"] == []
