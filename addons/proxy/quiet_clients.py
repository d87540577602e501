"""Letting go of client connections on which nothing happens, for a process that is being replaced."""

from collections.abc import Collection

from addons.proxy.connections import cancel_transport, live_clients


class QuietClients:
    """Closes client connections that were found unchanged in so many looks after one another. Needs no clock: the looks are it."""

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._seen: dict[str, tuple[float, int]] = {}

    def close(self, *, busy: Collection[str]) -> int:
        """One look; how many were closed. `busy` are the ids of clients that have a call in flight.

        Raw tunnels are left alone, however quiet they are, and so is who has not taken all of its answer yet.
        """
        closed = 0
        seen: dict[str, tuple[float, int]] = {}
        for handler in live_clients():
            client = handler.client
            if client.id in busy or handler.carries_tunnel or handler.has_unsent_answer():
                continue
            active_at = handler.timeout_watchdog.last_activity
            before, looks = self._seen.get(client.id, (None, 0))
            looks = looks + 1 if before == active_at else 0
            if looks >= self._looks and cancel_transport(handler, client, "closed by the gateway: it was idle"):
                closed += 1
                continue
            seen[client.id] = active_at, looks
        self._seen = seen
        return closed
