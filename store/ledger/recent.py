"""What was spent on caps of late, from the newest rows of the ledger; how far back a bounded read came is told."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from store.database import Database
from store.ledger.forecast import Recent

MAX_POSTS = 50_000
"""So many of the newest rows are read at most."""
_AT_ONCE = 5_000


@dataclass(slots=True)
class _Sum:
    since_ms: int
    spent: int = 0
    calls: int = 0


def recent_spending(database: Database, since_ms: Mapping[str, int], *, max_posts: int = MAX_POSTS) -> dict[str, Recent]:
    """What each of these caps was charged since its instant; later where the rows that are read do not go back so far.

    Raises StoreUnavailable.
    """
    sums = {cap_id: _Sum(at_ms) for cap_id, at_ms in since_ms.items()}
    farthest_ms = min(since_ms.values(), default=0)
    before, left = 2**62, max_posts if sums else 0
    while left > 0:
        with database.read() as connection:
            rows = connection.execute(
                "SELECT sequence, at_ms, parts FROM posts WHERE sequence < ? ORDER BY sequence DESC LIMIT ?",
                (before, min(_AT_ONCE, left)),
            )
        for _, at_ms, parts in rows:
            _count(sums, at_ms, orjson.loads(parts))
        if len(rows) < min(_AT_ONCE, left) or max(row[1] for row in rows) < farthest_ms:
            break
        before, left = rows[-1][0], left - len(rows)
        if left <= 0:
            _shorten(sums, rows[-1][1] + 1)
    return {cap_id: Recent(found.since_ms, found.spent, found.calls) for cap_id, found in sums.items()}


def _count(sums: Mapping[str, _Sum], at_ms: int, parts: list[list[int | str]]) -> None:
    for cap_id, _, amount in parts:
        found = sums.get(str(cap_id))
        if found is not None and at_ms >= found.since_ms:
            found.spent += int(amount)
            found.calls += int(amount) > 0


def _shorten(sums: Mapping[str, _Sum], oldest_ms: int) -> None:
    """The read stopped at a row of this instant: nothing is known of what was before."""
    for found in sums.values():
        found.since_ms = max(found.since_ms, oldest_ms)
