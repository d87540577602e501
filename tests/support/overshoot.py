"""Crowds of calls on one budget over several gateways: what was spent beyond the cap, and who was refused although there was room.

Every call's cost is known beforehand to the nano-dollar: the budget counts one token for each byte of text (`strict`), the
pretend provider is told to bill as many, and nothing is trimmed. So what a call holds is what it costs, and there is no doubt
about which calls fit.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from tests.support.config import Config, budget, config_for, virtual_key
from tests.support.judge import Rows
from tests.support.quick import Gateway, PretendProcess
from tests.support.traffic import PRICES, Answer, Ask, Wire
from tests.support.waiting import eventually

PROBE_KEY = f"sk-bf-{'probe':0<32}"
OUTPUTS = (200, 350, 500, 800, 1_000)
"""The five sizes of calls."""
INPUT_PRICE, OUTPUT_PRICE = PRICES["chat"]
CONNECT_AT_ONCE = 50


def probe_key() -> Config:
    """The key that measures what a call holds; the gateways' configuration must have it, and must not trim."""
    return virtual_key("probe", value=PROBE_KEY, budgets=[budget(1_000, strict=True)])


def overshoot_config(provider_url: str) -> Config:
    """For gateways that serve crowds and nobody else."""
    return config_for(provider_url, virtual_keys=[probe_key()], gateway={"trim_output": False})


def on_postgres(config: Config, settings: dict[str, Any]) -> Config:
    """The same configuration with configuration, ledger and logs in one PostgreSQL database."""
    place = {"enabled": True, "type": "postgres", "config": settings}
    return config | {"config_store": place, "logs_store": place}


@dataclass(frozen=True, slots=True)
class Crowded:
    """What came of one crowd. Money in nano-dollars."""

    calls: int
    good: int
    refused: dict[str, int]
    cap: int
    billed: int
    spent: int
    falsely_refused: int
    """Refused, although what was left in the end would have paid for them."""
    wrong: int
    """Neither answered nor refused for the budget's sake, or broken."""
    seconds: float

    @property
    def overshoot(self) -> int:
        return max(0, self.billed - self.cap)


class Arena:
    """Gateways on one store, and the provider that keeps the bill. Each crowd has a key and a budget of its own."""

    def __init__(self, provider: PretendProcess, gateways: Sequence[Gateway], rows: Rows, seed: int) -> None:
        self._provider = provider
        self._gateways = gateways
        self._rows = rows
        self._random = Random(seed)
        self._seed = seed
        self._runs = 0
        self._input_tokens = self._held_input()

    def crowd(self, calls: int) -> Crowded:
        """One key, one budget that pays for a fifth to four fifths of the calls, all of which come at once."""
        self._runs += 1
        name = f"crowd-{self._seed}-{self._runs}"
        key = f"sk-bf-{name:x<32}"
        asks = [self._ask(self._random.choice(OUTPUTS), key) for _ in range(calls)]
        demand = sum(self._cost(ask) for ask in asks)
        cap = self._random.randint(demand // 5, demand * 4 // 5)
        self._make_key(self._gateways[self._runs % len(self._gateways)], name, key, cap)
        self._provider.reset()
        started = time.monotonic()
        answers = asyncio.run(self._all_at_once(asks))
        seconds = time.monotonic() - started
        bill = eventually(self._provider.bill, lambda bill: bill["in_flight"] == 0)
        billed = int(bill["cost_nanos"])
        spent = eventually(lambda: self._gateways[0].spent_nanos(key), lambda nanos: nanos >= billed, 20)
        refused = [(ask, answer) for ask, answer in zip(asks, answers, strict=True) if answer.status in (402, 429)]
        return Crowded(
            calls=calls,
            good=sum(answer.status == 200 and answer.whole for answer in answers),
            refused=dict(Counter(answer.refusal for _, answer in refused)),
            cap=cap,
            billed=billed,
            spent=spent,
            falsely_refused=sum(self._cost(ask) <= cap - billed for ask, _ in refused),
            wrong=sum(answer.status not in (200, 402, 429) or not answer.whole for answer in answers),
            seconds=seconds,
        )

    def _cost(self, ask: Ask) -> int:
        return self._input_tokens * INPUT_PRICE + (ask.limit or 0) * OUTPUT_PRICE

    def _ask(self, output: int, key: str) -> Ask:
        pretend = {"output_tokens": output, "input_tokens": self._input_tokens, "first_token_ms": 30}
        return Ask(limit=output, pretend=pretend, key=key)

    def _held_input(self) -> int:
        """How many input tokens a strict budget holds for the text of these calls, as the ledger wrote it down."""
        ask = Ask(limit=OUTPUTS[0], pretend={"output_tokens": OUTPUTS[0]}, key=PROBE_KEY)
        (answer,) = asyncio.run(self._all_at_once([ask]))
        if answer.status != 200:
            raise RuntimeError(f"the probe was refused: {answer.body!r}")
        held = self._rows.held_for(answer.headers["x-tollgate-request-id"])
        tokens, rest = divmod(held - OUTPUTS[0] * OUTPUT_PRICE, INPUT_PRICE)
        if rest:
            raise RuntimeError(f"a hold of {held} nano-dollars is not what this kind of call should hold")
        return tokens

    def _make_key(self, gateway: Gateway, name: str, key: str, cap: int) -> None:
        limit = format(Decimal(cap) / 10**9, "f")
        body: dict[str, Any] = {
            "name": name,
            "value": key,
            "budgets": [{"name": name, "max_limit": limit, "reset_duration": "1d", "strict": True}],
            "provider_configs": [{"provider": "openai"}],
        }
        with gateway.console() as console:
            made = console.post("/api/governance/virtual-keys", content=json.dumps(body))
        made.raise_for_status()

    async def _all_at_once(self, asks: Sequence[Ask]) -> list[Answer]:
        """As `traffic.all_at_once`, in turn on every gateway."""
        wires = [Wire(self._gateways[number % len(self._gateways)].url) for number in range(len(asks))]
        try:
            for some in range(0, len(wires), CONNECT_AT_ONCE):
                await asyncio.gather(*(wire.open() for wire in wires[some : some + CONNECT_AT_ONCE]))
            return list(await asyncio.gather(*(wire.answer(ask) for wire, ask in zip(wires, asks, strict=True))))
        finally:
            for wire in wires:
                wire.leave()
