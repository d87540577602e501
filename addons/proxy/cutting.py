"""Ending a streamed answer early so that the client sees a proper end."""

from mitmproxy import http

from addons.proxy.connections import cancel_upstream
from addons.proxy.flow_state import state_of
from addons.proxy.stream import is_chunked

CUT_REASON = "cut by the gateway"


def cut_stream(flow: http.HTTPFlow, last_chunks: list[bytes]) -> list[bytes]:
    """Ends a streamed answer; returns what the stream callable must return now. It is not called again.

    The upstream connection is ended on the next loop turn and `error` fires with "cut by the gateway".

    * A chunked answer gets the last chunks and its terminator at once; the client's connection goes on serving.
    * One that ends with its connection gets the last chunks; the client's connection is closed, which is its end.
    * One with a content-length has promised more bytes than will come. Anything but the provider's own bytes would be
      taken for part of them, so nothing more is sent and the client's connection is closed: the client sees a broken
      answer. Whoever wants to cut such answers replaces the content-length in `responseheaders` (`make_cuttable`).
    """
    state = state_of(flow)
    if state.cut:
        return []
    state.cut = True
    cancel_upstream(flow, CUT_REASON)
    pieces = [piece for piece in last_chunks if piece]
    if is_chunked(flow):
        # An empty chunk is the terminator of a chunked body.
        return [*pieces, b""]
    return [] if flow.response is not None and "content-length" in flow.response.headers else pieces


def is_cut(flow: http.HTTPFlow) -> bool:
    """Whether `cut_stream` ended this flow's answer."""
    return state_of(flow).cut


def make_cuttable(flow: http.HTTPFlow) -> None:
    """In `responseheaders` of an HTTP/1.1 answer that will be streamed: chunks in place of a content-length."""
    response = flow.response
    if response is None or is_chunked(flow) or flow.request.http_version != "HTTP/1.1":
        return
    bodiless = flow.request.method.upper() == "HEAD" or response.status_code < 200 or response.status_code in (204, 304)
    if not bodiless and response.headers.get("content-length") != "0":
        response.headers.pop("content-length", None)
        response.headers["transfer-encoding"] = "chunked"
