"""The children of the supervisor: places that are kept filled, those that are leaving, and whether each of them still turns."""

import json
import logging
import os
import selectors
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from addons.process import offspring, pulse
from addons.process.accepted import Accepted
from addons.process.offspring import Offspring, how_it_ended
from addons.process.options import ChildSpec
from addons.process.pulse import AwakeClock, Backoff

logger = logging.getLogger(__name__)

LAST_WAIT_SECONDS = 1.0
"""For a child that has closed its pipe to be gone; one that did so and lives is of no use."""

type Launch = Callable[[str, str, Sequence[bytes], Sequence[int], float], Offspring]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a child is started with."""

    spec: ChildSpec
    accepted: Accepted

    def lines(self) -> tuple[bytes, bytes]:
        return self.spec.to_line(), self.accepted.to_line()

    def fds(self) -> list[int]:
        """Every socket that it serves."""
        spec = self.spec
        return [
            *spec.gateway_fds, *(fd for group in spec.listener_fds for fd in group),
            *spec.console_fds, *spec.inspect_fds, *spec.feed_fds,
        ]  # fmt: skip


@dataclass(slots=True)
class Slot:
    """A place in the family: `worker 2` is always there, whichever process it is."""

    name: str
    orders: Orders
    child: Offspring | None = None
    successor: Offspring | None = None
    """The process of a reload that is to take this place."""
    due: float | None = None
    """When an empty place is filled again."""
    restarts: int = 0
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def role(self) -> str:
        return self.orders.spec.role

    @property
    def ready(self) -> bool:
        return self.child is not None and self.child.ready


@dataclass(frozen=True, slots=True)
class Death:
    """A child has ended. `slot` is the place it had or (`early`) was to take; None for one that was leaving."""

    child: Offspring
    code: int
    slot: Slot | None = None
    early: bool = False


class Family:
    """Starts children, hears them, finds those that died or hang. Decides nothing about who should be there."""

    def __init__(self, clock: AwakeClock, launch: Launch = offspring.start) -> None:
        self.clock = clock
        self.slots: list[Slot] = []
        self.leaving: list[Offspring] = []
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._launch = launch
        self._writing: set[int] = set()
        self._reported: dict[int, bytes] = {}

    def everyone(self) -> Iterator[Offspring]:
        """Every child that has not been seen dead."""
        for slot in self.slots:
            yield from (child for child in (slot.child, slot.successor) if child is not None)
        yield from self.leaving

    def workers(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.role == "worker"]

    def start(self, slot: Slot, orders: Orders) -> Offspring:
        """A new child for a place; whoever calls puts it there."""
        child = self._launch(slot.name, slot.role, orders.lines(), orders.fds(), self.clock.now)
        self.selector.register(child.stdout, selectors.EVENT_READ, child)
        self._watch_unsent(child)
        return child

    def fill(self, slot: Slot) -> None:
        """Start the child of an empty place."""
        slot.due = None
        slot.child = self.start(slot, slot.orders)

    def let_go(self, child: Offspring, seconds: float, word: bytes | None = None) -> None:
        """Ask a child that has left its place to end (`word` in place of SIGTERM), at the latest in so many seconds."""
        child.leaving = True
        child.end_by = self.clock.now + seconds
        self.leaving.append(child)
        if word is None or not child.ready:
            child.terminate()
        else:
            self.tell(child, word)

    def tell(self, child: Offspring, word: bytes) -> None:
        """One line for a child."""
        child.tell(word + b"\n")
        self._watch_unsent(child)

    def turn(self, seconds: float) -> list[Death]:
        """Wait for news, at most so long; returns who has ended, taken out of the family."""
        closed: list[Offspring] = []
        events = self.selector.select(seconds)
        now = self.clock.tick()
        for key, _ in events:
            child: Offspring | None = key.data
            if child is None:
                os.read(key.fd, 4096)
            elif key.fd == child.stdin:
                child.flush()
                self._watch_unsent(child)
            elif not child.hear(now):
                closed.append(child)
        return [self._bury(child) for child in list(self.everyone()) if child in closed or child.process.poll() is not None]

    def look_after(self) -> None:
        """Ask everybody who serves whether they still do; kill who is silent, who does not get ready, who does not leave."""
        now = self.clock.now
        for child in list(self.everyone()):
            if child.killed_because is not None:
                continue
            if child.leaving:
                if child.end_by is not None and now >= child.end_by:
                    self._kill(child, "did not end in time", "is killed")
            elif not child.ready:
                if now - child.started_at >= pulse.READY_SECONDS:
                    self._kill(child, f"was not ready within {pulse.READY_SECONDS:.0f} seconds", "is killed")
            elif child.pulse.is_silent(now):
                self._kill(child, f"has not answered for {pulse.SILENCE_SECONDS:.0f} seconds", "is killed and replaced")
            else:
                child.ask(now)
                self._watch_unsent(child)

    def replace_later(self, slot: Slot, death: Death) -> None:
        """The child of a place has died: it is filled again after a pause that grows with every early death."""
        now = self.clock.now
        slot.restarts += 1
        slot.due = now + slot.backoff.died(now - death.child.started_at)
        if death.child.killed_because is None:
            logger.error("the %s process ended %s; it is started again", slot.name, how_it_ended(death.code))

    def report(self, **more: int) -> None:
        """Tell the consoles how everybody is, when that has changed. `more` are numbers of the caller's."""
        text = json.dumps(
            {
                "processes": [
                    {
                        "name": slot.name, "role": slot.role, "pid": slot.child.pid if slot.child else None, "ready": slot.ready,
                        "restarts": slot.restarts,
                    }
                    for slot in self.slots
                ],
                "leaving": len(self.leaving),
                **more,
            }
        ).encode()  # fmt: skip
        for child in self.everyone():
            if child.role == "console" and child.ready and self._reported.get(child.pid) != text:
                self._reported[child.pid] = text
                self.tell(child, b"family " + text)

    def close(self) -> None:
        """Let go of the selector; the children have ended."""
        self.selector.close()

    def _kill(self, child: Offspring, because: str, so: str) -> None:
        logger.error("the %s process %s and %s", child.name, because, so)
        child.kill(because)

    def _bury(self, child: Offspring) -> Death:
        self.selector.unregister(child.stdout)
        if child.stdin in self._writing:
            self._writing.discard(child.stdin)
            self.selector.unregister(child.stdin)
        try:
            code = child.process.wait(LAST_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill(child, "has closed its output and goes on", "is killed")
            code = child.process.wait()
        child.close()
        self._reported.pop(child.pid, None)
        for slot in self.slots:
            if slot.child is child:
                slot.child = None
                return Death(child, code, slot)
            if slot.successor is child:
                slot.successor = None
                return Death(child, code, slot, early=True)
        self.leaving.remove(child)
        return Death(child, code)

    def _watch_unsent(self, child: Offspring) -> None:
        """Wait for room in the child's pipe exactly while something waits for it."""
        if bool(child.unsent) == (child.stdin in self._writing):
            return
        if child.unsent:
            self._writing.add(child.stdin)
            self.selector.register(child.stdin, selectors.EVENT_WRITE, child)
        else:
            self._writing.discard(child.stdin)
            self.selector.unregister(child.stdin)
