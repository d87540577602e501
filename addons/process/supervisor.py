"""`serve`: owns the app directory, prepares the stores, opens the sockets, starts console and workers, keeps them running."""

import contextlib
import json
import logging
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from addons.console.auth import ensure_admin_token
from addons.opening import open_store, store_path
from addons.process.ca import ensure_ca
from addons.process.children import READY, USER_ERROR_EXIT, configure_logging, say_error
from addons.process.options import ChildSpec, ServeOptions
from addons.process.welcome import welcome
from addons.sockets import open_sockets
from store.clock import Ids, SystemClock
from store.config_store.bootstrap import BootstrapReport, seed
from store.config_store.build import unusable_keys
from store.errors import StoreUnavailable, UserError
from store.logs.opening import open_logs
from store.settings import Settings, load_settings
from store.version import VERSION

logger = logging.getLogger(__name__)

READY_SECONDS = 60.0
RESTART_PAUSE_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Between restarts of a child that keeps dying."""
STABLE_SECONDS = 30.0
WATCH_SECONDS = 0.5
CONSOLE_STOP_SECONDS = 5.0
KILL_AFTER_SECONDS = 8.0
"""On top of the grace, before a child that does not end is killed."""

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Child:
    """One running child process."""

    name: str
    spec: ChildSpec
    process: subprocess.Popen[bytes]
    started: float
    ready: bool = False
    failures: int = 0
    buffer: bytes = b""


@dataclass(slots=True)
class Sockets:
    """Every listening socket, opened once and inherited by the children that serve it."""

    gateway: list[socket.socket]
    listeners: list[list[socket.socket]]
    console: list[socket.socket]
    inspect: list[socket.socket]
    feed: list[socket.socket]

    def close(self) -> None:
        for group in (self.gateway, *self.listeners, self.console, self.inspect, self.feed):
            for sock in group:
                sock.close()


def serve(options: ServeOptions) -> int:
    """Run the gateway until SIGTERM or SIGINT. Exit code 0; 2 with one clear line for an error the user can mend."""
    configure_logging(options.log_level, "serve")
    try:
        options.app_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as fault:
        say_error(f"cannot make the app directory {options.app_dir}: {fault.strerror}")
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


@dataclass(slots=True)
class Supervisor:
    """Starts the children, watches them, ends them. One loop, driven by their pipes and by signals."""

    options: ServeOptions
    children: list[Child] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _stopping: bool = False
    _sockets: Sockets | None = None

    def run(self) -> int:
        options = self.options
        config = options.config or (options.app_dir / "config.json")
        if options.config is not None and not options.config.is_file():
            raise UserError(f"there is no configuration file {options.config}")
        settings = load_settings(config if config.exists() else None, os.environ)
        for warning in settings.warnings:
            say(f"warning: {warning}")
        report = self._prepare(settings)
        token = ensure_admin_token(options.app_dir / "admin.token")
        ensure_ca(options.app_dir / "ca")
        self._sockets = self._open_sockets(settings)
        try:
            self._catch_signals()
            self._start_all(config if config.exists() else None)
            code = self._wait_ready()
            if code is not None:
                return self._end(code)
            self._announce(settings, report, token)
            self._watch()
            return self._end(0)
        finally:
            self._sockets.close()
            (options.app_dir / "run.json").unlink(missing_ok=True)

    def _prepare(self, settings: Settings) -> BootstrapReport:
        """Migrate the stores and seed an empty one before anybody serves; say which provider keys cannot be used."""
        clock = SystemClock()
        store = open_store(self.options.app_dir, settings, clock, Ids(clock))
        try:
            report = seed(store, settings, reseed=self.options.reseed)
            for sentence in unusable_keys(store, os.environ):
                say(f"warning: {sentence}")
        finally:
            store.database.close()
        try:
            open_logs(store_path(self.options.app_dir, settings.logs_store.config.path, "logs.db"), clock=clock).close()
        except (UserError, StoreUnavailable) as fault:
            raise UserError(f"{fault}; it holds logs and no budgets: move it away and start again") from None
        return report

    def _open_sockets(self, settings: Settings) -> Sockets:
        options = self.options
        opened: list[list[socket.socket]] = []

        def listen(host: str, port: int, what: str, option: str) -> list[socket.socket]:
            try:
                sockets = open_sockets(host, port)
            except OSError as fault:
                for group in opened:
                    for sock in group:
                        sock.close()
                raise UserError(
                    f"cannot listen on {host}:{port} for the {what}: {fault.strerror or fault}; choose another with {option}"
                ) from None
            opened.append(sockets)
            return sockets

        return Sockets(
            gateway=listen(options.host, options.port, "gateway", "--port"),
            listeners=[
                listen(options.host, listener.port, "listener", "gateway.listeners") for listener in settings.gateway.listeners
            ],
            console=listen(options.console_host, options.console_port, "console", "--console-port"),
            inspect=listen("127.0.0.1", options.inspect_port, "inspector", "--inspect-port") if options.inspect else [],
            feed=listen("127.0.0.1", 0, "inspector's feed", "--no-inspect") if options.inspect else [],
        )

    def _spec(self, config: Path | None) -> ChildSpec:
        options, sockets = self.options, self._given_sockets()
        return ChildSpec(
            role="worker",
            app_dir=str(options.app_dir.resolve()),
            config=str(config.resolve()) if config else None,
            host=options.host,
            port=_port(sockets.gateway),
            console_host=options.console_host,
            console_port=_port(sockets.console),
            inspect_port=_port(sockets.inspect) if sockets.inspect else None,
            feed_port=_port(sockets.feed) if sockets.feed else 0,
            feed_token=secrets.token_hex(16) if sockets.feed else "",
            inspect_token=secrets.token_hex(16),
            grace=options.grace,
            log_level=options.log_level,
            mode=options.mode,
            version=VERSION,
        )

    def _given_sockets(self) -> Sockets:
        if self._sockets is None:
            raise RuntimeError("the sockets are not open yet")
        return self._sockets

    def _start_all(self, config: Path | None) -> None:
        sockets, spec = self._given_sockets(), self._spec(config)
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
        self._start("console", console)
        for number in range(self.options.workers):
            self._start(f"worker {number + 1}" if self.options.workers > 1 else "worker", worker)

    def _start(self, name: str, spec: ChildSpec, failures: int = 0) -> None:
        fds = [*spec.gateway_fds, *(fd for group in spec.listener_fds for fd in group)]
        fds += [*spec.console_fds, *spec.inspect_fds, *spec.feed_fds]
        process = subprocess.Popen(
            [sys.executable, *interpreter_flags(spec.role), "-m", f"addons.process.{spec.role}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            cwd=PROJECT,
            bufsize=0,
        )
        child = Child(name, spec, process, time.monotonic(), failures=failures)
        with contextlib.suppress(BrokenPipeError):
            _pipe(process.stdin).write(spec.to_line())
        os.set_blocking(_pipe(process.stdout).fileno(), False)
        self._selector.register(_pipe(process.stdout), selectors.EVENT_READ, child)
        self.children.append(child)

    def _wait_ready(self) -> int | None:
        """None once every child is ready; else the exit code to end with. A child's error that the user can mend is also ours."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._stopping and not all(child.ready for child in self.children):
            if time.monotonic() > deadline:
                say_error(f"not ready within {READY_SECONDS:.0f} seconds")
                return 1
            dead = self._look(0.2)
            if dead and not self._stopping:
                code = dead[0].process.wait()
                if code == USER_ERROR_EXIT:
                    return USER_ERROR_EXIT
                say_error(f"the {dead[0].name} process ended at start with code {code}")
                return 1
        return 0 if self._stopping else None

    def _watch(self) -> None:
        """Until a signal: restart whatever died, after its pause. A pause holds up neither a signal nor the other children."""
        due: list[tuple[float, Child, int]] = []
        while not self._stopping:
            now = time.monotonic()
            for entry in [entry for entry in due if entry[0] <= now]:
                due.remove(entry)
                self._start(entry[1].name, entry[1].spec, entry[2])
            for child in self._look(max(0.0, min([WATCH_SECONDS, *(entry[0] - now for entry in due)]))):
                if self._stopping:
                    return
                code = child.process.wait()
                now = time.monotonic()
                failures = 1 if now - child.started > STABLE_SECONDS else child.failures + 1
                pause = RESTART_PAUSE_SECONDS[min(failures, len(RESTART_PAUSE_SECONDS)) - 1]
                logger.error("the %s process ended with code %s; it is started again", child.name, code)
                due.append((now + pause, child, failures))

    def _look(self, timeout: float) -> list[Child]:
        """Wait for news from the children; returns those that have ended, taken off the list."""
        dead: list[Child] = []
        for key, _ in self._selector.select(timeout):
            child: Child | None = key.data
            if child is None:
                os.read(key.fd, 4096)
                continue
            data = os.read(key.fd, 4096)
            child.buffer += data
            if READY.encode() in child.buffer.splitlines():
                child.ready = True
            if not data:
                self._forget(child)
                dead.append(child)
        return dead

    def _forget(self, child: Child) -> None:
        self._selector.unregister(_pipe(child.process.stdout))
        _pipe(child.process.stdout).close()
        with contextlib.suppress(OSError):
            _pipe(child.process.stdin).close()
        self.children.remove(child)

    def _announce(self, settings: Settings, report: BootstrapReport, token: str) -> None:
        options, sockets = self.options, self._given_sockets()
        gateway = url_of(options.host, _port(sockets.gateway))
        console = url_of(options.console_host, _port(sockets.console))
        inspector = url_of("127.0.0.1", _port(sockets.inspect)) if sockets.inspect else None
        run = {
            "pid": os.getpid(),
            "gateway": gateway,
            "console": console,
            "inspector": inspector,
            "version": VERSION,
            "started_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        _write_private(options.app_dir / "run.json", json.dumps(run))
        spec = self.children[0].spec
        inspector_link = f"{inspector}/?token={spec.inspect_token}" if inspector else None
        for line in welcome(options.app_dir, settings, report, gateway, f"{console}/?token={token}", inspector_link):
            say(line)
        say(f"ready gateway={gateway} console={console} inspector={inspector or 'off'}")

    def _catch_signals(self) -> None:
        """Signals wake the selector through a pipe, so that no wait is longer than it must be."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        signal.set_wakeup_fd(writer)
        self._selector.register(reader, selectors.EVENT_READ, None)

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopping = True

        for name in ("SIGTERM", "SIGINT"):
            signal.signal(getattr(signal, name), stop)

    def _end(self, code: int) -> int:
        """End the workers first, so that the last calls are still seen by the console; then the console."""
        self._stopping = True
        # Ours keep the ports open as well: a newcomer would wait in their queue only to be cut off at the end.
        for group in (self._given_sockets().gateway, *self._given_sockets().listeners):
            for sock in group:
                sock.close()
        workers = [child for child in self.children if child.spec.role == "worker"]
        _stop(workers, self.options.grace + KILL_AFTER_SECONDS)
        _stop([child for child in self.children if child.spec.role == "console"], CONSOLE_STOP_SECONDS)
        return code


def _stop(children: Sequence[Child], seconds: float) -> None:
    for child in children:
        with contextlib.suppress(OSError):
            child.process.terminate()
    deadline = time.monotonic() + seconds
    for child in children:
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.error("the %s process did not end in time and is killed", child.name)
            child.process.kill()
            child.process.wait()


def interpreter_flags(role: str) -> list[str]:
    """Workers run with -O: mitmproxy checks the type of every field of every message under `assert`'s flag, a fifth of the
    time of a call. Nothing of ours depends on asserts. Other children inherit what this process was started with."""
    return ["-O"] if role == "worker" or sys.flags.optimize else []


def say(line: str) -> None:
    """A line for whoever started the gateway; a closed terminal is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


def _port(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


def url_of(host: str, port: int) -> str:
    shown = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _pipe[T](pipe: T | None) -> T:
    if pipe is None:
        raise RuntimeError("a child was started without its pipes")
    return pipe


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step; only the owner can read it."""
    temporary = path.with_name(path.name + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(temporary, path)
