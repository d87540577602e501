"""The configuration that a gateway runs with: its very text goes to every child, and what only a restart changes stays."""

import json
from pathlib import Path
from typing import Any

import pytest

from addons.process import accepted
from addons.process.accepted import Accepted, accept_anew, read_accepted, with_fixed
from store.errors import SettingsError
from store.settings import settings_from

ENVIRON = {"KEY": "sk-provider-1"}


def written(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_a_child_gets_the_same_settings_whatever_the_file_says_by_then(tmp_path: Path) -> None:
    text = '{"gateway": {"min_output_tokens": 77}, "providers": {"openai": {"keys": [{"name": "a", "value": "env.KEY"}]}}}'
    path = written(tmp_path / "config.json", text)
    found = read_accepted(path, ENVIRON)
    path.write_text("no longer JSON")
    there = Accepted.from_line(found.to_line(), ENVIRON)
    assert there.settings == found.settings and there.settings.gateway.min_output_tokens == 77
    assert (there.document, there.source, there.from_file) == (text, str(path), True)
    assert found.to_line().count(b"\n") == 1


def test_amounts_stay_exact_on_the_way(tmp_path: Path) -> None:
    text = (
        '{"governance": {"virtual_keys": [{"name": "a", "budgets": [{"max_limit": 9007199.254740993, "reset_duration": "1h"}]}]}}'
    )
    found = read_accepted(written(tmp_path / "config.json", text), ENVIRON)
    there = Accepted.from_line(found.to_line(), ENVIRON)
    (one,), (other,) = found.settings.governance.virtual_keys, there.settings.governance.virtual_keys
    assert one.budgets[0].max_limit == other.budgets[0].max_limit
    assert "9007199.254740993" in str(other.budgets[0]) or "9007199254740993" in str(other.budgets[0])


def test_no_file_means_the_defaults() -> None:
    found = read_accepted(None, {})
    assert not found.from_file
    assert Accepted.from_line(found.to_line(), {}).settings == settings_from({}, {}, source="config.json")
    assert accept_anew(None, found, {}) == (found, [])


def test_secrets_are_looked_up_in_the_childs_environment_and_not_shown(tmp_path: Path) -> None:
    path = written(tmp_path / "config.json", {"encryption_key": "a passphrase of some length"})
    found = read_accepted(path, {})
    assert "passphrase" not in repr(found)
    missing = {"governance": {"virtual_keys": [{"name": "a", "value": "env.VIRTUAL"}]}}
    found = read_accepted(written(path, missing), {"VIRTUAL": "sk-bf-0001-0002-0003-0004"})
    assert b"sk-bf-" not in found.to_line()
    assert Accepted.from_line(found.to_line(), {"VIRTUAL": "sk-bf-another"}).settings.environ == {"VIRTUAL": "sk-bf-another"}


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"gateway": {"min_output_tokens": 5}}')
    found = read_accepted(path, {})
    assert Accepted.from_line(found.to_line(), {}).settings.gateway.min_output_tokens == 5


@pytest.mark.parametrize(
    "content,wanted",
    [
        ('{\n  "gateway": oops}', "line 2, column 14"),
        ('{"gatway": {}}', "did you mean 'gateway'?"),
        ('{"gateway": {"limits": {"max_body_mb": 0}}}', "gateway.limits.max_body_mb"),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, content: str, wanted: str) -> None:
    path = written(tmp_path / "config.json", content)
    with pytest.raises(SettingsError) as caught:
        read_accepted(path, {})
    assert wanted in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "config.json", {"gateway": {"min_output_tokens": 1}})
    original, turns = accepted.load_settings, iter([2, 3])

    def meddle(*arguments: Any) -> Any:
        number = next(turns, None)
        if number is not None:
            written(path, {"gateway": {"min_output_tokens": number}})
        return original(*arguments)

    monkeypatch.setattr(accepted, "load_settings", meddle)
    found = read_accepted(path, {})
    assert found.settings.gateway.min_output_tokens == 3 and '"min_output_tokens": 3' in found.document


