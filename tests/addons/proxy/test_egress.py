"""Which addresses may be reached, in every spelling."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.connection import Client, Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from addons.proxy.egress import Egress, address_of, is_internal, mark_tunnel

OPEN = Egress([8080, 8082], listening_on_loopback=True)
STRICT = Egress([8080, 8082], listening_on_loopback=False)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "0xA9.0xFE.0xA9.0xFE",
        "169.254.43518",
        "[fd00:ec2::254]",
        "fd00:ec2::254",
        "fd00:0ec2:0:0:0:0:0:254",
        "fd00:ec2::254%eth0",
        "::ffff:169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        "metadata.google.internal",
        "METADATA.Google.Internal.",
        "metadata",
        "100.100.100.200",
        "168.63.129.16",
    ],
)
def test_metadata_is_never_reachable(host):
    generous = Egress([], True, ["0.0.0.0/0", "::/0", host.split("%")[0], "metadata.google.internal"], lambda host, port: True)
    for egress in (OPEN, STRICT, generous):
        assert "metadata" in egress.check(host, 80)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "localhost", "LOCALHOST.", "a.localhost",
             "::1", "[::1]", "0.0.0.0", "0", "::", "::ffff:127.0.0.1", "127.8.8.8"],
)  # fmt: skip
def test_own_ports_are_never_reachable(host):
    for egress in (OPEN, STRICT, Egress([8080], True, ["127.0.0.0/8", "::1", "localhost"], lambda host, port: True)):
        assert "own ports" in egress.check(host, 8080)
    assert OPEN.check(host, 5432) is None
    assert "private" in STRICT.check(host, 5432)


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "fe80::1", "fc00::1", "fec0::1", "224.0.0.1",
     "198.18.0.1", "::ffff:10.0.0.1", "10.1", "012.0.0.1", "240.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_private_addresses_depend_on_who_may_ask(host):
    assert "gateway.forward.allow" in STRICT.check(host, 443)
    assert OPEN.check(host, 443) is None


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "api.openai.com", "134744072", "010.010.010.010"])
def test_public_destinations_pass(host):
    assert STRICT.check(host, 443) is None


def test_networks_addresses_and_names_can_be_allowed():
    egress = Egress([8080], False, ["10.1.0.0/16", "192.168.7.7", "Ollama.lan", "fd12::/16"])
    assert egress.check("10.1.2.3", 443) is None
    assert egress.check("::ffff:10.1.2.3", 443) is None
    assert egress.check("192.168.7.7", 443) is None
    assert egress.check("fd12::5", 443) is None
    assert egress.check("10.2.0.1", 443) is not None
    assert egress.check("192.168.7.8", 443) is not None


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "", "  ", "10.0.0.0/x", "host/8"])
def test_a_bad_allow_entry_says_so(entry):
    with pytest.raises(ValueError, match="is not a host, an address or a network"):
        Egress([], False, [entry])


def data(host, port, peer=None, own=("192.0.2.1", 40000)):
    server = Server(address=(host, port), peername=peer, sockname=own)
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    return ServerConnectionHookData(server, client)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (("10.0.0.5", 443), "private"),
        (("127.0.0.1", 443), "private"),
        (("127.0.0.1", 8080), "own ports"),
        (("169.254.169.254", 443), "metadata"),
        (("::ffff:169.254.169.254", 443, 0, 0), "metadata"),
        (("fe80::1%eth0", 443, 0, 2), "private"),
        (("93.184.216.34", 443), None),
    ],
)
def test_names_are_checked_again_by_the_address_they_led_to(peer, reason):
    asked = data("innocent.example", peer[1], peer)
    STRICT.server_connect(asked)
    assert asked.server.error is None
    STRICT.server_connected(asked)
    assert (asked.server.error is None) if reason is None else (reason in asked.server.error)


def test_the_gateways_public_address_is_its_own_too():
    asked = data("gateway.example", 8082, ("93.184.216.34", 8082), own=("93.184.216.34", 40000))
    STRICT.server_connected(asked)
    assert "own ports" in asked.server.error


def test_allowed_and_trusted_names_may_lead_to_private_addresses():
    egress = Egress([], False, ["ollama.lan"], trusted=lambda host, port: (host, port) == ("vllm.internal", 8000))
    for host, port, fine in (
        ("ollama.lan", 1, True),
        ("vllm.internal", 8000, True),
        ("vllm.internal", 9, False),
        ("x.lan", 1, False),
    ):
        asked = data(host, port, ("10.0.0.5", port))
        egress.server_connect(asked)
        egress.server_connected(asked)
        assert (asked.server.error is None) is fine, host


def test_trust_is_no_excuse_for_a_tunnel():
    egress = Egress([], False, [], trusted=lambda host, port: True)
    asked, tunnel = data("10.0.0.5", 443, ("10.0.0.5", 443)), data("10.0.0.5", 443, ("10.0.0.5", 443))
    mark_tunnel(tunnel.server)
    for each in (asked, tunnel):
        egress.server_connect(each)
    assert (asked.server.error is None, tunnel.server.error is None) == (True, False)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.lists(st.sampled_from(["dec", "hex", "oct"]), min_size=4, max_size=4))
def test_every_spelling_is_the_same_address(value, joined, styles):
    """Against the C library's own idea of the spellings."""
    import socket

    octets = list(value.to_bytes(4))
    head, tail = octets[: 3 - joined], octets[3 - joined :]
    numbers = [*head, int.from_bytes(bytes(tail))]
    text = ".".join(
        {"dec": str(n), "hex": hex(n), "oct": "0" + oct(n)[2:] if n else "0"}[style]
        for n, style in zip(numbers, styles, strict=False)
    )
    expected = ipaddress.IPv4Address(value)
    assert ipaddress.IPv4Address(socket.inet_aton(text)) == expected
    assert address_of(text) == expected


@given(st.from_regex(r"[0-9a-fx.]{1,20}", fullmatch=True))
def test_numbers_never_slip_through_as_names(text):
    import socket

    try:
        expected = ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        return
    assert address_of(text.rstrip(".")) == expected


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_internal_as_its_mapped_form(address):
    mapped = f"::ffff:{address}"
    assert (STRICT.check(str(address), 443) is None) == (STRICT.check(mapped, 443) is None)
    if address.is_private:
        assert is_internal(address)
