"""Going out through a corporate proxy (`gateway.upstream_proxy`), for calls and for raw tunnels."""

import base64
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net import server_spec


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """The address of a proxy that takes CONNECT, and what it wants to be told about us."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    """The value of `Proxy-Authorization`, if the proxy asks for a login."""

    @classmethod
    def parse(cls, url: str) -> "UpstreamProxy":
        """Reads `http://[user:password@]host:port` (or https). Raises ValueError, without the password, for others."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("the upstream proxy must be written like http://user:password@proxy.example:3128")
        login = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + base64.b64encode(pair.encode()).decode()
        scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
        return cls(scheme, host, port or (443 if scheme == "https" else 80), login)

    @property
    def spec(self) -> server_spec.ServerSpec:
        """The form mitmproxy knows."""
        return (self.scheme, (self.host, self.port))

    def is_at(self, host: str, port: int) -> bool:
        """Whether an address is this proxy's: the egress rules do not apply to it."""
        return (host, port) == (self.host, self.port)


def route(target: http.HTTPFlow | Server, proxy: UpstreamProxy | None) -> None:
    """Sends one exchange through a proxy, or directly (None).

    For a request this is called in `requestheaders` or `request`, for a tunnel in `http_connect`; mitmproxy keeps the
    setting for the later requests of that client connection, so every request has to be routed.
    """
    server = target.server_conn if isinstance(target, http.HTTPFlow) else target
    if server.timestamp_start is None:
        server.via = proxy.spec if proxy is not None else None


class UpstreamProxyLogin:
    """An addon that logs in at the upstream proxy."""

    name = "tollgate_upstream_proxy_login"

    def __init__(self, proxy: UpstreamProxy) -> None:
        self._proxy = proxy

    def http_connect_upstream(self, flow: http.HTTPFlow) -> None:
        if self._proxy.authorization is not None:
            flow.request.headers["proxy-authorization"] = self._proxy.authorization
