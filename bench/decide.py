"""Measures what deciding costs a call before the ledger is asked: identity, route, permission, the choice of the provider, rules.

Run `python -O bench/decide.py` (workers run with -O) from the checkout: 10,000 virtual keys and 100 routing rules, of which three
are asked for the caller.
Reading the body (JSON) and the bound (price) are not in it.
Figures are microseconds of processor time a call, the least of several rounds.

  --keys N   --rules N   --calls N   --rounds N
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from addons import chain  # noqa: E402
from addons.call import Call  # noqa: E402
from addons.candidates import want  # noqa: E402
from addons.fullness import Fullness  # noqa: E402
from addons.proxy import mitm  # noqa: E402
from addons.services import Services  # noqa: E402
from addons.steps.authorize import admit  # noqa: E402
from addons.steps.identify import key_hash  # noqa: E402
from addons.steps.read import read  # noqa: E402
from addons.steps.route import route_by_model  # noqa: E402
from store.config_store.records import RoutingRuleRecord, RoutingTarget  # noqa: E402
from store.config_store.routing_rules import compile_rules  # noqa: E402
from store.config_store.snapshot import ANY, ProviderConfig, Snapshot, VirtualKey  # noqa: E402
from store.ledger.levels import Level  # noqa: E402
from tests.support import calls  # noqa: E402

HEADERS = {
    "user-agent": "OpenAI/Python 1.99", "accept": "application/json", "content-type": "application/json", "x-tier": "basic",
    "x-stainless-lang": "python", "x-stainless-os": "Linux", "x-stainless-runtime": "CPython", "accept-encoding": "gzip, deflate",
}  # fmt: skip
ASKED = {
    "header": 'headers["x-tier"] == "none"',
    "words": 'model == "gpt-5" && team_name == "red"',
    "fullness": "budget_used > 80",
    "missing header": 'headers["x-absent"] == "none"',
    "every header": 'headers.exists(name, name == "x-none")',
}
"""Conditions that do not hold, so that all of them are asked."""


@dataclass(frozen=True)
class Options:
    keys: int
    rules: int
    calls: int
    rounds: int


def governed(options: Options, conditions: tuple[str, ...], weights: bool = False) -> Snapshot:
    """Many keys; rules for others, and one global rule for each condition."""
    configs = (
        ProviderConfig("pc-1", "openai", weight=0.5 if weights else None, allowed_models=(ANY,)),
        ProviderConfig("pc-2", "groq", weight=0.5 if weights else None, allowed_models=("gpt-*",)),
    )
    keys = {
        f"sk-bf-{number}": VirtualKey(f"vk-{number}", f"key {number}", team_id=f"t-{number % 100}", provider_configs=configs)
        for number in range(options.keys)
    }
    keys["sk-bf-7"] = replace(keys["sk-bf-7"], caps=(calls.cap(),))
    made = calls.snapshot()
    records = [
        RoutingRuleRecord(
            f"r{n}", f"rule {n}", 'model == "x"', (RoutingTarget("groq"),), scope="virtual_key", scope_id=f"vk-{n + 100}"
        )
        for n in range(options.rules - len(conditions))
    ]
    records += [RoutingRuleRecord(f"g{n}", f"g{n}", text, (RoutingTarget("groq"),)) for n, text in enumerate(conditions)]
    return replace(
        made,
        virtual_keys=MappingProxyType({key.id: key for key in keys.values()}),
        by_hash=MappingProxyType({key_hash(value): key for value, key in keys.items()}),
        routing_rules=compile_rules(records if conditions else ()),
    )


def microseconds(options: Options, snapshot: Snapshot, path: str = "/openai/v1/chat/completions") -> tuple[float, float]:
    """(identity and route, permission and choice) of a call."""
    services: Services = calls.services(snapshot)
    levels: Any = SimpleNamespace(current={"cap-1": Level(1, 100, None)})
    services.fullness = Fullness(levels)
    heads, choices = [], []
    for _ in range(options.rounds):
        made = [calls.call(path, headers=HEADERS | {"x-bf-vk": "sk-bf-7"}, body=calls.chat()) for _ in range(options.calls)]
        heads.append(_mean(made, lambda call: chain.head(call, services, "origin", None)))
        for call in made:
            read(call, services)
        choices.append(_mean(made, lambda call: _choose(call, services)))
        if any(call.refusal for call in made):
            raise SystemExit("a call was refused; the figures say nothing")
    return min(heads), min(choices)


def _choose(call: Call, services: Services) -> None:
    if call.by_model:
        route_by_model(call)
    admit(call, services)
    want(call)
    chain.choose(call, services)


def _mean(made: list[Call], work: Callable[[Call], None]) -> float:
    began = time.thread_time()
    for call in made:
        work(call)
    return (time.thread_time() - began) / len(made) * 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("keys", 10_000), ("rules", 100), ("calls", 300), ("rounds", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = Options(**vars(parser.parse_args()))
    mitm.install()  # as in a worker: headers are looked up the short way
    three = tuple(ASKED[name] for name in ("header", "words", "fullness"))
    cases: list[tuple[str, Snapshot, str]] = [
        ("no rules, provider named", governed(options, ()), "/openai/v1/chat/completions"),
        ("no rules, bare model, two providers by weight", governed(options, (), weights=True), "/v1/chat/completions"),
        (f"{options.rules} rules, three asked", governed(options, three), "/openai/v1/chat/completions"),
        *((f"one rule asked: {name}", governed(options, (text,)), "/openai/v1/chat/completions") for name, text in ASKED.items()),
    ]
    print(f"{options.keys} virtual keys; microseconds a call")
    print(f"{'':48}{'head':>8}{'choice':>8}{'sum':>8}")
    for label, snapshot, path in cases:
        head, choice = microseconds(options, snapshot, path)
        print(f"{label:48}{head:8.1f}{choice:8.1f}{head + choice:8.1f}")


if __name__ == "__main__":
    main()
