"""A store that cannot be written for a while, under load: what every engine and every kind of fault has to show."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

from tests.support.crowd import FIRST_LENGTH, Crowd, Heard
from tests.support.figures import figures
from tests.support.judge import Rows, Verdict, judge, settled
from tests.support.quick import PretendProcess
from tests.support.waiting import eventually

CLIENTS = 16
REFUSED_WITHIN_SECONDS = 2.0
SLACK_SECONDS = 1.5
"""The promise is kept by the gateway's clock; on a busy machine a request waits before it is read, and its answer at the client."""
FAULT_SECONDS = 3.0
"""Longer than the two seconds, so that also those who were just about to hold must have been answered."""


class Ordeal:
    """A gateway, or several on one store, that goes from fault to fault; the books are judged over everything since the start."""

    def __init__(self, provider: PretendProcess, rows: Rows, url: Callable[[], str], app_dirs: Sequence[Path]) -> None:
        self.provider = provider
        self.rows = rows
        self.url = url
        self.heard: list[Heard] = []
        self._app_dirs = app_dirs
        self._lengths = count(FIRST_LENGTH)

    def crowd(self, *, clients: int = CLIENTS, delay_ms: int = 20) -> Crowd:
        """Clients whose calls are judged with all others."""
        crowd = Crowd(self.url, clients=clients, lengths=self._lengths, delay_ms=delay_ms)
        crowd.heard = self.heard
        return crowd

    def spooled_bytes(self) -> int:
        """What waits in spool files to be booked."""
        return sum(path.stat().st_size for app_dir in self._app_dirs for path in app_dir.glob("spool/*.spool"))

    def judged(self, *, dead_epochs: frozenset[str] = frozenset(), adjusted: bool = False) -> Verdict:
        """The books of now, once everything is settled."""
        settled(self.rows)
        bill = eventually(self.provider.bill, lambda bill: bill["in_flight"] == 0)
        return judge(bill, self.rows, self.heard, dead_epochs=dead_epochs, adjusted=adjusted)

    def endure(
        self,
        name: str,
        fault: Callable[[], AbstractContextManager[None]],
        *,
        spools: bool,
        total: bool = True,
        patience_seconds: float = 30,
    ) -> Verdict:
        """Load, the fault under load, load again; then the books.

        `spools`: the spool can be written meanwhile. `total`: nothing at all can be booked meanwhile, so that nobody may pass.
        `patience_seconds`: within these calls must be served again.
        """
        before = len(self.heard)
        with self.crowd(delay_ms=60) as crowd:
            crowd.wait_for_good(CLIENTS)
            with fault():
                began = time.monotonic()
                if spools:
                    # Those in flight end as if nothing were, and what they cost is in a synced file.
                    eventually(self.spooled_bytes, bool, 30)
                if total:
                    crowd.wait_for_refused(CLIENTS)
                time.sleep(max(0.0, began + FAULT_SECONDS - time.monotonic()))
                healed = time.monotonic()
            crowd.wait_for_good(CLIENTS, patience_seconds)
            again = time.monotonic()
        eventually(self.spooled_bytes, lambda size: not size, 20)
        verdict = self.judged()
        heard = self.heard[before:]
        refused = [one for one in heard if one.status not in (0, 200)]
        slowest = max((one.seconds for one in refused), default=0.0)
        figures(
            name,
            refused=dict(Counter(f"{one.status} {one.refusal}" for one in refused)),
            slowest_refusal=round(slowest, 2),
            served_again_after=round(again - healed, 2),
            good=sum(one.good for one in heard),
            calls=verdict.calls,
            billed=verdict.billed,
            spent=verdict.spent,
            voided=verdict.voided,
        )
        if total:
            passed = [one for one in heard if one.good and one.started > began and one.started + one.seconds < healed]
            assert passed == [], "a call has left without a durable hold"
        assert {(one.status, one.refusal) for one in refused} <= {(503, "gateway_unavailable")}
        assert slowest <= REFUSED_WITHIN_SECONDS + SLACK_SECONDS
        assert [one for one in heard if not one.status or not one.whole] == []
        # Nothing lost, nothing charged twice, and nothing left in doubt: to the nano what the provider billed.
        assert verdict.in_doubt == 0
        assert verdict.spent == verdict.billed == verdict.billed_finished
        return verdict
