"""The calls that wait for room, first come first served, bounded in number and in the memory they keep."""

from collections.abc import Iterable, Iterator

from store.ledger.operations import HoldOperation

LINE_CALLS_MAX = 1_000
LINE_BYTES_MAX = 256 * 1024 * 1024


class Line:
    """A queue of holds in the order of their arrival."""

    def __init__(self, calls_max: int = LINE_CALLS_MAX, bytes_max: int = LINE_BYTES_MAX) -> None:
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._waiting: list[HoldOperation] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[HoldOperation]:
        return iter(self._waiting)

    def copy(self, waiting: Iterable[HoldOperation] = ()) -> "Line":
        """A line with the same bounds and these calls in it."""
        line = Line(self._calls_max, self._bytes_max)
        for operation in waiting:
            line.add(operation)
        return line

    def has_room(self, operation: HoldOperation) -> bool:
        """Whether one more call may wait."""
        return len(self._waiting) < self._calls_max and self._bytes + operation.request.waiting_bytes <= self._bytes_max

    def add(self, operation: HoldOperation) -> None:
        """Puts a call at the end of the line."""
        self._waiting.append(operation)
        self._bytes += operation.request.waiting_bytes
