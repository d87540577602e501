"""`serve`: owns the app directory, prepares stores and sockets, keeps console and workers running, replaces them on SIGHUP."""

import contextlib
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from addons.console.auth import ensure_admin_token
from addons.process import pulse
from addons.process.accepted import Accepted, read_accepted
from addons.process.ca import ensure_ca
from addons.process.children import USER_ERROR_EXIT, configure_logging, say, say_error
from addons.process.family import Death, Family, Orders, Slot
from addons.process.offspring import Offspring, how_it_ended
from addons.process.options import ChildSpec, ServeOptions
from addons.process.plan_text import plan_lines
from addons.process.prepare import open_all, port_of, prepare_stores, rehearse, url_of
from addons.process.pulse import AwakeClock
from addons.process.rolling import Reload, read_anew
from addons.process.signals import Signals
from addons.process.stores import remember_config
from addons.process.welcome import changes, welcome
from store.config_store.bootstrap import BootstrapReport
from store.config_store.secret_text import environ_of
from store.errors import StoreUnavailable, UserError
from store.settings import Settings
from store.version import VERSION

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
CONSOLE_STOP_SECONDS = 5.0
KILL_AFTER_SECONDS = 8.0
"""On top of the grace, before a child that does not end is killed."""
OLD_GENERATIONS = 2
"""As many earlier generations of workers may still be busy with their last calls; a further reload waits."""


def serve(options: ServeOptions) -> int:
    """Run the gateway until SIGTERM or SIGINT. Exit code 0; 2 with one clear line for an error the user can mend."""
    configure_logging(options.log_level, "serve")
    try:
        options.app_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as fault:
        say_error(f"cannot make the app directory {options.app_dir}: {fault.strerror}")
        return USER_ERROR_EXIT
    if options.workers > 1 and sys.platform == "win32":
        say_error("this system cannot share a port between processes: leave out --workers, or run the gateway in a container")
        return USER_ERROR_EXIT
    try:
        with owned(options.app_dir):
            return Supervisor(options).run()
    except (UserError, StoreUnavailable) as fault:
        say_error(str(fault))
        return USER_ERROR_EXIT
    except OSError as fault:
        if fault.filename is None:
            raise
        say_error(f"cannot use {fault.filename}: {fault.strerror}; the app directory must be writable")
        return USER_ERROR_EXIT


def config_path(options: ServeOptions) -> Path | None:
    """The configuration file; None when there is none and none was asked for. Links are not resolved: they may move on.

    Raises UserError when the one asked for is not there.
    """
    if options.config is not None and not options.config.exists():
        raise UserError(f"there is no configuration file {options.config}")
    path = options.config or (options.app_dir / "config.json")
    return path.absolute() if path.exists() else None


def show_plan(options: ServeOptions) -> int:
    """Say what `serve` with these options would do with the file, and do nothing. Raises UserError, StoreUnavailable."""
    settings = read_accepted(config_path(options), environ_of(options.app_dir, os.environ)).settings
    report = rehearse(options, settings)
    lines = [*(f"warning: {warning}" for warning in settings.warnings), *plan_lines(report)]
    if report.documents is None:
        lines += list(changes(options.app_dir, settings, report)) or ["config.json says nothing of providers and governance"]
    print("\n".join(lines))
    return 0


