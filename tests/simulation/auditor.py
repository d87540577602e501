"""A naive model of the ledger, told only what was asked, answered and made durable; it says what every answer had to be.

It shares no code with the ledger, keeps no balances, and adds everything up anew whenever it is asked.
"""

from dataclasses import dataclass, field
from itertools import count

from tests.simulation.periods import ALL_TIME, Lattice
from tests.simulation.records import (
    CallRecord,
    CapRecord,
    Expected,
    PostRecord,
    RaiseRecord,
    SettleRecord,
    StateSeen,
    Violation,
)
from tests.simulation.rules import Verdict, bounds, check_promises_of_grant, check_promises_of_refusal, judge, need_of

LOOK_AGAIN_SECONDS = 0.05
SHORT_WAIT_SECONDS = 2.0
STALE_MS = 15_000
NO_PERIOD = -1


@dataclass(eq=False)
class Ask:
    """One request of a caller to hold; the same call may be asked for twice."""

    call: CallRecord
    asked_at: float
    gone: bool = False
    """Its caller does not wait any more."""
    needs: tuple[tuple[str, int], ...] = ()
    known: bool = True
    """Whether the ledger looks up a call that was held before. Where it does not, it may refuse it like a new one, never grant."""


@dataclass
class LineRecord:
    """Who waits in one process, and when they last looked."""

    calls_max: int
    bytes_max: int
    hold_wait_seconds: float
    looked_at: float = 0.0
    asks: list[Ask] = field(default_factory=list)

    def has_room(self, ask: Ask) -> bool:
        taken = sum(other.call.waiting_bytes for other in self.asks)
        return len(self.asks) < self.calls_max and taken + ask.call.waiting_bytes <= self.bytes_max


