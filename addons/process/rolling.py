"""A reload: a whole new generation of workers gets ready beside the old one, takes over, and then the console is replaced."""

import os
from dataclasses import replace
from pathlib import Path

from addons.process.accepted import Accepted, accept_anew
from addons.process.children import USER_ERROR_EXIT
from addons.process.family import Death, Family, Orders, Slot
from addons.process.offspring import how_it_ended
from addons.process.options import ServeOptions
from addons.process.prepare import prepare_stores
from store.config_store.bootstrap import BootstrapReport
from store.config_store.secret_text import environ_of
from store.errors import UserError

STARTS = 3
"""Of one reload's processes that die before they serve, beyond the first try of each: then it is given up."""


def read_anew(
    options: ServeOptions, config: Path | None, first: Accepted
) -> tuple[Accepted, list[str], BootstrapReport, list[str]]:
    """What a start would do now: (configuration, names of what only a restart changes, what was done with the file, warnings).

    `first` is the configuration of the start. Raises UserError, StoreUnavailable and OSError; then nothing is different.
    """
    if options.mode:
        raise UserError("the listeners of --mode cannot be handed over; restart the gateway")
    accepted, left = accept_anew(config, first, environ_of(options.app_dir, os.environ))
    report, unusable = prepare_stores(options, accepted.settings)
    return accepted, left, report, [*accepted.settings.warnings, *unusable]


class Reload:
    """One reload on its way. `step` takes it further, `died` tells it of its processes; until `over`.

    A worker serves from the moment it is ready, and an old one is let go only when every new one is. When a new one cannot
    start, all of them are let go, and the old ones have never stopped.
    """

    def __init__(self, family: Family, accepted: Accepted, *, worker_seconds: float, console_seconds: float) -> None:
        """`worker_seconds` and `console_seconds`: how long an old process may take to end."""
        self.over = False
        self.failure: str | None = None
        """Why it was given up, as a part of a sentence."""
        self._family = family
        self._accepted = accepted
        self._seconds = {"worker": worker_seconds, "console": console_seconds}
        self._starts_left = STARTS
        self._stage = "worker"

    @property
    def workers_replaced(self) -> bool:
        """The new workers have taken over, whatever becomes of the console."""
        return self._stage != "worker"

    def begin(self) -> None:
        """Start the new generation of the present stage."""
        for slot in self._slots():
            self._start(slot)

    def step(self) -> None:
        """Once every new process is ready: let the old ones go, and turn to the next stage."""
        slots = self._slots()
        if self.over or not all(slot.successor is not None and slot.successor.ready for slot in slots):
            return
        for slot in slots:
            self._take_over(slot)
        if self._stage == "worker":
            self._stage = "console"
            self.begin()
        else:
            self.over = True

    def died(self, death: Death) -> None:
        """A new process died before it took over. By accident: it is started again; over what it was told: nothing helps."""
        if death.slot is None or self.over:
            return
        because = death.child.killed_because
        if because is None and death.code != USER_ERROR_EXIT and self._starts_left > 0:
            self._starts_left -= 1
            self._start(death.slot)
            return
        self.failure = f"the new {death.slot.name} process {because or 'ended ' + how_it_ended(death.code)}"
        self.abandon()

    def abandon(self) -> None:
        """Let go of every new process that has not taken over; a worker among them may have calls already."""
        for slot in self._family.slots:
            if slot.successor is not None:
                child, slot.successor = slot.successor, None
                self._family.let_go(child, self._seconds[slot.role], _word(slot))
        self.over = True

    def _slots(self) -> list[Slot]:
        return [slot for slot in self._family.slots if slot.role == self._stage]

    def _start(self, slot: Slot) -> None:
        orders = Orders(replace(slot.orders.spec, config=_path(self._accepted)), self._accepted)
        slot.successor = self._family.start(slot, orders)

    def _take_over(self, slot: Slot) -> None:
        old, slot.child, slot.successor = slot.child, slot.successor, None
        slot.orders = Orders(replace(slot.orders.spec, config=_path(self._accepted)), self._accepted)
        slot.due = None
        if old is not None:
            self._family.let_go(old, self._seconds[slot.role], _word(slot))


def _word(slot: Slot) -> bytes | None:
    return b"retire" if slot.role == "worker" else None


def _path(accepted: Accepted) -> str | None:
    return accepted.source if accepted.from_file else None
