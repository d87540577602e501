"""One batch of holds and settlements inside one transaction: read in bulk, decided in memory, written in bulk."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from store.database import Connection
from store.errors import Conflict, NotFound
from store.ledger.books import Books
from store.ledger.decide import Answer, Slot, Verdict, decide
from store.ledger.operations import HoldOperation, Operation
from store.ledger.resets import reset_lines
from store.ledger.rows import (
    MAX_AMOUNT,
    Flag,
    HoldRow,
    PostPart,
    facts_to_json,
    post_parts,
    read_holds,
    saturated,
    to_json,
)
from store.ledger.types import CapState, Exceeded, Granted, HoldRequest, Refused, Settled, Settlement, Stale, Unit

SETTLED, CORRECTED = 1, 2
"""The steps of a call's posts: one settles it, a second may correct an unconfirmed one."""
UNCONFIRMED = "unconfirmed"

_HOLD_COLUMNS = "call_id, at_ms, epoch, amount_nanos, tokens, alone, parts, facts"
_HOLD_TYPES = ("text", "bigint", "text", "bigint", "bigint", "bigint", "text", "text")
_POST_COLUMNS = (
    "call_id, step, kind, at_ms, held_ms, cost_nanos, tokens, input_tokens, output_tokens, flags, model, price_source, note, parts"
)
_POST_TYPES = ("text", "bigint", "text", *["bigint"] * 7, *["text"] * 4)

PostRow = tuple[str, int, str, int, int, int, int, int, int, int, str, str, str, str]


class PostedRow(NamedTuple):
    """A post that is in the books already."""

    kind: str
    cost_nanos: int
    tokens: int
    parts: tuple[PostPart, ...]
    corrected: bool
    sequence: int


@dataclass(frozen=True, slots=True)
class Waits:
    """The call has to wait: what it needs of each hard cap at the very least, and the verdict that says what is in the way."""

    needs: tuple[tuple[str, int], ...]
    verdict: Verdict


