"""What is asked of the ledger, and what becomes of its answers: unpriced policies, refusal types, Retry-After."""

from typing import Any

import pytest

from addons.call import Call, State
from addons.policy import AssumedPrice
from addons.services import Services
from addons.steps.estimate import estimate
from addons.steps.read import read
from addons.steps.reserve import refusal_of, remaining_nanos, reserve
from addons.steps.route import route
from store.errors import StoreUnavailable
from store.ledger.types import Cap, Enforcement, Exceeded, Granted, HoldRequest, Refused, Stale, Unit
from tests.support import calls
from tests.support.calls import NOW_MS, RecordingLedger, cap, cap_state

BUDGET = (cap(),)


def ledger_of(services: Services) -> RecordingLedger:
    ledger = services.ledger
    if not isinstance(ledger, RecordingLedger):
        raise TypeError("these services have a ledger of their own")
    return ledger


async def reserved(
    body: bytes, caps: tuple[Cap, ...] = BUDGET, services: Services | None = None, **headers: str
) -> tuple[Call, Services, Stale | None]:
    """A base-URL chat call after reserve."""
    services = services or calls.services()
    made = calls.call(body=body, headers=headers)
    route(made, services, "origin", None)
    read(made, services)
    made.virtual_key = calls.virtual_key(team_id="team-1", customer_id="customer-1")
    made.signed = "digest" in headers
    estimate(made, services, caps)
    return made, services, await reserve(made, services, caps)


def exceeded(unit: Unit = Unit.USD, cap_id: str = "cap-1", resets_in_ms: int | None = 3_600_000) -> Exceeded:
    return Exceeded(cap_state(cap(cap_id, unit, limit=1_000_000), used=1_000_000, resets_in_ms=resets_in_ms), 5)


async def test_the_bound_is_held_on_every_cap() -> None:
    """35 tokens in and 100 out: 65,250 nano-dollars; all of the limit is below the floor, so the floor is the bound."""
    caps = (cap("cap-1"), cap("cap-2", Unit.TOKENS), cap("cap-3", Unit.REQUESTS))
    made, services, stale = await reserved(calls.chat(max_tokens=100, stream=True), caps)
    (asked,) = ledger_of(services).holds
    assert (asked.call_id, asked.cap_ids, asked.revision) == ("call-1", ("cap-1", "cap-2", "cap-3"), 1)
    assert (asked.bound_nanos, asked.floor_nanos, asked.trim) == (65_250, 65_250, True)
    assert asked.tokens == 34 + 100  # the likely input, and an output never seen before, at most its limit
    assert asked.waiting_bytes == len(calls.chat(max_tokens=100, stream=True))
    facts = asked.facts
    assert (facts.virtual_key_id, facts.virtual_key_name, facts.team_id, facts.customer_id) == (
        "vk-1", "workshop-vk-1", "team-1", "customer-1",
    )  # fmt: skip
    assert (facts.provider, facts.model, facts.operation, facts.stream) == ("openai", "gpt-4o-mini", "chat_completion", True)
    assert (stale, made.state, made.refusal) == (None, State.HELD, None)


async def test_the_floor_is_the_least_output_worth_having() -> None:
    """16,384 out at most, 256 at least: 35 × 150 + 256 × 600 = 158,850 nano-dollars."""
    _, services, _ = await reserved(calls.chat())
    (asked,) = ledger_of(services).holds
    assert (asked.bound_nanos, asked.floor_nanos) == (5_250 + 16_384 * 600, 158_850)


@pytest.mark.parametrize(
    ("policy", "fields", "headers"),
    [
        ({"trim_output": False}, {}, {}),
        ({}, {}, {"digest": "sha-256=abc"}),
        ({}, {"max_tokens": 9_000, "max_completion_tokens": 9_000}, {}),  # which of the two counts differs between servers
    ],
)
async def test_what_may_not_be_lowered_is_held_in_full(
    policy: dict[str, Any], fields: dict[str, Any], headers: dict[str, Any]
) -> None:
    """Switched off, signed, or ambiguous: the floor is the bound, or the provider could be paid more than is held."""
    _, services, _ = await reserved(calls.chat(**fields), services=calls.services(**policy), **headers)
    (asked,) = ledger_of(services).holds
    assert (asked.trim, asked.floor_nanos) == (False, asked.bound_nanos)


