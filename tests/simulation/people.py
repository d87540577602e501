"""What people do to caps while traffic runs: each edit is done in one transaction and told to the auditor."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from store.clock import Ids
from store.database import Connection
from store.ledger.caps import delete_cap, load_caps, put_cap, reset_cap, sync_caps, top_up
from store.ledger.history import confirm
from store.ledger.raises import end_raise, raise_cap
from store.ledger.types import Cap, Enforcement, Scope, Unit
from tests.simulation.periods import LENGTHS_MS, Lattice
from tests.simulation.records import CapRecord, PostRecord, RaiseRecord

if TYPE_CHECKING:
    from tests.simulation.world import World

Booked = Callable[[], list[PostRecord]]
"""Tells the auditor, once the edit is durable; returns the posts that it must have made."""
Edit = Callable[["World", random.Random, Connection], Booked | None]

OWNERS = {
    "vk-1": Scope.VIRTUAL_KEY,
    "vk-2": Scope.VIRTUAL_KEY,
    "team-1": Scope.TEAM,
    "customer-1": Scope.CUSTOMER,
    "openai": Scope.PROVIDER,
}
LIMITS = {
    "usd": (0, 7, 100, 1_000, 2_500, 6_000),
    "tokens": (5, 300, 900, 4_000),
    "requests": (1, 3, 12, 40),
    "concurrent": (1, 2, 5),
}
ROLLING = ("1m", "10m", "1h", "6h", "1d", "7d", "1M")
CALENDAR = ("1d", "7d", "1M")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata")


def new_cap(world: "World", chance: random.Random, cap_id: str, owner: str) -> Cap:
    """Any kind of cap."""
    unit = Unit(chance.choice(["usd", "usd", "usd", "tokens", "requests", "concurrent"]))
    window = None if unit is Unit.CONCURRENT else chance.choice([None, *ROLLING, "1h", "1h"])
    aligned = window in CALENDAR and chance.random() < 0.6
    return Cap(
        id=cap_id,
        name=f"name of {cap_id}",
        scope=OWNERS[owner],
        scope_id=owner,
        scope_name=owner,
        unit=unit,
        limit=chance.choice(LIMITS[unit.value]),
        window=window,
        calendar_aligned=aligned,
        timezone=chance.choice(ZONES) if aligned else "UTC",
        enforcement=Enforcement(chance.choice(["hard", "hard", "hard", "hard", "soft", "observe"])),
        strict=chance.random() < 0.15,
        carry_over=window is not None and chance.random() < 0.3,
        created_ms=0,
    )


def lattice_of(cap: Cap) -> Lattice:
    return Lattice(cap.window, cap.timezone if cap.calendar_aligned else None, 0 if cap.calendar_aligned else cap.created_ms)


def record_of(cap: Cap) -> CapRecord:
    return CapRecord(
        cap.id,
        cap.unit.value,
        cap.limit,
        lattice_of(cap),
        cap.enforcement.value,
        cap.strict,
        cap.carry_over,
        created_ms=cap.created_ms,
    )


def _pick(world: "World", chance: random.Random, connection: Connection) -> Cap | None:
    caps = load_caps(connection)
    return chance.choice(caps) if caps else None


def _telling(tell: Callable[[], None]) -> Booked:
    """An edit that makes no posts."""

    def booked() -> list[PostRecord]:
        tell()
        return []

    return booked


def create(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap_id, at_ms = f"cap-{len(world.auditor.caps) + 1}-{chance.randrange(1000)}", connection.now_ms()
    cap = put_cap(connection, new_cap(world, chance, cap_id, chance.choice(list(OWNERS))))
    return lambda: _made(world, cap, at_ms)


def _made(world: "World", cap: Cap, at_ms: int) -> list[PostRecord]:
    record = world.auditor.caps[cap.id] = record_of(cap)
    record.begun.add(record.period(at_ms)[0])
    world.owners.setdefault(cap.scope_id, []).append(cap.id)
    world.note(f"    {cap.id} of {cap.scope_id}: {cap.unit.value} {cap.limit} {cap.window} {cap.enforcement.value}")
    return []


def _changed(world: "World", cap: Cap, at_ms: int) -> list[PostRecord]:
    world.auditor.changed(
        cap.id, at_ms, limit=cap.limit, lattice=lattice_of(cap), enforcement=cap.enforcement.value, strict=cap.strict
    )
    if cap.window is not None:
        world.earliest_ms = max(world.earliest_ms, world.auditor.caps[cap.id].period(at_ms)[0])
    world.note(f"    {cap.id}: limit {cap.limit}, window {cap.window} {cap.timezone}, {cap.enforcement.value}")
    return []


def _put(world: "World", connection: Connection, cap: Cap) -> Booked:
    at_ms = connection.now_ms()
    stored = put_cap(connection, cap, reason="simulated")
    return lambda: _changed(world, stored, at_ms)


def change_limit(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap = _pick(world, chance, connection)
    if cap is None:
        return None
    others = [limit for limit in LIMITS[cap.unit.value] if limit != cap.limit]
    return _put(world, connection, replace(cap, limit=chance.choice(others)))


def change_window(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    caps = [cap for cap in load_caps(connection) if cap.unit is not Unit.CONCURRENT]
    if not caps:
        return None
    changed = with_other_window(world, chance, chance.choice(caps))
    return _put(world, connection, changed) if changed is not None else None


def with_other_window(world: "World", chance: random.Random, cap: Cap) -> Cap | None:
    if world.clock.now_ms() < world.auditor.latest_ms:
        return None  # while the clock is behind, calls of the future would count in the new window
    window = chance.choice([None, *LENGTHS_MS] if not cap.carry_over else [*LENGTHS_MS])
    aligned = window in CALENDAR and chance.random() < 0.5
    if (window, aligned) == (cap.window, cap.calendar_aligned):
        return None
    return replace(cap, window=window, calendar_aligned=aligned, timezone=chance.choice(ZONES) if aligned else "UTC")


def change_kind(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap = _pick(world, chance, connection)
    if cap is None:
        return None
    enforcement = chance.choice([e for e in Enforcement if e is not cap.enforcement])
    return _put(world, connection, replace(cap, enforcement=enforcement, strict=chance.random() < 0.3))


def rename(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap = _pick(world, chance, connection)
    return None if cap is None else _put(world, connection, replace(cap, name=f"name {chance.randrange(10**6)}"))


def delete(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap = _pick(world, chance, connection)
    if cap is None:
        return None
    at_ms = connection.now_ms()
    delete_cap(connection, cap.id, reason="simulated")
    return _telling(lambda: world.auditor.deleted(cap.id, at_ms))


def restore(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    tombstones = [cap for cap in load_caps(connection, deleted=True) if cap.deleted]
    return _put(world, connection, replace(chance.choice(tombstones), deleted=False)) if tombstones else None


def reset(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap = _pick(world, chance, connection)
    if cap is None:
        return None
    guessed = [call for call in world.auditor.calls.values() if call.state == "unconfirmed" and not call.pruned]
    touched = [held for call in guessed for held in call.held if not world.auditor.caps[held].deleted]
    if touched and chance.random() < 0.7:
        wanted = chance.choice(touched)
        cap = next(other for other in load_caps(connection) if other.id == wanted)
    at_ms = connection.now_ms()
    reset_cap(connection, cap.id, "simulated")
    world.note(f"    {cap.id} is reset")
    return _telling(lambda: world.auditor.reset(cap.id, at_ms))


def add_credit(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap = _pick(world, chance, connection)
    if cap is None:
        return None
    at_ms, amount = connection.now_ms(), chance.choice([1, 50, 800])
    top_up(connection, cap.id, amount, "simulated")
    world.note(f"    {cap.id} gets {amount} more")
    return _telling(lambda: world.auditor.topped_up(cap.id, amount, at_ms))


def raise_limit(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    cap = _pick(world, chance, connection)
    if cap is None:
        return None
    at_ms, amount, for_ms = connection.now_ms(), chance.choice([1, 60, 900]), chance.choice([700, 60_000, 5_400_000])
    raise_cap(connection, cap.id, by=amount, until_ms=at_ms + for_ms, reason="simulated")
    world.note(f"    {cap.id} is raised by {amount} for {for_ms} ms")
    return _telling(lambda: world.auditor.raised(cap.id, RaiseRecord(amount, at_ms + for_ms), at_ms))


def take_back(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    at_ms = connection.now_ms()
    records = [cap for cap in world.auditor.caps.values() if cap.raised is not None and at_ms < cap.raised.until_ms]
    if not records:
        return None
    cap_id = chance.choice(records).id
    end_raise(connection, cap_id, "simulated")
    return _telling(lambda: world.auditor.raised(cap_id, None, at_ms))


def confirm_call(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    calls = [call for call in world.auditor.calls.values() if call.state == "unconfirmed" and not call.pruned]
    if not calls:
        return None
    call, at_ms = chance.choice(calls), connection.now_ms()
    cost, tokens = (None, None) if chance.random() < 0.4 else (chance.randint(0, call.bound + 20), chance.randint(0, 500))
    confirm(connection, call.id, cost_nanos=cost, tokens=tokens, reason="simulated")
    world.note(f"    {call.id} is confirmed at {cost} and {tokens} tokens")

    def booked() -> list[PostRecord]:
        call.by_hand = True
        return world.auditor.confirmed(call, cost, tokens, at_ms)

    return booked


def sync_owner(world: "World", chance: random.Random, connection: Connection) -> Booked | None:
    """Replaces the caps of one owner by a list that names few ids, as a file or a form does."""
    owner = chance.choice(list(OWNERS))
    at_ms = connection.now_ms()
    old = load_caps(connection, scope=OWNERS[owner], scope_id=owner)
    wanted = [_edited(world, chance, cap) for cap in old if chance.random() < 0.85]
    if chance.random() < 0.4:
        wanted.append(new_cap(world, chance, "", owner))
    chance.shuffle(wanted)
    made = sync_caps(connection, OWNERS[owner], owner, wanted, Ids(world.clock, chance.randbytes), reason="simulated")
    matches = _matches(old, wanted)
    for cap, match in zip(made, matches, strict=True):
        if (match.id if match is not None else None) != (cap.id if cap.id in {o.id for o in old} else None):
            world.fail("edits lose nothing", f"{cap} stands for {match}")
    return lambda: _synced(world, owner, old, made, at_ms)


def _edited(world: "World", chance: random.Random, cap: Cap) -> Cap:
    cap = replace(cap, id=cap.id if chance.random() < 0.3 else "")
    if chance.random() < 0.4:
        cap = replace(cap, limit=chance.choice(LIMITS[cap.unit.value]))
    if chance.random() < 0.2 and cap.unit is not Unit.CONCURRENT:
        cap = with_other_window(world, chance, cap) or cap
    return cap


def _matches(old: list[Cap], wanted: list[Cap]) -> list[Cap | None]:
    """By id, then unit and window (the same alignment first), then unit and name; oldest first, each cap once."""
    found: dict[int, Cap] = {}

    def same_window(a: Cap, b: Cap) -> bool:
        return a.window == b.window

    rules: list[Callable[[Cap, Cap], bool]] = [
        lambda cap, want: want.id != "" and cap.id == want.id,
        lambda cap, want: same_window(cap, want) and cap.calendar_aligned == want.calendar_aligned,
        same_window,
        lambda cap, want: cap.name == want.name,
    ]
    for rule in rules:
        for place, want in enumerate(wanted):
            taken = {cap.id for cap in found.values()}
            fitting = [cap for cap in old if cap.id not in taken and cap.unit is want.unit and rule(cap, want)]
            if place not in found and fitting:
                found[place] = fitting[0]
    return [found.get(place) for place in range(len(wanted))]


def _synced(world: "World", owner: str, old: list[Cap], made: list[Cap], at_ms: int) -> list[PostRecord]:
    before = {cap.id: cap for cap in old}
    kept = {cap.id for cap in made}
    for cap in old:
        if cap.id not in kept:
            world.auditor.deleted(cap.id, at_ms)
    for cap in made:
        if cap.id not in before:
            _made(world, cap, at_ms)
        elif before[cap.id] != cap:
            _changed(world, cap, at_ms)
            world.auditor.caps[cap.id].carry_over = cap.carry_over
    return []


EDITS: tuple[Edit, ...] = (
    create,
    change_limit,
    change_limit,
    change_window,
    change_kind,
    rename,
    delete,
    restore,
    reset,
    add_credit,
    raise_limit,
    take_back,
    confirm_call,
    confirm_call,
    sync_owner,
)
