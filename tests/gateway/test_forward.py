"""The forward proxy on real sockets: who is let through, what is read and what never is, and what goes upstream in its place."""

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.config import PROVIDER_KEYS, VIRTUAL_KEY, budget, config_for, virtual_key
from tests.support.dialects import ANTHROPIC, CHAT, EACH_DIALECT, GEMINI, Shape
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.refusals import check_refusal
from tests.support.servers import Server, read_request, unused_port
from tests.support.waiting import eventually
from tests.support.wire import Answer, Ended, Wire, connect_request, post_json, proxy_credentials, request, tunnel

EMPTY_KEY = "sk-bf-5555555555555555555555555555555empty55"
SOFT_KEY = "sk-bf-66666666666666666666666666666666soft66"
OWN_KEY = "sk-callers-own-key-0002"
OWN = {
    "chat": {"authorization": f"Bearer {OWN_KEY}"},
    "anthropic": {"x-api-key": OWN_KEY},
    "gemini": {"x-goog-api-key": OWN_KEY},
}
"""The caller's own credential as each SDK sends it."""


@dataclass
class World:
    gateway: Gateway
    provider: PretendProcess
    ca: Path

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.gateway.port

    def through(self, host: str, data: bytes, *, key: str | None = VIRTUAL_KEY, sni: str | None = None) -> Answer:
        """One request inside an intercepted connection to `host`."""
        with tunnel(self.address, host, key=key) as wire:
            wire.start_tls(sni or host, self.ca)
            return wire.ask(data)

    def post(self, shape: Shape, headers: dict[str, str], *, key: str | None = VIRTUAL_KEY, **fields: Any) -> Answer:
        return self.through(shape.host, post_json(shape.path, shape.body(**fields), headers, host=shape.host), key=key)

    def ask(self, data: bytes) -> Answer:
        with Wire.to(*self.address) as wire:
            return wire.ask(data)

    def last(self) -> dict[str, Any]:
        return self.provider.last(1)[0]

    def sent(self) -> dict[str, str]:
        """Header fields of the provider's last request, names in lower case."""
        return {name.lower(): value for name, value in self.last()["headers"]}

    def rows_written(self) -> int:
        """How many rows the log has, all that was called before included: it makes one more call and waits for its row."""
        call_id = self.post(CHAT, OWN["chat"]).headers["x-tollgate-request-id"]
        rows = eventually(self.gateway.log_rows, lambda found: any(row["id"] == call_id for row in found))
        return len(rows)

    def settled(self) -> int:
        row = eventually(lambda: self.gateway.quota()["budgets"][0], lambda row: row["held"] == 0)
        return int(row["current_usage"] * 10**9)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = [
        virtual_key(budgets=[budget(5)]),
        virtual_key("empty-vk", value=EMPTY_KEY, budgets=[budget("0.000000001", name="nothing-left")]),
        virtual_key("soft-vk", value=SOFT_KEY, budgets=[budget(5, name="soft-budget", enforcement="soft")]),
    ]
    with PretendProcess() as provider:
        with Gateway(tmp_path_factory.mktemp("fwd"), config_for(provider.url, virtual_keys=keys)) as gateway:
            yield World(gateway, provider, gateway.ca_files()[0])
            assert "Traceback" not in gateway.log()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway that wants a key for every CONNECT and forwards to providers only."""
    config = config_for("http://127.0.0.1:1", gateway={"forward": {"unmatched": "deny", "require_auth": True}})
    with PretendProcess() as provider:
        config["providers"]["openai"]["network_config"]["base_url"] = provider.url
        with Gateway(tmp_path_factory.mktemp("closed"), config) as gateway:
            yield World(gateway, provider, gateway.ca_files()[0])


# -- who is let through


@pytest.mark.parametrize(
    "credentials",
    [
        proxy_credentials("tests", VIRTUAL_KEY),
        proxy_credentials(VIRTUAL_KEY),
        proxy_credentials(VIRTUAL_KEY, "x"),
        {"Proxy-Authorization": f"Bearer {VIRTUAL_KEY}"},
    ],
    ids=["password", "user", "user with any password", "bearer"],
)
def test_the_key_as_user_or_password(world: World, credentials: dict[str, str]) -> None:
    before = world.settled()
    with tunnel(world.address, CHAT.host, headers=credentials) as wire:
        wire.start_tls(CHAT.host, world.ca)
        assert wire.ask(post_json(CHAT.path, CHAT.body(), host=CHAT.host)).status == 200
        assert wire.ask(post_json(CHAT.path, CHAT.body(), host=CHAT.host)).status == 200, "the connection did not go on"
    assert world.settled() > before
    assert world.sent()["authorization"] == f"Bearer {PROVIDER_KEYS['openai']}"


def test_an_unknown_key_is_407(world: World) -> None:
    for host in (CHAT.host, "127.0.0.1"):
        answer = world.ask(connect_request(host, 443, proxy_credentials("tests", "sk-bf-nobody")))
        assert answer.status == 407
        assert answer.headers["proxy-authenticate"].startswith("Basic ")
        assert answer.json()["type"] == "virtual_key_not_found"
        assert "sk-bf-nobody" not in answer.body.decode()


def test_without_a_key_the_tunnel_opens_and_the_call_is_refused_inside(world: World) -> None:
    for shape in EACH_DIALECT:
        check_refusal(world.post(shape, OWN[shape.name], key=None), 401, "virtual_key_required", shape.dialect)


def test_somebody_elses_proxy_credentials_count_as_none(world: World) -> None:
    with tunnel(world.address, CHAT.host, headers=proxy_credentials("alice", "secret")) as wire:
        wire.start_tls(CHAT.host, world.ca)
        check_refusal(wire.ask(post_json(CHAT.path, CHAT.body(), host=CHAT.host)), 401, "virtual_key_required")


def test_a_missing_key_is_407_where_one_is_required(closed: World) -> None:
    answer = closed.ask(connect_request(CHAT.host, 443))
    assert (answer.status, answer.json()["type"]) == (407, "virtual_key_required")
    assert answer.headers["proxy-authenticate"].startswith("Basic ")
    assert closed.post(CHAT, {}).status == 200
    check_refusal(closed.ask(request("GET", "http://127.0.0.1:1/")), 403, "address_denied")


def test_strangers_are_denied_where_only_providers_are_wanted(closed: World) -> None:
    with Server(lambda wire: wire.send(b"hello")) as server:
        answer = closed.ask(connect_request("127.0.0.1", server.port, proxy_credentials("tests", VIRTUAL_KEY)))
        assert (answer.status, answer.json()["type"]) == (403, "address_denied")
        plain = closed.ask(request("GET", server.url + "/", proxy_credentials("tests", VIRTUAL_KEY)))
        check_refusal(plain, 403, "address_denied")
        assert server.connections == 0


# -- what is not read


def test_a_server_that_speaks_first(world: World) -> None:
    rows = world.rows_written()

    def ssh_like(wire: Wire) -> None:
        wire.send(b"SSH-2.0-Pretend_1.0\r\n")
        greeting = wire.until(b"\r\n")
        wire.send(b"you said " + greeting)
        wire.send(bytes(range(256)) * 1000)

    with Server(ssh_like) as server, tunnel(world.address, "127.0.0.1", server.port, key=VIRTUAL_KEY) as wire:
        assert wire.until(b"\r\n") == b"SSH-2.0-Pretend_1.0\r\n"
        wire.send(b"SSH-2.0-Client_9\r\n")
        assert wire.until(b"\r\n") == b"you said SSH-2.0-Client_9\r\n"
        assert wire.rest() == bytes(range(256)) * 1000
    assert world.rows_written() == rows + 1


@pytest.fixture(scope="module")
def own_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path, bytes]:
    """(server context, certificate file, certificate bytes) of a server that has nothing to do with the gateway."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stranger.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("stranger.test"), x509.DNSName("api.openai.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_pem)
    return context, pem, certificate.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("name", ["stranger.test", "api.openai.com"])
