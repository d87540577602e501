"""`tollgate export`: the whole governance as a file for version control or for another gateway."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Literal

import click

from addons.process.cli import app_dir_option
from addons.process.common import announce
from addons.process.management import management
from store.errors import UserError

EXPORT = "/api/governance/export"
PATIENCE_SECONDS = 300.0
STDIO = "-"
Form = Literal["toml", "json"]
FORMAT = click.option(
    "--format", "form", type=click.Choice(["toml", "json"]),
    help="Default: by the ending of FILE; of - by what it holds, TOML when written.",
)  # fmt: skip


@click.command("export")
@app_dir_option
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@FORMAT
@click.option("--secrets", is_flag=True, help="Values of keys in place of hints, as far as the store can read them.")
def export_(app_dir: Path, file: Path, form: Form | None, secrets: bool) -> None:
    """Write the whole governance to FILE (.toml or .json; - is standard output).

    Providers, customers, teams, virtual keys, budgets, limits, routing rules, prices and prompts, in the shape of config.json. The
    same governance gives the same bytes, so the file can be kept in version control. Secrets are left out: hints stand in their
    place, which "tollgate import" understands as "unchanged"; env.NAME and file:PATH are kept.

    \b
      tollgate export governance.toml
      tollgate export - | less
      tollgate export backup.json --secrets
    """
    form = form or form_of(file)
    with management(app_dir) as client:
        text = client.patient(PATIENCE_SECONDS).text(f"{EXPORT}?format={form}" + ("&secrets=true" if secrets else ""))
    if str(file) == STDIO:
        sys.stdout.write(text)
        return
    _write(file, text, private=secrets)
    announce(f"wrote {file}" + (": it holds secrets, only you can read it" if secrets and os.name == "posix" else ""))


def form_of(file: Path) -> Form:
    """TOML or JSON, by the ending. Raises UserError for another one."""
    if str(file) == STDIO or file.suffix.lower() == ".toml":
        return "toml"
    if file.suffix.lower() == ".json":
        return "json"
    raise UserError(f"{file}: end its name in .toml or .json, or say which with --format")


def _write(file: Path, text: str, *, private: bool) -> None:
    """All of it or nothing; a file with secrets is its owner's alone from the first byte on."""
    try:
        handle, fresh = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
            if not private and os.name == "posix":
                os.chmod(fresh, file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask())
            os.replace(fresh, file)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise
    except OSError as fault:
        raise UserError(f"{file} cannot be written: {fault.strerror}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
