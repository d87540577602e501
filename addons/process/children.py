"""What worker and console processes have in common: orders on stdin, sockets by number, a lifeline, an orderly end.

Lines on stdin after the orders: `ping 7` (answered `pong 7` by the event loop, which shows that it turns), `retire` (others have
taken over: finish what is open, then end), `hurry` (end what is open now), `family {…}` (how all processes are, for the console).
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from addons.process.accepted import Accepted
from addons.process.options import ChildSpec
from store.config_store.secret_text import environ_of
from store.errors import StoreUnavailable, UserError
from store.settings import Settings, load_settings

READY = "ready"
PONG = "pong"
USER_ERROR_EXIT = 2


class Stdin:
    """Lines of the process's stdin, read without Python's own buffers: what they had read ahead would be lost to the lifeline."""

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._ahead = b""

    def line(self) -> bytes:
        """The next line with its end, waiting for it; without one, or empty, when stdin has ended."""
        while b"\n" not in self._ahead:
            data = os.read(self._fd, 65536)
            if not data:
                rest, self._ahead = self._ahead, b""
                return rest
            self._ahead += data
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line + b"\n"


class Told:
    """What the supervisor has told this process. The events belong to the loop that is running when this is made."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.end = asyncio.Event()
        """SIGTERM, or the supervisor is gone: take nothing new, finish what is open, end."""
        self.retire = asyncio.Event()
        """A newer process serves beside this one: let go, without breaking anything."""
        self.hurry = asyncio.Event()
        """Whatever is still open need not be waited for."""
        self.family: Callable[[bytes], None] = lambda report: None
        """Called on the loop with each report on the processes, one JSON object."""

    def hear(self, line: bytes) -> None:
        """One line from the supervisor, on the loop. Unknown ones are left alone."""
        word, _, rest = line.strip().partition(b" ")
        if word == b"ping":
            with contextlib.suppress(OSError):
                os.write(1, PONG.encode() + b" " + rest + b"\n")
        elif word in (b"retire", b"hurry"):
            getattr(self, word.decode()).set()
        elif word == b"family":
            self.family(rest)


_ended = threading.Event()
_before: list[bytes] = []
"""Lines that came before anybody waited for them."""
_listeners: list[Told] = []
_lock = threading.Lock()


def read_spec(role: str) -> tuple[ChildSpec, Settings]:
    """The orders from the supervisor, and the settings that go with them. Ends the process with 2 for a user's error."""
    stdin = Stdin()
    spec = ChildSpec.from_line(stdin.line())
    if spec.role != role:
        raise ValueError(f"orders for a {spec.role} came to a {role}")
    configure_logging(spec.log_level, role)
    environ = environ_of(Path(spec.app_dir), os.environ)
    try:
        if spec.settings_follow:
            settings = Accepted.from_line(stdin.line(), environ).settings
        else:
            settings = load_settings(Path(spec.config) if spec.config else None, environ)
    except UserError as fault:
        say_error(str(fault))
        sys.exit(USER_ERROR_EXIT)
    threading.Thread(target=_watch_lifeline, args=(stdin,), name="lifeline", daemon=True).start()
    return spec, settings


def configure_logging(level: str, role: str) -> None:
    """Plain lines on stderr. The root stays at WARNING or above unless more is asked for: libraries are chatty and slow."""
    wanted = getattr(logging, level.upper(), logging.INFO)
    logging.basicConfig(
        level=max(wanted, logging.WARNING) if wanted > logging.DEBUG else wanted,
        format=f"%(asctime)s %(levelname)s {role} %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for name in ("addons", "store"):
        logging.getLogger(name).setLevel(wanted)


def say_error(text: str) -> None:
    """One line for the user."""
    print(f"tollgate: {text}", file=sys.stderr, flush=True)


def say(line: str) -> None:
    """A line for whoever started the gateway; a closed terminal is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


def adopt(fds: Sequence[int]) -> list[socket.socket]:
    """Inherited listening sockets as objects of this process."""
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for sock in sockets:
        sock.setblocking(False)
    return sockets


def report_ready() -> None:
    """Tell the supervisor that everything listens."""
    print(READY, flush=True)


def listen_to_supervisor() -> Told:
    """What the supervisor tells from now on, and what it has told already. Needs a running loop."""
    told = Told()
    with _lock:
        _listeners.append(told)
        for line in _before:
            told.hear(line)
    signal.signal(signal.SIGTERM, lambda number, frame: _end())
    if _ended.is_set():
        told.end.set()
    return told


def ignore_terminal_signals() -> None:
    """Ctrl-C and a hang-up reach the whole group; they are for the supervisor, which tells its children what they mean."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _watch_lifeline(stdin: Stdin) -> None:
    """stdin ends when the supervisor does, however it does: nobody is left to be served."""
    # Not through sys.stdin: a thread that holds its lock at the interpreter's end is a fatal error.
    while line := stdin.line():
        with _lock:
            listeners = list(_listeners)
            if not listeners:
                _before.append(line)
        for told in listeners:
            # A loop that is closed already has ended: it need not be told.
            with contextlib.suppress(RuntimeError):
                told.loop.call_soon_threadsafe(told.hear, line)
    _end()


def _end() -> None:
    _ended.set()
    for told in list(_listeners):
        # A second signal, after the loop was closed, finds nobody to tell.
        with contextlib.suppress(RuntimeError):
            told.loop.call_soon_threadsafe(told.end.set)


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where there is one. An error the user can mend ends the process with one line and 2."""
    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)
    except UserError as fault:
        say_error(str(fault))
        sys.exit(USER_ERROR_EXIT)
    except StoreUnavailable as fault:
        say_error(str(fault))
        sys.exit(1)
