"""Prices of one's own with real processes: what the provider counted, times the override, is what the ledger posted."""

import asyncio
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.support import books
from tests.support.config import budget, config_for, virtual_key
from tests.support.quick import Gateway, PretendProcess
from tests.support.traffic import Ask, all_at_once
from tests.support.waiting import eventually

LIVE_SECONDS = 1.0
"""An edit holds in every process after this long."""
KEYS = {name: f"sk-bf-{name:0<32}" for name in ("unknown", "race", "mid", "narrow")}
CHAT = "/openai/v1/chat/completions"


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess(keep=2_000) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    keys = [virtual_key(name, value=value, budgets=[budget(0.5, name=f"{name}-budget")]) for name, value in KEYS.items()]
    config = config_for(provider.url, virtual_keys=keys)
    with Gateway(tmp_path_factory.mktemp("prices"), config, arguments=("--workers", "2")) as made:
        yield made


def override(gateway: Gateway, name: str, model: str, usd: dict[str, str], **fields: Any) -> dict[str, Any]:
    """Makes an override of chats; returns it once every process must know of it."""
    document = {
        "name": name, "scope_kind": "global", "match_type": "exact", "pattern": model, "request_types": ["chat_completion"],
        "patch": usd, **fields,
    }  # fmt: skip
    with gateway.console() as console:
        answer = console.post("/api/governance/pricing-overrides", json=document)
    assert answer.status_code == 201, answer.text
    time.sleep(LIVE_SECONDS)
    made: dict[str, Any] = answer.json()["pricing_override"]
    return made


def ask(gateway: Gateway, key: str, model: str, **pretend: Any) -> httpx.Response:
    headers = {f"x-pretend-{name}": str(value) for name, value in pretend.items()}
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
    with gateway.client(KEYS[key]) as client:
        return client.post(CHAT, json=body, headers=headers)


def spent_nanos(gateway: Gateway, key: str) -> int:
    return gateway.spent_nanos(KEYS[key])


def test_a_model_nobody_knew_is_refused_until_it_has_a_price(provider: PretendProcess, gateway: Gateway) -> None:
    """37 tokens in at $1 and 11 out at $4 per million: 37 × 1,000 + 11 × 4,000 = 81,000 nano-dollars."""
    refused = ask(gateway, "unknown", "house-model-7b")
    assert (refused.status_code, refused.json()["type"]) == (402, "unpriced_model")
    half = override(gateway, "half a price", "house-model-7b", {"input_cost_per_token": "0.000001"})
    assert half["complete"] is False
    assert ask(gateway, "unknown", "house-model-7b").status_code == 402  # half a price is none
    with gateway.console() as console:
        whole = {"patch": {"input_cost_per_token": "0.000001", "output_cost_per_token": "0.000004"}}
        changed = console.put(f"/api/governance/pricing-overrides/{half['id']}", json=whole)
        assert changed.json()["pricing_override"]["complete"] is True
    time.sleep(LIVE_SECONDS)
    provider.reset()
    served = ask(gateway, "unknown", "house-model-7b", **{"input-tokens": 37, "output-tokens": 11})
    assert served.status_code == 200, served.text
    (line,) = provider.bill()["lines"]
    assert (line["usage"]["input_tokens"], line["usage"]["output_tokens"]) == (37, 11)
    assert eventually(lambda: spent_nanos(gateway, "unknown"), lambda nanos: nanos > 0) == 81_000
    assert served.headers["x-tollgate-cost-usd"] == "0.000081"

    def priced_rows() -> list[dict[str, Any]]:
        return [row for row in gateway.log_rows() if row["model"] == "house-model-7b" and row["status"] == "success"]

    (row,) = eventually(priced_rows, bool)
    assert row["price_source"] == f"override half a price ({half['id']})"
    assert (row["cost_nanos"], row["priced"]) == (81_000, 1)


def test_a_crowd_at_ten_times_the_price_stays_below_the_cap(provider: PretendProcess, gateway: Gateway) -> None:
    """gpt-4o-mini at ten times its list price for one key: the bill times ten is what was posted, and it never passes the cap."""
    override(
        gateway, "ten times", "gpt-4o-mini", {"input_cost_per_token": "0.0000015", "output_cost_per_token": "0.000006"},
        scope_kind="virtual_key", virtual_key_id="race",
    )  # fmt: skip
    provider.reset()
    asks = [Ask(limit=1000, key=KEYS["race"], pretend={"output_tokens": 1000, "first_token_ms": 30})] * 120
    answers = asyncio.run(all_at_once(gateway.url, asks))
    bill = eventually(provider.bill, lambda bill: bill["in_flight"] == 0)
    good = [answer for answer in answers if answer.status == 200]
    assert 0 < len(good) < len(asks)  # one call costs about $0.006: some eighty fit
    posted = eventually(lambda: spent_nanos(gateway, "race"), lambda nanos: nanos == 10 * bill["cost_nanos"])
    assert posted <= 500_000_000
    assert len(good) >= 70


