"""Why was this call refused, what was it charged to: over HTTP, with caps and holds of a real ledger."""

from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter

from addons.console.api.explain import ROUTES
from addons.steps.reserve import refusal_of
from store.clock import Ids
from store.config_store.fields import loads_exact
from store.ledger.types import Cap, Granted, Refused, Scope, Unit
from store.logs.batch import write_rows
from store.logs.exceeded import MAX_BYTES, ExceededCap, pack, unpack
from store.logs.types import CallRow
from tests.addons.console.api.test_log_api import plain
from tests.store.ledger.till import Till

USD = 10**9


async def explained(console: Any, call_id: str, status: int = 200) -> Any:
    got = await console.client.get(f"/api/governance/explain/{call_id}")
    assert got.status_code == status, got.text
    made = loads_exact(got.content)
    if status == 200:
        described = ROUTES[0].handler.get.operation.answer  # type: ignore[attr-defined]
        assert plain(TypeAdapter(described).validate_python(made)) == plain(made)
    return made


def log(console: Any, *rows: CallRow) -> None:
    with console.logs_database.write() as connection:
        write_rows(connection, rows)


def refused_row(call_id: str, at_ms: int, refused: Refused, **more: Any) -> CallRow:
    """As the gateway writes it."""
    refusal = refusal_of(refused, at_ms)
    return CallRow(
        call_id, at_ms, "refused", refusal.status, virtual_key_id="vk", virtual_key_name="workshop", refusal_type=refusal.type,
        refusal_cap=refusal.exceeded[0].state.cap.id, message=refusal.message, exceeded=pack(refusal.exceeded), **more,
    )  # fmt: skip


async def test_a_refusal_tells_the_sums_of_its_instant_what_filled_them_and_when_it_opens(console: Any) -> None:
    till = Till(console.store.database, console.clock)
    till.cap("day", 5 * USD, "1d")
    till.cap("hour", 1 * USD, "1h")
    ids = Ids(console.clock)
    calls = []
    for number, (key, cost) in enumerate((("vk", 300_000_000), ("vk", 500_000_000), ("other", 100_000_000))):
        call_id = ids.new()
        till.spend(call_id, "day hour" if key == "vk" else "day", cost)
        calls.append(
            CallRow(
                call_id, console.clock.now_ms(), "success", 200, model=f"m{number % 2}", virtual_key_id=key,
                virtual_key_name="workshop", cost_nanos=cost, caps_charged=("day", "hour") if key == "vk" else ("day",),
            )
        )  # fmt: skip
    flying = ids.new()
    assert isinstance(till.hold(flying, "hour", 50_000_000), Granted)
    refused = till.hold("call-r", "hour day", 4_900_000_000)
    assert isinstance(refused, Refused) and len(refused.exceeded) == 2
    asked = ids.new()
    log(console, *calls, refused_row(asked, console.clock.now_ms(), refused))

    found = await explained(console, asked)
    assert (found["outcome"], found["refusal_type"], found["merged_into"]) == ("refused", "budget_exceeded", None)
    hour, day = found["exceeded"]
    assert (hour["id"], hour["max_limit"], hour["current_usage"], hour["held"], hour["needed"], hour["remaining"]) == (
        "hour", 1, Decimal("0.8"), Decimal("0.05"), Decimal("4.9"), Decimal("0.15"),
    )  # fmt: skip
    assert (hour["fits_now"], hour["opens_at"]) == (False, None), "more than the whole limit: never"
    assert (day["current_usage"], day["fits_now"], day["opens_at"]) == (Decimal("0.9"), False, day["resets_at"])
    assert found["opens_at"] is None
    assert "'hour' allows less in all than this call needs; 'day' is full until" in found["explanation"]
    filled = found["filled_by"]
    assert filled["cap_id"] == "hour" and filled["complete"] is True
    assert [(call["id"], call["amount"]) for call in filled["calls"]] == [
        (calls[1].id, Decimal("0.5")), (calls[0].id, Decimal("0.3")),
    ]  # fmt: skip
    assert [(part["id"], part["name"], part["calls"], part["amount"]) for part in filled["by_virtual_key"]] == [
        ("vk", "workshop", 2, Decimal("0.8"))
    ]
    assert [(part["id"], part["amount"]) for part in filled["by_model"]] == [("m1", Decimal("0.5")), ("m0", Decimal("0.3"))]

    # Later the sums of the instant stay, those of now move on.
    till.cap("hour", 10 * USD, "1h")
    till.cap("day", 10 * USD, "1d")
    found = await explained(console, asked)
    assert found["exceeded"][0]["current_usage"] == Decimal("0.8") and found["exceeded"][0]["now"]["max_limit"] == 10
    assert [cap["fits_now"] for cap in found["exceeded"]] == [True, True] and found["opens_at"] is not None
    assert found["explanation"].endswith("Such a call would go through now.")


