"""What reaches client and provider, byte for byte: answers as they were sent, requests changed in one value at most."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.support.config import VIRTUAL_KEY, budget, config_for, virtual_key
from tests.support.dialects import ANTHROPIC, CHAT, EACH_DIALECT, GEMINI, RESPONSES, SHAPES, Shape
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.servers import Server, answering, read_request
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json, request

KEY = {"x-bf-vk": VIRTUAL_KEY}
TIGHT_KEY = "sk-bf-77777777777777777777777777777tight777"
TIGHT_USD = "0.002"

ODD_JSON = (
    b'{ "id":"x",\t"usage" : {"completion_tokens":7 ,"prompt_tokens":11},\n\n '
    b'"choices":[{"message":{"content":"\\u00e9 \xc3\xa9"}}],'
    b'"model":"gpt-4o-mini" , "odd":1.50e1}\n\n'
)
COST = 11 * 150 + 7 * 600
"""Of ODD_JSON at gpt-4o-mini's list price, in nano-dollars."""


def with_length(head: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + head + b"content-length: %d\r\n\r\n" % len(body) + body


ODD_STREAM = (
    b": a comment\n\n"
    b'event: x\r\nid: 7\r\ndata: {"choices":[{"delta":{"content":"one "}}],"model":"gpt-4o-mini"}\r\n\r\n'
    b'data:{"choices":[{"delta":{"content":"tw\xc3\xb6"},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}\n\n'
    b"data: [DONE]\n\n"
    b": after the end"
)
WITHOUT_USAGE = ODD_STREAM.replace(b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}\n\n', b"")
EVENTS = b"content-type: text/event-stream\r\n"
JSON = b"content-type: application/json\r\n"
PACKED = gzip.compress(ODD_JSON, mtime=0)
SERVED = {
    "odd": with_length(JSON + b"X-Own:  kept\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", ODD_JSON),
    "packed": with_length(JSON + b"content-encoding: gzip\r\n", PACKED),
    "untilclose": b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n" + ODD_JSON,
    "events": with_length(EVENTS, ODD_STREAM),
    "packedevents": with_length(EVENTS + b"content-encoding: gzip\r\n", gzip.compress(ODD_STREAM, mtime=0)),
}


@dataclass
class World:
    gateway: Gateway
    provider: PretendProcess

    def ask(self, data: bytes) -> Answer:
        with Wire.to("127.0.0.1", self.gateway.port) as wire:
            return wire.ask(data)

    def direct(self, data: bytes) -> Answer:
        """The provider without the gateway."""
        host, _, port = self.provider.url.removeprefix("http://").partition(":")
        with Wire.to(host, int(port)) as wire:
            return wire.ask(data)

    def upstream(self) -> dict[str, Any]:
        """The body of the provider's last request."""
        body: dict[str, Any] = json.loads(self.provider.last(1)[0]["body_text"])
        return body

    def settled(self) -> int:
        row = eventually(lambda: self.gateway.quota()["budgets"][0], lambda row: row["held"] == 0)
        return int(row["current_usage"] * 10**9)


def custom_provider(url: str) -> dict[str, Any]:
    return {
        "keys": [{"name": "main", "value": "sk-provider-custom", "models": ["*"], "weight": 1.0}],
        "network_config": {"base_url": url},
        "custom_provider_config": {"base_provider_type": "openai"},
    }


@pytest.fixture(scope="module")
def gate() -> threading.Event:
    """Set: the server `slow` may send the rest."""
    return threading.Event()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, gate: threading.Event) -> Iterator[World]:
    keys = [
        virtual_key(budgets=[budget(50)], provider_configs=[{"provider": "*"}]),
        virtual_key("tight-vk", value=TIGHT_KEY, budgets=[budget(TIGHT_USD, name="tight")]),
    ]

    def slow(wire: Wire) -> None:
        read_request(wire)
        wire.send(b"HTTP/1.1 200 OK\r\n" + EVENTS + b"content-length: %d\r\n\r\n" % len(ODD_STREAM) + ODD_STREAM[:100])
        if gate.wait(10):
            wire.send(ODD_STREAM[100:])

    with ExitStack() as stack:
        provider = stack.enter_context(PretendProcess())
        config = config_for(provider.url, virtual_keys=keys)
        for name, data in SERVED.items():
            config["providers"][name] = custom_provider(stack.enter_context(Server(answering(data))).url)
        config["providers"]["slow"] = custom_provider(stack.enter_context(Server(slow)).url)
        gateway = stack.enter_context(Gateway(tmp_path_factory.mktemp("bodies"), config))
        yield World(gateway, provider)
        assert "Traceback" not in gateway.log()


