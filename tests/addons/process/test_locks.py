"""Locks between processes: alone means alone, the last one out is told, and a dead holder holds nothing."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from addons.process.locks import Party, exclusive, process_exists

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shared locks are not to be had")


def test_exclusive_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, most = [], []

    def enter() -> None:
        with exclusive(tmp_path / "lock"):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.01)
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1] * 8


def test_only_the_last_to_leave_is_told(tmp_path: Path) -> None:
    first, second = Party(tmp_path / "lock"), Party(tmp_path / "lock")
    first.enter()
    second.enter()
    with first.leave() as last:
        assert last is False
    with second.leave() as last:
        assert last is True


def test_nobody_enters_while_the_light_is_turned_off(tmp_path: Path) -> None:
    leaving, coming = Party(tmp_path / "lock"), Party(tmp_path / "lock")
    entered = threading.Event()
    leaving.enter()

    def enter() -> None:
        coming.enter()
        entered.set()

    thread = threading.Thread(target=enter)
    with leaving.leave() as last:
        assert last is True
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(5)
    thread.join(5)
    with coming.leave() as last:
        assert last is True


def test_a_process_that_was_killed_is_in_no_longer(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from addons.process.locks import Party\n"
    script += "party = Party(Path(sys.argv[1])); party.enter(); print('in', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "in\n"
    party = Party(tmp_path / "lock")
    party.enter()
    other.kill()
    other.communicate(timeout=10)
    with party.leave() as last:
        assert last is True


def test_which_processes_exist() -> None:
    assert process_exists(os.getpid()) and process_exists(1)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(10)
    assert not process_exists(gone.pid)
    assert not process_exists(0) and not process_exists(-1)