def test_a_tls_server_of_ones_own_is_not_opened(world: World, own_tls: tuple[ssl.SSLContext, Path, bytes], name: str) -> None:
    """The CONNECT host alone decides: a greeting that names a provider inside a tunnel to somebody else changes nothing."""
    context, certificate_file, certificate = own_tls
    rows = world.rows_written()

    def echo(wire: Wire) -> None:
        wire.send(b"got " + wire.receive(11))

    with Server(echo, context=context) as server, tunnel(world.address, "127.0.0.1", server.port, key=VIRTUAL_KEY) as wire:
        wire.start_tls(name, certificate_file)
        assert isinstance(wire.sock, ssl.SSLSocket)
        assert wire.sock.getpeercert(binary_form=True) == certificate
        wire.send(b"\x00secret\xff\xfe!!")
        assert wire.receive(15) == b"got \x00secret\xff\xfe!!"
    assert world.rows_written() == rows + 1


def test_a_tunnel_to_nobody_is_502(world: World) -> None:
    check_refusal(world.ask(connect_request("127.0.0.1", unused_port())), 502, "upstream_unreachable")


def test_plain_http_to_a_stranger_is_streamed_and_not_logged(world: World) -> None:
    rows = world.rows_written()
    first_half_read = threading.Event()
    heads: list[bytes] = []

    def slow(wire: Wire) -> None:
        head, body = read_request(wire)
        heads.append(head + body)
        wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-odd: \xe9\r\n\r\n5\r\nfirst\r\n")
        if first_half_read.wait(10):
            wire.send(b"4\r\nlast\r\n0\r\n\r\n")

    body = b"\x00\x01 not JSON \xff"
    headers = {**proxy_credentials("tests", VIRTUAL_KEY), "X-Mine": "kept", "Authorization": "Bearer theirs", "Connection": "close"}
    with Server(slow) as server, Wire.to(*world.address) as wire:
        wire.send(request("POST", f"{server.url}/path?q=1&key=abc", headers, body, host=f"127.0.0.1:{server.port}"))
        head = wire.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"\xe9" in head
        assert wire.until(b"first\r\n") == b"5\r\nfirst\r\n"
        first_half_read.set()
        assert wire.until(b"0\r\n\r\n") == b"4\r\nlast\r\n0\r\n\r\n"
    head_sent = heads[0].lower()
    assert heads[0].startswith(b"POST /path?q=1&key=abc HTTP/1.1\r\n") and heads[0].endswith(body)
    assert b"x-mine: kept" in head_sent and b"authorization: bearer theirs" in head_sent
    assert b"sk-bf-" not in head_sent and b"proxy-authorization" not in head_sent and b"tollgate" not in head_sent
    assert world.rows_written() == rows + 1


