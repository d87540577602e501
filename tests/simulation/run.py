"""Runs one seed: builds a world, takes its steps, and settles everything at the end."""

import random
import tempfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from store.clock import Clock
from store.database import Database
from store.sqlite import SqliteDatabase
from tests.simulation import actions
from tests.simulation.faults import OpenDatabase, SimulatedClock
from tests.simulation.people import create
from tests.simulation.records import Violation
from tests.simulation.world import World

STEPS = 150
MEMORY = Path("/dev/shm")
"""Where files are kept in memory, if there is such a place: nothing here outlives its run."""


class Broken(AssertionError):
    """A run in which a promise was broken; the text tells how to run it again."""

    def __init__(self, seed: int, step: int, violation: Violation, history: list[str]) -> None:
        again = f"TOLLGATE_SEED={seed} TOLLGATE_TRACE=1 uv run pytest tests/simulation/test_simulation.py -k answers"
        super().__init__("\n".join([f"seed {seed}, step {step}: {violation}", *history, f"again: {again}"]))
        self.check = violation.check
        self.step = step
        self.violation = violation


@lru_cache(maxsize=1)
def _empty_books() -> bytes:
    """A file with the newest schema: it is made once, because that takes as long as a tenth of a run."""
    with tempfile.TemporaryDirectory() as name:
        database = SqliteDatabase.open(Path(name) / "config.db", clock=SimulatedClock(0))
        database.migrate()
        database.close()
        return (Path(name) / "config.db").read_bytes()


def sqlite_in(directory: Path) -> OpenDatabase:
    """Connections to one file, which is new."""
    (directory / "config.db").write_bytes(_empty_books())

    def open_database(clock: Clock) -> Database:
        # What is synced makes no difference inside one machine's run.
        return SqliteDatabase.open(directory / "config.db", clock=clock, synchronous="NORMAL")

    return open_database


def run(
    seed: int,
    open_database: OpenDatabase | None = None,
    *,
    steps: int = STEPS,
    skip: Collection[int] = (),
    trace: int = 25,
) -> dict[str, int]:
    """Takes the steps of this seed; returns how often each kind of thing was checked. Raises Broken."""
    with tempfile.TemporaryDirectory(prefix="tollgate-simulation-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        directory = Path(name)
        world = World(directory, open_database or sqlite_in(directory), seed)
        step = -1
        try:
            begin(world)
            for step in range(steps):
                if step not in skip:
                    take(world, step)
            step = steps
            end(world)
            return dict(world.auditor.checks)
        except Violation as violation:
            raise Broken(seed, step, violation, list(world.log)[-trace:]) from violation
        except Exception as error:
            unexpected = Violation("an unexpected error", f"{type(error).__name__}: {error}")
            raise Broken(seed, step, unexpected, list(world.log)[-trace:]) from error
        finally:
            world.close()


def begin(world: World) -> None:
    for number in range(world.random.choice([4, 7, 10])):
        with world.office.database.write() as connection:
            world.office.pending = create(world, random.Random(f"{world.seed} cap {number}"), connection)
    for _ in range(world.random.choice([1, 2, 2, 3])):
        actions.start(world, world.random)


def take(world: World, step: int) -> None:
    """One step. Its chance depends on seed and step alone, so that leaving out one step leaves the others as they are."""
    chance = random.Random(f"{world.seed} step {step}")
    weights, choices = zip(*actions.ACTIONS, strict=True)
    action = chance.choices(choices, weights)[0]
    world.note(f"step {step}: {action.__name__}")
    if not world.processes and chance.random() < 0.5:
        actions.start(world, chance)
    action(world, chance)


def end(world: World) -> None:
    """Faults are over. Calls end, waiters get through, the dead are recovered, and the sums must be what was billed."""
    world.note("the end")
    world.disk.full = False
    for process in world.processes:
        process.database.away = process.asleep = False
        process.database.faults.clear()
        process.database.at.clear()
    chance = random.Random(f"{world.seed} end")
    for _ in range(60):
        for process in list(world.processes):
            for call in process.flying:
                actions.finish_one(world, process, chance, call)
            process.flying.clear()
            process.stale.clear()
            world.pass_ms(60)
            process.turn()
        if not any(process.asked or process.flying for process in world.processes):
            break
        world.pass_ms(500)
    else:
        waiting = [asked.ask.call.id for process in world.processes for asked in process.asked]
        world.fail("no starvation", f"{waiting} still wait although everybody else is done")
    for _ in range(3):
        for process in list(world.processes):
            world.pass_ms(31_000)
            process.maintain()
    unanswered = [ended.record.call.id for process in world.processes for ended in process.ended if not ended.judged]
    if unanswered:
        world.fail("every settlement is answered", f"{unanswered}")
    for process in list(world.processes):
        world.killed(process)
    world.pass_ms(3_600_000)  # longer than any clock was set back
    actions.start(world, chance)
    actions.recover(world, chance)
    world.verify()
    settle_accounts(world)


def settle_accounts(world: World) -> None:
    """Nothing is held, everything that left is in the books, and the sum is what the provider billed."""
    seen = world.observer.look()
    if seen.open_calls or any(held for _, held, _ in seen.balances.values()):
        world.fail("everything settles", f"still held: {sorted(seen.open_calls)} {seen.balances}")
    total = 0
    for call in world.auditor.calls.values():
        if call.left and call.state in ("new", "open"):
            world.fail("every call that left is in the books", f"{call.id} is {call.state}")
        if call.spooled and call.state in ("open", "unconfirmed"):
            world.fail("spooled settlements are booked", f"{call.id} is {call.state}")
        billed = call.amount if call.state == "unconfirmed" else call.bill
        if call.state in ("void", "new"):
            billed = 0
        if not call.by_hand and not call.pruned and call.cost != billed:
            world.fail("the provider's bill", f"{call.id} ({call.state}) is in the books with {call.cost}, billed were {billed}")
        total += 0 if call.pruned else call.cost
    if world.observer.total_cost() != total:
        world.fail("the provider's bill", f"the rows add up to {world.observer.total_cost()}, the calls to {total}")
