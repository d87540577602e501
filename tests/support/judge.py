"""Compares three accounts of the same calls: the provider's bill, the ledger's rows, and what the clients heard."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import psycopg

from tests.support.books import ESTIMATED
from tests.support.crowd import Heard
from tests.support.waiting import eventually

type Query = Callable[[str], list[tuple[Any, ...]]]
"""Runs one statement on the ledger's database from outside."""


def sqlite_query(path: Path) -> Query:
    """Of a database file that a gateway may have open."""

    def query(statement: str) -> list[tuple[Any, ...]]:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5_000)
            return list(connection.execute(statement))
        finally:
            connection.close()

    return query


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger's posts with the hold it belongs to. Of a correction (`step` 2) the cost is a difference."""

    sequence: int
    call_id: str
    step: int
    kind: str
    cost_nanos: int
    output_tokens: int
    flags: int
    note: str
    held_nanos: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Booked:
    """What the ledger says of one call, corrections included."""

    call_id: str
    cost_nanos: int
    held_nanos: int
    output_tokens: int
    epoch: str
    kinds: tuple[str, ...]
    estimated: bool

    @property
    def in_doubt(self) -> bool:
        """Posted at its hold, and nobody has said since what it cost."""
        return self.kinds == ("unconfirmed",)

    @property
    def void(self) -> bool:
        return self.kinds == ("void",)