def ask_custom(world: World, name: str, **fields: Any) -> tuple[Answer, int]:
    """The answer of a custom provider and what it cost in nano-dollars."""
    before = world.settled()
    answer = world.ask(post_json(f"/{name}/v1/chat/completions", CHAT.body(limit=50, **fields), KEY))
    return answer, world.settled() - before


# -- answers


@pytest.mark.parametrize("name,body", [("odd", ODD_JSON), ("packed", PACKED), ("untilclose", ODD_JSON)])
def test_a_buffered_answer_is_the_providers_to_the_byte(world: World, name: str, body: bytes) -> None:
    answer, cost = ask_custom(world, name)
    assert (answer.status, answer.body) == (200, body)
    assert cost == COST
    assert Decimal(answer.headers["x-tollgate-cost-usd"]) * 10**9 == COST
    assert Decimal(answer.headers["x-tollgate-budget-remaining-usd"]) * 10**9 == 50 * 10**9 - world.settled()
    call_id = answer.headers["x-tollgate-request-id"]
    eventually(world.gateway.log_rows, lambda rows: any(row["id"] == call_id for row in rows))


def test_the_providers_headers_come_along(world: World) -> None:
    answer, _ = ask_custom(world, "odd")
    assert answer.headers["x-own"] == "kept"
    assert answer.headers["set-cookie"] == "a=1, b=2"
    packed, _ = ask_custom(world, "packed")
    assert packed.headers["content-encoding"] == "gzip"


def test_a_stream_is_the_providers_to_the_byte(world: World) -> None:
    asked, cost = ask_custom(world, "events", stream=True, stream_options={"include_usage": True})
    assert (asked.body, cost) == (ODD_STREAM, COST)
    assert asked.headers["content-type"] == "text/event-stream"
    assert "x-tollgate-cost-usd" not in asked.headers
    assert "x-tollgate-budget-remaining-usd" in asked.headers and "x-tollgate-request-id" in asked.headers


def test_a_usage_chunk_that_only_the_gateway_wanted_is_taken_out_and_nothing_else(world: World) -> None:
    answer, cost = ask_custom(world, "events", stream=True)
    assert (answer.body, cost) == (WITHOUT_USAGE, COST)


def test_a_compressed_stream_passes_as_it_is_and_is_metered(world: World) -> None:
    answer, cost = ask_custom(world, "packedevents", stream=True)
    assert (gzip.decompress(answer.body), cost) == (ODD_STREAM, COST)


def test_a_stream_flows_while_the_provider_is_still_writing(world: World, gate: threading.Event) -> None:
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        wire.send(post_json("/slow/v1/chat/completions", CHAT.body(stream=True, stream_options={"include_usage": True}), KEY))
        head = wire.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"a comment" in wire.until(b'"one "'), "the first words did not come while the provider was writing"
        gate.set()
        assert b": after the end" in wire.until(b": after the end")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_every_dialect_as_the_provider_would_answer_without_us(world: World, shape: Shape, stream: bool, packed: bool) -> None:
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}} if shape is CHAT and stream else {}
    body = shape.body("hi [[pretend output-tokens=9]]", stream=stream and shape is not GEMINI, **fields)
    path = shape.stream_path if stream else shape.path
    headers = {"x-pretend-gzip": "force"} if packed else {}
    through = world.ask(post_json(shape.prefix + path, body, KEY | headers))
    direct = world.direct(post_json(path, body, headers))
    assert through.status == direct.status == 200
    assert through.headers.get("content-encoding") == direct.headers.get("content-encoding") == ("gzip" if packed else None)
    ours, theirs = [gzip.decompress(a.body) if packed else a.body for a in (through, direct)]
    assert _comparable(ours) == _comparable(theirs)


_NUMBERED = (b"created", b"created_at", b"completed_at", b"responseId", b"item_id", b"id")


def _comparable(body: bytes) -> list[bytes]:
    """The body's pieces between quotation marks, without what the provider numbers anew in each answer: ids and seconds."""
    words = body.split(b'"')
    kept: list[bytes] = []
    numbered = 0
    for word in words:
        # After such a name come a colon with the number itself, or a colon, then the text.
        kept.append(b"#" if numbered else word)
        numbered = 2 if word in _NUMBERED else max(0, numbered - 1)
    return kept


