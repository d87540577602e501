"""A refusal is a value: what is wrong, in which cap, with which status. `refuse.py` writes it in the caller's dialect."""

from dataclasses import dataclass

from store.ledger.types import Exceeded


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call does not go through. Final ones must not be retried; transient ones say when to come back."""

    status: int
    type: str
    message: str
    exceeded: tuple[Exceeded, ...] = ()
    """Every cap that is hit; the first is the one that is named."""
    retry_after: int | None = None
    """Seconds; only on transient refusals."""

    @property
    def transient(self) -> bool:
        return self.retry_after is not None
