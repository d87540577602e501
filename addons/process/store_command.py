"""`store copy`: configuration, ledger and logs from where they are to where another configuration file says."""

from pathlib import Path

import click

from addons.process.cli import WholeGroup, app_dir_option

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=WholeGroup)
def store() -> None:
    """Where configuration, ledger and logs are kept."""


@store.command()
@app_dir_option
@click.option("--to", "target", type=_FILE, required=True, metavar="FILE", help="A config.json whose stores are the new places.")
@click.option("--config", type=_FILE, metavar="FILE", help="The present one. Default: APP_DIR/config.json.")
@click.option("--logs", is_flag=True, help="Copy the logs too.")
def copy(app_dir: Path, target: Path, config: Path | None, logs: bool) -> None:
    """Copy everything with all spend to the empty stores that another config.json names, and compare the two.

    From SQLite to PostgreSQL, back, or from one place to another. Stop the gateway first. The stores copied from are not changed,
    and a copy that fails leaves nothing behind. Afterwards start the gateway with the new file.
    """
    from addons.process.store_copying import copy_stores

    copy_stores(app_dir, target, config, with_logs=logs)
