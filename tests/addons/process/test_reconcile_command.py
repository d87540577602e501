"""The command end to end: a real gateway in front of the pretend provider, whose own bill is exported in the providers' shapes."""

import asyncio
import gzip
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from addons.process.reconcile_command import asked_days, billed_names, tolerance_nanos
from store.clock import Ids, SystemClock
from store.config_store.bootstrap import bootstrap
from store.errors import UserError
from store.settings import settings_from
from store.sqlite import SqliteDatabase
from tests.support import exports
from tests.support.config import budget, config_for, virtual_key
from tests.support.gateway import Gateway
from tests.support.made_books import Called, write_books
from tests.support.provider import PretendProcess
from tests.support.traffic import Ask, all_at_once
from tests.support.waiting import eventually

DAY_MS = 86_400_000

ASKS = [
    Ask("chat", pretend={"input_tokens": 900, "output_tokens": 40, "cached_tokens": 300}),
    Ask("chat", stream=True, pretend={"input_tokens": 1200, "output_tokens": 60, "reasoning_tokens": 20}),
    Ask("responses", stream=True, pretend={"input_tokens": 500, "output_tokens": 30, "cached_tokens": 100}),
    Ask("messages", pretend={"input_tokens": 5000, "output_tokens": 50, "cached_tokens": 700, "cache_write_tokens": 900}),
    Ask("messages", stream=True, pretend={"input_tokens": 4000, "output_tokens": 70, "cache_write_1h_tokens": 800}),
    Ask("chat", pretend={"status": 500}),
    Ask("gemini", pretend={"input_tokens": 10, "output_tokens": 5}),
]
EMBEDDING = {"model": "text-embedding-3-small", "input": "a text to be embedded"}


