"""The command line of Tollgate: settings in, process out. `tollgate` when installed, `uv run run_gateway.py` in a checkout."""

import os
import sys
from pathlib import Path

import click

from addons.process.budgets_command import budgets
from addons.process.cli import AMOUNT, PORT, DefaultGroup, app_dir_option, run
from addons.process.commands import admin_token, doctor, status, verify
from addons.process.encryption_command import encryption
from addons.process.export_command import export_
from addons.process.groups_command import customers, teams
from addons.process.import_command import import_
from addons.process.keys_command import keys
from addons.process.reconcile_command import reconcile
from addons.process.store_command import store
from addons.process.unconfirmed_command import unconfirmed
from store.version import VERSION


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--app-dir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", hidden=True)
@click.version_option(VERSION, prog_name="tollgate", message="%(prog)s %(version)s")
def cli(app_dir: Path | None) -> None:
    """A circuit breaker for LLM spend.

    Put a hard budget on any program that calls a language model, without changing the program. Without a command, the
    gateway starts (serve).

    \b
    First steps:
      tollgate demo                              watch a budget trip, offline, in a few seconds
      tollgate exec --budget 2usd -- claude      run a tool under a cap of its own
      tollgate serve                             run the gateway; it prints what to paste next
    """


@cli.command()
@app_dir_option
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Default: APP_DIR/config.json.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the gateway listens on.")
@click.option("--port", type=PORT, default=8080, show_default=True, help="The gateway: proxy and base URL. 0: a free port.")
@click.option("--inspect-port", type=PORT, default=8081, show_default=True, help="The live request viewer (mitmweb).")
@click.option("--console-port", type=PORT, default=8082, show_default=True, help="Dashboard and management API.")
@click.option("--console-host", default="127.0.0.1", show_default=True, help="Address the dashboard listens on.")
@click.option("--no-inspect", is_flag=True, help="Run without the request viewer.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the gateway port.")
@click.option("--reseed", is_flag=True, help="Take providers and governance from the file again, though the store has data.")
@click.option("--dry-run", is_flag=True, help="Only print what this start would change in the store, and end.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False), default="info", show_default=True
)
@click.option("--mode", multiple=True, metavar="SPEC", help="A further mitmproxy mode, passed through; not supported.")
@click.option("--grace", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds calls in flight get at the end.")
def serve(
    app_dir: Path, config: Path | None, host: str, port: int, inspect_port: int, console_port: int, console_host: str,
    no_inspect: bool, workers: int, reseed: bool, dry_run: bool, log_level: str, mode: tuple[str, ...], grace: float,
) -> int:  # fmt: skip
    """Run the gateway until it is told to end (Ctrl-C or SIGTERM).

    One line, "ready gateway=... console=... inspector=...", says when everything listens. One gateway owns an app directory
    at a time. SIGHUP reads config.json again and replaces the workers without a call being refused or broken.
    """
    from addons.process.options import ServeOptions
    from addons.process.supervisor import serve as run_server
    from addons.process.supervisor import show_plan

    options = ServeOptions(
        app_dir=app_dir, config=config.absolute() if config else None, host=host, port=port, inspect_port=inspect_port,
        console_port=console_port, console_host=console_host, inspect=not no_inspect, workers=workers, reseed=reseed,
        log_level=log_level.lower(), mode=mode, grace=grace,
    )  # fmt: skip
    return show_plan(options) if dry_run else run_server(options)


@cli.command("exec", context_settings={"allow_interspersed_args": False})
@app_dir_option
@click.option("-k", "--key", metavar="KEY", help="Virtual key: its name, id or value. Default: the key for callers without one.")
@click.option("--budget", type=AMOUNT, metavar="AMOUNT", help="A cap for this run alone: 2usd, $2, 0.50usd, 50c.")
@click.option("--base-url", is_flag=True, help="Set each SDK's base URL as well, for programs that ignore HTTPS_PROXY.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="For a gateway started here.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless something is wrong.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-- CMD [ARG]...")
def exec_(
    app_dir: Path, key: str | None, budget: int | None, base_url: bool, config: Path | None, quiet: bool, command: tuple[str, ...]
) -> int:
    """Run an unmodified program under a cap.

    The program gets proxy, CA and NO_PROXY variables; its calls to known providers go through the gateway of the app directory, and
    one is started for the run when none is there. The program's own provider key stays its own. Signals, terminal and exit code
    (127: no such command) pass through; the last line says what the run cost.

    \b
      tollgate exec --budget 2usd -- claude -p "hi"
      tollgate exec -k workshop-vk-1 -- python my_agent.py
      tollgate exec --base-url -- node agent.js
    """
    from addons.process.exec_command import ExecOptions, run_exec, say_on_stderr

    options = ExecOptions(
        app_dir=app_dir, command=command, key=key, budget_nanos=budget, base_urls=base_url,
        config=config.absolute() if config else None, quiet=quiet,
    )  # fmt: skip
    return run_exec(options, os.environ, say_on_stderr)


@cli.command()
@app_dir_option
@click.option("-k", "--key", metavar="KEY", help="Virtual key: its name, id or value. Default: the key named default.")
@click.option("--shell", type=click.Choice(["sh", "fish", "powershell", "cmd", "json"]), help="How to spell them. Default: sh.")
@click.option("--base-url", is_flag=True, help="Each SDK's base URL as well.")
@click.option("--gateway", metavar="URL", help="Address of the gateway. Default: the one that runs, else http://127.0.0.1:8080.")
def env(app_dir: Path, key: str | None, shell: str | None, base_url: bool, gateway: str | None) -> int:
    """Print the variables that lead programs of a shell through the gateway.

    \b
      eval "$(tollgate env)"                        sh, bash, zsh
      tollgate env --shell fish | source            fish
      tollgate env --shell powershell | Out-String | Invoke-Expression
    """
    from addons.process.env_command import print_environment

    print_environment(app_dir, key, shell, base_urls=base_url, gateway=gateway)
    return 0


@cli.command()
@click.option("--keep", is_flag=True, help="Keep everything running at the end, to look around, until Ctrl-C.")
def demo(keep: bool) -> int:
    """Watch a budget trip: a pretend provider, a key with $0.50 an hour, calls until the 402.

    Offline, a few seconds, nothing is kept.
    """
    from addons.process.demo import run_demo

    return run_demo(keep=keep)


for _command in (
    keys, budgets, teams, customers, unconfirmed, status, verify, doctor, store, admin_token, encryption,
    export_, import_, reconcile,
):  # fmt: skip
    cli.add_command(_command)


def main() -> None:
    """The console script: run the command line and exit with its code."""
    sys.exit(run(cli, sys.argv[1:]))


if __name__ == "__main__":
    main()
