"""Both sides added up: what counts where, when tokens and amounts cover different time, and what stands near midnight."""

from dataclasses import replace

from store.reconcile.names import Names
from store.reconcile.spans import Coverage
from store.reconcile.sums import EDGE_MS, MIDNIGHT_MS, Theirs, add_ours, add_theirs
from store.reconcile.types import CostRow, Export, OurCall, Standing, Tokens, UsageRow
from tests.store.reconcile.exports_here import NOV_20, NOV_21, NOV_22

NOON = 12 * 3_600_000
CALL = OurCall("c", NOV_20 + NOON, NOV_20 + NOON + 1, "m", "m", Tokens(10, 1, 2, 3), 40, 50)
NAMES = Names(["m", "gpt-4o-2024-08-06"])
WHOLE = Coverage([(NOV_20, NOV_21)])


def test_theirs_by_day_model_and_class() -> None:
    usage = (
        UsageRow(NOV_20, NOV_21, "m", Tokens(10, 1, 2, 3), requests=2, tier="flex", web_searches=1),
        UsageRow(NOV_20 + 60_000, NOV_20 + 120_000, "m", Tokens(5, 1, None, 3), requests=None),
        UsageRow(NOV_21, NOV_22, "m", Tokens(999, 0, 0, 0)),
    )
    costs = (
        CostRow(NOV_20, NOV_21, "m", "m, input", 7, "input", rounding_nanos=2),
        CostRow(NOV_20, NOV_21, "m", "m, output", 8, "output", rounding_nanos=2),
        CostRow(NOV_20, NOV_21, "", "search", 5),
        CostRow(NOV_20, NOV_21, "", "search", 6),
        CostRow(NOV_20, NOV_21, "", "nothing", 0),
    )
    made = add_theirs(Export("openai", usage, costs), NAMES, WHOLE, WHOLE)
    (row,) = made.rows.values()
    assert row == Theirs(
        requests=None, tokens=Tokens(15, 2, None, 6), web_searches=1, tiers={"flex": Tokens(10, 1, 2, 3)}, cost_nanos=15,
        rounding_nanos=4, amounts=2, cost_by_class=row.cost_by_class, has_usage=True, has_costs=True,
    )  # fmt: skip
    assert dict(row.cost_by_class) == {"input": 7, "output": 8}
    assert made.fees == {(NOV_20, "search"): 11}


def test_ours_exact_and_inexact_apart() -> None:
    lost = replace(CALL, standing=Standing.UNCONFIRMED, tokens=Tokens(0, 0, 0, 0), cost_nanos=90, held_nanos=80, over_hold=True)
    guess = replace(CALL, standing=Standing.ESTIMATED, tokens=Tokens(10, None, None, 3), priced=False)
    made = add_ours([CALL, lost, guess, replace(CALL, tokens=Tokens(), cost_nanos=0)], NAMES, WHOLE, WHOLE).rows[NOV_20, "m"]
    assert (made.requests, made.failed, made.cost_nanos, made.exact_cost_nanos) == (3, 1, 170, 40)
    assert (made.tokens, made.exact_tokens) == (Tokens(20, None, None, 6), Tokens(10, 1, 2, 3))
    assert made.most_inexact_nanos == 90 + 50
    assert (made.over_hold, made.unpriced, made.classes_lost) == (1, 1, 1)


def test_tokens_and_amounts_of_different_time() -> None:
    morning = Coverage([(NOV_20, NOV_20 + NOON)])
    evening = replace(CALL, started_ms=NOV_20 + NOON + 5)
    early = replace(CALL, started_ms=NOV_20 + 5)
    made = add_ours([early, evening], NAMES, morning, WHOLE).rows[NOV_20, "m"]
    assert (made.requests, made.tokens.input, made.cost_nanos) == (1, 10, 80)
    made = add_ours([early, evening], NAMES, morning, Coverage([])).rows[NOV_20, "m"]
    assert made.cost_nanos == 40, "without amounts of theirs ours are of the calls whose tokens are compared"
    assert add_ours([replace(CALL, started_ms=NOV_21)], NAMES, WHOLE, WHOLE).rows == {}


def test_matches_by_family_are_told_of_calls_that_count() -> None:
    short = replace(CALL, asked="gpt-4o", answered="")
    made = add_ours([short, CALL, replace(short, asked="GPT-4o-2024-08-06")], NAMES, WHOLE, WHOLE)
    assert made.aliases == {"gpt-4o": "gpt-4o-2024-08-06"}
    failed = replace(short, tokens=Tokens(), cost_nanos=0)
    assert add_ours([failed], NAMES, WHOLE, WHOLE).aliases == {}


def test_who_stands_near_midnight() -> None:
    def near(started_ms: int, ended_ms: int) -> list[int]:
        return sorted(add_ours([replace(CALL, started_ms=started_ms, ended_ms=ended_ms)], NAMES, WHOLE, WHOLE).near.get("m", {}))

    assert near(NOV_20 + NOON, NOV_20 + NOON) == []
    assert near(NOV_21 - MIDNIGHT_MS, NOV_21 - MIDNIGHT_MS) == [NOV_21]
    assert near(NOV_21 - MIDNIGHT_MS - 1, NOV_21 - MIDNIGHT_MS - 1) == []
    assert near(NOV_21 + MIDNIGHT_MS, NOV_21 + NOON) == [NOV_21]
    assert near(NOV_21 + MIDNIGHT_MS + 1, NOV_21 + NOON) == []
    assert near(NOV_21 - EDGE_MS, NOV_21 + 1) == [NOV_21], "a long call that ran across it"
    assert near(NOV_20 + NOON, NOV_22 + NOON) == [], "booked two days later does not mean that it ran so long"
