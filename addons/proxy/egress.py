"""Which addresses a caller may reach through the gateway, checked by name before and by address after resolution."""

import ipaddress
import re
import weakref
from collections.abc import Callable, Iterable

from mitmproxy.connection import Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from addons.proxy.faults import DENIED_PREFIX

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Google, Azure, Oracle, DigitalOcean, OpenStack
        "169.254.170.2",  # AWS ECS task credentials
        "169.254.170.23",  # AWS EKS pod identity
        "169.254.169.253",  # AWS VPC resolver
        "169.254.0.23",  # Tencent
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure wire server
        "192.0.0.192",  # Oracle, older
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
METADATA_NAMES = frozenset(
    (
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    )
)
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_tunnels: "weakref.WeakSet[Server]" = weakref.WeakSet()

_METADATA = "cloud metadata services are never reachable through it"
_OWN_PORT = "that is one of its own ports"
_PRIVATE = "it is a private address; list it under gateway.forward.allow to permit it"


def mark_tunnel(server: Server) -> None:
    """Says that a server connection was asked for by a caller, so that trusted upstream addresses are no excuse for it."""
    _tunnels.add(server)


class Egress:
    """The rules on destinations. Metadata services and the gateway's own ports are out of reach whatever is allowed."""

    def __init__(
        self,
        own_ports: Iterable[int],
        listening_on_loopback: bool,
        allow: Iterable[str] = (),
        trusted: Callable[[str, int], bool] = lambda host, port: False,
    ) -> None:
        """`allow` holds host names, addresses and CIDR networks. `trusted(host, port)` names upstream addresses from the
        gateway's own configuration; they may be private, but not for a raw tunnel. Raises ValueError for a bad network.
        """
        self.own_ports = frozenset(own_ports)
        self.listening_on_loopback = listening_on_loopback
        self._trusted = trusted
        self._networks: list[Network] = []
        self._names: set[str] = set()
        for entry in allow:
            self._permit(entry)

    def _permit(self, entry: str) -> None:
        text = entry.strip().strip("[]")
        try:
            self._networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            if "/" in text or not text:
                raise ValueError(f"{entry!r} is not a host, an address or a network such as 10.0.0.0/8") from None
            self._names.add(_plain_name(text))

    def check(self, host: str, port: int) -> str | None:
        """Why this destination may not be reached, as the end of a sentence; None if it may, as far as its name tells."""
        name = _plain_name(host)
        if name in METADATA_NAMES:
            return _METADATA
        address = address_of(name)
        if address is not None:
            return self._check_address(address, port, name in self._names)
        if name == "localhost" or name.endswith(".localhost"):
            return self._check_address(ipaddress.ip_address("127.0.0.1"), port, name in self._names)
        return None

    def _check_address(self, address: Address, port: int, permitted: bool) -> str | None:
        address = unmapped(address)
        if address in METADATA_ADDRESSES:
            return _METADATA
        if port in self.own_ports and (address.is_loopback or address.is_unspecified):
            return _OWN_PORT
        if permitted or self.listening_on_loopback or not is_internal(address):
            return None
        return None if any(address in network for network in self._networks) else _PRIVATE

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """The hook of that name: stops a connection before it is dialled."""
        address = data.server.address
        if address is None:
            return
        reason = self.check(address[0], address[1])
        if reason is _PRIVATE and self._is_trusted(data.server):
            reason = None
        if reason is not None:
            data.server.error = DENIED_PREFIX + reason

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """The hook of that name: checks the address a name led to, before a byte is sent to it."""
        peer = data.server.peername
        if data.server.error or peer is None or data.server.address is None:
            return
        address = address_of(peer[0])
        if address is None:
            return
        reason = self._check_address(address, peer[1], self._is_named(data.server) or self._is_trusted(data.server))
        own = data.server.sockname
        if own is not None and own[0] == peer[0] and peer[1] in self.own_ports:
            reason = _OWN_PORT
        if reason is not None:
            data.server.error = DENIED_PREFIX + reason

    def _is_named(self, server: Server) -> bool:
        return server.address is not None and _plain_name(server.address[0]) in self._names

    def _is_trusted(self, server: Server) -> bool:
        address = server.address
        return address is not None and server not in _tunnels and self._trusted(address[0], address[1])


def _plain_name(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def unmapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped, 6to4, NAT64 or IPv4-compatible IPv6 address; others unchanged."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_internal(address: Address) -> bool:
    """Private, loopback, link-local, shared or otherwise not on the public internet."""
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return True
    return not address.is_global or address in _SHARED or address.is_multicast


_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def address_of(host: str) -> Address | None:
    """The address a host stands for if it is one, in any spelling that resolvers take (`0x7f.1`, `2130706433`, `010.0.0.1`)."""
    text = host.partition("%")[0]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    parts = text.split(".")
    if not 1 <= len(parts) <= 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        *leading, last = [_number(part) for part in parts]
    except ValueError:
        return None
    if any(value > 255 for value in leading) or last >= 256 ** (4 - len(leading)):
        return None
    value = last
    for position, octet in enumerate(leading):
        value += octet << (8 * (3 - position))
    return ipaddress.IPv4Address(value)


def _number(text: str) -> int:
    """A number as `inet_aton` reads it: hexadecimal after 0x, octal after 0, else decimal. Raises ValueError."""
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    if len(text) > 1 and text.startswith("0"):
        return int(text, 8)
    return int(text)
