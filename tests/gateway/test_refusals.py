"""Every refusal that exists, from a running gateway, in the shape that each kind of caller understands."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import ANTHROPIC, CHAT, EACH_DIALECT, GEMINI, SHAPES, Shape
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.refusals import check_budget, check_refusal
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

NAMES = (
    "inactive", "expired", "openai-only", "two-models", "empty", "empty-team", "empty-config", "prepaid", "daily",
    "one-token", "one-token-later", "one-request", "one-at-a-time", "tight", "several", "soft", "observe", "calendar", "rates",
)  # fmt: skip
KEYS = {name: f"sk-bf-{number:02}-{name}-{'x' * 20}" for number, name in enumerate(NAMES)}
TINY = "0.000000001"


def made_keys() -> list[Config]:
    def key(name: str, **fields: Any) -> Config:
        return virtual_key(f"{name}-vk", value=KEYS[name], **fields)

    per_minute = {"request_reset_duration": "1m", "token_reset_duration": "1m"}
    return [
        virtual_key(budgets=[budget(50)]),
        key("inactive", is_active=False),
        key("expired", expires_at="2020-01-01T00:00:00Z"),
        key("openai-only", provider_configs=[{"provider": "openai"}]),
        key("two-models", provider_configs=[{"provider": "*", "allowed_models": ["gpt-4o-mini", "claude-*", "gemini-*-flash"]}]),
        key("empty", budgets=[budget(TINY, name="empty-budget")]),
        key("empty-team", team_id="team-1"),
        key("empty-config", provider_configs=[{"provider": name, "budgets": [budget(TINY, name="config-budget")]}
                                              for name in ("openai", "anthropic", "gemini")]),
        key("prepaid", budgets=[budget(TINY, name="prepaid-budget", reset=None)]),
        key("daily", budgets=[budget(TINY, name="daily-budget", reset="1d", calendar_aligned=True)]),
        key("one-token", rate_limit={"token_max_limit": 1, **per_minute}),
        key("one-token-later", rate_limit={"token_max_limit": 1, "token_reset_duration": "1d"}),
        key("one-request", rate_limit={"request_max_limit": 1, **per_minute}),
        key("one-at-a-time", rate_limit={"concurrent_max_limit": 1}),
        key("tight", budgets=[budget("0.0003", name="tight-budget")]),
        key("several", budgets=[budget(TINY, name="hour"), budget("0.000000002", name="day", reset="1d")], team_id="team-1"),
        key("soft", budgets=[budget(TINY, name="soft-budget", enforcement="soft")]),
        key("observe", budgets=[budget(TINY, name="observe-budget", enforcement="observe")]),
        key("calendar", budgets=[budget(TINY, name="month", reset="1M", calendar_aligned=True)]),
        key("rates", rate_limit={"request_max_limit": 1, "token_max_limit": 1, **per_minute}),
    ]  # fmt: skip


@dataclass
class World:
    gateway: Gateway
    provider: PretendProcess

    def post(self, shape: Shape, key: str | None = None, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        value = KEYS[key] if key is not None else VIRTUAL_KEY
        with Wire.to("127.0.0.1", self.gateway.port) as wire:
            return wire.ask(post_json(shape.target, shape.body(**fields), {"x-bf-vk": value, **(headers or {})}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    governance = {"teams": [{"id": "team-1", "name": "research", "budgets": [budget(TINY, name="team-budget", reset="7d")]}]}
    with PretendProcess() as provider:
        config = config_for(provider.url, virtual_keys=made_keys(), governance=governance, gateway={"hold_wait_seconds": 1})
        config["providers"]["mistral"] = {"keys": [], "network_config": {"base_url": provider.url}}
        config["governance"]["virtual_keys"][0]["provider_configs"].append({"provider": "mistral"})
        with Gateway(tmp_path_factory.mktemp("refusals"), config) as gateway:
            yield World(gateway, provider)
            assert "Traceback" not in gateway.log()


@pytest.fixture(autouse=True)
def nothing_reaches_the_provider(world: World, request: pytest.FixtureRequest) -> Iterator[None]:
    before = world.provider.bill()["requests"]
    yield
    if "served" not in request.fixturenames:
        assert world.provider.bill()["requests"] == before


@pytest.fixture
def served() -> None:
    """Marks a test in which some calls are let through."""


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize(
    "key,kind",
    [("inactive", "virtual_key_blocked"), ("expired", "virtual_key_blocked"), ("two-models", "model_blocked")],
)  # fmt: skip
def test_what_a_key_may_not_do(world: World, shape: Shape, key: str, kind: str) -> None:
    fields: dict[str, Any] = {"model": "gpt-4o" if shape.dialect == "openai" else "other-model"} if kind == "model_blocked" else {}
    if kind == "model_blocked" and shape is GEMINI:
        shape = Shape("gemini", "/genai", "/v1beta/models/gemini-2.5-pro:generateContent", shape.host, "gemini", "")
        fields = {}
    check_refusal(world.post(shape, key, **fields), 403, kind, shape.dialect)


def test_a_provider_that_a_key_may_not_use(world: World) -> None:
    body = check_refusal(world.post(ANTHROPIC, "openai-only"), 403, "provider_blocked", "anthropic")
    assert "'anthropic'" in body["message"] and "openai-only-vk" in body["message"]
    check_refusal(world.post(GEMINI, "openai-only"), 403, "provider_blocked", "gemini")


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_used_up_budget(world: World, shape: Shape, stream: bool) -> None:
    body = check_refusal(world.post(shape, "empty", stream=stream and shape is not GEMINI), 402, "budget_exceeded", shape.dialect)
    cap = check_budget(
        body, name="empty-budget", scope="virtual_key", scope_name="empty-vk", unit="usd", reset_duration="1h",
        calendar_aligned=False, current_usage=0, held=0,
    )  # fmt: skip
    assert cap["max_limit"] == cap["remaining"] == 1e-9
    assert cap["needed"] > cap["remaining"]
    assert "resets at" in body["message"] and "every 1h" in body["message"]
    assert _moment(cap["resets_at"]) - _moment(cap["last_reset"]) == 3600
    if shape.dialect == "openai":
        kinds = {"chat": "chat_completion", "responses": "responses"}
        assert body["extra_fields"] == {
            "provider": "openai", "original_model_requested": "gpt-4o-mini", "request_type": kinds[shape.name],
        }  # fmt: skip


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_numbers_are_plain_decimals(world: World) -> None:
    raw = world.post(CHAT, "empty").body
    assert b'"max_limit":0.000000001' in raw and b"e-" not in raw.split(b'"request_id"')[0]


@pytest.mark.parametrize("shape", EACH_DIALECT, ids=lambda shape: shape.name)
def test_each_scope_names_itself(world: World, shape: Shape) -> None:
    team = check_refusal(world.post(shape, "empty-team"), 402, "budget_exceeded", shape.dialect)
    check_budget(team, name="team-budget", scope="team", scope_id="team-1", scope_name="research", reset_duration="7d")
    config = check_refusal(world.post(shape, "empty-config"), 402, "budget_exceeded", shape.dialect)
    check_budget(config, name="config-budget", scope="provider_config")


def test_the_narrowest_cap_is_named_and_all_are_listed(world: World) -> None:
    body = check_refusal(world.post(CHAT, "several"), 402, "budget_exceeded")
    check_budget(body, name="hour", scope="virtual_key")
    assert [row["name"] for row in body["exceeded"]] == ["hour", "day", "team-budget"]


def test_windows_are_told_as_they_are(world: World) -> None:
    prepaid = check_budget(check_refusal(world.post(CHAT, "prepaid"), 402, "budget_exceeded"), name="prepaid-budget")
    assert (prepaid["reset_duration"], prepaid["resets_at"]) == (None, None)
    now = datetime.now(UTC)
    daily = check_budget(check_refusal(world.post(CHAT, "daily"), 402, "budget_exceeded"), calendar_aligned=True)
    assert datetime.fromisoformat(daily["last_reset"]) <= now < datetime.fromisoformat(daily["resets_at"])
    assert daily["resets_at"][11:19] == daily["last_reset"][11:19] == "00:00:00"
    month = check_budget(check_refusal(world.post(CHAT, "calendar"), 402, "budget_exceeded"), name="month")
    assert month["last_reset"][:10] == now.strftime("%Y-%m-01") and month["resets_at"][8:10] == "01"


@pytest.mark.parametrize("shape", EACH_DIALECT, ids=lambda shape: shape.name)
def test_a_token_limit(world: World, served: None, shape: Shape) -> None:
    world.post(shape, "one-token")
    eventually(lambda: world.post(shape, "one-token").status, lambda status: status == 429)
    body = check_refusal(world.post(shape, "one-token"), 429, "token_limited", shape.dialect, transient=True)
    assert body["budget"]["unit"] == "tokens" and body["budget"]["max_limit"] == 1
    answer = world.post(shape, "one-token")
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_limit_that_resets_much_later_is_final(world: World, served: None) -> None:
    world.post(CHAT, "one-token-later")
    eventually(lambda: world.post(CHAT, "one-token-later").status, lambda status: status == 429)
    check_refusal(world.post(CHAT, "one-token-later"), 429, "token_limited")


def test_a_request_limit(world: World, served: None) -> None:
    assert world.post(CHAT, "one-request").status == 200
    for shape in EACH_DIALECT:
        body = check_refusal(world.post(shape, "one-request"), 429, "request_limited", shape.dialect, transient=True)
        assert body["budget"]["unit"] == "requests" and body["budget"]["current_usage"] + body["budget"]["held"] == 1


def test_several_limits_at_once(world: World, served: None) -> None:
    assert world.post(CHAT, "rates").status in (200, 429)
    eventually(lambda: world.post(CHAT, "rates").status, lambda status: status == 429)
    body = check_refusal(world.post(CHAT, "rates"), 429, "rate_limited", transient=True)
    assert {row["unit"] for row in body["exceeded"]} == {"tokens", "requests"}


def _in_flight(world: World, key: str, **fields: Any) -> threading.Thread:
    """A slow call on a thread, started and seen by the provider."""
    headers = {"x-pretend-first-token-ms": "2500"}
    thread = threading.Thread(target=lambda: world.post(CHAT, key, headers, **fields), daemon=True)
    thread.start()
    eventually(lambda: world.provider.bill()["in_flight"], lambda count: count == 1)
    return thread


def test_one_call_at_a_time(world: World, served: None) -> None:
    thread = _in_flight(world, "one-at-a-time")
    body = check_refusal(world.post(CHAT, "one-at-a-time"), 429, "concurrency_limited", transient=True)
    assert (body["budget"]["unit"], body["budget"]["held"]) == ("concurrent", 1)
    thread.join(20)
    assert world.post(CHAT, "one-at-a-time").status == 200


def test_a_budget_that_only_others_hold(world: World, served: None) -> None:
    """A call holds most of $0.0003 for its 400 tokens; the next would fit alone, waits a second and is told to come back."""
    thread = _in_flight(world, "tight", limit=400)
    for shape in (CHAT,):
        answer = world.post(shape, "tight", limit=400)
        body = check_refusal(answer, 429, "budget_held", shape.dialect, transient=True)
        assert answer.headers["retry-after"] == "2"
        assert body["budget"]["held"] > 0
    thread.join(20)
    eventually(lambda: world.post(CHAT, "tight", limit=16).status, lambda status: status == 200)


@pytest.mark.parametrize("key", ["soft", "observe"])
def test_caps_that_are_not_hard(world: World, served: None, key: str) -> None:
    """Soft lets the first call through, because nothing is spent yet, and refuses afterwards; observe never refuses."""
    assert world.post(CHAT, key).status == 200
    if key == "soft":
        eventually(lambda: world.post(CHAT, key).status, lambda status: status == 402)
        check_budget(check_refusal(world.post(CHAT, key), 402, "budget_exceeded"), name="soft-budget")
    else:
        assert [world.post(CHAT, key).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("shape", [CHAT, ANTHROPIC], ids=lambda shape: shape.name)
def test_a_model_without_a_price(world: World, shape: Shape) -> None:
    body = check_refusal(world.post(shape, model="nobody-knows-this-1"), 402, "unpriced_model", shape.dialect)
    assert "nobody-knows-this-1" in body["message"] and "gateway.unpriced" in body["message"]


def test_a_provider_without_a_key(world: World) -> None:
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        data = post_json("/mistral/v1/chat/completions", CHAT.body(model="mistral-small-latest"), {"x-bf-vk": VIRTUAL_KEY})
        body = check_refusal(wire.ask(data), 400, "no_provider_key")
    assert "'mistral'" in body["message"]


def test_a_model_of_another_protocol(world: World) -> None:
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        data = post_json("/v1/chat/completions", CHAT.body(model="anthropic/claude-haiku-4-5"), {"x-bf-vk": VIRTUAL_KEY})
        body = check_refusal(wire.ask(data), 400, "wrong_dialect")
    assert "/anthropic" in body["message"]


CODEX = [{"originator": "codex_cli_rs"}, {"user-agent": "codex_cli_rs/0.50.0 (Linux; x86_64)"}]


@pytest.mark.parametrize("headers", CODEX, ids=["originator", "user agent"])
def test_codex_is_told_in_its_own_words(world: World, headers: dict[str, str]) -> None:
    shape = SHAPES[1]
    answer = world.post(shape, "empty", headers)
    assert answer.status == 429
    assert answer.headers["x-should-retry"] == "false" and "retry-after" not in answer.headers
    body = answer.json()
    assert body["error"]["type"] == "usage_limit_reached"
    assert body["error"]["resets_at"] == int(_moment(body["budget"]["resets_at"]))
    assert "empty-budget" in body["error"]["message"]


def test_codex_and_a_budget_that_never_resets(world: World) -> None:
    check_refusal(world.post(SHAPES[1], "prepaid", CODEX[0]), 402, "budget_exceeded")


def test_other_refusals_are_the_same_for_codex(world: World) -> None:
    check_refusal(world.post(SHAPES[1], "inactive", CODEX[0]), 403, "virtual_key_blocked")


def test_a_run_with_a_budget_of_its_own(world: World) -> None:
    with world.gateway.console() as console:
        made = console.post("/api/governance/runs", json={"virtual_key": "workshop-vk-1", "budget_usd": 0.000001})
        made.raise_for_status()
        run = made.json()["run"]
        with Wire.to("127.0.0.1", world.gateway.port) as wire:
            answer = wire.ask(post_json(CHAT.target, CHAT.body(), {"x-bf-vk": run["value"]}))
            body = check_refusal(answer, 402, "budget_exceeded")
            check_budget(body, scope="run", scope_id=run["id"], max_limit=0.000001)
            assert json.loads(answer.body)["budget"]["resets_at"] is None
        console.delete(f"/api/governance/runs/{run['id']}").raise_for_status()
    with Wire.to("127.0.0.1", world.gateway.port) as wire:
        data = post_json(CHAT.target, CHAT.body(), {"x-bf-vk": run["value"]})
        ended = eventually(lambda: wire.ask(data), lambda answer: answer.status != 402)
        assert ended.status in (401, 403)


def test_refusals_are_in_the_logs(world: World) -> None:
    """The identical ones of a second are one row with a count, so it is not looked for by id."""
    world.post(ANTHROPIC, "calendar")

    def refused() -> list[dict[str, Any]]:
        return [
            row for row in world.gateway.log_rows() if (row["virtual_key_name"], row["provider"]) == ("calendar-vk", "anthropic")
        ]

    row = eventually(refused, bool)[0]
    assert (row["status"], row["http_status"], row["cost_nanos"], row["count"]) == ("refused", 402, 0, 1)
    assert (row["refusal_type"], row["model"]) == ("budget_exceeded", ANTHROPIC.model)
    assert row["refusal_cap"] and "month" in row["message"]
