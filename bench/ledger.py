"""Measures the ledger: calls a second and the latency of holds, three caps a call, every commit synced.

Run `python bench/ledger.py` from the checkout; `--seconds` and `--directory` (on the disk to be measured) are the knobs. Where
uvloop is installed it is used, as in the gateway.
"""

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

from store.clock import Ids, SystemClock
from store.ledger.caps import put_cap
from store.ledger.ledger import Ledger
from store.ledger.types import CallFacts, Cap, Granted, HoldRequest, Scope, Settlement, Unit
from store.sqlite import SqliteDatabase

CAP_IDS = ("cap-key", "cap-team", "cap-customer")
FACTS = CallFacts("vk-1", "bench key", "team-1", "customer-1", "", "openai", "gpt-4o-mini", "chat_completion", False)


def prepare(directory: Path) -> int:
    """Makes the database with three hot caps; returns the revision to resolve against."""
    database = SqliteDatabase.open(directory / "config.db")
    database.migrate()
    scopes = (Scope.VIRTUAL_KEY, Scope.TEAM, Scope.CUSTOMER)
    with database.write() as connection:
        for cap_id, scope in zip(CAP_IDS, scopes, strict=True):
            put_cap(connection, Cap(cap_id, cap_id, scope, "owner", "owner", Unit.USD, 10**15, "30d"))
    database.close()
    return len(CAP_IDS)


async def drive(directory: Path, in_flight: int, seconds: float, revision: int) -> tuple[int, float, list[float]]:
    """Runs hold and settle in `in_flight` loops; returns (calls, seconds taken, hold latencies in seconds)."""
    clock = SystemClock()
    ids = Ids(clock)
    database = SqliteDatabase.open(directory / "config.db")
    ledger = Ledger(database, clock=clock, ids=ids, lease_dir=directory / "leases", spool_dir=directory / "spool")
    await ledger.start()
    latencies: list[float] = []
    stop_at = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < stop_at:
            call_id = ids.new()
            request = HoldRequest(call_id, CAP_IDS, 2_100_000, 400_000, tokens=900, revision=revision, facts=FACTS)
            asked = time.perf_counter()
            answer = await ledger.hold(request)
            latencies.append(time.perf_counter() - asked)
            if not isinstance(answer, Granted):
                raise RuntimeError(f"not granted: {answer}")
            await ledger.settle(Settlement(call_id, 123_456, 321, sent=True, input_tokens=300, output_tokens=21, note="complete"))

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    taken = time.perf_counter() - started
    await ledger.close()
    database.close()
    return len(latencies), taken, latencies


def _run(work: Coroutine[None, None, tuple[int, float, list[float]]]) -> tuple[int, float, list[float]]:
    # The interpreter's default of 5 ms lets a busy event loop keep the writer thread waiting for the lock that long.
    sys.setswitchinterval(0.0005)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def _child(directory: Path, in_flight: int, seconds: float, revision: int, results: "multiprocessing.Queue[object]") -> None:
    results.put(_run(drive(directory, in_flight, seconds, revision)))


def measure(processes: int, in_flight: int, seconds: float, parent: Path | None) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        directory = Path(name)
        revision = prepare(directory)
        if processes == 1:
            runs = [_run(drive(directory, in_flight, seconds, revision))]
        else:
            context = multiprocessing.get_context("spawn")
            results: multiprocessing.Queue[tuple[int, float, list[float]]] = context.Queue()
            children = [
                context.Process(target=_child, args=(directory, in_flight, seconds, revision, results)) for _ in range(processes)
            ]
            for child in children:
                child.start()
            runs = [results.get() for _ in children]
            for child in children:
                child.join()
    rate = sum(calls / taken for calls, taken, _ in runs)
    latencies = sorted(latency * 1000 for _, _, some in runs for latency in some)
    p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    return f"{processes:>9} {in_flight:>9} {rate:>10,.0f} {p50:>9.2f} {p99:>9.2f} {latencies[-1]:>9.2f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Measure the ledger on SQLite.")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    print("processes in flight    calls/s  hold p50  hold p99  hold max   (ms)")
    for processes, in_flight in ((1, 1), (1, 16), (1, 32), (2, 16)):
        print(measure(processes, in_flight, options.seconds, options.directory), flush=True)


if __name__ == "__main__":
    main()
