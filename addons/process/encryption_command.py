"""`encryption`: says which secrets of the store can be read by whoever has its files, and gives the store another key."""

from pathlib import Path

import click

from addons.process.cli import WholeGroup, app_dir_option

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=WholeGroup)
def encryption() -> None:
    """The key that secrets in the store are encrypted with.

    With encryption_key in config.json provider keys are encrypted and virtual keys are kept as hashes. Without, both can be read in
    the store.
    """


@encryption.command()
@app_dir_option
@click.option("--config", type=_FILE, metavar="FILE", help="Default: the one the gateway was last served with.")
@click.option("--json", "as_json", is_flag=True)
def status(app_dir: Path, config: Path | None, as_json: bool) -> None:
    """What is encrypted, and what anybody who can read the store can read."""
    from addons.process.encryption_work import show_status

    show_status(app_dir, config, as_json=as_json)


@encryption.command()
@app_dir_option
@click.option("--config", type=_FILE, metavar="FILE", help="Default: the one the gateway was last served with.")
@click.option("--to", "target", required=True, metavar="SECRET", help="The new key: env.NAME, file:PATH, or - to type it in.")
def rotate(app_dir: Path, config: Path | None, target: str) -> None:
    """Encrypt the store with a new key, or for the first time.

    config.json still names the old key (env.NAME, file:PATH or the text). Stop the gateway first, on every machine. All is done in
    one transaction: a crash leaves the old key in force, or the new one. Afterwards put the new key into config.json.

    \b
      tollgate encryption rotate --to file:secrets/new-key
      openssl rand -base64 32 | tee new-key | tollgate encryption rotate --to -
    """
    from addons.process.encryption_work import rotate_key

    rotate_key(app_dir, config, target)