# -- what goes upstream


@pytest.mark.parametrize("shape", EACH_DIALECT, ids=lambda shape: shape.name)
def test_the_callers_own_credential_passes_and_is_metered(world: World, shape: Shape) -> None:
    before = world.settled()
    assert world.post(shape, OWN[shape.name]).status == 200
    sent = world.sent()
    assert {name: sent.get(name) for name in OWN[shape.name]} == OWN[shape.name]
    assert "proxy-authorization" not in sent
    assert world.settled() > before


@pytest.mark.parametrize("shape", EACH_DIALECT, ids=lambda shape: shape.name)
def test_a_virtual_key_in_its_place_is_replaced(world: World, shape: Shape) -> None:
    own = {name: value.replace(OWN_KEY, VIRTUAL_KEY) for name, value in OWN[shape.name].items()}
    assert world.post(shape, own, key=None).status == 200
    provider = "openai" if shape is CHAT else shape.name
    assert PROVIDER_KEYS[provider] in json.dumps(world.sent())
    assert "sk-bf-" not in json.dumps(world.last())


def test_a_virtual_key_in_the_query_is_taken_out(world: World) -> None:
    target = f"{GEMINI.path}?key={VIRTUAL_KEY}&alt=json"
    answer = world.through(GEMINI.host, post_json(target, GEMINI.body(), host=GEMINI.host), key=None)
    assert answer.status == 200
    assert world.last()["target"] == f"{GEMINI.path}?alt=json"
    assert world.sent()["x-goog-api-key"] == PROVIDER_KEYS["gemini"]


def test_a_subscription_token_passes_whichever_key_names_the_caller(world: World) -> None:
    token = "Bearer sk-ant-oat01-subscription"
    assert world.post(ANTHROPIC, {"authorization": token, "anthropic-version": "2023-06-01"}).status == 200
    assert world.sent()["authorization"] == token
    assert "x-api-key" not in world.sent()


