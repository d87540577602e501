"""Rows of the audit log for signing in and out. Failures are counted, so that a flood of guesses is two rows a minute."""

import asyncio
import logging
from collections import Counter
from concurrent.futures import Executor
from dataclasses import replace

from store.clock import iso_utc
from store.config_store.edits import Actor
from store.config_store.sessions import end_session
from store.config_store.store import ConfigStore
from store.errors import StoreUnavailable

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60.0
ADDRESSES_KEPT = 20
"""Addresses that a row of failures names; the rest is a number. More than ten times as many are not even counted apart."""
_KIND = "session"


class SignIns:
    """The console's memory of who tried to sign in. Used from the event loop; rows are written on threads of `executor`."""

    def __init__(self, store: ConfigStore, executor: Executor, window_seconds: float = WINDOW_SECONDS) -> None:
        self._store = store
        self._executor = executor
        self._window_seconds = window_seconds
        self._failures: Counter[str] = Counter()
        self._since_ms = 0
        self._timer: asyncio.TimerHandle | None = None

    def began(self, actor: Actor) -> None:
        """Somebody signed in. Blocks; raises StoreUnavailable: who cannot be written down does not come in."""
        self._write(actor, "sign in", {})

    def ended(self, actor: Actor, session: str, until_ms: int) -> None:
        """Ends a session for good. Blocks. Raises StoreUnavailable."""
        store = replace(self._store, actor=actor)
        with store.ledger.write() as connection:
            end_session(connection, session, until_ms, store.clock.now_ms())
            store.note(connection, "sign out", _KIND)

    def failed(self, address: str) -> None:
        """A wrong credential. The first after a quiet minute is written at once, those of the minute after it together.

        What was tried is not kept: people type passwords into the wrong field.
        """
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._window_seconds, self.flush)
            self._since_ms = self._store.clock.now_ms()
            self._later({address: 1})
            return
        known = address in self._failures or len(self._failures) < ADDRESSES_KEPT * 10
        self._failures[address if known else ""] += 1

    def flush(self) -> None:
        """Writes what was counted; when there was nothing, the minute is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._failures:
            counted, self._failures = self._failures, Counter()
            self._later(counted)
            self._timer = asyncio.get_running_loop().call_later(self._window_seconds, self.flush)

    def close(self) -> None:
        """Writes what was counted and counts no more. Blocks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._failures:
            counted, self._failures = self._failures, Counter()
            self._write_failures(counted, self._since_ms)

    def _later(self, counted: dict[str, int]) -> None:
        since_ms, self._since_ms = self._since_ms, self._store.clock.now_ms()
        self._executor.submit(self._write_failures, counted, since_ms)

    def _write_failures(self, counted: dict[str, int], since_ms: int) -> None:
        named = Counter({address: count for address, count in counted.items() if address}).most_common(ADDRESSES_KEPT)
        total = sum(counted.values())
        details: dict[str, object] = {"failures": total, "since": iso_utc(since_ms), "addresses": dict(named)}
        if rest := total - sum(count for _, count in named):
            details["from_other_addresses"] = rest
        address = named[0][0] if len(named) == 1 and not rest else ""
        try:
            self._write(Actor("unknown", "", address), "sign in failed", details)
        except StoreUnavailable as fault:
            log.warning("%d failed sign-ins could not be written to the audit log: %s", total, fault)
        except Exception:
            log.exception("failed sign-ins could not be written to the audit log")

    def _write(self, actor: Actor, action: str, details: dict[str, object]) -> None:
        store = replace(self._store, actor=actor)
        with store.ledger.write() as connection:
            store.note(connection, action, _KIND, details=details or None)
