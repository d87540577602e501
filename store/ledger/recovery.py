"""Books what dead processes left: their spooled settlements first, then their open holds, posted as unconfirmed."""

import logging
from pathlib import Path

from store.clock import Clock
from store.database import Connection, Database, governance_revision
from store.errors import UserError
from store.ledger.batch import Batch
from store.ledger.books import Books
from store.ledger.epochs import Lease, end_epoch, is_fenced, open_calls, running_epochs
from store.ledger.spool import leftovers
from store.ledger.types import Settlement

log = logging.getLogger(__name__)

CALLS_AT_ONCE = 500


def recover_dead(database: Database, clock: Clock, own_epoch: str, lease_dir: Path) -> int:
    """Posts every open hold of dead epochs at its amount, flagged unconfirmed; returns how many. Raises StoreUnavailable.

    Leases are found by name in `lease_dir`: the directory they were made in may have been moved since.
    """
    with database.read() as connection:
        others = [epoch for epoch in running_epochs(connection) if epoch.id != own_epoch]
    recovered = 0
    for epoch in others:
        path = _lease_path(epoch.lease, lease_dir)
        lease = Lease.take(path) if path is not None else None
        if lease is None:
            continue
        try:
            recovered += _recover(database, clock, epoch.id)
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


def _recover(database: Database, clock: Clock, epoch: str) -> int:
    recovered = 0
    while True:
        with database.write() as connection:
            if is_fenced(connection, epoch):
                return recovered
            calls = open_calls(connection, epoch, CALLS_AT_ONCE)
            batch = _batch(connection, clock, calls)
            for call in calls:
                recovered += batch.post_unconfirmed(call, "the gateway died")
            batch.flush()
            if len(calls) < CALLS_AT_ONCE:
                # The lease is ours, so nobody adds to this epoch any more: it ends with its last hold.
                end_epoch(connection, epoch, clock.now_ms())
                return recovered


def book_leftovers(database: Database, clock: Clock, spool_dir: Path) -> int:
    """Books the spool files of dead processes, each call once; returns how many lines. Raises StoreUnavailable."""
    booked = 0
    for leftover in leftovers(spool_dir):
        try:
            for start in range(0, len(leftover.settlements), CALLS_AT_ONCE):
                part = leftover.settlements[start : start + CALLS_AT_ONCE]
                _book(database, clock, part)
                booked += len(part)
        except BaseException:
            leftover.leave()
            raise
        leftover.done()
    return booked


def _book(database: Database, clock: Clock, settlements: tuple[Settlement, ...]) -> None:
    with database.write() as connection:
        batch = _batch(connection, clock, [settlement.call_id for settlement in settlements])
        for settlement in settlements:
            try:
                batch.settle(settlement)
            except UserError as error:
                log.warning("a spooled settlement was left out: %s", error)
        batch.flush()


def _batch(connection: Connection, clock: Clock, call_ids: list[str]) -> Batch:
    batch = Batch(connection, Books(connection, clock.now_ms()), epoch="", revision=governance_revision(connection))
    batch.prepare([], call_ids)
    return batch
