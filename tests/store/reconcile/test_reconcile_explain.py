"""Every cause of a difference that the books can tell, with its figures, and how far each of them excuses a difference."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from store.reconcile.books import DaySum
from store.reconcile.types import DAY_MS, Cause, OurCall, Standing, Tokens, Verdict
from tests.store.reconcile.exports_here import NOV_20, NOV_21, NOV_22, NOV_23
from tests.store.reconcile.scene import CENT, causes, inexact, ours_of, report, row_of, said
from tests.support import exports
from tests.support.exports import Billed

DAYS = ["2026-11-20", "2026-11-21", "2026-11-22"]
GPT, MINI, CLAUDE = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "claude-haiku-4-5-20251001"
NOON = 12 * 3_600_000

ONE = Billed(NOV_20 + NOON, GPT, 100, 10, nanos={"fresh": 250_000, "output": 100_000})
DEAR = Billed(NOV_20 + NOON, GPT, 1_000_000, 100_000, nanos={"fresh": 2_500_000_000, "output": 1_000_000_000})


def both(*calls: Billed) -> list[Any]:
    return [*exports.openai_usage(calls, DAYS), *exports.openai_costs(calls, DAYS)]


def by_tier(calls: Sequence[Billed]) -> list[Any]:
    grouped = exports.openai_usage(calls, DAYS, group_by=("model", "service_tier", "batch"))
    return [*grouped, *exports.openai_costs(calls, DAYS)]


def books(calls: Sequence[Billed]) -> list[OurCall]:
    return [ours_of(call, number) for number, call in enumerate(calls)]


def test_calls_past_the_gateway() -> None:
    made = report(books([ONE]), both(ONE, replace(ONE, fresh=40, output=4)))
    row = row_of(made, "2026-11-20", GPT)
    assert (made.agrees, row.verdict, causes(row)) == (False, Verdict.DIFFERS, [Cause.OUTSIDE])
    assert "counted +40 input, +4 output tokens in 1 more request(s): calls that did not go through the gateway" in said(row)


def test_calls_that_the_export_lacks() -> None:
    other = ours_of(replace(ONE, model=MINI), 2)
    made = report([*books([ONE]), other], both(ONE))
    assert causes(row_of(made, "2026-11-20", MINI)) == [Cause.NOT_BILLED]
    assert "(-100 input, -10 output tokens)" in said(row_of(made, "2026-11-20", MINI))
    assert row_of(made, "2026-11-20", GPT).verdict is Verdict.AGREES


def test_an_alias_and_a_snapshot_are_one_model() -> None:
    made = report([ours_of(ONE, asked="gpt-4o", answered="")], both(ONE))
    assert made.exact
    assert made.notes == (f"gpt-4o of the books is compared with {GPT} of the export",)


def test_two_unrelated_names_with_the_same_tokens() -> None:
    made = report([ours_of(ONE, asked="our-assistant", answered="our-assistant")], both(ONE))
    assert not made.agrees
    for model in ("our-assistant", GPT):
        row = row_of(made, "2026-11-20", model)
        assert causes(row)[0] is Cause.ALIAS and "two names of one model" in said(row)


def test_another_price_names_the_entry_and_the_class() -> None:
    dear = replace(DEAR, nanos=DEAR.nanos | {"output": 1_200_000_000})
    made = report(books([DEAR]), both(dear))
    row = row_of(made, "2026-11-20", GPT)
    assert (row.verdict, causes(row)) == (Verdict.DIFFERS, [Cause.PRICE])
    assert (
        "the same tokens cost $3.70 there and $3.50 by the price entry gpt-4o of genai-prices 0.2.3"
        " (output $12.00 a million tokens, not $10.00): put the provider's price into your price file" == said(row)
    )


def test_unknown_prices_are_not_zero() -> None:
    made = report([ours_of(DEAR, priced=False, cost_nanos=0, price_source="")], both(DEAR), price=None)
    assert causes(row_of(made, "2026-11-20", GPT)) == [Cause.UNPRICED]


@pytest.mark.parametrize("tolerance,agrees", [(CENT, True), (CENT // 2, False)])
def test_money_within_the_tolerance(tolerance: int, agrees: bool) -> None:
    dear = replace(DEAR, nanos=DEAR.nanos | {"output": 1_000_000_000 + CENT})
    assert report(books([DEAR]), both(dear), tolerance_nanos=tolerance).agrees is agrees


def test_batch_jobs_are_named() -> None:
    batch = replace(ONE, fresh=70, output=7, tier="batch", nanos={"fresh": 1, "output": 1})
    made = report(books([ONE]), by_tier([ONE, batch]))
    assert causes(row_of(made, "2026-11-20", GPT)) == [Cause.TIER]
    assert "exactly what the provider counted at the batch tier (batch jobs do not go through" in said(
        row_of(made, "2026-11-20", GPT)
    )


def test_a_cheaper_tier_at_the_same_tokens() -> None:
    flex = replace(DEAR, tier="flex", nanos={name: nanos // 2 for name, nanos in DEAR.nanos.items()})
    made = report(books([DEAR]), by_tier([flex]))
    assert causes(row_of(made, "2026-11-20", GPT)) == [Cause.PRICE, Cause.TIER]
    assert "1,000,000 input, 100,000 output tokens at flex" in said(row_of(made, "2026-11-20", GPT))


# ---- what our own books do not know exactly

LOST = replace(ONE, fresh=600, output=60, nanos={"fresh": 1_500_000, "output": 600_000})


@pytest.mark.parametrize(
    "standing,cause",
    [
        (Standing.ESTIMATED, Cause.ESTIMATED),
        (Standing.UNCONFIRMED, Cause.UNCONFIRMED),
        (Standing.CORRECTED, Cause.UNCONFIRMED),
    ],
)
def test_inexact_calls_explain_what_they_can(standing: Standing, cause: Cause) -> None:
    held = inexact(replace(LOST, fresh=0, output=0), standing, held_nanos=5_000_000)
    made = report([*books([ONE]), held], both(ONE, LOST))
    row = row_of(made, "2026-11-20", GPT)
    assert (made.agrees, made.exact, row.verdict, causes(row)) == (True, False, Verdict.EXPLAINED, [cause])
    assert "at most $0.005" in said(row)


def test_inexact_calls_do_not_explain_more_than_was_held() -> None:
    held = inexact(replace(DEAR, fresh=0, output=0), Standing.UNCONFIRMED, held_nanos=5_000_000)
    made = report([*books([ONE]), held], both(ONE, DEAR))
    row = row_of(made, "2026-11-20", GPT)
    assert row.verdict is Verdict.DIFFERS and {Cause.UNCONFIRMED, Cause.OUTSIDE} <= set(causes(row))


def test_nor_less_than_the_exact_calls_used() -> None:
    held = inexact(LOST, Standing.ESTIMATED, held_nanos=5_000_000)
    made = report([*books([ONE]), held], both(replace(ONE, output=9)))
    assert row_of(made, "2026-11-20", GPT).verdict is Verdict.DIFFERS


def test_an_estimate_that_hits_is_still_no_exact_agreement() -> None:
    made = report([ours_of(ONE, standing=Standing.ESTIMATED)], both(ONE))
    assert (made.agrees, made.exact, made.rows[0].verdict) == (True, False, Verdict.AGREES)


def test_over_hold_is_mentioned() -> None:
    made = report([ours_of(ONE, over_hold=True)], both(replace(ONE, output=11)))
    assert Cause.OVER_HOLD in causes(made.rows[0])


# ---- time


def test_midnight_is_an_explained_difference() -> None:
    late = replace(ONE, at_ms=NOV_21 - 60_000, fresh=500_000)
    calls = [ONE, late, replace(ONE, at_ms=NOV_21 + NOON)]
    theirs = [ONE, replace(late, at_ms=NOV_21 + 1), calls[2]]
    dear = [replace(call, nanos={"fresh": call.fresh * 2500, "output": 100_000}) for call in calls]
    made = report(books(dear), both(*[replace(call, nanos={"fresh": call.fresh * 2500, "output": 100_000}) for call in theirs]))
    assert (made.agrees, made.exact) == (True, False)
    first, second = row_of(made, "2026-11-20", GPT), row_of(made, "2026-11-21", GPT)
    assert (first.verdict, second.verdict, causes(first), causes(second)) == (
        Verdict.EXPLAINED, Verdict.EXPLAINED, [Cause.MIDNIGHT], [Cause.MIDNIGHT],
    )  # fmt: skip
    assert said(first).startswith("1 call near the midnight after the day counted on the other side")


def test_a_day_that_is_not_over() -> None:
    made = report(books([ONE]), both(replace(ONE, output=11)), now_ms=NOV_20 + NOON)
    assert Cause.UNFINISHED_DAY in causes(made.rows[0])


def test_a_part_of_a_day_is_compared_with_that_part() -> None:
    hours = exports.openai_usage([ONE], DAYS[:1], width=3600, page_size=168)
    hours[0]["data"] = hours[0]["data"][:13]
    after = ours_of(replace(ONE, at_ms=NOV_20 + 13 * 3_600_000), 2)
    assert report([*books([ONE]), after], hours).exact
    made = report([*books([ONE]), after], [*hours, *exports.openai_costs([ONE, replace(ONE, at_ms=after.started_ms)], DAYS[:1])])
    assert made.rows[0].ours.cost_nanos == 2 * 350_000, "amounts are of the whole day"
    assert made.agrees


def test_days_before_the_ledger_began() -> None:
    made = report([], both(ONE), began_ms=NOV_22)
    assert causes(made.rows[0]) == [Cause.OUTSIDE, Cause.BEFORE_LEDGER]
    assert "begin at 2026-11-22T00:00:00Z" in said(made.rows[0])
    assert "no calls at all" in said(report([], both(ONE), began_ms=None).rows[0])


def test_rows_that_were_pruned_and_calls_still_open() -> None:
    daily = {("2026-11-20", GPT): DaySum(3, Tokens(100, 0, 0, 10), 350_000)}
    made = report([], both(ONE), daily=daily, open_calls={"2026-11-20": 2})
    assert causes(made.rows[0]) == [Cause.OUTSIDE, Cause.PRUNED, Cause.OPEN]
    assert "3 calls with 100 input, 10 output tokens, $0.00035" in said(made.rows[0])


def test_days_asked_about_and_not_covered() -> None:
    made = report(books([ONE]), both(ONE), asked=(NOV_20, NOV_23 + 2 * DAY_MS))
    assert made.uncovered_days == ("2026-11-23", "2026-11-24") and not made.agrees
    assert report(books([ONE]), both(ONE), asked=(NOV_20, NOV_21)).exact


def test_days_between_that_are_left_out_are_said() -> None:
    pages = exports.openai_usage([ONE], DAYS, page_size=1)
    made = report(books([ONE]), [pages[0], pages[2]])
    assert any(note.startswith("the export leaves out 2026-11-21 to 2026-11-21") for note in made.notes)


# ---- one kind of file alone, other classes


def test_usage_alone_and_costs_alone() -> None:
    usage, costs = exports.openai_usage([ONE], DAYS), exports.openai_costs([ONE], DAYS)
    only_usage, only_costs = report(books([ONE]), usage), report(books([ONE]), costs)
    assert only_usage.agrees and only_usage.rows[0].theirs.cost_nanos is None and only_usage.rows[0].ours.cost_nanos == 350_000
    assert only_costs.agrees and only_costs.rows[0].theirs.tokens is None
    assert only_usage.notes == ("the files hold no amounts: money is not compared",)
    assert only_costs.notes == ("the files hold amounts only: tokens are not compared",)
    dear = exports.openai_costs([DEAR], DAYS)
    (row,) = report(books([ONE]), dear).rows
    assert causes(row) == [Cause.OUTSIDE] and "give its usage export as well" in said(row)
    unequal = report(books([ONE]), [*usage, *exports.openai_costs([ONE], DAYS[:1])])
    assert "tokens are compared on 3 day(s), amounts on 1: the files do not cover the same time" in unequal.notes


def test_fees_that_the_provider_bills_apart() -> None:
    search = replace(DEAR, searches=2, nanos=DEAR.nanos | {"searches": 20_000_000})
    made = report(books([search]), both(search))
    assert (made.agrees, made.exact, made.rows[0].verdict) == (True, False, Verdict.EXPLAINED)
    assert causes(made.rows[0]) == [Cause.FEES]
    (fee,) = made.fees
    assert (fee.label, fee.cost_nanos, fee.explained) == ("web search tool calls", 20_000_000, True)
    unknown = report(books([DEAR]), both(search))
    assert not unknown.agrees and [fee.explained for fee in unknown.fees] == [False]
    cheap = ours_of(search, cost_nanos=sum(search.nanos.values()) + 5 * CENT)
    other = report([cheap], both(search))
    assert not other.agrees and [fee.explained for fee in other.fees] == [False], "the fee is not what the amounts differ by"
    small = replace(DEAR, searches=1, nanos=DEAR.nanos | {"searches": CENT})
    assert report(books([DEAR]), both(small)).agrees, "a fee within the tolerance of a day"


def test_requests_alone_do_not_make_a_difference_but_are_mentioned() -> None:
    failed = ours_of(replace(ONE, fresh=0, output=0, nanos={}), 5)
    split = [replace(ONE, fresh=60, output=10), replace(ONE, fresh=40, output=0)]
    made = report([*books([ONE]), failed], exports.openai_usage(split, DAYS))
    assert made.agrees and causes(made.rows[0]) == [Cause.REQUESTS]
    assert "counted 2 request(s), we 1; 1 call of ours failed and used no tokens" in said(made.rows[0])


def test_classes_that_the_logs_forgot() -> None:
    call = replace(ONE, cache_read=30)
    tokens = replace(ours_of(call).tokens, cache_read=None, cache_write=None)
    made = report([ours_of(call, tokens=tokens)], exports.openai_usage([call], DAYS))
    assert (made.agrees, made.exact, causes(made.rows[0])) == (True, False, [Cause.CLASSES])


def test_rounding_of_the_console_is_said() -> None:
    calls = [replace(ONE, model=CLAUDE, at_ms=ONE.at_ms + n, nanos={"fresh": 4_900_000, "output": 4_900_000}) for n in range(1)]
    made = report(
        books(calls),
        [exports.console_usage_csv(calls, DAYS), exports.console_costs_csv(calls, DAYS, {CLAUDE: "Claude Haiku 4.5"})],
        tolerance_nanos=1_000_000,
    )
    assert made.agrees and causes(made.rows[0]) == [Cause.ROUNDING]
    assert "rounded each of 2 amounts to the cent" in said(made.rows[0])


def test_nothing_on_either_side() -> None:
    made = report([], exports.openai_usage([ONE], DAYS), asked=(NOV_22, NOV_23))
    assert made.rows == () and not made.agrees
