"""The caps that stood in the way of a call, with their sums at that instant, as compact text in its row: bounded, both ways."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from store.ledger.types import Exceeded

MAX_BYTES = 4_000
"""Less than any text of a row may have, so that it is never cut in the middle."""
MAX_NAME = 120


@dataclass(frozen=True, slots=True)
class ExceededCap:
    """One cap at the instant of a refusal. Amounts are in the cap's unit, nano-dollars for money; times in milliseconds."""

    cap_id: str
    name: str
    scope: str
    scope_id: str
    scope_name: str
    unit: str
    limit: int
    used: int
    held: int
    needed: int
    window: str | None
    window_start_ms: int | None
    resets_at_ms: int | None
    enforcement: str

    @property
    def remaining(self) -> int:
        """What was left for a new call."""
        return max(0, self.limit - self.used - self.held)


def pack(exceeded: Sequence[Exceeded]) -> str:
    """The caps as text, in their order, as many as `MAX_BYTES` hold; empty when there are none."""
    packed: list[bytes] = []
    size = 2
    for one in exceeded:
        state, cap = one.state, one.state.cap
        row = orjson.dumps(
            (
                cap.id, cap.name[:MAX_NAME], cap.scope.value, cap.scope_id, cap.scope_name[:MAX_NAME], cap.unit.value, state.limit,
                state.used, state.held, one.needed, cap.window, state.window_start_ms, state.resets_at_ms, cap.enforcement.value,
            )
        )  # fmt: skip
        size += len(row) + 1
        if size > MAX_BYTES:
            break
        packed.append(row)
    return (b"[" + b",".join(packed) + b"]").decode() if packed else ""


def unpack(text: str) -> tuple[ExceededCap, ...]:
    """The caps from the text of a row; none for an empty text."""
    return tuple(ExceededCap(*row) for row in orjson.loads(text)) if text else ()
