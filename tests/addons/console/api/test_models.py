"""`/api/models`: what can be called, what it costs to the last digit, and how much it takes."""

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from tests.addons.console.conftest import Console, StartConsole

VALUE = "sk-bf-11111111-2222-4333-8444-555555555555"
FILE = {
    "providers": {
        "openai": {"keys": [{"id": "key-1", "name": "main", "value": "sk-1", "models": ["gpt-4o", "our-fine-tune"]}]},
        "house": {"network_config": {"base_url": "http://127.0.0.1:9"}, "custom_provider_config": {"base_provider_type": "openai"}},
    },
    "governance": {
        "virtual_keys": [
            {"name": "workshop", "value": VALUE, "provider_configs": [
                {"provider": "openai", "allowed_models": ["gpt-4o", "gpt-4o-mini"]},
                {"provider": "anthropic", "allowed_models": []}]}
        ],
        "pricing_overrides": [
            {"id": "over-1", "name": "house price", "scope_kind": "provider", "provider_id": "house", "match_type": "exact",
             "pattern": "house-7b", "request_types": ["chat_completion"],
             "patch": {"input_cost_per_token": 0.0000003, "output_cost_per_token": 0.0000012}},
            {"id": "over-2", "name": "for one", "scope_kind": "virtual_key", "virtual_key_id": "workshop", "match_type": "wildcard",
             "pattern": "gpt-4o*", "request_types": ["chat_completion"], "patch": {"input_cost_per_token": 0}},
        ],
    },
}  # fmt: skip


@pytest.fixture
async def seeded(start_console: StartConsole) -> Console:
    from store.config_store.bootstrap import seed
    from store.settings import settings_from

    console = await start_console(FILE)
    seed(console.store, settings_from(FILE, {}, source="config.json"))
    return console


async def get(console: Console, path: str, headers: dict[str, str] | None = None, **query: Any) -> Any:
    answer = await console.client.get(f"/api/models{path}", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


async def test_every_model_that_can_be_called(seeded: Console) -> None:
    listed = await get(seeded, "", provider="openai")
    names = [model["name"] for model in listed["models"]]
    assert {"gpt-4o", "gpt-4o-mini", "our-fine-tune"} <= {*names} and names == sorted(names)
    assert listed["total"] == len(names)
    keys = {model["name"]: model["accessible_by_keys"] for model in listed["models"]}
    assert (keys["gpt-4o"], keys["our-fine-tune"], keys["gpt-4"]) == (["key-1"], ["key-1"], [])
    house = {model["name"] for model in (await get(seeded, "", provider="house"))["models"]}
    assert {"house-7b", "gpt-4o"} <= house  # a server that speaks for OpenAI may have OpenAI's models
    few = await get(seeded, "", limit=3)
    assert len(few["models"]) == 3 and few["total"] > 200
    assert {model["provider"] for model in (await get(seeded, "", search="claude-HAIKU-4-5"))["models"]} >= {"anthropic"}
    assert [model["name"] for model in (await get(seeded, "", keys="key-1", query="fine"))["models"]] == ["our-fine-tune"]


async def test_a_virtual_key_sees_what_it_may_use(seeded: Console) -> None:
    listed = await get(seeded, "", {"x-bf-vk": VALUE})
    assert {model["provider"] for model in listed["models"]} == {"openai"}
    assert {"gpt-4o", "gpt-4o-mini"} <= {model["name"] for model in listed["models"]}
    assert "gpt-4" not in {model["name"] for model in listed["models"]}
    assert await get(seeded, "", virtual_key_id="workshop") == listed
    assert await get(seeded, "", {"x-bf-vk": "sk-bf-nobody"}) == {"models": [], "total": 0}
    assert (await get(seeded, "", {"x-bf-vk": VALUE}, unfiltered="true"))["total"] > 200
    assert (await seeded.client.get("/api/models", params={"virtual_key_id": "nobody"})).status_code == 404


async def test_prices_to_the_last_digit(seeded: Console) -> None:
    """gpt-4o-mini: $0.15 and $0.60 per million; house-7b: $0.30 and $1.20 by its override."""
    listed = (await get(seeded, "/details", provider="openai", search="gpt-4o-mini", limit=100))["models"]
    mini = next(model for model in listed if model["name"] == "gpt-4o-mini")
    assert (mini["input_cost_per_token"], mini["output_cost_per_token"]) == (Decimal("0.00000015"), Decimal("0.0000006"))
    assert mini["tiers"][0]["usd_per_million"]["input"] == Decimal("0.15")
    assert (mini["context_length"], mini["max_output_tokens"]) == (128_000, 16_384)
    assert mini["price_source"].startswith("genai-prices ")
    assert mini["pricing_override_ids"] == ["over-2"]  # for one virtual key: told of, not in the price
    (house,) = (await get(seeded, "/details", provider="house", search="house"))["models"]
    assert (house["input_cost_per_token"], house["price_source"]) == (Decimal("0.0000003"), "override house price (over-1)")
    (tuned,) = (await get(seeded, "/details", search="our-fine-tune"))["models"]
    assert tuned["input_cost_per_token"] is None and tuned["tiers"] == [] and tuned["price_source"] is None


async def test_tiers(seeded: Console) -> None:
    listed = (await get(seeded, "/details", provider="gemini", search="gemini-2.5-pro", limit=100))["models"]
    pro = next(model for model in listed if model["name"] == "gemini-2.5-pro")
    assert [(tier["above_input_tokens"], tier["usd_per_million"]["input"]) for tier in pro["tiers"]] == [
        (-1, Decimal("1.25")),
        (200_000, Decimal("2.5")),
    ]


async def test_pages_of_details(seeded: Console) -> None:
    first = await get(seeded, "/details", limit=2)
    second = await get(seeded, "/details", limit=2, offset=2)
    assert (first["limit"], first["offset"], second["offset"], len(second["models"])) == (2, 0, 2, 2)
    assert first["total"] == second["total"] and first["models"] != second["models"]
    assert len((await get(seeded, "/details", limit=5_000))["models"]) == 100
    assert len((await get(seeded, "/details"))["models"]) == 25


async def test_base_names_and_limits(seeded: Console) -> None:
    base = await get(seeded, "/base")
    assert base["total"] == len(base["models"]) == len({*base["models"]})
    assert "claude-haiku-4-5" in base["models"] and "claude-haiku-4-5-20251001" not in base["models"]
    assert await get(seeded, "/parameters", model="openai/gpt-4o-mini") == {
        "model": "gpt-4o-mini", "provider": "openai", "context_length": 128_000, "max_input_tokens": 128_000,
        "max_output_tokens": 16_384,
    }  # fmt: skip
    assert (await get(seeded, "/parameters", model="gpt-4o-mini", provider="openai"))["max_output_tokens"] == 16_384
    unknown = await seeded.client.get("/api/models/parameters", params={"model": "no-such-model"})
    assert unknown.status_code == 404
    missing = await seeded.client.get("/api/models/parameters")
    assert missing.status_code == 400 and "model" in missing.json()["error"]["message"]


async def test_a_page_takes_less_than_fifty_milliseconds(seeded: Console) -> None:
    for path, query in (("", {}), ("/details", {"limit": 100, "provider": "openai"}), ("/base", {})):
        best = 1.0
        for _ in range(5):
            started = time.perf_counter()
            await get(seeded, path, **query)
            best = min(best, time.perf_counter() - started)
        assert best < 0.05, path
