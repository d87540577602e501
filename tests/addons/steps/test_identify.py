"""Who is calling: the order of places, that the first one decides, and that no virtual key goes on upstream."""

import base64

import pytest

from addons.call import Call
from addons.services import ConnectionFacts, Services
from addons.steps.identify import identify, proxy_credential
from addons.steps.route import route
from tests.support import calls
from tests.support.calls import KEY

OTHER = "sk-bf-99999999-2222-4333-8444-555555555555"
UNKNOWN = "sk-bf-00000000-0000-4000-8000-000000000000"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def identified(headers: dict[str, str] | None = None, path: str = "/openai/v1/chat/completions", **more: object) -> Call:
    """A call after route and identify; `services` and `method` may be given."""
    services = more.pop("services", None) or calls.services()
    if not isinstance(services, Services):
        raise TypeError("services")
    made = calls.call(path, headers=headers, **more)  # type: ignore[arg-type]
    route(made, services, "origin", None)
    identify(made, services)
    return made


@pytest.mark.parametrize(
    "headers",
    [
        {"x-bf-vk": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"x-api-key": KEY},
        {"x-goog-api-key": KEY},
        {"api-key": KEY},
        {"proxy-authorization": basic("anything", KEY)},
        {"proxy-authorization": basic(KEY, "")},
    ],
)
def test_every_place_is_found_and_cleared(headers: dict[str, str]) -> None:
    made = identified(headers)
    assert made.virtual_key is not None
    assert made.virtual_key.name == "workshop-vk-1"
    assert KEY not in str(made.flow.request.headers.fields)
    assert base64.b64encode(KEY.encode())[:20].decode() not in str(made.flow.request.headers.fields)


def test_query_key_is_found_and_cleared() -> None:
    made = identified(path=f"/genai/v1beta/models/gemini-2.5-flash:generateContent?alt=sse&key={KEY}")
    assert made.virtual_key is not None
    assert made.query == "alt=sse"
    assert KEY not in made.flow.request.path


def test_the_callers_own_query_key_stays() -> None:
    made = identified({"x-bf-vk": KEY}, path="/genai/v1beta/models/gemini-2.5-flash:generateContent?key=AIza-own")
    assert (made.query, made.caller_credential) == ("key=AIza-own", True)


def test_an_unknown_key_is_refused_without_falling_through() -> None:
    made = identified({"x-bf-vk": UNKNOWN, "authorization": f"Bearer {KEY}"})
    assert made.refusal is not None
    assert (made.refusal.status, made.refusal.type) == (401, "virtual_key_not_found")


def test_every_further_key_is_cleared_too() -> None:
    made = identified({"x-bf-vk": KEY, "authorization": f"Bearer {OTHER}", "x-api-key": OTHER})
    assert made.refusal is None
    assert "sk-bf" not in str(made.flow.request.headers.fields)


def test_connection_credentials() -> None:
    services = calls.services()
    made = calls.call()
    services.connections[made.flow.client_conn.id] = ConnectionFacts(credentials=basic("workshop", KEY))
    route(made, services, "origin", None)
    identify(made, services)
    assert made.virtual_key is not None


def test_none_is_refused_when_keys_are_required() -> None:
    made = identified({"authorization": "Bearer sk-own-provider-key"})
    assert made.refusal is not None
    assert (made.refusal.status, made.refusal.type) == (401, "virtual_key_required")


def test_none_is_fine_when_they_are_not() -> None:
    made = identified({"authorization": "Bearer sk-own"}, services=calls.services(enforce_auth=False))
    assert (made.refusal, made.virtual_key, made.caller_credential) == (None, None, True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": "https://evil.example"}, False),
    ],
)
def test_the_default_key_is_not_for_web_pages(headers: dict[str, str], expected: bool) -> None:
    made = identified(headers, services=calls.services(default_virtual_key="workshop-vk-1"))
    assert (made.virtual_key is not None) is expected
    assert (made.refusal is None) is expected


def test_free_paths_do_not_lend_the_gateways_key_to_strangers() -> None:
    made = identified(path="/openai/v1/files/1", method="GET")
    assert made.refusal is not None
    assert made.refusal.type == "virtual_key_required"


@pytest.mark.parametrize(
    ("authorization", "oauth"), [("Bearer sk-ant-oat01-abc", True), ("Bearer eyJhbGciOi", True), ("Bearer sk-proj-1", False)]
)
def test_subscription_tokens_are_recognised(authorization: str, oauth: bool) -> None:
    made = identified({"x-bf-vk": KEY, "authorization": authorization})
    assert (made.caller_oauth, made.caller_credential) == (oauth, True)


@pytest.mark.parametrize("garbage", ["", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"\xff\xfe").decode(), "Digest x"])
def test_garbage_proxy_credentials_are_no_credentials(garbage: str) -> None:
    assert proxy_credential(garbage) is None


@pytest.mark.parametrize(
    "fields",
    [
        ((b"x-api-key", b"sk-ant-real"), (b"x-api-key", KEY.encode())),
        ((b"authorization", b"Bearer\t" + KEY.encode()),),
        ((b"Authorization", b"Bearer sk-own"), (b"AUTHORIZATION", b"Bearer " + KEY.upper().encode())),
    ],
)
def test_no_spelling_of_a_virtual_key_goes_upstream(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """Doubled headers, tabs, upper case: whatever is found or not found, it does not leave."""
    made = calls.call(headers={"x-bf-vk": KEY})
    made.flow.request.headers.fields += fields
    services = calls.services()
    route(made, services, "origin", None)
    identify(made, services)
    assert b"sk-bf-" not in str(made.flow.request.headers.fields).lower().encode()
    assert made.virtual_key is not None


def test_strangers_never_see_a_virtual_key() -> None:
    made = calls.call("/x", host="intranet.example", port=80, headers={"x-bf-vk": KEY, "authorization": f"Bearer {KEY}"})
    services = calls.services()
    route(made, services, "absolute", None)
    identify(made, services)
    assert made.plain
    assert "sk-bf-" not in str(made.flow.request.headers.fields)


def test_a_listeners_key_is_not_for_web_pages_either() -> None:
    services = calls.services(listener_keys={8090: "workshop-vk-1"})
    for headers, expected in (({}, True), ({"origin": "https://evil.example"}, False)):
        made = calls.call(headers=headers)
        services.connections[made.flow.client_conn.id] = ConnectionFacts(port=8090)
        route(made, services, "origin", None)
        identify(made, services)
        assert (made.virtual_key is not None) is expected


def test_other_query_parameters_keep_their_bytes() -> None:
    made = identified(path=f"/genai/v1beta/models/gemini-2.5-flash:generateContent?a=b%20c&k%65y={KEY}&alt=sse")
    assert made.virtual_key is not None
    assert made.query == "a=b%20c&alt=sse"