class Auditor:
    """The model. Time is passed in with every question."""

    def __init__(self) -> None:
        self.caps: dict[str, CapRecord] = {}
        self.calls: dict[str, CallRecord] = {}
        self.revision = 0
        self.dead_epochs: set[str] = set()
        self.ended_epochs: set[str] = set()
        self.heartbeats: dict[str, int] = {}
        """Where there are no leases: when each epoch last gave a sign of life."""
        self.order = count()
        self.latest_ms = 0
        self.carry_rows: list[tuple[str, int, int]] = []
        """What must have been written on carry-over since somebody looked: (cap, start of the period, amount)."""
        self.checks: dict[str, int] = {}
        """How often each kind of thing was looked at: a check that never runs proves nothing."""

    def is_dead(self, epoch: str, at_ms: int) -> bool:
        """Whether others may book what this epoch holds: its lease was lifted, or its heartbeat is too far away."""
        beaten_ms = self.heartbeats.get(epoch)
        return epoch in self.dead_epochs or (beaten_ms is not None and abs(at_ms - beaten_ms) > STALE_MS)

    def noted(self, check: str) -> None:
        self.checks[check] = self.checks.get(check, 0) + 1

    # ---- one batch of a process

    def batch(
        self,
        line: LineRecord,
        settles: list[SettleRecord],
        cancelled: list[str],
        newcomers: list[Ask],
        dropped: list[Ask],
        *,
        at_ms: int,
        now: float,
        epoch: str,
        empty: bool,
        shut: bool,
    ) -> tuple[dict[int, Expected], list[PostRecord]]:
        """Books one batch: settlements, cancellations, the line, newcomers. Returns the answers, by identity, and the rows.

        `dropped` are asks, waiting or new, that were asked before their call was cancelled.
        """
        answers: dict[int, Expected] = {}
        posts: list[PostRecord] = []
        look = bool(settles or cancelled) or empty or now - line.looked_at >= LOOK_AGAIN_SECONDS
        answers.update((id(ask), Expected("left")) for ask in dropped)
        waiting = [ask for ask in line.asks if ask not in dropped]
        newcomers = [ask for ask in newcomers if ask not in dropped]
        if shut:
            answers.update((id(ask), Expected("unavailable")) for ask in (*waiting, *newcomers))
            waiting, newcomers = [], []
        self._touch_all(settles, cancelled, [*waiting, *newcomers] if look else newcomers, at_ms)
        for settle in settles:
            answers[id(settle)] = self.settle(settle, at_ms, posts)
        for call_id in cancelled:
            call = self.calls.get(call_id)
            if call is not None and call.state == "open":
                self._post(call, "void", 0, 0, {}, at_ms, posts)
            elif call is not None and call.state == "unconfirmed":
                self._adjust(call, 0, 0, dict.fromkeys(call.held, 0), at_ms, posts)
                self.noted("cancelled after a guess")
        line.asks = []
        ahead: dict[str, int] = {}
        if look:
            line.looked_at = now
        for ask in waiting:
            if look:
                self._hold(ask, line, ahead, answers, at_ms, now, epoch, newcomer=False)
            else:
                _wait(ask, line, ahead)
        for ask in newcomers:
            self._hold(ask, line, ahead, answers, at_ms, now, epoch, newcomer=True)
        return answers, posts

    def _touch_all(self, settles: list[SettleRecord], cancelled: list[str], asks: list[Ask], at_ms: int) -> None:
        calls = [settle.call.id for settle in settles] + cancelled + [ask.call.id for ask in asks]
        for call_id in calls:
            call = self.calls.get(call_id)
            if call is not None and not call.pruned:
                for cap_id in call.held:
                    self.touch(cap_id, at_ms)
        for ask in asks:
            for cap_id in ask.call.caps:
                self.touch(cap_id, at_ms)

    def touch(self, cap_id: str, at_ms: int) -> None:
        """Something is done with the cap: at the first time in a period, what the one before left over is frozen."""
        cap = self.caps[cap_id]
        start, _ = cap.period(at_ms)
        if start in cap.begun:
            return
        cap.begun.add(start)
        if cap.carry_over and cap.created_ms < start:
            before = start - 1
            base = cap.limit + cap.extra.get(cap.period(before)[0], 0)
            carried = min(cap.limit, max(0, base - cap.used(before) - cap.held(before)))
            cap.extra[start] = cap.extra.get(start, 0) + carried
            self.carry_rows.append((cap_id, start, carried))
            self.noted("carry-over")

    # ---- holds

    def _hold(
        self,
        ask: Ask,
        line: LineRecord,
        ahead: dict[str, int],
        answers: dict[int, Expected],
        at_ms: int,
        now: float,
        epoch: str,
        *,
        newcomer: bool,
    ) -> None:
        call = ask.call
        if call.state != "new" and ask.known:
            word = "granted" if call.state == "open" else "conflict"
            answers[id(ask)] = Expected(word, call.amount, call.alone, states=self.states(call.held, at_ms))
            self.noted("repeated hold")
            return
        if call.revision < self.revision:
            answers[id(ask)] = Expected("stale", revision=self.revision)
            self.noted("stale")
            return
        caps = [self.caps[cap_id] for cap_id in call.caps if not self.caps[cap_id].deleted]
        verdict = judge(call, caps, at_ms, ahead)
        if verdict.word == "grant":
            if call.state != "new":
                raise Violation("exactly once", f"{call.id} holds a second time, it is {call.state}")
            check_promises_of_grant(call, caps, verdict.amount, at_ms)
            self._grant(call, caps, verdict, at_ms, epoch)
            states = self.states(call.held, at_ms)
            answers[id(ask)] = Expected("granted", verdict.amount, verdict.alone, would_refuse=verdict.would_refuse, states=states)
            self.noted("granted trimmed" if verdict.amount < call.bound else "granted")
        elif verdict.word == "refuse":
            check_promises_of_refusal(call, caps, at_ms)
            answers[id(ask)] = Expected("refused", blocking=verdict.blocking)
            self.noted("refused")
        else:
            waited = now - ask.asked_at
            if not call.may_wait or waited >= self._patience(verdict, line) or (newcomer and not line.has_room(ask)):
                answers[id(ask)] = Expected("refused", held_only=True, blocking=verdict.blocking)
                self.noted("refused after waiting")
                return
            ask.needs = verdict.needs
            _wait(ask, line, ahead)
            self.noted("waits")

    def _patience(self, verdict: Verdict, line: LineRecord) -> float:
        short = any(self.caps[cap_id].unit in ("concurrent", "requests") for cap_id, _ in verdict.blocking)
        return min(line.hold_wait_seconds, SHORT_WAIT_SECONDS) if short else line.hold_wait_seconds

    def _grant(self, call: CallRecord, caps: list[CapRecord], verdict: Verdict, at_ms: int, epoch: str) -> None:
        bound, floor = bounds(call, caps)
        for cap in caps:
            call.held[cap.id] = verdict.amount if cap.unit == "usd" else need_of(call, cap, floor, at_ms)
        for cap in caps:
            cap.holds[call.id] = (at_ms, call.held[cap.id])
        call.state, call.amount, call.alone, call.held_ms, call.epoch = "open", verdict.amount, verdict.alone, at_ms, epoch
        if epoch in self.ended_epochs:
            raise Violation("fenced epoch", f"{call.id} was granted to an epoch that had ended")

    # ---- settlements

    def settle(self, settle: SettleRecord, at_ms: int, posts: list[PostRecord]) -> Expected:
        """Books an ending once; a guess is corrected once; everything else changes nothing."""
        call = settle.call
        if call.state == "new" or call.pruned:
            self.noted("settled unknown")
            return Expected("unknown")
        cost, tokens = (settle.cost, settle.tokens) if settle.sent else (0, 0)
        units = {"usd": cost, "tokens": tokens, "requests": int(settle.sent), "concurrent": 0}
        amounts = {cap_id: units[self.caps[cap_id].unit] for cap_id in call.held}
        over = any(self.caps[cap_id].unit == "usd" and amounts[cap_id] > held for cap_id, held in call.held.items())
        if call.state == "open":
            self._post(call, "post" if settle.sent else "void", cost, tokens, amounts, at_ms, posts)
            self.noted("over the hold" if over else "settled")
            return Expected("settled", over_hold=over, states=self.states(call.held, at_ms))
        if call.state == "unconfirmed":
            self._adjust(call, cost, tokens, amounts, at_ms, posts)
            self.noted("adjusted")
            return Expected("adjusted", over_hold=over, states=self.states(call.held, at_ms))
        self.noted("repeated settlement")
        return Expected("repeated", states=self.states(call.held, at_ms))

    def _post(
        self, call: CallRecord, kind: str, cost: int, tokens: int, amounts: dict[str, int], at_ms: int, posts: list[PostRecord]
    ) -> None:
        order = next(self.order)
        amounts = {cap_id: amounts.get(cap_id, 0) for cap_id in call.held}
        for cap_id, amount in amounts.items():
            cap = self.caps[cap_id]
            del cap.holds[call.id]
            cap.posts.append((order, call.held_ms, amount, call.id))
        call.state, call.cost, call.posted_tokens, call.posted, call.settled_ms = kind, cost, tokens, amounts, at_ms
        call.posted_order = order
        posts.append(PostRecord(call.id, kind, cost, amounts))

    def _adjust(
        self, call: CallRecord, cost: int, tokens: int, amounts: dict[str, int], at_ms: int, posts: list[PostRecord]
    ) -> None:
        order = next(self.order)
        forgiven = [cap_id for cap_id in amounts if call.posted_order < self.caps[cap_id].line()]
        moved = {cap_id: 0 if cap_id in forgiven else amount - call.posted[cap_id] for cap_id, amount in amounts.items()}
        for cap_id, amount in moved.items():
            self.caps[cap_id].posts.append((order, call.held_ms, amount, call.id))
        posts.append(PostRecord(call.id, "adjust", cost - call.cost, moved))
        call.state, call.cost, call.posted_tokens, call.posted = "adjust", cost, tokens, amounts

    # ---- what happened without being asked for: recovery, spools of the dead, forgotten calls

    def found(self, row: PostRecord, at_ms: int) -> None:
        """A row that no batch explains: it must be one that recovery, a spool or the comparison may write, and right."""
        call = self.calls.get(row.call_id)
        if call is None or call.state == "new":
            raise Violation("charged for nothing", f"a {row.kind} of {row.call_id}, which holds nothing")
        expected: list[PostRecord] = []
        for cap_id in call.held:
            self.touch(cap_id, at_ms)
        if row.kind == "unconfirmed" and call.state == "open":
            if call.told_to_stay and not self.is_dead(call.epoch, at_ms):
                raise Violation("charged for nothing", f"{call.id} was posted as unconfirmed although its caller was told to stay")
            if not self.is_dead(call.epoch, at_ms) and not call.forgotten:
                raise Violation("recovered alive", f"{call.id} was posted as unconfirmed, its process lives and knows it")
            amounts = {cap_id: 0 if self.caps[cap_id].unit == "concurrent" else held for cap_id, held in call.held.items()}
            self._post(call, "unconfirmed", call.amount, call.tokens, amounts, at_ms, expected)
            self.noted("forgotten" if call.forgotten else "recovered")
        elif call.spooled:
            answer = self.settle(call.spooled[0], at_ms, expected)
            self.noted(f"spool {answer.word}")
        elif row.kind == "void" and call.state == "open":
            if not call.told_to_stay:
                raise Violation("voided a live call", f"{call.id} was voided although its caller was let through")
            self._post(call, "void", 0, 0, {}, at_ms, expected)
            self.noted("never left")
        self.same_posts(expected, [row])

    def same_posts(self, expected: list[PostRecord], found: list[PostRecord]) -> None:
        """The rows that were written are those that had to be written."""
        missing = [row for row in expected if row not in found]
        surplus = [row for row in found if row not in expected]
        if {row.call_id for row in missing} & {row.call_id for row in surplus}:
            raise Violation("wrong row", f"wanted {missing}, found {surplus}")
        if missing or surplus or len(expected) != len(found):
            raise Violation("settled exactly once", f"not written: {missing}, written without cause: {surplus}")

    # ---- what people do

    def changed(self, cap_id: str, at_ms: int, *, limit: int, lattice: Lattice, enforcement: str, strict: bool) -> None:
        """A cap was edited or restored. What was carried or topped up moves to the window that takes the running one's place."""
        self.touch(cap_id, at_ms)
        cap = self.caps[cap_id]
        before, _ = cap.period(at_ms)
        cap.limit, cap.enforcement, cap.strict, cap.deleted = limit, enforcement, strict, False
        if lattice != cap.lattice:
            cap.lattice, cap.was_changed = lattice, True
            # What is pruned cannot be counted anew.
            cap.posts = [post for post in cap.posts if not self.calls[post[3]].pruned]
            after, _ = cap.period(at_ms)
            amount = cap.extra.get(before, 0)
            if amount and after != before:
                cap.extra[before] = 0
                cap.extra[after] = cap.extra.get(after, 0) + amount
                self.carry_rows += [(cap_id, key(before), -amount), (cap_id, key(after), amount)]
            cap.begun.add(after)

    def deleted(self, cap_id: str, at_ms: int) -> None:
        self.touch(cap_id, at_ms)
        self.caps[cap_id].deleted, self.caps[cap_id].raised = True, None

    def reset(self, cap_id: str, at_ms: int) -> None:
        self.touch(cap_id, at_ms)
        self.caps[cap_id].resets.append((next(self.order), at_ms))

    def topped_up(self, cap_id: str, amount: int, at_ms: int) -> None:
        self.touch(cap_id, at_ms)
        cap = self.caps[cap_id]
        if cap.lattice.window is None:
            cap.limit += amount
        else:
            start, _ = cap.period(at_ms)
            cap.extra[start] = cap.extra.get(start, 0) + amount

    def raised(self, cap_id: str, raised: RaiseRecord | None, at_ms: int) -> None:
        self.touch(cap_id, at_ms)
        self.caps[cap_id].raised = raised

    def raise_ended(self, cap_id: str, at_ms: int) -> None:
        """A chore notes that a raise's time is up."""
        cap = self.caps[cap_id]
        if cap.raised is None or at_ms < cap.raised.until_ms:
            raise Violation("raise", f"the raise of {cap_id} ended before its time")
        self.raised(cap_id, None, at_ms)

    def confirmed(self, call: CallRecord, cost: int | None, tokens: int | None, at_ms: int) -> list[PostRecord]:
        """A person's word on an unconfirmed call; None: as it was posted."""
        posts: list[PostRecord] = []
        for cap_id in call.held:
            self.touch(cap_id, at_ms)
        cost = call.cost if cost is None else cost
        units = {"usd": cost, "tokens": tokens, "requests": 1, "concurrent": 0}
        amounts = {cap_id: units[self.caps[cap_id].unit] for cap_id in call.held}
        known = {cap_id: call.posted[cap_id] if amount is None else amount for cap_id, amount in amounts.items()}
        self._adjust(call, cost, call.posted_tokens if tokens is None else tokens, known, at_ms, posts)
        return posts

    def pruned(self, call_ids: set[str], before_ms: int) -> None:
        """These calls are gone from the books: they must have been settled long ago, in windows that are over."""
        for call in (self.calls[call_id] for call_id in call_ids):
            caps = [self.caps[cap_id] for cap_id in call.held]
            running = [cap.id for cap in caps if not cap.was_changed and self.latest_ms < cap.period(call.held_ms)[1] < 2**61]
            if call.state not in ("post", "void") or call.settled_ms >= before_ms or running:
                raise Violation("pruned too early", f"{call.id} ({call.state}), settled {call.settled_ms}, running: {running}")
            call.pruned = True
            self.noted("pruned")

    # ---- the sums

    def states(self, cap_ids: "dict[str, int] | tuple[str, ...]", at_ms: int) -> tuple[StateSeen, ...]:
        return tuple(self.state(self.caps[cap_id], at_ms) for cap_id in cap_ids if not self.caps[cap_id].deleted)

    def state(self, cap: CapRecord, at_ms: int) -> StateSeen:
        start, end = cap.period(at_ms) if cap.lattice.window is not None else (None, None)
        return StateSeen(cap.id, cap.used(at_ms), cap.held(at_ms), cap.room(at_ms), start, end)

    def open_calls(self) -> set[str]:
        return {call.id for call in self.calls.values() if call.state == "open"}


def key(start_ms: int) -> int:
    """How rows name a period: by its start, and no period at all by −1."""
    return NO_PERIOD if start_ms == ALL_TIME[0] else start_ms


def _wait(ask: Ask, line: LineRecord, ahead: dict[str, int]) -> None:
    line.asks.append(ask)
    for cap_id, need in ask.needs:
        ahead[cap_id] = ahead.get(cap_id, 0) + need
