"""Which credential goes upstream in forward and in reverse mode, and that none of them stays behind in the flow."""

from dataclasses import replace
from typing import Any

import pytest

from addons.call import Call
from addons.services import Services
from addons.steps.authorize import authorize
from addons.steps.credentials import REDACTED, choose_key, credentials, redact
from addons.steps.identify import identify
from addons.steps.route import address, route
from store.config_store.snapshot import ANY, Provider, ProviderConfig, ProviderKey
from tests.support import calls
from tests.support.calls import KEY

GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"


def way_out(
    path: str = "/openai/v1/chat/completions",
    *,
    forward_to: str | None = None,
    services: Services | None = None,
    model: str = "",
    method: str = "POST",
    **headers: Any,
) -> Call:
    """A call from its head to the address; underscores in header names stand for hyphens."""
    services = services or calls.services()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if forward_to is not None:
        named["host"] = forward_to
    made = calls.call(path, headers=named, method=method)
    route(made, services, "origin", None if forward_to is None else (forward_to, 443))
    identify(made, services)
    made.model = model
    authorize(made, services)
    assert made.refusal is None
    credentials(made, services)
    if made.refusal is None:
        address(made)
    return made


def sent(made: Call) -> dict[str, str]:
    """The credentials in the request as it leaves."""
    names = ("authorization", "x-api-key", "x-goog-api-key", "api-key", "x-bf-vk", "proxy-authorization")
    return {name: made.flow.request.headers[name] for name in names if name in made.flow.request.headers}


def without_keys(*names: str, **fields: Any) -> Services:
    """Services whose providers of these names have no key."""
    return calls.services(calls.snapshot(providers={name: Provider(name, name) for name in names}), **fields)


@pytest.mark.parametrize(
    ("path", "header", "value"),
    [
        ("/openai/v1/chat/completions", "authorization", "Bearer secret-of-openai"),
        ("/anthropic/v1/messages", "x-api-key", "secret-of-anthropic"),
        ("/genai" + GEMINI, "x-goog-api-key", "secret-of-gemini"),
    ],
)
@pytest.mark.parametrize("place", ["x_bf_vk", "x_api_key", "x_goog_api_key", "api_key"])
def test_reverse_puts_the_configured_key_in_for_a_virtual_one(path: str, header: str, value: str, place: str) -> None:
    shown: dict[str, Any] = {place: KEY}
    made = way_out(path, **shown)
    assert sent(made) == {header: value}
    assert made.provider_key is not None


def test_reverse_replaces_the_callers_own_key() -> None:
    assert sent(way_out(x_bf_vk=KEY, authorization="Bearer sk-own")) == {"authorization": "Bearer secret-of-openai"}


def test_reverse_keeps_the_callers_own_key_where_there_is_no_other() -> None:
    made = way_out(services=without_keys("openai"), x_bf_vk=KEY, authorization="Bearer sk-own")
    assert (sent(made), made.provider_key) == ({"authorization": "Bearer sk-own"}, None)


def test_reverse_keeps_it_with_direct_keys() -> None:
    made = way_out(services=calls.services(allow_direct_keys=True), x_bf_vk=KEY, authorization="Bearer sk-own")
    assert sent(made) == {"authorization": "Bearer sk-own"}


def test_direct_keys_do_not_help_a_caller_without_one() -> None:
    made = way_out(services=calls.services(allow_direct_keys=True), x_bf_vk=KEY)
    assert sent(made) == {"authorization": "Bearer secret-of-openai"}


@pytest.mark.parametrize("token", ["sk-ant-oat01-abc", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "ya29.abc"])
def test_a_subscription_is_never_replaced(token: str) -> None:
    made = way_out("/anthropic/v1/messages", x_bf_vk=KEY, authorization=f"Bearer {token}")
    assert sent(made) == {"authorization": f"Bearer {token}"}


def test_forward_leaves_the_callers_own_key_untouched() -> None:
    services = calls.services()
    made = way_out("/v1/messages", forward_to="api.anthropic.com", services=services, x_bf_vk=KEY, x_api_key="sk-ant-api-own")
    assert (sent(made), made.provider_key) == ({"x-api-key": "sk-ant-api-own"}, None)


