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


COVERED_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "addons/console/test_api.py": (
        "addons/console/api/budgets.py", "addons/console/api/groups.py",
        "addons/console/api/paging.py", "addons/console/api/providers.py", "addons/console/api/reading.py",
        "addons/console/api/runs.py", "addons/console/api/system.py", "addons/console/api/virtual_keys.py",
        "addons/console/handler.py", "store/config_store/json_text.py",
        "store/config_store/quota.py", "store/config_store/shapes.py",
    ),
    "addons/console/api/test_log_api.py": (
        "addons/console/api/log_answers.py", "addons/console/api/log_names.py", "addons/console/api/log_overview.py",
        "addons/console/api/log_query.py", "addons/console/api/log_stats.py", "addons/console/api/logs.py",
        "store/config_store/read_names.py", "store/logs/lost.py",
    ),
    "addons/console/api/test_explain.py": (
        "store/ledger/open_calls.py", "store/logs/exceeded.py", "store/logs/filling.py", "store/logs/merged.py",
    ),
    "addons/console/api/test_forecast_api.py": ("addons/console/api/forecast.py", "store/ledger/recent.py"),
    "store/logs/test_logs_reports.py": (
        "store/logs/collect.py", "store/logs/facets.py", "store/logs/filters.py", "store/logs/histograms.py",
        "store/logs/latencies.py", "store/logs/overview.py", "store/logs/periods.py", "store/logs/rankings.py",
        "store/logs/sums.py",
    ),
    "addons/console/test_routing_rules.py": ("addons/console/api/routing_rules.py",),
    "addons/steps/test_rules.py": ("addons/rule_faults.py",),
    "addons/test_candidates.py": ("addons/services.py",),
    "store/config_store/test_change_routing.py": (
        "store/config_store/routing_rules.py", "store/config_store/specs_routing.py",
    ),
    "addons/console/test_contract.py": ("store/config_store/read_groups.py", "store/config_store/read_spent.py"),
    "addons/console/test_live.py": ("addons/console/api/events.py", "store/markers.py"),
    "addons/console/test_openapi.py": ("addons/console/api/openapi.py",),
    "addons/console/test_overrides.py": ("addons/console/api/overrides.py", "store/config_store/change_spending.py"),
    "addons/console/test_unconfirmed.py": ("addons/console/api/unconfirmed.py",),
    "addons/console/api/test_audit_api.py": ("addons/console/api/audit.py", "store/config_store/audit_export.py"),
    "addons/console/api/test_prompts_api.py": ("addons/console/api/prompts.py",),
    "addons/console/test_sign_ins.py": ("store/config_store/sessions.py",),
    "store/config_store/test_audit.py": ("store/config_store/edits.py",),
    "store/config_store/test_prompts.py": ("store/config_store/read_prompts.py", "store/config_store/specs_prompts.py"),
    "store/config_store/test_client_config.py": ("store/config_store/change_client.py",),
    "addons/console/test_auth.py": (
        "addons/console/api/session.py", "addons/console/app.py", "addons/console/origin.py",
    ),
    "addons/console/test_inspect.py": (
        "addons/console/bounded_view.py", "addons/console/flows.py", "addons/console/history.py",
        "addons/console/inspect_style.py", "addons/console/inspect_web.py", "addons/console/replay.py",
        "addons/console/views.py",
    ),
    "addons/pretend/test_pretend_provider.py": (
        "addons/pretend/anthropic.py", "addons/pretend/bill.py", "addons/pretend/framing.py", "addons/pretend/gemini.py",
        "addons/pretend/openai.py", "addons/pretend/plan.py", "addons/pretend/routes.py", "addons/pretend/steering.py",
        "addons/pretend/wire.py",
    ),
    "addons/process/test_cli.py": (
        "addons/process/commands.py", "addons/process/common.py", "addons/process/doctor.py",
        "addons/process/enforcement.py", "addons/process/env_command.py", "addons/process/management.py",
        "addons/process/offline.py", "addons/process/status.py",
    ),
    "addons/process/test_budgets_command.py": ("addons/process/model_budget.py",),
    "addons/process/test_import_command.py": ("addons/process/export_command.py", "addons/process/import_text.py"),
    "addons/console/test_transfer.py": ("addons/console/api/transfer.py",),
    "store/config_store/test_import_plan.py": (
        "store/config_store/explicit.py", "store/config_store/import_document.py", "store/config_store/import_warnings.py",
        "store/config_store/rehearsal.py",
    ),
    "store/config_store/test_export.py": ("store/config_store/whole.py",),
    "addons/process/test_store_copying.py": ("addons/process/store_command.py",),
    "store/config_store/test_file_only.py": ("store/config_store/file_ledger.py",),
    "addons/process/test_exec.py": (
        "addons/process/admission.py", "addons/process/child.py", "addons/process/exec_command.py", "addons/process/launch.py",
        "addons/process/sharing.py",
    ),
    "addons/providers/test_readers.py": (
        "addons/providers/counters.py", "addons/providers/gemini_usage.py", "addons/providers/json_array_reader.py",
        "addons/providers/openai_usage.py",
    ),
    "addons/providers/test_recorded.py": ("addons/providers/anthropic_usage.py",),
    "addons/providers/test_registry.py": ("addons/providers/families.py",),
    "addons/providers/test_requests.py": (
        "addons/providers/anthropic.py", "addons/providers/body.py", "addons/providers/gemini.py",
        "addons/providers/gemini_media.py", "addons/providers/openai_request.py", "addons/providers/text.py",
    ),
    "addons/providers/test_sdk_agreement.py": (
        "addons/providers/openai_chat.py", "addons/providers/openai_embeddings.py", "addons/providers/openai_responses.py",
    ),
    "addons/steps/test_reserve.py": ("addons/refusal.py",),
    "addons/steps/test_route.py": ("addons/call.py",),
    "addons/test_inspector.py": ("addons/console/feed.py",),
    "gateway/test_stock_tools.py": ("addons/stock.py",),
    "store/config_store/test_bootstrap.py": (
        "store/config_store/file_checks.py", "store/config_store/file_plan.py", "store/config_store/meta.py",
        "store/config_store/read.py", "store/config_store/specs.py",
    ),
    "store/config_store/test_change.py": (
        "store/config_store/build.py", "store/config_store/change_caps.py", "store/config_store/change_groups.py",
        "store/config_store/change_keys.py", "store/config_store/change_providers.py", "store/config_store/change_runs.py",
        "store/config_store/make_caps.py", "store/config_store/rows.py", "store/config_store/store.py",
    ),
    "addons/console/api/test_models.py": ("addons/console/model_list.py", "addons/console/price_books.py"),
    "addons/console/api/test_api_recalculate.py": ("addons/console/recalculation.py",),
    "store/config_store/test_change_prices.py": (
        "store/config_store/price_overrides.py", "store/config_store/read_prices.py", "store/config_store/specs_prices.py",
    ),
    "addons/test_patterns.py": ("store/config_store/snapshot.py",),
    "store/config_store/test_change_models.py": (
        "store/config_store/model_owners.py", "store/config_store/read_models.py", "store/config_store/specs_models.py",
    ),
    "addons/console/api/test_governance_providers.py": ("store/config_store/change_provider_limits.py",),
    "store/config_store/test_overlap.py": ("store/config_store/records.py",),
    "store/config_store/test_source_of_truth.py": ("store/config_store/file_truth.py", "store/config_store/prune.py"),
    "gateway/test_secrets_live.py": (
        "addons/console/api/rotation.py", "addons/process/encryption_command.py", "addons/process/encryption_work.py",
    ),
    "store/config_store/test_secrets.py": (
        "store/config_store/keys.py", "store/config_store/protect.py", "store/config_store/secret_text.py",
        "store/config_store/vault.py",
    ),
    "store/ledger/test_hold.py": (
        "store/ledger/batch.py", "store/ledger/decide.py", "store/ledger/line.py", "store/ledger/operations.py",
        "store/ledger/rows.py", "store/ledger/types.py",
    ),
    "store/ledger/test_ledger.py": (
        "store/ledger/books.py", "store/ledger/writer.py",
    ),
    "store/ledger/test_recovery.py": (
        "store/ledger/epochs.py", "store/ledger/spool.py",
    ),
    "store/ledger/test_settle.py": ("store/ledger/history.py",),
    "store/ledger/test_verify.py": ("store/ledger/replay.py", "store/ledger/seal.py"),
    "store/logs/test_logs_writer.py": (
        "store/logs/batch.py", "store/logs/daily.py", "store/logs/opening.py", "store/logs/refusals.py",
        "store/logs/retention.py", "store/logs/rows.py", "store/logs/schema.py",
    ),
    "store/prices/test_book.py": (
        "store/prices/names.py", "store/prices/types.py",
    ),
    "store/prices/test_catalogue.py": (
        "store/prices/genai/catalogue.py", "store/prices/genai/types.py",
    ),
    "store/prices/test_cost.py": ("store/prices/classes.py",),
    "store/prices/test_overrides.py": ("store/prices/compile.py",),
    "store/test_database.py": (
        "store/filelock.py", "store/filesystem.py",
    ),
    "store/test_settings.py": (
        "store/config_store/fields.py", "store/config_store/problems.py", "store/config_store/unimplemented.py",
    ),
}  # fmt: skip
"""Test file (below `tests/`) → the files that it covers although it does not bear their names: they are parts of one thing, and are
tested through its door."""
NO_TEST: dict[str, str] = {
    "addons/pretend/__main__.py": "starts the provider; every test under tests/gateway runs it",
    "store/migrations/m0001_ledger.py": "run, by its name, in every test that opens a store; tests/store/test_database.py first",
    "store/migrations/m0002_governance.py": "as the one before it; tests/store/config_store/test_governance_tables.py compares",
    "store/migrations/m0003_nodes.py": "as the first one; tests/store/test_database.py compares it with store/models.py",
    "store/migrations/m0004_raises.py": "as the first one; tests/store/test_database.py compares it with store/models.py",
    "store/migrations/m0005_governance_whole.py": "as the second one",
    "store/prices/data/make_limits.py": "makes vendored data from a download; tests/store/prices/test_limits.py has the result",
}


