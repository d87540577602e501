"""The door to this package: what the rest of the gateway uses of mitmproxy's inside, and the patches, put in once."""

from typing import Any

from mitmproxy.addons import next_layer
from mitmproxy.http import Headers
from mitmproxy.proxy import mode_servers
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import _http1

from addons.proxy import bodies, client_side, quick_headers, tunnel
from addons.proxy.client_side import ClientSide
from addons.proxy.connections import Handler, cancel_upstream, close_client, live_connections, unsent_answers
from addons.proxy.cutting import cut_stream, is_cut, make_cuttable
from addons.proxy.faults import ProtocolFault, plain_fault, set_fault_writer
from addons.proxy.flow_state import RequestForm, connect_target, request_form, set_body_limit, timed_out
from addons.proxy.limits import Limits, current_limits, set_limits
from addons.proxy.listen import listen_again, serve_address, serve_sockets, stop_accepting
from addons.proxy.master import SAFE_OPTIONS, SlimMaster, apply_safe_options, make_options
from addons.proxy.quiet_clients import QuietClients
from addons.proxy.server_side import ServerSide
from addons.proxy.stream import Stream
from addons.proxy.upstream_proxy import UpstreamProxy, route
from addons.sockets import open_sockets

__all__ = [
    "SAFE_OPTIONS",
    "Limits",
    "ProtocolFault",
    "QuietClients",
    "RequestForm",
    "SlimMaster",
    "UpstreamProxy",
    "apply_safe_options",
    "cancel_upstream",
    "close_client",
    "connect_target",
    "current_limits",
    "cut_stream",
    "install",
    "listen_again",
    "is_cut",
    "live_connections",
    "make_cuttable",
    "make_options",
    "open_sockets",
    "plain_fault",
    "request_form",
    "route",
    "serve_address",
    "serve_sockets",
    "set_body_limit",
    "set_fault_writer",
    "set_limits",
    "stop_accepting",
    "timed_out",
    "unsent_answers",
]


_PLACES: tuple[tuple[Any, str, Any], ...] = (
    (http_layers, "HttpStream", Stream),
    (http_layers, "Http1Server", ClientSide),
    (http_layers, "Http1Client", ServerSide),
    (_http1, "make_body_reader", bodies.make_body_reader),
    (_http1, "make_error_response", client_side.make_error_response),
    (mode_servers, "ProxyConnectionHandler", Handler),
    (next_layer.NextLayer, "next_layer", tunnel.next_layer_hook),
    (Headers, "get_all", quick_headers.get_all),
    (Headers, "__contains__", quick_headers.contains),
    (Headers, "get", quick_headers.get),
)
"""Where mitmproxy looks a class or function up at the moment it needs it, and what it finds there after `install`."""


def install() -> None:
    """Puts our classes in the places where mitmproxy looks for its own. May be called again; also for stock mitmproxy.

    After this some addon must call `tunnel.decide` in its `next_layer` hook for CONNECT to be governed; without, CONNECT
    works as in stock mitmproxy. Raises RuntimeError when mitmproxy has no such places.
    """
    for owner, name, _ in _PLACES:
        if not hasattr(owner, name):
            raise RuntimeError(f"mitmproxy has no {owner.__name__}.{name}; this gateway needs mitmproxy 12.2.3")
    for owner, name, ours in _PLACES:
        setattr(owner, name, ours)