def test_forward_replaces_a_virtual_key_in_its_place() -> None:
    made = way_out("/v1/messages", forward_to="api.anthropic.com", x_api_key=KEY)
    assert sent(made) == {"x-api-key": "secret-of-anthropic"}


def test_forward_fills_an_empty_place() -> None:
    made = way_out("/v1/chat/completions", forward_to="api.openai.com", x_bf_vk=KEY)
    assert sent(made) == {"authorization": "Bearer secret-of-openai"}


@pytest.mark.parametrize("value", [KEY, KEY.upper(), f"Bearer {KEY}", f"bearer  {KEY}", f" {KEY}"])
def test_a_virtual_key_never_leaves_in_any_spelling(value: str) -> None:
    """Also where the word `Bearer` was forgotten; upper case is another (unknown) key, and does not leave either."""
    services = without_keys("openai")
    made = calls.call("/v1/chat/completions", headers={"host": "api.openai.com", "authorization": value})
    route(made, services, "origin", ("api.openai.com", 443))
    identify(made, services)
    assert "sk-bf" not in str(made.flow.request.headers.fields).lower()
    assert not made.caller_credential


def test_without_any_key_the_call_is_refused_with_the_page_that_mends_it() -> None:
    made = way_out(services=without_keys("openai"), x_bf_vk=KEY)
    assert made.refusal is not None
    assert (made.refusal.status, made.refusal.type) == (400, "no_provider_key")
    assert "'openai'" in made.refusal.message and "'workshop-vk-1'" in made.refusal.message and "Providers" in made.refusal.message


def test_servers_that_ask_for_no_key_get_none() -> None:
    made = way_out("/ollama/v1/chat/completions", services=without_keys("ollama"), x_bf_vk=KEY)
    assert (made.refusal, sent(made)) == (None, {})


def test_free_paths_may_go_without() -> None:
    made = way_out("/openai/v1/models", services=without_keys("openai"), method="GET", x_bf_vk=KEY)
    assert made.refusal is None


def test_strangers_never_get_a_key_of_the_gateways() -> None:
    """A forward GET without any key at all is free, and leaves as it came."""
    made = way_out("/v1/models", forward_to="api.openai.com", method="GET")
    assert (made.virtual_key, made.provider_key, sent(made)) == (None, None, {})


def test_without_keys_required_everybody_is_lent_one() -> None:
    made = way_out(services=calls.services(enforce_auth=False))
    assert sent(made) == {"authorization": "Bearer secret-of-openai"}


def test_query_keys_are_replaced_and_the_rest_of_the_query_stays() -> None:
    made = way_out("/genai" + GEMINI + "?alt=sse&key=AIza-own&x=1", x_bf_vk=KEY)
    assert (made.flow.request.path, sent(made)) == (GEMINI + "?alt=sse&x=1", {"x-goog-api-key": "secret-of-gemini"})


def test_forward_query_keys_stay() -> None:
    made = way_out(GEMINI + "?key=AIza-own&alt=sse", forward_to="generativelanguage.googleapis.com", x_bf_vk=KEY)
    assert (made.flow.request.path, sent(made)) == (GEMINI + "?key=AIza-own&alt=sse", {})


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20261123/us-east-1/bedrock/aws4_request, Signature=ab"},
    ],
)
def test_signed_requests_keep_their_credential(headers: dict[str, Any]) -> None:
    made = way_out(x_bf_vk=KEY, **headers)
    assert sent(made) == {"authorization": headers["authorization"]}
    assert made.signed


def test_a_digest_keeps_the_body_and_not_the_callers_key() -> None:
    """Anybody can write such a header: it is no way round the rule about direct keys."""
    made = way_out(x_bf_vk=KEY, authorization="Bearer sk-own", content_digest="sha-256=:abc:")
    assert sent(made) == {"authorization": "Bearer secret-of-openai"}
    assert made.signed and not made.signed_by_caller


