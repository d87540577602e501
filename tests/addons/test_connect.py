"""CONNECT: who may open one, whereto, and what is decrypted inside."""

from typing import Any

import pytest
from mitmproxy import http

from addons import connect
from addons.services import ConnectionFacts
from tests.support import calls
from tests.support.calls import FixedSnapshots
from tests.support.opened import UNKNOWN, boom, connecting, opened, refused


@pytest.mark.parametrize(
    ("of", "fields", "expected"),
    [
        (connecting("api.openai.com"), {}, None),
        (connecting("api.openai.com", key=None), {}, None),
        (connecting("api.openai.com", key=UNKNOWN), {}, (407, "virtual_key_not_found")),
        (connecting("example.com", key=UNKNOWN), {}, (407, "virtual_key_not_found")),
        (connecting("api.openai.com", key="a-password-of-somebody-elses"), {}, None),
        (connecting("api.openai.com", key=None), {"require_auth": True}, (407, "virtual_key_required")),
        (connecting("api.openai.com"), {"require_auth": True}, None),
        (connecting("example.com"), {}, None),
        (connecting("example.com"), {"unmatched": "deny"}, (403, "address_denied")),
        (connecting("api.openai.com"), {"unmatched": "deny"}, None),
        (connecting("169.254.169.254", 80), {}, (403, "address_denied")),
        (connecting("127.0.0.1", 8081), {}, (403, "address_denied")),
        (connecting("10.0.0.5"), {}, (403, "address_denied")),
    ],
)  # fmt: skip
async def test_connect(of: http.HTTPFlow, fields: dict[str, Any], expected: tuple[int, str] | None) -> None:
    """200 is no response here: mitmproxy goes on. The credentials are kept for the requests inside, and never in the flow."""
    of = of.copy()  # type: ignore[no-untyped-call]
    of.response = None
    made = opened(**fields)
    shown = of.request.headers.get("proxy-authorization", "")
    await made.http_connect(of)
    assert (None if of.response is None else refused(of)) == expected
    assert "proxy-authorization" not in of.request.headers
    assert made.services.connections[of.client_conn.id].credentials == shown
    if of.response is not None:
        assert ("proxy-authenticate" in of.response.headers) is (of.response.status_code == 407)
        assert "sk-bf-0" not in (of.response.text or "")


async def test_connect_with_a_key_made_a_moment_ago() -> None:
    services = calls.services(calls.snapshot({}))
    services.snapshots = FixedSnapshots(services.snapshots.current, [calls.snapshot(revision=2)])
    of = connecting("api.openai.com")
    await opened(services).http_connect(of)
    assert of.response is None


async def test_a_listeners_own_key_is_enough_for_connect() -> None:
    services = calls.services(listener_keys={8090: "workshop-vk-1"})
    of = connecting("api.openai.com", key=None)
    services.connections[of.client_conn.id] = ConnectionFacts(port=8090)
    await opened(services, require_auth=True).http_connect(of)
    assert of.response is None


async def test_a_fault_while_deciding_a_connect_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "proxy_credential", boom)
    of = connecting("api.openai.com")
    await opened().http_connect(of)
    assert refused(of) == (503, "gateway_unavailable")
    assert of.response is not None and "secret" not in (of.response.text or "")


@pytest.mark.parametrize(
    ("sni", "allowed"),
    [("api.openai.com", True), ("eu.api.openai.com", True), ("api.anthropic.com", False), ("evil.example", False), ("", False)],
)
def test_the_handshake_names_the_same_provider(sni: str, allowed: bool) -> None:
    assert connect.sni_allowed(opened().services.snapshots, "api.openai.com", sni) is allowed


def test_only_providers_are_decrypted() -> None:
    snapshots = opened().services.snapshots
    assert connect.is_intercepted(snapshots, "api.openai.com", 443) and not connect.is_intercepted(snapshots, "example.com", 443)
