"""`exec`: an unmodified program under a cap. Environment, run credential, and what it cost in one line at the end."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

from addons.process.admission import wait_until_admitted
from addons.process.ca import trust_for
from addons.process.child import find_program, orderly_end, run_child
from addons.process.client import ConsoleClient, Json
from addons.process.environment import bypassed_by, client_environment
from addons.process.management import KEY_PREFIX, find_key
from addons.process.sharing import borrowed_gateway
from addons.process.stores import served_config
from store.errors import UserError
from store.money import format_usd, nanos_from_usd, plain_usd

RUN_TTL_SECONDS = 7 * 24 * 3600
"""How long a run credential lives at most; it ends with the run when the run ends before."""

_RUNS = "/api/governance/runs"
_SETTLING_SECONDS = 3.0
_STILL_SECONDS = 0.5
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """One `exec`: what to run, as whom, and under which cap."""

    app_dir: Path
    command: tuple[str, ...]
    key: str | None = None
    """Name, id or value of a virtual key; None: the one that serves callers without a key."""
    budget_nanos: int | None = None
    base_urls: bool = False
    config: Path | None = None
    """A configuration file for a gateway that has to be started."""
    quiet: bool = False
    """Say nothing unless something is wrong."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The run credential of this `exec`; its value is a secret."""

    id: str
    value: str = field(repr=False)


def run_exec(options: ExecOptions, environ: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Run the program to its end; its exit code. `say` prints a line for the user.

    Raises CannotRun when the program is not there, UserError when no gateway can be had or it knows no such key.
    """
    program = find_program(options.command[0], environ)
    config = options.config or served_config(options.app_dir)
    arguments = ["--config", str(config)] if config else []
    announce: Callable[[str], None] = (lambda _line: None) if options.quiet else say
    borrowed = borrowed_gateway(options.app_dir, environ, arguments=arguments, announce=announce)
    with orderly_end(), borrowed as gateway:
        files = trust_for(options.app_dir / "ca", environ)
        client = gateway.client()
        run = _open_run(client, options)
        if not wait_until_admitted(gateway.gateway, run.value):
            say(f"the gateway at {gateway.gateway} does not take the credential of this run; calls may be refused")
        variables = client_environment(
            gateway.gateway, run.value, files.added, files.bundle, base_urls=options.base_urls, inherited=environ
        )
        try:
            code = run_child(program, options.command, {**environ, **variables})
            _report(client, run, options, environ, say)
            return code
        finally:
            _close_run(client, run)


def _open_run(client: ConsoleClient, options: ExecOptions) -> _Run:
    budget = plain_usd(options.budget_nanos) if options.budget_nanos is not None else None
    key = options.key
    if key is not None and key.startswith(KEY_PREFIX):
        key = str(find_key(client, key)["id"])
    body = {"virtual_key": key, "budget_usd": budget, "ttl_seconds": RUN_TTL_SECONDS}
    run = client.call("POST", _RUNS, body).get("run")
    try:
        return _Run(id=str(run["id"]), value=str(run["value"]))  # type: ignore[index]
    except (KeyError, TypeError):
        raise UserError("the gateway's answer to a new run cannot be read: is it of another version?") from None


def _report(client: ConsoleClient, run: _Run, options: ExecOptions, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """One line on what the run cost. A gateway that went away meanwhile must not hide the program's exit code."""
    try:
        sums = _settled_sums(client, run)
        calls, refused = int(sums["calls"]), int(sums["refused"])
        cost = nanos_from_usd(Decimal(str(sums["cost_usd"])))
    except (UserError, KeyError, TypeError, ValueError, ArithmeticError) as fault:
        say(f"what the run cost is not known here: {fault}; the gateway's console shows it")
        return
    if calls == 0 and refused == 0:
        for line in _why_no_call(options, environ):
            say(line)
    elif not options.quiet:
        say(cost_line(cost, calls, refused, options.budget_nanos))


def cost_line(cost_nanos: int, calls: int, refused: int, budget_nanos: int | None) -> str:
    """`$0.0123 in 4 calls (1 refused), run budget $2.00`. `calls` counts the refused ones as well."""
    text = f"{format_usd(cost_nanos)} in {calls} call{'' if calls == 1 else 's'}"
    if refused:
        text += f" ({refused} refused)"
    return text + (f", run budget {format_usd(budget_nanos)}" if budget_nanos is not None else "")


def _settled_sums(client: ConsoleClient, run: _Run) -> Json:
    """The run's sums once no call of it is open and they have stood still for a moment.

    A program may end before its last call is booked, and refusals are counted from the logs, which are written in batches.
    """
    path = f"{_RUNS}/{quote(run.id, safe='')}"
    began = changed = time.monotonic()
    before: Json | None = None
    while True:
        sums: Json = client.get(path)["run"]
        now = time.monotonic()
        if sums != before or sums.get("open_calls"):
            before, changed = sums, now
        if now - changed > _STILL_SECONDS or now - began > _SETTLING_SECONDS:
            return sums
        time.sleep(_POLL_SECONDS)


def _close_run(client: ConsoleClient, run: _Run) -> None:
    """End the credential with the run. It would expire by itself, so nothing is lost when this does not work."""
    try:
        client.call("DELETE", f"{_RUNS}/{quote(run.id, safe='')}")
    except UserError:
        return


def _why_no_call(options: ExecOptions, environ: Mapping[str, str]) -> list[str]:
    name = options.command[0]
    lines = [f"no call of {name} came through the gateway, so nothing was metered or capped."]
    if skipped := bypassed_by(environ):
        lines.append(f"  NO_PROXY sends {', '.join(skipped)} past it: take provider hosts out of it.")
    if options.base_urls:
        lines.append("  The program may have an address of its own in a settings file, or it simply made no call.")
    else:
        lines.append(
            "  The program may ignore HTTPS_PROXY (Node's fetch before version 22.21, the JavaScript AWS SDK): try --base-url."
            " Or it speaks to a host that is no configured provider, or it simply made no call."
        )
    return lines


def say_on_stderr(line: str) -> None:
    """Print a line of ours beside the program's own output."""
    try:
        print(f"tollgate: {line}", file=sys.stderr, flush=True)
    except OSError:
        return  # nobody is there to read it any more
