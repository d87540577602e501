"""Whatever a client or provider sends: one clear JSON error, nothing charged that was not bought, no traceback; then it goes on."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from tests.support.config import VIRTUAL_KEY, budget, config_for, virtual_key
from tests.support.dialects import ANTHROPIC, CHAT, EACH_DIALECT, GEMINI, SHAPES, Shape
from tests.support.gateway import Gateway
from tests.support.process_tree import children, peak_megabytes
from tests.support.provider import PretendProcess
from tests.support.refusals import check_refusal
from tests.support.servers import Server, answering, closing, silent, unused_port
from tests.support.waiting import eventually
from tests.support.wire import Answer, Ended, Wire, connect_request, post_json, request

KEY = {"x-bf-vk": VIRTUAL_KEY}
INACTIVE_KEY = "sk-bf-33333333333333333333333333333inactive3"
EXPIRED_KEY = "sk-bf-444444444444444444444444444444expired4"
MAX_BODY_BYTES = 8 * 1024 * 1024
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
INPUT_PRICE, OUTPUT_PRICE = 150, 600
"""gpt-4o-mini, nano-dollars a token."""

MINUS = b'{"usage":{"prompt_tokens":-5,"completion_tokens":-9}}'

UPSTREAMS = {
    "silent": silent,
    "closing": closing,
    "garbage": answering(b"\x00\x01\x02 what is this\r\n\r\n"),
    "shortbody": answering(JSON_HEAD + b'content-length: 700\r\n\r\n{"usage'),
    "hugehead": answering(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000),
    "negative": answering(b"HTTP/1.1 200 OK\r\ncontent-length: -7\r\n\r\n"),
    "badchunk": answering(JSON_HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"),
    "htmlok": answering(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>"),
    "badusage": answering(JSON_HEAD + b'content-length: 17\r\n\r\n{"usage":"lots"} '),
    "minus": answering(JSON_HEAD + b"content-length: 53\r\n\r\n" + MINUS),
    "badgzip": answering(JSON_HEAD + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"),
    "redirect": answering(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"),
}


@dataclass
class World:
    gateway: Gateway
    provider: PretendProcess
    servers: dict[str, Server]

    def ask(self, data: bytes, *, bodiless: bool = False) -> Answer:
        with Wire.to("127.0.0.1", self.gateway.port) as wire:
            return wire.ask(data, bodiless=bodiless)

    def post(self, shape: Shape, body: Any, headers: dict[str, str] = KEY) -> Answer:  # noqa: B006
        return self.ask(post_json(shape.target, body, headers))

    def books(self) -> tuple[int, int]:
        """(spent, held) of the key's budget in nano-dollars."""
        answer = self.ask(request("GET", "/api/governance/virtual-keys/quota", KEY))
        row = json.loads(answer.body, parse_float=Decimal)["budgets"][0]
        return int(row["current_usage"] * 10**9), int(row["held"] * 10**9)

    def settled(self) -> int:
        """Spent in nano-dollars, once nothing is held any more."""
        return eventually(self.books, lambda books: books[1] == 0)[0]

    def requests_seen(self) -> int:
        """How many requests have reached the provider."""
        host, _, port = self.provider.url.removeprefix("http://").partition(":")
        with Wire.to(host, int(port)) as wire:
            return int(wire.ask(request("GET", "/__bill?summary")).json()["requests"])

    def row(self, request_id: str) -> dict[str, Any]:
        """The call's row in logs.db."""
        found = eventually(lambda: [row for row in self.gateway.log_rows() if row["id"] == request_id], lambda rows: bool(rows))
        return found[0]