class Batch:
    """Reads with `prepare`, decides with `hold` and `settle` in any order, writes with `flush`. Nothing is kept afterwards."""

    def __init__(self, connection: Connection, books: Books, *, epoch: str, revision: int) -> None:
        self._connection = connection
        self._books = books
        self._epoch = epoch
        self._revision = revision
        self._holds: dict[str, HoldRow] = {}
        self._posted: dict[str, PostedRow] = {}
        self.granted: dict[str, HoldRow] = {}
        """The holds made here that are still open."""
        self._new_holds: list[tuple[str, int, str, int, int, int, str, str]] = []
        self._new_posts: list[PostRow] = []
        self.closed_holds: list[str] = []
        """The calls settled here."""
        self.ahead: dict[str, int] = {}
        """What calls ahead in the line need of each cap."""

    def prepare(
        self,
        requests: Sequence[HoldRequest],
        settled_ids: Sequence[str],
        known: Mapping[str, HoldRow] | None = None,
        *,
        careful: bool = True,
    ) -> None:
        """Reads everything that these holds and the settlements of these calls touch.

        `known` are open holds that nobody else can have settled; they are not read again. Unless `careful`, requests that are not
        among them are taken for new: the database refuses the batch when one is not.
        """
        books, now_ms = self._books, self._books.now_ms
        known = known or {}
        self._holds = {call_id: known[call_id] for call_id in settled_ids if call_id in known}
        self._holds.update((request.call_id, known[request.call_id]) for request in requests if request.call_id in known)
        unread = [call_id for call_id in settled_ids if call_id not in known]
        if careful:
            unread += [request.call_id for request in requests if request.call_id not in known]
        if unread:
            self._holds.update(read_holds(self._connection, unread))
            closed = [row.call_id for row in self._holds.values() if not row.is_open]
            if closed:
                self._posted = read_posted(self._connection, closed)
        if not requests and not self._holds:
            return
        cap_ids = {cap_id for request in requests for cap_id in request.cap_ids}
        for row in self._holds.values():
            cap_ids.update(part[0] for part in row.parts)
        books.load_caps(cap_ids)
        caps = books.caps
        keys = {(cap_id, caps[cap_id].start_at(now_ms)) for cap_id in cap_ids if cap_id in caps}
        for row in self._holds.values():
            for cap_id, start_ms, _, generation in row.parts:
                keys.add((cap_id, caps[cap_id].home(start_ms, generation, row.at_ms)))
        books.load(keys)
        books.load_current(cap_ids)

    def held_caps(self, call_ids: Iterable[str]) -> set[str]:
        """The caps that the prepared ones of these calls hold."""
        return {part[0] for call_id in call_ids if call_id in self._holds for part in self._holds[call_id].parts}

    def queue(self, needs: Iterable[tuple[str, int]]) -> None:
        """A call waits that needs this of each cap: it stays ahead of those that come after it."""
        for cap_id, needed in needs:
            self.ahead[cap_id] = self.ahead.get(cap_id, 0) + needed

    # ---- holds

    def hold(self, request: HoldRequest, waited_ms: int = 0) -> Granted | Refused | Stale | Waits:
        """Decides one hold. Raises Conflict for the id of a settled call and NotFound for a cap that never was."""
        row = self._holds.get(request.call_id)
        if row is not None:
            return self._repeat(request, row, waited_ms)
        if request.revision < self._revision:
            return Stale(self._revision)
        slots = self._slots(request)
        verdict = decide(request, slots, self.ahead)
        if verdict.answer is Answer.GRANT:
            return self._grant(request, slots, verdict, waited_ms)
        if verdict.answer is Answer.REFUSE:
            return self.refusal(request, verdict, held_only=False, waited_ms=waited_ms)
        needs = tuple((slot.stored.cap.id, slot.needed) for slot in slots if slot.stored.hard and slot.needed)
        return Waits(needs, verdict)

    def refusal(self, request: HoldRequest, verdict: Verdict, *, held_only: bool, waited_ms: int) -> Refused:
        """The refusal that names the slots in the way, in the order of the request."""
        exceeded = tuple(Exceeded(slot.stored.state(slot.balance, self._books.now_ms), slot.needed) for slot in verdict.blocking)
        return Refused(request.call_id, exceeded, held_only, waited_ms, self._books.now_ms)

    def _slots(self, request: HoldRequest) -> list[Slot]:
        books, now_ms = self._books, self._books.now_ms
        slots = []
        for cap_id in dict.fromkeys(request.cap_ids):
            stored = books.caps.get(cap_id)
            if stored is None:
                raise NotFound(f"there is no cap with the id {cap_id!r}")
            if not stored.cap.deleted:
                start_ms = stored.start_at(now_ms)
                balance = books.at((cap_id, start_ms))
                slots.append(Slot(stored, balance, start_ms, stored.limit_at(now_ms) + balance.carried))
        return slots

    def _grant(self, request: HoldRequest, slots: Sequence[Slot], verdict: Verdict, waited_ms: int) -> Granted:
        books = self._books
        now_ms = books.now_ms
        parts = []
        states = []
        for slot in slots:
            stored, balance = slot.stored, slot.balance
            amount = verdict.amount_nanos if stored.unit is Unit.USD else slot.needed
            cap_id = stored.cap.id
            balance.held += amount
            books.touch((cap_id, slot.start_ms))
            parts.append((cap_id, slot.start_ms, amount, stored.generation))
            states.append(stored.state(balance, now_ms))
        amount_nanos, alone = verdict.amount_nanos, verdict.alone
        self._new_holds.append(
            (
                request.call_id,
                now_ms,
                self._epoch,
                amount_nanos,
                request.tokens,
                int(alone),
                to_json(parts),
                facts_to_json(request.facts),
            )
        )
        row = HoldRow(request.call_id, now_ms, amount_nanos, request.tokens, alone, tuple(parts), True)
        self._holds[request.call_id] = self.granted[request.call_id] = row
        return Granted(request.call_id, amount_nanos, alone, tuple(states), waited_ms, verdict.would_refuse)

    def _repeat(self, request: HoldRequest, row: HoldRow, waited_ms: int) -> Granted:
        if not row.is_open:
            raise Conflict(f"the call {request.call_id!r} was settled before; a new call needs a new id")
        states = self._books.states(part[0] for part in row.parts)
        return Granted(row.call_id, row.amount_nanos, row.alone, states, waited_ms)

    # ---- settlements

    def settle(self, settlement: Settlement, as_posted: frozenset[Unit] = frozenset()) -> Settled:
        """Posts or voids an open hold, corrects an unconfirmed post, or finds it done. Raises NotFound for an unknown call.

        A correction leaves caps in the units `as_posted` as they are.
        """
        row = self._holds.get(settlement.call_id)
        if row is None:
            raise NotFound(f"no hold is known for the call {settlement.call_id!r}; nothing was charged")
        if row.is_open:
            return self._post(row, settlement, "post" if settlement.sent else "void")
        posted = self._posted.get(settlement.call_id)
        if posted is not None and posted.kind == UNCONFIRMED and not posted.corrected:
            return self._adjust(row, posted, settlement, as_posted)
        return Settled(settlement.call_id, self._states(row), repeated=True)

    def post_unconfirmed(self, call_id: str, note: str) -> bool:
        """Posts an open hold at its own amount because nobody will say what it cost; False when it is not open any more."""
        row = self._holds.get(call_id)
        if row is None or not row.is_open:
            return False
        guess = Settlement(call_id, row.amount_nanos, row.tokens, sent=True, estimated=True, note=note)
        self._post(row, guess, UNCONFIRMED)
        return True

    def void(self, call_id: str, note: str) -> bool:
        """Gives back what a call holds that never left, or was charged since as unconfirmed; False when there is nothing."""
        if call_id not in self._holds:
            return False
        return not self.settle(Settlement(call_id, 0, 0, sent=False, note=note)).repeated

    def _post(self, row: HoldRow, settlement: Settlement, kind: str) -> Settled:
        books = self._books
        caps = books.caps
        parts: list[PostPart] = []
        over_hold = False
        for cap_id, start_ms, amount, generation in row.parts:
            stored = caps[cap_id]
            key = (cap_id, stored.home(start_ms, generation, row.at_ms))
            balance = books.at(key)
            used = amount if kind == UNCONFIRMED and stored.unit is not Unit.CONCURRENT else _used(stored.unit, settlement)
            over_hold = over_hold or (stored.unit is Unit.USD and used > amount)
            balance.held -= amount
            balance.used += used
            books.touch(key)
            parts.append((cap_id, key[1], used))
        flags = (Flag.ESTIMATED if settlement.estimated else 0) | (Flag.OVER_HOLD if over_hold else 0)
        if kind == UNCONFIRMED:
            flags |= Flag.UNCONFIRMED
        cost_nanos, tokens = (settlement.cost_nanos, settlement.tokens) if settlement.sent else (0, 0)
        self._append(row, SETTLED, kind, cost_nanos, tokens, settlement, int(flags), parts)
        self.closed_holds.append(row.call_id)
        self.granted.pop(row.call_id, None)
        self._holds[row.call_id] = HoldRow(row.call_id, row.at_ms, row.amount_nanos, row.tokens, row.alone, row.parts, False)
        self._posted[row.call_id] = PostedRow(kind, cost_nanos, tokens, tuple(parts), False, MAX_AMOUNT)
        return Settled(row.call_id, self._states(row), over_hold=over_hold)

    def _adjust(self, row: HoldRow, posted: PostedRow, settlement: Settlement, as_posted: frozenset[Unit]) -> Settled:
        books = self._books
        caps = books.caps
        before = {cap_id: used for cap_id, _, used in posted.parts}
        lines = reset_lines(self._connection, before)
        parts: list[PostPart] = []
        over_hold = False
        for cap_id, start_ms, amount, generation in row.parts:
            stored = caps[cap_id]
            key = (cap_id, stored.home(start_ms, generation, row.at_ms))
            real = _used(stored.unit, settlement)
            over_hold = over_hold or (stored.unit is Unit.USD and real > amount)
            # What a reset has forgiven stays forgiven, whatever it turns out to have cost.
            forgiven = posted.sequence <= lines.get(cap_id, 0)
            difference = 0 if forgiven or stored.unit in as_posted else real - before.get(cap_id, 0)
            books.at(key).used += difference
            books.touch(key)
            parts.append((cap_id, key[1], difference))
        flags = (Flag.ESTIMATED if settlement.estimated else 0) | (Flag.OVER_HOLD if over_hold else 0)
        real_cost, real_tokens = (settlement.cost_nanos, settlement.tokens) if settlement.sent else (0, 0)
        cost_nanos, tokens = real_cost - posted.cost_nanos, real_tokens - posted.tokens
        self._append(row, CORRECTED, "adjust", cost_nanos, tokens, settlement, int(flags), parts)
        self._posted[row.call_id] = posted._replace(corrected=True)
        return Settled(row.call_id, self._states(row), over_hold=over_hold, adjusted=True)

    def _append(
        self,
        row: HoldRow,
        step: int,
        kind: str,
        cost_nanos: int,
        tokens: int,
        settlement: Settlement,
        flags: int,
        parts: Sequence[PostPart],
    ) -> None:
        self._new_posts.append(
            (
                row.call_id,
                step,
                kind,
                self._books.now_ms,
                row.at_ms,
                saturated(cost_nanos),
                saturated(tokens),
                settlement.input_tokens,
                settlement.output_tokens,
                flags,
                settlement.model,
                settlement.price_source,
                settlement.note,
                to_json(parts),
            )
        )

    def _states(self, row: HoldRow) -> tuple[CapState, ...]:
        return self._books.states(part[0] for part in row.parts)

    # ---- writing

    def flush(self) -> None:
        """Writes new rows and changed balances, one statement a table."""
        connection = self._connection
        with connection.pipelined():
            if self._new_posts:
                connection.keep_order()
            if self._new_holds:
                connection.insert("holds", _HOLD_COLUMNS, _HOLD_TYPES, self._new_holds)
                closed = set(self.closed_holds)
                opened = [(row[0], row[2], row[1]) for row in self._new_holds if row[0] not in closed]
                connection.insert("open_holds", "call_id, epoch, at_ms", ("text", "text", "bigint"), opened)
            if self._new_posts:
                connection.insert("posts", _POST_COLUMNS, _POST_TYPES, self._new_posts)
            if self.closed_holds:
                connection.execute(f"DELETE FROM open_holds WHERE call_id IN ({connection.listed})", (to_json(self.closed_holds),))
            self._books.flush()


