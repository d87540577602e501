"""What was posted, row by row: for logs.db to fill its gaps from, and for a person to confirm what nobody could confirm."""

from collections.abc import Iterable
from dataclasses import dataclass

from store.database import Connection, Row
from store.errors import NotFound
from store.ledger.batch import CORRECTED, UNCONFIRMED, Batch
from store.ledger.books import Books
from store.ledger.rows import Flag, facts_from_json, post_parts
from store.ledger.types import CallFacts, Settled, Settlement, Unit

_COLUMNS = """p.sequence, p.call_id, p.kind, p.at_ms, p.held_ms, p.cost_nanos, p.tokens, p.input_tokens, p.output_tokens, p.flags,
    p.model, p.price_source, p.note, p.parts, h.facts, h.amount_nanos"""


@dataclass(frozen=True, slots=True)
class PostRecord:
    """One row of the books about a call. Of an `adjust` the sums are differences: a call's cost is the sum over its rows."""

    sequence: int
    call_id: str
    kind: str
    """`post`, `void`, `unconfirmed` or `adjust`."""
    at_ms: int
    held_at_ms: int
    facts: CallFacts
    cost_nanos: int
    tokens: int
    input_tokens: int
    output_tokens: int
    held_nanos: int
    estimated: bool
    unconfirmed: bool
    over_hold: bool
    model: str
    price_source: str
    note: str
    cap_ids: tuple[str, ...]


def posts_since(connection: Connection, after_sequence: int, limit: int) -> list[PostRecord]:
    """The rows after this sequence, oldest first, at most `limit`."""
    rows = connection.execute(
        f"""SELECT {_COLUMNS} FROM posts AS p JOIN holds AS h ON h.call_id = p.call_id
        WHERE p.sequence > ? ORDER BY p.sequence LIMIT ?""",
        (after_sequence, limit),
    )
    return [_record(row) for row in rows]


def ledger_identity(connection: Connection) -> str:
    """What tells this ledger from every other; a copy of it keeps it."""
    return str(connection.execute("SELECT id FROM ledger_identity")[0][0])


def newest_sequence(connection: Connection) -> int:
    """The sequence of the newest row; 0 when there is none."""
    return int(connection.execute("SELECT coalesce(max(sequence), 0) FROM posts")[0][0])


def call_at(connection: Connection, sequence: int) -> str | None:
    """The call that a row is about; None when there is no such row."""
    rows = connection.execute("SELECT call_id FROM posts WHERE sequence = ?", (sequence,))
    return str(rows[0][0]) if rows else None


def posts_of(connection: Connection, call_id: str) -> list[PostRecord]:
    """The rows of one call, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM posts AS p JOIN holds AS h ON h.call_id = p.call_id WHERE p.call_id = ? ORDER BY p.sequence",
        (call_id,),
    )
    return [_record(row) for row in rows]


_WAITING = (
    f"p.kind = '{UNCONFIRMED}' AND NOT EXISTS (SELECT 1 FROM posts AS c WHERE c.call_id = p.call_id AND c.step = {CORRECTED})"
)


def unconfirmed(connection: Connection, limit: int = 1_000, offset: int = 0) -> list[PostRecord]:
    """Calls posted at their hold because nobody could say what they cost, oldest first; corrected ones are left out."""
    rows = connection.execute(
        f"""SELECT {_COLUMNS} FROM posts AS p JOIN holds AS h ON h.call_id = p.call_id
        WHERE {_WAITING} ORDER BY p.sequence LIMIT ? OFFSET ?""",
        (limit, offset),
    )
    return [_record(row) for row in rows]


def count_unconfirmed(connection: Connection) -> int:
    """How many calls wait for somebody's word."""
    return int(connection.execute(f"SELECT count(*) FROM posts AS p WHERE {_WAITING}")[0][0])


def confirm(
    connection: Connection, call_id: str, *, cost_nanos: int | None = None, tokens: int | None = None, reason: str = ""
) -> Settled:
    """A person's word on an unconfirmed call: corrected to the amounts given; where none is given it stays as posted.

    Raises NotFound.
    """
    found = next((record for record in posts_of(connection, call_id) if record.kind == UNCONFIRMED), None)
    if found is None:
        raise NotFound(f"the call {call_id!r} is not unconfirmed")
    books = Books(connection, connection.now_ms())
    batch = Batch(connection, books, epoch="", revision=0)
    batch.prepare([], [call_id])
    settled = batch.settle(
        Settlement(
            call_id,
            found.cost_nanos if cost_nanos is None else cost_nanos,
            found.tokens if tokens is None else tokens,
            sent=True,
            note=reason or "confirmed",
        ),
        # What a cap in tokens was posted is what it held, which may be less than the call's estimate.
        frozenset(unit for unit, given in ((Unit.USD, cost_nanos), (Unit.TOKENS, tokens)) if given is None),
    )
    batch.flush()
    return settled


def total_posted(connection: Connection, up_to_sequence: int | None = None) -> int:
    """The cost of all calls in nano-dollars, up to and with a sequence: what logs.db must agree with at that watermark."""
    condition, params = ("", ()) if up_to_sequence is None else ("WHERE sequence <= ?", (up_to_sequence,))
    return sum(_column(connection.execute(f"SELECT cost_nanos FROM posts {condition}", params)))


def _column(rows: Iterable[Row]) -> Iterable[int]:
    return (row[0] for row in rows)


def _record(row: Row) -> PostRecord:
    flags = Flag(row[9])
    return PostRecord(
        sequence=row[0],
        call_id=row[1],
        kind=row[2],
        at_ms=row[3],
        held_at_ms=row[4],
        facts=facts_from_json(row[14]),
        cost_nanos=row[5],
        tokens=row[6],
        input_tokens=row[7],
        output_tokens=row[8],
        held_nanos=row[15],
        estimated=Flag.ESTIMATED in flags,
        unconfirmed=Flag.UNCONFIRMED in flags,
        over_hold=Flag.OVER_HOLD in flags,
        model=row[10],
        price_source=row[11],
        note=row[12],
        cap_ids=tuple(part[0] for part in post_parts(row[13])),
    )
