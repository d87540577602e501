"""Measures the ledger on both engines: calls a second and latency of holds, two processes or nodes, growth, and starting.

Run `python bench/ledger.py` from the checkout: every commit is synced, a call holds on three caps and settles. PostgreSQL is
started for the purpose (development dependencies), or the one that TOLLGATE_TEST_POSTGRES names is used.

  --engine sqlite|postgres|both   --seconds N   --rounds N (medians)   --directory DIR (on the disk to be measured)
  --growth   cost per call with 10 and 10,000 virtual keys, with an empty ledger and with --rows rows; and the start with these
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.clock import Ids, SystemClock
from store.database import Database, bump_revision, governance_revision
from store.ledger.ledger import Ledger
from store.ledger.rows import CAP_COLUMNS, cap_to_row
from store.ledger.types import CallFacts, Cap, Granted, HoldRequest, Scope, Settlement, Unit
from store.postgres import PostgresAddress, PostgresDatabase
from store.sqlite import SqliteDatabase

FACTS = CallFacts("vk-1", "bench key", "team-1", "customer-1", "", "openai", "gpt-4o-mini", "chat_completion", False)


@dataclass(frozen=True)
class Place:
    """Where a ledger is, in a form that travels to a child process."""

    directory: Path
    postgres: tuple[str, int, str, str, str] | None = None

    def open(self) -> Database:
        """The database, brought up to date."""
        database: Database
        if self.postgres is None:
            database = SqliteDatabase.open(self.directory / "config.db")
        else:
            host, port, user, name, password = self.postgres
            address = PostgresAddress(host, port, user, name, lambda: password)
            database = PostgresDatabase.open(address, purpose="config")
        database.migrate()
        return database


@dataclass(frozen=True)
class Load:
    """What is driven: `in_flight` loops of hold and settle for some seconds, on the caps of one of `keys` virtual keys."""

    in_flight: int
    seconds: float
    keys: int = 1


@dataclass(frozen=True)
class Run:
    """What one process measured; latencies of holds in milliseconds."""

    calls: int
    taken: float
    latencies: list[float]


def caps_of(key: int) -> tuple[str, str, str]:
    """A virtual key's own cap, that of its team of ten keys, and the customer's, which all share."""
    return f"cap-key-{key:05d}", f"cap-team-{key // 10:05d}", "cap-customer"


def seed(database: Database, keys: int) -> None:
    """Makes the caps of these keys."""
    now_ms = SystemClock().now_ms()
    rows = []
    for cap_id in sorted({cap_id for key in range(keys) for cap_id in caps_of(key)}):
        scope = Scope.CUSTOMER if "customer" in cap_id else Scope.TEAM if "team" in cap_id else Scope.VIRTUAL_KEY
        cap = Cap(cap_id, cap_id, scope, cap_id, cap_id, Unit.USD, 10**15, "30d", created_ms=now_ms)
        rows.append(cap_to_row(cap, 0))
    with database.write() as connection:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO caps ({CAP_COLUMNS}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING", rows)
        bump_revision(connection)


async def drive(place: Place, load: Load) -> Run:
    """Runs the load in this process."""
    clock = SystemClock()
    ids = Ids(clock)
    database = place.open()
    with database.read() as connection:
        revision = governance_revision(connection)
    ledger = Ledger(database, clock=clock, ids=ids, lease_dir=place.directory / "leases", spool_dir=place.directory / "spool")
    await ledger.start()
    latencies: list[float] = []
    chance = random.Random(7)
    unseen = iter(range(load.keys))

    async def call(key: int) -> None:
        call_id = ids.new()
        cap_ids = caps_of(key)
        request = HoldRequest(call_id, cap_ids, 2_100_000, 400_000, tokens=900, revision=revision, facts=FACTS)
        asked = time.perf_counter()
        answer = await ledger.hold(request)
        latencies.append((time.perf_counter() - asked) * 1000)
        if not isinstance(answer, Granted):
            raise RuntimeError(f"not granted: {answer}")
        await ledger.settle(Settlement(call_id, 123_456, 321, sent=True, input_tokens=300, output_tokens=21, note="complete"))

    async def first_calls() -> None:
        for key in unseen:
            await call(key)

    async def caller() -> None:
        while time.perf_counter() < stop_at:
            await call(chance.randrange(load.keys))

    # Every key once before the clock runs: what is read once per key and process is not a cost per call.
    await asyncio.gather(*(first_calls() for _ in range(load.in_flight)))
    latencies.clear()
    stop_at = time.perf_counter() + load.seconds
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(load.in_flight)))
    taken = time.perf_counter() - started
    await ledger.close()
    database.close()
    return Run(len(latencies), taken, latencies)


def in_loop(place: Place, load: Load) -> Run:
    """Runs the load as a worker does: uvloop, and a short switch interval, because the default of 5 ms lets a busy event loop
    keep the writer thread waiting that long."""
    sys.setswitchinterval(0.0005)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(drive(place, load))
    return uvloop.run(drive(place, load))


def _child(place: Place, load: Load, results: "multiprocessing.Queue[Run]") -> None:
    results.put(in_loop(place, load))


def measure(place: Place, processes: int, load: Load) -> list[Run]:
    """The load in each of these processes at once."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Run] = context.Queue()
    children = [context.Process(target=_child, args=(place, load, results)) for _ in range(processes)]
    for child in children:
        child.start()
    runs = [results.get() for _ in children]
    for child in children:
        child.join()
    return runs


