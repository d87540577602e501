"""Caps under a rush: 500 parallel calls over two gateways with two workers each on one PostgreSQL, again and again.

    uv run python bench/overshoot.py [--runs 100] [--calls 500] [--seed 1]

Each run has a key and a budget of its own that pays for a part of the calls; what every call costs is known to the nano-dollar.
The provider's own bill is the judge: *overshoot* is what it says beyond the cap; a *false refusal* is a call that was refused
although what was left in the end would have paid for it. Both must be 0; the exit code says so. TOLLGATE_TEST_POSTGRES may
name a server; otherwise one is started.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from psycopg import conninfo  # noqa: E402

from tests.support.judge import Rows, postgres_query  # noqa: E402
from tests.support.overshoot import Arena, Crowded, on_postgres, overshoot_config  # noqa: E402
from tests.support.postgres import Databases, PostgresServer  # noqa: E402
from tests.support.quick import Gateway, PretendProcess  # noqa: E402

NODES, WORKERS = 2, 2


@contextmanager
def arena(seed: int) -> Iterator[Arena]:
    """Two nodes on an empty database, removed at the end."""
    with ExitStack() as stack:
        dsn = os.environ.get("TOLLGATE_TEST_POSTGRES")
        if not dsn:
            server = PostgresServer()
            stack.callback(server.remove)
            dsn = server.dsn
        databases = Databases(dsn)
        stack.callback(databases.drop)
        address = databases.fresh()
        provider = stack.enter_context(PretendProcess())
        config = on_postgres(overshoot_config(provider.url), databases.settings(address))
        gateways = []
        for _ in range(NODES):
            app_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gateways.append(stack.enter_context(Gateway(app_dir, config, arguments=("--workers", str(WORKERS)))))
        rows = Rows(postgres_query(conninfo.make_conninfo(dsn, dbname=address.db_name)))
        yield Arena(provider, gateways, rows, seed)


def report(runs: Sequence[Crowded], seconds: float) -> bool:
    """Prints the totals; True when every promise was kept."""
    refused: Counter[str] = Counter()
    for run in runs:
        refused.update(run.refused)
    overshoot = sum(run.overshoot for run in runs)
    false = sum(run.falsely_refused for run in runs)
    wrong = sum(run.wrong for run in runs)
    unbooked = sum(abs(run.spent - run.billed) for run in runs)
    print(f"{len(runs)} runs of {runs[0].calls} parallel calls in {seconds:.0f} s, {NODES} nodes with {WORKERS} workers each")
    print(f"  answered            {sum(run.good for run in runs):>10,}")
    print(f"  refused             {sum(refused.values()):>10,}  {dict(refused)}")
    print(f"  a run takes         {statistics.median(run.seconds for run in runs):>10.2f} s (median)")
    print(f"  caps, billed        {sum(run.cap for run in runs) / 1e9:>10.6f} USD, {sum(run.billed for run in runs) / 1e9:.6f} USD")
    print(f"  most left of a cap  {max(run.cap - run.billed for run in runs):>10,} nano-dollars")
    print(f"  overshoot           {overshoot:>10,} nano-dollars")
    print(f"  false refusals      {false:>10,}")
    print(f"  other failures      {wrong:>10,}")
    print(f"  booked, not billed  {unbooked:>10,} nano-dollars")
    return not (overshoot or false or wrong or unbooked)


def main() -> None:
    """Runs the crowds and prints the totals; exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Overshoot and false refusals of parallel calls over two nodes.")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    runs = []
    with arena(options.seed) as crowds:
        for number in range(options.runs):
            runs.append(crowds.crowd(options.calls))
            if runs[-1].overshoot or runs[-1].falsely_refused or runs[-1].wrong:
                print(f"run {number + 1}: {runs[-1]}", flush=True)
    sys.exit(0 if report(runs, time.monotonic() - started) else 1)


if __name__ == "__main__":
    main()