@pytest.mark.parametrize("shape", EACH_DIALECT, ids=lambda shape: shape.name)
def test_bodies_pass_byte_for_byte(world: World, shape: Shape) -> None:
    odd = json.dumps(shape.body("snö \u2028"), ensure_ascii=False).encode().replace(b'":', b'"  :\t').replace(b"}", b" \n}")
    with tunnel(world.address, shape.host, key=VIRTUAL_KEY) as wire:
        wire.start_tls(shape.host, world.ca)
        answer = wire.ask(post_json(shape.path, odd, OWN[shape.name], host=shape.host))
    assert answer.status == 200
    assert world.last()["body_text"].encode() == odd
    direct_host, _, direct_port = world.provider.url.removeprefix("http://").partition(":")
    with Wire.to(direct_host, int(direct_port)) as wire:
        direct = wire.ask(post_json(shape.path, odd, OWN[shape.name]))
    # Only the provider's own serial numbers differ.
    assert _without_ids(answer.json()) == _without_ids(direct.json())
    assert len(answer.body) in range(len(direct.body) - 3, len(direct.body) + 4)


def _without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("id", "created", "responseId")}


# -- the same provider all the way


@pytest.mark.parametrize("sni", ["api.anthropic.com", "evil.example", "127-0-0-1.example"])
def test_a_greeting_that_names_another_server_is_not_answered(world: World, sni: str) -> None:
    with tunnel(world.address, CHAT.host, key=VIRTUAL_KEY) as wire, pytest.raises((ssl.SSLError, OSError)):
        wire.start_tls(sni, world.ca)


@pytest.mark.parametrize("host", ["api.anthropic.com", "evil.example", "169.254.169.254", "api.openai.com.evil.example"])
def test_a_host_header_that_names_another_server_is_421(world: World, host: str) -> None:
    seen = world.provider.bill()["requests"]
    answer = world.through(CHAT.host, post_json(CHAT.path, CHAT.body(), OWN["chat"], host=host))
    check_refusal(answer, 421, "misdirected_request")
    assert world.provider.bill()["requests"] == seen


def test_another_name_of_the_same_provider_is_the_same_provider(world: World) -> None:
    data = post_json(CHAT.path, CHAT.body(), OWN["chat"], host="eu.api.openai.com:443")
    assert world.through("API.openai.com.", data, sni="api.openai.com").status == 200


def test_an_intercepted_connection_offers_http_1_only(world: World) -> None:
    with tunnel(world.address, CHAT.host, key=VIRTUAL_KEY) as wire:
        wire.start_tls(CHAT.host, world.ca, alpn=["h2", "http/1.1"])
        assert isinstance(wire.sock, ssl.SSLSocket)
        assert wire.sock.selected_alpn_protocol() == "http/1.1"
        assert wire.ask(post_json(CHAT.path, CHAT.body(), OWN["chat"], host=CHAT.host)).status == 200


def test_what_is_not_http_inside_an_intercepted_connection_goes_nowhere(world: World) -> None:
    seen = world.provider.bill()["requests"]
    with tunnel(world.address, CHAT.host, key=VIRTUAL_KEY) as wire:
        wire.start_tls(CHAT.host, world.ca)
        wire.send(b"\x00\x01\x02\x03 raw bytes past the meter\r\n\r\n")
        assert wire.answer().status == 400
    assert world.provider.bill()["requests"] == seen


def test_a_request_line_that_names_a_stranger_inside_a_connection_goes_to_the_provider_or_nowhere(world: World) -> None:
    with Server(lambda wire: wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as server:
        for target in (f"http://127.0.0.1:{server.port}/v1/models", f"https://127.0.0.1:{server.port}/v1/models"):
            answer = world.through(CHAT.host, request("GET", target, OWN["chat"], host=CHAT.host))
            assert answer.status in (400, 421)
        assert server.connections == 0


def test_websockets_inside_are_sent_back_to_http(world: World) -> None:
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "AAAA"}
    answer = world.through(CHAT.host, request("GET", "/v1/responses", OWN["chat"] | upgrade, host=CHAT.host))
    check_refusal(answer, 426, "upgrade_required")


def test_tls_to_the_port_itself(world: World) -> None:
    with Wire.to(*world.address) as wire:
        wire.start_tls("localhost", world.ca)
        answer = wire.ask(post_json(CHAT.target, CHAT.body(), {"x-bf-vk": VIRTUAL_KEY}))
    assert answer.status == 200


