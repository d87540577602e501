"""Caps on models and on whole providers of a running gateway: which of them trips, what the caller is told, and that a model's
snapshot, alias or other spelling does not get past it."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.refusals import check_budget, check_refusal
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

TINY = "0.000000001"
KEYS = {name: f"sk-bf-model-caps-{name:x<30}" for name in ("capped", "inline", "blocked", "other", "windows", "prepaid")}
CAPPED_IN_FILE = {
    "model_name": "gpt-4o",
    "scope": "virtual_key",
    "scope_id": "capped",
    "budgets": [budget(TINY, name="gpt-4o-pot")],
}


def made_keys() -> list[Config]:
    openai = {"provider": "openai"}
    inline = {**openai, "model_budgets": [{"model_name": "gpt-4o-mini", "budgets": [budget(TINY, name="mini-pot", reset="1d")]}]}
    return [
        virtual_key("capped", value=KEYS["capped"], provider_configs=[openai], budgets=[budget(TINY, name="wide", reset="30m")]),
        virtual_key("inline", value=KEYS["inline"], provider_configs=[inline]),
        virtual_key("blocked", value=KEYS["blocked"], provider_configs=[{**openai, "blacklisted_models": ["gpt-4o"]}]),
        virtual_key("other", value=KEYS["other"]),
        virtual_key("windows", value=KEYS["windows"], provider_configs=[{"provider": "anthropic-like"}]),
        virtual_key(budgets=[budget(5)]),
    ]


def governance() -> Config:
    hour, day = budget("0.000000002", name="provider-hour"), budget(TINY, name="provider-day", reset="1d")
    return {
        "model_configs": [
            CAPPED_IN_FILE,
            {"model_name": "gpt-4.1*", "provider": "openai", "budgets": [budget(TINY, name="line")]},
            {"model_name": "o3", "rate_limit": {"request_max_limit": 0, "request_reset_duration": "1d"}},
        ],
        "providers": [{"name": "anthropic-like", "budgets": [day, hour]}],
    }


@dataclass
class World:
    gateway: Gateway
    provider: PretendProcess

    def call(self, key: str, model: str, prefix: str = "openai") -> Answer:
        with Wire.to("127.0.0.1", self.gateway.port) as wire:
            return wire.ask(post_json(f"/{prefix}/v1/chat/completions", CHAT.body(model=model), {"x-bf-vk": KEYS[key]}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with PretendProcess() as provider:
        made = config_for(provider.url, virtual_keys=made_keys(), governance=governance())
        made["providers"]["anthropic-like"] = {
            "keys": [{"name": "x", "value": "sk-x-0000000000"}], "network_config": {"base_url": provider.url},
            "custom_provider_config": {"base_provider_type": "openai"},
        }  # fmt: skip
        with Gateway(tmp_path_factory.mktemp("model-caps"), made) as running:
            yield World(running, provider)
            assert "Traceback" not in running.log()


SPELLINGS = ["gpt-4o", "gpt-4o-2024-08-06", "GPT-4o", " gpt-4o ", "models/gpt-4o", "openai/gpt-4o"]


@pytest.mark.parametrize("model", SPELLINGS)
def test_a_cap_on_a_model_inside_a_key_trips_before_the_keys_own(world: World, model: str) -> None:
    body = check_refusal(world.call("capped", model), 402, "budget_exceeded")
    check_budget(body)
    assert body["budget"]["name"] == "gpt-4o-pot"
    assert (body["budget"]["scope"], body["budget"]["scope_name"]) == ("virtual_key_model", "capped on gpt-4o")
    assert [one["scope"] for one in body["exceeded"]] == ["virtual_key_model", "virtual_key"], "though its window is the longer one"
    assert "of model of a virtual key 'capped on gpt-4o'" in body["message"]


def test_another_model_of_the_key_meets_the_keys_own_cap_alone(world: World) -> None:
    body = check_refusal(world.call("capped", "gpt-4o-mini"), 402, "budget_exceeded")
    assert [one["name"] for one in body["exceeded"]] == ["wide"]


def test_a_model_budget_inside_a_provider_config(world: World) -> None:
    body = check_refusal(world.call("inline", "gpt-4o-mini-2024-07-18"), 402, "budget_exceeded")
    assert (body["budget"]["scope"], body["budget"]["scope_name"]) == ("virtual_key_model", "inline on gpt-4o-mini at openai")
    assert world.call("inline", "gpt-4o").status == 200
    assert world.call("other", "gpt-4o-mini").status == 200


@pytest.mark.parametrize("model", SPELLINGS)
def test_a_block_holds_for_every_spelling(world: World, model: str) -> None:
    check_refusal(world.call("blocked", model), 403, "model_blocked")
    assert world.call("blocked", "gpt-4o-mini").status == 200


def test_caps_of_everybody_on_a_line_of_models_and_on_one(world: World) -> None:
    body = check_refusal(world.call("other", "gpt-4.1-mini-2025-04-14"), 402, "budget_exceeded")
    assert (body["budget"]["scope"], body["budget"]["scope_name"]) == ("model", "gpt-4.1* at openai")
    limited = check_refusal(world.call("other", "o3-2025-04-16"), 429, "request_limited")
    assert (limited["budget"]["scope"], limited["budget"]["scope_id"]) == ("model", "o3")


def test_a_provider_wide_cap_in_two_windows(world: World) -> None:
    """Both are in the way; the shorter window is named, though the file says the longer one first."""
    body = check_refusal(world.call("windows", "gpt-4o-mini", "anthropic-like"), 402, "budget_exceeded")
    check_budget(body)
    assert [(one["scope"], one["name"], one["reset_duration"]) for one in body["exceeded"]] == [
        ("provider", "provider-hour", "1h"), ("provider", "provider-day", "1d"),
    ]  # fmt: skip


def test_what_a_model_cost_is_charged_to_every_config_that_matches(world: World) -> None:
    """Made at run time over the API; the next calls are charged to all three, and the one that is empty first trips."""
    with world.gateway.console() as console:
        key = console.get("/api/governance/virtual-keys/other").json()["virtual_key"]
        ids = []
        for fields in ({"scope": "virtual_key", "scope_id": key["id"]}, {}, {"provider": "openai"}):
            body = {"model_name": "gpt-4.5-preview", "budgets": [{"max_limit": 5, "reset_duration": "1d"}], **fields}
            made = console.post("/api/governance/model-configs", json=body)
            assert made.status_code == 200, made.text
            ids.append(made.json()["model_config"]["id"])

        def spent() -> list[float]:
            found = [console.get(f"/api/governance/model-configs/{one.replace('/', '%2F')}").json()["model_config"] for one in ids]
            return [one["budgets"][0]["current_usage"] for one in found]

        def charged() -> list[float]:
            assert world.call("other", "gpt-4.5-preview-2025-02-27").status == 200
            return eventually(spent, lambda sums: sums[0] > 0)

        sums = eventually(charged, lambda sums: len(set(sums)) == 1 and sums[0] > 0)
        limit = {"budgets": [{"max_limit": sums[0] / 2, "reset_duration": "1d"}]}
        assert console.put(f"/api/governance/model-configs/{ids[1]}", json=limit).status_code == 200
    refused = eventually(lambda: world.call("other", "gpt-4.5-preview"), lambda answer: answer.status == 402)
    assert check_refusal(refused, 402, "budget_exceeded")["budget"]["scope_id"] == "gpt-4.5-preview"


def test_file_only_mode_and_a_changed_file(world: World, tmp_path: Path) -> None:
    def document(model_configs: list[Config]) -> Config:
        made = config_for(world.provider.url, virtual_keys=[virtual_key("capped")], governance={"model_configs": model_configs})
        return {**made, "config_store": {"enabled": False}}

    def call(gateway: Gateway, model: str) -> Answer:
        with Wire.to("127.0.0.1", gateway.port) as wire:
            return wire.ask(post_json(CHAT.target, CHAT.body(model=model), {"x-bf-vk": VIRTUAL_KEY}))

    with Gateway(tmp_path, document([CAPPED_IN_FILE])) as gateway:
        body = check_refusal(call(gateway, "gpt-4o-2024-08-06"), 402, "budget_exceeded")
        assert (body["budget"]["scope"], body["budget"]["scope_name"]) == ("virtual_key_model", "capped on gpt-4o")
        cap_id = body["budget"]["id"]
        assert call(gateway, "gpt-4o-mini").status == 200
        other: dict[str, Any] = {**CAPPED_IN_FILE, "model_name": "gpt-4o-mini"}
        gateway.write_config(document([CAPPED_IN_FILE, other]))
        os.kill(gateway.pid, signal.SIGHUP)
        refused = eventually(lambda: call(gateway, "gpt-4o-mini"), lambda answer: answer.status == 402, 30)
        assert check_refusal(refused, 402, "budget_exceeded")["budget"]["scope_name"] == "capped on gpt-4o-mini"
        again = check_refusal(call(gateway, "gpt-4o"), 402, "budget_exceeded")
        assert again["budget"]["id"] == cap_id, "the cap that was there is the same one"
