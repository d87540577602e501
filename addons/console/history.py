"""Reads logged calls as flows. Runs in a thread: it waits for the disk."""

from itertools import batched

from mitmproxy import http

from addons.console.bounded_view import weight
from addons.console.flows import flow_of
from addons.console.load_spec import LoadSpec
from store.logs.queries import MAX_LIMIT, LogReader
from store.logs.types import CallRow

_PAGE = 200


def history(logs: LogReader, since_ms: int, max_flows: int, max_bytes: int) -> list[http.HTTPFlow]:
    """The newest calls since an instant, within bounds, oldest first. Raises StoreUnavailable."""
    flows: list[http.HTTPFlow] = []
    room = max_bytes
    before: str | None = None
    while len(flows) < max_flows:
        page = logs.recent(min(_PAGE, max_flows - len(flows)), before, start_ms=since_ms)
        if not page:
            break
        before = page[-1].id
        for made in reversed(_flows(logs, [row.id for row in page])):
            room -= weight(made)
            if room < 0:
                return flows[::-1]
            flows.append(made)
    return flows[::-1]


def load_rows(logs: LogReader, spec: LoadSpec) -> list[http.HTTPFlow]:
    """What `tollgate.load` asked for, oldest first. Raises StoreUnavailable."""
    if spec.ids:
        return _flows(logs, list(spec.ids)[: spec.limit])
    flows: list[http.HTTPFlow] = []
    rows: list[CallRow] = []
    before: str | None = None
    while len(rows) < spec.limit:
        page = logs.recent(min(MAX_LIMIT, spec.limit - len(rows)), before, **spec.conditions)
        rows += page
        if len(page) < MAX_LIMIT:
            break
        before = page[-1].id
    for some in batched([row.id for row in reversed(rows)], _PAGE):
        flows += _flows(logs, list(some))
    return flows


def _flows(logs: LogReader, call_ids: list[str]) -> list[http.HTTPFlow]:
    lengths = logs.body_lengths(call_ids)
    return [flow_of(row, lengths.get(row.id)) for row in logs.with_bodies(call_ids)]
