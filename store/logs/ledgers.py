"""Which ledger the logs follow, and how far: a ledger that was replaced, or put back from a backup, is followed anew."""

import logging
from dataclasses import dataclass, field

import orjson

from store.database import Connection, Database
from store.ledger.history import call_at, ledger_identity, newest_sequence
from store.money import plain_usd

logger = logging.getLogger(__name__)

LOST_AT_ONCE = 500
_ANY = ""
"""The identity of the ledger of logs that have not met theirs yet: the first to come is it."""


@dataclass(frozen=True, slots=True)
class Tie:
    """A ledger as the logs know it. Rows that it has booked carry its `number`."""

    number: int
    watermark: int
    """Every row of the ledger up to this sequence is in the logs."""
    call_id: str = field(default="", compare=False)
    """The call of the row at the watermark; empty when it is not known."""


def tie(logs: Database, ledger: Database) -> Tie:
    """What the logs know of this ledger, made when they do not know it. Raises StoreUnavailable.

    A ledger that has no row up to the watermark, or another one there, has lost rows (a backup was put back, a standby took
    over): it is followed from its beginning under a new number, because its sequences now mean other rows.
    """
    with ledger.read() as connection:
        identity = ledger_identity(connection)
    known = known_tie(logs, identity)
    # Asked for after the watermark was read: a ledger only grows, so one that is behind now was not the one that was followed.
    with ledger.read() as connection:
        if known is not None and _is_of(connection, known):
            return known
        newest = newest_sequence(connection)
    with logs.write() as connection:
        now = _known(connection, identity)
        if now is not None and now != known:
            return now  # another process was first
        followed = _begin(connection, identity, newest)
    if known is not None:
        _tell_of_loss(logs, ledger, known)
    return followed


def known_tie(logs: Database, identity: str) -> Tie | None:
    """What the logs know of the ledger with this identity; None when it is new to them. Raises StoreUnavailable."""
    with logs.read() as connection:
        return _known(connection, identity)


def read_watermark(connection: Connection, number: int) -> int:
    """The sequence up to which every row of a ledger is in the logs."""
    rows = connection.execute("SELECT watermark FROM log_ledgers WHERE number = ?", (number,))
    return int(rows[0][0]) if rows else 0


def set_watermark(connection: Connection, number: int, watermark: int, call_id: str) -> None:
    """Notes that the logs are complete up to a row, in the transaction that makes them so."""
    connection.execute("UPDATE log_ledgers SET watermark = ?, call_id = ? WHERE number = ?", (watermark, call_id, number))


def _is_of(ledger: Connection, known: Tie) -> bool:
    """Whether this ledger is the one that the logs have followed up to the watermark. A row that was pruned says nothing."""
    if known.watermark > newest_sequence(ledger):
        return False
    return not known.call_id or call_at(ledger, known.watermark) in (None, known.call_id)


def _tell_of_loss(logs: Database, ledger: Database, known: Tie) -> None:
    calls, nanos = lost_calls(logs, ledger, known)
    logger.error(
        "the ledger has lost its newest rows (a backup was put back, or a disk forgot what it had written): %d calls of $%s "
        "that the logs know are missing in it, and no budget counts them; compare with what the providers billed",
        calls,
        plain_usd(nanos),
    )


def lost_calls(logs: Database, ledger: Database, known: Tie) -> tuple[int, int]:
    """How many calls the logs have seen booked that the ledger does not know, and their cost in nano-dollars.

    Looks back until a piece of `LOST_AT_ONCE` calls is all there, and no further than the ledger's rows go.
    Raises StoreUnavailable.
    """
    with ledger.read() as connection:
        oldest = connection.execute("SELECT min(call_id) FROM posts")[0][0] or ""
    before, calls, nanos = known.watermark + 1, 0, 0
    while True:
        with logs.read() as connection:
            piece = connection.execute(
                "SELECT id, ledger_nanos, ledger_sequence FROM calls WHERE ledger = ? AND ledger_sequence > 0 "
                "AND ledger_sequence < ? AND id >= ? ORDER BY ledger_sequence DESC LIMIT ?",
                (known.number, before, oldest, LOST_AT_ONCE),
            )
        with ledger.read() as connection:
            rows = connection.execute(
                f"SELECT call_id FROM posts WHERE call_id IN ({connection.listed})",
                (orjson.dumps([row[0] for row in piece]).decode(),),
            )
        there = {row[0] for row in rows}
        missing = [row for row in piece if row[0] not in there]
        if not missing:
            return calls, nanos
        calls += len(missing)
        nanos += sum(row[1] for row in missing)
        before = piece[-1][2]


def _known(connection: Connection, identity: str) -> Tie | None:
    rows = connection.execute(
        "SELECT number, watermark, call_id FROM log_ledgers WHERE identity = ? ORDER BY number DESC LIMIT 1", (identity,)
    )
    return Tie(*rows[0]) if rows else None


def _begin(connection: Connection, identity: str, newest: int) -> Tie:
    """Gives the ledger a number: that of the ledger nobody has named yet, if it can be this one, else the next."""
    unnamed = _known(connection, _ANY)
    if unnamed is not None and unnamed.watermark <= newest:
        connection.execute("UPDATE log_ledgers SET identity = ? WHERE number = ?", (identity, unnamed.number))
        return unnamed
    number = int(connection.execute("SELECT max(number) FROM log_ledgers")[0][0] or 0) + 1
    connection.execute("INSERT INTO log_ledgers (number, identity, watermark, call_id) VALUES (?, ?, 0, '')", (number, identity))
    return Tie(number, 0)
