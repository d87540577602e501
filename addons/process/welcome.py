"""What `serve` says when it starts: what was seeded, what is ignored, and at the very first start what to paste next."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from store.config_store.bootstrap import BootstrapReport
from store.opening import CONFIG_FILE, LEDGER_FILE, place_of
from store.settings import Settings


def welcome(
    app_dir: Path, settings: Settings, report: BootstrapReport, gateway: str, console_link: str, inspector_link: str | None
) -> Iterator[str]:
    """The lines before `ready`, in the order a reader needs them."""
    yield from changes(app_dir, settings, report)
    if not settings.encryption_key and not settings.file_only:
        store = place_of(settings.config_store, app_dir, CONFIG_FILE)
        yield f"note: no encryption_key is set; provider keys and virtual keys in {store} are readable"
    if report.default_key_value:
        yield from _first_steps(app_dir, gateway, report.default_key_value)
    yield f"dashboard  {console_link}"
    if inspector_link:
        yield f"inspector  {inspector_link}"


def changes(app_dir: Path, settings: Settings, report: BootstrapReport) -> Iterator[str]:
    """What was done with the file, at a start and at a reload."""
    if report.seeded and not report.forced and not report.over_data:
        yield "seeded the configuration store from config.json"
    if report.ignored:
        yield (f"ignored in config.json, because the store has data: {', '.join(report.ignored)} (serve --reseed applies the file)")
    if report.applied is not None:
        place = place_of(settings.ledger_store, app_dir, LEDGER_FILE)
        changes = f" ({report.applied})" if report.applied else ""
        yield f"the configuration is config.json alone; what is spent is kept in {place}{changes}"
        if not settings.governance.virtual_keys:
            yield "warning: config.json has no virtual keys, so nobody can call: add one to governance.virtual_keys"


def _first_steps(app_dir: Path, gateway: str, key: str) -> Iterator[str]:
    directory = f" --app-dir {shlex.quote(str(app_dir))}"
    program = shlex.quote(sys.argv[0]) if sys.argv and sys.argv[0].endswith("tollgate") else "uv run run_gateway.py"
    yield "first start: made the virtual key 'default' (every provider, your own provider credentials, no budget yet)"
    yield f"  key              {key}"
    yield f'  any program      eval "$({program} env{directory})"'
    yield f"  one run, capped  {program} exec{directory} --budget 2usd -- claude"
    yield f"  OpenAI SDK       base_url={gateway}/openai/v1"
    yield f"  Anthropic SDK    base_url={gateway}/anthropic"
    yield f"  Gemini SDK       base_url={gateway}/genai"
    yield "  next: give the key a budget: " + f"{program} budgets create daily{directory} --key default --limit 5usd/1d"
