"""Generated traffic of several fake processes on one file, with deaths and clock jumps, against a naive independent model."""

import os
import random
from pathlib import Path

import pytest

from store.ledger.caps import reset_cap
from store.ledger.operations import HoldOperation
from store.ledger.types import Enforcement, Granted, Refused, Settled, Unit
from tests.store.ledger.auditor import Auditor, ModelCall, ModelCap
from tests.store.ledger.desk import Desk, HandClock

SEEDS = int(os.environ.get("TOLLGATE_SIMULATION_SEEDS", "12"))
FIRST_SEED = int(os.environ.get("TOLLGATE_SIMULATION_FIRST_SEED", "0"))
STEPS = 120

CAPS = {
    "key": (Unit.USD, 1_000, "1h", Enforcement.HARD),
    "team": (Unit.USD, 2_500, "1d", Enforcement.HARD),
    "prepaid": (Unit.USD, 6_000, None, Enforcement.HARD),
    "soft": (Unit.USD, 700, "1h", Enforcement.SOFT),
    "watch": (Unit.USD, 100, "1h", Enforcement.OBSERVE),
    "tokens": (Unit.TOKENS, 900, "1h", Enforcement.HARD),
    "requests": (Unit.REQUESTS, 25, "1h", Enforcement.HARD),
    "parallel": (Unit.CONCURRENT, 4, None, Enforcement.HARD),
}
WINDOW_MS = {"1h": 3_600_000, "1d": 86_400_000, None: None}


