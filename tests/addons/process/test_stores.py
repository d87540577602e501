"""Which configuration file, and so which stores, a command works on."""

from pathlib import Path

import pytest

from addons.process.stores import config_file, config_place_of, remember_config, served_config, settings_of
from store.errors import UserError


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A configuration outside the app directory, with a store of its own."""
    path = tmp_path / "elsewhere.json"
    path.write_text('{"config_store": {"config": {"path": "moved.db"}}}')
    return path


def test_commands_follow_the_file_of_the_last_gateway(tmp_path: Path, other: Path) -> None:
    app_dir = tmp_path / "app"
    app_dir.mkdir()
    assert config_file(app_dir) == app_dir / "config.json"
    remember_config(app_dir, other)
    assert config_place_of(app_dir, settings_of(app_dir)) == str(app_dir / "moved.db")
    remember_config(app_dir, None)
    assert config_place_of(app_dir, settings_of(app_dir)) == str(app_dir / "config.db")


def test_a_relative_path_holds_from_everywhere(tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(other.parent)
    remember_config(tmp_path, Path(other.name))
    monkeypatch.chdir("/")
    assert served_config(tmp_path) == other


def test_a_file_named_on_the_command_line_goes_first(tmp_path: Path, other: Path) -> None:
    remember_config(tmp_path, other)
    assert config_file(tmp_path, tmp_path / "given.json") == tmp_path / "given.json"


def test_other_stores_are_not_taken_for_those_of_a_file_that_is_gone(tmp_path: Path, other: Path) -> None:
    remember_config(tmp_path, other)
    other.unlink()
    with pytest.raises(UserError, match="was last served with --config .*elsewhere.json, which is not there any more"):
        settings_of(tmp_path)
