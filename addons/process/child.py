"""Running somebody else's program as if we were not there: its terminal, its signals, its exit code."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""What shells, `env` and `nohup` answer for a command that is not there, or that cannot be run."""

_FORWARDED = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_FROM_THE_TERMINAL = ("SIGINT", "SIGQUIT")


class Ended(BaseException):
    """A signal asked this process to end. Not an Exception, so that only clean-up stands in its way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class CannotRun(Exception):
    """The command is not there or cannot be run. The text is for the user; `exit_code` is 127 or 126."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Ended` inside the block, so that what it started is stopped as well."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Ended(number)

    with _handlers({"SIGTERM": end, "SIGHUP": end}):
        yield


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """The file that `name` means under the caller's PATH. Raises CannotRun."""
    found = shutil.which(name, path=environ.get("PATH"))
    if found is not None:
        return found
    if os.sep in name and Path(name).exists():
        what = "is a directory" if Path(name).is_dir() else "is not executable"
        raise CannotRun(f"{name} {what}", NOT_EXECUTABLE)
    raise CannotRun(f"{name}: command not found", NOT_FOUND)


def run_child(program: str, command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `command` (its file is `program`) to its end and return its exit code, 128 + n when signal n ended it.

    It shares our process group, terminal, stdin, stdout and stderr. Signals sent to us alone are passed on; what the terminal sends
    to the whole group (Ctrl-C, Ctrl-\\) reaches it without us. Raises CannotRun.
    """
    relay = _Relay()
    with relay.listening():
        try:
            child = subprocess.Popen(list(command), executable=program, env=dict(environ))
        except PermissionError:
            raise CannotRun(f"{command[0]} is not executable", NOT_EXECUTABLE) from None
        except OSError as fault:
            raise CannotRun(f"{command[0]} cannot be run: {fault.strerror or fault}", NOT_EXECUTABLE) from None
        relay.attach(child)
        code = _wait(child)
    return 128 - code if code < 0 else code


def _wait(child: subprocess.Popen[bytes]) -> int:
    while True:
        # Where Ctrl-C was being ignored it still may raise here (Windows): the program decides what it means, not we.
        with contextlib.suppress(KeyboardInterrupt):
            return child.wait()


class _Relay:
    """Passes signals on to the child; those that come before it exists wait for it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with _handlers(dict.fromkeys(_FORWARDED, self._handle)):
            yield

    def attach(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        for number in self._early:
            self._send(child, number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._child is None:
            self._early.append(number)
        elif not (signal.Signals(number).name in _FROM_THE_TERMINAL and _in_foreground()):
            self._send(self._child, number)

    @staticmethod
    def _send(child: subprocess.Popen[bytes], number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            child.send_signal(number)


@contextlib.contextmanager
def _handlers(wanted: Mapping[str, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Handle signals by name inside the block; those that this system does not have are left out."""
    before: dict[int, Any] = {}
    for name, handler in wanted.items():
        number = getattr(signal, name, None)
        # One that is ignored (nohup, a shell's background job) stays so, here and in the child.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def _in_foreground() -> bool:
    """Whether our process group owns the terminal, so that Ctrl-C has reached the child as well as us."""
    if sys.platform == "win32":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
