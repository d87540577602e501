"""`tollgate import`: shows what a file would change, asks, and applies it in one transaction."""

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from addons.process.cli import app_dir_option
from addons.process.client import Json
from addons.process.common import announce, confirm, print_json
from addons.process.export_command import FORMAT, PATIENCE_SECONDS, STDIO, Form, form_of
from addons.process.import_text import counted, plan_text
from addons.process.management import management
from store.config_store.fields import loads_exact
from store.errors import UserError

IMPORT = "/api/governance/import"
_THE_FILE = "the file: "


@click.command("import")
@app_dir_option
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@FORMAT
@click.option("--dry-run", is_flag=True, help="Show what would change and stop there; exit code 0.")
@click.option("--prune", is_flag=True, help="Also delete what the sections of the file do not name.")
@click.option("--new-values", is_flag=True, help="Make new values for virtual keys of which the file has only a hint.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Kept in the audit log beside each change.")
@click.option("--json", "as_json", is_flag=True, help="For programs: what the API answers.")
def import_(
    app_dir: Path, file: Path, form: Form | None, dry_run: bool, prune: bool, new_values: bool, yes: bool, reason: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Apply FILE, an export or the governance of a config.json (- is standard input).

    First it says what would change, field by field, and what looks like a mistake; then it asks. Everything is applied in one
    transaction or not at all. What was spent stays, and so do things that the file does not name, unless you say --prune.
    An entry means the thing with its id, else the one with its name; what an entry leaves out has its default.

    \b
      tollgate import governance.toml               look, then answer
      tollgate import governance.toml --dry-run     only look
      tollgate import governance.toml --yes         in a script

    Without a terminal and without --yes nothing is changed, and the exit code is 2. If somebody else changes the configuration
    while you read the plan, nothing is changed either.
    """
    form = form or (None if str(file) == STDIO else form_of(file))
    name = "standard input" if str(file) == STDIO else str(file)
    document = _read(file, name, form)
    options = {"prune": prune, "new_values": new_values, "reason": reason}
    query = {word: "true" if value is True else value for word, value in options.items() if value}
    with management(app_dir) as client, _told_of(name):
        client = client.patient(PATIENCE_SECONDS)
        plan = client.call("POST", f"{IMPORT}?{urlencode({**query, 'dry_run': 'true'})}", document)
        if not as_json:
            print(plan_text(plan, name), end="", flush=True)
        if dry_run or not plan["changes"]:
            if as_json:
                print_json(plan)
            return
        confirm(f"Apply this ({counted(plan)})?", yes)
        done = client.call("POST", f"{IMPORT}?{urlencode({**query, 'tag': plan['tag']})}", document)
    if as_json:
        print_json(done)
        return
    announce(f"applied {name}: {counted(done)}")
    _show_values(done)


def _show_values(done: Json) -> None:
    values = done.get("new_values") or []
    if values:
        announce("new virtual keys, on the next lines: name and value; keep them, this may be the only time they are shown")
    for one in values:
        print(f"{one['name']}\t{one['value']}")


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Errors name the file as the person did."""
    try:
        yield
    except UserError as fault:
        message = str(fault)
        if message.startswith(_THE_FILE):
            raise type(fault)(f"{name}: {message.removeprefix(_THE_FILE)}") from None
        raise


def _read(file: Path, name: str, form: Form | None) -> Json:
    """The document, amounts exact. Raises UserError with line and column."""
    try:
        content = sys.stdin.buffer.read() if str(file) == STDIO else file.read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {name}") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not UTF-8 text") from None
    except OSError as fault:
        raise UserError(f"{name}: cannot be read ({fault.strerror})") from None
    form = form or ("json" if text.lstrip().startswith("{") else "toml")
    try:
        made: Any = loads_exact(text) if form == "json" else tomllib.loads(text, parse_float=Decimal)
    except RecursionError:
        raise UserError(f"{name}: is nested too deeply") from None
    except ValueError as fault:
        raise UserError(f"{name}: is not valid {form.upper()}: {fault}") from None
    if not isinstance(made, dict):
        raise UserError(f"{name}: must be a JSON object with providers and governance, as an export is")
    document: Json = _plain(made, name)
    return document


def _plain(value: Any, name: str) -> Any:
    """TOML also has dates and infinities, which nothing here is made of."""
    if isinstance(value, dict):
        return {key: _plain(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, name) for item in value]
    if isinstance(value, Decimal) and not value.is_finite():
        raise UserError(f"{name}: {value} is not a number here")
    return value if value is None or isinstance(value, str | int | Decimal) else value.isoformat()
