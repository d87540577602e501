"""Keeps mitmweb's view within bounds: so many flows, so many bytes, the oldest go first."""

from collections import OrderedDict
from collections.abc import Iterable

from mitmproxy import flow, http
from mitmproxy.addons.view import View

_OVERHEAD_BYTES = 6_000
"""What a flow weighs without its bodies: connections, headers, indexes."""


class BoundedView:
    """Adds flows to a view and takes the oldest out again. All on the loop's thread."""

    def __init__(self, view: View, max_flows: int, max_bytes: int) -> None:
        self._view = view
        self._max_flows = max(1, max_flows)
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._unfinished: set[str] = set()
        self.evicted = 0
        # The view is changed by people, too: deleted, cleared, duplicated.
        view.sig_view_add.connect(self._added)
        view.sig_store_remove.connect(self._removed)
        view.sig_store_refresh.connect(self._refreshed)

    def show(self, new: http.HTTPFlow, live: bool = False) -> None:
        """Add a flow, or bring the one with its id up to date. `live`: its call still goes on."""
        if live:
            self._unfinished.add(new.id)
        else:
            self._unfinished.discard(new.id)
        shown = self._view.get_by_id(new.id)
        if isinstance(shown, http.HTTPFlow):
            _renew(shown, new)
            self._weigh(shown)
            self._view.update([shown])
        else:
            self._view.add([new])
        self._shrink()

    def finished(self, flow_ids: Iterable[str]) -> None:
        """These calls will not be heard of again."""
        self._unfinished.difference_update(flow_ids)

    def has(self, flow_id: str) -> bool:
        """True while the view holds this flow."""
        return flow_id in self._sizes

    def room_for(self, size: int) -> bool:
        """True while a flow of `size` bytes fits without pushing another out."""
        return len(self._sizes) < self._max_flows and self._bytes + size <= self._max_bytes

    @property
    def flows(self) -> int:
        """Flows held now."""
        return len(self._sizes)

    @property
    def bytes(self) -> int:
        """Their weight, estimated."""
        return self._bytes

    def _shrink(self) -> None:
        while len(self._sizes) > self._max_flows or (self._bytes > self._max_bytes and len(self._sizes) > 1):
            # A call that goes on is skipped: the row would come back with its next picture. If all go on, the oldest must go.
            oldest = next((flow_id for flow_id in self._sizes if flow_id not in self._unfinished), next(iter(self._sizes)))
            self._unfinished.discard(oldest)
            victim = self._view.get_by_id(oldest)
            if victim is None:
                self._forget(oldest)
            else:
                self._view.remove([victim])  # one at a time: mitmproxy logs an alert for every removal of several
            self.evicted += 1

    def _weigh(self, shown: flow.Flow) -> None:
        size = weight(shown)
        self._bytes += size - self._sizes.get(shown.id, 0)
        self._sizes[shown.id] = size

    def _forget(self, flow_id: str) -> None:
        self._bytes -= self._sizes.pop(flow_id, 0)

    def _added(self, flow: flow.Flow) -> None:
        self._weigh(flow)
        self._shrink()

    def _removed(self, flow: flow.Flow) -> None:
        self._forget(flow.id)

    def _refreshed(self) -> None:
        for flow_id in [known for known in self._sizes if self._view.get_by_id(known) is None]:
            self._forget(flow_id)


def weight(shown: flow.Flow) -> int:
    """Bytes a flow takes, estimated: bodies, headers and a constant."""
    size = _OVERHEAD_BYTES
    if isinstance(shown, http.HTTPFlow):
        for message in (shown.request, shown.response):
            if message is not None:
                size += len(message.raw_content or b"") + sum(len(name) + len(value) for name, value in message.headers.fields)
    return size


def _renew(shown: http.HTTPFlow, new: http.HTTPFlow) -> None:
    """Everything but what the view sorts by, and what replaying noted."""
    shown.request = new.request
    shown.response = new.response
    shown.error = new.error
    shown.client_conn = new.client_conn
    shown.server_conn = new.server_conn
    shown.comment = new.comment
    shown.marked = new.marked
    shown.is_replay = shown.is_replay or new.is_replay
    kept = {name: value for name, value in shown.metadata.items() if name == "replay_of"}
    shown.metadata = {**new.metadata, **kept}