class World:
    """Two or three processes, one file, one clock, and the auditor beside them."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.clock = HandClock()
        self.made = 0
        self.auditor = Auditor()
        self.desks = [self.new_desk() for _ in range(self.random.choice([1, 2, 3]))]
        for cap_id, (unit, limit, window, enforcement) in CAPS.items():
            self.desks[0].cap(cap_id, limit, unit, window, enforcement=enforcement)
            self.auditor.caps[cap_id] = ModelCap(unit.value, limit, WINDOW_MS[window], enforcement.value, self.clock.now_ms())
        self.revision = self.desks[0].revision
        self.lines: list[list[tuple[HoldOperation, ModelCall]]] = [[] for _ in self.desks]

    def new_desk(self) -> Desk:
        self.made += 1
        return Desk(self.directory, self.clock, seed=self.made)

    # ---- what may happen

    def ask(self, side: int) -> None:
        self.desks[side].step()
        self.review(side)
        number = len(self.auditor.calls)
        caps = tuple(cap_id for cap_id in CAPS if self.random.random() < 0.5)
        bound = self.random.choice([0, 1, 10, 200, 200, 600, 3_000])
        floor = self.random.randint(0, bound)
        tokens = self.random.choice([0, 10, 300, 2_000])
        call = ModelCall(caps, bound, floor, tokens, self.clock.now_ms(), owner=side)
        self.auditor.calls[f"call-{number}"] = call
        operation = self.desks[side].ask(f"call-{number}", " ".join(caps), bound, floor, tokens=tokens, revision=self.revision)
        self.desks[side].step(operation)
        self.expect(side, operation, call, self.ahead(side))

    def settle(self, side: int) -> None:
        """Any process may settle any call that was granted: a late one, a repeated one, somebody else's."""
        known = [call_id for call_id, call in self.auditor.calls.items() if call.held]
        if not known:
            return
        call_id = self.random.choice(known[-12:])
        call = self.auditor.calls[call_id]
        cost = self.random.choice([0, call.bound // 3, call.bound, call.bound + 50])
        tokens, sent = self.random.randint(0, 500), self.random.random() < 0.9
        word = self.auditor.settled(call, cost, tokens, sent)
        settled = self.desks[side].settle(call_id, cost, tokens, sent=sent)
        assert isinstance(settled, Settled)
        assert (settled.repeated, settled.adjusted) == (word == "repeated", word == "adjusted")
        self.review(side)

    def die(self, side: int) -> None:
        """kill -9, then a new process in its place."""
        for operation, call in self.lines[side]:
            assert not operation.future.done()
            call.state = "refused"
        self.lines[side] = []
        self.desks[side].die()
        self.auditor.died(side)
        self.desks[side] = self.new_desk()

    def cancel(self, side: int) -> None:
        mine = [name for name, call in self.auditor.calls.items() if call.owner == side and call.state in ("open", "waiting")]
        if not mine:
            return
        call_id = self.random.choice(mine)
        call = self.auditor.calls[call_id]
        self.lines[side] = [pair for pair in self.lines[side] if pair[1] is not call]
        call.state = "void" if call.held else "refused"
        self.desks[side].cancel(call_id)
        self.review(side)

    def reset(self, side: int) -> None:
        cap_id = self.random.choice(list(CAPS))
        self.auditor.reset(cap_id, self.clock.now_ms())
        with self.desks[side].database.write() as connection:
            reset_cap(connection, cap_id, "simulated")

    def pass_time(self, side: int) -> None:
        self.clock.pass_ms(self.random.choice([1, 50, 700, 1_800_000, 3_600_000]))
        self.desks[side].step()
        self.review(side)

    # ---- what must be true

    def ahead(self, side: int) -> list[ModelCall]:
        return [call for _, call in self.lines[side]]

    def expect(self, side: int, operation: HoldOperation, call: ModelCall, ahead: list[ModelCall], waited: bool = False) -> None:
        """The answer of one hold is the one the model gives."""
        answer = operation.future.value  # type: ignore[attr-defined]
        word, amount = self.auditor.judge(call, self.clock.now_ms(), ahead)
        if word == "grant":
            assert isinstance(answer, Granted), (call, answer)
            assert answer.amount_nanos == amount, call
            self.auditor.granted(call, amount, self.clock.now_ms())
        elif word == "refuse":
            assert isinstance(answer, Refused), (call, answer)
            assert not answer.held_only
            call.state = "refused"
        elif isinstance(answer, Refused):
            assert answer.held_only, call
            assert waited and self.clock.now_ms() - call.asked_ms >= 2_000, "only waiting too long ends a wait"
            call.state = "refused"
        else:
            assert answer is None, (call, answer)
            self.lines[side].append((operation, call))

    def review(self, side: int) -> None:
        """Everybody in this process's line was looked at again, in order."""
        before, self.lines[side] = self.lines[side], []
        for operation, call in before:
            self.expect(side, operation, call, self.ahead(side), waited=True)

    def check(self) -> None:
        now_ms = self.clock.now_ms()
        desk = self.desks[0]
        with desk.database.read() as connection:
            open_calls = {row[0] for row in connection.execute("SELECT call_id FROM open_holds")}
        assert open_calls == {name for name, call in self.auditor.calls.items() if call.state == "open"}
        for cap_id, (unit, limit, _, enforcement) in CAPS.items():
            used, held = desk.sums(cap_id)
            assert (used, held) == (self.auditor.used(cap_id, now_ms), self.auditor.held(cap_id, now_ms)), cap_id
            if enforcement is Enforcement.HARD and unit in (Unit.REQUESTS, Unit.CONCURRENT):
                assert used + held <= limit, cap_id


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_the_ledger_answers_as_the_auditor_does(seed: int, tmp_path: Path) -> None:
    world = World(tmp_path, seed)
    actions = [world.ask] * 8 + [world.settle] * 7 + [world.pass_time] * 2 + [world.cancel, world.die, world.reset]
    for step in range(STEPS):
        side = world.random.randrange(len(world.desks))
        action = world.random.choice(actions)
        try:
            action(side)
            if step % 5 == 0:
                world.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {step}, {action.__name__} of process {side}: {error}") from error
    world.check()
    assert world.desks[0].differences() == []
    for side in range(len(world.desks)):
        world.die(side)
    world.check()
    assert world.desks[0].differences() == []
    for desk in world.desks:
        desk.close()