def custom_provider(url: str) -> dict[str, Any]:
    return {
        "keys": [{"name": "main", "value": "sk-provider-custom", "models": ["*"], "weight": 1.0}],
        "network_config": {"base_url": url},
        "custom_provider_config": {"base_provider_type": "openai"},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    anywhere = [{"provider": "*"}]
    keys = [
        virtual_key(budgets=[budget(50)], provider_configs=anywhere),
        virtual_key("inactive-vk", value=INACTIVE_KEY, provider_configs=anywhere, is_active=False),
        virtual_key("expired-vk", value=EXPIRED_KEY, provider_configs=anywhere, expires_at="2020-01-01T00:00:00Z"),
    ]
    limits = {
        "max_body_mb": MAX_BODY_BYTES // 2**20,
        "header_timeout_seconds": 1,
        "connect_timeout_seconds": 1,
        "first_byte_timeout_seconds": 1,
        "idle_stream_timeout_seconds": 1,
    }
    with ExitStack() as stack:
        provider = stack.enter_context(PretendProcess())
        servers = {name: stack.enter_context(Server(talk)) for name, talk in UPSTREAMS.items()}
        config = config_for(provider.url, virtual_keys=keys, gateway={"limits": limits})
        for name, server in servers.items():
            config["providers"][name] = custom_provider(server.url)
        config["providers"]["refusing"] = custom_provider(f"http://127.0.0.1:{unused_port()}")
        config["providers"]["nowhere"] = custom_provider("http://no-such-host.invalid")
        config["providers"]["nottls"] = custom_provider(provider.url.replace("http:", "https:"))
        config["providers"]["itself"] = custom_provider(provider.url)
        gateway = stack.enter_context(Gateway(tmp_path_factory.mktemp("bad"), config))
        yield World(gateway, provider, servers)


@pytest.fixture
def charges() -> None:
    """Marks a test whose calls cost something."""


@pytest.fixture(autouse=True)
def unharmed(world: World, request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: nothing held, nothing charged (but for `charges`), no traceback, and the next call is served."""
    before, printed = world.settled(), len(world.gateway.log())
    yield
    spent = world.settled()
    if "charges" not in request.fixturenames:
        assert spent == before
    log = world.gateway.log()[printed:]
    assert "Traceback" not in log and " ERROR " not in log, log[-3000:]
    assert world.post(CHAT, CHAT.body(limit=1)).status == 200


def with_fields(**fields: Any) -> bytes:
    return json.dumps(CHAT.body() | fields).encode()


GOOD = with_fields()
MALFORMED = {
    "empty": b"",
    "cut": b'{"model": ',
    "list": b"[]",
    "null": b"null",
    "text": b'"hi"',
    "not a number": GOOD[:-1] + b', "temperature": NaN}',
    "number beyond floats": GOOD[:-1] + b', "temperature": 1e400}',
    "not UTF-8": GOOD.replace(b'"hi"', b'"h\xff"'),
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "something behind": GOOD + b"x",
    "two": GOOD + GOOD,
    "a NUL": GOOD + b"\0",
    "deep lists": b'{"model":"gpt-4o-mini","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"model":"gpt-4o-mini","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep, cut": b'{"model":"gpt-4o-mini","x":' + b'{"a":' * 100_000,
    "half a surrogate as model": with_fields(model="gpt-\ud800"),
    "model a list": with_fields(model=["gpt-4o-mini"]),
    "model null": with_fields(model=None),
    "model empty": with_fields(model=""),
    "model a number": with_fields(model=4),
    "messages a text": with_fields(messages="hi"),
    "messages a number": with_fields(messages=7),
    "messages of texts": with_fields(messages=["hi"]),
    "content an object": with_fields(messages=[{"role": "user", "content": {"a": 1}}]),
    "limit a text": with_fields(max_tokens="9"),
    "limit a fraction": with_fields(max_tokens=1.5),
    "limit a flag": with_fields(max_tokens=True),
    "limit a list": with_fields(max_tokens=[1]),
    "n a text": with_fields(n="2"),
    "stream a word": with_fields(stream="yes"),
    "stream a number": with_fields(stream=1),
    "stream_options a list": with_fields(stream=True, stream_options=[]),
    "tools an object": with_fields(tools={}),
    "model twice": GOOD[:-1] + b', "model": "gpt-4o"}',
    "limit twice": GOOD[:-1] + b', "max_tokens": 9000}',
    "limit twice, once escaped": GOOD[:-1] + b', "max\\u005ftokens": 9000}',
    "n twice": GOOD[:-1] + b', "n": 1, "n": 9}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_body_that_cannot_be_metered(world: World, name: str) -> None:
    seen = world.requests_seen()
    body = check_refusal(world.post(CHAT, MALFORMED[name]), 400, "invalid_request")
    assert body["extra_fields"]["provider"] == "openai"
    assert world.requests_seen() == seen, "it was sent to the provider"


IN_DIALECT = [
    (ANTHROPIC, b"{"),
    (ANTHROPIC, ANTHROPIC.body(model=["x"])),
    (ANTHROPIC, ANTHROPIC.body(max_tokens="1")),
    (ANTHROPIC, ANTHROPIC.body(messages={})),
    (GEMINI, b"{"),
    (GEMINI, GEMINI.body(contents="hi")),
    (GEMINI, GEMINI.body(generationConfig=[])),
    (GEMINI, GEMINI.body(generationConfig={"maxOutputTokens": "lots"})),
    (GEMINI, GEMINI.body(generation_config={"max_output_tokens": 9000})),
]


@pytest.mark.parametrize("shape,body", IN_DIALECT, ids=[f"{s.name}-{n}" for n, (s, _) in enumerate(IN_DIALECT)])
def test_it_is_said_in_the_callers_dialect(world: World, shape: Shape, body: Any) -> None:
    check_refusal(world.post(shape, body), 400, "invalid_request", shape.dialect)


@pytest.mark.parametrize("fields", [{"max_tokens": 0}, {"max_tokens": -1}, {"n": 0}, {"n": -3}], ids=str)
def test_numbers_that_the_provider_itself_refuses_cost_nothing(world: World, fields: dict[str, Any]) -> None:
    """What is well-formed is the provider's to judge; its own refusal comes back as it was, and nothing is charged."""
    answer = world.post(CHAT, CHAT.body(**fields))
    assert answer.status == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.usefixtures("charges")
def test_a_limit_beyond_all_measure_is_lowered_to_what_is_held(world: World) -> None:
    answer = world.post(CHAT, CHAT.body(max_tokens=10**30))
    assert answer.status == 200
    sent = json.loads(world.provider.last(1)[0]["body_text"])
    assert sent["max_tokens"] == int(answer.headers["x-tollgate-trimmed"]) < 10**9


def test_a_request_for_a_billion_answers_is_beyond_the_budget(world: World) -> None:
    body = check_refusal(world.post(CHAT, CHAT.body(n=10**9)), 402, "budget_exceeded")
    assert body["budget"]["needed"] > 9000


# -- sizes and codings


def test_a_hundred_megabytes_are_refused_and_never_kept(world: World) -> None:
    worker = children(world.gateway.pid)["worker"]
    before = peak_megabytes(worker)
    size = 100 * 2**20
    piece = b"x" * 2**20
    head = request("POST", CHAT.target, {**KEY, "content-length": str(size)})
    chunked = request("POST", ANTHROPIC.target, {**KEY, "transfer-encoding": "chunked"})
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        wire.send(head)
        wire.send_all_it_takes(piece for _ in range(100))
        check_refusal(wire.answer(), 413, "request_too_large")
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        wire.send(chunked)
        wire.send_all_it_takes(b"100000\r\n" + piece + b"\r\n" for _ in range(100))
        check_refusal(wire.answer(), 413, "request_too_large", "anthropic")
    after = peak_megabytes(worker)
    if before is not None and after is not None:
        assert after - before < 5 * MAX_BODY_BYTES / 2**20
    rows = eventually(
        lambda: [row for row in world.gateway.log_rows() if row["refusal_type"] == "request_too_large"], lambda rows: len(rows) >= 2
    )
    assert {(row["http_status"], row["status"]) for row in rows} == {(413, "refused")}


@pytest.mark.usefixtures("charges")
def test_a_body_just_within_the_bound_is_taken(world: World) -> None:
    filler = b" " * (MAX_BODY_BYTES - len(GOOD))
    assert world.post(CHAT, GOOD[:-1] + filler + b"}", KEY).status == 200
    check_refusal(world.post(CHAT, GOOD[:-1] + filler + b" }"), 413, "request_too_large")


ENCODERS = {"gzip": gzip.compress, "zstd": zstandard.compress, "br": brotli.compress}


@pytest.mark.usefixtures("charges")
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_compressed_body_goes_on_as_it_came(world: World, coding: str) -> None:
    packed = ENCODERS[coding](GOOD)
    assert world.post(CHAT, packed, {**KEY, "content-encoding": coding}).status == 200
    last = world.provider.last(1)[0]
    assert (last["body_length"], json.loads(last["body_text"])) == (len(packed), json.loads(GOOD))
    assert ["content-encoding", coding] in [[name.lower(), value] for name, value in last["headers"]]


@pytest.mark.parametrize("coding", ENCODERS)
def test_a_compressed_body_that_is_damaged(world: World, coding: str) -> None:
    packed = ENCODERS[coding](GOOD)
    for body in (packed[:-6], b"garbage!", b""):
        check_refusal(world.post(CHAT, body, {**KEY, "content-encoding": coding}), 400, "invalid_request")


@pytest.mark.parametrize("coding", ENCODERS)
def test_a_bomb(world: World, coding: str) -> None:
    worker = children(world.gateway.pid)["worker"]
    before = peak_megabytes(worker)
    packed = ENCODERS[coding](b" " * (64 * 2**20))
    assert len(packed) < 400_000
    check_refusal(world.post(CHAT, packed, {**KEY, "content-encoding": coding}), 413, "request_too_large")
    after = peak_megabytes(worker)
    if before is not None and after is not None:
        assert after - before < 5 * MAX_BODY_BYTES / 2**20


def test_a_coding_that_nobody_knows(world: World) -> None:
    body = check_refusal(world.post(CHAT, GOOD, {**KEY, "content-encoding": "snappy"}), 400, "invalid_request")
    assert "gzip" in body["message"]


# -- places


@pytest.mark.parametrize(
    "path", ["/nope", "/nope/v1/chat/completions", "//", "*", "/OPENAI/v1/models", "/metrics", "/api/providers", "/caf\xe9\xff"]
)
def test_a_path_that_is_nobodys(world: World, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "FOO"):
        check_refusal(world.ask(request(method, path, KEY, b"{}" if method == "POST" else None)), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["/openai/v1/images/generations", "/openai/v1/nope", "/openai", "/v1/files", "/openai/../anthropic/v1/messages"]
)
def test_a_path_that_cannot_be_metered_under_a_hard_budget(world: World, path: str) -> None:
    check_refusal(world.ask(post_json(path, CHAT.body(), KEY)), 403, "unmetered_endpoint")


@pytest.mark.parametrize("path", ["/openai/v1/%63hat/completions", "/openai//v1//chat/completions", "/openai/v1/chat/completions/"])
def test_a_metered_path_in_disguise_is_metered(world: World, path: str) -> None:
    check_refusal(world.ask(post_json(path, CHAT.body(n=10**9), KEY)), 402, "budget_exceeded")


def test_methods_that_read_pass_and_cost_nothing(world: World) -> None:
    models = world.ask(request("GET", "/openai/v1/models", KEY))
    assert (models.status, models.json()["object"]) == (200, "list")
    head = world.ask(request("HEAD", "/openai/v1/models", KEY), bodiless=True)
    assert (head.status, head.body) == (200, b"")
    assert world.ask(request("HEAD", "/", KEY), bodiless=True).status == 200
    assert world.ask(request("OPTIONS", CHAT.target, KEY)).status == 405, "the provider's own answer"
    check_refusal(world.ask(request("HEAD", "/nope", KEY), bodiless=True), 404, "not_found", bodiless=True)
    check_refusal(world.ask(request("OPTIONS", CHAT.target, {"origin": "https://evil.example"})), 403, "origin_blocked")


# -- keys


WRONG_KEYS: dict[str, tuple[dict[str, str], int, str]] = {
    "absent": ({}, 401, "virtual_key_required"),
    "a provider's key": ({"authorization": "Bearer sk-my-own"}, 401, "virtual_key_required"),
    "broken Basic": ({"authorization": "Basic !!!"}, 401, "virtual_key_required"),
    "broken proxy credentials": ({"proxy-authorization": "Basic %%%"}, 401, "virtual_key_required"),
    "proxy credentials beyond ASCII": ({"proxy-authorization": "Basic \xff\xfe"}, 401, "virtual_key_required"),
    "garbage": ({"x-bf-vk": "garbage"}, 401, "virtual_key_not_found"),
    "unknown": ({"x-bf-vk": "sk-bf-nobody"}, 401, "virtual_key_not_found"),
    "unknown, as bearer": ({"authorization": "Bearer sk-bf-nobody"}, 401, "virtual_key_not_found"),
    "unknown, as api key": ({"x-api-key": "sk-bf-nobody"}, 401, "virtual_key_not_found"),
    "unknown before a good one": ({"x-bf-vk": "sk-bf-nobody", "x-api-key": VIRTUAL_KEY}, 401, "virtual_key_not_found"),
    "beyond ASCII": ({"x-bf-vk": "sk-bf-\xff\xfe"}, 401, "virtual_key_not_found"),
    "twenty thousand letters": ({"x-bf-vk": "sk-bf-" + "a" * 20_000}, 401, "virtual_key_not_found"),
    "inactive": ({"x-bf-vk": INACTIVE_KEY}, 403, "virtual_key_blocked"),
    "expired": ({"x-bf-vk": EXPIRED_KEY}, 403, "virtual_key_blocked"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_a_key_that_does_not_open(world: World, name: str) -> None:
    headers, status, kind = WRONG_KEYS[name]
    for shape in EACH_DIALECT:
        body = check_refusal(world.post(shape, shape.body(), headers), status, kind, shape.dialect)
        shown = json.dumps(body)
        assert not [value for value in headers.values() if value.split()[-1] in shown], "the credential is in the answer"


# -- destinations


def test_the_host_header_is_never_a_destination(world: World) -> None:
    with Server(silent) as stranger:
        for host in ("evil.example", "169.254.169.254", f"127.0.0.1:{stranger.port}", "api.anthropic.com"):
            answer = world.ask(post_json(CHAT.target, CHAT.body(limit=0), KEY, host=host))
            assert answer.json()["error"]["type"] == "invalid_request_error", "the provider did not answer this"
            for body in (b"{", with_fields(model="gpt-\ud800")):
                check_refusal(world.ask(post_json(CHAT.target, body, KEY, host=host)), 400, "invalid_request")
            check_refusal(world.ask(request("GET", "/caf\xe9\xff", KEY, host=host)), 404, "not_found")
            check_refusal(world.ask(request("P\xe9ST", CHAT.target, KEY, b"{}", host=host)), 403, "unmetered_endpoint")
        assert stranger.connections == 0


@pytest.mark.parametrize("host", ["", "a b", "[::1"])
def test_a_host_header_that_is_none(world: World, host: str) -> None:
    check_refusal(world.ask(post_json(CHAT.target, CHAT.body(), KEY, host=host)), 400, "bad_request")
    check_refusal(world.ask(b"GET /health HTTP/1.1\r\n\r\n"), 400, "bad_request")


def own_ports(world: World) -> list[int]:
    return [world.gateway.port, int(world.gateway.console_url.rpartition(":")[2])]


DENIED_HOSTS = ["169.254.169.254", "[::ffff:169.254.169.254]", "metadata.google.internal", "0xa9fea9fe", "2852039166"]


@pytest.mark.parametrize("host", DENIED_HOSTS)
def test_metadata_services_are_out_of_reach(world: World, host: str) -> None:
    check_refusal(world.ask(request("GET", f"http://{host}/latest/", host=host)), 403, "address_denied")
    refused = world.ask(connect_request(host, 80))
    assert (refused.status, refused.json()["type"]) == (403, "address_denied")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1"])
def test_the_gateways_own_ports_are_out_of_reach(world: World, host: str) -> None:
    gateway_port, console_port = own_ports(world)
    for port in (gateway_port, console_port):
        refused = world.ask(connect_request(host, port))
        assert (refused.status, refused.json()["type"]) == (403, "address_denied")
    check_refusal(world.ask(request("GET", f"http://{host}:{console_port}/", host=host)), 403, "address_denied")


@pytest.mark.parametrize("target", ["ftp://x/", "http://:80/", "http://a:99999/", "http://", "nonsense"])
def test_a_target_that_is_none(world: World, target: str) -> None:
    check_refusal(world.ask(request("GET", target)), 400, "bad_request")


@pytest.mark.parametrize("target", ["nonsense", "a:b", ":443", "api.openai.com:0", "api.openai.com:99999"])
def test_a_tunnel_to_nowhere(world: World, target: str) -> None:
    check_refusal(world.ask(request("CONNECT", target)), 400, "bad_request")


def test_a_stranger_that_is_not_there(world: World) -> None:
    port = unused_port()
    check_refusal(world.ask(request("GET", f"http://127.0.0.1:{port}/")), 502, "upstream_unreachable")
    check_refusal(world.ask(connect_request("127.0.0.1", port)), 502, "upstream_unreachable")
    check_refusal(world.ask(connect_request("no-such-host.invalid", 443)), 502, "upstream_unreachable")


# -- heads


NOT_HTTP = {
    "words": b"what is this thing\r\n\r\n",
    "bytes": bytes(range(1, 256)) * 4 + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "length and chunks": b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
    "length in words": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: five\r\n\r\n",
    "a name with a blank": b"GET /health HTTP/1.1\r\nhost: a\r\nfoo bar: 1\r\n\r\n",
    "no colon": b"GET /health HTTP/1.1\r\nhost: a\r\nfoo\r\n\r\n",
    "unknown transfer coding": b"POST /v1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: rot13\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_is_not_http(world: World, name: str) -> None:
    check_refusal(world.ask(NOT_HTTP[name]), 400, "bad_request")


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/health", [(f"x-{number}", "v" * 40) for number in range(3_000)]),
        request("GET", "/health", {"x": "v" * 70_000}),
        request("GET", "/" + "a" * 70_000),
    ],
    ids=["many", "one", "address"],
)
def test_a_flood_of_headers(world: World, data: bytes) -> None:
    check_refusal(world.ask(data), 431, "headers_too_large")


def test_slow_headers_end_after_the_timeout(world: World) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire.to("127.0.0.1", world.gateway.port)) for _ in range(3)]
        starts = (b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-a")
        for wire, start in zip(wires, starts, strict=True):
            wire.sock.settimeout(5)
            wire.send(start)
        assert [wire.rest() for wire in wires] == [b""] * 3


def test_chunks_that_are_none(world: World) -> None:
    head = request("POST", CHAT.target, {**KEY, "transfer-encoding": "chunked"})
    try:
        answer = world.ask(head + b"zz\r\n\r\n")
    except Ended:
        pytest.fail("closed without an answer")
    check_refusal(answer, 400, "bad_request")


def test_a_body_that_never_comes_is_no_call(world: World) -> None:
    rows = len(world.gateway.log_rows())
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        wire.send(request("POST", CHAT.target, {**KEY, "content-length": "500"}) + b'{"model"')
    row = eventually(world.gateway.log_rows, lambda found: len(found) > rows)[-1]
    assert (row["status"], row["http_status"], row["cost_nanos"]) == ("error", 400, 0)


# -- the protocol's corners


@pytest.mark.usefixtures("charges")
def test_pipelining_is_answered_in_order(world: World) -> None:
    calls = [post_json(CHAT.target, CHAT.body(f"hi [[pretend output-tokens={number}]]"), KEY) for number in (3, 1, 2)]
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        wire.send(calls[0] + post_json("/nope", {}, KEY) + calls[1] + post_json(CHAT.target, b"{", KEY) + calls[2])
        answers = [wire.answer() for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 404, 200, 400, 200]
    assert [answers[index].json()["usage"]["completion_tokens"] for index in (0, 2, 4)] == [3, 1, 2]


@pytest.mark.usefixtures("charges")
def test_expect_100_continue(world: World) -> None:
    head = request("POST", CHAT.target, {**KEY, "expect": "100-continue", "content-length": str(len(GOOD))})
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        assert wire.ask(head).status == 100
        assert wire.ask(GOOD).status == 200


def test_expect_100_continue_for_too_much_is_refused_at_once(world: World) -> None:
    head = request("POST", CHAT.target, {**KEY, "expect": "100-continue", "content-length": "200000000"})
    check_refusal(world.ask(head), 413, "request_too_large")


UPGRADE = {
    **KEY,
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize("path", ["/openai/v1/responses", "/openai/v1/realtime?model=gpt-4o-realtime-preview", "/v1/responses"])
def test_websockets_to_providers_are_sent_back_to_http(world: World, path: str) -> None:
    check_refusal(world.ask(request("GET", path, UPGRADE)), 426, "upgrade_required")


@pytest.mark.usefixtures("charges")
def test_an_offer_of_http2_is_not_taken(world: World) -> None:
    offer = {**KEY, "connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAARAAAAAAAIAAAAA"}
    assert world.post(CHAT, CHAT.body(), offer).status == 200
    sent = {name.lower() for name, _ in world.provider.last(1)[0]["headers"]}
    assert not sent & {"upgrade", "http2-settings"}


@pytest.mark.usefixtures("charges")
def test_text_beyond_ascii_in_headers_does_no_harm(world: World) -> None:
    assert world.post(CHAT, CHAT.body(), {**KEY, "user-agent": "caf\xe9 \xff"}).status == 200
    found = eventually(world.gateway.log_rows, lambda rows: any(row["client"].startswith("caf") for row in rows))
    assert found


# -- providers that misbehave


UNREACHABLE = [
    ("closing", 502, "upstream_unreachable"),
    ("garbage", 502, "upstream_unreachable"),
    ("hugehead", 502, "upstream_unreachable"),
    ("negative", 502, "upstream_unreachable"),
    ("refusing", 502, "upstream_unreachable"),
    ("nowhere", 502, "upstream_unreachable"),
    ("nottls", 504, "upstream_timeout"),
]


@pytest.mark.parametrize("name,status,kind", UNREACHABLE, ids=[name for name, _, _ in UNREACHABLE])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_a_provider_that_gives_no_answer_costs_nothing(world: World, name: str, status: int, kind: str, stream: bool) -> None:
    answer = world.ask(post_json(f"/{name}/v1/chat/completions", CHAT.body(stream=stream), KEY))
    body = check_refusal(answer, status, kind)
    row = world.row(body["request_id"])
    assert (row["http_status"], row["cost_nanos"], row["status"]) == (status, 0, "error")


@pytest.mark.usefixtures("charges")
@pytest.mark.parametrize("shape", EACH_DIALECT, ids=lambda shape: shape.name)
def test_a_provider_that_breaks_off_is_told_in_the_callers_dialect(world: World, shape: Shape) -> None:
    check_refusal(
        world.post(shape, shape.body(), {**KEY, "x-pretend-cut": "before-headers"}), 502, "upstream_unreachable", shape.dialect
    )
    before = world.settled()
    answer = world.post(shape, shape.body(), {**KEY, "x-pretend-hang": "before-headers"})
    hung = check_refusal(answer, 504, "upstream_timeout", shape.dialect)
    spent = world.settled()
    assert spent > before, "the provider may well have made and billed an answer that nobody waited for"
    row = world.row(hung["request_id"])
    assert (row["http_status"], row["status"], row["estimated"]) == (504, "error", 1)


@pytest.mark.usefixtures("charges")
@pytest.mark.parametrize("name", ["badusage", "minus", "badgzip"])
def test_an_answer_that_reports_nothing_usable_is_estimated_and_passed_on(world: World, name: str) -> None:
    before = world.settled()
    answer = world.ask(post_json(f"/{name}/v1/chat/completions", CHAT.body(limit=16), KEY))
    assert answer.status == 200
    assert answer.body in (
        b'{"usage":"lots"} ',
        MINUS,
        b"hello",
    )
    spent = world.settled() - before
    # Never free, and not more than the whole limit with an input of a few tokens.
    assert 16 * OUTPUT_PRICE <= spent <= 16 * OUTPUT_PRICE + 40 * INPUT_PRICE


@pytest.mark.usefixtures("charges")
@pytest.mark.parametrize("name", ["shortbody", "badchunk"])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_an_answer_that_breaks_in_the_middle_is_charged(world: World, name: str, stream: bool) -> None:
    before = world.settled()
    data = post_json(f"/{name}/v1/chat/completions", CHAT.body(limit=16, stream=stream), KEY)
    if stream:
        with pytest.raises(Ended):
            world.ask(data)
    else:
        check_refusal(world.ask(data), 502, "upstream_unreachable")
    spent = world.settled() - before
    assert 0 < spent <= 16 * OUTPUT_PRICE + 40 * INPUT_PRICE


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_web_page_in_place_of_an_answer_is_an_error_in_the_callers_dialect(world: World, shape: Shape) -> None:
    """A portal's or a front end's page is no answer: told in JSON, with the provider's error status, and not charged."""
    check_refusal(world.post(shape, shape.body(), {**KEY, "x-pretend-html": "1"}), 502, "upstream_unreachable", shape.dialect)


def test_a_web_page_with_a_good_status_is_an_error_too(world: World) -> None:
    before = world.settled()
    check_refusal(world.ask(post_json("/htmlok/v1/chat/completions", CHAT.body(limit=16), KEY)), 502, "upstream_unreachable")
    assert world.settled() == before


def test_a_redirect_is_handed_on_and_not_followed(world: World) -> None:
    answer = world.ask(post_json("/redirect/v1/chat/completions", CHAT.body(), KEY))
    assert (answer.status, answer.headers["location"]) == (302, "http://169.254.169.254/")


@pytest.mark.parametrize("instruction", [{"x-pretend-status": "500"}, {"x-pretend-status": "429"}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_providers_own_error_comes_back_as_it_is(world: World, shape: Shape, instruction: dict[str, str]) -> None:
    answer = world.post(shape, shape.body(), {**KEY, **instruction})
    assert answer.status == int(next(iter(instruction.values())))
    assert answer.headers["x-tollgate-cost-usd"] == "0"


@pytest.mark.usefixtures("charges")
def test_a_client_that_leaves_while_the_provider_thinks(world: World) -> None:
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        wire.send(post_json(CHAT.target, CHAT.body(), {**KEY, "x-pretend-first-token-ms": "800"}))
        eventually(lambda: world.provider.bill()["in_flight"], lambda count: count == 1)
    eventually(lambda: world.provider.bill()["in_flight"], lambda count: count == 0)
    row = eventually(world.gateway.log_rows, lambda rows: rows[-1]["status"] == "cancelled")[-1]
    assert row["http_status"] == 499 and row["cost_nanos"] > 0


def test_many_bad_connections_at_once_leave_the_others_alone(world: World) -> None:
    wires = [Wire.to("127.0.0.1", world.gateway.port) for _ in range(60)]
    try:
        for number, wire in enumerate(wires):
            wire.send(list(NOT_HTTP.values())[number % len(NOT_HTTP)][: 10 + number])
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(world.post(CHAT, b"{", KEY).status)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert answers == [400] * 8
    finally:
        for wire in wires:
            wire.close()
