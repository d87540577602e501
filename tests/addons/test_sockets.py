"""Listening sockets: every address of a name on one port, free ports, and nothing left open when one cannot be had."""

import errno
import socket

import pytest

from addons.sockets import open_sockets


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def have_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not have_ipv6(), reason="there is no IPv6 loopback")


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[socket.AddressFamily, str]) -> None:
    """Let a name stand for these addresses, as a resolver would say, doubles included."""

    def getaddrinfo(host: str, port: int, **options: int) -> list[tuple[object, ...]]:
        rest = {socket.AF_INET: (), socket.AF_INET6: (0, 0)}
        return [(family, socket.SOCK_STREAM, 6, "", (address, port, *rest[family])) for family, address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_port_zero_is_a_free_port_that_accepts() -> None:
    (sock,) = open_sockets("127.0.0.1", 0)
    with sock:
        host, port = sock.getsockname()
        assert host == "127.0.0.1" and port > 0
        assert sock.gettimeout() == 0.0, "it would block the event loop"
        socket.create_connection((host, port), timeout=5).close()


def test_two_free_ports_differ() -> None:
    first, second = open_sockets("127.0.0.1", 0), open_sockets("127.0.0.1", 0)
    try:
        assert first[0].getsockname() != second[0].getsockname()
    finally:
        close(first + second)


def test_a_port_in_use_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError) as caught:
            open_sockets("127.0.0.1", taken.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


def test_a_port_can_be_had_again_at_once() -> None:
    """A connection that was closed from our side lingers in the kernel; that must not keep a restart from its port."""
    (sock,) = open_sockets("127.0.0.1", 0)
    address = sock.getsockname()
    client = socket.create_connection(address, timeout=5)
    sock.setblocking(True)
    accepted, _ = sock.accept()
    accepted.close()
    client.close()
    sock.close()
    close(open_sockets(*address))


def test_an_unknown_host_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="not known"):
        open_sockets("no.such.host.invalid", 0)


@needs_ipv6
def test_a_name_with_two_addresses_gets_both_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    four, six = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")
    resolving(monkeypatch, six, four, six)
    sockets = open_sockets("localhost", 0)
    try:
        assert [sock.family for sock in sockets] == [socket.AF_INET6, socket.AF_INET]
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        close(sockets)


@needs_ipv6
def test_all_addresses_of_both_families_share_a_port() -> None:
    sockets = open_sockets("", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        port = sockets[0].getsockname()[1]
        for sock in sockets:
            loopback = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
            socket.create_connection((loopback, port), timeout=5).close()
            if sock.family == socket.AF_INET6:
                assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    finally:
        close(sockets)


@needs_ipv6
def test_when_one_address_cannot_be_had_none_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved, socket.socket(socket.AF_INET6) as taken:
        # A port that is free on both: another process may hold the one that IPv6 would choose.
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        taken.bind(("::1", port))
        taken.listen()
        reserved.close()
        resolving(monkeypatch, (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
        with pytest.raises(OSError):
            open_sockets("localhost", port)
        # The first one had been bound; without it in the way the port is free there.
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
            free.listen()
