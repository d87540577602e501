"""Where children begin: the role runs with the collector at rest, and it looks again once the role says so."""

import gc
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

ROLE = """
import gc
from addons.process.role import collect_again
print("at rest" if not gc.isenabled() else "collecting", flush=True)
def main():
    print("at rest" if not gc.isenabled() else "collecting")
    before = gc.get_freeze_count()
    collect_again(5000, 7, 9)
    print(gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > before)
"""


def begun(folder: Path, role: str) -> subprocess.CompletedProcess[str]:
    """A child with that role, which stands in `folder` and takes the place of the real ones."""
    program = (
        f"import sys, addons.process; addons.process.__path__.append({str(folder)!r})\n"
        f"sys.argv[1:] = [{role!r}]\nfrom addons.process.role import main\nmain()"
    )
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_a_role_is_imported_and_run_with_the_collector_at_rest_until_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(ROLE)
    done = begun(tmp_path, "stand_in")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["at rest", "at rest", "True 5000 True"]


def test_here_it_was_never_at_rest() -> None:
    assert gc.isenabled()


def test_a_role_that_is_none_ends_at_once(tmp_path: Path) -> None:
    done = begun(tmp_path, "nobody")
    assert done.returncode != 0 and "No module named 'addons.process.nobody'" in done.stderr
