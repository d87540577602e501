"""Books what dead processes left: their spooled settlements first, then their open holds, posted as unconfirmed."""

import logging
from collections.abc import Set
from pathlib import Path

from store.database import Connection, Database, governance_revision
from store.errors import UserError
from store.ledger.batch import Batch
from store.ledger.books import Books
from store.ledger.epochs import Lease, end_epoch, is_silent, open_calls, running_epochs
from store.ledger.spool import leftovers
from store.ledger.types import Settlement

log = logging.getLogger(__name__)

CALLS_AT_ONCE = 500


def recover_dead(database: Database, own_epoch: str, lease_dir: Path) -> int:
    """Posts every open hold of dead epochs at its amount, flagged unconfirmed; returns how many. Raises StoreUnavailable.

    Leases are found by name in `lease_dir`: the directory they were made in may have been moved since.
    """
    with database.read() as connection:
        now_ms = connection.now_ms()
        others = [epoch for epoch in running_epochs(connection) if epoch.id != own_epoch]
    recovered = 0
    for epoch in others:
        if not epoch.lease:
            # On PostgreSQL: ended, or silent for too long.
            if epoch.ended or is_silent(epoch.heartbeat_ms, now_ms):
                recovered += _recover(database, epoch.id)
            continue
        path = _lease_path(epoch.lease, lease_dir)
        lease = Lease.take(path) if path is not None else None
        if lease is None:
            continue
        try:
            recovered += _recover(database, epoch.id)
        except BaseException:
            lease.abandon()
            raise
        lease.drop()
    if recovered:
        log.warning("%d calls of a process that died were posted at their holds and wait for confirmation", recovered)
    return recovered


def _lease_path(written: str, lease_dir: Path) -> Path | None:
    """Where a lease is now; None when nobody can tell whether its owner lives.

    By name in our own directory first: the app directory may have been moved, or be mounted elsewhere for the other process.
    """
    here, there = lease_dir / Path(written).name, Path(written)
    if here.exists():
        return here
    return there if there.parent.is_dir() else None


def _recover(database: Database, epoch: str) -> int:
    recovered = 0
    while True:
        with database.write() as connection:
            if recovered == 0 and _has_come_back(connection, epoch):
                return 0
            # Fenced before anything of it is posted: its process, should it wake up, trusts nothing it remembers.
            end_epoch(connection, epoch, connection.now_ms())
            calls = open_calls(connection, epoch, CALLS_AT_ONCE)
            batch = _batch(connection, calls)
            for call in calls:
                recovered += batch.post_unconfirmed(call, "the gateway died")
            batch.flush()
            if len(calls) < CALLS_AT_ONCE:
                return recovered


def _has_come_back(connection: Connection, epoch: str) -> bool:
    """Whether an epoch without a lease has given a sign of life since it was found silent."""
    rows = connection.execute("SELECT lease, ended_ms, heartbeat_ms FROM epochs WHERE id = ?", (epoch,))
    if not rows or rows[0][0] or rows[0][1] is not None:
        return False
    return not is_silent(rows[0][2], connection.now_ms())


def end_forgotten(
    database: Database,
    epoch: str,
    live: Set[str],
    never_left: Set[str],
    still_never_left: Set[str],
    *,
    in_doubt: bool = False,
) -> list[str]:
    """Ends open holds of an epoch that no live call owns: voided when they never left, else posted unconfirmed.

    `live` and `still_never_left` may change meanwhile: they are asked again once the database is ours. `in_doubt`: a commit of
    this epoch whose answer was lost may still be on its way, and is waited for. Returns the calls.
    """
    with database.write() if in_doubt else database.read() as connection:
        ours = open_calls(connection, epoch)
    # A call that was told to stay may still be listed as live: its caller has not heard of it yet.
    calls = [call for call in ours if call in never_left or call not in live]
    if calls:
        with database.write() as connection:
            batch = _batch(connection, calls)
            for call in calls:
                if call in still_never_left:
                    batch.void(call, "never left")
                elif call not in live:
                    batch.post_unconfirmed(call, "forgotten")
            batch.flush()
    return calls


def book_leftovers(database: Database, spool_dir: Path) -> int:
    """Books the spool files of dead processes, each call once; returns how many lines. Raises StoreUnavailable."""
    booked = 0
    for leftover in leftovers(spool_dir):
        try:
            for start in range(0, len(leftover.settlements), CALLS_AT_ONCE):
                part = leftover.settlements[start : start + CALLS_AT_ONCE]
                _book(database, part)
                booked += len(part)
        except BaseException:
            leftover.leave()
            raise
        leftover.done()
    return booked


def _book(database: Database, settlements: tuple[Settlement, ...]) -> None:
    with database.write() as connection:
        batch = _batch(connection, [settlement.call_id for settlement in settlements])
        for settlement in settlements:
            try:
                batch.settle(settlement)
            except UserError as error:
                log.warning("a spooled settlement was left out: %s", error)
        batch.flush()


def _batch(connection: Connection, call_ids: list[str]) -> Batch:
    batch = Batch(connection, Books(connection, connection.now_ms()), epoch="", revision=governance_revision(connection))
    batch.prepare([], call_ids)
    return batch
