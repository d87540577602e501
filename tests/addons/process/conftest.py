"""Fixtures for tests that run a supervisor with stand-in children."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.addons.process.stage import SERVE, Stage


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA: making one takes longer than all the rest of a start."""
    from addons.process.ca import ensure_ca

    directory = tmp_path_factory.mktemp("prepared") / "ca"
    ensure_ca(directory)
    return directory


@pytest.fixture
def stage(tmp_path: Path, prepared: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, [])
    made.app_dir.mkdir()
    (made.app_dir / "ca").symlink_to(prepared)
    made.play("worker", SERVE)
    made.play("console", SERVE)
    yield made
    for group in (*made.groups, *(process.pid for process in made.running)):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for process in made.running:
        process.kill()
        process.wait(10)