def test_a_call_is_settled_at_the_price_it_was_held_with(provider: PretendProcess, gateway: Gateway) -> None:
    """The price goes up a hundredfold while the answer is on its way: this call pays the old one, the next the new one."""
    made = override(
        gateway, "before", "gpt-4o", {"input_cost_per_token": "0.000001", "output_cost_per_token": "0.000002"},
        scope_kind="virtual_key_provider", virtual_key_id="mid", provider_id="openai",
    )  # fmt: skip
    provider.reset()

    async def slow_call_and_edit() -> None:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
            headers = {"x-bf-vk": KEYS["mid"], "x-pretend-first-token-ms": "2500", "x-pretend-output-tokens": "20"}
            body = {"model": "gpt-4o", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
            call = asyncio.create_task(client.post(CHAT, json=body, headers=headers))
            await asyncio.sleep(0.5)
            assert not call.done()
            dearer = {"patch": {"input_cost_per_token": "0.0001", "output_cost_per_token": "0.0002"}}
            async with httpx.AsyncClient(base_url=gateway.console_url, trust_env=False) as console:
                token = {"authorization": f"Bearer {gateway.admin_token}"}
                edited = await console.put(f"/api/governance/pricing-overrides/{made['id']}", json=dearer, headers=token)
                assert edited.status_code == 200, edited.text
            assert not call.done()
            assert (await call).status_code == 200

    asyncio.run(slow_call_and_edit())
    (line,) = provider.bill()["lines"]
    usage = line["usage"]
    cheap = usage["input_tokens"] * 1_000 + usage["output_tokens"] * 2_000
    assert eventually(lambda: spent_nanos(gateway, "mid"), lambda nanos: nanos > 0) == cheap
    served = ask(gateway, "mid", "gpt-4o", **{"output-tokens": 20})
    assert served.status_code == 200, served.text
    usage = provider.bill()["lines"][1]["usage"]
    dear = usage["input_tokens"] * 100_000 + usage["output_tokens"] * 200_000
    assert eventually(lambda: spent_nanos(gateway, "mid"), lambda nanos: nanos > cheap) == cheap + dear
    assert not any(post.over_hold for post in books.posts(gateway.app_dir))


def test_the_provider_key_decides_where_it_is_named(provider: PretendProcess, gateway: Gateway) -> None:
    """An override for the one key of openai goes before the one for openai; another provider key's has no effect."""
    with gateway.console() as console:
        keys = {key["name"]: key["id"] for key in console.get("/api/keys").json()}
    model = "house-model-13b"
    price = {"input_cost_per_token": "0.000001", "output_cost_per_token": "0.000001"}
    override(gateway, "all openai", model, price, scope_kind="provider", provider_id="openai")
    override(
        gateway, "other", model, {name: "0.000009" for name in price}, scope_kind="provider_key",
        provider_key_id=keys["anthropic-main"],
    )  # fmt: skip
    provider.reset()
    assert ask(gateway, "narrow", model, **{"input-tokens": 10, "output-tokens": 10}).status_code == 200
    assert eventually(lambda: spent_nanos(gateway, "narrow"), lambda nanos: nanos > 0) == 20_000
    override(
        gateway, "this key", model, {name: "0.000003" for name in price}, scope_kind="provider_key",
        provider_key_id=keys["openai-main"],
    )  # fmt: skip
    assert ask(gateway, "narrow", model, **{"input-tokens": 10, "output-tokens": 10}).status_code == 200
    assert eventually(lambda: spent_nanos(gateway, "narrow"), lambda nanos: nanos > 20_000) == 20_000 + 60_000


def test_a_free_model_is_served_when_the_budget_is_used_up(provider: PretendProcess, gateway: Gateway) -> None:
    """The crowd's key has nothing left for dear models; a model whose price is zero costs it nothing."""
    override(
        gateway, "free", "house-free", {"input_cost_per_token": "0", "output_cost_per_token": "0"},
        scope_kind="virtual_key", virtual_key_id="race",
    )  # fmt: skip
    before = spent_nanos(gateway, "race")
    assert ask(gateway, "race", "house-free").status_code == 200
    assert spent_nanos(gateway, "race") == before


def test_it_is_all_there_after_a_restart(provider: PretendProcess, gateway: Gateway) -> None:
    gateway.restart()
    provider.reset()
    before = spent_nanos(gateway, "unknown")
    assert ask(gateway, "unknown", "house-model-7b", **{"input-tokens": 37, "output-tokens": 11}).status_code == 200
    assert eventually(lambda: spent_nanos(gateway, "unknown"), lambda nanos: nanos > before) == before + 81_000
    with gateway.console() as console:
        listed = json.loads(console.get("/api/governance/pricing-overrides").text, parse_float=Decimal)
    assert listed["count"] == listed["total_count"] == 7
    ten = next(one for one in listed["pricing_overrides"] if one["name"] == "ten times")
    assert ten["patch"] == {"input_cost_per_token": Decimal("0.0000015"), "output_cost_per_token": Decimal("0.000006")}
    assert ten["patch_per_million_usd"] == {"input_cost_per_token": Decimal("1.5"), "output_cost_per_token": 6}
