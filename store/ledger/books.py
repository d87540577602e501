"""The balances one transaction works on: read in bulk after the lock, rolled into new windows, written back in bulk."""

from collections.abc import Iterable

from store.database import Connection, Row
from store.ledger.rows import (
    Balance,
    Key,
    StoredCap,
    balances_from,
    read_balances,
    read_caps,
    saturated,
    to_json,
    write_balances,
)
from store.ledger.types import CapState

EntryRow = tuple[str, int, str, int, int, str]
"""(cap id, window start, kind, amount, at_ms, reason)."""


class Books:
    """Caps and balances at one instant inside one transaction. Changes reach the database with `flush`."""

    def __init__(self, connection: Connection, now_ms: int, caps: dict[str, StoredCap] | None = None) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self.caps: dict[str, StoredCap] = {} if caps is None else caps
        self._balances: dict[Key, Balance] = {}
        self._fresh: set[Key] = set()
        self._touched: set[Key] = set()
        self._entries: list[EntryRow] = []

    def load_caps(self, cap_ids: Iterable[str]) -> None:
        """Reads the caps that are not known yet; unknown ids stay unknown."""
        missing = {cap_id for cap_id in cap_ids if cap_id not in self.caps}
        if missing:
            self.caps.update(read_caps(self.connection, missing))

    def load(self, keys: Iterable[Key]) -> None:
        """Reads the balances that are not known yet, all in one statement; those without a row start empty."""
        missing = {key for key in keys if key not in self._balances}
        if missing:
            self._know(missing, read_balances(self.connection, missing))

    def know(self, keys: Iterable[Key], rows: Iterable[Row]) -> None:
        """Takes the rows that `balances_query` found for these keys in this transaction."""
        self._know(keys, balances_from(rows))

    def _know(self, keys: Iterable[Key], found: dict[Key, Balance]) -> None:
        self._balances.update(found)
        for key in keys:
            if key not in found:
                self._balances[key] = Balance()
                self._fresh.add(key)

    def load_current(self, cap_ids: Iterable[str]) -> None:
        """Reads the balances of the current windows of these caps, and rolls those that have just begun."""
        now_ms, caps = self.now_ms, self.caps
        keys = [(cap_id, caps[cap_id].start_at(now_ms)) for cap_id in cap_ids if cap_id in caps]
        self.load(keys)
        if self._fresh:
            for key in keys:
                if key in self._fresh and caps[key[0]].cap.carry_over:
                    self._roll(caps[key[0]], key)

    def current(self, stored: StoredCap) -> Balance:
        """The balance of the cap's current window; `load_current` must have seen it."""
        return self._balances[stored.cap.id, stored.start_at(self.now_ms)]

    def at(self, key: Key) -> Balance:
        """The balance under a key, read when it is not known yet."""
        balance = self._balances.get(key)
        if balance is None:
            self.load((key,))
            balance = self._balances[key]
        return balance

    def touch(self, key: Key) -> None:
        """Says that the balance under this key has changed and must be written."""
        self._touched.add(key)

    def entry(self, key: Key, kind: str, amount: int, reason: str = "") -> None:
        """Notes something that happened to the cap itself, to be written with the balances."""
        self._entries.append((key[0], key[1], kind, amount, self.now_ms, reason))
        self._touched.add(key)

    def state(self, stored: StoredCap) -> CapState:
        """The cap with the sums of its current window."""
        return stored.state(self.current(stored), self.now_ms)

    def states(self, cap_ids: Iterable[str]) -> tuple[CapState, ...]:
        """The states of these caps in this order, without deleted or unknown ones."""
        caps, balances, now_ms = self.caps, self._balances, self.now_ms
        states = []
        for cap_id in cap_ids:
            stored = caps.get(cap_id)
            if stored is not None and not stored.cap.deleted:
                states.append(stored.state(balances[cap_id, stored.start_at(now_ms)], now_ms))
        return tuple(states)

    def flush(self) -> None:
        """Writes what has changed."""
        if self._touched:
            rows = []
            for key in self._touched:
                balance = self._balances[key]
                rows.append((key[0], key[1], saturated(balance.used), saturated(balance.held), saturated(balance.carried)))
            write_balances(self.connection, rows)
            self._touched.clear()
        if self._entries:
            self.connection.execute(
                f"""INSERT INTO entries (cap_id, window_start_ms, kind, amount, at_ms, reason, posts_sequence)
                SELECT c0, c1, c2, c3, c4, c5, (SELECT coalesce(max(sequence), 0) FROM posts)
                FROM {self.connection.rowset("text", "bigint", "text", "bigint", "bigint", "text")} AS k""",
                (to_json(self._entries),),
            )
            self._entries.clear()

    def _roll(self, stored: StoredCap, key: Key) -> None:
        # What the window before left over is frozen now, at the first touch of the new one, and explained by a row.
        self._fresh.discard(key)
        cap, start_ms = stored.cap, key[1]
        if start_ms < 0 or cap.created_ms >= start_ms:
            return
        before: Key = (cap.id, stored.window_before(start_ms))
        left = self.at(before)
        carried = min(cap.limit, max(0, cap.limit + left.carried - left.used - left.held))
        self._balances[key].carried = carried
        self.entry(key, "carry", carried, "left over from the window before")
