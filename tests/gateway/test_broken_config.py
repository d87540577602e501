"""A broken config.json: one line that names the place, exit code 2, and not a byte of the store is different."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.config import config_for
from tests.support.gateway import Gateway
from tests.support.processes import ROOT

GOOD = json.dumps(config_for("http://127.0.0.1:9", keys={}), indent=2)


def serve(gateway: Gateway) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_gateway.py"), "serve", "--app-dir", str(gateway.app_dir), "--port", "0",
               "--console-port", "0", "--no-inspect"]  # fmt: skip
    return subprocess.run(command, env=gateway.env(), capture_output=True, text=True, timeout=60, check=False)


def text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def too_large(path: Path) -> None:
    path.write_text('{"providers": {}, "$schema": "' + "x" * (50 * 2**20) + '"}')


def deeper(path: Path) -> None:
    path.write_text('{"governance": ' + "[" * 100_000 + "]" * 100_000 + "}")


def unknown_key(path: Path) -> None:
    path.write_text(GOOD.replace('"budgets"', '"budgetts"'))


BROKEN = {
    "no JSON": (text('{\n  "providers": {,}\n}'), "config.json: line 2, column 17: not valid JSON"),
    "cut off": (text(GOOD[:200]), "not valid JSON"),
    "empty": (text(""), "config.json: line 1, column 1: not valid JSON"),
    "no object": (text("[]"), "must be a JSON object"),
    "doubled key": (text('{\n "providers": {},\n "providers": {}}'), "line 3, column 2: the key 'providers' stands twice"),
    "NaN": (text('{"gateway": {"min_output_tokens": NaN}}'), "line 1, column 35: NaN is not a number in JSON"),
    "UTF-16": (text(GOOD.encode("utf-16")), "config.json: line 1, column 1: is not UTF-8 text"),
    "bad byte": (text(b'{\n "\xff": 1}'), "config.json: line 2, column 3: is not UTF-8 text"),
    "50 MB": (too_large, "has more than 32 MiB"),
    "deep": (deeper, "is nested too deeply"),
    "a directory": (a_directory, "config.json: cannot be read (Is a directory)"),
    "unknown key": (unknown_key, "governance.virtual_keys[0].budgetts: unknown key; did you mean 'budgets'?"),
    "wrong value": (text('{"gateway": {"listeners": [{"port": 99999, "virtual_key": "a"}]}}'), "gateway.listeners[0].port: must"),
    "variable": (text('{"encryption_key": "env.NOT_SET"}'), "encryption_key: the environment variable NOT_SET"),
    "secret file": (text('{"encryption_key": "file:none"}'), "encryption_key: the file "),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """A gateway that has run once and was stopped."""
    made = Gateway(tmp_path_factory.mktemp("broken"), json.loads(GOOD))
    made.start()
    made.terminate()
    return made


@pytest.mark.parametrize("name", BROKEN)
def test_one_line_exit_code_2_and_the_store_untouched(gateway: Gateway, name: str) -> None:
    path = gateway.app_dir / "config.json"
    breaks, said = BROKEN[name]
    files = [gateway.app_dir / "config.db", gateway.app_dir / "logs.db"]
    before = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    breaks(path)
    try:
        done = serve(gateway)
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_text(GOOD)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("tollgate: "), done.stderr
    assert said in done.stderr and len(done.stderr) < 500
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(gateway: Gateway) -> None:
    path = gateway.app_dir / "config.json"
    path.chmod(0)
    try:
        done = serve(gateway)
    finally:
        path.chmod(0o600)
    assert done.returncode == 2 and "cannot be read (Permission denied)" in done.stderr


def test_a_byte_order_mark_is_no_fault(gateway: Gateway) -> None:
    path = gateway.app_dir / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    gateway.restart()
    assert gateway.terminate() == 0
    path.write_text(GOOD)
