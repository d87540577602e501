"""Reads what is durable, with plain statements of its own: rows of the books as they are after a commit."""

from dataclasses import dataclass, field

import orjson

from store.database import Database
from tests.simulation.records import PostRecord


@dataclass
class Seen:
    """The books at one instant; posts and entries are those that are new since the last look."""

    at_ms: int
    revision: int = 0
    posts: list[PostRecord] = field(default_factory=list)
    carries: list[tuple[str, int, int]] = field(default_factory=list)
    raises_ended: list[str] = field(default_factory=list)
    open_calls: set[str] = field(default_factory=set)
    holds: set[str] = field(default_factory=set)
    balances: dict[tuple[str, int], tuple[int, int, int]] = field(default_factory=dict)
    """(cap, start) → (used, held, carried)."""
    ended: set[str] = field(default_factory=set)
    heartbeats: dict[str, int] = field(default_factory=dict)


class Observer:
    """Looks at one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._post = 0
        self._entry = 0

    def look(self) -> Seen:
        with self._database.read() as connection:
            seen = Seen(connection.now_ms())
            seen.revision = connection.execute("SELECT value FROM meta WHERE key = 'revision'")[0][0]
            for sequence, call_id, kind, cost, parts in connection.execute(
                "SELECT sequence, call_id, kind, cost_nanos, parts FROM posts WHERE sequence > ? ORDER BY sequence", (self._post,)
            ):
                self._post = sequence
                amounts = {cap_id: amount for cap_id, _, amount in orjson.loads(parts)}
                seen.posts.append(PostRecord(call_id, kind, cost, amounts))
            for sequence, cap_id, start_ms, kind, amount in connection.execute(
                "SELECT sequence, cap_id, window_start_ms, kind, amount FROM entries WHERE sequence > ? ORDER BY sequence",
                (self._entry,),
            ):
                self._entry = sequence
                if kind == "carry":
                    seen.carries.append((cap_id, start_ms, amount))
                elif kind == "unraise":
                    seen.raises_ended.append(cap_id)
            seen.open_calls = {row[0] for row in connection.execute("SELECT call_id FROM open_holds")}
            seen.holds = {row[0] for row in connection.execute("SELECT call_id FROM holds")}
            for cap_id, start_ms, *sums in connection.execute("SELECT cap_id, window_start_ms, used, held, carried FROM balances"):
                seen.balances[cap_id, start_ms] = (sums[0], sums[1], sums[2])
            for epoch, ended_ms, heartbeat_ms, lease in connection.execute("SELECT id, ended_ms, heartbeat_ms, lease FROM epochs"):
                if ended_ms is not None:
                    seen.ended.add(epoch)
                if not lease:
                    seen.heartbeats[epoch] = heartbeat_ms
        return seen

    def total_cost(self) -> int:
        """What all rows say that all calls cost."""
        with self._database.read() as connection:
            return sum(row[0] for row in connection.execute("SELECT cost_nanos FROM posts"))
