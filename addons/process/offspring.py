"""One child process as its parent sees it: started with its orders, spoken to over its stdin, heard on its stdout."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from addons.process.children import PONG, READY
from addons.process.pulse import Pulse

PROJECT = Path(__file__).resolve().parents[2]
LONGEST_LINE = 4096
"""Children say `ready` and `pong 7`; whatever else comes on their stdout is not kept."""
KILLED = -9


class Offspring:
    """A running child. Its pipes never block the parent: what a stopped child does not take waits in `unsent`."""

    def __init__(self, name: str, role: str, process: subprocess.Popen[bytes], started_at: float) -> None:
        """`name` is for people (`worker 2`), `role` is `worker` or `console`; `started_at` on the parent's clock, in seconds."""
        self.name = name
        self.role = role
        self.process = process
        self.started_at = started_at
        self.ready = False
        self.leaving = False
        """Told to end, or to finish its calls and end."""
        self.end_by: float | None = None
        """When a leaving child is killed."""
        self.killed_because: str | None = None
        """What has been said of it when it was killed."""
        self.pulse = Pulse()
        self.unsent = b""
        self._heard = b""
        for pipe in (process.stdin, process.stdout):
            if pipe is None:
                raise RuntimeError("a child was started without its pipes")
            os.set_blocking(pipe.fileno(), False)
        self.stdin = process.stdin.fileno() if process.stdin is not None else -1
        self.stdout = process.stdout.fileno() if process.stdout is not None else -1

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, data: bytes) -> None:
        """Send a line. A child that is gone is told nothing; that it is gone comes to light elsewhere."""
        self.unsent += data
        self.flush()

    def flush(self) -> None:
        """Send as much of `unsent` as the pipe takes now."""
        if not self.unsent:
            return
        try:
            sent = os.write(self.stdin, self.unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self.unsent)
        self.unsent = self.unsent[sent:]

    def hear(self, now: float) -> bool:
        """Take in what it said; False once its stdout has ended."""
        try:
            data = os.read(self.stdout, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, rest = (self._heard + data).split(b"\n")
        self._heard = rest[-LONGEST_LINE:]
        for line in lines:
            self._understand(line.decode(errors="replace").split(), now)
        return bool(data)

    def _understand(self, words: Sequence[str], now: float) -> None:
        if words == [READY]:
            self.ready = True
        elif len(words) == 2 and words[0] == PONG and words[1].isascii() and words[1].isdigit():
            self.pulse.answered(int(words[1]), now)

    def ask(self, now: float) -> None:
        """Put the next question, when it is time for it."""
        number = self.pulse.due(now)
        if number is not None:
            self.tell(b"ping %d\n" % number)

    def terminate(self) -> None:
        """SIGTERM."""
        with contextlib.suppress(OSError):
            self.process.terminate()

    def kill(self, because: str) -> None:
        """SIGKILL, which ends a stopped process too."""
        self.killed_because = because
        with contextlib.suppress(OSError):
            self.process.kill()

    def close(self) -> None:
        """Let its pipes go. A child that still lived sees the end of its lifeline."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def start(name: str, role: str, orders: Sequence[bytes], fds: Sequence[int], now: float) -> Offspring:
    """Start `addons.process.<role>` with those descriptors inherited, and send it its orders."""
    process = subprocess.Popen(
        [sys.executable, *interpreter_flags(role), "-m", "addons.process.role", role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        cwd=PROJECT,
        bufsize=0,
    )
    child = Offspring(name, role, process, now)
    child.tell(b"".join(orders))
    return child


def interpreter_flags(role: str) -> list[str]:
    """Workers run with -O: mitmproxy checks the type of every field of every message under `assert`'s flag, a fifth of the
    time of a call. Nothing of ours depends on asserts. Other children inherit what this process was started with."""
    return ["-O"] if role == "worker" or sys.flags.optimize else []


def how_it_ended(code: int) -> str:
    """`with code 3`, or `by SIGKILL`."""
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
