"""Keeps logs.db complete: what the ledger has posted and the logs do not know is written from the ledger's rows."""

import asyncio
import logging
from collections.abc import Callable, Iterator

from store.clock import Clock
from store.database import Database
from store.errors import StoreUnavailable
from store.ledger.history import PostRecord, call_at, newest_sequence, posts_since
from store.logs.catch_up import BATCH_POSTS, CatchUpReport, catch_up
from store.logs.ledgers import set_watermark, tie

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0
GRACE_MS = 10_000
"""A younger post's row may still be on its way from a worker."""


def complete_logs(ledger: Database, logs: Database, clock: Clock) -> CatchUpReport:
    """One pass. Raises StoreUnavailable."""
    followed = tie(logs, ledger)
    return catch_up(logs, _posts(ledger, followed.watermark), followed, now_ms=clock.now_ms(), grace_ms=GRACE_MS)


def _posts(ledger: Database, after: int) -> Iterator[PostRecord]:
    """Posts in pieces, each read in a transaction of its own, so that no long read holds up the ledger."""
    while True:
        with ledger.read() as connection:
            piece = posts_since(connection, after, BATCH_POSTS)
        yield from piece
        if len(piece) < BATCH_POSTS:
            return
        after = piece[-1].sequence


def leave_out(ledger: Database, logs: Database, up_to: int | None = None) -> None:
    """What the ledger has posted so far, or up to a sequence, stays out of the logs unless it is there: it was not to be logged.

    Raises StoreUnavailable.
    """
    followed = tie(logs, ledger)
    with ledger.read() as connection:
        sequence = newest_sequence(connection) if up_to is None else min(up_to, newest_sequence(connection))
        call_id = call_at(connection, sequence) or ""
    if sequence > followed.watermark:
        with logs.write() as connection:
            set_watermark(connection, followed.number, sequence, call_id)


async def keep_logs_complete(
    ledger: Database, logs: Database, clock: Clock, logged_after: Callable[[], int | None] = lambda: 0
) -> None:
    """For ever, every few seconds, in a thread.

    `logged_after` says after which sequence of the ledger calls are logged, None while none are; it may read the store.
    """

    def one_pass() -> CatchUpReport | None:
        after = logged_after()
        if after != 0:
            leave_out(ledger, logs, after)
        return None if after is None else complete_logs(ledger, logs, clock)

    while True:
        try:
            report = await asyncio.to_thread(one_pass)
            if report is not None and report.inserted:
                logger.warning("%d log rows were missing and were made from the ledger", report.inserted)
        except StoreUnavailable as fault:
            logger.warning("the logs cannot be compared with the ledger now: %s", fault)
        except Exception:
            logger.exception("the logs could not be compared with the ledger; trying again")
        await asyncio.sleep(PAUSE_SECONDS)
