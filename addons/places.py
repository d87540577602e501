"""Which providers may serve a bare model name, remembered while one snapshot of the governance holds."""

from collections.abc import Hashable, Sequence

from addons.call import Candidate
from store.config_store.snapshot import Snapshot

REMEMBERED_MAX = 4096
"""Names of models and paths come from callers."""

Places = Sequence[tuple[float | None, Candidate]]
"""(weight, who) in the order of the key's configs."""


class PlacesMemo:
    """Forgets everything when another snapshot is asked about, and when it is full."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._known: dict[Hashable, Places] = {}

    def get(self, snapshot: Snapshot, asked: Hashable) -> Places | None:
        """What was found before; None when it was not asked."""
        return self._known.get(asked) if snapshot is self._snapshot else None

    def put(self, snapshot: Snapshot, asked: Hashable, found: Places) -> None:
        """Remember what was found."""
        if snapshot is not self._snapshot or len(self._known) >= REMEMBERED_MAX:
            self._snapshot, self._known = snapshot, {}
        self._known[asked] = found
