"""What happens in a step of a run: traffic, time, faults, edits and chores, each drawn from the chance it is handed."""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from store.errors import StoreUnavailable, UserError
from store.ledger.housekeeping import Housekeeping
from store.ledger.recovery import book_leftovers, recover_dead
from store.ledger.seal import prune, seal_windows
from tests.simulation.auditor import LineRecord
from tests.simulation.faults import Crash, Fault, Moment
from tests.simulation.people import EDITS
from tests.simulation.process import FakeProcess
from tests.simulation.records import CallRecord, SettleRecord

if TYPE_CHECKING:
    from tests.simulation.world import World

ROUTES = (("vk-1", "team-1", "customer-1", "openai"), ("vk-2", "team-1", "openai"), ("vk-2", "openai"), ("vk-1",))
BOUNDS = (0, 1, 10, 200, 200, 600, 3_000)
PAUSES_MS = (1, 20, 50, 50, 700, 2_100, 11_000, 61_000, 1_800_000, 3_600_000, 90_000_000)

IN_WRITES = (Moment.BEFORE_LOCK, Moment.BEFORE_COMMIT, Moment.AFTER_COMMIT)

Action = Callable[["World", random.Random], None]


def awake(world: "World", chance: random.Random) -> FakeProcess | None:
    processes = [process for process in world.processes if not process.asleep]
    return chance.choice(processes) if processes else None


# ---- traffic


