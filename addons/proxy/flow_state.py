"""What this package remembers of a flow.

It hangs on the flow object itself: `flow.metadata` is shown to users and saved, and a registry would outlive the flow.
"""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from mitmproxy import http

if TYPE_CHECKING:
    from addons.proxy.stream import Stream

RequestForm = Literal["origin", "absolute", "authority"]
TimeoutKind = Literal["connect", "first_byte", "idle"]


class DefaultLimit:
    """Says that a flow has no body limit of its own."""


DEFAULT_LIMIT: Final = DefaultLimit()


@dataclass(slots=True)
class FlowState:
    """Facts about one flow that mitmproxy forgets or never knew."""

    form: RequestForm | None = None
    connect_target: tuple[str, int] | None = None
    stream: "weakref.ref[Stream] | None" = None
    """The layer that drives this flow while it is live. Weak, because the layer holds the flow."""
    body_limit: int | None | DefaultLimit = DEFAULT_LIMIT
    timed_out: TimeoutKind | None = None
    cancel_reason: str | None = None
    cut: bool = False
    last_chunk_at: float = 0.0
    """Loop time of the last piece of the answer, streamed or buffered; 0.0 before the first."""


_ATTRIBUTE = "_tollgate_proxy_state"


def state_of(flow: http.HTTPFlow) -> FlowState:
    """The state of this flow, made on first use."""
    state: FlowState | None = flow.__dict__.get(_ATTRIBUTE)
    if state is None:
        state = FlowState()
        flow.__dict__[_ATTRIBUTE] = state
    return state


def request_form(flow: http.HTTPFlow) -> RequestForm:
    """How the request line named its target: `/path`, `http://host/path` or, for CONNECT, `host:port`.

    Hooks cannot see this themselves because mitmproxy blanks the authority first. A flow replayed from the inspector
    names its destination itself and counts as absolute.
    """
    form = state_of(flow).form
    if form is not None:
        return form
    if flow.request.method.upper() == "CONNECT":
        return "authority"
    return "absolute" if flow.is_replay == "request" or flow.request.authority else "origin"


def connect_target(flow: http.HTTPFlow) -> tuple[str, int] | None:
    """Host and port of the CONNECT this flow came through; None when it came through none."""
    return state_of(flow).connect_target


def set_body_limit(flow: http.HTTPFlow, max_bytes: int | None) -> None:
    """Gives this flow's buffered request body a limit of its own; None takes the limit off.

    To be called in `requestheaders`, before the body is read.
    """
    state_of(flow).body_limit = max_bytes


def timed_out(flow: http.HTTPFlow) -> TimeoutKind | None:
    """Which of the watchdog's timers ended this flow, if one did."""
    return state_of(flow).timed_out
