"""The commands that look at a gateway: status, verify, doctor, admin-token."""

import json
import sys
import time
from pathlib import Path

import click

from addons.process.cli import app_dir_option
from addons.process.client import find_running, read_admin_token
from addons.process.common import announce, now_ms
from addons.process.management import list_budgets, management
from store.errors import UserError


@click.command()
@app_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs; amounts in USD as text.")
@click.option("--watch", is_flag=True, help="Again every two seconds until Ctrl-C.")
def status(app_dir: Path, as_json: bool, watch: bool) -> None:
    """Budgets, what is spent of them, and when they run out at the present pace."""
    from addons.process.status import status_json, status_text

    while True:
        running = find_running(app_dir)
        with management(app_dir) as client:
            found = list_budgets(client)
        if as_json:
            print(json.dumps(status_json(running, found, now_ms()), indent=None if watch else 2), flush=True)
        else:
            clear = "\x1b[H\x1b[2J" if watch and sys.stdout.isatty() else ""
            print(clear + status_text(app_dir, running, found, now_ms()), end="", flush=True)
        if not watch:
            return
        time.sleep(2)


@click.command()
@app_dir_option
@click.option("--mend", is_flag=True, help="Make balances and open holds anew from the rows where they differ.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify(app_dir: Path, mend: bool, as_json: bool) -> int:
    """Replay the ledger's rows and compare them with every balance and every open hold.

    Works beside a running gateway. Exit code 0 when everything agrees, 1 when something differs.
    """
    from addons.process.books import verify_books

    return verify_books(app_dir, mend=mend, as_json=as_json)


@click.command()
@app_dir_option
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Default: APP_DIR/config.json.")
@click.option("--probe", is_flag=True, help="Also try to reach a provider without the gateway, to see whether egress is closed.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(app_dir: Path, config: Path | None, probe: bool, as_json: bool) -> int:
    """Look at ports, CA, stores, configuration, providers and prices; say whether caps are enforced or advisory, and what to do.

    A cap is enforced only where there is no way round it: the provider keys live in the gateway, or the network lets nothing else
    out. Exit code 0 when nothing is wrong, 1 otherwise.
    """
    from addons.process.doctor import examine

    return examine(app_dir, config, probe=probe, as_json=as_json)


@click.command("admin-token")
@app_dir_option
@click.option("--rotate", is_flag=True, help="Make a new token; links and sessions of the old one end.")
def admin_token(app_dir: Path, rotate: bool) -> None:
    """Print the link that opens the dashboard; it carries the token from APP_DIR/admin.token, so keep it to yourself."""
    running = find_running(app_dir)
    if rotate:
        from addons.console.auth import rotate_admin_token
        from addons.process.stores import note_command

        if running is not None:
            # It would keep the old token, and every command would be locked out of it.
            raise UserError(f"stop the gateway first (process {running.pid}): it reads the token when it starts")
        rotate_admin_token(app_dir / "admin.token")
        note_command(app_dir, "rotate", "admin_token")
    token = read_admin_token(app_dir)
    if token is None:
        raise UserError(f"{app_dir} has no admin token yet: start the gateway once with tollgate serve")
    if running is None:
        announce(f"no gateway runs in {app_dir} now; the link works at its usual address once it does")
    print(f"{running.console if running else 'http://127.0.0.1:8082'}/?token={token}")
