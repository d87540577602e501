"""How long the console takes for a page of a large governance: lists, single things, changes; JSON and HTTP included.

    uv run python bench/console.py [--keys 10000] [--teams 1000] [--engine sqlite|postgres] [--rounds 30]

A real gateway runs over a store with KEYS virtual keys, each with a budget that was charged, in TEAMS teams of a tenth as many
customers. Every address is asked in turn, so that none profits from having just been asked; printed are median and slowest in
milliseconds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402

from addons.opening import open_store  # noqa: E402
from bench.governance import fill  # noqa: E402
from store.clock import Ids, SystemClock  # noqa: E402
from store.ledger.caps import cap_states  # noqa: E402
from store.settings import settings_from  # noqa: E402
from tests.support.config import config_for  # noqa: E402
from tests.support.overshoot import on_postgres  # noqa: E402
from tests.support.postgres import Databases, PostgresServer  # noqa: E402
from tests.support.quick import Gateway  # noqa: E402

GOVERNANCE = "/api/governance"


def add_customers_and_spending(app_dir: Path, config: dict[str, Any], teams: int) -> None:
    """A customer for every ten teams, and something spent on every budget of a key."""
    clock = SystemClock()
    store = open_store(app_dir, settings_from(config, {}, source="bench"), clock, Ids(clock))
    try:
        with store.changing() as connection:
            now_ms = clock.now_ms()
            for number in range(max(1, teams // 10)):
                connection.execute(
                    "INSERT INTO customers (id, name, calendar_aligned, created_ms, updated_ms) VALUES (?, ?, 0, ?, ?)",
                    (f"customer-{number}", f"customer {number}", now_ms, now_ms),
                )
            connection.executemany(
                "UPDATE teams SET customer_id = ? WHERE id = ?",
                [(f"customer-{number // 10}", f"team-{number}") for number in range(teams // 10 * 10)],
            )
            states = [state for state in cap_states(connection, now_ms) if state.cap.scope.value == "virtual_key"]
            connection.executemany(
                "INSERT INTO balances (cap_id, window_start_ms, used, held, carried) VALUES (?, ?, ?, 0, 0) "
                "ON CONFLICT (cap_id, window_start_ms) DO UPDATE SET used = excluded.used",
                [(state.cap.id, state.window_start_ms, 1_000_000 + index % 997) for index, state in enumerate(states)],
            )
    finally:
        store.close()


def addresses(keys: int, teams: int) -> dict[str, str]:
    """What is asked, by the name that is printed."""
    last = keys - keys % 25 - 25
    return {
        "keys, first page": f"{GOVERNANCE}/virtual-keys?limit=25",
        "keys, page of 100": f"{GOVERNANCE}/virtual-keys?limit=100",
        "keys, last page": f"{GOVERNANCE}/virtual-keys?limit=25&offset={last}",
        "keys, search": f"{GOVERNANCE}/virtual-keys?search=99&limit=25",
        "keys, of a team": f"{GOVERNANCE}/virtual-keys?team_id=team-7&limit=25",
        "keys, by name": f"{GOVERNANCE}/virtual-keys?limit=25&sort_by=name&order=desc",
        "keys, by budget spent": f"{GOVERNANCE}/virtual-keys?limit=25&sort_by=budget_spent&order=desc",
        "one key": f"{GOVERNANCE}/virtual-keys/key {keys // 2}",
        "teams, page of 100": f"{GOVERNANCE}/teams?limit=100&offset={teams // 2}",
        "teams, search": f"{GOVERNANCE}/teams?search=99",
        "one team": f"{GOVERNANCE}/teams/team-{teams // 2}",
        "customers, page of 100": f"{GOVERNANCE}/customers?limit=100",
        "budgets, page of 100": f"{GOVERNANCE}/budgets?limit=100&offset={keys // 2}",
        "providers": "/api/providers",
        "keys, all of them": f"{GOVERNANCE}/virtual-keys",
        "teams, all of them": f"{GOVERNANCE}/teams",
    }


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--teams", type=int, default=1_000)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    with ExitStack() as stack:
        config = config_for("http://127.0.0.1:9", virtual_keys=[])
        if args.engine == "postgres":
            server = PostgresServer()
            stack.callback(server.remove)
            databases = Databases(server.dsn)
            stack.callback(databases.drop)
            config = on_postgres(config, databases.settings(databases.fresh()))
        app_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway = Gateway(app_dir, config)
        stack.callback(gateway.kill9)
        gateway.start()
        gateway.terminate()
        seconds = fill(app_dir, config, args.keys, args.teams)
        add_customers_and_spending(app_dir, config, args.teams)
        print(f"{args.engine}: {args.keys:,} keys, {args.teams:,} teams, filled in {seconds:.1f} s")
        gateway.start()
        headers = {"authorization": f"Bearer {(app_dir / 'admin.token').read_text().strip()}"}
        client = stack.enter_context(httpx.Client(base_url=gateway.console_url, headers=headers, timeout=60, trust_env=False))
        taken: dict[str, list[float]] = {}
        sizes: dict[str, int] = {}
        for number in range(args.rounds + 1):
            for name, address in addresses(args.keys, args.teams).items():
                began = time.perf_counter()
                answer = client.get(address).raise_for_status()
                if number:  # the first round warms up
                    taken.setdefault(name, []).append((time.perf_counter() - began) * 1000)
                sizes[name] = len(answer.content)
            began = time.perf_counter()
            client.put(f"{GOVERNANCE}/virtual-keys/key 1", json={"description": str(number)}).raise_for_status()
            if number:
                taken.setdefault("change of a key", []).append((time.perf_counter() - began) * 1000)
        for name, found in taken.items():
            size = f"{sizes[name] / 1024:8.0f} KiB" if name in sizes else ""
            print(f"  {name:24} median {statistics.median(found):7.1f} ms   slowest {max(found):7.1f} ms {size}")


if __name__ == "__main__":
    main()
