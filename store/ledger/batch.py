"""One batch of holds and settlements inside one transaction: read in bulk, decided in memory, written in bulk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from store.database import Connection
from store.errors import Conflict, NotFound
from store.ledger.books import Books
from store.ledger.decide import Answer, Slot, Verdict, decide
from store.ledger.rows import (
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

PostRow = tuple[str, int, str, int, int, int, int, int, int, int, str, str, str, str]


@dataclass(frozen=True, slots=True)
class PostedRow:
    """A post that is in the books already."""

    kind: str
    cost_nanos: int
    tokens: int
    parts: tuple[PostPart, ...]
    corrected: bool


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
        self._new_holds: list[tuple[str, int, str, int, int, int, str, str]] = []
        self._new_posts: list[PostRow] = []
        self._closed_holds: list[tuple[str]] = []
        self.ahead: dict[str, int] = {}
        """What calls ahead in the line need of each cap."""

    def prepare(self, requests: Sequence[HoldRequest], settled_ids: Sequence[str]) -> None:
        """Reads everything that these holds and the settlements of these calls touch."""
        books, now_ms = self._books, self._books.now_ms
        call_ids = [request.call_id for request in requests]
        call_ids += settled_ids
        if not call_ids:
            return
        self._holds = read_holds(self._connection, call_ids)
        closed = [row.call_id for row in self._holds.values() if not row.is_open]
        if closed:
            self._posted = read_posted(self._connection, closed)
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
        return Refused(request.call_id, exceeded, held_only, waited_ms)

    def _slots(self, request: HoldRequest) -> list[Slot]:
        books, now_ms = self._books, self._books.now_ms
        slots = []
        for cap_id in dict.fromkeys(request.cap_ids):
            stored = books.caps.get(cap_id)
            if stored is None:
                raise NotFound(f"there is no cap with the id {cap_id!r}")
            if not stored.cap.deleted:
                slots.append(Slot(stored, books.current(stored), stored.start_at(now_ms)))
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
        self._holds[request.call_id] = HoldRow(request.call_id, now_ms, amount_nanos, request.tokens, alone, tuple(parts), True)
        return Granted(request.call_id, amount_nanos, alone, tuple(states), waited_ms, verdict.would_refuse)

    def _repeat(self, request: HoldRequest, row: HoldRow, waited_ms: int) -> Granted:
        if not row.is_open:
            raise Conflict(f"the call {request.call_id!r} was settled before; a new call needs a new id")
        states = self._books.states(part[0] for part in row.parts)
        return Granted(row.call_id, row.amount_nanos, row.alone, states, waited_ms)

    # ---- settlements

    def settle(self, settlement: Settlement) -> Settled:
        """Posts or voids an open hold, corrects an unconfirmed post, or finds it done. Raises NotFound for an unknown call."""
        row = self._holds.get(settlement.call_id)
        if row is None:
            raise NotFound(f"no hold is known for the call {settlement.call_id!r}; nothing was charged")
        if row.is_open:
            return self._post(row, settlement, "post" if settlement.sent else "void")
        posted = self._posted.get(settlement.call_id)
        if posted is not None and posted.kind == UNCONFIRMED and not posted.corrected:
            return self._adjust(row, posted, settlement)
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
        """Voids an open hold whose call never left; False when it is not open any more."""
        row = self._holds.get(call_id)
        if row is None or not row.is_open:
            return False
        self._post(row, Settlement(call_id, 0, 0, sent=False, note=note), "void")
        return True

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
        self._closed_holds.append((row.call_id,))
        self._holds[row.call_id] = HoldRow(row.call_id, row.at_ms, row.amount_nanos, row.tokens, row.alone, row.parts, False)
        self._posted[row.call_id] = PostedRow(kind, cost_nanos, tokens, tuple(parts), False)
        return Settled(row.call_id, self._states(row), over_hold=over_hold)

    def _adjust(self, row: HoldRow, posted: PostedRow, settlement: Settlement) -> Settled:
        books = self._books
        caps = books.caps
        before = {cap_id: used for cap_id, _, used in posted.parts}
        parts: list[PostPart] = []
        over_hold = False
        for cap_id, start_ms, amount, generation in row.parts:
            stored = caps[cap_id]
            key = (cap_id, stored.home(start_ms, generation, row.at_ms))
            real = _used(stored.unit, settlement)
            over_hold = over_hold or (stored.unit is Unit.USD and real > amount)
            difference = real - before.get(cap_id, 0)
            books.at(key).used += difference
            books.touch(key)
            parts.append((cap_id, key[1], difference))
        flags = (Flag.ESTIMATED if settlement.estimated else 0) | (Flag.OVER_HOLD if over_hold else 0)
        real_cost, real_tokens = (settlement.cost_nanos, settlement.tokens) if settlement.sent else (0, 0)
        cost_nanos, tokens = real_cost - posted.cost_nanos, real_tokens - posted.tokens
        self._append(row, CORRECTED, "adjust", cost_nanos, tokens, settlement, int(flags), parts)
        self._posted[row.call_id] = PostedRow(posted.kind, posted.cost_nanos, posted.tokens, posted.parts, True)
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
        if self._new_holds:
            connection.executemany(
                """INSERT INTO holds (call_id, at_ms, epoch, amount_nanos, tokens, alone, parts, facts)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                self._new_holds,
            )
            closed = {call_id for (call_id,) in self._closed_holds}
            opened = [(row[0], row[2], row[1]) for row in self._new_holds if row[0] not in closed]
            connection.executemany("INSERT INTO open_holds (call_id, epoch, at_ms) VALUES (?, ?, ?)", opened)
        if self._new_posts:
            connection.executemany(
                """INSERT INTO posts (call_id, step, kind, at_ms, held_ms, cost_nanos, tokens, input_tokens, output_tokens, flags,
                model, price_source, note, parts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                self._new_posts,
            )
        if self._closed_holds:
            connection.executemany("DELETE FROM open_holds WHERE call_id = ?", self._closed_holds)
        self._books.flush()


def read_posted(connection: Connection, call_ids: Iterable[str]) -> dict[str, PostedRow]:
    """The settling posts of these calls, and whether they were corrected since."""
    rows = connection.execute(
        f"""SELECT p.call_id, p.kind, p.cost_nanos, p.tokens, p.parts,
        EXISTS (SELECT 1 FROM posts AS c WHERE c.call_id = p.call_id AND c.step = 2)
        FROM ({connection.listed}) AS k CROSS JOIN posts AS p ON p.call_id = k.value AND p.step = 1""",
        (to_json(list(call_ids)),),
    )
    return {row[0]: PostedRow(row[1], row[2], row[3], post_parts(row[4]), bool(row[5])) for row in rows}


def _used(unit: Unit, settlement: Settlement) -> int:
    if not settlement.sent:
        return 0
    if unit is Unit.USD:
        return settlement.cost_nanos
    if unit is Unit.TOKENS:
        return settlement.tokens
    return 1 if unit is Unit.REQUESTS else 0
