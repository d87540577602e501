"""`demo`: a whole gateway in a temporary directory, a pretend provider behind it, and a budget that trips before your eyes."""

import http.client
import json
import os
import secrets
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from addons.process.child import orderly_end
from addons.process.client import RunningGateway
from addons.process.launch import LaunchedGateway, launch, spawn, stop_process
from store.errors import UserError
from store.money import format_usd, nanos_from_usd

KEY_NAME = "workshop-vk-1"
BUDGET_NAME = "workshop-vk-budget"
BUDGET_USD = Decimal("0.50")
WINDOW = "1h"
MODEL = "gpt-4o"
OUTPUT_TOKENS = 1900
OUTPUT_LIMIT = 2000
"""About two cents a call at the model's list price: the budget lasts for some twenty-five calls."""

_CALLS_AT_MOST = 200
_CALL_TIMEOUT_SECONDS = 15.0
_PROVIDER_READY_SECONDS = 20.0
_BAR = 30
_QUESTION = "Write a story about a tollgate. Make it long; nobody is watching the bill."


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's outcome as its client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def cost_nanos(self) -> int:
        """What the gateway says the call cost."""
        return nanos_from_usd(Decimal(self.headers.get("x-tollgate-cost-usd", "0")))


@dataclass(slots=True)
class Show:
    """What the audience sees: a bar that fills up in a terminal, one plain line a call elsewhere."""

    out: TextIO
    limit_nanos: int
    spent_nanos: int = 0
    calls: int = 0
    _live: bool = field(default=False)

    def __post_init__(self) -> None:
        self._live = self.out.isatty()

    def say(self, line: str = "") -> None:
        print(line, file=self.out, flush=True)

    def call(self, answer: Answer) -> None:
        self.calls += 1
        self.spent_nanos += answer.cost_nanos
        trimmed = "  (answer shortened to fit)" if "x-tollgate-trimmed" in answer.headers else ""
        line = (
            f"call {self.calls:>3}  {answer.status}  {format_usd(answer.cost_nanos):<10}"
            f"  {self._bar()}  {format_usd(self.spent_nanos)} of {format_usd(self.limit_nanos)}{trimmed}"
        )
        if self._live:
            self.out.write(f"\r\x1b[K{line}")
            self.out.flush()
        else:
            self.say(line)

    def end_of_calls(self) -> None:
        if self._live:
            self.say()

    def _bar(self) -> str:
        filled = min(_BAR, self.spent_nanos * _BAR // self.limit_nanos)
        return "[" + "#" * filled + "." * (_BAR - filled) + "]"


def run_demo(*, keep: bool, out: TextIO = sys.stdout) -> int:
    """Show a budget trip and clean up; 0 when the 402 came. With `keep`, everything stays up until Ctrl-C. Raises UserError."""
    show = Show(out, nanos_from_usd(BUDGET_USD))
    with orderly_end(), ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-demo-", ignore_cleanup_errors=True)))
        show.say("Tollgate demo: a pretend provider, a gateway in front of it, nothing leaves this machine.")
        provider = stack.enter_context(_pretend_provider(directory))
        value = f"sk-bf-{uuid.uuid4()}"
        app_dir = directory / "app"
        app_dir.mkdir(mode=0o700)
        (app_dir / "config.json").write_text(json.dumps(configuration(provider, value), indent=2), "utf-8")
        gateway = launch(app_dir, [], os.environ)
        stack.callback(gateway.stop)
        show.say(f"The key {KEY_NAME} has the budget {BUDGET_NAME}: ${BUDGET_USD} every {WINDOW}.")
        show.say(f"A loop calls {MODEL} until it trips.")
        _show_links(gateway, show)
        show.say()
        refusal = _call_until_refused(gateway.running, value, show)
        _explain(refusal, show)
        if keep:
            _wait_for_the_user(gateway, show)
        else:
            show.say("Everything ends now; tollgate demo --keep leaves dashboard and inspector up to look around.")
    return 0


def configuration(provider_url: str, key_value: str) -> dict[str, object]:
    """The demo's config.json: one provider at `provider_url`, one virtual key with one budget."""
    return {
        "providers": {
            "openai": {
                "keys": [{"name": "pretend", "value": f"sk-pretend-{secrets.token_hex(8)}"}],
                "network_config": {"base_url": provider_url},
            }
        },
        "governance": {
            "virtual_keys": [
                {
                    "id": KEY_NAME,
                    "name": KEY_NAME,
                    "value": key_value,
                    "provider_configs": [{"provider": "openai", "allowed_models": ["*"], "key_ids": ["*"]}],
                    "budgets": [{"name": BUDGET_NAME, "max_limit": float(BUDGET_USD), "reset_duration": WINDOW}],
                }
            ]
        },
    }


@contextmanager
def _pretend_provider(directory: Path) -> Iterator[str]:
    """The pretend provider as a process of its own; its address."""
    log = directory / "provider.log"
    command = [
        sys.executable, "-m", "addons.pretend", "--port", "0",
        "--default", f"output-tokens={OUTPUT_TOKENS}", "--default", "first-token-ms=40",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = spawn(command, output, os.environ)
    try:
        deadline = time.monotonic() + _PROVIDER_READY_SECONDS
        while not (address := _address_in(log)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"the pretend provider did not start: {log.read_text('utf-8', 'replace').strip() or 'no output'}")
            time.sleep(0.02)
        yield address
    finally:
        stop_process(process, timeout_seconds=5.0)


def _address_in(log: Path) -> str | None:
    first, newline, _ = log.read_text("utf-8", "replace").partition("\n")
    at = first.find("http://")
    return first[at:].strip() if newline and at >= 0 else None


def _call_until_refused(gateway: RunningGateway, key_value: str, show: Show) -> Answer:
    connection = _connection(gateway.gateway)
    try:
        for _ in range(_CALLS_AT_MOST):
            answer = _call(connection, key_value)
            if answer.status == http.client.PAYMENT_REQUIRED:
                show.end_of_calls()
                return answer
            if answer.status != http.client.OK:
                show.end_of_calls()
                text = answer.body.decode("utf-8", "replace")
                raise UserError(f"the demo expected 200 or 402 and got {answer.status}: {text}")
            show.call(answer)
    except (OSError, http.client.HTTPException) as fault:
        raise UserError(f"the demo's gateway at {gateway.gateway} broke off: {fault or type(fault).__name__}") from None
    finally:
        connection.close()
    raise UserError(f"the budget did not trip within {_CALLS_AT_MOST} calls, which cost {format_usd(show.spent_nanos)}")


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_CALL_TIMEOUT_SECONDS)


def _call(connection: http.client.HTTPConnection, key_value: str) -> Answer:
    body = {"model": MODEL, "max_tokens": OUTPUT_LIMIT, "messages": [{"role": "user", "content": _QUESTION}]}
    headers = {"Authorization": f"Bearer {key_value}", "Content-Type": "application/json"}
    connection.request("POST", "/openai/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def _explain(refusal: Answer, show: Show) -> None:
    show.say()
    show.say(f"Call {show.calls + 1} was refused before it left for the provider:")
    show.say()
    show.say(f"HTTP {refusal.status} {http.client.responses[refusal.status]}")
    for name in ("content-type", "x-should-retry", "x-request-id"):
        if name in refusal.headers:
            show.say(f"{name}: {refusal.headers[name]}")
    show.say()
    show.say(_pretty(refusal.body))
    show.say()
    show.say(f"{show.calls} calls cost {format_usd(show.spent_nanos)} of {format_usd(show.limit_nanos)}; the cap held.")
    show.say("For your own tools: tollgate exec --budget 2usd -- CMD")


def _show_links(gateway: LaunchedGateway, show: Show) -> None:
    show.say(f"Dashboard: {console_link(gateway.running)}")
    if inspector := gateway.said("inspector") or gateway.running.inspector:
        show.say(f"Inspector: {inspector}")


def console_link(gateway: RunningGateway) -> str:
    """The dashboard's address; opening it logs in."""
    return f"{gateway.console}/?token={gateway.token}" if gateway.token else f"{gateway.console}/"


def _pretty(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body.decode("utf-8", "replace")


def _wait_for_the_user(gateway: LaunchedGateway, show: Show) -> None:
    show.say()
    _show_links(gateway, show)
    try:
        show.say("Everything stays up until Ctrl-C.")
        threading.Event().wait()
    except KeyboardInterrupt:
        show.say()