async def test_charged_in_flight_unconfirmed_and_unknown_calls(console: Any) -> None:
    till = Till(console.store.database, console.clock)
    till.cap("day", 5 * USD, "1d")
    ids = Ids(console.clock)
    charged, flying, lost, free, unpriced = (ids.new() for _ in range(5))
    till.spend(charged, "day", 1_234_567)
    till.hold(flying, "day", 5_000_000)
    till.hold(lost, "day", 6_000_000)
    till.lose(lost)
    now_ms = console.clock.now_ms()
    log(
        console,
        CallRow(charged, now_ms, "success", 200, cost_nanos=1_234_567, caps_charged=("day", "gone")),
        CallRow(free, now_ms, "success", 200),
        CallRow(unpriced, now_ms, "success", 200, priced=False),
    )
    found = await explained(console, charged)
    assert (found["outcome"], found["cost"]) == ("charged", Decimal("0.001234567"))
    assert [(cap["id"], cap["now"] is None) for cap in found["charged"]] == [("day", False), ("gone", True)]
    assert found["explanation"] == "The call cost $0.001234567, charged to 'day'."
    found = await explained(console, flying)
    assert (found["outcome"], found["call"], found["cost"]) == ("in_flight", None, None)
    found = await explained(console, lost)
    assert (found["outcome"], found["cost"], found["charged"][0]["id"]) == ("unconfirmed", Decimal("0.006"), "day")
    assert ((await explained(console, free))["outcome"], (await explained(console, free))["cost"]) == ("free", 0)
    found = await explained(console, unpriced)
    assert found["cost"] is None and "No price is known" in found["explanation"]
    message = (await explained(console, "nobody", 404))["error"]["message"]
    assert message.startswith("there is no call 'nobody'")


async def test_a_refusal_that_shares_a_row_is_found_by_its_time(console: Any) -> None:
    till = Till(console.store.database, console.clock)
    till.cap("hour", 1 * USD, "1h")
    refused = till.hold("call-r", "hour", 2 * USD)
    assert isinstance(refused, Refused)
    ids = Ids(console.clock)
    first = ids.new()
    log(console, refused_row(first, console.clock.now_ms(), refused, count=7))
    console.clock.ahead_seconds += 0.5
    second = ids.new()
    found = await explained(console, second)
    assert (found["request_id"], found["merged_into"], found["call"]["count"]) == (second, first, 7)
    another = ids.new()
    log(console, refused_row(another, console.clock.now_ms(), refused, count=2, model="m2"))
    third = ids.new()
    message = (await explained(console, third, 404))["error"]["message"]
    assert first in message and another in message
    console.clock.ahead_seconds += 60
    assert "there is no call" in (await explained(console, ids.new(), 404))["error"]["message"]


def test_what_stood_in_the_way_is_bounded_and_comes_back_as_it_was() -> None:
    from store.ledger.types import CapState, Exceeded

    def one(number: int) -> Exceeded:
        cap = Cap(f"cap-{number}", "n" * 300, Scope.TEAM, "t", "blüe", Unit.TOKENS, 10**12, "1h")
        return Exceeded(CapState(cap, 5, 6, 7, 1_000, 2_000), 9)

    text = pack([one(number) for number in range(100)])
    assert len(text.encode()) <= MAX_BYTES
    caps = unpack(text)
    assert 5 < len(caps) < 100
    assert caps[1] == ExceededCap(
        "cap-1", "n" * 120, "team", "t", "blüe", "tokens", 10**12 + 7, 5, 6, 9, "1h", 1_000, 2_000, "hard"
    )
    assert caps[1].remaining == 10**12 - 4
    assert pack([]) == "" and unpack("") == ()
