"""A large governance: how long a start takes, how soon an edit holds in every process, and what both cost the calls.

    uv run python bench/governance.py [--keys 10000] [--teams 1000] [--engine sqlite|postgres] [--workers 2] [--rounds 3]

Two gateways are compared in one run: an empty one, and one with KEYS virtual keys in TEAMS teams, each with a budget. "Live" is the
time from the answer of an edit until no worker serves by the old state any more, seen from a client that asks every worker all the
time. Latencies of calls are given as ratios: with an edit every fifth of a second, and without.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402

from addons.opening import open_store  # noqa: E402
from bench.load import Connection, Load, request_bytes  # noqa: E402
from store.clock import Ids, SystemClock  # noqa: E402
from store.config_store.change_groups import put_team  # noqa: E402
from store.config_store.change_keys import insert_virtual_key  # noqa: E402
from store.config_store.specs import TeamSpec, VirtualKeySpec  # noqa: E402
from store.settings import settings_from  # noqa: E402
from tests.support.config import config_for  # noqa: E402
from tests.support.overshoot import on_postgres  # noqa: E402
from tests.support.postgres import Databases, PostgresServer  # noqa: E402
from tests.support.quick import Gateway, PretendProcess  # noqa: E402

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
KEY = "sk-bf-00000000-0000-4000-8000-{:012d}"


def fill(app_dir: Path, config: dict[str, Any], keys: int, teams: int) -> float:
    """The store with so many keys and teams; seconds it took."""
    began = time.perf_counter()
    clock = SystemClock()
    store = open_store(app_dir, settings_from(config, {}, source="bench"), clock, Ids(clock))
    try:
        with store.changing() as connection:
            for number in range(teams):
                spec = TeamSpec.model_validate(
                    {"id": f"team-{number}", "name": f"team {number}", "budgets": [{"max_limit": 100, "reset_duration": "1d"}]}
                )
                put_team(store, connection, spec, before=None, path="")
            for number in range(keys):
                spec = VirtualKeySpec.model_validate(
                    {
                        "name": f"key {number}",
                        "team_id": f"team-{number % teams}",
                        "provider_configs": [{"provider": "openai"}],
                        "budgets": [{"max_limit": 10, "reset_duration": "1h"}],
                    }
                )
                insert_virtual_key(store, connection, spec, value=KEY.format(number))
    finally:
        store.close()
    return time.perf_counter() - began


def start_seconds(gateway: Gateway, rounds: int) -> float:
    """Median from the command to the ready line; the gateway runs afterwards."""
    taken = []
    for _ in range(rounds):
        gateway.kill9()
        began = time.perf_counter()
        gateway.start()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


@contextmanager
def editing(console: httpx.Client, key_name: str, pause_seconds: float) -> Iterator[None]:
    """Somebody changes a key's description all the while."""
    stop = threading.Event()

    def edit() -> None:
        number = 0
        while not stop.wait(pause_seconds):
            number += 1
            console.put(f"/api/governance/virtual-keys/{key_name}", json={"description": str(number)}).raise_for_status()

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def latencies(url: str, key: str, seconds: float, connections: int = 8) -> list[float]:
    """Milliseconds of each call, sorted."""

    async def run() -> list[float]:
        body = json.dumps(BODY).encode()
        load = Load(
            request_bytes(f"{url}/openai/v1/chat/completions", [f"authorization: Bearer {key}"], body), seconds, connections
        )
        host, port = url.removeprefix("http://").split(":")
        for _ in range(connections):
            await asyncio.get_running_loop().create_connection(lambda: Connection(load), host, int(port))
        await load.done.wait()
        if set(load.statuses) != {200}:
            raise SystemExit(f"calls failed: {load.statuses}")
        return sorted(seconds * 1000 for seconds in load.latencies)

    return asyncio.run(run())


def live_seconds(gateway: Gateway, console: httpx.Client, workers: int, rounds: int) -> list[float]:
    """From the answer of an edit that switches a key until the last answer by the old state, for each round."""
    url = f"{gateway.url}/openai/v1/chat/completions"
    headers = {"authorization": f"Bearer {KEY.format(1)}"}
    taken = []
    with ExitStack() as stack:
        # Enough connections that every worker has some.
        clients = [stack.enter_context(httpx.Client()) for _ in range(4 * workers)]
        for number in range(rounds):
            active = bool(number % 2)
            console.put("/api/governance/virtual-keys/key 1", json={"is_active": active}).raise_for_status()
            answered, last_old = time.perf_counter(), None
            while time.perf_counter() - answered < 2:
                for client in clients:
                    asked = time.perf_counter()
                    if (client.post(url, json=BODY, headers=headers).status_code == 200) != active:
                        last_old = asked
                if last_old is None or time.perf_counter() - last_old > 0.3:
                    break
            taken.append(0.0 if last_old is None else last_old - answered)
    return taken


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--teams", type=int, default=1_000)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    with ExitStack() as stack:
        provider = stack.enter_context(PretendProcess())
        databases = None
        if args.engine == "postgres":
            server = PostgresServer()
            stack.callback(server.remove)
            databases = Databases(server.dsn)
            stack.callback(databases.drop)
        made = {}
        for name, keys, teams in (("empty", 2, 1), ("full", args.keys, args.teams)):
            config = config_for(provider.url, virtual_keys=[])
            if databases is not None:
                config = on_postgres(config, databases.settings(databases.fresh()))
            app_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gateway = Gateway(app_dir, config, arguments=("--workers", str(args.workers)))
            stack.callback(gateway.kill9)
            gateway.start()  # seeds the providers
            gateway.terminate()
            print(f"{name}: filled with {keys:,} keys and {teams:,} teams in {fill(app_dir, config, keys, teams):.1f} s")
            print(f"{name}: start to ready {start_seconds(gateway, args.rounds):.2f} s (median of {args.rounds})")
            token = (app_dir / "admin.token").read_text().strip()
            headers = {"authorization": f"Bearer {token}"}
            console = stack.enter_context(httpx.Client(base_url=gateway.console_url, headers=headers, timeout=30))
            live = live_seconds(gateway, console, args.workers, 10)
            print(
                f"{name}: an edit is live after {statistics.median(live):.3f} s (median of {len(live)}), slowest {max(live):.3f} s"
            )
            latencies(gateway.url, KEY.format(0), 2)
            rounds: dict[str, list[list[float]]] = {"quiet": [], "edited": []}
            for _ in range(args.rounds):
                rounds["quiet"].append(latencies(gateway.url, KEY.format(0), args.seconds))
                with editing(console, "key 1", 0.2):
                    rounds["edited"].append(latencies(gateway.url, KEY.format(0), args.seconds))
            for label, share in (("p50", 0.5), ("p99", 0.99)):
                quiet, edited = (
                    statistics.median(one[int(len(one) * share)] for one in rounds[kind]) for kind in ("quiet", "edited")
                )
                print(f"{name}: {label} of calls {quiet:.2f} ms, with five edits a second {edited:.2f} ms = {edited / quiet:.2f} x")
            made[name] = gateway


if __name__ == "__main__":
    main()
