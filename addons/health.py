"""What failed in the last seconds: providers that cannot be reached or answer with faults, keys that are told to slow down."""

from collections.abc import Callable
from typing import NamedTuple

FAULT_SECONDS = 5.0
"""How long a provider counts as failing after a fault of its own (5xx, no connection, no answer in time)."""
LONGEST_SECONDS = 60.0
"""A provider that asks for a longer pause gets this; then it is tried again."""
REMEMBERED = 1000
"""Places remembered at most; beyond that the one that recovers first is forgotten."""


class Place(NamedTuple):
    """A provider, or one of its keys."""

    provider: str
    key_id: str = ""


class Health:
    """One worker's memory of failures. Only used where something else can serve; nothing is ever refused because of it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._until: dict[Place, float] = {}

    def failed(self, provider: str, key_id: str = "", seconds: float = FAULT_SECONDS) -> None:
        """This provider (with `key_id`: this key of it) is to be left alone for some seconds."""
        until = self._monotonic() + min(max(seconds, 0.0), LONGEST_SECONDS)
        if len(self._until) >= REMEMBERED:
            self._forget()
        self._until[Place(provider, key_id)] = until

    @property
    def is_anything_failing(self) -> bool:
        """Whether there may be something that failed: most of the time there is nothing to look for."""
        return bool(self._until)

    def is_failing(self, provider: str, key_id: str = "") -> bool:
        """Whether this provider, or this key of it, failed in the last seconds."""
        if not self._until:
            return False
        now = self._monotonic()
        return now < self._until.get(Place(provider), 0.0) or bool(key_id and now < self._until.get(Place(provider, key_id), 0.0))

    def answered(self, provider: str, key_id: str, status: int, retry_after: str | None) -> None:
        """What a status says: 5xx blames the provider, 429 the key, anything else clears both."""
        if status >= 500:
            self.failed(provider)
        elif status == 429:
            self.failed(provider, key_id or provider, _seconds(retry_after))
        elif self._until:
            self._until.pop(Place(provider), None)
            self._until.pop(Place(provider, key_id), None)

    def _forget(self) -> None:
        now = self._monotonic()
        self._until = {place: until for place, until in self._until.items() if now < until}
        if len(self._until) >= REMEMBERED:
            del self._until[min(self._until, key=lambda place: self._until[place])]


def _seconds(retry_after: str | None) -> float:
    """The pause that a Retry-After asks for; a date, which needs the provider's clock, counts as a plain fault."""
    text = (retry_after or "").strip()
    plain = text.replace(".", "", 1)
    return float(text) if plain.isascii() and plain.isdigit() and len(plain) <= 9 else FAULT_SECONDS
