"""mitmdump and mitmweb, unmodified, with the addon as a script: the same enforcement, ledger and logs in one process."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.config import PROVIDER_KEYS, VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import ANTHROPIC, CHAT
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.refusals import check_budget, check_refusal
from tests.support.servers import unused_port
from tests.support.stock_tool import StockTool
from tests.support.waiting import eventually
from tests.support.wire import post_json, request, tunnel

EMPTY_KEY = "sk-bf-9999999999999999999999999999999empty9"
KEY = {"x-bf-vk": VIRTUAL_KEY}
EMPTY = {"x-bf-vk": EMPTY_KEY}


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


def config(provider: PretendProcess) -> Config:
    keys = [
        virtual_key(budgets=[budget(5)]),
        virtual_key("empty-vk", value=EMPTY_KEY, budgets=[budget("0.000000001", name="nothing-left")]),
    ]
    return config_for(provider.url, virtual_keys=keys)


def check_books(tool: StockTool, provider: PretendProcess, *, calls: int) -> None:
    """After an orderly end: logs.db has every call, and a gateway on the same directory finds what was spent."""
    billed = provider.bill()
    rows = [row for row in tool.log_rows() if row["status"] == "success"]
    assert len(rows) == calls == billed["calls"]
    assert sum(row["cost_nanos"] for row in rows) == billed["cost_nanos"] > 0
    refused = [row for row in tool.log_rows() if row["refusal_type"] == "budget_exceeded"]
    assert refused and all(row["http_status"] == 402 for row in refused)
    with Gateway(tool.app_dir, None) as gateway:
        assert gateway.spent_nanos() == billed["cost_nanos"]


@pytest.mark.parametrize(
    "program,options", [("mitmdump", ()), ("mitmweb", ("--no-web-open-browser",))], ids=["mitmdump", "mitmweb"]
)
def test_regular_mode(provider: PretendProcess, tmp_path: Path, program: str, options: tuple[str, ...]) -> None:
    provider.reset()
    if program == "mitmweb":
        options += ("--set", f"web_port={unused_port()}")
    with StockTool(program, tmp_path / "app", config(provider), *options) as tool:
        host = {"host": f"127.0.0.1:{tool.port}"}
        allowed = tool.ask(post_json(CHAT.target, CHAT.body(), KEY | host))
        assert allowed.status == 200, (allowed.body, tool.log())
        assert allowed.json()["usage"]["completion_tokens"] == 16
        body = check_refusal(tool.ask(post_json(CHAT.target, CHAT.body(), EMPTY | host)), 402, "budget_exceeded")
        check_budget(body, name="nothing-left", scope_name="empty-vk")
        check_refusal(tool.ask(post_json(CHAT.target, CHAT.body(), host)), 401, "virtual_key_required")
        check_refusal(tool.ask(request("GET", "/nope", KEY | host)), 404, "not_found")
        # Through the intercepting proxy as well, under the app directory's own authority.
        ca = tmp_path / "ca.pem"
        ca.write_bytes(tool.ask(request("GET", "/ca.pem", host)).body)
        with tunnel(("127.0.0.1", tool.port), ANTHROPIC.host, key=VIRTUAL_KEY) as wire:
            wire.start_tls(ANTHROPIC.host, ca)
            assert wire.ask(post_json(ANTHROPIC.path, ANTHROPIC.body(), {"x-api-key": "own"}, host=ANTHROPIC.host)).status == 200
        sent = provider.last(2)
        assert f"Bearer {PROVIDER_KEYS['openai']}" in json.dumps(sent[0]) and '"own"' in json.dumps(sent[1])
        assert "sk-bf-" not in json.dumps(sent)
        eventually(tool.log_rows, lambda rows: sum(row["status"] == "success" for row in rows) == 2)
        tool.terminate()
        assert "Traceback" not in tool.log() and PROVIDER_KEYS["openai"] not in tool.log()
        check_books(tool, provider, calls=2)


def test_reverse_mode_where_the_target_names_the_provider(provider: PretendProcess, tmp_path: Path) -> None:
    provider.reset()
    with StockTool("mitmdump", tmp_path / "app", config(provider), "--mode", "reverse:https://api.openai.com") as tool:
        allowed = tool.ask(post_json(CHAT.path, CHAT.body(), KEY, host="api.openai.com"))
        assert allowed.status == 200, allowed.body
        check_refusal(tool.ask(post_json(CHAT.path, CHAT.body(), EMPTY, host="api.openai.com")), 402, "budget_exceeded")
        for host in ("localhost", f"127.0.0.1:{tool.port}"):
            answer = tool.ask(post_json(CHAT.path, CHAT.body(stream=True), KEY, host=host))
            assert answer.status == 200, f"Host {host}: {answer.body!r}"
        assert provider.last(1)[0]["target"] == CHAT.path
        eventually(tool.log_rows, lambda rows: sum(row["status"] == "success" for row in rows) == 3)
        tool.terminate()
        assert "Traceback" not in tool.log()
        check_books(tool, provider, calls=3)


def test_a_configuration_that_is_broken_ends_the_tool_or_refuses_everything(provider: PretendProcess, tmp_path: Path) -> None:
    tool = StockTool("mitmdump", tmp_path / "app", config(provider))
    (tmp_path / "app" / "config.json").write_text("{ broken")
    seen = provider.bill()["requests"]
    with pytest.raises((RuntimeError, AssertionError)), tool:
        pass
    assert "config.json" in tool.log() and "Traceback" not in tool.log()
    assert provider.bill()["requests"] == seen
