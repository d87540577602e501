"""A gateway for as long as somebody needs one: the running one, or one that the first comer starts and the last one stops."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from addons.process.client import RunningGateway, find_running
from addons.process.launch import LaunchedGateway, StartFailed, launch, stop_by_pid
from addons.process.locks import Party, exclusive
from store.errors import UserError

_PARTY_FILE = "exec.lock"
_START_FILE = "exec-start.lock"
_MARK_FILE = "exec-gateway.json"
"""Says which process was started for the sake of `exec`, so that one started by hand is never stopped."""


@contextlib.contextmanager
def borrowed_gateway(
    app_dir: Path, environ: Mapping[str, str], *, arguments: Sequence[str] = (), announce: Callable[[str], None]
) -> Iterator[RunningGateway]:
    """The gateway of `app_dir` for the length of a `with` block.

    When none runs, one is started on free ports without an inspector; it is stopped when the last block that uses it ends, also
    when that block is in another process. Raises StartFailed, or UserError when the directory cannot be used.
    """
    try:
        app_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        party = Party(app_dir / _PARTY_FILE)
    except OSError as fault:
        raise UserError(f"the app directory {app_dir} cannot be used: {fault.strerror or fault}") from None
    party.enter()
    ours: LaunchedGateway | None = None
    try:
        with exclusive(app_dir / _START_FILE):
            running = find_running(app_dir)
            if running is None:
                announce(f"starting a gateway for this run in {app_dir}")
                running, ours = _started(app_dir, environ, arguments)
        yield running
    finally:
        with party.leave() as last:
            if last is not False:
                _stop_started(app_dir, ours)


def _started(app_dir: Path, environ: Mapping[str, str], arguments: Sequence[str]) -> tuple[RunningGateway, LaunchedGateway | None]:
    try:
        ours = launch(app_dir, ["--no-inspect", *arguments], environ)
    except StartFailed:
        # Somebody may have started one by hand in the same moment: then theirs serves.
        if running := find_running(app_dir):
            return running, None
        raise
    (app_dir / _MARK_FILE).write_text(json.dumps({"pid": ours.running.pid}), "utf-8")
    return ours.running, ours


def _stop_started(app_dir: Path, ours: LaunchedGateway | None) -> None:
    """Stop the gateway that was started for the sake of `exec`, by this process (`ours`) or by one that has gone."""
    if ours is not None:
        ours.stop()
    mark = app_dir / _MARK_FILE
    try:
        pid = json.loads(mark.read_text("utf-8"))["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    with contextlib.suppress(UserError):
        running = find_running(app_dir)
        if running is not None and running.pid == pid:
            stop_by_pid(pid)
    mark.unlink(missing_ok=True)
