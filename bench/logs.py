"""The log API's questions against many rows: fills logs.db, then asks each question a few times. Prints a table.

    uv run python bench/logs.py --rows 1000000 --days 30 [--dir DIR] [--postgres DSN]

With `--dir` the filled file is kept and used again. Bodies are left out: they have a table of their own, which no list or sum
reads.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from store.clock import SystemClock
from store.database import Database
from store.logs.batch import write_rows
from store.logs.collect import collect, sums_of_everything, whole_span
from store.logs.facets import facets
from store.logs.filters import LogFilter
from store.logs.histograms import histogram, latency_histogram
from store.logs.overview import overview
from store.logs.periods import DAY_MS
from store.logs.queries import LogReader
from store.logs.rankings import rankings
from store.logs.schema import MIGRATIONS
from store.logs.types import CallRow
from store.postgres import PostgresAddress, PostgresDatabase
from store.sqlite import SqliteDatabase

BATCH_ROWS = 5_000
MODELS = [(provider, f"{provider}-model-{number}") for provider in ("openai", "anthropic", "gemini") for number in range(3)]


def made_row(chance: random.Random, number: int, at_ms: int, keys: int) -> CallRow:
    """A call of a random key, much like real ones."""
    key = int(keys * chance.random() ** 3)
    provider, model = chance.choice(MODELS)
    status = chance.choices(("success", "error", "refused", "cancelled"), (90, 4, 4, 2))[0]
    refused = status == "refused"
    return CallRow(
        id=f"{at_ms:012x}-7{number:07x}-call",
        at_ms=at_ms,
        status=status,
        http_status=402 if refused else 200,
        provider=provider,
        model=model,
        answered_model=model + "-2026-11-01",
        operation="chat_completion",
        stream=chance.random() < 0.7,
        way_in="forward",
        virtual_key_id=f"vk-{key:05d}",
        virtual_key_name=f"key {key}",
        team_id=f"team-{key % 20}" if key % 4 else "",
        input_tokens=0 if refused else chance.randrange(20_000),
        output_tokens=0 if refused else chance.randrange(2_000),
        cost_nanos=0 if refused else chance.randrange(50_000_000),
        priced=chance.random() < 0.99,
        price_source="genai-prices",
        caps_charged=() if refused else ("01a208d3-d42a-74e1-8cf2-993bf85e76d5", "01a208d3-d42a-74e1-8cf2-993bf85e76d6"),
        refusal_type="budget_exceeded" if refused else "",
        refusal_cap="01a208d3-d42a-74e1-8cf2-993bf85e76d5" if refused else "",
        message="Budget 'day' of virtual key 'x' has $0.00 of $5.00 left and this call needs up to $0.02." if refused else "",
        latency_ms=int(chance.lognormvariate(7.5, 0.8)),
        first_token_ms=chance.randrange(2_000),
        stop_reason="stop",
        method="POST",
        path="/v1/chat/completions",
        client="claude-cli/2.1.14 (external, cli)",
        text_bytes=40_000,
    )


def fill(database: Database, rows: int, days: int, keys: int, now_ms: int) -> None:
    """Calls spread evenly over the days up to now."""
    chance = random.Random(4)
    began, step = now_ms - days * DAY_MS, days * DAY_MS / rows
    for start in range(0, rows, BATCH_ROWS):
        batch = [
            made_row(chance, number, began + int(number * step), keys) for number in range(start, min(rows, start + BATCH_ROWS))
        ]
        with database.write() as connection:
            write_rows(connection, batch)


def questions(database: Database, now_ms: int) -> dict[str, Callable[[], object]]:
    """Every question, of a day and of all time."""
    made: dict[str, Callable[[], object]] = {}
    day, everything = LogFilter(start_ms=now_ms - DAY_MS, end_ms=now_ms + 1), LogFilter()
    for name, given in (("day", day), ("all", everything)):
        made[f"{name}: list and count"] = partial(page, database, start_ms=given.start_ms, end_ms=given.end_ms)
        made[f"{name}: stats"] = partial(sums, database, given, now_ms)
        made[f"{name}: histogram"] = partial(histogram, database, given, now_ms)
        made[f"{name}: histogram by model"] = partial(histogram, database, given, now_ms, "model")
        made[f"{name}: latency"] = partial(latency_histogram, database, given, now_ms)
        made[f"{name}: latency by provider"] = partial(latency_histogram, database, given, now_ms, "provider")
        made[f"{name}: rankings"] = partial(rankings, database, given, now_ms, "model")
        made[f"{name}: rankings of keys"] = partial(rankings, database, given, now_ms, "virtual_key")
        made[f"{name}: dashboard"] = partial(overview, database, given, now_ms)
    week = LogFilter(start_ms=now_ms - 6 * DAY_MS, end_ms=now_ms + 1)
    made["6 days: histogram (no daily sums)"] = partial(histogram, database, week, now_ms)
    made["all, one key: list and count"] = partial(page, database, virtual_key_ids="vk-00000")
    made["all, one key: stats"] = partial(sums, database, LogFilter(virtual_key_ids=("vk-00000",)), now_ms)
    made["all, refused: stats"] = partial(sums, database, LogFilter(statuses=("refused",)), now_ms)
    made["facets"] = partial(facets, database)
    made["metrics' sums"] = partial(sums_of_everything, database)
    made["all, searched text: stats"] = partial(sums, database, LogFilter(text="nowhere to be found"), now_ms)
    return made


def page(database: Database, **conditions: Any) -> object:
    """The first page of calls, and how many there are."""
    reader = LogReader(database)
    return reader.recent(50, **conditions), reader.count(**conditions)


def sums(database: Database, given: LogFilter, now_ms: int) -> object:
    """The sums over all calls."""
    return collect(database, given, whole_span(database, given, now_ms))


def on_postgres(address: str) -> Database:
    """The database that a `postgresql://` address names."""
    parts = urlsplit(address)
    password = unquote(parts.password or "")
    server = PostgresAddress(
        parts.hostname or "127.0.0.1", parts.port or 5432, unquote(parts.username or ""), parts.path[1:], lambda: password
    )
    return PostgresDatabase.open(server, purpose="logs", migrations=MIGRATIONS, synchronous="NORMAL")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--postgres", default="", help="an empty database, as postgresql://…")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.dir or Path(temporary)
        if given.postgres:
            database: Database = on_postgres(given.postgres)
        else:
            database = SqliteDatabase.open(place / "logs.db", migrations=MIGRATIONS, synchronous="NORMAL")
        database.migrate()
        now_ms = SystemClock().now_ms()
        reader = LogReader(database)
        if not reader.count(at_most=1):
            began, used = time.perf_counter(), time.process_time()
            fill(database, given.rows, given.days, given.keys, now_ms)
            seconds, used = time.perf_counter() - began, (time.process_time() - used) / given.rows * 1e6
            print(f"filled with {given.rows} rows in {seconds:.0f} s; {used:.0f} µs of this process a row, making it included")
        newest = reader.recent(1)[0].at_ms
        with database.read() as connection:
            days = connection.execute("SELECT count(*) FROM daily_costs")[0][0]
        print(f"{reader.count()} calls, {days} rows of daily sums")
        for name, ask in questions(database, newest).items():
            taken = []
            used = time.process_time()
            for _ in range(given.repeat):
                began = time.perf_counter()
                ask()
                taken.append((time.perf_counter() - began) * 1000)
            used = (time.process_time() - used) * 1000 / given.repeat
            print(
                f"{name:36} {statistics.median(taken):8.1f} ms   "
                f"(best {min(taken):.1f}, slowest {max(taken):.1f}, of this process {used:.1f})"
            )
        print(f"a write while the slowest question runs: {slowest_write(database, newest):.1f} ms at most")
        database.close()


def slowest_write(database: Database, newest_ms: int) -> float:
    """Milliseconds that the slowest of many one-row writes took while a search went through everything."""
    searched, done = LogFilter(text="nowhere to be found"), threading.Event()

    def search() -> None:
        collect(database, searched, whole_span(database, searched, newest_ms))
        done.set()

    thread = threading.Thread(target=search)
    thread.start()
    chance, slowest, number = random.Random(5), 0.0, 0
    while not done.is_set():
        row = made_row(chance, number, newest_ms, 200)
        began = time.perf_counter()
        with database.write() as connection:
            write_rows(connection, [row])
        slowest = max(slowest, (time.perf_counter() - began) * 1000)
        number += 1
        done.wait(0.01)
    thread.join()
    return slowest


if __name__ == "__main__":
    main()