def postgres_query(dsn: str) -> Query:
    """Of a PostgreSQL database, on a connection of its own each time: the server may have been restarted since."""

    def query(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
            return [tuple(int(v) if isinstance(v, Decimal) else v for v in row) for row in connection.execute(statement.encode())]

    return query


def log_watermark(path: Path) -> int:
    """The ledger's sequence up to which a logs.db says that it is complete; 0 where there is none yet."""
    if not path.exists():
        return 0
    found = sqlite_query(path)("SELECT watermark FROM log_ledgers ORDER BY number DESC LIMIT 1")
    return int(found[0][0]) if found else 0


class Rows:
    """The ledger's rows, read from outside and without the ledger's code, on either engine."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def entries(self) -> list[Entry]:
        rows = self._query(
            "SELECT p.sequence, p.call_id, p.step, p.kind, p.cost_nanos, p.output_tokens, p.flags, p.note, h.amount_nanos, h.epoch"
            " FROM posts AS p JOIN holds AS h ON h.call_id = p.call_id ORDER BY p.sequence"
        )
        return [Entry(*row) for row in rows]

    def booked(self) -> dict[str, Booked]:
        """Every call that has a post, by id."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries():
            found.setdefault(entry.call_id, []).append(entry)
        return {call_id: _booked(entries) for call_id, entries in found.items()}

    def open_calls(self) -> dict[str, str]:
        """Calls that are held and not posted: call id → epoch. From the rows, not from the ledger's cache."""
        statement = "SELECT call_id, epoch FROM holds WHERE call_id NOT IN (SELECT call_id FROM posts WHERE step = 1)"
        return {row[0]: row[1] for row in self._query(statement)}

    def held_for(self, call_id: str) -> int:
        """Nano-dollars that were held for a call; 0 when it was never held."""
        if not call_id.replace("-", "").isalnum():
            raise ValueError(f"{call_id!r} is no call id")
        found = self._query(f"SELECT amount_nanos FROM holds WHERE call_id = '{call_id}'")
        return int(found[0][0]) if found else 0

    def last_sequence(self) -> int:
        return int(self._query("SELECT coalesce(max(sequence), 0) FROM posts")[0][0])

    def epochs_of(self, pids: Collection[int]) -> set[str]:
        """Every epoch that these processes have ever begun."""
        return {row[0] for row in self._query("SELECT id, process_id FROM epochs") if row[1] in pids}

    def epochs(self) -> set[str]:
        """Everybody who has ever held something."""
        return {row[0] for row in self._query("SELECT DISTINCT epoch FROM holds")}

    def holds_after_fence(self) -> list[tuple[str, str]]:
        """(call id, epoch) of holds that were taken after their epoch had been declared over."""
        rows = self._query(
            "SELECT h.call_id, h.epoch FROM holds AS h JOIN epochs AS e ON e.id = h.epoch"
            " WHERE e.ended_ms IS NOT NULL AND h.at_ms > e.ended_ms"
        )
        return [(row[0], row[1]) for row in rows]

    def used_nanos(self) -> int:
        """What the balances of all caps say together: with one cap, what its key has spent."""
        return int(self._query("SELECT coalesce(sum(used), 0) FROM balances")[0][0])

    def held_nanos(self) -> int:
        return int(self._query("SELECT coalesce(sum(held), 0) FROM balances")[0][0])


def _booked(entries: Sequence[Entry]) -> Booked:
    last = entries[-1]
    return Booked(
        call_id=last.call_id,
        cost_nanos=sum(entry.cost_nanos for entry in entries),
        held_nanos=last.held_nanos,
        output_tokens=sum(entry.output_tokens for entry in entries),
        epoch=last.epoch,
        kinds=tuple(entry.kind for entry in entries),
        estimated=bool(last.flags & ESTIMATED),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures that a judgement rests on, for the test's output."""

    calls: int
    billed_finished: int
    billed: int
    spent: int
    in_doubt: int
    in_doubt_nanos: int
    voided: int
    refused: int
    broken: int


def judge(
    bill: dict[str, Any], rows: Rows, heard: Iterable[Heard], *, dead_epochs: Collection[str] = (), adjusted: bool = False
) -> Verdict:
    """Raises AssertionError unless the books are within the promise. Everything must be settled before.

    * billed for finished calls ≤ spent ≤ that + the holds of calls in doubt; only calls of `dead_epochs` are in doubt;
    * a call is booked once (with `adjusted`, corrected at most once), and at exactly what the provider billed for it;
    * nothing reached the provider without a hold, nothing that was refused reached it;
    * what a client got whole is in the books.
    """
    heard, lines = list(heard), bill["lines"]
    booked = rows.booked()
    kinds = Counter(kind for call in booked.values() for kind in call.kinds)
    in_doubt = [call for call in booked.values() if call.in_doubt]
    confirmed = [call for call in booked.values() if not call.in_doubt and not call.void]
    finished = {line["usage"]["output_tokens"]: line["cost_nanos"] for line in lines if line["finished"]}
    billed_finished = sum(line["cost_nanos"] for line in lines if line["finished"])
    in_doubt_nanos = sum(call.cost_nanos for call in in_doubt)
    spent = rows.used_nanos()

    assert rows.open_calls() == {}, "not everything is settled yet"
    assert rows.held_nanos() == 0
    assert rows.holds_after_fence() == []
    assert len(finished) == len([line for line in lines if line["finished"]]), "each call was to ask for a length of its own"
    assert set(kinds) <= {"post", "void", "unconfirmed"} | ({"adjust"} if adjusted else set())
    if not adjusted:
        assert all(len(call.kinds) == 1 for call in booked.values()), "a call is booked once"

    # Each call that the ledger is sure of, at the provider's own price, and none twice.
    lengths = Counter(call.output_tokens for call in confirmed)
    assert [length for length, count in lengths.items() if count > 1] == []
    assert {call.output_tokens: call.cost_nanos for call in confirmed} == {
        length: cost for length, cost in finished.items() if length in lengths
    }
    assert not [call for call in confirmed if call.estimated]
    # Where there is doubt it costs the whole hold, and only the dead leave doubts.
    assert all(call.cost_nanos == call.held_nanos > 0 for call in in_doubt)
    assert {call.epoch for call in in_doubt} <= set(dead_epochs)
    assert billed_finished <= spent <= billed_finished + in_doubt_nanos
    assert bill["cost_nanos"] <= spent, "what was broken off is covered by its hold"
    assert spent == sum(call.cost_nanos for call in booked.values())

    # Nothing went out for free.
    assert len(lines) - len(confirmed) <= len(in_doubt)
    refused = [one for one in heard if one.status not in (0, 200)]
    asked_for = {line["usage"]["output_tokens"] for line in lines if line["finished"]}
    assert [one for one in refused if one.length in asked_for] == [], "a refused call reached the provider"
    assert [one for one in heard if one.good and (one.call_id not in booked or booked[one.call_id].void)] == []
    return Verdict(
        calls=len(lines),
        billed_finished=billed_finished,
        billed=bill["cost_nanos"],
        spent=spent,
        in_doubt=len(in_doubt),
        in_doubt_nanos=in_doubt_nanos,
        voided=kinds["void"],
        refused=len(refused),
        broken=len([one for one in heard if one.connected and (not one.status or not one.whole)]),
    )


def settled(rows: Rows, timeout_seconds: float = 30) -> None:
    """Waits until no call is open."""
    eventually(rows.open_calls, lambda found: not found, timeout_seconds)


def logs_agree(rows: Rows, log_rows: Callable[[], list[dict[str, Any]]], watermark: Callable[[], int]) -> int:
    """Raises AssertionError unless every call that is booked up to the logs' watermark has its row there, at its cost.

    The watermark, for the test to wait until it is where it should be.
    """
    mark = watermark()
    wanted: Counter[str] = Counter()
    for entry in rows.entries():
        if entry.sequence <= mark:
            wanted[entry.call_id] += entry.cost_nanos
    # Corrections that came after the watermark may be in the row already or not: only calls that are complete below it count.
    later = {entry.call_id for entry in rows.entries() if entry.sequence > mark}
    found = {row["id"]: row["cost_nanos"] for row in log_rows()}
    missing = {call_id: cost for call_id, cost in wanted.items() if call_id not in later and found.get(call_id) != cost}
    assert missing == {}
    return mark
