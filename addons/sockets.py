"""Opening listening sockets. Knows nothing of mitmproxy, so that the supervisor need not load it."""

import socket
from typing import Any

BACKLOG = 1024


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address a host name stands for ("" is all addresses), on one port. Port 0 is a free one.

    Raises OSError when an address cannot be bound.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            wanted = port or (sockets[0].getsockname()[1] if sockets else 0)
            sockets.append(_listening_socket(family, (address[0], wanted, *address[2:])))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listening_socket(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
