"""Ties the logs to the ledger: every post of the ledger gets its row, and every row the cost the ledger booked.

Run at start (after a crash rows may be missing) and now and then: the *watermark* is the ledger sequence up to which both agree.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import batched
from typing import Protocol

from store.database import Connection, Database
from store.ledger.history import PostRecord, ledger_identity, posts_since
from store.ledger.types import CallFacts
from store.logs.batch import put
from store.logs.daily import DailyChanges
from store.logs.deletion import deleted_among
from store.logs.ledgers import Tie, known_tie, read_watermark, set_watermark
from store.logs.retention import deleted_before_ms
from store.logs.rows import Stored, bounded, read_stored
from store.logs.types import CallRow

BATCH_POSTS = 500

_STATUS_OF_NOTE = {"complete": "success", "client_left": "cancelled", "cut": "cut"}


class Posted(Protocol):
    """What is read of a row of the ledger's posts (`PostRecord`). The sums of a correction are differences, as in the ledger."""

    @property
    def sequence(self) -> int: ...
    @property
    def call_id(self) -> str: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def held_at_ms(self) -> int: ...
    @property
    def facts(self) -> CallFacts: ...
    @property
    def cost_nanos(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def held_nanos(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def price_source(self) -> str: ...
    @property
    def estimated(self) -> bool: ...
    @property
    def unconfirmed(self) -> bool: ...
    @property
    def note(self) -> str: ...
    @property
    def cap_ids(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class CatchUpReport:
    """What a catch-up did."""

    watermark: int
    """Every post up to this sequence is in the logs."""
    checked: int = 0
    inserted: int = 0
    """Rows made from the ledger because the logs had none."""
    corrected: int = 0
    """Rows whose cost was not what the ledger booked."""
    complete: bool = True
    """False when it stopped at a post so young that its row may still be on its way."""


def catch_up(database: Database, posts: Iterable[Posted], tie: Tie, *, now_ms: int, grace_ms: int = 0) -> CatchUpReport:
    """Bring the logs up to date with posts of one ledger that ascend by sequence and leave none out after `tie.watermark`.

    A post without a row gets one, once, whoever runs this and however often; but not while it is younger than `grace_ms`,
    because a living process may be about to write the full row, and not when the retention or a person has deleted it.
    Raises StoreUnavailable.
    """
    report = CatchUpReport(tie.watermark)
    for some in batched(posts, BATCH_POSTS):
        with database.write() as connection:
            report = _one_batch(connection, some, tie.number, report, now_ms - grace_ms)
        if not report.complete:
            break
    return report


def _one_batch(
    connection: Connection, posts: Iterable[Posted], ledger: int, report: CatchUpReport, settled_before_ms: int
) -> CatchUpReport:
    posts = tuple(posts)
    watermark = read_watermark(connection, ledger)
    last_call = None
    gone_before_ms = deleted_before_ms(connection)
    new_ids = {post.call_id for post in posts if post.sequence > watermark}
    before = read_stored(connection, new_ids)
    deleted = deleted_among(connection, new_ids - before.keys()) if len(before) < len(new_ids) else set()
    after: dict[str, Stored] = {}
    checked = inserted = corrected = 0
    complete = True
    for post in posts:
        if post.sequence <= watermark:
            continue
        stored = after.get(post.call_id) or before.get(post.call_id)
        gone = stored is None and (post.held_at_ms < gone_before_ms or post.call_id in deleted)
        if stored is None and not gone and post.at_ms > settled_before_ms:
            complete = False
            break
        checked += 1
        watermark, last_call = post.sequence, post.call_id
        if gone:
            continue
        if stored is None:
            inserted += 1
            stored = Stored(bounded(_row_of(post)))
        if stored.ledger != ledger or stored.ledger_sequence == 0:
            stored = Stored(stored.row, ledger)  # what another ledger has booked says nothing of this one
        elif stored.ledger_sequence >= post.sequence:
            continue
        booked = stored.ledger_nanos + post.cost_nanos
        if stored.row.cost_nanos != booked:
            corrected += 1
        after[post.call_id] = Stored(bounded(_with_post(stored, post, booked)), ledger, post.sequence, booked)
    changes = DailyChanges()
    put(connection, tuple(after.values()), before, changes)
    changes.write(connection)
    if last_call is not None:
        set_watermark(connection, ledger, watermark, last_call)
    return CatchUpReport(watermark, report.checked + checked, report.inserted + inserted, report.corrected + corrected, complete)


def _with_post(stored: Stored, post: Posted, booked_nanos: int) -> CallRow:
    row = replace(stored.row, cost_nanos=booked_nanos)
    if row.status == "unconfirmed" and not post.unconfirmed:
        row = replace(
            row,
            status=_STATUS_OF_NOTE.get(post.note, "success"),
            input_tokens=row.input_tokens + post.input_tokens,
            output_tokens=row.output_tokens + post.output_tokens,
            estimated=post.estimated,
        )
    return row


def _row_of(post: Posted) -> CallRow:
    """What the ledger still knows of a call whose row was lost."""
    facts = post.facts
    return CallRow(
        id=post.call_id,
        at_ms=post.held_at_ms,
        status="unconfirmed" if post.unconfirmed else _STATUS_OF_NOTE.get(post.note, "error"),
        http_status=0,
        provider=facts.provider,
        model=facts.model,
        answered_model=post.model,
        operation=facts.operation,
        stream=facts.stream,
        virtual_key_id=facts.virtual_key_id,
        virtual_key_name=facts.virtual_key_name,
        team_id=facts.team_id,
        customer_id=facts.customer_id,
        run_id=facts.run_id,
        input_tokens=post.input_tokens,
        output_tokens=post.output_tokens,
        cost_nanos=post.cost_nanos,
        estimated=post.estimated or post.unconfirmed,
        held_nanos=post.held_nanos,
        price_source=post.price_source,
        caps_charged=post.cap_ids,
        message=f"row made from the ledger ({post.note})" if post.note else "row made from the ledger",
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two books up to the watermark, over the calls that both still keep. Money in nano-dollars."""

    watermark: int
    ledger_nanos: int
    logs_nanos: int
    missing: tuple[str, ...] = ()
    """Calls that the ledger booked and the logs do not have, at most a hundred of them."""

    @property
    def agree(self) -> bool:
        """True when nothing is missing and the sums are equal."""
        return self.ledger_nanos == self.logs_nanos and not self.missing


def compare(logs: Database, ledger: Database) -> Comparison:
    """Adds up both books anew, post by post. Takes time with the number of posts. Raises StoreUnavailable.

    Calls that retention or a person has deleted from the logs, or sealing from the ledger, are left out on both sides.
    """
    with ledger.read() as connection:
        identity = ledger_identity(connection)
    tie = known_tie(logs, identity)
    if tie is None:
        return Comparison(0, 0, 0)
    watermark = tie.watermark
    with logs.read() as connection:
        oldest_ms = connection.execute("SELECT coalesce(min(at_ms), 0) FROM calls")[0][0]
    booked: Counter[str] = Counter()
    missing: list[str] = []
    ledger_nanos = logs_nanos = 0
    for posts in batched(_posts_after(ledger, 0), BATCH_POSTS):
        booked.clear()
        for post in posts:
            if post.sequence <= watermark and post.held_at_ms >= oldest_ms:
                booked[post.call_id] += post.cost_nanos
        with logs.read() as connection:
            stored = read_stored(connection, booked)
            deleted = deleted_among(connection, booked.keys() - stored.keys())
        for call_id in deleted:
            del booked[call_id]
        last = {post.call_id: post.sequence for post in posts}
        missing += [call_id for call_id in booked if call_id not in stored][: 100 - len(missing)]
        ledger_nanos += sum(booked.values())
        # A call with a correction has two posts, perhaps in two batches: its row is counted with the last one it accounts for.
        logs_nanos += sum(item.row.cost_nanos for item in stored.values() if item.ledger_sequence == last[item.row.id])
    return Comparison(watermark, ledger_nanos, logs_nanos, tuple(missing))


def _posts_after(ledger: Database, sequence: int) -> Iterator[PostRecord]:
    while True:
        with ledger.read() as connection:
            posts = posts_since(connection, sequence, BATCH_POSTS)
        yield from posts
        if len(posts) < BATCH_POSTS:
            return
        sequence = posts[-1].sequence