def has_logic(path: Path) -> bool:
    """Whether a file has a function that does something; types, constants and protocols alone need no test."""
    nodes = ast.walk(ast.parse(path.read_text()))
    lines = (line for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for line in node.body)
    return any(not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)) for line in lines)


def mirrors(path: Path) -> list[Path]:
    """Where the tests of a file may stand: under its own name or, where several have that name, with its folder's before it."""
    folder = ROOT / "tests" / path.relative_to(ROOT).parent
    return [folder / f"test_{path.stem}.py", folder / f"test_{path.parent.name}_{path.stem}.py"]


def has_mirror(path: Path) -> bool:
    return any(place.is_file() for place in mirrors(path))


def reached(test: Path) -> set[Path]:
    """Every file of the project that a test file loads, itself or through others."""
    found: set[Path] = set()
    waiting = [test, *(folder / "conftest.py" for folder in test.parents if folder.is_relative_to(ROOT / "tests"))]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        waiting += [ROOT / (name.replace(".", "/") + ending) for name in imports(path) for ending in (".py", "/__init__.py")]
    return found


def test_files_with_logic_have_their_mirror() -> None:
    """addons/steps/settle.py → tests/addons/steps/test_settle.py, or a line in the table of exceptions that is still needed."""
    logical = {relative(path): path for path in SOURCES if path.parent != ROOT and path.name != "__init__.py" and has_logic(path)}
    listed = [source for sources in COVERED_ELSEWHERE.values() for source in sources] + list(NO_TEST)
    assert [name for name, path in logical.items() if name not in listed and not has_mirror(path)] == [], "without a test"
    assert sorted({name for name in listed if listed.count(name) > 1}) == [], "listed twice"
    assert [name for name in listed if name not in logical] == [], "listed, but gone or without logic"
    assert [name for name in listed if name in logical and has_mirror(logical[name])] == [], "listed, but has a test of its own"
    assert [test for test in COVERED_ELSEWHERE if not (ROOT / "tests" / test).is_file()] == [], "no such test file"
    # Those of whole processes load nothing of what they test.
    tests = {test: reached(ROOT / "tests" / test) for test in COVERED_ELSEWHERE if not test.startswith("gateway/")}
    unreached = [(test, name) for test, files in tests.items() for name in COVERED_ELSEWHERE[test] if ROOT / name not in files]
    assert unreached == [], "the test does not even load it"