# -- requests


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_request_that_fits_goes_on_untouched(world: World, shape: Shape) -> None:
    odd = json.dumps(shape.body("snö"), ensure_ascii=False).encode().replace(b'":', b'"  :\t')
    assert world.ask(post_json(shape.target, odd, KEY)).status == 200
    sent = world.provider.last(1)[0]
    assert sent["body_text"].encode() == odd
    headers = [[name.lower(), value] for name, value in sent["headers"]]
    assert not [name for name, _ in headers if name.startswith(("x-bf-", "x-tollgate-", "proxy-", "via", "x-forwarded"))]
    assert ["accept-encoding", "identity"] in headers


def test_usage_is_asked_for_and_nothing_else_is_changed(world: World) -> None:
    body = CHAT.body(stream=True, seed=1.0, metadata={"a": [None, True]})
    answer = world.ask(post_json(CHAT.target, body, KEY))
    assert world.upstream() == body | {"stream_options": {"include_usage": True}}
    assert b'"usage"' not in answer.body.replace(b'"usage": null', b"").replace(b'"usage":null', b"")
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_other_stream_options_are_kept(world: World) -> None:
    body = CHAT.body(stream=True, stream_options={"include_obfuscation": False})
    assert world.ask(post_json(CHAT.target, body, KEY)).status == 200
    assert world.upstream()["stream_options"] == {"include_obfuscation": False, "include_usage": True}


LIMIT_AT = {
    "chat": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "anthropic": ("max_tokens",),
    "gemini": ("generationConfig", "maxOutputTokens"),
}
PRICES = {"chat": (150, 600), "responses": (150, 600), "anthropic": (1_000, 5_000), "gemini": (300, 2_500)}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_trimmed_request_differs_in_one_value(world: World, shape: Shape) -> None:
    """The bound is more than half of what is left, so the limit is lowered; the one number is all that changes on the wire."""
    asked = json.dumps(shape.body("snö", limit=777_777), ensure_ascii=False).encode().replace(b", ", b" ,\n")
    answer = world.ask(post_json(shape.target, asked, {"x-bf-vk": TIGHT_KEY}))
    assert answer.status == 200, answer.body
    trimmed = int(answer.headers["x-tollgate-trimmed"])
    sent = world.provider.last(1)[0]["body_text"].encode()
    assert sent == asked.replace(b"777777", str(trimmed).encode())
    assert sent.count(str(trimmed).encode()) == 1
    # What the request may cost at most stays within the budget; the output takes about half of what was left.
    assert 1 <= trimmed * PRICES[shape.name][1] <= Decimal(TIGHT_USD) * 10**9


@pytest.mark.parametrize("shape", EACH_DIALECT, ids=lambda shape: shape.name)
def test_a_request_without_a_limit_gets_one_when_the_budget_needs_it(world: World, shape: Shape) -> None:
    body = shape.body(limit=None)
    answer = world.ask(post_json(shape.target, body, {"x-bf-vk": TIGHT_KEY}))
    assert answer.status == 200, answer.body
    trimmed = int(answer.headers["x-tollgate-trimmed"])
    upstream = world.upstream()
    place: Any = upstream
    path = LIMIT_AT[shape.name]
    if shape is CHAT:
        path = ("max_completion_tokens",)
    for name in path[:-1]:
        place = place[name]
    assert place.pop(path[-1]) == trimmed
    upstream.pop("generationConfig", None)
    assert upstream == body


def test_a_signed_request_is_never_altered(world: World) -> None:
    body = CHAT.body(stream=True)
    headers = {**KEY, "content-digest": "sha-256=:4REjxQ4yrqUVicfSKYNO/cF9zNj5ANbzgDZt3/h3Qxo=:", "authorization": "Bearer sk-own"}
    assert world.ask(post_json(CHAT.target, body, headers)).status == 200
    assert world.upstream() == body


def test_a_model_with_its_provider_in_front_is_sent_as_its_name(world: World) -> None:
    body = CHAT.body() | {"model": "openai/gpt-4o-mini"}
    assert world.ask(post_json("/v1/chat/completions", body, KEY)).status == 200
    assert world.upstream() == body | {"model": "gpt-4o-mini"}
    assert world.ask(post_json("/v1/messages", ANTHROPIC.body(), KEY)).status == 200
    assert world.ask(post_json("/v1/responses", RESPONSES.body(), KEY)).status == 200


def test_answers_to_head_and_free_paths_carry_nothing_of_ours(world: World) -> None:
    direct = world.direct(request("GET", "/v1/models"))
    through = world.ask(request("GET", "/openai/v1/models", KEY))
    assert through.body == direct.body
    assert not [name for name in through.headers if name.startswith("x-tollgate-cost")]
