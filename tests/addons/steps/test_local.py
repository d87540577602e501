"""What the gateway port answers by itself, and what it does not tell whom."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http

from addons.call import Call
from addons.services import Services
from addons.steps import local
from addons.steps.identify import identify
from addons.steps.local import LocalAnswers, answer
from addons.steps.route import route
from store.config_store.snapshot import Provider, ProviderConfig, VirtualKey
from store.prices.patch import compile_patch
from store.prices.scoped import ScopedPatch, ScopedPrices
from tests.support import calls
from tests.support.calls import KEY


async def quota(key: VirtualKey) -> dict[str, Any]:
    return {"virtual_key_name": key.name}


def answers(ca: Path = Path("missing.pem"), *, healthy: bool = True) -> LocalAnswers:
    models = {"openai": ("gpt-4o", "gpt-4o-mini"), "anthropic": ("claude-haiku-4-5",)}
    return LocalAnswers(
        "1.2.3", ca, quota, lambda: {"db_pings": "ok"} if healthy else None, lambda name: models.get(name, ())
    )  # fmt: skip


async def asked(
    path: str,
    local: LocalAnswers | None = None,
    services: Services | None = None,
    method: str = "GET",
    **headers: str,
) -> tuple[http.Response | None, Call]:
    services = services or calls.services()
    made = calls.call(path, method=method, headers={name.replace("_", "-"): value for name, value in headers.items()})
    route(made, services, "origin", None)
    identify(made, services)
    assert made.local and made.refusal is None
    return await answer(made, services, local or answers()), made


def refused(made: Call) -> tuple[int, str] | None:
    return None if made.refusal is None else (made.refusal.status, made.refusal.type)


def content(response: http.Response | None) -> Any:
    assert response is not None and response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.content or b"")


async def test_the_front_page_lists_base_urls() -> None:
    told = content((await asked("/"))[0])
    assert (told["name"], told["version"], told["ca"]) == ("tollgate", "1.2.3", "/ca.pem")
    assert {"/v1", "/genai", "/openai", "/anthropic"} <= set(told["base_urls"])


async def test_health() -> None:
    assert content((await asked("/health"))[0]) == {"status": "ok", "components": {"db_pings": "ok"}}


async def test_a_silent_store_is_ill_health_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread waits for it, however many ask; when it speaks again so does the answer."""
    monkeypatch.setattr(local, "HEALTH_SECONDS", 0.05)
    speaks, looks = threading.Event(), []

    def silent() -> dict[str, Any]:
        looks.append(threading.get_ident())
        speaks.wait(20)
        return {"db_pings": "ok"}

    ill = replace(answers(), health=silent)
    for _ in range(3):
        response, made = await asked("/health", ill)
        assert (response, refused(made)) == (None, (503, "gateway_unavailable"))
    assert len(looks) == 1 and looks[0] != threading.get_ident()
    monkeypatch.setattr(local, "HEALTH_SECONDS", 20.0)
    speaks.set()
    assert content((await asked("/health", ill))[0])["status"] == "ok"


async def test_ill_health_is_a_503_that_may_be_tried_again() -> None:
    response, made = await asked("/health", answers(healthy=False))
    assert (response, refused(made)) == (None, (503, "gateway_unavailable"))
    assert made.refusal is not None and made.refusal.retry_after == 5


async def test_the_certificate(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    response, _ = await asked("/ca.pem", answers(ca))
    assert response is not None
    assert (response.content, response.headers["content-type"]) == (ca.read_bytes(), "application/x-pem-file")


async def test_no_certificate_yet(tmp_path: Path) -> None:
    response, made = await asked("/ca.pem", answers(tmp_path / "none.pem"))
    assert (response, refused(made)) == (None, (404, "not_found"))


async def test_the_quota_belongs_to_the_key() -> None:
    path = "/api/governance/virtual-keys/quota"
    assert content((await asked(path, x_bf_vk=KEY))[0]) == {"virtual_key_name": "workshop-vk-1"}
    response, made = await asked(path)
    assert (response, refused(made)) == (None, (401, "virtual_key_required"))


async def test_models_a_key_may_use() -> None:
    """As `provider/model`, and OpenAI's own without the prefix too."""
    rows = content((await asked("/v1/models", x_bf_vk=KEY))[0])["data"]
    assert [row["id"] for row in rows] == [
        "anthropic/claude-haiku-4-5", "openai/gpt-4o", "gpt-4o", "openai/gpt-4o-mini", "gpt-4o-mini",
    ]  # fmt: skip
    assert {row["owned_by"] for row in rows} == {"anthropic", "openai"}
    assert {row["object"] for row in rows} == {"model"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ProviderConfig("pc", "openai", allowed_models=("*",), blacklisted_models=("*-mini",)), ["openai/gpt-4o", "gpt-4o"]),
        (ProviderConfig("pc", "openai", allowed_models=("gpt-4o",)), ["openai/gpt-4o", "gpt-4o"]),
        (ProviderConfig("pc", "anthropic", allowed_models=("*",)), ["anthropic/claude-haiku-4-5"]),
        (ProviderConfig("pc", "openai", allowed_models=()), []),
        (ProviderConfig("pc", "groq", allowed_models=("*",)), []),
    ],
)
async def test_models_a_key_may_not_use_are_not_listed(config: ProviderConfig, expected: list[str]) -> None:
    services = calls.services(calls.snapshot({KEY: calls.virtual_key(provider_configs=(config,))}))
    rows = content((await asked("/v1/models", services=services, x_bf_vk=KEY))[0])["data"]
    assert [row["id"] for row in rows] == expected


