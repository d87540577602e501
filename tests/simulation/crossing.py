"""Several processes whose transactions really run at the same time: threads on one database, checked by what must hold at the end.

Time and turns are the machine's own here, so no model can say what each answer is. What a call costs is what it holds, and nothing
that was used comes back: then the sums at the end tell whether a cap was passed, and whether a refusal was false.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from store.clock import Ids, SystemClock
from store.database import Database
from store.ledger.caps import load_caps, put_cap
from store.ledger.ledger import Ledger
from store.ledger.types import Cap, Granted, HoldRequest, Refused, Scope, Settlement, Stale, Unit
from store.ledger.verify import verify

NODES = 3
COSTS = (10, 20, 30)
PATIENCE_SECONDS, HASTE_SECONDS = 30.0, 4.0


@dataclass
class Crossing:
    """What happened."""

    hasty: bool = False
    granted: dict[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    """Call → (its caps, what the provider billed)."""
    refused: list[Refused] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)


def caps(chance: random.Random, calls: int, times: int) -> list[Cap]:
    """Budgets and request limits for about half of the calls, and places for few of them at a time; `times` as many of each."""
    money = [("money", Unit.USD, calls * chance.choice([3, 5, 7]) // times) for _ in range(5 * times)]
    requests = [("requests", Unit.REQUESTS, calls // chance.choice([4, 6]) // times) for _ in range(2 * times)]
    places = [("places", Unit.CONCURRENT, chance.choice([3, 5])) for _ in range(2 * times)]
    return [
        Cap(f"{chance.randrange(10**6):06}-{name}-{number}", name, Scope.TEAM, "team", "team", unit, limit, None)
        for number, (name, unit, limit) in enumerate([*money, *requests, *places])
    ]


async def cross(
    open_database: Callable[[], Database],
    directory: Path,
    seed: int,
    *,
    calls: int = 400,
    times: int = 1,
    slots: int = 8,
    hasty: bool = False,
) -> list[str]:
    """Runs everything; returns what was wrong.

    There are `times` 9 caps, and `slots` callers of each node. `hasty` stops at the first fault.
    """
    chance = random.Random(seed)
    office = open_database()
    made = caps(chance, calls, times)
    with office.write() as connection:
        for cap in made:
            put_cap(connection, cap)
    seen = Crossing(hasty=hasty)
    ledgers = [_ledger(open_database(), directory) for _ in range(NODES)]
    try:
        for ledger in ledgers:
            await ledger.start()
        done = asyncio.Event()
        editor = asyncio.create_task(_edit(office, made, chance, done))
        numbers = iter(range(calls))
        callers = [
            _caller(ledger, office, made, numbers, random.Random(f"{seed} {node} {slot}"), seen)
            for node, ledger in enumerate(ledgers)
            for slot in range(slots)
        ]
        await asyncio.wait_for(asyncio.gather(*callers), HASTE_SECONDS if hasty else PATIENCE_SECONDS)
        done.set()
        await editor
        for ledger in ledgers:
            if not await ledger.drain(5.0):
                seen.faults.append("a settlement is not answered")
    except TimeoutError:
        seen.faults.append("somebody waits for ever")
    finally:
        for ledger in ledgers:
            await ledger.close()
    return seen.faults + _wrong(office, made, seen)


def _ledger(database: Database, directory: Path) -> Ledger:
    clock = SystemClock()
    return Ledger(
        database, clock=clock, ids=Ids(clock), hold_wait_seconds=8.0, lease_dir=directory / "leases", spool_dir=directory / "spool"
    )


async def _caller(
    ledger: Ledger, office: Database, made: list[Cap], numbers: Iterator[int], chance: random.Random, seen: Crossing
) -> None:
    revision = 0
    for number in numbers:
        if seen.hasty and seen.faults:
            return
        wanted = chance.sample(made, chance.randint(1, 5))
        cost = chance.choice(COSTS)
        request = HoldRequest(f"call-{number}", tuple(cap.id for cap in wanted), cost, cost, trim=False, revision=revision)
        try:
            answer = await ledger.hold(request)
            while isinstance(answer, Stale):
                revision = answer.revision
                answer = await ledger.hold(request._replace(revision=revision))
            if isinstance(answer, Refused):
                seen.refused.append(answer)
            else:
                await _fly(ledger, request, answer, made, chance, seen)
        except Exception as error:
            seen.faults.append(f"{request.call_id}: {type(error).__name__}: {error}")


async def _fly(
    ledger: Ledger, request: HoldRequest, answer: Granted, made: list[Cap], chance: random.Random, seen: Crossing
) -> None:
    places = [cap.id for cap in made if cap.unit is Unit.CONCURRENT and cap.id in request.cap_ids]
    for cap_id in places:
        seen.running[cap_id] += 1
        seen.peak[cap_id] = max(seen.peak[cap_id], seen.running[cap_id])
    await asyncio.sleep(chance.choice([0, 0, 0.001]))
    for cap_id in places:
        seen.running[cap_id] -= 1
    end = chance.random()
    if end < 0.1:
        ledger.cancel(request.call_id)
    elif end < 0.2:
        await ledger.settle(Settlement(request.call_id, 0, 0, sent=False))
    else:
        seen.granted[request.call_id] = (request.cap_ids, answer.amount_nanos)
        settlement = Settlement(request.call_id, answer.amount_nanos, 7, sent=True)
        if end < 0.6:
            ledger.settle_soon(settlement)
        else:
            await ledger.settle(settlement)


async def _edit(office: Database, made: list[Cap], chance: random.Random, done: asyncio.Event) -> None:
    """Somebody renames caps all the while: every edit makes the snapshots of all processes old."""

    def rename() -> None:
        with office.write() as connection:
            cap = chance.choice(load_caps(connection))
            put_cap(connection, replace(cap, name=f"{cap.name}'"))

    while not done.is_set():
        await asyncio.to_thread(rename)
        try:
            await asyncio.wait_for(done.wait(), 0.03)
        except TimeoutError:
            continue


def _wrong(office: Database, made: list[Cap], seen: Crossing) -> list[str]:
    """What does not add up at the end."""
    wrong: list[str] = []
    with office.read() as connection:
        found = {row[0]: (row[1], row[2]) for row in connection.execute("SELECT cap_id, used, held FROM balances")}
        posted = Counter(row[0] for row in connection.execute("SELECT call_id FROM posts WHERE kind = 'post'"))
        kinds = {row[0] for row in connection.execute("SELECT kind FROM posts")}
        total = sum(row[0] for row in connection.execute("SELECT cost_nanos FROM posts"))
    if not kinds <= {"post", "void"}:
        wrong.append(f"nobody died, and yet there are {kinds}")
    if posted != Counter(seen.granted.keys()):
        wrong.append(f"booked and flown differ: {posted - Counter(seen.granted.keys())} {Counter(seen.granted.keys()) - posted}")
    if total != sum(cost for _, cost in seen.granted.values()):
        wrong.append(f"the rows add up to {total}, the provider billed {sum(cost for _, cost in seen.granted.values())}")
    used_of: dict[str, int] = {}
    for cap in made:
        flown = [cost for cap_ids, cost in seen.granted.values() if cap.id in cap_ids]
        billed = {Unit.USD: sum(flown), Unit.REQUESTS: len(flown)}.get(cap.unit, 0)
        used, held = found.get(cap.id, (0, 0))
        used_of[cap.id] = used
        if (used, held) != (billed, 0):
            wrong.append(f"{cap.id}: used {used}, held {held}, billed {billed}")
        if used > cap.limit or seen.peak[cap.id] > cap.limit:
            wrong.append(f"{cap.id} is past its limit {cap.limit}: {used}, {seen.peak[cap.id]} at once")
    for refusal in seen.refused:
        if refusal.held_only and refusal.waited_ms < 1_900:
            wrong.append(f"{refusal.call_id} was sent away after {refusal.waited_ms} ms")
        if not refusal.held_only and not any(used_of[e.state.cap.id] + e.needed > e.state.limit for e in refusal.exceeded):
            wrong.append(f"{refusal.call_id} was refused and would have fitted to the end")
    wrong += [str(difference) for difference in verify(office, SystemClock()).differences]
    return wrong
