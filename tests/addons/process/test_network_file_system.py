"""An app directory on a network file system: every command that opens a store says so in one line and ends with 2."""

from pathlib import Path

import pytest

from addons.process.cli import run
from run_gateway import cli
from store import filesystem

SERVE = ("serve", "--port", "0", "--console-port", "0", "--no-inspect")


@pytest.mark.parametrize("words", [SERVE, ("budgets", "list"), ("keys", "list"), ("verify",)], ids=lambda words: words[0])
def test_one_line_names_postgresql(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.db").touch()
    mounts = f"20 1 0:19 / / rw - ext4 /dev/a rw\n21 20 0:20 / {tmp_path} rw - cifs //server/share rw\n"
    monkeypatch.setattr(filesystem, "_read_mountinfo", lambda: mounts)
    monkeypatch.setenv("TOLLGATE_APP_DIR", str(tmp_path))
    assert run(cli, words) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith("tollgate: ") and "network file system (cifs)" in err and "use PostgreSQL" in err
    assert (tmp_path / "config.db").stat().st_size == 0
