"""The house rules that a machine can keep: who imports whom, no asserts for validation, settings documented, files mirrored."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.settings import load_settings, schema_text

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("addons/**/*.py"), *ROOT.glob("store/**/*.py"), ROOT / "run_gateway.py"])
STDLIB_AND = {"store.usage", "orjson", "brotli", "zstandard"}
LONGEST_FILE = 500
STEP_FRIENDS = (
    "addons.call", "addons.headers", "addons.outcomes", "addons.patterns", "addons.policy", "addons.providers", "addons.refusal",
    "addons.refuse", "addons.services", "store", "mitmproxy",
)  # fmt: skip
PRIVATE_MITMPROXY = re.compile(
    r"mitmproxy\.(addonmanager|proxy\.(layer|layers|tunnel|server|mode_servers|context|events|commands|utils))(\.|$)"
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports at run time or for types."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(path: Path, folder: str) -> bool:
    return relative(path).startswith(folder)


@pytest.mark.parametrize("path", [p for p in SOURCES if under(p, "store/")], ids=relative)
def test_store_knows_nothing_of_the_wire(path: Path) -> None:
    """store imports no addons, mitmproxy or tornado."""
    wrong = [name for name in imports(path) if name.split(".")[0] in ("addons", "mitmproxy", "tornado")]
    assert wrong == []


@pytest.mark.parametrize("path", [p for p in SOURCES if under(p, "addons/")], ids=relative)
def test_peewee_stays_in_the_store(path: Path) -> None:
    """Nobody outside the store imports peewee or apsw."""
    assert [name for name in imports(path) if name.split(".")[0] in ("peewee", "playhouse", "apsw")] == []


@pytest.mark.parametrize("path", [p for p in SOURCES if under(p, "addons/providers/")], ids=relative)
def test_dialects_are_pure(path: Path) -> None:
    """Dialects import the standard library, store.usage, a JSON parser, decoders and each other; no async, no clock."""
    import sys

    wrong = [
        name
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not name.startswith("addons.providers")
        and not any(name == allowed or name.startswith(allowed + ".") for allowed in STDLIB_AND)
    ]
    assert wrong == []
    assert [name for name in imports(path) if name.split(".")[0] in ("asyncio", "time", "socket", "random", "threading")] == []
    assert "async def" not in path.read_text()


@pytest.mark.parametrize("path", [p for p in SOURCES if under(p, "addons/steps/")], ids=relative)
def test_steps_do_not_know_one_another(path: Path) -> None:
    """A step imports the call, refusals, dialects and the store; of other steps only what they have learnt."""
    own = [name for name in imports(path) if name.split(".")[0] in ("addons", "store")]
    wrong = [name for name in own if not name.startswith(STEP_FRIENDS) and not name.startswith("addons.steps.learned")]
    assert wrong == []


@pytest.mark.parametrize("path", [p for p in SOURCES if under(p, "addons/") and not under(p, "addons/proxy/")], ids=relative)
def test_only_the_proxy_package_uses_the_inside_of_mitmproxy(path: Path) -> None:
    """Everything else uses mitmproxy's public modules; the console's inspector uses its web tool."""
    assert [name for name in imports(path) if PRIVATE_MITMPROXY.match(name)] == []


THE_ADDON = [p for p in SOURCES if not relative(p).startswith(("addons/console/", "addons/process/"))]


@pytest.mark.parametrize("path", THE_ADDON, ids=relative)
def test_the_addon_does_not_depend_on_console_or_process(path: Path) -> None:
    """Console and processes stand around the addon, not under it."""
    if relative(path) == "run_gateway.py":
        return
    assert [name for name in imports(path) if name.startswith(("addons.console", "addons.process"))] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_asserts_in_the_product(path: Path) -> None:
    """Everything must also hold under python -O."""
    assert [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())) is not None


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_have_one_concern(path: Path) -> None:
    """A file that grows past this has a second concern in it."""
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_time_and_chance_are_handed_in() -> None:
    """Nobody but store/clock.py and the edges of the process asks the machine for the time of day or for a random number."""
    banned = re.compile(r"\b(time\.time\(|time\.time_ns\(|datetime\.now\(|uuid\.uuid\d\(|random\.random\()")
    edges = ("store/clock.py", "addons/process/", "addons/pretend/", "run_gateway.py")
    wrong = [relative(p) for p in SOURCES if not relative(p).startswith(edges) and banned.search(p.read_text())]
    assert wrong == []


def test_example_config_loads() -> None:
    """config.json.example is a valid configuration that names its schema."""
    path = ROOT / "config.json.example"
    load_settings(path, {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x", "GEMINI_API_KEY": "x"})
    assert "$schema" in json.loads(path.read_text())


def test_schema_is_current() -> None:
    """store/config.schema.json is what `python -m store.settings` writes."""
    assert schema_text() == (ROOT / "store" / "config.schema.json").read_text()


def test_every_gateway_setting_is_documented() -> None:
    """docs/configuration.md names every key of our own section."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    schema = json.loads(schema_text())
    names = set(schema["$defs"]["Gateway"]["properties"])
    for part in ("Forward", "Limits", "Inspect"):
        names |= set(schema["$defs"][part]["properties"])
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_no_machine_paths() -> None:
    """Nothing tells on whose machine it was written."""
    texts = [p for pattern in ("**/*.py", "**/*.md", ".ci/*", "*.toml") for p in ROOT.glob(pattern) if ".venv" not in p.parts]
    needle = "/" + "work" + "/"
    wrong = [relative(p) for p in texts if "node_modules" not in p.parts and p.is_file() and needle in p.read_text()]
    assert wrong == []
