"""Owners of caps come and go while their calls are under way: every call is charged once, at what the provider billed."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import books
from tests.support.config import Config, budget, virtual_key
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.waiting import eventually

ROUNDS = 4
CALLERS = 6
EXPECTED = ("virtual_key_not_found", "virtual_key_required", "provider_blocked", "no_provider_key", "not_found")
"""What a caller may be told who comes while something is gone."""
KEYS = ("steady", "victim", "of-team", "of-customer")
PRICE = {"gpt-4o-mini": 40 * 150 + 10 * 600, "gpt-4o": 40 * 2_500 + 10 * 10_000}
"""Nano-dollars of a call, at the list prices of the models."""


def value_of(name: str) -> str:
    return f"sk-bf-{name:0<32}"


def provider(url: str) -> Config:
    return {
        "keys": [{"name": "main", "value": "sk-main-000000", "models": ["*"], "weight": 1.0}],
        "network_config": {"base_url": url},
        "custom_provider_config": {"base_provider_type": "openai"},
    }


def document(url: str) -> Config:
    configs: list[Config] = [{"provider": "east", "budgets": [budget(100)]}, {"provider": "west"}]
    keys = [virtual_key(name, value=value_of(name), budgets=[budget(100)], provider_configs=configs) for name in KEYS[:1]]
    return {
        "providers": {"east": provider(url), "west": provider(url)},
        "governance": {"virtual_keys": keys},
    }


class Caller(threading.Thread):
    """Calls without end, streamed and whole, with every key in turn; a refusal is an answer too."""

    def __init__(self, gateway: Gateway, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"caller {number}", daemon=True)
        self.gateway, self.number, self.stop = gateway, number, stop
        self.answers: Counter[str] = Counter()
        self.fault: Exception | None = None

    def run(self) -> None:
        headers = {"x-pretend-input-tokens": "40", "x-pretend-output-tokens": "10", "x-pretend-first-token-ms": "5"}
        try:
            with httpx.Client(base_url=self.gateway.url, trust_env=False, timeout=30) as client:
                count = self.number
                while not self.stop.is_set():
                    key, model = KEYS[count % len(KEYS)], "gpt-4o" if count % 3 else "gpt-4o-mini"
                    body = {"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]}
                    path = ("/v1", "/east/v1", "/west/v1")[count % 5 % 3]
                    sent = headers | {"x-bf-vk": value_of(key)}
                    answer = client.post(f"{path}/chat/completions", json=body | {"stream": count % 2 == 0}, headers=sent)
                    said = "answered" if answer.status_code == 200 else str(answer.json()["type"])
                    self.answers[said] += 1
                    count += 1
        except Exception as fault:  # told by the test
            self.fault = fault


def edits(console: httpx.Client, url: str) -> list[Callable[[], Any]]:
    """One round of what an administrator does; each is undone by a later one."""
    governance = "/api/governance"
    config = [{"provider": "east", "budgets": [budget(50)], "model_budgets": [{"model_name": "gpt-4o", "budgets": [budget(9)]}]}]

    def made(path: str, **body: Any) -> Callable[[], Any]:
        return lambda: console.post(path, json=body).raise_for_status()

    def gone(path: str) -> Callable[[], Any]:
        return lambda: console.delete(path).raise_for_status()

    def key(name: str, **fields: Any) -> Callable[[], Any]:
        return made(f"{governance}/virtual-keys", **virtual_key(name, value=value_of(name), budgets=[budget(50)], **fields))

    def set_client(**fields: Any) -> Callable[[], Any]:
        return lambda: console.put("/api/config", json={"client_config": fields}).raise_for_status()

    return [
        made(f"{governance}/customers", id="c-1", name="customer", budgets=[budget(70)]),
        made(f"{governance}/teams", id="t-1", name="team", customer_id="c-1", budgets=[budget(60)]),
        key("victim", provider_configs=config),
        key("of-team", team_id="t-1", provider_configs=[{"provider": "*"}]),
        key("of-customer", customer_id="c-1", provider_configs=[{"provider": "west"}]),
        made(f"{governance}/model-configs", id="mc-1", model_name="gpt-4o", provider="west", budgets=[budget(80)]),
        made(f"{governance}/model-configs", id="mc-2", model_name="gpt*", budgets=[budget(80)]),
        set_client(enforce_auth_on_inference=False),
        gone(f"{governance}/model-configs/mc-1"),
        lambda: console.put(f"{governance}/providers/east", json={"budgets": [budget(90)]}).raise_for_status(),
        gone(f"{governance}/virtual-keys/id-of-victim"),
        gone("/api/providers/west"),
        set_client(enforce_auth_on_inference=None),
        made("/api/providers", provider="west", **provider(url)),
        gone(f"{governance}/teams/t-1"),
        gone(f"{governance}/model-configs/mc-2"),
        gone(f"{governance}/customers/c-1"),
        gone(f"{governance}/providers/east"),
        gone(f"{governance}/virtual-keys/id-of-of-team"),
        gone(f"{governance}/virtual-keys/id-of-of-customer"),
    ]


@pytest.mark.parametrize("workers", [2])
def test_every_call_is_charged_once_whatever_is_deleted(tmp_path: Path, workers: int) -> None:
    with PretendProcess() as east:
        made = document(east.url)
        with Gateway(tmp_path / "app", made, arguments=("--workers", str(workers))) as gateway:
            stop = threading.Event()
            callers = [Caller(gateway, number, stop) for number in range(CALLERS)]
            for caller in callers:
                caller.start()
            try:
                with gateway.console() as console:
                    for _ in range(ROUNDS):
                        for edit in edits(console, east.url):
                            edit()
                            stop.wait(0.03)
            finally:
                stop.set()
                for caller in callers:
                    caller.join(30)
            assert [caller.fault for caller in callers] == [None] * CALLERS
            answers = sum((caller.answers for caller in callers), Counter())
            eventually(lambda: books.open_holds(gateway.app_dir), lambda left: left == [])
            bill = east.bill()
            posts = books.posts(gateway.app_dir)
            charged = Counter(post.call_id for post in posts if post.cost_nanos)
            assert answers["answered"] > 100 and set(answers) <= {"answered", *EXPECTED}, answers
            assert set(charged.values()) == {1} and len(charged) == bill["calls"] == answers["answered"]
            assert sum(post.cost_nanos for post in posts) == bill["cost_nanos"]
            assert {post.cost_nanos for post in posts} - {0} == set(PRICE.values())
            assert books.held_nanos(gateway.app_dir) == 0
            code, told = books.verify_command(gateway)
            assert (code, told["clean"]) == (0, True), told
            assert "Traceback" not in gateway.log()