def touched_caps(connection: Connection, operations: Iterable[Operation], own: Mapping[str, HoldRow]) -> set[str]:
    """The caps that these operations read or change; `own` are open holds that need not be read."""
    touched: set[str] = set()
    unknown = []
    for operation in operations:
        if isinstance(operation, HoldOperation):
            touched.update(operation.request.cap_ids)
        row = own.get(operation.call_id)
        if row is not None:
            touched.update(part[0] for part in row.parts)
        elif not isinstance(operation, HoldOperation):
            unknown.append(operation.call_id)
    # What a hold holds is written once, so it can be read before its caps are locked; whether it is still open cannot.
    for row in read_holds(connection, unknown).values() if unknown else ():
        touched.update(part[0] for part in row.parts)
    return touched


def read_posted(connection: Connection, call_ids: Iterable[str]) -> dict[str, PostedRow]:
    """The settling posts of these calls, and whether they were corrected since."""
    rows = connection.execute(
        f"""SELECT p.call_id, p.kind, p.cost_nanos, p.tokens, p.parts,
        EXISTS (SELECT 1 FROM posts AS c WHERE c.call_id = p.call_id AND c.step = 2), p.sequence
        FROM ({connection.listed}) AS k CROSS JOIN posts AS p ON p.call_id = k.value AND p.step = 1""",
        (to_json(list(call_ids)),),
    )
    return {row[0]: PostedRow(row[1], row[2], row[3], post_parts(row[4]), bool(row[5]), row[6]) for row in rows}


def _used(unit: Unit, settlement: Settlement) -> int:
    if not settlement.sent:
        return 0
    if unit is Unit.USD:
        return settlement.cost_nanos
    if unit is Unit.TOKENS:
        return settlement.tokens
    return 1 if unit is Unit.REQUESTS else 0
