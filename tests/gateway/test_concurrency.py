"""Many calls at once on budgets that fit a part of them: the provider's own bill against the cap, and against the ledger."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from tests.support import books
from tests.support.config import budget, config_for, virtual_key
from tests.support.figures import figures
from tests.support.quick import Gateway, PretendProcess
from tests.support.traffic import Answer, Ask, all_at_once, dearest
from tests.support.waiting import eventually

BUFFERED_CALLS = 300
BUFFERED_FIT = 80
STREAMS = 60
STREAMS_FIT = 20
FINAL_REFUSAL, TRANSIENT_REFUSAL = "budget_exceeded", "budget_held"

BUFFERED = Ask(limit=1000, pretend={"output_tokens": 1000, "first_token_ms": 50})
STREAMED = Ask(limit=1000, stream=True, pretend={"output_tokens": 1000, "chunk_tokens": 50, "chunk_delay_ms": 20})
MIXED = (
    STREAMED,
    Ask("responses", limit=900, stream=True, pretend={"output_tokens": 900, "chunk_tokens": 50, "chunk_delay_ms": 20}),
    Ask("messages", limit=130, stream=True, pretend={"output_tokens": 130, "chunk_tokens": 10, "chunk_delay_ms": 20}),
    Ask("gemini", limit=250, stream=True, pretend={"output_tokens": 250, "chunk_tokens": 15, "chunk_delay_ms": 20}),
)
ONE_CALL_NANOS = 602_000
"""What each of these calls costs, give or take a tenth: 1,000 × 600, 900 × 600, 130 × 5,000, 250 × 2,500 and a little input."""


DENSE_TEXT = "x" * 2000
DENSE = Ask(limit=50, text=DENSE_TEXT, pretend={"output_tokens": 50, "input_tokens": len(DENSE_TEXT), "first_token_ms": 100})
"""One token for every byte: three times as dense as any text that the shipped ratios were taken from."""
DENSE_CALL_NANOS = len(DENSE_TEXT) * 150 + 50 * 600


def usd(nanos: int) -> str:
    return format(Decimal(nanos) / 10**9, "f")


def key_value(name: str) -> str:
    return f"sk-bf-{name:0<32}"


@dataclass(frozen=True)
class Race:
    """What came of one crowd of calls."""

    answers: list[Answer]
    bill: dict[str, Any]
    seconds: float

    @property
    def good(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    @property
    def refused(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]


class World:
    """A gateway and its provider. The races of a module run one after the other, each on a key of its own."""

    def __init__(self, provider: PretendProcess, gateway: Gateway) -> None:
        self.provider = provider
        self.gateway = gateway

    def race(self, asks: list[Ask]) -> Race:
        self.provider.reset()
        started = time.monotonic()
        answers = asyncio.run(all_at_once(self.gateway.url, asks))
        seconds = time.monotonic() - started
        bill = eventually(self.provider.bill, lambda bill: bill["in_flight"] == 0)
        return Race(answers, bill, seconds)

    def budgets(self) -> dict[str, dict[str, Any]]:
        """Every budget by name, as the management API shows it; amounts as Decimals."""
        with self.gateway.console() as console:
            answer = console.get("/api/governance/budgets")
        answer.raise_for_status()
        return {row["name"]: row for row in json.loads(answer.text, parse_float=Decimal)["budgets"]}

    def used_nanos(self, name: str) -> int:
        return int(Decimal(self.budgets()[name]["current_usage"]) * 10**9)

    def refusal_types(self, key_id: str) -> Counter[str]:
        """Refusals of one key by type, as logs.db counts them."""
        counted: Counter[str] = Counter()
        for row in self.gateway.log_rows():
            if row["virtual_key_id"] == key_id and row["refusal_type"]:
                counted[row["refusal_type"]] += row["count"]
        return counted


def check(
    world: World, race: Race, *, key_name: str, cap_nanos: int, caps: tuple[str, ...], most_left_nanos: int | None = None
) -> None:
    """The promises of a hard cap, each against the provider's own bill.

    `caps` are the budgets that every call touches. `most_left_nanos`: what may be left unspent at the end while calls are refused;
    the cost of the dearest call unless told otherwise.
    """
    billed = race.bill["cost_nanos"]
    figures(
        key_name,
        calls=len(race.answers),
        answered=len(race.good),
        refused=dict(Counter(answer.status for answer in race.refused)),
        cap=cap_nanos,
        billed=billed,
        left=cap_nanos - billed,
        dearest=dearest(race.bill["lines"]),
        peak_in_flight=race.bill["peak_in_flight"],
        trimmed=sum("x-tollgate-trimmed" in answer.headers for answer in race.good),
        seconds=round(race.seconds, 2),
    )
    assert race.bill["unfinished"]["calls"] == 0
    assert race.bill["calls"] == len(race.good), "a refused call reached the provider, or an answered one did not"
    assert all(answer.whole for answer in race.answers)
    assert billed <= cap_nanos
    assert cap_nanos - billed <= (dearest(race.bill["lines"]) if most_left_nanos is None else most_left_nanos)
    assert race.refused, "the budget was to fit only a part of the calls"

    for answer in race.refused:
        assert answer.status in (402, 429), answer.body
        assert answer.json["budget"]["name"] in caps
        assert ("retry-after" in answer.headers) is (answer.status == 429)
    types = eventually(lambda: world.refusal_types(f"id-of-{key_name}"), lambda seen: seen.total() >= len(race.refused))
    by_status = Counter({402: types[FINAL_REFUSAL], 429: types[TRANSIENT_REFUSAL]})
    assert types.total() == len(race.refused)
    assert +by_status == Counter(answer.status for answer in race.refused)

    for name in caps:
        assert eventually(lambda name=name: world.used_nanos(name), lambda used: used >= billed) == billed  # type: ignore[misc]
        assert world.budgets()[name]["held"] == 0
    own = {row["name"]: row for row in world.gateway.quota(key_value(key_name))["budgets"]}
    for row in own.values():
        assert (int(Decimal(row["current_usage"]) * 10**9), row["held"]) == (billed, 0)
    assert books.held_nanos(world.gateway.app_dir) == 0
    assert books.open_holds(world.gateway.app_dir) == []
    assert books.replayed(world.gateway.app_dir).clean


KEYS = ("plain", "streams", "mixed", "unlimited", "varied", "patient", "held")
CAPS = {
    "plain": BUFFERED_FIT * ONE_CALL_NANOS + ONE_CALL_NANOS // 3,
    "streams": STREAMS_FIT * ONE_CALL_NANOS + ONE_CALL_NANOS // 3,
    "mixed": STREAMS_FIT * ONE_CALL_NANOS + ONE_CALL_NANOS // 3,
    "unlimited": BUFFERED_FIT * ONE_CALL_NANOS,
    "varied": BUFFERED_FIT * ONE_CALL_NANOS // 2,
    "dense": STREAMS_FIT * DENSE_CALL_NANOS + DENSE_CALL_NANOS // 3,
    "layered": BUFFERED_FIT * ONE_CALL_NANOS,
    "patient": 5 * ONE_CALL_NANOS,
    "held": 3 * ONE_CALL_NANOS + ONE_CALL_NANOS // 3,
}


def keys_with_own_budgets() -> list[dict[str, Any]]:
    return [virtual_key(name, value=key_value(name), budgets=[budget(usd(CAPS[name]), name=f"{name}-budget")]) for name in KEYS]


def strict_key() -> dict[str, Any]:
    return virtual_key("dense", value=key_value("dense"), budgets=[budget(usd(CAPS["dense"]), name="dense-budget", strict=True)])


def layered_key() -> dict[str, Any]:
    """Four caps on each call: two windows of the key, its provider config's, its team's. The team's is the tightest."""
    cap = CAPS["layered"]
    return virtual_key(
        "layered",
        value=key_value("layered"),
        team_id="team-1",
        budgets=[budget(usd(cap * 2), name="hour"), budget(usd(cap * 3), name="month", reset="1M", calendar_aligned=True)],
        provider_configs=[{"provider": "openai", "budgets": [budget(usd(cap * 3 // 2), name="at-openai")]}],
    )


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


@pytest.fixture(scope="module")
def trimming(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    team = {"id": "team-1", "name": "workshop", "budgets": [budget(usd(CAPS["layered"]), name="team-hour")]}
    config = config_for(
        provider.url, virtual_keys=[*keys_with_own_budgets(), layered_key(), strict_key()], governance={"teams": [team]}
    )
    with Gateway(tmp_path_factory.mktemp("trimming"), config) as gateway:
        yield World(provider, gateway)


@pytest.fixture(scope="module")
def untrimmed(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    config = config_for(provider.url, virtual_keys=keys_with_own_budgets(), gateway={"trim_output": False, "hold_wait_seconds": 2})
    with Gateway(tmp_path_factory.mktemp("untrimmed"), config) as gateway:
        yield World(provider, gateway)


@pytest.fixture(scope="module")
def two_workers(provider: PretendProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    config = config_for(provider.url, virtual_keys=keys_with_own_budgets())
    with Gateway(tmp_path_factory.mktemp("two-workers"), config, arguments=("--workers", "2")) as gateway:
        yield World(provider, gateway)


def under(name: str, ask: Ask, count: int) -> list[Ask]:
    return [replace(ask, key=key_value(name)) for _ in range(count)]


def test_300_buffered_calls_where_80_fit(trimming: World) -> None:
    race = trimming.race(under("plain", BUFFERED, BUFFERED_CALLS))
    check(trimming, race, key_name="plain", cap_nanos=CAPS["plain"], caps=("plain-budget",))


def test_300_buffered_calls_where_80_fit_without_trimming(untrimmed: World) -> None:
    race = untrimmed.race(under("plain", BUFFERED, BUFFERED_CALLS))
    check(untrimmed, race, key_name="plain", cap_nanos=CAPS["plain"], caps=("plain-budget",))
    assert len(race.good) == BUFFERED_FIT
    assert not [answer for answer in race.good if "x-tollgate-trimmed" in answer.headers]


def test_300_buffered_calls_under_four_caps(trimming: World) -> None:
    race = trimming.race(under("layered", BUFFERED, BUFFERED_CALLS))
    caps = ("at-openai", "hour", "month", "team-hour")
    check(trimming, race, key_name="layered", cap_nanos=CAPS["layered"], caps=caps)
    assert {answer.json["budget"]["name"] for answer in race.refused} == {"team-hour"}
    assert {answer.json["budget"]["scope"] for answer in race.refused} == {"team"}


@pytest.mark.parametrize("way", ["trimming", "untrimmed"])
def test_300_calls_of_many_sizes(way: str, request: pytest.FixtureRequest) -> None:
    """Costs between a fiftieth of the usual and the usual: small calls fill the gaps that large ones leave."""
    world: World = request.getfixturevalue(way)
    sizes = [20 + (number * 379) % 980 for number in range(BUFFERED_CALLS)]
    asks = [
        replace(BUFFERED, key=key_value("varied"), limit=size, pretend={"output_tokens": size, "first_token_ms": 50})
        for size in sizes
    ]
    check(world, world.race(asks), key_name="varied", cap_nanos=CAPS["varied"], caps=("varied-budget",))


def test_300_calls_that_name_no_limit(trimming: World) -> None:
    """Each could cost $0.0098 by the model's maximum, so without trimming not ten would fit at a time.

    Twice the usual answer must fit before one more call leaves, so up to that much may be left unspent.
    """
    race = trimming.race(under("unlimited", replace(BUFFERED, limit=None), BUFFERED_CALLS))
    check(
        trimming,
        race,
        key_name="unlimited",
        cap_nanos=CAPS["unlimited"],
        caps=("unlimited-budget",),
        most_left_nanos=2 * dearest(race.bill["lines"]),
    )
    assert [answer for answer in race.good if "x-tollgate-trimmed" in answer.headers]


@pytest.mark.parametrize("way", ["trimming", "untrimmed"])
def test_60_streams_where_20_fit(way: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(way)
    race = world.race(under("streams", STREAMED, STREAMS))
    check(world, race, key_name="streams", cap_nanos=CAPS["streams"], caps=("streams-budget",))
    assert all(answer.events()[-1] == ("", "[DONE]") for answer in race.good)


@pytest.mark.parametrize("way", ["trimming", "untrimmed"])
def test_60_streams_of_four_dialects_where_20_fit(way: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(way)
    race = world.race([replace(MIXED[number % len(MIXED)], key=key_value("mixed")) for number in range(STREAMS)])
    check(world, race, key_name="mixed", cap_nanos=CAPS["mixed"], caps=("mixed-budget",))
    assert len({line["model"] for line in race.bill["lines"]}) == 3


def test_nobody_is_refused_while_only_holds_are_in_the_way(trimming: World) -> None:
    """Each call may cost a fifth of the budget and costs a four-hundredth: all wait their turn, none is turned away."""
    asks = under("patient", replace(BUFFERED, pretend={"output_tokens": 10, "first_token_ms": 20}), 100)
    race = trimming.race(asks)
    billed = race.bill["cost_nanos"]
    figures(
        "patient",
        calls=100,
        answered=len(race.good),
        billed=billed,
        peak=race.bill["peak_in_flight"],
        seconds=round(race.seconds, 2),
    )
    assert len(race.good) == 100
    assert race.bill["peak_in_flight"] > 1
    assert eventually(lambda: trimming.used_nanos("patient-budget"), lambda used: used >= billed) == billed


def test_who_waits_in_vain_is_told_to_come_back(untrimmed: World) -> None:
    """Three slow calls hold everything for longer than anybody may wait; they cost next to nothing in the end."""
    slow = replace(BUFFERED, pretend={"output_tokens": 10, "first_token_ms": 4000})
    race = untrimmed.race(under("held", slow, 6))
    types = Counter(answer.refusal for answer in race.refused)
    figures("held", answered=len(race.good), refused=dict(types), seconds=round(race.seconds, 2))
    assert len(race.good) == 3
    assert types == Counter({"429 budget_held": 3})
    for answer in race.refused:
        assert answer.headers["retry-after"] == "2"
        assert answer.headers.get("x-should-retry") != "false"
        assert Decimal(str(answer.json["budget"]["held"])) > 0
    again = untrimmed.race(under("held", replace(slow, pretend={"output_tokens": 10}), 3))
    assert len(again.good) == 3, "the money that was held did not come back"


def test_two_worker_processes_share_one_budget(two_workers: World) -> None:
    race = two_workers.race(under("plain", BUFFERED, BUFFERED_CALLS))
    check(two_workers, race, key_name="plain", cap_nanos=CAPS["plain"], caps=("plain-budget",))
    race = two_workers.race([replace(MIXED[number % len(MIXED)], key=key_value("mixed")) for number in range(STREAMS)])
    check(two_workers, race, key_name="mixed", cap_nanos=CAPS["mixed"], caps=("mixed-budget",))
    assert owners(two_workers.gateway) == 2, "one worker did all the work"


def owners(gateway: Gateway) -> int:
    """How many processes have held something."""
    return len(set(books.epochs_of_holds(gateway.app_dir)))


def test_a_strict_cap_holds_against_the_densest_text(trimming: World) -> None:
    race = trimming.race(under("dense", DENSE, STREAMS))
    check(trimming, race, key_name="dense", cap_nanos=CAPS["dense"], caps=("dense-budget",))
    assert len(race.good) == STREAMS_FIT