def rate(runs: list[Run]) -> float:
    """Calls a second together."""
    return sum(run.calls / run.taken for run in runs)


def figures(runs: list[Run]) -> tuple[float, float, float, float]:
    """(calls/s, p50, p99, maximum of the hold in ms)."""
    latencies = sorted(latency for run in runs for latency in run.latencies)
    return rate(runs), latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)], latencies[-1]


Places = Callable[[], Place]


@contextmanager
def sqlite_places(parent: Path | None) -> Iterator[Places]:
    """Fresh directories."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        numbers = iter(range(1_000_000))

        def fresh() -> Place:
            directory = Path(name) / str(next(numbers))
            directory.mkdir()
            return Place(directory)

        yield fresh


@contextmanager
def postgres_places(parent: Path | None) -> Iterator[Places]:
    """Fresh databases on a server."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.support.postgres import Databases, PostgresServer

    named = os.environ.get("TOLLGATE_TEST_POSTGRES")
    server = None if named else PostgresServer(parent)
    databases = Databases(named or (server.dsn if server else ""))
    with sqlite_places(parent) as directories:

        def fresh() -> Place:
            address = databases.fresh()
            password = address.password() if address.password else None
            return Place(directories().directory, (address.host, address.port, address.user, address.db_name, password or ""))

        try:
            yield fresh
        finally:
            databases.drop()
            if server is not None:
                server.remove()


ENGINES = {"sqlite": sqlite_places, "postgres": postgres_places}


def speed(places: Places, options: argparse.Namespace) -> None:
    """The table of rates and latencies: medians of several rounds, each with every line once."""
    lines = ((1, 1), (1, 16), (1, 32), (1, 64), (2, 16), (2, 32))
    found: dict[tuple[int, int], list[tuple[float, float, float, float]]] = {line: [] for line in lines}
    place = places()
    database = place.open()
    seed(database, 1)
    database.close()
    for _ in range(options.rounds):
        for processes, in_flight in lines:
            found[processes, in_flight].append(figures(measure(place, processes, Load(in_flight, options.seconds))))
    print("processes in flight    calls/s  hold p50  hold p99  hold max   (ms)")
    for (processes, in_flight), rounds in found.items():
        total, p50, p99, most = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{processes:>9} {in_flight:>9} {total:>10,.0f} {p50:>9.2f} {p99:>9.2f} {most:>9.2f}", flush=True)
    for each in (16, 32):
        ratios = [two[0] / one[0] for two, one in zip(found[2, each], found[1, each], strict=True)]
        print(f"two processes with {each} in flight each, on the same hot caps: {statistics.median(ratios):.2f} × one", flush=True)