@contextlib.contextmanager
def owned(app_dir: Path) -> Iterator[None]:
    """The app directory's lock, held while serving. Raises UserError naming the owner when there is one."""
    path = app_dir / "serve.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _try_lock(handle):
            owner = os.read(handle, 64).decode(errors="replace").strip()
            raise UserError(f"{app_dir} is already served by process {owner or '?'}; stop it first, or use another --app-dir")
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0) if hasattr(os, "pwrite") else os.write(handle, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Supervisor:
    """Decides who should be there. One loop, driven by the children's pipes and by signals; it parses no traffic."""

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self._signals = Signals()
        self._clock = AwakeClock(time.monotonic)
        self._family = Family(self._clock)
        self._reload: Reload | None = None
        self._reloads = {"reloads": 0, "reloads_failed": 0}
        self._said_waiting = False

    def run(self) -> int:
        """Prepare, start, serve, end; the exit code. Raises UserError, StoreUnavailable and OSError before anything serves."""
        options = self.options
        self._signals.catch(self._family.selector)
        self._clock.tick()
        self._first = self._read_config()
        settings = self._first.settings
        for warning in settings.warnings:
            say(f"warning: {warning}")
        report, unusable = prepare_stores(options, settings)
        for line in plan_lines(report) if options.reseed or report.forced else ():
            say(line)
        for sentence in unusable:
            say(f"warning: {sentence}")
        token = ensure_admin_token(options.app_dir / "admin.token")
        ensure_ca(options.app_dir / "ca")
        self._sockets = open_all(options, settings)
        try:
            self._start_all()
            code = self._wait_ready()
            if code is not None:
                return self._end(code)
            self._announce(settings, report, token)
            self._watch()
            return self._end(0)
        finally:
            self._sockets.close()
            self._family.close()
            (options.app_dir / "run.json").unlink(missing_ok=True)

    # -- the start

    def _config_path(self) -> Path | None:
        """The configuration file; None when there is none and none was asked for. Links are not resolved: they may move on."""
        return config_path(self.options)

    def _read_config(self) -> Accepted:
        return read_accepted(self._config_path(), environ_of(self.options.app_dir, os.environ))

    def _start_all(self) -> None:
        sockets, spec = self._sockets, self._spec()
        worker = replace(
            spec,
            gateway_fds=tuple(sock.fileno() for sock in sockets.gateway),
            listener_fds=tuple(tuple(sock.fileno() for sock in group) for group in sockets.listeners),
        )
        console = replace(
            spec,
            role="console",
            console_fds=tuple(sock.fileno() for sock in sockets.console),
            inspect_fds=tuple(sock.fileno() for sock in sockets.inspect),
            feed_fds=tuple(sock.fileno() for sock in sockets.feed),
        )
        several = self.options.workers > 1
        names = [f"worker {number + 1}" if several else "worker" for number in range(self.options.workers)]
        self._family.slots = [
            Slot("console", Orders(console, self._first)), *(Slot(name, Orders(worker, self._first)) for name in names)
        ]  # fmt: skip
        for slot in self._family.slots:
            self._family.fill(slot)

    def _spec(self) -> ChildSpec:
        options, sockets = self.options, self._sockets
        return ChildSpec(
            role="worker",
            app_dir=str(options.app_dir.resolve()),
            config=self._first.source if self._first.from_file else None,
            host=options.host,
            port=port_of(sockets.gateway),
            console_host=options.console_host,
            console_port=port_of(sockets.console),
            inspect_port=port_of(sockets.inspect) if sockets.inspect else None,
            feed_port=port_of(sockets.feed) if sockets.feed else 0,
            feed_token=secrets.token_hex(16) if sockets.feed else "",
            inspect_token=secrets.token_hex(16),
            grace=options.grace,
            log_level=options.log_level,
            mode=options.mode,
            version=VERSION,
            settings_follow=True,
        )

    def _wait_ready(self) -> int | None:
        """None once every child is ready; else the exit code to end with. A child's error that the user can mend is also ours."""
        deadline = self._clock.now + pulse.READY_SECONDS
        while not self._signals.stops and not all(slot.ready for slot in self._family.slots):
            if self._clock.now > deadline:
                say_error(f"not ready within {pulse.READY_SECONDS:.0f} seconds")
                return 1
            deaths = self._family.turn(WATCH_SECONDS)
            if deaths and not self._signals.stops:
                if deaths[0].code == USER_ERROR_EXIT:
                    return USER_ERROR_EXIT
                say_error(f"the {deaths[0].child.name} process ended at start {how_it_ended(deaths[0].code)}")
                return 1
        return 0 if self._signals.stops else None

    def _announce(self, settings: Settings, report: BootstrapReport, token: str) -> None:
        options, sockets = self.options, self._sockets
        gateway = url_of(options.host, port_of(sockets.gateway))
        console = url_of(options.console_host, port_of(sockets.console))
        inspector = url_of("127.0.0.1", port_of(sockets.inspect)) if sockets.inspect else None
        run = {
            "pid": os.getpid(),
            "gateway": gateway,
            "console": console,
            "inspector": inspector,
            "version": VERSION,
            "started_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        remember_config(options.app_dir, options.config)
        _write_private(options.app_dir / "run.json", json.dumps(run))
        spec = self._family.slots[0].orders.spec
        inspector_link = f"{inspector}/?token={spec.inspect_token}" if inspector else None
        for line in welcome(options.app_dir, settings, report, gateway, f"{console}/?token={token}", inspector_link):
            say(line)
        say(f"ready gateway={gateway} console={console} inspector={inspector or 'off'}")

    # -- serving

    def _watch(self) -> None:
        """Until a signal: keep every place filled with somebody who answers. Nothing here waits for one child alone."""
        family = self._family
        while not self._signals.stops:
            for slot in family.slots:
                if slot.child is None and slot.due is not None and slot.due <= self._clock.now:
                    family.fill(slot)
            family.look_after()
            self._reload_if_wanted()
            family.report(**self._reloads)
            for death in family.turn(self._pause()):
                self._bury(death)
            self._go_on_reloading()

    def _pause(self) -> float:
        due = [slot.due - self._clock.now for slot in self._family.slots if slot.child is None and slot.due is not None]
        return max(0.0, min([WATCH_SECONDS, *due]))

    def _bury(self, death: Death) -> None:
        if death.slot is None or self._signals.stops:
            return
        if not death.early:
            self._family.replace_later(death.slot, death)
        elif self._reload is not None:
            self._reload.died(death)

    # -- a reload

    def _reload_if_wanted(self) -> None:
        if not self._signals.reload_wanted or self._reload is not None:
            return
        busy = sum(child.role == "worker" for child in self._family.leaving)
        if busy >= OLD_GENERATIONS * self.options.workers:
            if not self._said_waiting:
                say(f"the reload waits: {busy} earlier workers are still busy with their last calls")
            self._said_waiting = True
            return
        self._signals.reload_wanted = self._said_waiting = False
        try:
            accepted, left, report, warnings = read_anew(self.options, self._config_path_again(), self._first)
        except (UserError, StoreUnavailable, OSError) as fault:
            self._reloads["reloads_failed"] += 1
            say_error(f"not reloaded: {fault}; the gateway goes on as before")
            return
        for warning in warnings:
            say(f"warning: {warning}")
        if left:
            say(f"only a restart changes {', '.join(left)}: left as at the start")
        for line in (*plan_lines(report), *changes(self.options.app_dir, accepted.settings, report)):
            say(line)
        self._reload = Reload(
            self._family,
            accepted,
            worker_seconds=self.options.grace + KILL_AFTER_SECONDS,
            console_seconds=CONSOLE_STOP_SECONDS,
        )
        self._reload.begin()

    def _config_path_again(self) -> Path | None:
        """As `_config_path`, but a file that was there at the start and is not now is missed, not taken for none."""
        return Path(self._first.source) if self._first.from_file else self._config_path()

    def _go_on_reloading(self) -> None:
        reload = self._reload
        if reload is None:
            return
        reload.step()
        if not reload.over:
            return
        self._reload = None
        if reload.failure is None:
            self._reloads["reloads"] += 1
            say(f"reloaded: {self.options.workers} new worker{'s'[: self.options.workers > 1]} and a new console serve")
            return
        self._reloads["reloads_failed"] += 1
        kept = "the new workers serve beside the old console" if reload.workers_replaced else "the gateway goes on as before"
        say_error(f"not reloaded: {reload.failure}; {kept}")

    # -- the end

    def _end(self, code: int) -> int:
        """End the workers first, so that the last calls are still seen by the console; then the console."""
        if self._reload is not None:
            self._reload.abandon()
        # Ours keep the ports open as well: a newcomer would wait in their queue only to be cut off at the end.
        self._sockets.close_gateway()
        self._end_all("worker", self.options.grace + KILL_AFTER_SECONDS)
        self._end_all("console", CONSOLE_STOP_SECONDS)
        return code

    def _end_all(self, role: str, seconds: float) -> None:
        """Tell all of a role to end. A second signal from whoever wants the end makes them hurry, a third one kills them."""
        family = self._family
        for child in family.leaving:
            if child.role == role:
                child.terminate()
                child.end_by = self._clock.now + seconds
        for slot in family.slots:
            if slot.role == role and slot.child is not None:
                child, slot.child = slot.child, None
                family.let_go(child, seconds)
        ending = [child for child in family.leaving if child.role == role]
        hurried = 1
        while any(child in family.leaving for child in ending):
            if self._signals.stops > hurried:
                hurried = self._signals.stops
                self._hurry([child for child in ending if child in family.leaving], kill=hurried > 2)
            family.look_after()
            family.turn(WATCH_SECONDS)

    def _hurry(self, children: Sequence[Offspring], *, kill: bool) -> None:
        for child in children:
            self._family.tell(child, b"hurry")
            child.end_by = self._clock.now + (0.0 if kill else KILL_AFTER_SECONDS)


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step; only the owner can read it."""
    temporary = path.with_name(path.name + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(temporary, path)