def test_extra_headers_ride_with_the_key_only() -> None:
    """The operator's extra headers may be secret too: they do not go out with a caller's own key."""
    openai = replace(calls.snapshot().providers["openai"], extra_headers=(("X-Team", "blue"),))
    services = calls.services(calls.snapshot(providers={"openai": openai}))
    assert way_out(services=services, x_bf_vk=KEY, x_team="red").flow.request.headers["x-team"] == "blue"
    own = way_out(
        "/v1/chat/completions", forward_to="api.openai.com", services=services, x_bf_vk=KEY, authorization="Bearer sk-own"
    )
    assert "x-team" not in own.flow.request.headers


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override"])
def test_a_method_override_does_not_leave(name: str) -> None:
    """A GET that is free must not become a POST at the provider, whoever's key it carries."""
    made = calls.call(
        "/v1/models", method="GET", headers={"host": "api.openai.com", "authorization": "Bearer sk-own", name: "POST"}
    )
    services = calls.services()
    route(made, services, "origin", ("api.openai.com", 443))
    identify(made, services)
    authorize(made, services)
    credentials(made, services)
    address(made)
    assert name not in made.flow.request.headers


def choosing(keys: tuple[ProviderKey, ...], config: ProviderConfig | None, model: str = "gpt-4o-mini") -> str | None:
    made = calls.call()
    services = calls.services()
    route(made, services, "origin", None)
    made.provider, made.provider_config, made.model = Provider("openai", "openai", keys=keys), config, model
    found = choose_key(made, services)
    return found.id if found else None


A, B = ProviderKey("a", "first", "value-a"), ProviderKey("b", "second", "value-b")


@pytest.mark.parametrize(
    ("keys", "key_ids", "expected"),
    [
        ((A,), (ANY,), "a"),
        ((A, B), ("b",), "b"),
        ((A, B), ("second",), "b"),
        ((A, B), (), None),
        ((A, B), ("c",), None),
        ((replace(A, weight=0.0), B), (ANY,), "b"),
        ((replace(A, weight=0.0),), (ANY,), None),
        ((replace(A, value=""), B), (ANY,), "b"),
        ((replace(A, models=("gpt-4o",)), B), (ANY,), "b"),
        ((replace(A, models=()), B), (ANY,), "b"),
        ((replace(A, blacklisted_models=("gpt-*",)), B), (ANY,), "b"),
        ((replace(A, models=("gpt-*",)), replace(B, models=())), (ANY,), "a"),
    ],
)
def test_usable_keys(keys: tuple[ProviderKey, ...], key_ids: tuple[str, ...], expected: str | None) -> None:
    assert choosing(keys, ProviderConfig("pc", ANY, allowed_models=(ANY,), key_ids=key_ids)) == expected


def test_weights_divide_the_calls() -> None:
    """Nine to one: of 400 draws 360 are expected, and 320 to 390 would be missed once in a million runs at most."""
    services = calls.services()
    made = calls.call()
    route(made, services, "origin", None)
    made.provider = Provider("openai", "openai", keys=(replace(A, weight=9.0), replace(B, weight=1.0)))
    drawn = [found.id for _ in range(400) if (found := choose_key(made, services)) is not None]
    assert len(drawn) == 400 and 320 <= drawn.count("a") <= 390


def test_after_the_answer_has_begun_no_credential_is_left() -> None:
    made = way_out("/genai" + GEMINI + "?alt=sse&key=AIza-own", services=without_keys("gemini"), x_bf_vk=KEY, x_api_key="other-own")
    redact(made)
    request = made.flow.request
    assert request.path == GEMINI + "?alt=sse&key=[redacted]"
    assert request.headers["x-api-key"] == REDACTED.decode()
    assert "own" not in str(request.headers.fields)
    redact(made)
    assert request.path == GEMINI + "?alt=sse&key=[redacted]"


def test_redaction_leaves_everything_else() -> None:
    made = way_out(x_bf_vk=KEY, user_agent="tests")
    before = dict(made.flow.request.headers)
    redact(made)
    assert dict(made.flow.request.headers) == before | {"authorization": "[redacted]"}


def test_the_operators_own_headers_are_hidden_too() -> None:
    """An extra header of a provider may be a credential, whatever its name; the caller's own header of another name stays."""
    openai = replace(calls.snapshot().providers["openai"], extra_headers=(("X-Team", "blue"),))
    services = calls.services(calls.snapshot(providers={"openai": openai}))
    made = way_out(services=services, x_bf_vk=KEY, x_other="kept")
    assert made.flow.request.headers["x-team"] == "blue"
    redact(made)
    assert (made.flow.request.headers["x-team"], made.flow.request.headers["x-other"]) == ("[redacted]", "kept")
