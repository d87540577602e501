"""The ledger's own rows, read from outside, and its replay: what a gateway has on disk, running or not."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from store.clock import SystemClock
from store.ledger.verify import VerifyReport, verify
from store.sqlite import SqliteDatabase
from tests.support.gateway import Gateway

ESTIMATED, UNCONFIRMED, OVER_HOLD = 1, 2, 4
"""Bits of a post's flags."""


@dataclass(frozen=True, slots=True)
class Post:
    """A post joined with the hold it settled."""

    sequence: int
    call_id: str
    step: int
    kind: str
    cost_nanos: int
    input_tokens: int
    output_tokens: int
    flags: int
    note: str
    held_nanos: int
    provider: str

    @property
    def estimated(self) -> bool:
        return bool(self.flags & ESTIMATED)

    @property
    def unconfirmed(self) -> bool:
        return bool(self.flags & UNCONFIRMED)

    @property
    def over_hold(self) -> bool:
        return bool(self.flags & OVER_HOLD)


def _rows(app_dir: Path, statement: str) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(app_dir / "config.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(5_000)
        return list(connection.execute(statement))
    finally:
        connection.close()


def posts(app_dir: Path) -> list[Post]:
    """Every post in order."""
    rows = _rows(
        app_dir,
        """SELECT p.sequence, p.call_id, p.step, p.kind, p.cost_nanos, p.input_tokens, p.output_tokens, p.flags, p.note,
        h.amount_nanos, h.facts ->> 5 FROM posts AS p JOIN holds AS h ON h.call_id = p.call_id ORDER BY p.sequence""",
    )
    return [Post(*row) for row in rows]


def open_holds(app_dir: Path) -> list[tuple[str, int]]:
    """(call id, nano-dollars) of the holds that have no post, from the rows and not from the ledger's cache of them."""
    return [
        (row[0], row[1])
        for row in _rows(
            app_dir, "SELECT call_id, amount_nanos FROM holds WHERE call_id NOT IN (SELECT call_id FROM posts WHERE step = 1)"
        )
    ]


def epochs_of_holds(app_dir: Path) -> list[str]:
    """The owners of all holds ever taken: each is one run of one process."""
    return [row[0] for row in _rows(app_dir, "SELECT epoch FROM holds")]


def running_workers(app_dir: Path) -> list[int]:
    """Process ids of those that may hold now."""
    return [int(row[0]) for row in _rows(app_dir, "SELECT process_id FROM epochs WHERE ended_ms IS NULL ORDER BY started_ms")]


def held_nanos(app_dir: Path) -> int:
    """What the balances of all caps still hold together."""
    return int(_rows(app_dir, "SELECT coalesce(sum(held), 0) FROM balances")[0][0])


def used_by_cap(app_dir: Path) -> dict[str, int]:
    """Nano-dollars used, by name of the cap, over all windows."""
    return {
        name: int(used)
        for name, used in _rows(
            app_dir,
            "SELECT c.name, coalesce(sum(b.used), 0) FROM caps AS c LEFT JOIN balances AS b ON b.cap_id = c.id"
            " WHERE c.unit = 'usd' GROUP BY c.id",
        )
    }


def replayed(app_dir: Path) -> VerifyReport:
    """The ledger's own replay of its rows."""
    clock = SystemClock()
    database = SqliteDatabase.open(app_dir / "config.db", read_only=True, clock=clock)
    try:
        return verify(database, clock)
    finally:
        database.close()


def verify_command(gateway: Gateway) -> tuple[int, dict[str, Any]]:
    """Exit code and report of `verify --json`."""
    done = subprocess.run(
        gateway.command("verify", "--json"), env=gateway.env(), capture_output=True, text=True, timeout=60, check=False
    )
    report: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr}
    return done.returncode, report
