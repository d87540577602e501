"""What worker and console processes have in common: orders on stdin, sockets by number, a lifeline, an orderly end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from addons.process.options import ChildSpec
from store.errors import StoreUnavailable, UserError
from store.settings import Settings, load_settings

READY = "ready"
USER_ERROR_EXIT = 2

_ended = threading.Event()
_waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []


def read_spec(role: str) -> tuple[ChildSpec, Settings]:
    """The orders from the supervisor, and the settings they name. Ends the process with 2 for an error the user can mend."""
    spec = ChildSpec.from_line(sys.stdin.buffer.readline())
    if spec.role != role:
        raise ValueError(f"orders for a {spec.role} came to a {role}")
    configure_logging(spec.log_level, role)
    try:
        settings = load_settings(Path(spec.config) if spec.config else None, os.environ)
    except UserError as fault:
        say_error(str(fault))
        sys.exit(USER_ERROR_EXIT)
    threading.Thread(target=_watch_lifeline, name="lifeline", daemon=True).start()
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


def adopt(fds: Sequence[int]) -> list[socket.socket]:
    """Inherited listening sockets as objects of this process."""
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for sock in sockets:
        sock.setblocking(False)
    return sockets


def report_ready() -> None:
    """Tell the supervisor that everything listens."""
    print(READY, flush=True)


def until_told_to_end() -> "asyncio.Task[bool]":
    """A task that ends at SIGTERM, or when the supervisor is gone."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    _waiters.append((loop, event))
    signal.signal(signal.SIGTERM, lambda number, frame: _end())
    if _ended.is_set():
        event.set()
    return loop.create_task(event.wait(), name="until told to end")


def _watch_lifeline() -> None:
    """stdin ends when the supervisor does, however it does: nobody is left to be served."""
    # Not through sys.stdin: a thread that holds its lock at the interpreter's end is a fatal error.
    while os.read(0, 1):
        pass
    _end()


def _end() -> None:
    _ended.set()
    for loop, event in _waiters:
        # A loop that is closed already has ended: a second signal finds nobody to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)


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