async def test_strict_sums_stand_beside_the_learnt_ones() -> None:
    """5 bytes: 35 tokens learnt, 37 strictly; 2 × 150 nano-dollars more in both."""
    made, services, _ = await reserved(calls.chat(), (cap(strict=True),))
    (asked,) = ledger_of(services).holds
    assert (asked.strict_bound_nanos - asked.bound_nanos, asked.strict_floor_nanos - asked.floor_nanos) == (300, 300)
    assert made.hold_is_strict
    assert not (await reserved(calls.chat(), (cap(),)))[0].hold_is_strict


@pytest.mark.parametrize(
    ("unpriced", "caps", "refused"),
    [
        ("block", BUDGET, True),
        ("block", (cap(enforcement=Enforcement.SOFT),), False),
        ("block", (cap(enforcement=Enforcement.OBSERVE),), False),
        ("block", (cap(unit=Unit.TOKENS),), False),
        ("block", (), False),
        ("allow", BUDGET, False),
        (AssumedPrice(1, 1), BUDGET, False),
    ],
)
async def test_unknown_prices_under_a_hard_budget(unpriced: Any, caps: tuple[Cap, ...], refused: bool) -> None:
    made, services, _ = await reserved(calls.chat(model="no-such-model"), caps, calls.services(unpriced=unpriced))
    assert (made.refusal is not None) is refused
    assert len(ledger_of(services).holds) == (0 if refused else 1)
    if made.refusal is not None:
        assert (made.refusal.status, made.refusal.type, made.refusal.transient) == (402, "unpriced_model", False)
        assert "no-such-model" in made.refusal.message


async def test_an_endless_model_name_is_not_repeated_whole() -> None:
    made, _, _ = await reserved(calls.chat(model="m" * 100_000))
    assert made.refusal is not None and len(made.refusal.message) < 400


async def test_free_models_hold_nothing_and_are_not_unpriced() -> None:
    made, services, _ = await reserved(calls.chat(model="own"), services=calls.services(unpriced=AssumedPrice(0, 0)))
    assert (made.refusal, ledger_of(services).holds[0].bound_nanos) == (None, 0)


async def test_stale_is_handed_back_and_holds_nothing() -> None:
    services = calls.services()
    ledger_of(services).answers.append(Stale(7))
    made, _, stale = await reserved(calls.chat(), services=services)
    assert (stale, made.hold, made.refusal) == (Stale(7), None, None)


async def test_a_refusal_holds_nothing() -> None:
    services = calls.services()
    ledger_of(services).answers.append(Refused("call-1", (exceeded(),), False))
    made, _, _ = await reserved(calls.chat(), services=services)
    assert made.refusal is not None and made.hold is None
    assert (made.refusal.type, made.state) == ("budget_exceeded", State.REFUSED)


async def test_a_ledger_out_of_reach_is_not_an_answer() -> None:
    class Broken(RecordingLedger):
        async def hold(self, request: HoldRequest) -> Granted | Refused | Stale:
            raise StoreUnavailable("disk full")

    services = calls.services()
    services.ledger = Broken()
    with pytest.raises(StoreUnavailable):
        await reserved(calls.chat(), services=services)


