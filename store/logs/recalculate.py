"""What logged calls would cost at other prices: a figure beside the cost, never in its place.

`cost_nanos` is what the ledger has booked, and stays so; the figure stands in columns of its own that no sum looks at.
"""

from collections.abc import Callable
from dataclasses import dataclass

from store.database import Database
from store.logs.filters import LogFilter, where_calls
from store.logs.rows import COLUMN_LIST, from_columns
from store.logs.types import CallRow

ROWS_AT_ONCE = 500
"""Each piece is a short read and a short write, so that the writer of the logs never waits long."""

type PriceOf = Callable[[CallRow], tuple[int, str] | None]
"""(nano-dollars, source of the price) of a call; None when no price is known, or what it used is not."""


@dataclass(slots=True)
class Progress:
    """How far a run has come. `processed` is the sum of the three below it."""

    total: int = 0
    processed: int = 0
    updated: int = 0
    skipped: int = 0
    """Calls whose figure is right already, and refused ones, which cost nothing."""
    unpriceable: int = 0


def recalculate(
    database: Database,
    given: LogFilter,
    price_of: PriceOf,
    progress: Progress,
    is_stopped: Callable[[], bool] = lambda: False,
    at_most: int | None = None,
) -> None:
    """Price the calls that were there at the start, oldest first, and count in `progress`. Raises StoreUnavailable.

    Being stopped, or failing, leaves what is done; a later run goes on with the rest.
    """
    where = where_calls(database.engine, given)
    with database.read() as connection:
        last = int(connection.execute("SELECT coalesce(max(number), 0) FROM calls")[0][0])
        progress.total = int(connection.execute(f"SELECT count(*) FROM calls {where.sql}", tuple(where.values))[0][0])
    progress.total = progress.total if at_most is None else min(progress.total, at_most)
    where.add("number > ? AND number <= ?")
    seen = 0
    while not is_stopped():
        room = ROWS_AT_ONCE if at_most is None else min(ROWS_AT_ONCE, at_most - progress.processed)
        if room <= 0:
            return
        with database.read() as connection:
            found = connection.execute(
                f"SELECT {COLUMN_LIST}, number FROM calls {where.sql} ORDER BY number LIMIT ?", (*where.values, seen, last, room)
            )
        if not found:
            return
        _price(database, [from_columns(row[:-1]) for row in found], price_of, progress)
        seen = found[-1][-1]


def _price(database: Database, rows: list[CallRow], price_of: PriceOf, progress: Progress) -> None:
    changes: list[tuple[int, str, str]] = []
    skipped = unpriceable = 0
    for row in rows:
        made = None if row.status == "refused" else price_of(row)
        if row.status == "refused" or made == (row.recalculated_nanos, row.recalculated_source):
            skipped += 1
        elif made is None:
            unpriceable += 1
        else:
            changes.append((*made, row.id))
    if changes:
        with database.write() as connection:
            connection.executemany("UPDATE calls SET recalculated_nanos = ?, recalculated_source = ? WHERE id = ?", changes)
    progress.updated += len(changes)
    progress.skipped += skipped
    progress.unpriceable += unpriceable
    progress.processed += len(rows)