def growth(places: Places, options: argparse.Namespace) -> None:
    """Cost per call with many keys and many rows against few, in alternating rounds; then the time to start."""
    few, many, full = places(), places(), places()
    for place, keys in ((few, 10), (many, 10_000), (full, 10)):
        database = place.open()
        seed(database, keys)
        if place is full:
            took = fill(database, options.rows)
            print(f"filled with {options.rows:,} rows in {took:.0f} s", flush=True)
        database.close()
    for in_flight in (1, 32):
        rates: dict[str, list[float]] = {"few": [], "keys": [], "rows": []}
        for _ in range(options.rounds + 2):
            for name, place, keys in (("few", few, 10), ("keys", many, 10_000), ("rows", full, 10)):
                rates[name].append(rate(measure(place, 1, Load(in_flight, options.seconds, keys))))
        for name, words in (("keys", "10,000 virtual keys, called at random"), ("rows", f"{options.rows:,} rows")):
            ratio = statistics.median(base / other for base, other in zip(rates["few"], rates[name], strict=True))
            print(
                f"cost per call, {in_flight} in flight, with {words}: {ratio:.2f} × that with 10 keys and an empty ledger",
                flush=True,
            )
    taken = asyncio.run(start_with_open_holds(full))
    print(f"start with {options.rows:,} rows and 1,000 open holds of a dead process: {taken:.2f} s", flush=True)


def fill(database: Database, rows: int) -> float:
    """Adds half as many settled calls as rows, two months old; returns the seconds taken."""
    started = time.perf_counter()
    calls, start_ms = rows // 2, SystemClock().now_ms() - 60 * 86_400_000
    numbers = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {0})"
        if database.engine == "sqlite"
        else "WITH n (i) AS (SELECT generate_series(1, {0}))"
    ).format(calls)
    call_id = (
        "printf('%012x-0000', {0} + i)" if database.engine == "sqlite" else "lpad(to_hex({0} + i), 12, '0') || '-0000'"
    ).format(start_ms)
    parts = '[["cap-key-00000",0,123456],["cap-team-00000",0,123456],["cap-customer",0,123456]]'
    facts = '["vk-1","bench key","team-1","customer-1","","openai","gpt-4o-mini","chat_completion",false]'
    with database.write() as connection:
        connection.execute(
            f"""{numbers} INSERT INTO holds (call_id, at_ms, epoch, amount_nanos, tokens, alone, parts, facts)
            SELECT {call_id}, {start_ms} + i, 'old', 2100000, 900, 0, '{parts[:-2]},0]]', '{facts}' FROM n"""
        )
    with database.write() as connection:
        connection.execute(
            f"""{numbers} INSERT INTO posts (call_id, step, kind, at_ms, held_ms, cost_nanos, tokens, input_tokens, output_tokens,
            flags, model, price_source, note, parts)
            SELECT {call_id}, 1, 'post', {start_ms} + i, {start_ms} + i,
            123456, 321, 300, 21, 0, 'gpt-4o-mini', 'bench', 'complete',
            '{parts}' FROM n"""
        )
    return time.perf_counter() - started


async def start_with_open_holds(place: Place) -> float:
    """Leaves 1,000 calls open as a killed process does, and measures opening the database and starting the ledger."""
    clock = SystemClock()
    ids = Ids(clock)
    lost = place.open()
    with lost.read() as connection:
        revision = governance_revision(connection)
    dead = Ledger(lost, clock=clock, ids=ids, lease_dir=place.directory / "leases", spool_dir=place.directory / "spool")
    await dead.start()
    requests = [HoldRequest(ids.new(), caps_of(0), 2_100_000, 400_000, revision=revision, facts=FACTS) for _ in range(1_000)]
    await asyncio.gather(*(dead.hold(request) for request in requests))
    await dead.close()
    started = time.perf_counter()
    database = place.open()
    ledger = Ledger(database, clock=clock, ids=ids, lease_dir=place.directory / "leases", spool_dir=place.directory / "spool")
    await ledger.start()
    taken = time.perf_counter() - started
    await ledger.close()
    database.close()
    lost.close()
    return taken


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Measure the ledger.")
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    for engine in ENGINES if options.engine == "both" else (options.engine,):
        print(f"\n{engine}", flush=True)
        with ENGINES[engine](options.directory) as places:
            (growth if options.growth else speed)(places, options)


if __name__ == "__main__":
    main()
