"""Listening: on sockets made here, or inherited from a parent and shared with sibling processes."""

import asyncio
import socket
from collections.abc import Sequence
from typing import cast

from mitmproxy import master
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.mode_servers import RegularInstance, ServerInstance

from addons.sockets import BACKLOG, open_sockets

UDP_RELEASE_SECONDS = 0.2
"""mitmproxy's UDP listeners (reverse mode has one) let their port go a little after they say so."""


async def serve_sockets(owner: master.Master, sockets: Sequence[socket.socket]) -> None:
    """Serves the regular proxy mode on listening sockets. The sockets are closed in this process when it stops accepting.

    mitmproxy can only bind addresses itself, so one of its server instances is given our sockets in place of that; its
    record of listeners then holds them like any other.
    """
    addon = _proxyserver(owner)
    mode = mode_specs.ProxyMode.parse("regular")
    instance = cast(RegularInstance, ServerInstance.make(mode, addon))

    async def listen(host: str, port: int) -> list[asyncio.Server]:
        return [await asyncio.start_server(instance.handle_stream, sock=sock, backlog=BACKLOG) for sock in sockets]

    instance.listen = listen  # type: ignore[method-assign, assignment]
    addon.servers._instances[mode] = instance
    try:
        await instance.start()
    except BaseException:
        del addon.servers._instances[mode]
        raise
    await addon.servers.changed.send()


async def serve_address(owner: master.Master, host: str, port: int) -> list[tuple[str, int]]:
    """Binds and serves an address; returns the addresses it listens on. Raises OSError when it cannot be bound."""
    sockets = open_sockets(host, port)
    addresses = [sock.getsockname()[:2] for sock in sockets]
    try:
        await serve_sockets(owner, sockets)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return addresses


async def listen_again(owner: master.Master) -> None:
    """Lets mitmproxy's own listeners go and opens them anew, for options that changed after they were opened.

    Stock tools load a script when they listen already, on all addresses unless told otherwise.
    """
    servers = _proxyserver(owner).servers
    modes = [mode_specs.ProxyMode.parse(spec) for spec in owner.options.mode]
    await servers.update([])
    await asyncio.sleep(UDP_RELEASE_SECONDS)
    await servers.update(modes)


async def stop_accepting(owner: master.Master) -> None:
    """Closes this process's listeners; live connections go on, and siblings that share a socket are not disturbed."""
    await _proxyserver(owner).servers.update([])


def _proxyserver(owner: master.Master) -> Proxyserver:
    addon = owner.addons.get("proxyserver")  # type: ignore[no-untyped-call]
    if not isinstance(addon, Proxyserver):
        raise RuntimeError("this mitmproxy master has no proxyserver addon")
    return addon
