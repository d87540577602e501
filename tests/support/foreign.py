"""Programs nobody here wrote: the aimock mock provider and Claude Code, from npm at pinned versions.

They are installed once into a cache directory (`TOLLGATE_FOREIGN_DIR`, by default under the user's cache). A machine without
Node skips the tests that need them, unless `TOLLGATE_REQUIRE_FOREIGN` is set, as it is in CI: then they fail.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from tests.support.processes import ROOT, Child

_MANIFEST = ROOT / "tests" / "gateway" / "package.json"
_LOCK = ROOT / "tests" / "gateway" / "package-lock.json"
_AIMOCK_LISTENING = re.compile(r"listening on (http://\S+)")
ANSWER = "Hello from a mock that somebody else wrote."
INPUT_TOKENS = 1_234
OUTPUT_TOKENS = 56


def foreign_programs() -> Path:
    """The `node_modules` directory with the pinned programs, installed when missing. Skips or fails the test without Node."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not found; install Node.js 20 or newer to run the tests with foreign programs"
        if os.environ.get("TOLLGATE_REQUIRE_FOREIGN"):
            pytest.fail(f"TOLLGATE_REQUIRE_FOREIGN is set, but {reason}", pytrace=False)
        pytest.skip(reason)
    home = _cache_dir() / hashlib.sha256(_MANIFEST.read_bytes() + _LOCK.read_bytes()).hexdigest()[:16]
    if not home.exists():
        _install(home)
    return home / "node_modules"


def claude_command() -> Path:
    """Claude Code's executable."""
    return foreign_programs() / ".bin" / "claude"


def _cache_dir() -> Path:
    chosen = os.environ.get("TOLLGATE_FOREIGN_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollgate-foreign"


def _install(home: Path) -> None:
    """Install beside the final place and rename, so that sessions at the same time never see half an installation."""
    home.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=home.parent, prefix="making-"))
    try:
        for file in (_MANIFEST, _LOCK):
            shutil.copy(file, making)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], making)
        # The one install script that is needed, run by name: it puts the program for this platform in its place.
        _run(["node", "install.cjs"], making / "node_modules" / "@anthropic-ai" / "claude-code")
        making.rename(home)
    except OSError:
        if not home.exists():  # otherwise another session was quicker
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")


class Aimock:
    """`with Aimock(tmp_path) as mock:` — the aimock server on a free port, answering everything with `ANSWER` and fixed usage."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self._fixtures = folder / "aimock-fixtures.json"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        programs = foreign_programs()
        self._fixtures.parent.mkdir(parents=True, exist_ok=True)
        self._fixtures.write_text(json.dumps(_fixtures()), encoding="utf-8")
        script = programs / "@copilotkit" / "aimock" / "dist" / "cli.js"
        self._child = Child(["node", str(script), "-p", "0", "-h", "127.0.0.1", "-f", str(self._fixtures)])
        try:
            line = self._child.wait_for_line(lambda text: "listening on" in text, 30)
        except BaseException:
            self._child.kill9()
            raise
        found = _AIMOCK_LISTENING.search(line)
        if found is None:
            raise RuntimeError(f"aimock printed {line!r}")
        self.url = found[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._child is not None:
            self._child.kill9()

    def journal(self) -> list[dict[str, Any]]:
        """The requests it got, oldest first, as aimock itself recorded them."""
        answer = httpx.get(f"{self.url}/__aimock/journal", trust_env=False, timeout=30)
        answer.raise_for_status()
        body = answer.json()
        entries: list[dict[str, Any]] = body if isinstance(body, list) else body["entries"]
        return entries


def _fixtures() -> dict[str, Any]:
    total = INPUT_TOKENS + OUTPUT_TOKENS
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": total,
        "input_tokens": INPUT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "promptTokenCount": INPUT_TOKENS,
        "candidatesTokenCount": OUTPUT_TOKENS,
        "totalTokenCount": total,
    }
    return {
        "fixtures": [
            {"match": {"endpoint": "embedding"}, "response": {"embedding": [0.25, -0.5, 0.125]}},
            {"match": {}, "response": {"content": ANSWER, "usage": usage}},
        ]
    }