def resolve(world: "World", process: FakeProcess, route: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """What a gateway does before it holds: the caps of a call, from the snapshot it has."""
    revision, owners = process.snapshot
    return revision, tuple(cap_id for owner in route for cap_id in owners.get(owner, ()))


def refresh(world: "World", process: FakeProcess) -> None:
    caps = world.auditor.caps
    live = {
        owner: tuple(cap_id for cap_id in ids if not caps[cap_id].deleted or _lingers(cap_id))
        for owner, ids in world.owners.items()
    }
    process.snapshot = (world.auditor.revision, live)


def _lingers(cap_id: str) -> bool:
    """Some tombstones are still named by gateways; they must bind nobody."""
    return cap_id.endswith("7")


def send(world: "World", process: FakeProcess, chance: random.Random) -> None:
    """One new call arrives and asks."""
    if chance.random() < 0.8:
        refresh(world, process)
    route = chance.choice(ROUTES)
    revision, caps = resolve(world, process, route)
    bound = chance.choice(BOUNDS)
    floor = chance.choice([0, bound // 4, bound, chance.randint(0, bound)])
    factor = chance.choice([1, 1, 3])
    call = CallRecord(
        id=world.new_call_id(),
        owner=process.serial,
        caps=caps,
        bound=bound,
        floor=floor,
        strict_bound=bound * factor,
        strict_floor=floor * factor,
        tokens=chance.choice([0, 10, 300, 2_000]),
        trim=chance.random() < 0.9,
        revision=revision,
        waiting_bytes=chance.choice([0, 100]),
        route=tuple(route),
    )
    world.add_call(call)
    world.note(f"  {call.id} asks process {process.serial}: {floor}..{bound}, {call.tokens} tokens, {' '.join(caps)}")
    process.ask(call)


def ask(world: "World", chance: random.Random) -> None:
    process = awake(world, chance)
    if process is None:
        return
    for call in process.stale:
        refresh(world, process)
        call.revision, call.caps = resolve(world, process, call.route)
        process.ask(call)
    process.stale.clear()
    for _ in range(chance.choice([1, 1, 2, 5])):
        send(world, process, chance)
    if chance.random() < 0.9:
        take_turn(world, process, chance)


def ask_again(world: "World", chance: random.Random) -> None:
    """The same call asks twice: its answer got lost between gateway and ledger."""
    process = awake(world, chance)
    if process is None:
        return
    calls = [call for call in world.auditor.calls.values() if call.owner == process.serial and not call.pruned][-10:]
    calls = [call for call in calls if call.state != "new" and not call.told_to_stay and not call.forgotten]
    if calls:
        call = chance.choice(calls)
        world.note(f"  {call.id} asks once more")
        process.ask(call).repeats = True
        take_turn(world, process, chance)


def ending(call: CallRecord, chance: random.Random) -> SettleRecord:
    """How a call ends: mostly within its hold, sometimes above it, sometimes it never left. The provider bills it once."""
    if call.truth is None:
        cost = chance.choice([0, call.amount // 3, call.amount, call.amount, call.amount + 50])
        call.truth = SettleRecord(call, cost, chance.randint(0, 500), chance.random() < 0.9)
        call.bill = cost if call.truth.sent else 0
        call.left = call.left or call.truth.sent
    return call.truth


def finish(world: "World", chance: random.Random) -> None:
    process = awake(world, chance)
    if process is None:
        return
    for _ in range(chance.choice([1, 2, 3, 6])):
        if process.flying:
            finish_one(world, process, chance, process.flying.pop(chance.randrange(len(process.flying))))
    if chance.random() < 0.85:
        take_turn(world, process, chance)


def finish_one(world: "World", process: FakeProcess, chance: random.Random, call: CallRecord) -> None:
    record = ending(call, chance)
    world.note(f"  {call.id} ends: {record.cost}, {record.tokens} tokens{'' if record.sent else ', never sent'}")
    for _ in range(chance.choice([1, 1, 1, 1, 2])):
        process.settle(record, waits=chance.random() < 0.4)


def settle_again(world: "World", chance: random.Random) -> None:
    """A late or repeated ending of a call that was settled, recovered or pruned long ago."""
    process = awake(world, chance)
    calls = [call for call in world.auditor.calls.values() if call.state not in ("new", "open") and not call.told_to_stay]
    if process is None or not calls:
        return
    call = chance.choice(calls[-20:])
    record = ending(call, chance)
    if call.state != "unconfirmed":
        # It is settled for good: another figure must change nothing.
        record = SettleRecord(call, chance.randint(0, 500), chance.randint(0, 500), chance.random() < 0.5)
    world.note(f"  {call.id} ends late in process {process.serial}: {record.cost}, {record.tokens} tokens, sent {record.sent}")
    process.settle(record, waits=chance.random() < 0.5)
    take_turn(world, process, chance)


def leave(world: "World", chance: random.Random) -> None:
    """A caller goes away: while it waits, before its answer, or after its grant and before it left."""
    process = awake(world, chance)
    if process is None:
        return
    waiting = [asked.ask.call for asked in process.asked if not asked.repeats]
    ready = [call for call in process.flying if not call.left]
    calls = [*waiting, *ready]
    if not calls:
        return
    call = chance.choice(calls)
    if call in process.flying:
        process.flying.remove(call)
    world.note(f"  the caller of {call.id} goes away")
    process.cancel(call, by_task=call in waiting and chance.random() < 0.6)
    if chance.random() < 0.7:
        take_turn(world, process, chance)


def leave_while_compared(world: "World", chance: random.Random) -> None:
    """A caller goes away while its process compares what is held with who is alive."""
    process = awake(world, chance)
    ready = [] if process is None else [call for call in process.flying if not call.left]
    if process is None or not ready:
        return
    call = chance.choice(ready)
    process.flying.remove(call)
    moment = chance.choice([Moment.BEFORE_READ, Moment.BEFORE_LOCK, Moment.BEFORE_COMMIT])
    world.note(f"  the caller of {call.id} goes away {moment.value} of process {process.serial}, which compares")
    process.database.at[moment] = lambda: process.cancel(call, by_task=False)
    process.guarded(process.writer.compare_with_live)
    if not call.told_to_stay:
        process.cancel(call, by_task=False)


def forget(world: "World", chance: random.Random) -> None:
    """A call is lost inside its process: nobody will settle it."""
    process = awake(world, chance)
    if process is not None and process.flying:
        call = process.flying.pop()
        call.forgotten = call.left = True
        process.ledger.live.discard(call.id)
        world.note(f"  {call.id} is forgotten")


def cut_off(world: "World", chance: random.Random) -> None:
    """A process loses the store while calls end; its spool may fill up on the way; then it dies, or the store comes back."""
    process = awake(world, chance)
    if process is None:
        return
    world.note(f"  process {process.serial} is cut off from the store")
    process.database.away = True
    for _ in range(chance.choice([2, 3, 4])):
        if process.flying:
            finish_one(world, process, chance, process.flying.pop(0))
        world.disk.full = chance.random() < 0.4
        if not process.turn():
            return
    world.disk.full = False
    if chance.random() < 0.5:
        kill_one(world, chance, process)
        return
    if chance.random() < 0.6:
        # What is in the spool is booked one by one then, and the process dies half way.
        process.maintain()
        process.database.away = False
        process.database.faults.extend([Fault.BREAKS, None, chance.choice([Fault.DIES_BEFORE, Fault.DIES_AFTER])])
        world.pass_ms(1_100)
        process.maintain()
    process.database.away = False


# ---- turns and time


def take_turn(world: "World", process: FakeProcess, chance: random.Random) -> None:
    """The writer's turn, perhaps with another process's in the middle of it, perhaps on a slow disk."""
    if chance.random() < 0.15:
        others = [other for other in world.processes if other is not process and not other.asleep]
        moment = chance.choice([Moment.BEFORE_LOCK, Moment.AFTER_COMMIT])
        if others and moment not in process.database.at:
            other = chance.choice(others)
            world.note(f"  process {other.serial} takes a turn {moment.value} of process {process.serial}")
            process.database.at[moment] = lambda: _quick_turn(world, other)
    elif chance.random() < 0.1:
        moment = chance.choice(IN_WRITES)
        world.note(f"  calls come and end {moment.value} of process {process.serial}")
        process.database.at[moment] = lambda: _arrivals(world, process, chance, moment)
    elif chance.random() < 0.1:
        moment, ms = chance.choice(IN_WRITES), chance.choice([30, 900, 6_000, 3_600_000])
        world.note(f"  {ms} ms pass {moment.value} of process {process.serial}")
        process.database.at[moment] = lambda: _slow(world, process, ms)
    world.note(f"  process {process.serial} takes a turn")
    process.turn()


def _quick_turn(world: "World", other: FakeProcess) -> None:
    if other.alive and not other.busy:
        other.turn()


def _arrivals(world: "World", process: FakeProcess, chance: random.Random, moment: Moment) -> None:
    """What comes while the writer waits for a lock or a disk is in its next batch, or in this one where the locks are enough."""
    if process.alive:
        if chance.random() < 0.5:
            process.database.at[moment] = lambda: _arrivals(world, process, chance, moment)
        send(world, process, chance)
        if process.flying:
            finish_one(world, process, chance, process.flying.pop())
        if process.flying and chance.random() < 0.5:
            call = process.flying.pop()
            world.note(f"  the caller of {call.id} goes away")
            process.cancel(call, by_task=False)


def _slow(world: "World", process: FakeProcess, ms: int) -> None:
    world.pass_ms(ms)
    if process.busy:
        process.answer_for_stuck_writer()


def tick(world: "World", chance: random.Random) -> None:
    """Every process looks again at those who wait."""
    for process in list(world.processes):
        if process.alive and not process.asleep:
            take_turn(world, process, chance)


def pass_time(world: "World", chance: random.Random) -> None:
    ms = chance.choice(PAUSES_MS)
    world.note(f"  {ms} ms pass")
    world.pass_ms(ms)
    tick(world, chance)


def jump(world: "World", chance: random.Random) -> None:
    """The wall clock is set."""
    ms = chance.choice([-600_000, -2_000, -1, 5_000, 86_400_000])
    if world.clock.now_ms() + ms > world.earliest_ms:
        world.note(f"  the clock is set by {ms} ms")
        world.clock.jump_ms(ms)


def maintain(world: "World", chance: random.Random) -> None:
    process = awake(world, chance)
    if process is not None:
        world.pass_ms(chance.choice([1_000, 6_000, 31_000]))
        if chance.random() < 0.4:
            moment = chance.choice([Moment.BEFORE_READ, Moment.BEFORE_LOCK])
            world.note(f"  calls come and end {moment.value} of process {process.serial}")
            process.database.at[moment] = lambda: _arrivals(world, process, chance, moment)
        world.note(f"  process {process.serial} looks after its things")
        process.maintain()


# ---- faults


def hurt(world: "World", chance: random.Random) -> None:
    """The next transactions of a process go wrong."""
    process = awake(world, chance)
    if process is not None:
        faults = [chance.choice(list(Fault)) for _ in range(chance.choice([1, 1, 2]))]
        process.database.faults.extend([*([None] * chance.choice([0, 0, 1])), *faults])
        world.note(f"  ahead of process {process.serial}: {', '.join(fault.value for fault in faults)}")


def stumble(world: "World", chance: random.Random) -> None:
    """A batch breaks, its operations are tried one by one, some of that fails too, and more arrives meanwhile."""
    process = awake(world, chance)
    if process is None:
        return
    for _ in range(2):
        send(world, process, chance)
    faults = [Fault.BREAKS, *(chance.choice([None, None, Fault.FULL, Fault.LOST, Fault.BREAKS]) for _ in range(3))]
    process.database.faults.clear()
    process.database.faults.extend(faults)
    process.database.at[Moment.BEFORE_LOCK] = lambda: _arrivals(world, process, chance, Moment.BEFORE_LOCK)
    world.note(f"  process {process.serial} stumbles: {', '.join('nothing' if f is None else f.value for f in faults)}")
    process.turn()


def store_goes_away(world: "World", chance: random.Random) -> None:
    """The store cannot be reached, by one process or by all, until it comes back."""
    away = not any(process.database.away for process in world.processes)
    everybody = chance.random() < 0.5
    for process in world.processes:
        process.database.away = away and (everybody or chance.random() < 0.5)
    world.note("  the store is away" if away else "  the store is back")


def spool_fills(world: "World", chance: random.Random) -> None:
    world.disk.full = not world.disk.full
    world.note("  the disk of the spool is full" if world.disk.full else "  the disk of the spool has room again")


def kill(world: "World", chance: random.Random) -> None:
    if world.processes:
        kill_one(world, chance, chance.choice(world.processes))


def kill_one(world: "World", chance: random.Random, process: FakeProcess) -> None:
    world.killed(process)
    if chance.random() < 0.7:
        start(world, chance)


def kill_all(world: "World", chance: random.Random) -> None:
    """The machine goes down and comes up again."""
    world.note("  everything goes down")
    count = len(world.processes)
    for process in list(world.processes):
        world.killed(process)
    for _ in range(count):
        start(world, chance)


def start(world: "World", chance: random.Random) -> None:
    if len(world.processes) >= world.processes_max:
        return
    line = LineRecord(chance.choice([3, 8, 1000]), chance.choice([250, 10**6]), chance.choice([1.0, 10.0]))
    process = world.start_process(line)
    world.note(f"  process {process.serial} starts")
    try:
        process.open()
    except (StoreUnavailable, Crash):
        world.killed(process)
        return
    refresh(world, process)


def sleep(world: "World", chance: random.Random) -> None:
    """A process is suspended for longer than its lease, or wakes up."""
    asleep = [process for process in world.processes if process.asleep]
    process = chance.choice(asleep) if asleep else awake(world, chance)
    if process is None:
        return
    if process.asleep:
        process.asleep = False
        world.note(f"  process {process.serial} wakes up")
        process.turn()
    elif len(world.processes) > 1:
        world.note(f"  process {process.serial} is suspended")
        world.put_to_sleep(process)
        world.pass_ms(20_000)


def recover(world: "World", chance: random.Random) -> None:
    """Somebody books what the dead have left."""
    process = awake(world, chance)
    if process is None:
        return
    world.note(f"  process {process.serial} books what the dead have left")
    process.guarded(lambda: _recover(world, process, chance.random() < 0.5))


def _recover(world: "World", process: FakeProcess, spools_first: bool) -> None:
    if spools_first:
        book_leftovers(process.database, world.directory / "spool")  # type: ignore[arg-type]
    recover_dead(process.database, process.writer.epoch, world.directory / "leases")  # type: ignore[arg-type]
    book_leftovers(process.database, world.directory / "spool")  # type: ignore[arg-type]
    left = [c.id for c in world.auditor.calls.values() if c.state == "open" and c.epoch in world.auditor.dead_epochs]
    mine = [call for call in left if world.auditor.calls[call].epoch == process.writer.epoch]
    if world.leases and set(left) - set(mine):
        world.fail("nobody recovers", f"{left} belong to the dead and are still held")


# ---- people and chores


def edit(world: "World", chance: random.Random) -> None:
    office = world.office
    action = chance.choice(EDITS)
    world.note(f"  somebody does: {action.__name__}")
    if chance.random() < 0.1:
        office.database.faults.append(chance.choice(list(Fault)))
    try:
        with office.database.write() as connection:
            office.pending = action(world, chance, connection) or (lambda: [])
    except (StoreUnavailable, RuntimeError, Crash):
        world.note("    and it fails, or nobody hears that it did not")
    except UserError as error:
        world.fail("edit", f"{action.__name__} was refused: {error}")


def seal(world: "World", chance: random.Random) -> None:
    with world.office.database.write() as connection:
        sealed = seal_windows(connection, connection.now_ms())
    world.note(f"  {sealed} windows are sealed")


def prune_rows(world: "World", chance: random.Random) -> None:
    with world.office.database.write() as connection:
        world.before_ms = connection.now_ms() - chance.choice([0, 60_000, 3_600_000])
        gone, _ = prune(connection, world.before_ms)
    world.before_ms = None
    world.note(f"  {gone} calls are pruned")


def keep_house(world: "World", chance: random.Random) -> None:
    world.before_ms = world.clock.now_ms() - 86_400_000 + 3 * 300
    for _ in range(3):
        world.clock.pass_ms(300)
        Housekeeping(world.office.database, retention_days=1).step()  # type: ignore[arg-type]
    world.before_ms = None


def verify(world: "World", chance: random.Random) -> None:
    world.verify()


ACTIONS: tuple[tuple[int, Action], ...] = (
    (24, ask),
    (20, finish),
    (6, pass_time),
    (3, tick),
    (2, settle_again),
    (2, ask_again),
    (3, leave),
    (1, leave_while_compared),
    (1, forget),
    (2, cut_off),
    (3, maintain),
    (2, jump),
    (4, hurt),
    (2, stumble),
    (2, store_goes_away),
    (2, spool_fills),
    (2, kill),
    (1, kill_all),
    (2, start),
    (2, sleep),
    (3, recover),
    (7, edit),
    (1, seal),
    (1, prune_rows),
    (1, keep_house),
    (1, verify),
)
