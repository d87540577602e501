"""Routing: both ways in, prefixes, the model as a route, and destinations that a caller cannot choose."""

from dataclasses import replace

import pytest

from addons.call import Call, WayIn
from addons.providers.registry import PathKind
from addons.steps.read import read
from addons.steps.route import address, route, route_by_model, upstream_address
from store.config_store.snapshot import Provider
from tests.support import calls


def routed(path: str, **more: object) -> Call:
    """A base-URL call after `route`."""
    made = calls.call(path, **more)  # type: ignore[arg-type]
    route(made, calls.services(), "origin", None)
    return made


@pytest.mark.parametrize(
    ("path", "provider", "upstream", "operation"),
    [
        ("/openai/v1/chat/completions", "openai", "https://api.openai.com/v1/chat/completions", "chat_completion"),
        ("/openai/chat/completions", "openai", "https://api.openai.com/v1/chat/completions", "chat_completion"),
        ("/openai/v1/responses", "openai", "https://api.openai.com/v1/responses", "responses"),
        ("/openai/v1/embeddings", "openai", "https://api.openai.com/v1/embeddings", "embedding"),
        ("/anthropic/v1/messages", "anthropic", "https://api.anthropic.com/v1/messages", "messages"),
        (
            "/genai/v1beta/models/gemini-2.5-flash:generateContent",
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
            "generate_content",
        ),
        ("/groq/v1/chat/completions", "groq", "https://api.groq.com/openai/v1/chat/completions", "chat_completion"),
        ("/v1/chat/completions", "openai", "https://api.openai.com/v1/chat/completions", "chat_completion"),
        ("/v1/messages", "anthropic", "https://api.anthropic.com/v1/messages", "messages"),
    ],
)
def test_base_urls(path: str, provider: str, upstream: str, operation: str) -> None:
    made = routed(path)
    address(made)
    request = made.flow.request
    assert made.refusal is None
    assert made.provider is not None
    assert (made.provider.name, made.operation, made.kind) == (provider, operation, PathKind.METERED)
    assert f"{request.scheme}://{request.host}{request.path}" == upstream
    assert request.host_header == request.host


def test_the_host_header_is_never_a_destination() -> None:
    """Origin-form with somebody else's Host: the prefix decides, and an unknown prefix is a 404."""
    made = routed("/openai/v1/chat/completions", host="169.254.169.254", port=80)
    assert upstream_address(made)[1] == "api.openai.com"
    other = routed("/latest/meta-data", host="169.254.169.254", port=80)
    assert other.refusal is not None
    assert (other.refusal.status, other.refusal.type) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/health", "/ca.pem", "/v1/models", "/api/governance/virtual-keys/quota"])
def test_local_paths(path: str) -> None:
    made = routed(path, method="GET")
    assert (made.local, made.kind, made.refusal) == (True, PathKind.FREE, None)


def test_management_api_is_not_on_the_gateway_port() -> None:
    made = routed("/api/governance/virtual-keys", method="GET")
    assert made.refusal is not None
    assert made.refusal.status == 404


def test_query_survives_and_is_not_part_of_the_logged_path() -> None:
    made = routed("/anthropic/v1/messages?beta=true")
    address(made)
    assert made.flow.request.path == "/v1/messages?beta=true"
    assert made.client_path == "/anthropic/v1/messages"


def test_forward_by_connect_host() -> None:
    """Inside a CONNECT the provider is the host's; the path is the provider's own."""
    made = calls.call("/v1/messages?beta=true", host="api.anthropic.com", port=443, headers={"host": "api.anthropic.com"})
    route(made, calls.services(), "origin", ("api.anthropic.com", 443))
    assert made.way_in is WayIn.FORWARD
    assert upstream_address(made) == ("https", "api.anthropic.com", 443, "/v1/messages")


def test_forward_goes_to_the_configured_base_url() -> None:
    moved = calls.snapshot(providers={"openai": Provider("openai", "openai", base_url="http://10.0.0.9:4000/llm")})
    made = calls.call("/v1/chat/completions", headers={"host": "api.openai.com"})
    route(made, calls.services(moved), "origin", ("api.openai.com", 443))
    address(made)
    request = made.flow.request
    assert (request.scheme, request.host, request.port, request.path) == ("http", "10.0.0.9", 4000, "/llm/v1/chat/completions")
    assert request.host_header == "10.0.0.9:4000"