@pytest.mark.parametrize(
    ("hit", "held_only", "status", "kind", "retry_after"),
    [
        ([exceeded()], False, 402, "budget_exceeded", None),
        ([exceeded(resets_in_ms=5_000)], False, 402, "budget_exceeded", None),  # money is final, however soon it resets
        ([exceeded()], True, 429, "budget_held", 2),
        ([exceeded(), exceeded(Unit.TOKENS)], False, 402, "budget_exceeded", None),  # the first one decides
        ([exceeded(Unit.TOKENS, resets_in_ms=30_000)], False, 429, "token_limited", 30),
        ([exceeded(Unit.TOKENS, resets_in_ms=29_001)], False, 429, "token_limited", 30),  # never too early
        ([exceeded(Unit.TOKENS, resets_in_ms=60_000)], False, 429, "token_limited", 60),
        ([exceeded(Unit.TOKENS, resets_in_ms=60_001)], False, 429, "token_limited", None),
        ([exceeded(Unit.TOKENS, resets_in_ms=None)], False, 429, "token_limited", None),
        ([exceeded(Unit.REQUESTS, resets_in_ms=0)], False, 429, "request_limited", 1),  # never 0: that would be a hot loop
        ([exceeded(Unit.REQUESTS, resets_in_ms=-9_000)], False, 429, "request_limited", 1),
        ([exceeded(Unit.CONCURRENT, resets_in_ms=None)], True, 429, "concurrency_limited", 1),
        ([exceeded(Unit.CONCURRENT, resets_in_ms=None)], False, 429, "concurrency_limited", None),  # a limit of no calls at all
        ([exceeded(Unit.TOKENS, resets_in_ms=3_600_000)], True, 429, "token_limited", 2),  # only holds are in the way
        ([exceeded(Unit.TOKENS, resets_in_ms=30_000)], True, 429, "token_limited", 2),
        ([exceeded(Unit.REQUESTS, resets_in_ms=30_000)], True, 429, "request_limited", 30),  # held is as good as used
        ([exceeded(Unit.REQUESTS, resets_in_ms=90_000)], True, 429, "request_limited", 2),  # but never final
        ([exceeded(Unit.CONCURRENT, resets_in_ms=None), exceeded()], True, 429, "concurrency_limited", 2),
        ([exceeded(Unit.CONCURRENT, resets_in_ms=None), exceeded(Unit.TOKENS)], True, 429, "rate_limited", 2),
        ([exceeded(), exceeded(Unit.REQUESTS, resets_in_ms=30_000)], True, 429, "budget_held", 2),
        (
            [exceeded(Unit.TOKENS, resets_in_ms=5_000), exceeded(Unit.REQUESTS, resets_in_ms=40_000)],
            False, 429, "rate_limited", 40,
        ),
        (
            [exceeded(Unit.TOKENS, resets_in_ms=5_000), exceeded(Unit.REQUESTS, resets_in_ms=90_000)],
            False, 429, "rate_limited", None,
        ),
        ([exceeded(Unit.TOKENS, "a", 5_000), exceeded(Unit.TOKENS, "b", 9_000)], False, 429, "token_limited", 9),
        ([exceeded(Unit.TOKENS, resets_in_ms=5_000), exceeded(resets_in_ms=90_000)], False, 429, "token_limited", None),
    ],
)  # fmt: skip
def test_types_and_retry_after(hit: list[Exceeded], held_only: bool, status: int, kind: str, retry_after: int | None) -> None:
    """Transient only where coming back then can help: all the caps in the way must be open again."""
    refusal = refusal_of(Refused("call-1", tuple(hit), held_only), NOW_MS)
    assert (refusal.status, refusal.type, refusal.retry_after) == (status, kind, retry_after)
    assert refusal.exceeded == tuple(hit)
    assert refusal.exceeded[0].state.cap.name in refusal.message


def granted(*states: Any, amount: int = 100) -> Granted:
    return Granted("call-1", amount, False, states)


def test_what_is_left_is_the_tightest_budgets() -> None:
    """Limit 1,000, used 400, held 100 of which all is this call's: 500 while it runs, 570 once it has cost 30."""
    tight, wide = cap_state(cap("a", limit=1_000), 400, 100), cap_state(cap("b", limit=9_000), 0, 100)
    assert remaining_nanos(granted(wide, tight), None) == 500
    assert remaining_nanos(granted(wide, tight), 30) == 570


def test_what_is_left_is_never_negative_and_never_of_other_units() -> None:
    overdrawn = cap_state(cap(limit=1_000), 5_000, 0)
    assert remaining_nanos(granted(overdrawn), None) == 0
    assert remaining_nanos(granted(cap_state(cap(unit=Unit.TOKENS))), None) is None
    assert remaining_nanos(granted(cap_state(cap(enforcement=Enforcement.OBSERVE))), None) is None
    assert remaining_nanos(granted(), None) is None
    assert remaining_nanos(None, None) is None
