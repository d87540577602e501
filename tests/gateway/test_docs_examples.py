"""The commands and requests in the documents run as they are written, in their order, beside a running gateway."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.config import budget, config_for, virtual_key
from tests.support.gateway import Gateway
from tests.support.processes import ROOT
from tests.support.provider import PretendProcess

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_HERE = (
    "openapi-python-client",  # a program of others
    "unconfirmed confirm",  # needs a call whose process died
    "/full/path/new-key",  # needs a stopped gateway, see test_secrets_live.py
    "import governance.toml            ",  # asks on a terminal
    "--app-dir OTHER",  # a second gateway, see test_import.py
)

SECTIONS = [
    ("README.md", "budgets create"),
    ("docs/api.md", "/api/openapi.json"),
    ("docs/api.md", "TOKEN=$(cat"),
    ("docs/api.md", '"name": "week"'),
    ("docs/operations.md", "tollgate budgets list"),
    ("docs/operations.md", "tollgate customers create"),
    ("docs/operations.md", "tollgate verify"),
    ("docs/operations.md", "kill -HUP"),
    ("docs/export.md", "tollgate export governance.toml"),
    ("docs/export.md", "dry_run=true"),
    ("docs/prices.md", "pricing-overrides"),
    ("docs/secrets.md", "--overlap 24h"),
]


def block(document: str, words: str) -> str:
    """The first block of commands with these words."""
    text = (ROOT / document).read_text("utf-8")
    for found in _BLOCK.finditer(text):
        if words in found["text"] and found["language"] in ("", "sh"):
            return found["text"]
    raise AssertionError(f"{document} has no block of commands with {words!r} any more")


def commands(text: str) -> list[str]:
    """Its command lines, those that go on behind a backslash or inside quotes as one."""
    made: list[str] = []
    pending = ""
    for line in text.replace("\\\n", " ").splitlines():
        pending = f"{pending}\n{line}" if pending else line
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation that is still open
            continue
        if words and not any(word in pending for word in _NOT_HERE):
            made.append(pending)
        pending = ""
    assert not pending, f"an open quotation in {text!r}"
    return made


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, str]]]:
    """A gateway with the things that the documents speak of, and the surroundings of a shell beside it."""
    directory = tmp_path_factory.mktemp("docs")
    keys = [
        virtual_key("default", value="sk-bf-docs-default"),
        virtual_key("good", value="sk-bf-docs-good", budgets=[budget("5", name="workshop", reset="1h")]),
        virtual_key("ci", value="sk-bf-docs-ci", budgets=[budget("20", name="team-day", reset="1d")]),
    ]
    (directory / "bin").mkdir()
    program = directory / "bin" / "tollgate"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(ROOT / "run_gateway.py"))} "$@"\n')
    program.chmod(0o755)
    with PretendProcess() as provider, Gateway(directory / "app", config_for(provider.url, virtual_keys=keys)) as gateway:
        env = gateway.env() | {
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "TOLLGATE_APP_DIR": str(gateway.app_dir),
            "TOKEN": gateway.admin_token,
        }
        yield gateway, env


@pytest.mark.parametrize(("document", "words"), SECTIONS, ids=lambda text: text[:24])
def test_the_examples_run_as_they_are_written(shop: tuple[Gateway, dict[str, str]], document: str, words: str) -> None:
    gateway, env = shop
    wanted = commands(block(document, words))
    assert wanted
    for command in wanted:
        line = command.replace("http://127.0.0.1:8082", gateway.console_url).replace("~/.config/tollgate", str(gateway.app_dir))
        line = line.replace("uv run run_gateway.py", "tollgate")
        done = subprocess.run(
            ["sh", "-c", line], env=env, cwd=gateway.app_dir, capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{document}: {command}\n{done.stdout}{done.stderr}"
        if "curl" in command and done.stdout.strip():
            answer = json.loads(done.stdout)
            assert "error" not in answer, f"{document}: {command}\n{done.stdout}"


def test_every_block_that_is_run_is_found_and_every_request_of_the_documents_is_run() -> None:
    """A new request in the documents has to be put on the list above, or among what cannot run here."""
    run = {block(document, words) for document, words in SECTIONS}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for found in _BLOCK.finditer(path.read_text("utf-8")):
            text = found["text"]
            if "curl " in text and "/api/" in text and not text.lstrip().startswith("HTTP"):
                assert text in run, f"{path.name}: nobody runs\n{text}"


def test_the_documents_name_no_command_or_option_that_is_not_there() -> None:
    """Each `tollgate COMMAND …` of the blocks of commands is known, with its options."""
    import click

    import run_gateway

    def known(words: list[str]) -> str | None:
        command: click.Command = run_gateway.cli
        options: set[str] = {"--help", "-h", "--version", "--app-dir"}
        if words[0] == "--app-dir":
            words = words[2:]
        for word in words:
            if word in ("--", "|", ">", "&&"):
                return None
            if isinstance(command, click.Group) and not word.startswith("-"):
                inner = command.commands.get(word)
                if inner is None:
                    return f"no command {word}"
                command = inner
                options |= {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            elif word.startswith("--") and word.partition("=")[0] not in options:
                return f"no option {word}"
        return None

    wrong, seen = [], 0
    for path in [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for found in _BLOCK.finditer(path.read_text("utf-8")):
            if found["language"] not in ("", "sh"):
                continue
            for line in commands_or_none(found["text"]):
                for match in re.finditer(r"(?:^|[|(\"] ?)(?:tollgate|uv run (?:--project \S+ )?run_gateway\.py) (.*)$", line):
                    try:
                        words = shlex.split(match[1].rstrip(')"'), comments=True)
                    except ValueError:
                        words = match[1].split("#")[0].split()
                    seen += 1
                    if words and (fault := known(words)):
                        wrong.append(f"{path.name}: {line}: {fault}")
    assert wrong == []
    assert seen > 40, "the pattern finds the commands"
    assert known(["keys", "rotat"]) == "no command rotat" and known(["keys", "list", "--jsno"]) == "no option --jsno"


def commands_or_none(text: str) -> list[str]:
    """The lines of a block, a dollar sign in front taken off, joined at backslashes."""
    return [line.strip().removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines()]


def test_the_reader_of_blocks_can_fail(tmp_path: Path) -> None:
    assert commands('a "b\nc" d  # said\n\n# only words\ntollgate x \\\n  --y\n') == ['a "b\nc" d  # said', "tollgate x    --y"]
    with pytest.raises(AssertionError, match="no block of commands"):
        block("README.md", "these words stand nowhere in it")
