"""`tollgate export` and `import` by hand, in a real app directory without a gateway."""

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from addons.process.import_text import value_text
from tests.addons.process.test_budgets_command import Shop, shop

__all__ = ["shop"]


def edited(text: str, before: str, after: str) -> str:
    assert text.count(before) == 1
    return text.replace(before, after)


def test_there_and_back(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "governance.toml"
    assert shop("export", str(file)) == (0, "", f"tollgate: wrote {file}\n")
    text = file.read_text()
    assert shop("export", "-")[1] == text
    code, out, _ = shop("import", str(file))
    assert (code, out) == (0, f"{file}: nothing to change; 1 stay as they are\n")
    file.write_text(edited(text, "max_limit = 2\n", "max_limit = 25\n"))
    code, out, err = shop("import", str(file))
    assert code == 2 and "add --yes" in err
    assert out.splitlines() == [
        "~ virtual key default",
        "    budgets[day].max_limit: $2.00 -> $25.00",
        "",
        f"{file}: 1 to change; 0 stay as they are",
        "warning: the budget 'day' of virtual key 'default' is raised from $2.00 to $25.00, 12 times as much: did you mean that?",
    ]
    assert shop.budget()["max_limit"] == 2
    assert shop("import", str(file), "--dry-run")[0] == 0 and shop.budget()["max_limit"] == 2
    code, _, err = shop("import", str(file), "--yes", "--reason", "more")
    assert (code, err) == (0, f"tollgate: applied {file}: 1 to change\n") and shop.budget()["max_limit"] == 25


def test_json_by_the_ending_and_new_keys_print_their_values(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "governance.json"
    assert shop("export", str(file))[0] == 0
    document: Any = json.loads(file.read_text())
    document["governance"]["virtual_keys"].append({"name": "robot", "provider_configs": [{"provider": "openai"}]})
    file.write_text(json.dumps(document))
    code, out, err = shop("import", str(file), "--yes")
    name, value = out.splitlines()[-1].split("\t")
    assert code == 0 and name == "robot" and value.startswith("sk-bf-") and "may be the only time" in err
    code, out, _ = shop("import", str(file), "--prune", "--json", "--dry-run")
    assert json.loads(out)["changes"] == []


def test_a_file_with_secrets_is_for_its_owner_alone(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "backup.toml"
    code, _, err = shop("export", str(file), "--secrets")
    assert code == 0 and "secrets" in err
    (key,) = tomllib.loads(file.read_text())["governance"]["virtual_keys"]
    assert len(key["value"]) > 30
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key["value"] not in shop("export", "-")[1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.toml", "[governance\n", "x.toml: is not valid TOML: "),
        ("x.json", '{"a": 1, "a": 2}', "x.json: is not valid JSON: the key 'a' stands twice in one object"),
        ("x.json", "[]", "x.json: must be a JSON object"),
        ("x.toml", "[governance]\nteam = []\n", "x.toml: governance.team: unknown key; did you mean 'teams'?"),
        (
            "x.toml",
            "[[governance.teams]]\nname = 2026-01-01\nbudgets = [{ max_limit = nan }]\n",
            "x.toml: NaN is not a number here",
        ),
        ("x.yaml", "", "end its name in .toml or .json"),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(shop: Shop, tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    code, out, err = shop("import", str(tmp_path / name), "--yes")
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_files_that_are_not_there(shop: Shop, tmp_path: Path) -> None:
    assert shop("import", str(tmp_path / "none.toml"))[0] == 2
    code, _, err = shop("export", str(tmp_path / "none" / "x.toml"))
    assert code == 2 and "cannot be written: No such file or directory" in err


def test_values_are_told_as_people_say_them() -> None:
    assert value_text("budgets[day].max_limit", 3) == "$3.00"
    assert value_text("rate_limit.token_max_limit", 3) == "3"
    assert value_text("budgets[day]", {"id": "b", "max_limit": 3, "reset_duration": "1d"}) == "$3.00 per 1d"
    assert value_text("budgets[day]", None) == "(none)" and value_text("description", None) == "(default)"
    assert value_text("is_active", False) == "no"
    assert value_text("key_ids", ["a", "b"]) == "['a', 'b']"
