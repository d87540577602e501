"""The watchdog: ends an exchange whose upstream server does not connect, does not begin to answer, or stops answering."""

import asyncio
import math
from dataclasses import dataclass

from mitmproxy import http

from addons.proxy.connections import cancel_upstream, close_client
from addons.proxy.flow_state import TimeoutKind, state_of, timed_out
from addons.proxy.limits import Limits, current_limits

__all__ = ["Watchdog", "timed_out"]

_REASONS: dict[TimeoutKind, str] = {
    "connect": "connecting to the upstream server took too long",
    "first_byte": "the upstream server did not begin to answer in time",
    "idle": "the upstream server stopped sending its answer",
}


@dataclass(slots=True)
class _Watch:
    flow: http.HTTPFlow
    since: float
    """Loop time of the last progress: sent, headers, or a piece of the answer."""
    answering: bool = False
    timer: asyncio.TimerHandle | None = None
    due: float = math.inf


class Watchdog:
    """Per-flow timers on the running loop: one armed timer a flow, not re-armed for every chunk.

    When one expires the flow is marked (`timed_out`) and its upstream side ended: before the answer began the client
    gets 504, afterwards its answer breaks off; `error` fires in both cases.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Without `limits` those of the process apply, as they are when a timer is set."""
        self._limits = limits
        self._watches: dict[str, _Watch] = {}

    def sent(self, flow: http.HTTPFlow) -> None:
        """The request is about to go upstream (the end of the `request` hook). Starts watching."""
        self.done(flow)
        watch = _Watch(flow, self._now())
        self._watches[flow.id] = watch
        limits = self._current()
        self._arm(watch, watch.since + min(limits.connect_timeout_seconds, limits.first_byte_timeout_seconds))

    def headers(self, flow: http.HTTPFlow) -> None:
        """The head of the answer is there (`responseheaders`)."""
        watch = self._watches.get(flow.id)
        if watch is None:
            return
        watch.answering = True
        watch.since = self._now()
        due = watch.since + self._current().idle_stream_timeout_seconds
        if due < watch.due:
            self._arm(watch, due)

    def activity(self, flow: http.HTTPFlow) -> None:
        """A piece of the answer arrived. Pieces that pass through the proxy core are noticed without this call."""
        watch = self._watches.get(flow.id)
        if watch is not None:
            watch.since = self._now()

    def done(self, flow: http.HTTPFlow) -> None:
        """The exchange is over (`response` or `error`). Harmless for a flow that is not watched."""
        watch = self._watches.pop(flow.id, None)
        if watch is not None and watch.timer is not None:
            watch.timer.cancel()

    def __len__(self) -> int:
        """How many flows are watched."""
        return len(self._watches)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _current(self) -> Limits:
        return self._limits or current_limits()

    def _arm(self, watch: _Watch, due: float) -> None:
        if watch.timer is not None:
            watch.timer.cancel()
        watch.due = due
        watch.timer = asyncio.get_running_loop().call_at(due, self._look, watch)

    def _look(self, watch: _Watch) -> None:
        """Runs when a timer is due: ends the flow, or sets the timer for when it would be due now."""
        kind, due = self._deadline(watch)
        if self._now() < due:
            self._arm(watch, due)
            return
        flow = watch.flow
        self._watches.pop(flow.id, None)
        state_of(flow).timed_out = kind
        if not cancel_upstream(flow, _REASONS[kind]):
            close_client(flow)

    def _deadline(self, watch: _Watch) -> tuple[TimeoutKind, float]:
        limits = self._current()
        if watch.answering:
            last = max(watch.since, state_of(watch.flow).last_chunk_at)
            return "idle", last + limits.idle_stream_timeout_seconds
        # mitmproxy puts the connection on the flow once it is established, TLS included.
        if watch.flow.server_conn.timestamp_start is None:
            return "connect", watch.since + limits.connect_timeout_seconds
        return "first_byte", watch.since + limits.first_byte_timeout_seconds
