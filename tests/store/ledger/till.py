"""The books of either engine worked by hand: one operation a transaction, no writer, no thread, a clock that the test moves."""

from typing import Any

from store.database import Connection, Database, Row
from store.ledger.batch import Batch, Waits
from store.ledger.books import Books
from store.ledger.caps import cap_states, put_cap
from store.ledger.types import Cap, CapState, Enforcement, Granted, HoldRequest, Refused, Scope, Settled, Settlement, Stale, Unit
from store.ledger.verify import verify

START_MS = 1_795_431_600_000  # 2026-11-23T11:00:00Z
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class TillClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.at_ms = START_MS

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000


class Till:
    """Holds and settlements straight in the books."""

    def __init__(self, database: Database, clock: TillClock) -> None:
        self.database = database
        self.clock = clock

    def pass_ms(self, ms: int) -> None:
        self.clock.at_ms += ms

    def cap(self, cap_id: str, limit: int, window: str | None = "1h", unit: Unit = Unit.USD, **fields: Any) -> Cap:
        """Creates or changes a cap."""
        enforcement = fields.pop("enforcement", Enforcement.HARD)
        cap = Cap(cap_id, cap_id, Scope.VIRTUAL_KEY, "vk", "vk", unit, limit, window, enforcement=enforcement, **fields)
        with self.database.write() as connection:
            return put_cap(connection, cap)

    def hold(self, call_id: str, caps: str, amount: int, tokens: int = 0) -> Granted | Refused | Stale | Waits:
        """Asks for a hold of exactly this amount. `caps` are ids separated by spaces."""
        request = HoldRequest(call_id, tuple(caps.split()), amount, amount, tokens=tokens, trim=False, revision=2**40)
        with self.database.write() as connection:
            batch = self._batch(connection)
            batch.prepare([request], [])
            answer = batch.hold(request)
            batch.flush()
            return answer

    def settle(self, call_id: str, cost: int, tokens: int = 0, *, sent: bool = True) -> Settled:
        with self.database.write() as connection:
            batch = self._batch(connection)
            batch.prepare([], [call_id])
            settled = batch.settle(Settlement(call_id, cost, tokens, sent))
            batch.flush()
            return settled

    def spend(self, call_id: str, caps: str, cost: int) -> None:
        """A whole call."""
        answer = self.hold(call_id, caps, cost)
        assert isinstance(answer, Granted), answer
        self.settle(call_id, cost)

    def lose(self, call_id: str) -> None:
        """Its process died: the call is posted at its hold, unconfirmed."""
        with self.database.write() as connection:
            batch = self._batch(connection)
            batch.prepare([], [call_id])
            posted = batch.post_unconfirmed(call_id, "the gateway died")
            assert posted
            batch.flush()

    def state(self, cap_id: str) -> CapState:
        with self.database.read() as connection:
            return cap_states(connection, self.clock.now_ms(), [cap_id])[0]

    def used(self, cap_id: str) -> int:
        return self.state(cap_id).used

    def differences(self) -> list[str]:
        return [str(difference) for difference in verify(self.database, self.clock).differences]

    def rows(self, sql: str, *params: Any) -> list[Row]:
        with self.database.read() as connection:
            return connection.execute(sql, params)

    @staticmethod
    def _batch(connection: Connection) -> Batch:
        return Batch(connection, Books(connection, connection.now_ms()), epoch="till", revision=0)