@dataclass
class World:
    """A gateway that was stopped after its calls, and what the provider billed for them."""

    gateway: Gateway
    bill: list[dict[str, Any]]
    folder: Path

    @property
    def days(self) -> list[str]:
        return sorted({line["started_at"][:10] for line in self.bill})

    def files(self, name: str, *documents: Any) -> list[str]:
        """Written as files: texts as they are, everything else as JSON lines."""
        paths = []
        for number, document in enumerate(documents):
            path = self.folder / f"{name}-{number}"
            path.write_text(document if isinstance(document, str) else "\n".join(map(json.dumps, document)), encoding="utf-8")
            paths.append(str(path))
        return paths

    def run(self, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            self.gateway.command("reconcile", *arguments),
            env=self.gateway.env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def report(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Tokens exactly, money to the nano-dollar but for the rounding of each call."""
        code, out, err = self.run("--json", "--tolerance", "0.00000002", *arguments)
        assert err == ""
        return code, json.loads(out)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("reconcile")
    with PretendProcess() as provider:
        config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(50)])])
        with Gateway(folder / "app", config) as gateway:
            answers = asyncio.run(all_at_once(gateway.url, [ask for ask in ASKS for _ in range(3)]))
            assert sorted({answer.status for answer in answers}) == [200, 500]
            with gateway.client() as client:
                client.post("/openai/v1/embeddings", json=EMBEDDING).raise_for_status()
            eventually(gateway.log_rows, lambda rows: len(rows) == 3 * len(ASKS) + 1)
            assert gateway.terminate() == 0
            bill = provider.bill()["lines"]
            assert len(bill) == 3 * 6 + 1
            yield World(gateway, bill, folder)


def openai(world: World) -> list[Any]:
    calls = exports.billed_of(world.bill, "openai")
    return [
        exports.openai_usage(calls, world.days),
        exports.openai_usage(calls, world.days, kind="embeddings"),
        exports.openai_costs(calls, world.days),
    ]


def anthropic(world: World) -> list[Any]:
    calls = exports.billed_of(world.bill, "anthropic")
    return [exports.anthropic_usage(calls, world.days), exports.anthropic_costs(calls, world.days)]


def test_what_openai_would_export_agrees_exactly(world: World) -> None:
    code, report = world.report(*world.files("openai", *openai(world)))
    assert (code, report["agrees"], report["exact"], report["notes"]) == (0, True, True, []), report
    day = world.days[0]
    if len(world.days) == 1:
        rows = {row["model"]: row for row in report["rows"]}
        assert set(rows) == {"gpt-4o-mini-2024-07-18", "text-embedding-3-small"}
        chat = rows["gpt-4o-mini-2024-07-18"]
        # 3 x (900 + 1,200 + 500) of input, of it 3 x (300 + 100) cached; 3 x (40 + 60 + 30) of output.
        assert chat["theirs"]["input_tokens"] == chat["ours"]["input_tokens"] == 7800
        assert chat["ours"]["cache_read_tokens"] == 1200 and chat["ours"]["output_tokens"] == 390
        assert chat["theirs"]["requests"] == chat["ours"]["requests"] == 9
        # 6,600 x 150 + 1,200 x 75 + 390 x 600 nano-dollars.
        assert chat["theirs"]["cost_usd"] == chat["ours"]["cost_usd"] == "0.001314"
        assert chat["day"] == day
    assert report["summary"].startswith(f"agrees exactly for {len(world.days)} day")


def test_what_anthropic_would_export_agrees_exactly(world: World) -> None:
    code, report = world.report(*world.files("anthropic", *anthropic(world)))
    assert (code, report["exact"]) == (0, True), report
    if len(world.days) == 1:
        (row,) = report["rows"]
        assert row["model"] == "claude-haiku-4-5-20251001"
        assert row["theirs"] | {"requests": 6} == row["ours"], "the export does not count requests"
        assert (row["ours"]["input_tokens"], row["ours"]["cache_write_tokens"]) == (27_000, 5_100)


def test_the_tables_of_the_dashboards(world: World) -> None:
    calls = [call for call in exports.billed_of(world.bill, "openai") if call.kind == "completions"]
    code, report = world.report(*world.files("table", exports.openai_usage_csv(calls, world.days)))
    assert code == 1 and [row["model"] for row in report["rows"] if row["verdict"] != "agrees"] == ["text-embedding-3-small"]
    claude = exports.billed_of(world.bill, "anthropic")
    shown = {"claude-haiku-4-5-20251001": "Claude Haiku 4.5"}
    tables = [exports.console_usage_csv(claude, world.days), exports.console_costs_csv(claude, world.days, shown)]
    code, report = world.report(*world.files("console", *tables))
    assert (code, report["agrees"]) == (0, True), report


def test_what_people_read(world: World) -> None:
    files = world.files("people", *openai(world))
    packed = world.folder / "packed.gz"
    packed.write_bytes(gzip.compress(Path(files[0]).read_bytes()))
    code, out, err = world.run(str(packed), *files[1:])
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["DAY", "MODEL", "SIDE", "REQUESTS", "INPUT", "CACHE", "READ", "CACHE", "WRITE", "OUTPUT", "USD"]
    assert lines[-1].startswith("agrees exactly for ") and lines[-1].endswith("tokens, amounts within $0.01")
    assert any(line.split()[:3] == [world.days[0], "gpt-4o-mini-2024-07-18", "openai"] for line in lines)


def test_a_call_past_the_gateway_is_named(world: World) -> None:
    calls = exports.billed_of(world.bill, "openai")
    past = replace(calls[0], fresh=1, output=2, cache_read=0)
    documents = [exports.openai_usage([*calls, past], world.days), exports.openai_usage(calls, world.days, kind="embeddings")]
    code, out, err = world.run(*world.files("past", *documents))
    assert (code, err) == (1, "")
    assert "the provider counted +1 input, +2 output tokens in 1 more request(s): calls that did not go through the gateway" in out
    assert out.splitlines()[-1].startswith("DOES NOT AGREE for ")


def test_the_days_asked_about(world: World) -> None:
    files = world.files("days", *openai(world))
    code, _, err = world.run("--from", "2001-01-01", "--to", "2001-01-02", *files)
    assert code == 2 and "nothing of the days asked about" in err
    code, out, _ = world.run("--from", world.days[0], "--to", "2099-01-01", *files)
    assert code == 1 and "the export does not cover" in out.splitlines()[-1]
    code, out, _ = world.run("--from", world.days[0], "--to", world.days[-1], *files)
    assert code == 0


def test_mistakes_are_one_line(world: World, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"data": [')
    usage = world.files("mistake", openai(world)[0])[0]
    for arguments, said in (
        ([], "Missing argument"),
        ([str(tmp_path / "none.json")], "there is no file"),
        ([str(broken)], "broken.json, line 1, column 11: this is not JSON"),
        (["--provider", "anthropic", usage], "is an export of openai, not of anthropic"),
        (["--provider", "google", usage], "'google' is not one of"),
        (["--from", "yesterday", usage], "--from 'yesterday' is not a day"),
        (["--tolerance", "much", usage], "--tolerance 'much' is not an amount"),
        (["--app-dir", str(tmp_path / "nowhere"), usage], "start the gateway once"),
    ):
        code, out, err = world.run(*arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err and len(err.strip().splitlines()) == 1, err
        assert err.startswith("tollgate: ")


def test_estimated_calls_are_explained(tmp_path: Path) -> None:
    """Streams that their callers left are booked as estimated; the provider bills what it generated."""
    with PretendProcess() as provider:
        config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(50)])])
        with Gateway(tmp_path / "app", config) as gateway:
            slow = {"x-pretend-chunk-delay-ms": "40", "x-pretend-output-tokens": "400", "x-pretend-chunk-tokens": "1"}
            body = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 400}
            with gateway.client() as client:
                with client.stream("POST", "/openai/v1/chat/completions", json=body, headers=slow) as stream:
                    next(stream.iter_lines())
                quick = {"x-pretend-output-tokens": "8"}
                client.post("/openai/v1/chat/completions", json=body | {"stream": False}, headers=quick).raise_for_status()
            eventually(gateway.log_rows, lambda rows: len(rows) == 2)
            bill = eventually(provider.bill, lambda found: found["in_flight"] == 0)["lines"]
            gateway.terminate()
            world = World(gateway, bill, tmp_path)
            calls = exports.billed_of(bill, "openai")
            files = world.files("left", exports.openai_usage(calls, world.days), exports.openai_costs(calls, world.days))
            code, report = world.report(*files)
            (row,) = report["rows"]
            assert (code, report["agrees"], report["exact"]) == (0, True, False), report
            assert row["verdict"] in ("explained", "agrees")
            if row["verdict"] == "explained":
                assert [finding["cause"] for finding in row["findings"]] == ["estimated"]
            assert "our books do not know exactly" in report["summary"]


# ---- the parts


def test_days_and_tolerances() -> None:
    assert asked_days(None, None) == (None, None)
    start, end = asked_days("2026-11-20", "2026-11-20")
    assert start == 1_795_132_800_000 and end == start + DAY_MS
    assert asked_days("2026-11-20", None) == (start, None)
    with pytest.raises(UserError, match="--from 2026-11-21 is after --to 2026-11-20"):
        asked_days("2026-11-21", "2026-11-20")
    assert [tolerance_nanos(text) for text in ("0.01", "$0.5", "0")] == [10_000_000, 500_000_000, 0]
    for text in ("-1", "NaN", "1e99", ""):
        with pytest.raises(UserError, match="--tolerance"):
            tolerance_nanos(text)


def test_which_of_our_providers_are_billed_by_it(tmp_path: Path) -> None:
    document = {
        "providers": {
            "openai": {"keys": [], "network_config": {"base_url": "http://127.0.0.1:1"}},
            "openai-eu": {
                "keys": [], "custom_provider_config": {"base_provider_type": "openai"},
                "network_config": {"base_url": "https://eu.api.openai.com/v1"},
            },
            "vllm": {
                "keys": [], "custom_provider_config": {"base_provider_type": "openai"},
                "network_config": {"base_url": "http://vllm.internal:8000"},
            },
            "claude-two": {
                "keys": [], "custom_provider_config": {"base_provider_type": "anthropic"},
                "network_config": {"base_url": "https://api.anthropic.com"},
            },
        }
    }  # fmt: skip
    clock = SystemClock()
    settings = settings_from(document, {}, source="test")
    database = SqliteDatabase.open(tmp_path / "config.db", clock=clock)
    try:
        database.migrate()
        bootstrap(database, settings, clock=clock, ids=Ids(clock))
        assert billed_names("openai", settings, database) == {"openai", "openai-eu"}
        assert billed_names("anthropic", settings, database) == {"anthropic", "claude-two"}
    finally:
        database.close()


def test_file_only_mode_takes_the_providers_from_the_file(tmp_path: Path) -> None:
    custom = {
        "keys": [],
        "custom_provider_config": {"base_provider_type": "openai"},
        "network_config": {"base_url": "https://api.openai.com"},
    }
    document = {"config_store": {"enabled": False}, "providers": {"second": custom}}
    database = SqliteDatabase.open(tmp_path / "ledger.db")
    try:
        database.migrate()
        assert billed_names("openai", settings_from(document, {}, source="test"), database) == {"openai", "second"}
    finally:
        database.close()


def test_without_logs_all_input_is_compared(tmp_path: Path) -> None:
    day = "2026-11-20"
    at_ms = exports.unix(day) * 1000 + DAY_MS // 2
    gateway = Gateway(tmp_path / "app", {})
    database = SqliteDatabase.open(tmp_path / "app" / "config.db")
    database.migrate()
    write_books(database, None, [Called("a", at_ms, "gpt-4o", 100, 10, answered="gpt-4o-2024-08-06", cost_nanos=1)])
    database.close()
    world = World(gateway, [], tmp_path)
    billed = exports.Billed(at_ms, "gpt-4o-2024-08-06", 70, 10, cache_read=30)
    code, report = world.report(*world.files("alone", exports.openai_usage([billed], [day])))
    assert (code, report["agrees"], report["exact"]) == (0, True, False)
    assert [finding["cause"] for finding in report["rows"][0]["findings"]] == ["classes"]


def test_the_exporter_refuses_a_bill_whose_parts_do_not_add_up() -> None:
    """So that a wrong price of its own cannot hide."""
    line = {
        "path": "/v1/chat/completions", "model": "gpt-4o", "started_at": "2026-11-20T00:00:00Z", "cost_nanos": 1,
        "usage": dict.fromkeys(
            ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "web_searches"), 0
        ),
    }  # fmt: skip
    with pytest.raises(AssertionError, match="do not add up"):
        exports.billed_of([line], "openai")
