"""What becomes of a CONNECT: a raw tunnel, dialled before it is answered, or an intercepted HTTP/1.1 connection."""

from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy.addons import next_layer
from mitmproxy.connection import Connection
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, HttpLayer, ServerTLSLayer, TCPLayer, modes
from mitmproxy.proxy.layers.http import HTTPMode, HttpStream
from mitmproxy.proxy.layers.http._upstream_proxy import HttpUpstreamProxy
from mitmproxy.proxy.layers.tls import parse_client_hello

from addons.proxy.connections import handler_of
from addons.proxy.egress import Egress, mark_tunnel

__all__ = ["Egress", "TunnelLayer", "decide"]

MAX_CLIENT_HELLO_BYTES = 64 * 1024


@dataclass
class TunnelReady(commands.Command):
    """A tunnel's server is connected, or the reason why it is not."""

    error: str | None


class ConnectProbe(layer.NextLayer):
    """The question what a CONNECT becomes, asked before it is answered and before any data."""

    decided = False
    """`decide` has answered."""


class TunnelLayer(TCPLayer):
    """Bytes both ways, unread: no flow, no hooks, nothing stored."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, ignore=True)
        mark_tunnel(context.server)
        handler = handler_of(context.client)
        if handler is not None:
            handler.carries_tunnel = True

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if not isinstance(event, events.Start):
            return
        error = yield commands.OpenConnection(self.context.server)
        self._handle_event = self.done if error else self.relay_messages  # type: ignore[method-assign]
        yield TunnelReady(error)


class RefusalLayer(layer.Layer):
    """Closes the client connection without a word."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if not isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)


def through_proxy(tunnel_layer: TunnelLayer) -> layer.Layer:
    """The tunnel itself, or the layers that take it through the upstream proxy its server connection names."""
    context = tunnel_layer.context
    if context.server.via is None:
        return tunnel_layer
    stack = HttpUpstreamProxy.make(context, True)
    stack /= tunnel_layer
    return stack[0]


def dialled_connection(top: layer.Layer) -> Connection:
    """The connection that is really opened for a tunnel: the server's, or the upstream proxy's."""
    return top.tunnel_connection if isinstance(top, tunnel.TunnelLayer) else top.context.server


def decide(
    nextlayer: layer.NextLayer,
    is_intercepted: Callable[[str, int], bool],
    sni_allowed: Callable[[str, str], bool] = lambda host, sni: True,
) -> None:
    """The `next_layer` hook of an addon: chooses the protocol layers of every CONNECT.

    `is_intercepted(host, port)` is asked once for a CONNECT; False makes a raw tunnel. `sni_allowed(host, sni)` is asked
    when an intercepted client names a server in its TLS greeting; False closes the connection. Inside an intercepted
    CONNECT only HTTP/1.1 is spoken, with TLS or without. Connections outside a CONNECT are left to mitmproxy.
    """
    context = nextlayer.context
    if isinstance(nextlayer, ConnectProbe):
        nextlayer.decided = True
        address = context.server.address
        intercept = address is not None and is_intercepted(address[0], address[1])
        nextlayer.layer = None if intercept else TunnelLayer(context)
    elif nextlayer.layer is None and _is_governed(context):
        data = nextlayer.data_client()  # type: ignore[no-untyped-call]
        nextlayer.layer = _intercepted_layer(context, data, sni_allowed)


def _intercepted_layer(context: Context, data: bytes, sni_allowed: Callable[[str, str], bool]) -> layer.Layer | None:
    """The layers for the first bytes of an intercepted connection, None while there are too few to tell."""
    if isinstance(context.layers[-1], ClientTLSLayer):
        # Whatever is inside TLS is read as HTTP: mitmproxy's guess "this is no HTTP" would be a way round the gateway.
        return HttpLayer(context, HTTPMode.transparent)
    handler = handler_of(context.client)
    if handler is not None:
        handler.start_head_timer()
    if is_partial_tls(data):
        return None
    if not starts_like_tls_record(data):
        return HttpLayer(context, HTTPMode.transparent)
    try:
        hello = parse_client_hello(data)
    except ValueError:
        return RefusalLayer(context)
    if hello is None:
        return None if len(data) <= MAX_CLIENT_HELLO_BYTES else RefusalLayer(context)
    host = context.server.address[0] if context.server.address else ""
    if hello.sni and not sni_allowed(host, hello.sni):
        return RefusalLayer(context)
    server_tls = ServerTLSLayer(context)
    server_tls.child_layer = ClientTLSLayer(context)
    return server_tls


def is_partial_tls(data: bytes) -> bool:
    """Whether these are the first one or two bytes of what may become a TLS greeting."""
    return len(data) < 3 and b"\x16\x03".startswith(data[:2])


def _is_governed(context: Context) -> bool:
    """Whether this is inside a CONNECT on which `decide` was asked."""
    return any(isinstance(outer, HttpStream) and getattr(outer, "governs_connect", False) for outer in context.layers)


def next_layer_hook(self: next_layer.NextLayer, nextlayer: layer.NextLayer) -> None:
    """Stands in for mitmproxy's own `next_layer` hook.

    It leaves governed CONNECTs to `decide`, whichever of the two is called first, because merely making a layer changes
    the connection it is for; and it waits for the first three bytes of a connection to see whether it is TLS.
    """
    context = nextlayer.context
    if isinstance(nextlayer, ConnectProbe) or _is_governed(context):
        return
    explicit_proxy = len(context.layers) == 1 and isinstance(context.layers[0], modes.HttpProxy)
    data = nextlayer.data_client()  # type: ignore[no-untyped-call]
    if explicit_proxy and data and is_partial_tls(data):
        return
    _stock_next_layer(self, nextlayer)


_stock_next_layer = next_layer.NextLayer.next_layer
