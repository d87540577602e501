"""Children that hang, that never get ready, that take nothing: found, killed and replaced, while the others are left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from addons.process import pulse
from addons.process.accepted import read_accepted
from addons.process.family import Family, Orders, Slot
from addons.process.offspring import Offspring
from addons.process.options import ChildSpec
from addons.process.pulse import AwakeClock
from tests.addons.process.stage import SERVE, TALK, Stage
from tests.support.process_tree import exists
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals as POSIX knows them")

QUICK = ("pulse.PING_SECONDS=0.1", "pulse.SILENCE_SECONDS=1.0", "pulse.LONGEST_STEP_SECONDS=0.3", "WATCH_SECONDS=0.1")


# -- with a whole supervisor


def test_a_stopped_child_is_killed_and_replaced_and_the_others_are_not(stage: Stage) -> None:
    stage.play("worker", TALK)
    stage.play("console", TALK)
    process = stage.ready(*QUICK, workers=2)
    wedged, well = [event["pid"] for event in stage.events("worker", "started")]
    time.sleep(1.5)
    assert stage.complained() == "" and len(stage.events(word="started")) == 3
    os.kill(wedged, signal.SIGSTOP)
    eventually(lambda: stage.events("worker", "started"), lambda found: len(found) == 3)
    assert not exists(wedged) and exists(well)
    (line,) = stage.complained().splitlines()
    assert "the worker " in line and line.endswith("process has not answered for 1 seconds and is killed and replaced")
    assert len(stage.events("console", "started")) == 1
    assert stage.end(process) == 0


def test_a_loop_that_hangs_in_a_living_process_is_found_too(stage: Stage) -> None:
    """Nothing answers although the process runs and its pipes are open."""
    stage.play("worker", "n = earlier('started')\n" + "if n > 1:\n    talk()\n" + SERVE)
    stage.play("console", TALK)
    process = stage.ready(*QUICK)
    eventually(lambda: stage.events("worker", "started"), lambda found: len(found) == 2)
    time.sleep(1.2)
    assert len(stage.events("worker", "started")) == 2
    assert stage.end(process) == 0


def test_everybody_stopped_at_once_and_woken_again_is_nobodys_fault(stage: Stage) -> None:
    for role in ("worker", "console"):
        stage.play(role, TALK)
    process = stage.ready(*QUICK)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(2.5)
    # The supervisor wakes first, as bad luck would have it.
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGCONT)
    time.sleep(1.2)
    assert stage.complained() == "" and len(stage.events(word="started")) == 2
    assert stage.end(process) == 0


def test_a_restarted_child_that_never_gets_ready_is_replaced(stage: Stage) -> None:
    stage.play("worker", "talk()\nn = earlier('started')\nif n == 2:\n    told.wait()\n    os._exit(1)\n" + SERVE)
    stage.play("console", TALK)
    process = stage.ready(*QUICK, "pulse.READY_SECONDS=5.0")
    os.kill(stage.events("worker", "started")[0]["pid"], signal.SIGKILL)
    eventually(lambda: stage.events("worker", "started"), lambda found: len(found) == 3, 15)
    assert "the worker process was not ready within 5 seconds and is killed" in stage.complained()
    assert stage.end(process) == 0


def test_a_child_that_closes_its_output_and_lives_on_is_of_no_use(stage: Stage) -> None:
    slow = "n = earlier('started')\nprint('ready', flush=True)\n"  # ready is noticed first, then the silence
    stage.play("worker", slow + "if n == 1:\n    __import__('time').sleep(0.5)\n    os.close(1)\ntold.wait()\n")
    process = stage.ready(*QUICK[1:])
    first, _ = eventually(lambda: stage.events("worker", "started"), lambda found: len(found) == 2, 15)
    assert not exists(first["pid"])
    assert stage.end(process) == 0


def test_the_console_is_told_how_everybody_is_and_again_when_that_changes(stage: Stage) -> None:
    for role in ("worker", "console"):
        stage.play(role, TALK)
    process = stage.ready(workers=2)

    def reports() -> list[dict[str, object]]:
        return [json.loads(event["rest"]) for event in stage.events(word="family")]

    eventually(reports, bool)
    dead = stage.events("worker", "started")[0]["pid"]
    os.kill(dead, signal.SIGKILL)
    final = eventually(reports, lambda found: [one["restarts"] for one in found[-1]["processes"]].count(1) == 1
                       and all(one["ready"] for one in found[-1]["processes"]))[-1]  # fmt: skip
    assert [one["name"] for one in final["processes"]] == ["console", "worker 1", "worker 2"]  # type: ignore[attr-defined, index]
    assert dead not in [one["pid"] for one in final["processes"]]  # type: ignore[attr-defined, index]
    assert (final["leaving"], final["reloads"], final["reloads_failed"]) == (0, 0, 0)
    count = len(reports())
    time.sleep(1.2)
    assert len(reports()) == count, "it is told what it knows"
    assert stage.events("worker", "family") == []
    assert stage.end(process) == 0


# -- alone


class Hands:
    at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def family() -> Iterator[tuple[Family, Hands]]:
    hands = Hands()
    made = Family(AwakeClock(hands), launch=sleeper)
    made.clock.tick()
    yield made, hands
    for child in list(made.everyone()):
        child.process.kill()
        child.process.wait(10)
        child.close()
    made.close()


def sleeper(name: str, role: str, orders: Sequence[bytes], fds: Sequence[int], now: float) -> Offspring:
    """A child that says it is ready, and takes nothing of what it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    return Offspring(name, role, process, now)