def test_a_file_that_never_stands_still_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "config.json", {})
    original, count = accepted.load_settings, iter(range(1, 99))

    def meddle(*arguments: Any) -> Any:
        written(path, {"gateway": {"min_output_tokens": next(count)}})
        return original(*arguments)

    monkeypatch.setattr(accepted, "load_settings", meddle)
    with pytest.raises(SettingsError, match="keeps changing"):
        read_accepted(path, {})


# -- what only a restart changes

FIRST = {
    "config_store": {"enabled": True, "type": "sqlite", "config": {"path": "one.db"}},
    "gateway": {"listeners": [{"port": 9001, "virtual_key": "a"}], "min_output_tokens": 1},
}


def change(**sections: Any) -> dict[str, Any]:
    return {**FIRST, **sections}


@pytest.mark.parametrize(
    "document,named",
    [
        (FIRST, []),
        (change(client={"enable_logging": False}), []),
        (change(logs_store={"retention_days": 5}), []),
        (change(logs_store={"enabled": False}), []),
        (change(gateway={"listeners": [{"port": 9001, "virtual_key": "b"}]}), []),
        (change(config_store={"enabled": True, "type": "sqlite", "config": {"path": "two.db"}}), ["config_store"]),
        (change(config_store={"enabled": False}), ["config_store"]),
        (change(ledger_store={"type": "sqlite", "config": {"path": "other.db"}}), ["ledger_store"]),
        (change(logs_store={"type": "sqlite", "config": {"path": "two.db"}}), ["logs_store"]),
        (change(gateway={"listeners": [{"port": 9002, "virtual_key": "a"}]}), ["gateway.listeners"]),
        (change(gateway={}), ["gateway.listeners"]),
        ({}, ["config_store", "gateway.listeners"]),
    ],
)
def test_places_and_ports_are_left_and_named(document: dict[str, Any], named: list[str]) -> None:
    first = settings_from(FIRST, {}, source="config.json")
    new = settings_from(document, ENVIRON, source="config.json")
    kept, found = with_fixed(new, first)
    assert found == named
    assert kept.config_store == first.config_store and kept.ledger_store == first.ledger_store
    assert (kept.logs_store.type, kept.logs_store.config) == (first.logs_store.type, first.logs_store.config)
    assert {listener.port for listener in kept.gateway.listeners} == {9001}
    # Everything else is as the new file says.
    assert kept.client == new.client and kept.logs_store.retention_days == new.logs_store.retention_days
    assert kept.gateway.min_output_tokens == new.gateway.min_output_tokens
    assert kept.environ == ENVIRON and kept.warnings == new.warnings


def test_children_of_a_reload_leave_the_same_things(tmp_path: Path) -> None:
    path = written(tmp_path / "config.json", FIRST)
    first = read_accepted(path, {})
    written(path, change(gateway={"min_output_tokens": 9}))
    again, named = accept_anew(path, first, {})
    assert named == ["gateway.listeners"]
    there = Accepted.from_line(again.to_line(), {})
    assert there.settings == again.settings
    assert [listener.port for listener in there.settings.gateway.listeners] == [9001]
    assert there.settings.gateway.min_output_tokens == 9
    # Back to what it was: nothing is left any more, whatever the reload before said.
    written(path, FIRST)
    assert accept_anew(path, first, {})[1] == []


def test_a_file_that_comes_later_is_taken_and_its_places_are_left(tmp_path: Path) -> None:
    first = read_accepted(None, {})
    path = written(tmp_path / "config.json", FIRST)
    again, named = accept_anew(path, first, {})
    assert named == ["config_store", "gateway.listeners"] and again.from_file
    assert Accepted.from_line(again.to_line(), {}).settings.gateway.listeners == ()
