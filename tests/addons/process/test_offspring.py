"""One child through its pipes: what it says is understood in any pieces, and telling it something never blocks or fails."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from addons.process.offspring import Offspring, how_it_ended, interpreter_flags
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes as POSIX knows them")


@contextmanager
def child(code: str) -> Iterator[Offspring]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    made = Offspring("worker 1", "worker", process, 0.0)
    try:
        yield made
    finally:
        process.kill()
        process.wait(10)
        made.close()


SAY = "import os, sys, time\ndef say(data):\n    os.write(1, data)\n    time.sleep(0.05)\n"


def test_ready_and_answers_come_in_any_pieces_and_among_other_lines() -> None:
    with child(SAY + "for piece in (b'a warning\\nrea', b'dy\\npo', b'ng 1', b'\\n', b'ready or not\\n'): say(piece)") as made:
        assert made.pulse.due(0.0) == 1
        eventually(lambda: made.hear(3.0), lambda open_still: not open_still)
        assert made.ready and made.pulse.asked_at is None


@pytest.mark.parametrize(
    "line", [b"already", b"pong", b"pong one", b"pong 2", b"pong 1 1", b"pong -1", b"\xff\xfe", b"pong \xc2\xb2"]
)
def test_other_lines_are_no_answers(line: bytes) -> None:
    with child(SAY + f"say({line!r} + b'\\n')") as made:
        made.pulse.due(0.0)
        eventually(lambda: made.hear(3.0), lambda open_still: not open_still)
        assert not made.ready and made.pulse.asked_at == 0.0


def test_endless_chatter_without_a_line_is_not_kept() -> None:
    with child("import os\nwhile True: os.write(1, b'x' * 65536)") as made:
        for _ in range(50):
            made.hear(0.0)
            time.sleep(0.002)
        assert len(made._heard) <= 4096


def test_a_quiet_child_is_open_still() -> None:
    with child("import time; time.sleep(60)") as made:
        assert made.hear(0.0) and not made.ready


def test_asking_puts_numbered_questions_at_their_time() -> None:
    with child("import sys\nfor line in sys.stdin: sys.stdout.write(line.replace('ping', 'pong')); sys.stdout.flush()") as made:
        made.ask(10.0)
        made.ask(10.5)
        assert made.pulse.number == 1
        eventually(lambda: made.hear(10.6) and made.pulse.asked_at, lambda asked: asked is None)
        made.ask(10.7)
        assert made.pulse.number == 1
        made.ask(12.0)
        assert made.pulse.number == 2


def test_a_child_that_is_gone_is_told_nothing_and_nothing_fails() -> None:
    with child("pass") as made:
        made.process.wait(10)
        made.tell(b"retire\n")
        assert made.unsent == b""
        made.terminate()
        made.kill("a reason")
        assert made.killed_because == "a reason"


def test_killing_ends_a_stopped_one() -> None:
    with child("import time; time.sleep(60)") as made:
        os.kill(made.pid, signal.SIGSTOP)
        made.kill("has not answered")
        assert made.process.wait(10) == -signal.SIGKILL


def test_workers_run_without_asserts() -> None:
    assert interpreter_flags("worker") == ["-O"]
    assert interpreter_flags("console") == (["-O"] if sys.flags.optimize else [])


@pytest.mark.parametrize(
    "code,words", [(0, "with code 0"), (3, "with code 3"), (-9, "by SIGKILL"), (-15, "by SIGTERM"), (-99, "by signal 99")]
)
def test_how_it_ended_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words