def orders(role: str = "worker", **fds: object) -> Orders:
    return Orders(ChildSpec(role, "/app", None, "127.0.0.1", 0, "127.0.0.1", 0, None, **fds), read_accepted(None, {}))  # type: ignore[arg-type]


def ready(family: Family) -> None:
    while not all(slot.ready for slot in family.slots):
        assert family.turn(5.0) == []


def test_orders_name_every_socket_once() -> None:
    given = orders(gateway_fds=(3, 4), listener_fds=((5,), (6, 7)), console_fds=(8,), inspect_fds=(9,), feed_fds=(10,))
    assert given.fds() == [3, 4, 5, 6, 7, 8, 9, 10]
    spec, settings = given.lines()
    assert ChildSpec.from_line(spec) == given.spec and json.loads(settings)[:2] == ["config.json", "{}"]


def test_silence_is_counted_on_the_clock_that_was_handed_in(family: tuple[Family, Hands]) -> None:
    made, hands = family
    made.slots = [Slot("worker", orders())]
    made.fill(made.slots[0])
    ready(made)
    child = made.slots[0].child
    assert child is not None
    made.look_after()
    for _ in range(int(pulse.SILENCE_SECONDS) - 1):
        hands.at += 1.0
        made.turn(0.0)
        made.look_after()
    assert child.killed_because is None
    hands.at += 1.0
    made.turn(0.0)
    made.look_after()
    assert child.killed_because == f"has not answered for {pulse.SILENCE_SECONDS:.0f} seconds"
    (death,) = made.turn(5.0)
    assert (death.child, death.code, death.slot, death.early) == (child, -signal.SIGKILL, made.slots[0], False)
    made.replace_later(made.slots[0], death)
    assert made.slots[0].due == made.clock.now + pulse.RESTART_PAUSE_SECONDS[0] and made.slots[0].restarts == 1


def test_what_a_stopped_child_does_not_take_neither_blocks_nor_is_lost(family: tuple[Family, Hands], tmp_path: Path) -> None:
    made, _ = family
    slot = Slot("worker", orders())
    made.slots = [slot]
    made.fill(slot)
    ready(made)
    child = slot.child
    assert child is not None
    line = b"x" * 99_999
    for _ in range(5):
        made.tell(child, line)
    assert 300_000 < len(child.unsent) < 500_000
    # The rest goes when there is room: here the test reads in the child's place.
    other = os.open(f"/proc/{child.pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK) if os.path.exists("/proc/self/fd") else None
    if other is not None:
        got = b""
        while len(got) < 500_000:
            try:
                got += os.read(other, 65536)
            except BlockingIOError:
                made.turn(1.0)
        os.close(other)
        assert got == (line + b"\n") * 5 and child.unsent == b""


def test_a_leaving_child_has_its_time_and_no_more(family: tuple[Family, Hands]) -> None:
    made, hands = family
    slot = Slot("worker", orders())
    made.slots = [slot]
    made.fill(slot)
    ready(made)
    child, slot.child = slot.child, None
    assert child is not None
    made.let_go(child, 3.0, b"retire")
    hands.at += 1.9
    made.turn(0.0)
    made.look_after()
    assert child.killed_because is None and made.leaving == [child]
    hands.at += 1.2
    made.turn(0.0)
    made.look_after()
    assert child.killed_because == "did not end in time"
    (death,) = made.turn(5.0)
    assert death.slot is None and made.leaving == []