def test_a_plain_http_request_to_a_provider_is_governed(world: World) -> None:
    data = post_json(f"http://{CHAT.host}{CHAT.path}", CHAT.body(), proxy_credentials("tests", EMPTY_KEY), host=CHAT.host)
    check_refusal(world.ask(data), 402, "budget_exceeded")


# -- free and unknown paths


FREE: dict[str, tuple[Shape, str, str, bytes | None]] = {
    "count_tokens": (ANTHROPIC, "POST", "/v1/messages/count_tokens?beta=true", json.dumps(ANTHROPIC.body()).encode()),
    "countTokens": (GEMINI, "POST", "/v1beta/models/gemini-2.5-flash:countTokens", json.dumps(GEMINI.body()).encode()),
    "input_tokens": (CHAT, "POST", "/v1/responses/input_tokens", b'{"model":"gpt-4o-mini","input":"hi"}'),
    "models": (CHAT, "GET", "/v1/models", None),
    "telemetry": (ANTHROPIC, "POST", "/api/event_logging/batch", b'{"events":[{"event_type":"\x00\xff odd bytes"}]}'),
    "statsig": (ANTHROPIC, "POST", "/api/claude_code/metrics", b"{}"),
    "settings": (ANTHROPIC, "GET", "/api/claude_code/settings", None),
}


@pytest.mark.parametrize("name", FREE)
def test_free_paths_pass_when_the_budget_is_used_up(world: World, name: str) -> None:
    shape, method, target, body = FREE[name]
    rows = world.rows_written()
    answer = world.through(shape.host, request(method, target, OWN[shape.name], body, host=shape.host), key=EMPTY_KEY)
    assert answer.status == (404 if name in ("telemetry", "statsig", "settings") else 200), answer.body
    assert "x-tollgate-cost-usd" not in answer.headers
    seen = world.provider.last(1)[0]
    assert (seen["method"], seen["target"], seen["body_length"]) == (method, target, len(body or b""))
    check_refusal(world.post(shape, OWN[shape.name], key=EMPTY_KEY), 402, "budget_exceeded", shape.dialect)
    assert world.rows_written() <= rows + 2, "a free call was logged as spend"
    assert target.partition("?")[0] not in {row["path"] for row in world.gateway.log_rows()}


def test_an_unknown_path_under_a_hard_budget_is_refused_and_else_passes(world: World) -> None:
    body = b'{"model":"gpt-image-1","prompt":"a cat \xc3\xa9"}'
    data = request("POST", "/v1/images/generations", OWN["chat"], body, host=CHAT.host)
    seen = world.provider.bill()["requests"]
    refused = check_refusal(world.through(CHAT.host, data), 403, "unmetered_endpoint")
    assert "/v1/images/generations" in refused["message"] and "gateway.unmetered" in refused["message"]
    assert world.provider.bill()["requests"] == seen
    passed = world.through(CHAT.host, data, key=SOFT_KEY)
    assert (passed.status, passed.json()["error"]["message"]) == (404, "Invalid URL (POST /v1/images/generations)")
    assert world.last()["body_text"].encode() == body


def test_a_large_upload_on_a_free_path_is_streamed(world: World) -> None:
    """More than the bound on metered bodies, to a path without a price, under a key without a hard budget."""
    piece, pieces = b"z" * 2**20, 40
    with tunnel(world.address, CHAT.host, key=SOFT_KEY) as wire:
        wire.start_tls(CHAT.host, world.ca)
        wire.send(request("POST", "/v1/files", {**OWN["chat"], "content-length": str(len(piece) * pieces)}, host=CHAT.host))
        for _ in range(pieces):
            wire.send(piece)
        assert wire.answer().status == 404
    assert world.last()["body_length"] == len(piece) * pieces


def test_a_connection_that_ends_inside_the_greeting_harms_nobody(world: World) -> None:
    for start in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HT"):
        with tunnel(world.address, CHAT.host, key=VIRTUAL_KEY) as wire:
            wire.send(start)
    with tunnel(world.address, CHAT.host, key=VIRTUAL_KEY) as wire:
        wire.send(b"\x16\x03\x01\x00\x05garbage garbage garbage")
        with pytest.raises(Ended):
            wire.answer()
    assert world.post(CHAT, OWN["chat"]).status == 200