@pytest.mark.parametrize("base", ["http://gw.example/v1", "http://gw.example", "http://gw.example/"])
def test_a_base_url_may_or_may_not_end_in_v1(base: str) -> None:
    moved = calls.snapshot(providers={"openai": Provider("openai", "openai", base_url=base)})
    made = calls.call("/openai/v1/chat/completions")
    route(made, calls.services(moved), "origin", None)
    assert upstream_address(made) == ("http", "gw.example", 80, "/v1/chat/completions")


@pytest.mark.parametrize("host", ["evil.example", "api.openai.com.evil.example", "api.anthropic.com"])
def test_host_must_name_the_same_provider_as_the_connect(host: str) -> None:
    made = calls.call("/v1/chat/completions", headers={"host": host})
    route(made, calls.services(), "origin", ("api.openai.com", 443))
    assert made.refusal is not None
    assert (made.refusal.status, made.refusal.type) == (421, "misdirected_request")


def test_absolute_form_to_a_provider_is_governed_and_leaves_encrypted() -> None:
    made = calls.call("/v1/chat/completions", host="api.openai.com", port=80)
    route(made, calls.services(), "absolute", None)
    assert made.kind is PathKind.METERED
    assert upstream_address(made)[:3] == ("https", "api.openai.com", 443)


def test_absolute_form_to_the_gateway_itself_is_a_base_url() -> None:
    made = calls.call("/openai/v1/chat/completions", host="localhost", port=8080)
    route(made, calls.services(), "absolute", None)
    assert made.way_in is WayIn.REVERSE


def test_absolute_form_to_anybody_else_is_plain() -> None:
    made = calls.call("/v1/chat/completions", host="intranet.example", port=80)
    route(made, calls.services(), "absolute", None)
    assert (made.plain, made.kind) == (True, PathKind.FREE)


def by_model(model: str, path: str = "/v1/chat/completions") -> Call:
    """A `/v1` call after the body was read."""
    body = b'{"model": "%s", "messages": []}' % model.encode()
    made = calls.call(path, body=body)
    services = calls.services()
    route(made, services, "origin", None)
    read(made, services)
    route_by_model(made)
    return made


def test_model_prefix_picks_the_provider_and_is_sent_without_it() -> None:
    made = by_model("groq/llama-3.3-70b-versatile")
    assert made.provider is not None
    assert (made.provider.name, made.model, made.provider_path) == (
        "groq",
        "llama-3.3-70b-versatile",
        "/v1/chat/completions",
    )


def test_a_slash_in_a_model_name_is_not_always_a_prefix() -> None:
    """Only a configured provider before the first slash counts."""
    made = by_model("meta-llama/Llama-3.3-70B")
    assert made.provider is not None
    assert (made.provider.name, made.model) == ("openai", "meta-llama/Llama-3.3-70B")


def test_no_translation_between_dialects() -> None:
    made = by_model("anthropic/claude-haiku-4-5")
    assert made.refusal is not None
    assert (made.refusal.status, made.refusal.type) == (400, "wrong_dialect")


def test_the_public_prefix_may_be_written_too() -> None:
    made = routed("/groq/openai/v1/chat/completions")
    assert upstream_address(made) == ("https", "api.groq.com", 443, "/openai/v1/chat/completions")


def test_own_hosts_of_a_provider() -> None:
    """`providers.<name>.hosts` adds hosts to be intercepted."""
    own = replace(calls.snapshot().providers["openai"], hosts=("llm.corp.example",))
    services = calls.services(calls.snapshot(providers={"openai": own}))
    made = calls.call("/v1/chat/completions", headers={"host": "llm.corp.example"})
    route(made, services, "origin", ("llm.corp.example", 443))
    assert made.provider is own


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "trace"])
def test_methods_that_echo_are_refused(method: str) -> None:
    made = routed("/openai/v1/models", method=method)
    assert made.refusal is not None
    assert (made.refusal.status, made.refusal.type) == (405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/openrouter/v1/videos", "/openrouter/api/v1/images/generations"])
def test_a_websites_api_is_not_free_behind_a_base_url(path: str) -> None:
    """OpenRouter is a whole website; below its base URL everything is the API."""
    assert routed(path).kind is PathKind.UNKNOWN


def test_a_websites_pages_pass_as_they_are() -> None:
    made = calls.call("/docs/x", headers={"host": "openrouter.ai"})
    route(made, calls.services(), "origin", ("openrouter.ai", 443))
    assert made.kind is PathKind.FREE
    assert upstream_address(made) == ("https", "openrouter.ai", 443, "/docs/x")


def test_a_websites_api_in_forward_mode() -> None:
    made = calls.call("/api/v1/videos", headers={"host": "openrouter.ai"})
    route(made, calls.services(), "origin", ("openrouter.ai", 443))
    assert made.kind is PathKind.UNKNOWN
