"""How full caps are, kept at hand for those who must not ask a database: all of them once, then what has changed."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from store.database import Connection, Database, Row, governance_revision
from store.ledger.caps import cap_states
from store.ledger.history import newest_sequence, posts_since
from store.ledger.rows import CAP_COLUMNS
from store.ledger.types import CapState

POSTS_AT_ONCE = 5000


class Level(NamedTuple):
    """What was posted to a cap in its present window, and the limit in force. Holds of calls in flight are not in it."""

    used: int
    limit: int
    ends_ms: int | None
    """When the window or a raise ends, by the ledger's clock; None: never."""

    @property
    def percent(self) -> float:
        """0 to 100; a limit of nothing is full."""
        if self.limit <= 0:
            return 100.0
        return max(0.0, min(100.0, 100.0 * self.used / self.limit))


class Levels:
    """A reader of levels. `read` blocks; between reads `current` is a plain mapping that nobody changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revision = -1
        self._sequence = 0
        self._entry = 0
        self._caps: dict[str, Row] = {}
        self.current: Mapping[str, Level] = {}

    def read(self) -> None:
        """Bring `current` up to date: what was posted or booked by hand since the last read, windows that ended, edited caps.

        Raises StoreUnavailable.
        """
        with self._database.read() as connection:
            revision, now_ms = governance_revision(connection), connection.now_ms()
            changed = {cap_id for cap_id, level in self.current.items() if level.ends_ms is not None and level.ends_ms <= now_ms}
            changed.update(self._posted(connection))
            if revision != self._revision:
                changed.update(self._edited(connection))
                self._revision = revision
            changed &= self._caps.keys()
            if changed or self.current.keys() != self._caps.keys():
                fresh = {state.cap.id: _level(state) for state in cap_states(connection, now_ms, sorted(changed))}
                self.current = {cap_id: level for cap_id, level in {**self.current, **fresh}.items() if cap_id in self._caps}

    def _posted(self, connection: Connection) -> Iterator[str]:
        """The caps that calls were posted to since the last read."""
        if self._revision < 0:
            self._sequence = newest_sequence(connection)
        while posts := posts_since(connection, self._sequence, POSTS_AT_ONCE):
            self._sequence = posts[-1].sequence
            for post in posts:
                yield from post.cap_ids

    def _edited(self, connection: Connection) -> set[str]:
        """The caps that are new, look different, or were reset, topped up or raised since the last read."""
        before = self._caps
        self._caps = {row[0]: row for row in connection.execute(f"SELECT {CAP_COLUMNS} FROM caps WHERE deleted = 0")}
        entries = connection.execute("SELECT cap_id, sequence FROM entries WHERE sequence > ?", (self._entry,))
        self._entry = max((row[1] for row in entries), default=self._entry)
        return {row[0] for row in entries} | {cap_id for cap_id, row in self._caps.items() if before.get(cap_id) != row}

    def forget(self) -> None:
        """Nobody asks any more; the next read begins anew."""
        self._revision, self.current, self._caps = -1, {}, {}


def _level(state: CapState) -> Level:
    ends = [ms for ms in (state.resets_at_ms, state.raised.until_ms if state.raised is not None else None) if ms is not None]
    return Level(state.used, state.limit, min(ends, default=None))