async def test_what_is_blocked_at_a_provider_is_not_listed_for_a_key_of_any() -> None:
    configs = (
        ProviderConfig("pc-1", "openai", allowed_models=(), blacklisted_models=("*-mini",)),
        ProviderConfig("pc-2", "*", allowed_models=("*",)),
    )
    services = calls.services(calls.snapshot({KEY: calls.virtual_key(provider_configs=configs)}))
    rows = content((await asked("/v1/models", services=services, x_bf_vk=KEY))[0])["data"]
    assert [row["id"] for row in rows] == ["anthropic/claude-haiku-4-5", "openai/gpt-4o", "gpt-4o"]


async def test_models_with_a_price_of_ones_own_are_listed() -> None:
    def own(pattern: str, **scope: Any) -> ScopedPatch:
        prices = compile_patch("own", [("input_cost_per_token", "0.000001"), ("output_cost_per_token", "0.000002")])
        return ScopedPatch(prices, pattern, frozenset({"chat_completion"}), **scope)

    overrides = (
        own("House-Model", provider="groq"),
        own("of-the-key", provider_key_id="openai-1"),
        own("of-another", virtual_key_id="vk-2", provider="groq"),
        own("of-nobody"),
        own("line-", provider="groq", wildcard=True),
        own("gpt-4o", provider="openai"),
    )
    services = calls.services(replace(calls.snapshot(), prices=ScopedPrices(overrides)))
    rows = content((await asked("/v1/models", services=services, x_bf_vk=KEY))[0])["data"]
    names = [row["id"] for row in rows]
    assert [name for name in names if name not in ("gpt-4o-mini", "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5")] == [
        "groq/House-Model", "openai/gpt-4o", "gpt-4o", "openai/of-the-key", "of-the-key",
    ]  # fmt: skip


async def test_a_provider_nobody_set_up_has_no_models() -> None:
    services = calls.services(calls.snapshot(providers={"anthropic": Provider("anthropic", "anthropic")}))
    rows = content((await asked("/v1/models", services=services, x_bf_vk=KEY))[0])["data"]
    assert "anthropic" not in {row["owned_by"] for row in rows}


async def test_a_provider_of_ones_own_lists_its_familys_models() -> None:
    mine = replace(calls.snapshot().providers["anthropic"], name="mine")
    services = calls.services(calls.snapshot(providers={"mine": mine}))
    rows = content((await asked("/v1/models", services=services, x_bf_vk=KEY))[0])["data"]
    assert "mine/claude-haiku-4-5" in [row["id"] for row in rows]


async def test_models_are_not_for_strangers() -> None:
    response, made = await asked("/v1/models")
    assert (response, refused(made)) == (None, (401, "virtual_key_required"))
    assert len(content((await asked("/v1/models", services=calls.services(enforce_auth=False)))[0])["data"]) == 5


@pytest.mark.parametrize(
    ("allowed", "origin", "granted"),
    [
        ((), "https://app.example", False),
        (("https://app.example",), "https://app.example", True),
        (("https://app.example",), "https://app.example.evil", False),
        (("https://app.example",), "http://app.example", False),
        (("*",), "https://any.example", True),
        (("https://app.example",), "null", False),
    ],
)
async def test_preflights(allowed: tuple[str, ...], origin: str, granted: bool) -> None:
    """Answered here for listed origins only, without asking for a key and without any upstream."""
    services = calls.services(allowed_origins=allowed)
    response, made = await asked("/openai/v1/chat/completions", services=services, method="OPTIONS", origin=origin)
    if not granted:
        assert (response, refused(made)) == (None, (403, "origin_blocked"))
        return
    assert response is not None and (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["vary"] == "origin"
    assert "x-bf-vk" in response.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in response.headers
